/**
 * Each claim of docs/security.md and SECURITY.md has a spec. A claim that is reworded is to be looked at here again.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';

const ROOT = path.resolve(import.meta.dirname, '../..');

/** A page's words, the file of the spec, and words of its title: several claims may have one spec. */
type Claim = readonly [words: string, file: string, title: string];

const [IDS, DATA, LEAKS] = ['store/security-ids', 'store/security-data', 'store/security-leaks'];
const [LIFETIME, RIGHTS, TRAPS] = ['store/security-lifetime', 'store/security-privileges', 'store/security-traps'];

const CLAIMS: Readonly<Record<string, readonly Claim[]>> = {
  'docs/security.md': [
    ['Each of the four works alone and with the others', DATA, 'a key is generated, and all protections work'],
    ["crypto.randomBytes(32).toString('base64')", DATA, 'a key is generated'],
    // Identity and merging
    ['`{ userId: 2 }` is stored as it is', 'store/changed-hands', 'of two parallel sign-ins'],
    ['a sign-out by `delete req.session.userId` is final for slower requests', 'store/changed-hands', 'a sign-out by'],
    ["By default the option is Passport's user", 'store/users', 'is Passport’s by default'],
    // Signed session IDs
    [
      'with a key that is made of `secret` and `prefix`',
      'session/session-id',
      'signs rows unlike cookies, and each prefix',
    ],
    [
      'inserted without the secret is found by no call and listed nowhere',
      IDS,
      'a row that nobody with the secret wrote',
    ],
    ['`length` counts rows and does not look at signatures', IDS, 'a row that nobody with the secret wrote'],
    ['a row key is not a cookie', IDS, 'who reads the table cannot make a cookie of a row'],
    ['their sessions are lost when you set it', IDS, 'a row that nobody with the secret wrote'],
    // Hashed session IDs
    ['the table holds a hash of the session ID after the prefix', IDS, 'the table holds SHA-256 of the session ID'],
    [
      '`ids()` fails, `all()` and `sessions()` give sessions without `id`',
      IDS,
      'what the table holds is no session ID',
    ],
    ['a planted row does not open', DATA, 'a changed, cut, replaced or plain column is no session'],
    ['stop the app, run this once', IDS, 'a statement turns a plain table into a hashed one'],
    ['It needs the extension `pgcrypto`', IDS, 'with pgcrypto it does so for a secret'],
    // Encrypted data
    ['the event `unreadable` says why', DATA, 'a changed, cut, replaced or plain column is no session, and an event'],
    ['copied from another row is not a session', DATA, 'data moved to another row, or a row moved to another key'],
    ['Not encrypted: the row key, `user_id`', DATA, 'what encryption leaves open is what SECURITY.md says'],
    ['The length of the data shows as well', 'session/encryption', 'shows nothing of the text but its length'],
    [
      'bound to its row key, which has the prefix in it, and not to the table',
      DATA,
      'a ciphertext is bound to its row key',
    ],
    ['12 | nonce, random for each write', 'session/encryption', 'takes a fresh nonce each time'],
    ['HKDF-SHA-256, no salt, info `express-pg-store data`', 'session/encryption', 'opens what WebCrypto sealed'],
    ['deploy three times', DATA, 'in three steps, each beside the one before'],
    ['nothing is overwritten', DATA, 'in one step is an error to a request of the old process'],
    ['plain rows become encrypted at their next save', DATA, 'encrypts plain rows at their next save'],
    ['go the same way back', DATA, 'with `write`, reads both kinds of rows and writes plain ones'],
    // Key rotation
    ['The first one writes, all of them read', 'session/encryption', 'seals with the newest key and opens with all'],
    ['the next save of a session moves its row', IDS, 'moves them with a save that changes nothing'],
    ['A touch', IDS, 'touches them where they are'],
    ['This loses nothing that requests write meanwhile', DATA, 'a secret and a key change in three steps'],
    ['go to step 3 at once: all sessions are lost', IDS, 'ends sessions whose secret was removed'],
    // Absolute timeout
    ['whatever a touch or a save says', LIFETIME, 'keeps to it'],
    ['It counts for rows that were there before', LIFETIME, 'old ones are no sessions any more'],
    ['`req.session.regenerate()` begins a new session', LIFETIME, 'regenerate starts anew'],
    // TLS
    ['calls fail and nothing is sent in the clear', 'faults/tls', 'asked for, is not done without where the server'],
    ['It checks with the authorities', 'faults/tls', 'refuses a server of another authority, or of another name'],
    ['`require_auth=scram-sha-256` allows only the first', 'client/authentication', '`require_auth` allows some ways'],
    [
      '`channel_binding=require` makes it a condition',
      'client/authentication',
      'somebody in between, with a certificate',
    ],
    ['more than 1,000,000 iterations of SCRAM', 'client/authentication', 'asks for too many iterations of SCRAM'],
    // Database privileges
    ['The role of the app needs no more than this', RIGHTS, 'select, insert, update and delete on one table are'],
    [
      'a role that creates the table before the app could give it a trigger',
      RIGHTS,
      'a role that creates the table first',
    ],
    ['revoke create on schema public from public', RIGHTS, 'a role that creates the table first'],
    ['Row level security can bind a role to its prefix', RIGHTS, 'works under row level security'],
    ['alter table public.sessions force row level security', RIGHTS, 'row level security binds a role that owns'],
    ['The schema need not be in the search path', RIGHTS, 'works in a schema that is in no search path'],
    ['call nothing that others have put into a schema of the search path', TRAPS, 'no command calls them'],
    [
      'change nothing in what the store reads and writes',
      'store/security-settings',
      'change nothing at their extreme values',
    ],
    // Logs
    ['the error has the SQLSTATE alone', LEAKS, 'of PostgreSQL: constraints, triggers'],
    ['Errors about options show no value', 'store/options', 'shows no value where a secret may have got'],
    ['a session by its handle', LEAKS, 'events name sessions by handles only'],
    ['They hold no session ID, row key, secret, key, password or session data', LEAKS, 'of PostgreSQL: constraints'],
    ['`util.inspect(store)` shows none either', LEAKS, 'a store shows nothing of itself'],
    ["An error that the app's own code throws", 'store/errors', 'tells the app what its own code threw'],
  ],
  'SECURITY.md': [
    ['A row key is not a cookie, even if both secrets are the same', IDS, 'who reads the table cannot make a cookie'],
    ['no session IDs, so nothing to use', IDS, 'what the table holds is no session ID'],
    ['inserts no session', IDS, 'a row that nobody with the secret wrote is no session'],
    ['nor copies them to another row', DATA, 'data moved to another row'],
    ['puts a row back as it was earlier', DATA, 'what encryption leaves open is what SECURITY.md says'],
    ['changes `user_id`', DATA, 'what encryption leaves open is what SECURITY.md says'],
    ['who can write `user_id` cannot read', DATA, 'who can write `user_id` reads and changes no other'],
    ['so they believe `user_id`', DATA, 'who can write `user_id` reads and changes no other'],
    ['A ciphertext is not bound to the table', DATA, 'a ciphertext is bound to its row key and not to its table'],
    [
      'While `allowPlaintext` is on, plain data written to the table are read',
      DATA,
      'finds plain rows unreadable, unless',
    ],
    ['It reveals no session ID', 'session/session-id', 'names a session by a stable handle that gives nothing away'],
    ['A hash without `secret` does not cover the prefix', IDS, 'a row copied to another prefix with its hash'],
    ['makes its session unreadable, and fails no request', 'store/cookie-fitness', 'that express-session fails on'],
    ['A polluted `Object.prototype` changes no option', 'store/security-pollution', 'changes nothing, and ends no'],
    ['Stored data change no prototype', DATA, 'changes no prototype, whatever reads, merges or lists it'],
    ['Values travel as parameters', 'faults/hostile-input', '10,000 values by property'],
  ],
};

const words = (text: string) => text.replaceAll(/\s+/g, ' ');

describe('what the pages on security claim', () => {
  for (const [page, claims] of Object.entries(CLAIMS)) {
    for (const [claim, file, title] of claims) {
      it(`${page}: ${claim}`, () => {
        assert(words(fs.readFileSync(path.join(ROOT, page), 'utf8')).includes(claim), 'the page does not say so');
        const spec = fs.readFileSync(path.join(ROOT, 'spec', `${file}.spec.ts`), 'utf8');
        assert(words(spec).includes(title), `${file} has no spec "${title}"`);
      });
    }
  }
});
