/** A client that loses the answers to statements, on demand. */

import type { Sql } from 'postgres';

/**
 * What becomes of a statement: not sent, or done and its answer lost, after whatever happens
 * `meanwhile`.
 */
export interface Loss {
  /** `update`, `insert`, …: of the next statement of this kind. */
  readonly kind: string;
  readonly fault: 'not sent' | 'answer lost';
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
