/**
 * Runs before `npm publish`, which has no other way to refuse. Without these fields npm's page of
 * the package leads nowhere: README's links and pictures are resolved by `repository`.
 *
 *     node tools/before-publish.mjs
 */

import fs from 'node:fs';

const FIELDS = ['repository', 'bugs', 'homepage'];

const manifest = JSON.parse(fs.readFileSync('package.json', 'utf8'));
const missing = FIELDS.filter((field) => !manifest[field] || !(manifest[field].url ?? manifest[field]));

if (missing.length > 0) {
  console.error(`Not published: package.json lacks ${missing.join(', ')}.`);
  console.error('CONTRIBUTING.md, "A release", says what to write there.');
  process.exitCode = 1;
}
