/** A release is refused where it would be broken, and described by the changelog. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { apart } from '../support/built-package.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

describe('release', () => {
  let folder: string;

  beforeEach(() => {
    folder = apart('release');
  });

  afterEach(() => fs.rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));

  describe('npm publish', () => {
    const complete = {
      repository: { type: 'git', url: 'git+https://example.org/store.git' },
      bugs: 'https://example.org/issues',
      homepage: 'https://example.org/',
    };

    it('runs the check of these fields first', () => {
      const { scripts } = JSON.parse(fs.readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
      assert.equal(scripts.prepublishOnly, 'node tools/before-publish.mjs');
    });

    it('refuses a package without `repository`, `bugs` and `homepage`, and names them', async () => {
      write({});
      const { code, stderr } = await run('before-publish.mjs');
      assert.equal(code, 1);
      assert.match(stderr, /lacks repository, bugs, homepage\./);
    });

    it('refuses fields that are empty', async () => {
      write({ ...complete, repository: { type: 'git', url: '' }, homepage: '' });
      const { code, stderr } = await run('before-publish.mjs');
      assert.equal(code, 1);
      assert.match(stderr, /lacks repository, homepage\./);
    });

    it('goes on with all of them', async () => {
      write(complete);
      assert.deepEqual(await run('before-publish.mjs'), { code: 0, stdout: '', stderr: '' });
    });
  });

  describe('the notes', () => {
    const changelog = '# Changelog\n\n## 1.2.0\n### Minor Changes\n\n- New.\n\n## [1.1.0] - 2026-01-01\n\n- Old.\n';

    for (const [version, notes] of [
      ['1.2.0', '### Minor Changes\n\n- New.\n'],
      ['1.1.0', '- Old.\n'],
    ] as const) {
      it(`are the section of version ${version} in the changelog`, async () => {
        write({ version }, changelog);
        assert.deepEqual(await run('release-notes.mjs'), { code: 0, stdout: notes, stderr: '' });
      });
    }

    it('fail for a version that the changelog does not describe', async () => {
      write({ version: '1.2' }, `## [Unreleased]\n\n- Newer.\n\n${changelog}`);
      const { code, stdout, stderr } = await run('release-notes.mjs');
      assert.deepEqual([code, stdout], [1, '']);
      assert.match(stderr, /no section for version 1\.2\./);
    });
  });

  it('turns changesets into lines of the changelog as they are written', async () => {
    const { default: changelog } = await import(path.join(ROOT, '.changeset/changelog.cjs'));
    const line = await changelog.getReleaseLine({ summary: 'One line,\nand another.\n' });
    assert.equal(line, '- One line,\n  and another.');
  });

  function write(manifest: object, changelog = '# Changelog\n'): void {
    fs.writeFileSync(path.join(folder, 'package.json'), JSON.stringify(manifest));
    fs.writeFileSync(path.join(folder, 'CHANGELOG.md'), changelog);
  }

  /** Runs a script of tools/ in the folder, as npm and the workflow run it in the project's. */
  function run(script: string): Promise<{ code: number; stdout: string; stderr: string }> {
    const env = { ...process.env, NODE_OPTIONS: '' };
    return new Promise((resolve) => {
      const args = [path.join(ROOT, 'tools', script)];
      execFile(process.execPath, args, { cwd: folder, env }, (error, stdout, stderr) => {
        resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
      });
    });
  }
});
