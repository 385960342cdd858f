/**
 * `npm run coverage`: what of lib/ the specs run, in all processes that they start. It leaves out the spec that itself
 * measures coverage, since V8 counts for one at a time.
 */
export default {
  outputDir: 'coverage',
  reports: ['console-details'],
  entryFilter: ({ url }) => url.startsWith(new URL('lib/', import.meta.url).href),
  // Not what esbuild adds of its own.
  sourceFilter: (file) => file.endsWith('.ts'),
  // V8 reports a class's initializers as ranges that span the class, and the reporter takes all of its methods for run.
  onEntry: (entry) => {
    entry.functions = entry.functions.filter(
      ({ functionName, ranges }) => !(functionName.endsWith('_initializer>') && ranges[0].count > 0),
    );
  },
  // These files have types alone.
  all: {
    dir: 'lib',
    filter: {
      '**/{client/client,session/public-types,session/row}.ts': false,
      '**/*.ts': true,
    },
  },
};
