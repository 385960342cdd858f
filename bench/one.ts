/**
 * Measures one operation of one store, and writes a CPU profile of it.
 *
 *     npx tsx bench/one.ts --store PgStore --operation get --in-flight 128 --seconds 5 --profile get.cpuprofile
 *
 * The profile covers only the measured seconds. The developer tools of Chrome and VS Code open it.
 */

import diagnostics from 'node:diagnostics_channel';
import fs from 'node:fs';
import inspector from 'node:inspector/promises';
import { parseArgs } from 'node:util';
import { PostgresServer } from '../spec/support/postgres-server.js';
import { startRedis } from '../spec/support/redis-server.js';
import { measure } from './figures/measure.js';
import { figure } from './figures/report.js';
import { type Operation, prepare } from './parts/calls.js';
import { build } from './stores/build.js';
import { openPeer, type PeerName } from './stores/peers.js';

const { values } = parseArgs({
  options: {
    store: { type: 'string', default: 'PgStore' },
    operation: { type: 'string', default: 'get' },
    'in-flight': { type: 'string', default: '128' },
    seconds: { type: 'string', default: '5' },
    profile: { type: 'string' },
  },
});

build();
const postgres = await PostgresServer.start();
const redis = values.store.startsWith('connect-redis') ? await startRedis() : undefined;
let statements = 0;
diagnostics.subscribe('express-pg-store:statement', () => {
  statements++;
});
const peer = await openPeer(values.store as PeerName, { postgres: postgres.uri, redis: redis?.url }, { touchAfter: 0 });
const { calls } = await prepare(peer);
const call = calls[values.operation as Operation];
const inFlight = Number(values['in-flight']);
await measure(call, inFlight, 1000);

const profiler = values.profile ? new inspector.Session() : undefined;
profiler?.connect();
await profiler?.post('Profiler.enable');
await profiler?.post('Profiler.start');
statements = 0;
const { rate, p50, p99, cpu } = await measure(call, inFlight, Number(values.seconds) * 1000);
console.log(`${figure(rate)} a second, p50 ${figure(p50)} ms, p99 ${figure(p99)} ms, CPU ${figure(cpu)} µs a call`);
if (statements > 0) console.log(`${figure((rate * Number(values.seconds)) / statements)} calls a statement`);
const result = await profiler?.post('Profiler.stop');
if (result && values.profile) fs.writeFileSync(values.profile, JSON.stringify(result.profile));

await peer.close();
await postgres.close();
await redis?.close();
