/**
 * What the site of the documentation needs beyond TypeDoc's options. The pages are written for
 * GitHub first, so the plugin gives their titles and their links a meaning on the site.
 */

import fs from 'node:fs';
import path from 'node:path';
import { Application, Converter, DocumentReflection, ReflectionKind, RendererEvent, Slugger } from 'typedoc';

/** A link to one of these files leads to a page that shows it; a browser would download it. */
const CODE = { '.ts': 'ts', '.mts': 'ts', '.cts': 'ts', '.js': 'js', '.mjs': 'js', '.cjs': 'js', '.sql': 'sql' };

/** This base class only gives express-session's `Store` typed events. Readers see that `Store`. */
const BASE_CLASS = 'TypedStore';

const ROOT = path.resolve(import.meta.dirname, '../..');

/** @param {import('typedoc').Application} app */
export function load(app) {
  // Headings get the anchors that GitHub gives them, so a link to a heading works in both places.
  Slugger.prototype.serialize = githubAnchor;
  app.on(Application.EVENT_BOOTSTRAP_END, () => {
    app.options.setValue('markdownItLoader', ({ core }) => core.ruler.push('code_of_headings', showCodeOfHeadings));
  });

  // TypeDoc names a document of several folders by its path. The name becomes the page's address.
  app.converter.on(Converter.EVENT_CREATE_DOCUMENT, (_context, document) => {
    document.name = path.basename(document.name);
  });

  // The lowest priority, so that TypeDoc has read all pages, the README included.
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => linkFilesToPages(project), -1000);

  app.converter.on(Converter.EVENT_RESOLVE_END, ({ project }) => hideBaseClass(project), -1000);
  app.converter.on(Converter.EVENT_RESOLVE_END, ({ project }) => hideSources(project), -1000);

  // From here on the addresses are fixed, and names are only shown.
  app.renderer.on(RendererEvent.BEGIN, ({ project }) => {
    for (const document of project.documents ?? []) document.name = title(document) ?? document.name;
  });
}

/**
 * The place of a name in the sources is needed to find its page, but there is no address yet to which it could link.
 *
 * @param {import('typedoc').ProjectReflection} project
 */
function hideSources(project) {
  for (const reflection of Object.values(project.reflections)) {
    delete reflection.sources;
    for (const signature of reflection.signatures ?? []) delete signature.sources;
  }
}

/**
 * A link to a source file whose docstrings the reference contains leads to the reference. A link
 * to other code leads to a page of its own that shows that file.
 *
 * @param {import('typedoc').ProjectReflection} project
 */
function linkFilesToPages(project) {
  const reference = referencePages(project);
  for (const file of project.files.getMediaPaths()) {
    const page = reference.get(path.normalize(file));
    const language = CODE[path.extname(file)];
    if (page) project.files.registerReflectionPath(file, page);
    else if (language) addCodePage(project, file, language);
  }
}

/**
 * The page of the reference for each source file: that of its class, or of its first type.
 *
 * @param {import('typedoc').ProjectReflection} project
 */
function referencePages(project) {
  const pages = new Map();
  const classesFirst = [...project.children].sort((a, b) => rank(a) - rank(b));
  for (const reflection of classesFirst) {
    const file = path.normalize(reflection.sources?.[0]?.fullFileName ?? '');
    if (!pages.has(file)) pages.set(file, reflection);
  }
  return pages;
}

function rank(reflection) {
  return reflection.kindOf(ReflectionKind.Class) ? 0 : 1;
}

function addCodePage(project, file, language) {
  const code = { kind: 'code', text: `\`\`\`${language}\n${fs.readFileSync(file, 'utf8')}\`\`\`` };
  const document = new DocumentReflection(path.relative(ROOT, file), project, [code], { group: 'Code' });
  project.addChild(document);
  project.registerReflection(document, undefined, file);
}

/** @param {import('typedoc').ProjectReflection} project */
function hideBaseClass(project) {
  for (const reflection of Object.values(project.reflections)) {
    for (const type of reflection.extendedTypes ?? []) {
      if (type.name === BASE_CLASS) type.name = "express-session's Store";
    }
    if (reflection.overwrites?.name.startsWith(BASE_CLASS)) delete reflection.overwrites;
    if (reflection.inheritedFrom?.name.startsWith(BASE_CLASS)) delete reflection.inheritedFrom;
  }
}

/** @param {string} heading */
function githubAnchor(heading) {
  return heading
    .trim()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .replace(/\s/g, '-');
}

/**
 * TypeDoc makes a heading's anchor from tokens of type `text` and leaves out code. Each code token
 * of a heading gets its text as a child, which TypeDoc reads and which is not rendered.
 */
function showCodeOfHeadings({ tokens, Token }) {
  for (const [n, { children }] of tokens.entries()) {
    if (tokens[n - 1]?.type !== 'heading_open') continue;
    for (const code of children.filter(({ type }) => type === 'code_inline')) {
      const text = new Token('text', '', 0);
      text.content = code.content;
      code.children = [text];
    }
  }
}

/** The text of the document's first heading, without Markdown's signs. */
function title(document) {
  const [part] = document.content;
  return /^# +(.+)$/m.exec(part?.text ?? '')?.[1].replaceAll('`', '');
}
