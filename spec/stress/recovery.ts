/**
 * How soon does a store work normally again after a fault, with load going on?
 *
 * Calls arrive at a fixed rate, whether those before them have been answered or not: reads, saves, and sign-ins that
 * are each followed by `destroySessionsOf(user, { except })`. Between the faults each second's median is compared with
 * the median before the first one.
 *
 *     npm run recovery -- --rate 400
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import postgres from 'postgres';
import { PgStore } from '../../lib/index.js';
import { PostgresServer } from '../support/postgres-server.js';
import { load, plain } from '../support/sessions.js';

/** How many seconds a store may take until it works normally again. */
const LIMIT_S = 10;
/** How many times as long as before a call may take then. */
const FACTOR = 2;
/** Medians below this, in milliseconds, count as this much: the event loop's own steps are as long. */
const LEAST_MS = 2;
const SESSIONS = 1000;

interface Fault {
  readonly name: string;
  inject(): Promise<void>;
}

interface Recovery {
  readonly fault: string;
  /** Seconds from the end of the fault, `undefined` where it took longer than the limit. */
  readonly seconds: number | undefined;
  readonly failedCalls: number;
}

/** A load that does not wait for answers. */
class OpenLoad {
  /** Milliseconds of the calls that began in this second; Infinity for those without an answer yet, and failed ones. */
  #current: { ms: number }[] = [];
  failed = 0;
  /** By session ID, the last number whose save was acknowledged. */
  readonly acknowledged = new Map<string, number>();
  readonly #store: PgStore;
  readonly #timer: NodeJS.Timeout;
  readonly #running = new Set<Promise<unknown>>();
  #number = 0;

  constructor(store: PgStore, rate: number) {
    this.#store = store;
    const batch = Math.max(1, Math.round(rate / 50));
    this.#timer = setInterval(() => {
      for (let n = 0; n < batch; n++) this.#call();
    }, 20);
  }

  /** The median of the calls that begin in the next second; those without an answer a second later count as endless. */
  async median(): Promise<number> {
    this.#current = [];
    const calls = this.#current;
    await sleep(1000);
    this.#current = [];
    await sleep(1000);
    const sorted = calls.map(({ ms }) => ms).sort((one, other) => one - other);
    return sorted[sorted.length >> 1] ?? Number.POSITIVE_INFINITY;
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#running);
  }

  #call(): void {
    const number = ++this.#number;
    if (number % 10 === 0) this.#measure(this.#signIn(number));
    else if (number % 10 < 4) this.#measure(this.#save(number));
    else this.#measure(this.#store.get(`s${number % SESSIONS}`));
  }

  #measure(work: Promise<unknown>): void {
    const call = { ms: Number.POSITIVE_INFINITY };
    const started = performance.now();
    this.#current.push(call);
    const done = work.then(
      () => {
        call.ms = performance.now() - started;
      },
      () => {
        this.failed++;
      },
    );
    this.#running.add(done);
    void done.then(() => this.#running.delete(done));
  }

  /** Each save has a session of its own within its second: the acknowledged number is then what must be stored. */
  async #save(number: number): Promise<void> {
    const sid = `s${number % SESSIONS}`;
    const session = await load(this.#store, sid);
    if (!session) throw new Error('a session is gone');
    session[`n${number % 7}`] = number;
    await this.#store.set(sid, session);
    this.acknowledged.set(`${sid} n${number % 7}`, number);
  }

  async #signIn(number: number): Promise<void> {
    const user = `u${number}`;
    await this.#store.set(`l${number}`, plain({ user }));
    await this.#store.destroySessionsOf(user, { except: `l${number}` });
  }
}

const { values } = parseArgs({ options: { rate: { type: 'string', default: '400' } } });
const rate = Number(values.rate);
if (!(rate >= 50)) throw new TypeError('--rate: expected 50 calls a second or more');

const server = await PostgresServer.start();
const store = new PgStore({ uri: server.uri, user: (session: any) => session.user, autodelete: false });
for (let n = 0; n < SESSIONS; n++) await store.set(`s${n}`, plain({}, 3_600_000));

const faults: Fault[] = [
  {
    name: 'table locked for 2 s',
    async inject() {
      const sql = postgres(server.uri, { max: 1 });
      await sql.begin(async (transaction) => {
        await transaction`lock table public.sessions`;
        await sleep(2000);
      });
      await sql.end();
    },
  },
  {
    name: 'server stopped (SIGSTOP) for 5 s',
    async inject() {
      server.signalAll('SIGSTOP');
      await sleep(5000);
      server.signalAll('SIGCONT');
    },
  },
  { name: 'server restarted', inject: () => server.restart('fast') },
];

const traffic = new OpenLoad(store, rate);
await traffic.median();
const before = Math.max(LEAST_MS, await traffic.median());
console.log(`median before: ${before.toFixed(1)} ms at ${rate} calls a second`);
const recoveries: Recovery[] = [];
for (const fault of faults) {
  const failedBefore = traffic.failed;
  await fault.inject();
  const ended = performance.now();
  let seconds: number | undefined;
  while (seconds === undefined && performance.now() - ended < LIMIT_S * 1000) {
    const started = performance.now();
    if ((await traffic.median()) <= FACTOR * before) seconds = (started - ended) / 1000;
  }
  recoveries.push({ fault: fault.name, seconds, failedCalls: traffic.failed - failedBefore });
}
await traffic.stop();

let lost = 0;
for (const [place, number] of traffic.acknowledged) {
  const [sid, name] = place.split(' ') as [string, string];
  if (!(Number(((await store.get(sid)) as any)?.[name]) >= number)) lost++;
}
await store.close();
await server.close();

for (const { fault, seconds, failedCalls } of recoveries) {
  const when = seconds === undefined ? `not within ${LIMIT_S} s` : `after ${seconds.toFixed(1)} s`;
  console.log(`${fault}: as before ${when}; ${failedCalls} calls failed`);
}
console.log(`${traffic.acknowledged.size} acknowledged saves looked at, ${lost} lost`);
process.exitCode = lost > 0 || recoveries.some(({ seconds }) => seconds === undefined) ? 1 : 0;
