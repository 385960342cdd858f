/** Deletes exactly the rows that a bulk call has found. */

import type { Deletion, RowName, WrittenRow } from '../session/row.js';
import { arrayLiteral, type BoundQuery, type Row } from './query.js';
import { FEW_EXPECTED } from './statement.js';
import type { TableSql } from './table.js';

/**
 * Deletes rows by key, time of creation and, if the call concerns a user, by user. Times are `numeric`, which is exact.
 */
export function destroyFoundSql({ name, isSharded }: TableSql): string {
  return `with i as materialized (
    select a.sid, a.created_at, a.has_user, a.user_id, a.n
    from rows from (
      pg_catalog.unnest($1::text::text[]),
      pg_catalog.unnest($2::text::numeric[]),
      pg_catalog.unnest($3::text::boolean[]),
      pg_catalog.unnest($4::text::text[])
    ) with ordinality as a (sid, created_at, has_user, user_id, n)
    ${FEW_EXPECTED}
  ), found as (
    select i.n, s.sid
    from i
    join ${name} s on ${isSharded ? 's.shard = $5::smallint and' : ''} s.sid = i.sid
    where extract(epoch from s.created_at) = i.created_at and (not i.has_user or s.user_id = i.user_id)
  ), deleted as (
    delete from ${name} s
    using (
      select s.sid
      from i
      join ${name} s on ${isSharded ? 's.shard = $5::smallint and' : ''} s.sid = i.sid
      where extract(epoch from s.created_at) = i.created_at and (not i.has_user or s.user_id = i.user_id)
      for update of s skip locked
    ) l
    where ${isSharded ? 's.shard = $5::smallint and' : ''} s.sid = l.sid
    returning s.sid
  )
  select f.n::text, f.sid, (d.sid is not null)::text
  from found f left join deleted d on d.sid = f.sid`;
}

/** Deletes rows that saves of this process have written, by key and version. */
export function destroyWrittenSql({ name, isSharded }: TableSql): string {
  return `with i as materialized (
    select a.sid, a.version, a.n
    from rows from (
      pg_catalog.unnest($1::text::text[]),
      pg_catalog.unnest($2::text::integer[])
    ) with ordinality as a (sid, version, n)
    ${FEW_EXPECTED}
  ), found as (
    select i.n, s.sid
    from i
    join ${name} s on ${isSharded ? 's.shard = $3::smallint and' : ''} s.sid = i.sid and s.version = i.version
  ), deleted as (
    delete from ${name} s
    using (
      select s.sid
      from i
      join ${name} s on ${isSharded ? 's.shard = $3::smallint and' : ''} s.sid = i.sid and s.version = i.version
      for update of s skip locked
    ) l
    where ${isSharded ? 's.shard = $3::smallint and' : ''} s.sid = l.sid
    returning s.sid
  )
  select f.n::text, f.sid, (d.sid is not null)::text
  from found f left join deleted d on d.sid = f.sid`;
}

export async function destroyFound(
  query: BoundQuery,
  text: string,
  rows: readonly RowName[],
  shard: number | undefined,
): Promise<Deletion[]> {
  const values = [
    arrayLiteral(rows.map(({ key }) => key)),
    arrayLiteral(rows.map(({ createdAt }) => createdAt)),
    arrayLiteral(rows.map(({ user }) => String(user !== undefined))),
    arrayLiteral(rows.map(({ user }) => user ?? '')),
    ...(shard === undefined ? [] : [String(shard)]),
  ];
  return deletionsOf(rows.length, await query(text, values));
}

export async function destroyWritten(
  query: BoundQuery,
  text: string,
  rows: readonly WrittenRow[],
  shard: number | undefined,
): Promise<Deletion[]> {
  const values = [
    arrayLiteral(rows.map(({ key }) => key)),
    arrayLiteral(rows.map(({ version }) => String(version))),
    ...(shard === undefined ? [] : [String(shard)]),
  ];
  return deletionsOf(rows.length, await query(text, values));
}

/** The result for each item. If several calls of a batch delete the same row, the first of them counts it. */
function deletionsOf(count: number, rows: readonly Row[]): Deletion[] {
  const deletions = Array<Deletion>(count).fill('gone');
  const counted = new Set<unknown>();
  const inOrder = rows.map(([n, key, isDeleted]) => ({ n: Number(n) - 1, key, isDeleted: isDeleted === 'true' }));
  inOrder.sort((one, other) => one.n - other.n);
  for (const { n, key, isDeleted } of inOrder) {
    if (isDeleted && counted.has(key)) continue;
    counted.add(key);
    deletions[n] = isDeleted ? 'deleted' : 'locked';
  }
  return deletions;
}
