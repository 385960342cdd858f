/**
 * A TCP proxy between a store and its server that cuts connections, loses answers or drops packets.
 */

import net from 'node:net';
import { PASSWORD } from './postgres-server.js';

interface Link {
  readonly client: net.Socket;
  readonly server: net.Socket;
  /** What arrived while it dropped packets, in order. */
  held: (() => void)[];
  /** Its next complete answer is lost, and the connection with it. */
  losesAnswer: boolean;
}

/**
 * Its connection is reset, with nothing or half of it delivered; it and all that follows is lost,
 * and nobody is told; or it is late by so many milliseconds.
 */
export type ChunkFault = 'cut' | 'halve' | 'swallow' | number;

/**
 * The end of each answer of PostgreSQL: ReadyForQuery, 5 bytes, idle. Until then nothing is sure;
 * from then on it is committed.
 */
const READY = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);

export class FaultProxy {
  readonly port: number;
  readonly #listener: net.Server;
  readonly #links = new Set<Link>();
  /** What follows a chunk that is late, or swallowed, by the socket that it came from. */
  readonly #late = new WeakMap<net.Socket, (() => void)[]>();
  #silent = false;
  #refusing = false;
  /**
   * Texts in statements whose connection is cut before they arrive whole, or whose answer is lost.
   */
  readonly #cutIn: string[] = [];
  readonly #loseAnswerTo: string[] = [];
  /** Faults that happened, of those asked for by text. */
  hits = 0;
  /** What becomes of each chunk of either direction; it passes where this returns nothing. */
  chunkFault: () => ChunkFault | undefined = () => undefined;

  private constructor(listener: net.Server, target: () => number) {
    this.#listener = listener;
    this.port = (listener.address() as net.AddressInfo).port;
    listener.on('connection', (client) => this.#connected(client, target()));
  }

  /** @param target the server's port on 127.0.0.1, asked for at each connection */
  static async start(target: () => number): Promise<FaultProxy> {
    const listener = net.createServer({ allowHalfOpen: true });
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    return new FaultProxy(listener, target);
  }

  /** The way through this proxy to a server that this process has started. */
  get uri(): string {
    return `postgres://postgres:${PASSWORD}@127.0.0.1:${this.port}/postgres`;
  }

  /** The same for a server elsewhere, whose address is given. */
  uriTo(server: string): string {
    return server.replace(new URL(server).host, `127.0.0.1:${this.port}`);
  }

  /** Connections that a client holds open now. */
  get connections(): number {
    return [...this.#links].filter(({ client }) => !client.destroyed).length;
  }

  /** Chunks that wait until it forwards again. */
  get held(): number {
    return [...this.#links].reduce((sum, { held }) => sum + held.length, 0);
  }

  /** Resets every connection, whatever it is doing. */
  cut(): void {
    for (const link of this.#links) reset(link);
  }

  /** Cuts the connection in the middle of the next message to the server that holds the text. */
  cutIn(text: string): void {
    this.#cutIn.push(text);
  }

  /**
   * Lets the next message that holds the text pass, waits until the server has committed, and cuts
   * instead of answering.
   */
  loseAnswerTo(text: string): void {
    this.#loseAnswerTo.push(text);
  }

  /** Forwards nothing in either direction, without an error: packets dropped. */
  silence(): void {
    this.#silent = true;
  }

  /** Forwards what was queued, unless its sender has closed. */
  resume(): void {
    this.#silent = false;
    for (const link of this.#links) for (const pass of link.held.splice(0)) pass();
  }

  /** Resets connections as they come, until told otherwise. */
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
      // A reset takes back what was still under way.
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

function takeMatch(texts: string[], chunk: Buffer): boolean {
  const at = texts.findIndex((text) => chunk.includes(text));
  if (at >= 0) texts.splice(at, 1);
  return at >= 0;
}
