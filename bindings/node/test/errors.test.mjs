// Kinds of errors: the table in docs/errors.md, and what happens for real.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { test } from 'node:test';
import { SqliteError, connect } from '../index.mjs';
import { messages, open, scratch } from './world.mjs';

const { KINDS } = createRequire(import.meta.url)('../lib/error.js');
const { codeName } = createRequire(import.meta.url)('../lib/native.js');

/** The code's name of each kind. */
const documented = Object.fromEntries(
  [
    ...readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8').matchAll(
      /^\| `(\w+)` \|.*?\| `(SQLITE_\w+)` \| `\w+` \| `\w+` \| `\w+` \|$/gm,
    ),
  ].map(([, kind, code]) => [kind, code]),
);

test('the table of errors in the documentation is the one of the code', () => {
  assert.deepEqual(Object.fromEntries(KINDS.map(({ kind, rawCode }) => [kind, codeName(rawCode)])), documented);
});

const ENDLESS = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n';
const plain = (t) => open(t, { path: ':memory:' });

const situations = {
  sql: async (t) => (await plain(t)).exec('SELEC 1'),
  // A statement that this thread runs itself says its kind in another way.
  'sql of a prepared statement': async (t) => (await (await plain(t)).prepare('SELECT abs(?)')).get(-(2n ** 63n)),
  busy: async (t) => {
    const file = path.join(scratch(t), 'a.db');
    await (await open(t, { path: file })).exec('BEGIN IMMEDIATE');
    await (await open(t, { path: file, timeout: 0 })).exec('BEGIN IMMEDIATE');
  },
  constraint: async (t) => (await plain(t)).exec('CREATE TABLE t (a CHECK (a > 0)); INSERT INTO t VALUES (0)'),
  interrupted: async (t) => {
    const db = await plain(t);
    const running = db.get(ENDLESS);
    setTimeout(() => db.interrupt(), 50);
    await running;
  },
  transaction_lost: async (t) => {
    const db = await plain(t);
    await db.exec('CREATE TABLE t (a UNIQUE); INSERT INTO t VALUES (1); BEGIN');
    await assert.rejects(db.exec('INSERT OR ROLLBACK INTO t VALUES (1)'), { kind: 'constraint' });
    await db.exec('INSERT INTO t VALUES (2)');
  },
  read_only: async (t) => (await plain(t)).exec('CREATE TABLE t (a); PRAGMA query_only = 1; INSERT INTO t VALUES (1)'),
  not_a_database: async (t) => {
    const file = path.join(scratch(t), 'a.db');
    writeFileSync(file, 'this is not a database'.repeat(100));
    await (await open(t, { path: file })).get('SELECT * FROM sqlite_schema');
  },
  full: async (t) =>
    (await plain(t)).exec('CREATE TABLE t (a); PRAGMA max_page_count = 2; INSERT INTO t VALUES (zeroblob(100000))'),
  cannot_open: async (t) => open(t, { path: path.join(scratch(t), 'no such folder', 'a.db') }),
  too_big: async (t) => (await plain(t)).get('SELECT zeroblob(2000000000)'),
  misuse: async () => connect({ path: ':memory:', url: 'ftp://example.com/' }),
  network: async () => connect({ path: ':memory:', url: 'http://127.0.0.1:1' }),
  not_found: async (t, { url }) => connect({ path: ':memory:', url: `${url}/nowhere` }),
  unsupported: async (t, { url }) => (await open(t, { path: ':memory:', url })).exec('PRAGMA journal_mode = DELETE'),
  no_remote: async (t) => (await plain(t)).pull(),
  other_remote: async (t, { url }) => {
    const file = path.join(scratch(t), 'a.db');
    await (await connect({ path: file, url })).close();
    await connect({ path: file, url: 'http://127.0.0.1:1' });
  },
  push_constraint: async (t, { url }) => {
    const [one, two] = [await open(t, { path: ':memory:', url }), await open(t, { path: ':memory:', url })];
    await one.exec('CREATE UNIQUE INDEX messages_body ON messages (body)');
    await one.push();
    await two.exec('INSERT INTO messages SELECT 30000, user_id, body FROM messages WHERE id = 1');
    await two.push();
  },
  pull_conflict: async (t, { url }) => {
    const [one, two] = [await open(t, { path: ':memory:', url }), await open(t, { path: ':memory:', url })];
    await one.exec('DROP TABLE messages');
    await one.push();
    await two.exec('CREATE UNIQUE INDEX messages_body ON messages (body)');
    await two.pull();
  },
};

for (const [name, situation] of Object.entries(situations)) {
  const [kind] = name.split(' ');
  test(`what happens has the documented kind and code: ${name}`, async (t) => {
    const remote = situation.length > 1 ? await messages(t) : undefined;
    await assert.rejects(situation(t, remote), (error) => {
      assert.ok(error instanceof SqliteError, String(error));
      assert.equal(error.kind, kind, error.message);
      assert.ok(error.code.startsWith(documented[kind]), error.code);
      return true;
    });
  });
}
