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
 * PostgreSQL puts values into the `detail` and `where` of its errors, for data errors (SQLSTATE
 * classes 22, 23, P0) even into the message, as triggers may, and the client hangs a statement's
 * parameters on them: none of these is kept.
 */
export function toPgStoreError(call: string, error: unknown): Error {
  if (error instanceof PgStoreError) {
    return new PgStoreError(`PgStore.${call}: ${error.message}`, error.code, error.cause);
  }
  if (!isServerOrSystemError(error)) {
    // What the app's own code (an option's function, a toJSON) threw, or JSON.stringify: the app's
    // to read.
    const message = error instanceof Error ? error.message : String(error);
    return new PgStoreError(`PgStore.${call}: ${message}`, codeOf(error) || 'INVALID_SESSION', error);
  }
  // express-session takes a store's `ENOENT` for "no such session" and would begin a new one: here
  // a Unix socket is missing.
  const code = codeOf(error) === 'ENOENT' ? 'ECONNREFUSED' : codeOf(error);
  const reason = mayQuoteValues(error, code) ? `PostgreSQL refused a value (SQLSTATE ${code})` : error.message || code;
  const cause = Object.assign(new Error(reason), { code, ...serverFields(error) });
  cause.name = error.name;
  return new PgStoreError(`PgStore.${call}: ${reason}`, code, cause);
}

/** Data errors, and what a trigger raises under whatever code. */
function mayQuoteValues(error: Error, code: string): boolean {
  return /^(22|23|P0)/.test(code) || (error as { routine?: string }).routine === 'exec_stmt_raise';
}

/**
 * From PostgreSQL, the client or the operating system: these carry a `code`, and may carry
 * parameters.
 */
function isServerOrSystemError(error: unknown): error is Error {
  if (!(error instanceof Error)) return false;
  return 'severity' in error || 'errno' in error || 'query' in error || /^[A-Z0-9_]{5,}$/.test(codeOf(error));
}

function serverFields(error: object): Record<string, unknown> {
  // Postgres.js and node-postgres name them differently.
  const safe = /^(severity|routine|(schema|table|column|constraint)(_name)?|address|port)$/;
  return Object.fromEntries(Object.entries(error).filter(([name]) => safe.test(name)));
}

/** A row that cannot be read is no session: says why, without what is in the row. */
export class UnreadableRowError extends Error {}
