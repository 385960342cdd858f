/** Filters the server's messages for Postgres.js: whole ones of the kinds that answer the store's statements pass. */

import { PgStoreError } from '../errors.js';

/** The type of a message, and its length, which does not count the type. */
const HEADER_LENGTH = 5;

/** PostgreSQL's own limit: no value is longer than 1 GB. */
const LONGEST_MESSAGE = 2 ** 30;

/** The kinds of messages that answer a statement, or that may come at any time. */
const FIT_TYPES: ReadonlySet<number> = new Set(
  ['1', '2', 'A', 'C', 'D', 'E', 'I', 'N', 'S', 'T', 'Z', 'n', 't'].map((type) => type.charCodeAt(0)),
);
const AUTHENTICATION = 'R'.charCodeAt(0);
const BACKEND_KEY_DATA = 'K'.charCodeAt(0);
const ROW_DESCRIPTION = 'T'.charCodeAt(0);

/** The smallest length of a backend's key, in bytes: of its process ID and its secret. */
export const LEAST_KEY_LENGTH = 8;

/** Bytes of a column in a row description, after its name and the name's NUL. */
const COLUMN_FIELDS = 18;

/**
 * Cuts the bytes of a server into messages, and refuses those that Postgres.js 3.4 cannot take. Postgres.js ends the
 * process for a suspended portal or a copy that it has not asked for; after the start it still answers a request to
 * authenticate, with the password of the environment or with an exception that nobody catches; it searches for ever for
 * the end of a column's name; and it prints messages that it does not know to the console.
 */
export class MessageFilter {
  /** The beginning of a message whose end has not come yet. */
  #parts: Buffer[] = [];
  #length = 0;
  /** With fewer bytes than this, the first message cannot be complete, so they are not looked at. */
  #needed = HEADER_LENGTH;

  /**
   * @returns the messages that this chunk completes; `undefined` if it completes none
   * @throws PgStoreError for a message that does not keep to the protocol, or that the store has not asked for
   */
  take(chunk: Buffer): Buffer | undefined {
    this.#parts.push(chunk);
    this.#length += chunk.length;
    if (this.#length < this.#needed) return undefined;
    const bytes = this.#parts.length === 1 ? chunk : Buffer.concat(this.#parts);
    const end = this.#endOfMessages(bytes);
    this.#parts = end === bytes.length ? [] : [bytes.subarray(end)];
    this.#length = bytes.length - end;
    return end === 0 ? undefined : bytes.subarray(0, end);
  }

  /** Checks the messages. @returns the offset at which the last complete one ends */
  #endOfMessages(bytes: Buffer): number {
    let start = 0;
    this.#needed = HEADER_LENGTH;
    while (bytes.length - start >= HEADER_LENGTH) {
      const length = 1 + bytes.readUInt32BE(start + 1);
      if (length < HEADER_LENGTH || length > LONGEST_MESSAGE) throw protocolError();
      const end = start + length;
      if (end > bytes.length) {
        this.#needed = length;
        break;
      }
      if (!isFit(bytes, start, end)) throw protocolError();
      start = end;
    }
    return start;
  }
}

function isFit(bytes: Buffer, start: number, end: number): boolean {
  const type = bytes[start] as number;
  if (type === ROW_DESCRIPTION) return isRowDescription(bytes.subarray(start, end));
  if (FIT_TYPES.has(type)) return true;
  const bodyLength = end - start - HEADER_LENGTH;
  // Postgres.js is told once more that the server has accepted the connection.
  if (type === AUTHENTICATION) return bodyLength === 4 && bytes.readUInt32BE(start + HEADER_LENGTH) === 0;
  return type === BACKEND_KEY_DATA && bodyLength >= LEAST_KEY_LENGTH;
}

/** Whether each column has a name that ends, and all its fields. */
function isRowDescription(message: Buffer): boolean {
  if (message.length < HEADER_LENGTH + 2) return false;
  let place = HEADER_LENGTH + 2;
  for (let columns = message.readUInt16BE(HEADER_LENGTH); columns > 0; columns--) {
    const end = message.indexOf(0, place);
    if (end < 0) return false;
    place = end + 1 + COLUMN_FIELDS;
  }
  return place === message.length;
}

export function protocolError(): PgStoreError {
  return new PgStoreError("the answer does not keep to PostgreSQL's protocol", '08P01');
}
