/**
 * Runs specs in the runtime that runs this file, Bun or Deno: Mocha's command line starts Node.js.
 *
 *     bun spec/tools/mocha-here.ts spec/store/contract.spec.ts
 */

import path from 'node:path';
import Mocha from 'mocha';
import { mochaGlobalTeardown } from '../support/hooks.js';

const mocha = new Mocha({ timeout: 60_000, forbidOnly: true });
for (const file of process.argv.slice(2)) mocha.addFile(path.resolve(file));
await mocha.loadFilesAsync();
mocha.run(async (failures) => {
  process.exitCode = failures > 0 ? 1 : 0;
  await mochaGlobalTeardown();
});
