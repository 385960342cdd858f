/** A TCP proxy between a store and its server, which can cut connections, lose answers and drop packets. */

import net from 'node:net';
import { PASSWORD } from './postgres-server.js';

interface Link {
  readonly client: net.Socket;
  readonly server: net.Socket;
  /** Steps that forward what has arrived while the proxy dropped packets, in order. */
  held: (() => void)[];
  /** Whether the server's next complete answer is lost, and the connection with it. */
  losesAnswer: boolean;
}

/**
 * What happens to a chunk of data. `cut`: the connection is reset, and the chunk is lost; `halve`: it is reset after
 * half of the chunk; `swallow`: the chunk and all that follow are lost without a reset; a number: the chunk is late by
 * so many milliseconds.
 */
export type ChunkFault = 'cut' | 'halve' | 'swallow' | number;

/**
 * The end of each of PostgreSQL's answers: the message ReadyForQuery with status "idle". When it arrives, the statement
 * has been committed.
 */
const READY = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);

export class FaultProxy {
  readonly port: number;
  readonly #listener: net.Server;
  readonly #links = new Set<Link>();
  /** By socket, the chunks that follow one which is late or was swallowed. */
  readonly #late = new WeakMap<net.Socket, (() => void)[]>();
  #silent = false;
  #refusing = false;
  /** Texts of statements in the middle of which the connection is cut. */
  readonly #cutIn: string[] = [];
  /** Texts of statements whose answer is lost. */
  readonly #loseAnswerTo: string[] = [];
  /** How many of the faults by text have happened. */
  hits = 0;
  /** Decides what happens to each chunk, in both directions; `undefined`: it passes. */
  chunkFault: () => ChunkFault | undefined = () => undefined;

  private constructor(listener: net.Server, target: () => number) {
    this.#listener = listener;
    this.port = (listener.address() as net.AddressInfo).port;
    listener.on('connection', (client) => this.#connected(client, target()));
  }

  /** @param target returns the server's port on 127.0.0.1; it is called for each connection */
  static async start(target: () => number): Promise<FaultProxy> {
    const listener = net.createServer({ allowHalfOpen: true });
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    return new FaultProxy(listener, target);
  }

  /** The connection string that leads through this proxy to a server that this process has started. */
  get uri(): string {
    return `postgres://postgres:${PASSWORD}@127.0.0.1:${this.port}/postgres`;
  }

  /** The connection string that leads through this proxy to a server with the given connection string. */
  uriTo(server: string): string {
    return server.replace(new URL(server).host, `127.0.0.1:${this.port}`);
  }

  /** The number of connections that clients have open. */
  get connections(): number {
    return [...this.#links].filter(({ client }) => !client.destroyed).length;
  }

  /** The number of chunks that wait until the proxy forwards again. */
  get held(): number {
    return [...this.#links].reduce((sum, { held }) => sum + held.length, 0);
  }

  /** Resets every connection. */
  cut(): void {
    for (const link of this.#links) reset(link);
  }

  /** Cuts the connection in the middle of the next message to the server that contains the text. */
  cutIn(text: string): void {
    this.#cutIn.push(text);
  }

  /** Forwards the next message that contains the text, and cuts the connection once the server has committed. */
  loseAnswerTo(text: string): void {
    this.#loseAnswerTo.push(text);
  }

  /** Forwards nothing in either direction, without an error, like a network that drops packets. */
  silence(): void {
    this.#silent = true;
  }

  /** Forwards again, first the data that were held, except those of senders that have closed their connection. */
  resume(): void {
    this.#silent = false;
    for (const link of this.#links) for (const pass of link.held.splice(0)) pass();
  }

  /** Decides whether new connections are reset. */
  refuse(on: boolean): void {
    this.#refusing = on;
    if (on) this.cut();
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#listener.close(resolve));
    this.cut();
    await closed;
  }

  #connected(client: net.Socket, port: number): void {
    client.on('error', () => {});
    if (this.#refusing) return void client.resetAndDestroy();
    const server = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    server.on('error', () => {});
    const link: Link = { client, server, held: [], losesAnswer: false };
    this.#links.add(link);
    const pass = (step: () => void) => (this.#silent ? link.held.push(step) : step());
    client.on('data', (chunk) =>
      pass(() => this.#strike(link, client, server, chunk, () => this.#toServer(link, chunk))),
    );
    server.on('data', (chunk) =>
      pass(() => this.#strike(link, server, client, chunk, () => this.#toClient(link, chunk))),
    );
    client.on('end', () => pass(() => server.end()));
    server.on('end', () => pass(() => client.end()));
    const forget = () => client.destroyed && server.destroyed && this.#links.delete(link);
    client.on('close', (failed) => {
      // After a reset, data that are still on their way are not delivered.
      if (failed) link.held = [];
      pass(() => (failed ? server.resetAndDestroy() : server.end()));
      forget();
    });
    server.on('close', (failed) => {
      pass(() => (failed ? client.resetAndDestroy() : client.end()));
      forget();
    });
  }

  #strike(link: Link, from: net.Socket, to: net.Socket, chunk: Buffer, pass: () => void): void {
    const late = this.#late.get(from);
    if (late) return void late.push(() => this.#strike(link, from, to, chunk, pass));
    const fault = this.chunkFault();
    if (fault === undefined) pass();
    else if (fault === 'cut') reset(link);
    else if (fault === 'halve') to.write(chunk.subarray(0, chunk.length / 2), () => reset(link));
    else this.#late.set(from, []);
    if (typeof fault !== 'number') return;
    setTimeout(() => {
      pass();
      const waiting = this.#late.get(from) ?? [];
      this.#late.delete(from);
      for (const step of waiting) step();
    }, fault);
  }

  #toServer(link: Link, chunk: Buffer): void {
    if (takeMatch(this.#cutIn, chunk)) {
      this.hits++;
      link.server.write(chunk.subarray(0, chunk.length / 2), () => reset(link));
      return;
    }
    if (takeMatch(this.#loseAnswerTo, chunk)) {
      this.hits++;
      link.losesAnswer = true;
    }
    link.server.write(chunk);
  }

  #toClient(link: Link, chunk: Buffer): void {
    if (!link.losesAnswer) link.client.write(chunk);
    else if (chunk.includes(READY)) reset(link);
  }
}

function reset({ client, server }: Link): void {
  client.resetAndDestroy();
  server.resetAndDestroy();
}

/** Removes the first of the texts that the chunk contains. @returns whether there was one */
function takeMatch(texts: string[], chunk: Buffer): boolean {
  const index = texts.findIndex((text) => chunk.includes(text));
  if (index >= 0) texts.splice(index, 1);
  return index >= 0;
}
