/** Which connection strings are taken, and what of them reaches the server. */

import assert from 'node:assert/strict';
import { parseSettings } from '../../lib/client/settings.js';
import { parseOptions } from '../../lib/options.js';
import { closeStores, directUri, freshTable, openStore } from '../support/postgres.js';
import { plain } from '../support/sessions.js';

const settingsOf = (uri: string, given: object = {}) => parseSettings(parseOptions({ uri, ...given }));

describe('settings', () => {
  afterEach(closeStores);

  for (const uri of [
    'mysql://u:pw@host/db',
    'http://host/',
    'redis://host',
    'host/db',
    'postgres//host',
    'postgress://h',
  ]) {
    it(`refuses ${uri}, without showing it`, () => {
      assert.throws(
        () => settingsOf(uri),
        (error: any) => {
          assert(error instanceof TypeError);
          assert.match(error.message, /option `uri`: expected a connection string, such as postgres:/);
          assert(!error.message.includes(uri) && !error.message.includes('pw'));
          return true;
        },
      );
    });
  }

  it('takes both spellings of the scheme', () => {
    for (const scheme of ['postgres', 'postgresql', 'PostgreSQL']) {
      assert.deepEqual(settingsOf(`${scheme}://host:1234/db`).host, ['host']);
    }
  });

  it('refuses a `target_session_attrs` with which nothing could be written', () => {
    for (const attributes of ['standby', 'read-only', 'prefer-standby']) {
      assert.throws(() => settingsOf(`postgres://host/db?target_session_attrs=${attributes}`), {
        name: 'TypeError',
        message: /target_session_attrs: expected read-write or primary/,
      });
    }
  });

  it('sends the server no parameter that is for another client, and all others', async () => {
    const parameters =
      'schema=public&pgbouncer=true&connection_limit=1&pool_timeout=5&channel_binding=prefer&gssencmode=disable' +
      '&keepalives_idle=60&sslcert=&supa=base-pooler.x&uselibpqcompat=true&statement_cache_size=0';
    // A pooler refuses parameters that it does not know.
    const uri = `${await directUri()}?${parameters}&application_name=mine&search_path=public`;
    const { connection, prepare } = settingsOf(uri);
    assert.deepEqual(connection, { application_name: 'mine', search_path: 'public' });
    assert.equal(prepare, false);
    const store = await openStore({ uri, table: freshTable() });
    await store.set('a', plain({ n: 1 }));
    assert.equal(((await store.get('a')) as any).n, 1);
  });

  it('tries each of several hosts within `timeout`, or as long as the app says', () => {
    assert.equal(settingsOf('postgres://a,b/db', { timeout: 5000 }).connectTimeout, 2500);
    assert.equal(settingsOf('postgres://a,b/db?connect_timeout=1').connectTimeout, 1000);
    assert.equal(settingsOf('postgres://a/db', { postgres: { connect_timeout: 0 }, timeout: 300 }).connectTimeout, 300);
  });
});
