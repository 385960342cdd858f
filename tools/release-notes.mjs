/**
 * Prints the section of CHANGELOG.md that describes package.json's version, without its heading.
 * If there is none, the version is not meant to be released yet: it prints nothing and fails.
 *
 *     node tools/release-notes.mjs
 */

import fs from 'node:fs';

const { version } = JSON.parse(fs.readFileSync('package.json', 'utf8'));
const sections = fs.readFileSync('CHANGELOG.md', 'utf8').split(/^## /m).slice(1);
const notes = sections.find((section) => section.split(/[\s\]]/)[0].replace('[', '') === version);

if (notes === undefined) {
  console.error(`CHANGELOG.md has no section for version ${version}.`);
  process.exitCode = 1;
} else {
  console.log(notes.slice(notes.indexOf('\n')).trim());
}
