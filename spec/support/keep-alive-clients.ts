/**
 * Clients that keep their connections and are always busy, as a load balancer is. Like it, they try again what did
 * not reach the server: a connection that is refused, or closed in the moment in which a request is sent on it
 * (RFC 9112, 9.3.1).
 */

import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

export class KeepAliveClients {
  /** Requests that got their whole answer. Whoever counts those that reached the server knows which were cut off. */
  answers = 0;
  /** Answers other than 200. */
  readonly refusals: (number | undefined)[] = [];
  readonly #agent: http.Agent;
  readonly #clients: Promise<void>[];
  #isStopped = false;

  constructor(url: string, count: number) {
    this.#agent = new http.Agent({ keepAlive: true, maxSockets: count });
    this.#clients = Array.from({ length: count }, () => this.#run(url));
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.all(this.#clients);
    this.#agent.destroy();
  }

  async #run(url: string): Promise<void> {
    while (!this.#isStopped) await this.#request(url);
  }

  #request(url: string): Promise<void> {
    return new Promise((resolve) => {
      const request = http.get(url, { agent: this.#agent }, (response) => {
        response.resume();
        response.once('end', () => {
          if (response.statusCode === 200) this.answers++;
          else this.refusals.push(response.statusCode);
        });
        response.once('error', () => {});
        response.once('close', resolve);
      });
      request.once('error', () => void sleep(5).then(resolve));
    });
  }
}
