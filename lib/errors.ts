/** The errors that callers get. None contains session data, a session ID or a password, so all may be logged. */

import { types } from 'node:util';

/** Marks a `PgStoreError`, whichever of the package's two builds created it. */
const BRAND = Symbol.for('express-pg-store.PgStoreError');

/** A failed call. Its message names the call; `code` and `cause` say why it failed. */
export class PgStoreError extends Error {
  override readonly name = 'PgStoreError';
  /**
   * An SQLSTATE such as `42P01` (PostgreSQL's Appendix A), a system error such as `ECONNREFUSED`, a code of the
   * PostgreSQL client such as `CONNECTION_CLOSED`, or one of the store's own: `TIMEOUT`, `CLOSED`, `UNREADABLE`,
   * `INVALID_SID`, `INVALID_SESSION`, `INVALID_USER`, `SHARDS_MISMATCH`, `TABLE_MISMATCH`, `UNSUPPORTED`,
   * `TLS_NOT_OFFERED`, `HOST_UNFIT`, `NO_PASSWORD`, `POOL_ENDED`, `AUTHENTICATION_FAILED`, `CONNECTION_FAILED`.
   * docs/errors.md explains each.
   */
  readonly code: string;

  constructor(message: string, code: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    Object.defineProperty(this, BRAND, { value: true });
  }
}

/**
 * Makes `instanceof PgStoreError` true for errors of both builds, because an app may load the ES module and the
 * CommonJS build side by side. For a class that an app derives from `PgStoreError`, `instanceof` works as usual.
 */
Object.defineProperty(PgStoreError, Symbol.hasInstance, {
  value(this: unknown, value: unknown): boolean {
    if (this !== PgStoreError) return Function.prototype[Symbol.hasInstance].call(this, value);
    return typeof value === 'object' && value !== null && BRAND in value;
  },
});

/** A wrong argument of a method. It is a TypeError, as for wrong options, because the app has to be corrected. */
export class ArgumentError extends TypeError {
  constructor(method: string, message: string) {
    super(`PgStore.${method}: ${message}`);
  }
}

/** Carries a value that a function of the app threw during a call, so that the call fails with exactly that value. */
export class AppError extends Error {
  readonly thrown: unknown;

  constructor(thrown: unknown) {
    super();
    this.thrown = thrown;
  }
}

/**
 * The errors that functions of the app have thrown. Such an error may have a `code` like those of PostgreSQL, its
 * client and the operating system, from which it is told apart by this set.
 */
const errorsOfApp = new WeakSet<object>();

/** Calls a function of the app, such as one in an option, and notes that an error which it throws is the app's. */
export function callApp<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (typeof error === 'object' && error !== null) errorsOfApp.add(error);
    throw error;
  }
}

export function timeoutError(): PgStoreError {
  return new PgStoreError('no answer in time (option `timeout`)', 'TIMEOUT');
}

/** The error's `code`, or an empty string if it has none. */
export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' ? code : '';
}

/**
 * Turns an error that a call met into one that may be logged.
 *
 * Clients attach a statement's parameters to their errors, and PostgreSQL quotes values in `detail` and `where`, so
 * these fields are dropped. PostgreSQL's message is kept only if it cannot quote a value (`isSafeMessage`).
 *
 * @param call the name of the method, with which the message begins
 */
export function toPgStoreError(call: string, error: unknown): Error {
  if (error instanceof ArgumentError) return error;
  if (error instanceof AppError) return error.thrown as Error;
  if (error instanceof PgStoreError) {
    return new PgStoreError(`PgStore.${call}: ${error.message}`, error.code, error.cause);
  }
  const isOfApp = errorsOfApp.has(error as object);
  if (isOfApp || !isServerOrSystemError(error)) {
    // The app's own code (a function in an option, a `toJSON`) or JSON.stringify threw it. Only the app's developer can
    // correct that, so the message and the error itself are kept.
    const message = textOf(isError(error) ? error.message : error);
    const code = isOfApp ? '' : codeOf(error);
    return new PgStoreError(`PgStore.${call}: ${message}`, code || 'INVALID_SESSION', error);
  }
  // express-session takes a store's `ENOENT` for "no such session" and would begin a new one. Here it means that the
  // file of a Unix socket is missing.
  const code = codeOf(error) === 'ENOENT' ? 'ECONNREFUSED' : codeOf(error);
  const reason = reasonOf(error, code);
  const cause = Object.assign(new Error(reason), { code, ...safeFields(error) });
  cause.name = error.name;
  return new PgStoreError(`PgStore.${call}: ${reason}`, code, cause);
}

/** Whether the value is an error. In Jest, errors of Node.js itself are not instances of the tests' class `Error`. */
function isError(value: unknown): value is Error {
  return value instanceof Error || types.isNativeError(value);
}

/** The text of what was thrown. Not every value has one: not `Object.create(null)`. */
function textOf(thrown: unknown): string {
  try {
    return String(thrown);
  } catch {
    return `${typeof thrown} without a text`;
  }
}

/** An error that PostgreSQL reported, in the form that Postgres.js and node-postgres give it. */
interface ServerError extends Error {
  /** The functions, triggers and dynamic statements that were running when the error occurred. */
  readonly where?: unknown;
  /** The place in the statement's text, if the error is in that text. */
  readonly position?: unknown;
}

/** An error of the operating system that names a file. */
interface FileError extends Error {
  readonly path?: unknown;
  readonly syscall?: unknown;
}

function reasonOf(error: Error, code: string): string {
  if (isServerError(error)) {
    if (isSafeMessage(error, code)) return error.message || code;
    if (isAboutValue(code)) return `PostgreSQL refused a value (SQLSTATE ${code})`;
    return `PostgreSQL failed the statement (SQLSTATE ${code}); its message may quote values`;
  }
  // A store in option `previous` that keeps sessions in files may name a file by its session ID, so the path is not
  // shown. An error of `connect` names a Unix socket, which may be shown.
  const { path, syscall } = error as FileError;
  if (typeof path === 'string' && syscall !== 'connect') return `${code}: the system call ${syscall} failed`;
  return error.message || code;
}

/**
 * Whether PostgreSQL refused a value (classes 22 and 23), or a function or trigger raised an error, with any message
 * (class P0).
 */
function isAboutValue(code: string): boolean {
  return /^(22|23|P0)/.test(code);
}

/**
 * SQLSTATEs whose messages contain names, addresses, limits and files of the server, but no values: connection
 * exceptions (08), transaction states (25), prepared statements (26), authorization (28), missing databases (3D),
 * missing privileges (42501), transactions to be repeated (40), resources (53), limits (54), states of an object (55),
 * operator intervention (57), input and output (58030), internal errors (XX).
 */
const WITHOUT_VALUES = /^(08...|25...|26...|28...|3D...|42501|40...|53...|54...|55...|57...|58030|XX...)$/;

/**
 * Whether a message of PostgreSQL certainly quotes no value of a statement. The code alone does not tell: a trigger may
 * raise any code with any message; a syntax error in a trigger's dynamic SQL quotes that SQL; and a failed cast to
 * `regclass` in a default, a constraint, a policy or a generated column quotes the value.
 *
 * PostgreSQL sets `where` for errors inside a function. An error in the text of the store's own statement has a
 * `position`, and that text contains no values, because they travel as parameters.
 */
function isSafeMessage({ where, position }: ServerError, code: string): boolean {
  if (where !== undefined || isAboutValue(code)) return false;
  return position !== undefined || WITHOUT_VALUES.test(code);
}

function isServerError(error: Error): error is ServerError {
  return 'severity' in error;
}

/**
 * Whether the error came from PostgreSQL, its client or the operating system. Such errors have a `code`, and may have
 * the statement's parameters.
 */
function isServerOrSystemError(error: unknown): error is Error {
  if (!isError(error)) return false;
  return isServerError(error) || 'errno' in error || 'query' in error || /^[A-Z0-9_]{5,}$/.test(codeOf(error));
}

/** Fields of an error that never contain values. */
const SAFE_FIELDS = /^(severity|routine|address|port)$/;
/**
 * Fields that contain names of objects, which a function or trigger may set to any text. In node-postgres they have no
 * suffix, in Postgres.js they end in `_name`.
 */
const NAME_FIELDS = /^(schema|table|column|constraint)(_name)?$/;

function safeFields(error: ServerError): Record<string, unknown> {
  const isFromFunction = error.where !== undefined;
  const fields = Object.entries(error);
  return Object.fromEntries(
    fields.filter(([name]) => SAFE_FIELDS.test(name) || (!isFromFunction && NAME_FIELDS.test(name))),
  );
}

/** A row cannot be read, so it counts as no session. The message says why, and quotes nothing from the row. */
export class UnreadableRowError extends Error {}
