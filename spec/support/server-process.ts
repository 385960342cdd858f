/** A process that starts a PostgreSQL and waits to be killed. */

import { PostgresServer } from '../../example/postgres-server.js';

PostgresServer.start({ settings: { fsync: 'off' } }).then(({ port, dataDir }) => {
  console.log(JSON.stringify({ port, dataDir }));
  setInterval(() => {}, 1000);
});
