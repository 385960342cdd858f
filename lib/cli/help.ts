/** The help texts of the commands. */

const EXIT = 'Exit codes: 0 fine, 1 failed, 2 called wrongly.\n';

const TABLE = `  --table NAME          the store's table (default: sessions)
  --schema NAME         its schema (default: public)
`;

const SERVER = `  --uri URI             where PostgreSQL is (default: DATABASE_URL, else the PG* variables)
${TABLE}  --json                print JSON
  -h, --help            print this
`;

export const OVERVIEW = `Usage: express-pg-store COMMAND [OPTIONS]

  schema    print the SQL that makes the table
  import    copy the live sessions of a connect-pg-simple table
  prune     delete expired sessions
  stats     count sessions, users, bytes

express-pg-store COMMAND --help tells more. ${EXIT}`;

export const HELP = {
  schema: `Usage: express-pg-store schema [OPTIONS]

Prints the SQL that makes the table and its indexes, for migrations. Connects to nothing.

${TABLE}  --partitions N        a table of N hash partitions
  -h, --help            print this

${EXIT}`,

  import: `Usage: express-pg-store import [OPTIONS]

Copies the live sessions of a connect-pg-simple table in the same database, in batches; their users stay signed in if
the app keeps its cookie's name and secret. Makes the new table if it is missing, and only reads the old one. Can be
repeated: a session that the new app has saved or touched is left as it is. Give it the options of the new app's store.

  --dry-run             only tell what would be done
  --from NAME           connect-pg-simple's table (default: session)
  --from-schema NAME    its schema (default: public)
  --since TIME          only sessions that the old app wrote since then: once the new app is in use, so that sessions
                        that ended there do not come back (unless the old app wrote them since then)
  --ttl SECONDS         connect-pg-simple's option ttl: --since needs it for cookies without an expiry (default: 86400)
  --prefix TEXT         the store's option prefix
  --secret TEXT         its option secret; several times for several, newest first (default: PG_STORE_SECRET)
  --hash-ids            its option hashIds
  --encryption-key TEXT its option encryptionKey; several times for several (default: PG_STORE_ENCRYPTION_KEY)
${SERVER}
Other users of the machine can read a command line: the variables are the better place for secrets.
${EXIT}`,

  prune: `Usage: express-pg-store prune [OPTIONS]

Deletes expired sessions, in short statements, as the store's timer does.

${SERVER}
${EXIT}`,

  stats: `Usage: express-pg-store stats [OPTIONS]

Counts live and expired sessions, sessions per user (the ten with the most), bytes, and dead tuples. Reads the
whole table.

  --prefix TEXT         count only sessions with this prefix
${SERVER}
${EXIT}`,
} as const;
