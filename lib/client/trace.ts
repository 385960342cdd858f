/** Publishes statements on the diagnostics channel. While nobody subscribes to it, that costs nothing. */

import { channel } from 'node:diagnostics_channel';
import { codeOf } from '../errors.js';
import type { StatementMessage } from '../events.js';
import type { Batch } from '../sql/query.js';

const statements = channel('express-pg-store:statement');

/**
 * Publishes a statement when it has been answered.
 *
 * @param running the answer, which is returned as it is
 * @param table the store's table, as `schema.table`
 * @param kind the call that the statement is for
 * @param batch the calls that share the statement; `undefined` for a statement that is not batched
 */
export function traceStatement<T>(
  running: Promise<T>,
  table: string,
  kind: string,
  batch: Batch | undefined,
): Promise<T> {
  if (!statements.hasSubscribers) return running;
  const started = performance.now();
  const begun = { table, kind, rows: batch?.rows ?? 1, waitMs: batch?.waited() ?? 0 };
  const publish = (outcome: Pick<StatementMessage, 'code'>) => {
    const message: StatementMessage = { ...begun, runMs: performance.now() - started, ...outcome };
    statements.publish(message);
  };
  running.then(
    () => publish({}),
    (error) => publish({ code: codeOf(error) }),
  );
  return running;
}
