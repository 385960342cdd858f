/**
 * Does the suite pass on a Citus cluster? Each spec's table is distributed by its shards.
 *
 *     CITUS_URL=postgres://postgres@coordinator/postgres npm run test:citus -- [spec files]
 *
 * Starts no server. Left out are the specs that start servers of their own or test the package, and
 * those of tables that are changed by hand in ways that Citus refuses.
 */

import { spawnSync } from 'node:child_process';
import path from 'node:path';

const ELSEWHERE = [
  'package/*',
  'apps/example*',
  'faults/{failover,faults*,pgbouncer,tls}',
  // What Citus refuses by nature: `for update` by hand over all shards, changes of columns' types.
  'faults/hostile-input',
];

const { CITUS_URL } = process.env;
if (!CITUS_URL) {
  console.error('CITUS_URL is not set: expected the URL of a Citus coordinator with its workers added');
  process.exit(2);
}
const given = process.argv.slice(2);
const ignored = ELSEWHERE.flatMap((name) => ['--ignore', `spec/${name}.spec.ts`]);
const specs = given.length > 0 ? given : ['spec/**/*.spec.ts', ...ignored];
const mocha = path.resolve(import.meta.dirname, '../../node_modules/mocha/bin/mocha.js');
const env = { ...process.env, DATABASE_URL: CITUS_URL, SESSIONS_SHARDS: '8' };
const { status } = spawnSync(process.execPath, [mocha, '--parallel', ...specs], { env, stdio: 'inherit' });
process.exitCode = status ?? 1;
