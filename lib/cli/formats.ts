/**
 * The output formats of `schema`, for migration tools. Each tool runs the store's own SQL, because none of their own
 * schema languages can express all of it.
 */

import type { TableName } from '../sql/query.js';

type Format = (name: TableName, sql: string) => string;

/** For each column: its name, its property in TypeScript, its type in Prisma's schema, and its type in Drizzle's. */
const COLUMNS = [
  ['sid', 'sid', 'String @id', 'text().primaryKey()'],
  ['data', 'data', 'Json @db.Json', 'json().notNull()'],
  ['cookie', 'cookie', 'Json? @db.Json', 'json()'],
  ['cookie_expires', 'cookieExpires', 'Float?', 'doublePrecision()'],
  ['user_id', 'userId', 'String?', 'text()'],
  ['version', 'version', 'Int @default(1)', 'integer().notNull().default(1)'],
  ['created_at', 'createdAt', 'DateTime @default(now()) @db.Timestamptz(6)', 'time().notNull().defaultNow()'],
  ['updated_at', 'updatedAt', 'DateTime @default(now()) @db.Timestamptz(6)', 'time().notNull().defaultNow()'],
  ['expires_at', 'expiresAt', 'DateTime @db.Timestamptz(6)', 'time().notNull()'],
  ['delete_after', 'deleteAfter', 'DateTime @db.Timestamptz(6)', 'time().notNull()'],
] as const;

/** The columns of a table. With shards the primary key has two columns, `shard` and `sid`. */
function columnsOf(shards: number | undefined) {
  const [[sid], ...others] = COLUMNS;
  const key = [
    ['shard', 'shard', 'Int @db.SmallInt', 'smallint().notNull()'],
    [sid, sid, 'String', 'text().notNull()'],
  ] as const;
  return shards ? [...key, ...others] : COLUMNS;
}

/** The formats, by the value of flag `--format`. */
export const FORMATS: Record<string, Format> = {
  sql: (_, sql) => sql,
  knex: ({ schema, table }, sql) => `// A migration.
export const up = (knex) => knex.raw(${JSON.stringify(sql).replaceAll('?', '\\\\?')});
export const down = (knex) => knex.schema.withSchema(${JSON.stringify(schema)}).dropTable(${JSON.stringify(table)});
`,
  prisma: ({ schema, table, shards }, sql) => `// For queries. prisma.config.ts: experimental: { externalTables: true },
//   tables: { external: [${JSON.stringify(`${schema}.${table}`)}] }
// The migration (prisma migrate dev --create-only):
${sql.trim().replace(/^/gm, '// ')}
model Session {
${columnsOf(shards)
  .map(([name, property, type]) => `  ${property} ${type}${name === property ? '' : ` @map("${name}")`}\n`)
  .join('')}${shards ? '\n  @@id([shard, sid])' : ''}
  @@map(${JSON.stringify(table)})${schema === 'public' ? '' : `\n  @@schema(${JSON.stringify(schema)})`}
}
`,
  drizzle: (
    { schema, table, shards },
    sql,
  ) => `// For queries, in a file that drizzle.config.ts does not name in \`schema\`.
// The migration (drizzle-kit generate --custom):
${sql.trim().replace(/^/gm, '// ')}
import { doublePrecision, integer, json, pgSchema, pgTable, ${shards ? 'primaryKey, smallint, ' : ''}text, timestamp } from 'drizzle-orm/pg-core';

const time = (name: string) => timestamp(name, { withTimezone: true });

export const sessions = ${schema === 'public' ? 'pgTable' : `pgSchema(${JSON.stringify(schema)}).table`}(${JSON.stringify(table)}, {
${columnsOf(shards)
  .map(([name, property, , type]) => `  ${property}: ${type.replace('()', `('${name}')`)},\n`)
  .join('')}}${shards ? ', (table) => [primaryKey({ columns: [table.shard, table.sid] })]' : ''});
`,
};
