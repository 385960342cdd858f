/** A process that starts a PostgreSQL server and waits until it is killed. */

import { PostgresServer } from './postgres-server.js';

const { uri, dataDir } = await PostgresServer.start({ settings: { fsync: 'off' } });
console.log(JSON.stringify({ uri, dataDir }));
setInterval(() => {}, 1000);
