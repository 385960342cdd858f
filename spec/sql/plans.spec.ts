/** Each statement on rows looks them up by key, also where its plan was made while the table was small. */

import assert from 'node:assert/strict';
import type { TransactionSql } from 'postgres';
import { buryStatement, destroyStatement } from '../../lib/sql/destroy.js';
import { destroyFoundSql, destroyWrittenSql } from '../../lib/sql/destroy-named.js';
import { getStatement } from '../../lib/sql/get.js';
import { insertStatement, replaceStatement, setStatement } from '../../lib/sql/set.js';
import type { TableSql } from '../../lib/sql/table.js';
import { touchStatement } from '../../lib/sql/touch.js';
import { moveStatement, updateStatement } from '../../lib/sql/update.js';
import { SqlTable } from '../support/sql-table.js';

const FOR_MANY: Record<string, (table: TableSql) => string> = {
  get: (table) => getStatement(table).many,
  set: (table) => setStatement(table).many,
  insert: (table) => insertStatement(table).many,
  replace: (table) => replaceStatement(table).many,
  update: (table) => updateStatement(table).many,
  move: (table) => moveStatement(table).many,
  touch: (table) => touchStatement(table).many,
  destroy: (table) => destroyStatement(table).many,
  bury: (table) => buryStatement(table).many,
  'destroy of what was found': destroyFoundSql,
  'destroy of what was written': destroyWrittenSql,
};

/** The plan that PostgreSQL keeps of a prepared statement, which does not depend on the values. */
async function keptPlan(sql: TransactionSql, text: string): Promise<string> {
  const parameters = Math.max(...Array.from(text.matchAll(/\$(\d+)/g), ([, n]) => Number(n)));
  await sql.unsafe(`set local plan_cache_mode = force_generic_plan; prepare statement as ${text}`).simple();
  const values = Array(parameters).fill("'{}'").join(', ');
  const lines = await sql.unsafe(`explain execute statement (${values}); deallocate statement`).simple();
  return lines.map((line) => line['QUERY PLAN']).join('\n');
}

describe('the plan of a statement on many rows', () => {
  let table: SqlTable;

  before(async () => {
    table = await SqlTable.create();
    await table.fill('a', 1000);
    await table.sql`analyze ${table.sql(table.name)}`;
  });

  for (const [name, textOf] of Object.entries(FOR_MANY)) {
    it(`${name} reads no whole table`, async () => {
      const plan = await table.sql.begin((sql) => keptPlan(sql, textOf(table.tableSql)));
      assert.match(plan, /Index (Only )?Scan using/);
      assert.doesNotMatch(plan, /Seq Scan|Hash|Merge/);
    });
  }
});
