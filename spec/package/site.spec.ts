/** `npm run docs` builds a site of the reference and of the pages, and its links lead somewhere. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { apart } from '../support/built-package.js';
import { installedTool } from '../support/tools.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

describe('site of the documentation', function () {
  this.timeout(300_000);

  let site: string;
  /** The pages' HTML, by their path below the site's folder. */
  let pages: Map<string, string>;

  before(function () {
    const typedoc = installedTool(this, 'typedoc/bin/typedoc');
    site = apart('site');
    const args = [typedoc, '--options', path.join(ROOT, 'tools/site/typedoc.json'), '--out', site];
    // TypeDoc treats its warnings as errors, of a link without a target for instance.
    execFileSync(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'] });
    const files = fs.readdirSync(site, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.html'));
    pages = new Map(files.map((file) => [posix(file), fs.readFileSync(path.join(site, file), 'utf8')]));
  });

  after(() => {
    if (site) fs.rmSync(site, { recursive: true, force: true, maxRetries: 3 });
  });

  it('has links and images that lead to files and headings which are there', () => {
    const broken: string[] = [];
    for (const [page, html] of pages) {
      for (const link of linksOf(html)) if (!leadsSomewhere(page, link)) broken.push(`${page}: ${link}`);
    }
    assert.deepEqual(broken, []);
  });

  it('has a page for each page of the documentation', () => {
    const documents = fs.readdirSync(path.join(ROOT, 'docs')).filter((file) => file.endsWith('.md'));
    for (const document of documents) {
      assert(pages.has(`documents/${document.replace(/\.md$/, '.html')}`), `${document} is not on the site`);
    }
    assert.match(pages.get('index.html') as string, /<h1 id="express-pg-store"/);
  });

  it('leads from a link to a source file to its page of the reference', () => {
    const links = linksOf(pages.get('documents/reference.html') as string);
    for (const page of ['classes/PgStore', 'classes/PgStoreError', 'interfaces/PgStoreOptions']) {
      assert(links.includes(`../${page}.html`), `documents/reference.html does not link to ${page}`);
    }
  });

  it('describes each public name, and none that is not public', () => {
    for (const name of publicNames()) {
      const page = ['classes', 'interfaces', 'types', 'functions', 'variables'].find((folder) =>
        pages.has(`${folder}/${name}.html`),
      );
      assert(page, `the reference has no page for ${name}`);
    }
    for (const [page, html] of pages) assert.doesNotMatch(html, /TypedStore/, page);
  });

  function leadsSomewhere(page: string, link: string): boolean {
    if (/^[a-z]+:/.test(link)) return true;
    const [file = '', anchor] = link.split('#');
    const target = file ? path.posix.join(path.posix.dirname(page), decodeURIComponent(file)) : page;
    const html = pages.get(target);
    if (html === undefined) return fs.existsSync(path.join(site, target));
    return !anchor || html.includes(`id="${decodeURIComponent(anchor)}"`);
  }
});

describe('docs/reference.md', () => {
  it('names each public name of the package', () => {
    const page = fs.readFileSync(path.join(ROOT, 'docs/reference.md'), 'utf8');
    for (const name of publicNames()) assert.match(page, new RegExp(`\`${name}\``), `it does not name ${name}`);
  });

  it('links to the file that declares the name', () => {
    const folder = path.join(ROOT, 'docs');
    const page = fs.readFileSync(path.join(folder, 'reference.md'), 'utf8');
    const links = [...page.matchAll(/\[([^\]]*)\]\((\.\.\/lib\/[^)]*)\)/g)];
    assert(links.length > 10);
    for (const [, names = '', file = ''] of links) {
      const source = fs.readFileSync(path.join(folder, file), 'utf8');
      for (const [, name] of names.matchAll(/`(\w+)`/g)) {
        assert.match(
          source,
          new RegExp(`export (class|interface|type) ${name}\\b`),
          `${file} does not declare ${name}`,
        );
      }
    }
  });
});

/** The names that lib/index.ts exports, but for the default export, which is one of them. */
function publicNames(): string[] {
  const index = fs.readFileSync(path.join(ROOT, 'lib/index.ts'), 'utf8');
  const lists = [...index.matchAll(/^export (?:type )?\{([^}]*)\}/gms)].flatMap(([, list = '']) => list.split(','));
  const names = lists.map((item) => item.trim()).filter((item) => item !== '' && !item.includes(' as default'));
  assert(names.includes('PgStore'));
  return names.map((name) => name.replace(/^type /, ''));
}

/** What the page's links and images name, but for the empty links that its scripts fill in. */
function linksOf(html: string): string[] {
  const found = [...html.matchAll(/ (?:href|src)="([^"]*)"/g)].map(([, link = '']) => link.replaceAll('&amp;', '&'));
  return found.filter((link) => link !== '' && link !== '#');
}

function posix(file: string): string {
  return file.replaceAll(path.sep, '/');
}
