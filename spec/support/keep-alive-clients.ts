/**
 * Clients that keep their connections open and always send requests, like a busy load balancer. Like it, they repeat a
 * request that did not reach the server, because the connection was refused, or closed at the moment at which the
 * request was sent (RFC 9112, 9.3.1).
 */

import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

export class KeepAliveClients {
  /** How many requests got a complete answer. A spec compares this with the requests that reached the server. */
  answers = 0;
  /** The statuses of answers with another status than 200. */
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
