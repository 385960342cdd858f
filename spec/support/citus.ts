/**
 * Runs the specs on a Citus cluster, where each spec's table is distributed by its shards.
 *
 *     CITUS_URL=postgres://postgres@coordinator/postgres npm run test:citus -- [spec files]
 *
 * It starts no server. It leaves out the specs that start servers of their own or test the package, and those that
 * change tables by hand in ways that Citus refuses.
 */

import { spawnSync } from 'node:child_process';
import path from 'node:path';

const ELSEWHERE = [
  'package/*',
  'apps/example*',
  'faults/{failover,faults*,pgbouncer,tls}',
  // Citus supports neither `for update` over all shards nor changes of columns' types, which these specs do by hand.
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
