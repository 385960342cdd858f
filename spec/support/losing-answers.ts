/** A Postgres.js client that loses the answer to a statement when a spec wants it. */

import type { Sql } from 'postgres';

/** A fault of the next statement of a kind. The call fails with ECONNRESET. */
export interface Loss {
  /** The kind of statement, such as `update` or `insert`. */
  readonly kind: string;
  /** Whether the statement is not sent, or is executed and its answer is lost. */
  readonly fault: 'not sent' | 'answer lost';
  /** Runs before the call fails, when the statement has been executed. */
  readonly meanwhile?: () => Promise<unknown>;
}

export function losingAnswers(sql: Sql): { sql: Sql; lose: (loss: Loss) => void } {
  let next: Loss | undefined;
  const unsafe = (text: string, values: any[], options: object) => ({
    simple: () => sql.unsafe(text).simple(),
    values: async () => {
      const loss = next && text.includes(`${next.kind} "`) ? next : undefined;
      if (loss) next = undefined;
      const found = loss?.fault === 'not sent' ? [] : await sql.unsafe(text, values, options).values();
      if (!loss) return found;
      await loss.meanwhile?.();
      throw Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' });
    },
  });
  return {
    sql: Object.assign(() => {}, { unsafe, options: sql.options }) as unknown as Sql,
    lose: (loss) => {
      next = loss;
    },
  };
}
