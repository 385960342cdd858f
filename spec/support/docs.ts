/** Reads code from the documentation, so that specs run exactly the code that it shows. */

import fs from 'node:fs';

/** The code block of a Markdown file that contains the given text; there must be exactly one. */
export function documented(file: string, language: string, text: string): string {
  const page = fs.readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8');
  const blocks = [...page.matchAll(/^```(\w+)\n(.*?)^```$/gms)].filter(([, name]) => name === language);
  const found = blocks.flatMap(([, , code]) => (code?.includes(text) ? [code] : []));
  if (found.length !== 1) throw new Error(`${file} has ${found.length} code blocks (${language}) with: ${text}`);
  return found[0] as string;
}
