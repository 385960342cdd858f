/** The errors that callers get: never with session data, a session ID or a password in them. */

/** Marks the errors of every copy of this package that the process has loaded. */
const BRAND = Symbol.for('express-pg-store.PgStoreError');

/** A failed call: names the call in its message, says why in `code` and `cause`. */
export class PgStoreError extends Error {
  override readonly name = 'PgStoreError';
  /**
   * An SQLSTATE (`42P01`, PostgreSQL's Appendix A), a system error (`ECONNREFUSED`), one of the
   * client's (`CONNECTION_CLOSED`), or the store's own: `TIMEOUT`, `CLOSED`, `UNREADABLE`,
   * `INVALID_SID`, `INVALID_SESSION`, `INVALID_USER`, `SHARDS_MISMATCH`, `UNSUPPORTED` (by the
   * store in option `previous`), `TLS_NOT_OFFERED`, `HOST_UNFIT`, `NO_PASSWORD`, `POOL_ENDED`,
   * `AUTHENTICATION_FAILED`, `TABLE_MISMATCH`,
   * `CONNECTION_FAILED`.
   */
  readonly code: string;

  constructor(message: string, code: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    Object.defineProperty(this, BRAND, { value: true });
  }
}

/**
 * An app may load the ES module and the CommonJS build side by side: `instanceof` holds for the errors of both. A class
 * that an app derives from `PgStoreError` compares as usual.
 */
Object.defineProperty(PgStoreError, Symbol.hasInstance, {
  value(this: unknown, value: unknown): boolean {
    if (this !== PgStoreError) return Function.prototype[Symbol.hasInstance].call(this, value);
    return typeof value === 'object' && value !== null && BRAND in value;
  },
});

/** A wrong argument of a method: a mistake in the app, so a TypeError, as for wrong options. */
export class ArgumentError extends TypeError {
  constructor(method: string, what: string) {
    super(`PgStore.${method}: ${what}`);
  }
}

/** What a function of the app threw in the course of a call: the call fails with exactly that. */
export class AppError extends Error {
  readonly thrown: unknown;

  constructor(thrown: unknown) {
    super();
    this.thrown = thrown;
  }
}

export function timeoutError(): PgStoreError {
  return new PgStoreError('no answer in time (option `timeout`)', 'TIMEOUT');
}

export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' ? code : '';
}

/**
 * Says what failed in words that may be logged.
 *
 * The client hangs a statement's parameters on its errors, and PostgreSQL quotes values in `detail` and `where`: none
 * of these is kept. Its message is kept where it cannot quote a value (`hasFitMessage`).
 */
export function toPgStoreError(call: string, error: unknown): Error {
  if (error instanceof ArgumentError) return error;
  if (error instanceof AppError) return error.thrown as Error;
  if (error instanceof PgStoreError) {
    return new PgStoreError(`PgStore.${call}: ${error.message}`, error.code, error.cause);
  }
  if (!isServerOrSystemError(error)) {
    // Thrown by the app's own code (an option's function, a toJSON) or by JSON.stringify: it is the app's to read.
    const message = textOf(error instanceof Error ? error.message : error);
    return new PgStoreError(`PgStore.${call}: ${message}`, codeOf(error) || 'INVALID_SESSION', error);
  }
  // express-session takes a store's `ENOENT` for "no such session" and would begin a new one: here a Unix socket is
  // missing.
  const code = codeOf(error) === 'ENOENT' ? 'ECONNREFUSED' : codeOf(error);
  const reason = reasonOf(error, code);
  const cause = Object.assign(new Error(reason), { code, ...fitFields(error) });
  cause.name = error.name;
  return new PgStoreError(`PgStore.${call}: ${reason}`, code, cause);
}

/** The text of whatever was thrown; not everything has one. */
function textOf(thrown: unknown): string {
  try {
    return String(thrown);
  } catch {
    return `${typeof thrown} without a text`;
  }
}

/** An error of PostgreSQL, as both clients give it. */
interface ServerError extends Error {
  /** Where the error came from: the functions, triggers and dynamic statements that ran at that moment. */
  readonly where?: unknown;
  /** Where in the text of the statement, for an error in that text. */
  readonly position?: unknown;
}

/** An error of the operating system that names a file. */
interface FileError extends Error {
  readonly path?: unknown;
  readonly syscall?: unknown;
}

function reasonOf(error: Error, code: string): string {
  if (isServerError(error)) {
    if (hasFitMessage(error, code)) return error.message || code;
    if (isAboutValue(code)) return `PostgreSQL refused a value (SQLSTATE ${code})`;
    return `PostgreSQL failed the statement (SQLSTATE ${code}); its message may quote values`;
  }
  // A store in option `previous` that keeps files may name one by its session's ID. A Unix socket's path is `address`.
  const { path, syscall } = error as FileError;
  if (typeof path === 'string' && syscall !== 'connect') return `${code}: the system call ${syscall} failed`;
  return error.message || code;
}

/** PostgreSQL refused a value (classes 22, 23), or a trigger raised an error with whatever message (class P0). */
function isAboutValue(code: string): boolean {
  return /^(22|23|P0)/.test(code);
}

/**
 * Conditions whose messages hold names, addresses, limits and files of the server, but no values: connection exceptions
 * (08), transaction states (25), prepared statements (26), authorization (28), missing databases (3D), missing rights
 * (42501), transactions to be repeated (40), resources (53), limits (54), states of an object (55), interventions (57),
 * input and output (58030), internal errors (XX).
 */
const WITHOUT_VALUES = /^(08...|25...|26...|28...|3D...|42501|40...|53...|54...|55...|57...|58030|XX...)$/;

/**
 * Whether a message of PostgreSQL quotes no value. Others do, whatever their code: a trigger may raise any code with
 * any message, its dynamic SQL fails with a syntax error that quotes the text, and so does a cast to `regclass` in a
 * default, a constraint, a policy or a generated column.
 *
 * What runs in a function, PostgreSQL reports with `where`. An error in the text of the store's own statement has a
 * `position`, and that text holds no values: they travel as parameters.
 */
function hasFitMessage({ where, position }: ServerError, code: string): boolean {
  if (where !== undefined || isAboutValue(code)) return false;
  return position !== undefined || WITHOUT_VALUES.test(code);
}

function isServerError(error: Error): error is ServerError {
  return 'severity' in error;
}

/** From PostgreSQL, the client or the operating system: these carry a `code`, and may carry parameters. */
function isServerOrSystemError(error: unknown): error is Error {
  if (!(error instanceof Error)) return false;
  return isServerError(error) || 'errno' in error || 'query' in error || /^[A-Z0-9_]{5,}$/.test(codeOf(error));
}

/** Fields that hold no values. Postgres.js and node-postgres name some of them differently. */
const FIT_FIELDS = /^(severity|routine|address|port)$/;
/** Names, which a trigger may set to whatever it likes. */
const FIELDS_OF_NAMES = /^(schema|table|column|constraint)(_name)?$/;

function fitFields(error: ServerError): Record<string, unknown> {
  const isRaised = error.where !== undefined;
  const fields = Object.entries(error);
  return Object.fromEntries(
    fields.filter(([name]) => FIT_FIELDS.test(name) || (!isRaised && FIELDS_OF_NAMES.test(name))),
  );
}

/** A row that cannot be read is no session: says why, without what is in the row. */
export class UnreadableRowError extends Error {}
