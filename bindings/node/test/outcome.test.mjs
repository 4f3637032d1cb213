// What a call returned is what happened: nothing succeeds before it is kept, no transaction goes on in halves, and nothing
// waits for itself.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { test } from 'node:test';
import * as sync from '../index.mjs';
import { open, scratch } from './world.mjs';

const { SqliteError, Statement } = sync;

/** A local database with table t (id, v) and no rows. */
async function empty(t, options) {
  const db = await open(t, { path: path.join(scratch(t), 'local.db'), ...options });
  await db.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)');
  return db;
}

const ids = (db) => db.prepare('SELECT id FROM t ORDER BY id').pluck().all();
const endless = 'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)';

test('b3: after SQLite has rolled back, a transaction function takes no more statements and fails with the first error', async (t) => {
  const db = await empty(t);
  await db.run("INSERT INTO t VALUES (1, 'x')");
  const causes = {
    'OR ROLLBACK': (to) => to.run("INSERT OR ROLLBACK INTO t VALUES (10, 'x')"),
    'RAISE(ROLLBACK)': (to) => to.run('INSERT INTO raising VALUES (1)'),
    'a time limit': (to) => to.run(`INSERT INTO t ${endless} SELECT x + 100, x FROM c`, { queryTimeout: 30 }),
    'a script': (to) => to.exec("INSERT INTO t VALUES (11, 'q'); INSERT OR ROLLBACK INTO t VALUES (12, 'x')"),
    'a batch': (to) => to.batch(["INSERT OR ROLLBACK INTO t VALUES (13, 'x')", 'INSERT INTO t VALUES (14, 14)']),
    'a statement': async (to) => await (await to.prepare('INSERT OR ROLLBACK INTO t VALUES (?, ?)')).run(15, 'x'),
  };
  await db.exec('CREATE TABLE raising (a); CREATE TRIGGER raises BEFORE INSERT ON raising BEGIN SELECT RAISE(ROLLBACK, \'no\'); END');
  for (const kind of ['transaction', 'transactionAsync']) {
    for (const [name, cause] of Object.entries(causes)) {
      let first;
      let statement;
      const later = {
        run: (to) => to.run('INSERT INTO t VALUES (20, 20)'),
        get: (to) => to.get('INSERT INTO t VALUES (21, 21) RETURNING id'),
        all: (to) => to.all('SELECT * FROM t'),
        exec: (to) => to.exec('INSERT INTO t VALUES (22, 22)'),
        batch: (to) => to.batch(['INSERT INTO t VALUES (23, 23)']),
        iterate: (to) => to.iterate('INSERT INTO t VALUES (24, 24) RETURNING id').next(),
        prepare: (to) => to.prepare('INSERT INTO t VALUES (25, 25)'),
        statement: () => statement.run(),
        BEGIN: (to) => to.exec('BEGIN'),
      };
      const work = db[kind](async (handle) => {
        const to = kind === 'transaction' ? db : handle;
        statement = await to.prepare('INSERT INTO t VALUES (26, 26)');
        await to.run("INSERT INTO t VALUES (2, 'y')");
        await assert.rejects(cause(to), (error) => {
          first = error;
          return error instanceof SqliteError;
        });
        assert.equal(db.inTransaction, false, `${name} rolls back`);
        for (const [call, again] of Object.entries(later)) {
          await assert.rejects(again(to), { name: 'SqliteError', code: 'SQLITE_ABORT_ROLLBACK', cause: first }, call);
        }
        return 'well';
      });
      await assert.rejects(work(), (error) => error === first, `${kind}, ${name}`);
      assert.deepEqual(await ids(db), [1], `${kind}, ${name}`);
      assert.equal(db.inTransaction, false);
    }
  }
  // What the function throws by itself is told; a refusal that it passes on is told as what it was refused for.
  const own = new Error('its own');
  await assert.rejects(db.transaction(async () => {
    await db.run("INSERT OR ROLLBACK INTO t VALUES (10, 'x')").catch(() => {});
    throw own;
  })(), (error) => error === own);
  await assert.rejects(db.transaction(async () => {
    await db.run("INSERT OR ROLLBACK INTO t VALUES (10, 'x')").catch(() => {});
    await db.run('INSERT INTO t VALUES (3, 3)');
  })(), { code: 'SQLITE_CONSTRAINT_UNIQUE' });
  assert.deepEqual(await ids(db), [1]);
  assert.equal((await db.run('INSERT INTO t VALUES (3, 3)')).changes, 1, 'the database goes on');
});

test('b3: a transaction function whose transaction was ended by a statement takes no more statements', async (t) => {
  const db = await empty(t);
  for (const end of ['COMMIT', 'ROLLBACK', 'END']) {
    await assert.rejects(db.transaction(async () => {
      await db.run(end);
      await db.run('INSERT INTO t VALUES (5, 5)');
    })(), { code: 'SQLITE_ABORT_ROLLBACK', message: /ended by a statement of its own/ });
  }
  await assert.rejects(db.batch(['INSERT INTO t VALUES (6, 6)', 'ROLLBACK', 'INSERT INTO t VALUES (7, 7)']), /statement 2/);
  assert.deepEqual(await ids(db), []);
});

test('b3: what is begun while a transaction ends does not run after it', async (t) => {
  const db = await empty(t);
  let late;
  await db.transactionAsync(async (txn) => {
    // Still running when the function has returned: the commit waits for it.
    txn.run(`INSERT INTO t ${endless} SELECT x, x FROM c LIMIT 100000`);
    setImmediate(() => {
      late = txn.run("INSERT INTO t VALUES (-1, 'late')").then(() => 'kept', (error) => error);
    });
  })();
  const outcome = await late;
  assert.ok(outcome instanceof TypeError, String(outcome));
  assert.match(outcome.message, /already completed/);
  assert.deepEqual(await db.get("SELECT count(*) AS n FROM t WHERE v = 'late'"), { n: 0 });
});

test('b9: a transactionAsync that awaits its database is told at once which handle to use', async (t) => {
  const db = await empty(t);
  const prepared = await db.prepare('SELECT 1');
  const calls = {
    run: () => db.run('INSERT INTO t VALUES (1, 1)'),
    get: () => db.get('SELECT 1'),
    all: () => db.all('SELECT 1'),
    exec: () => db.exec('SELECT 1'),
    batch: () => db.batch(['SELECT 1']),
    iterate: () => db.iterate('SELECT 1').next(),
    prepare: () => db.prepare('SELECT 1'),
    pragma: () => db.pragma('user_version'),
    statement: () => prepared.get(),
    close: () => db.close(),
  };
  await db.transactionAsync(async (txn) => {
    for (const [name, call] of Object.entries(calls)) {
      await assert.rejects(call(), { name: 'TypeError', message: /use the handle, as in txn\.run/ }, name);
    }
    for (const kind of ['transaction', 'transactionAsync']) {
      await assert.rejects(db[kind](() => {})(), /cannot start a transaction within a transaction/);
    }
    await txn.run('INSERT INTO t VALUES (2, 2)');
  })();
  await assert.rejects(db.transaction(() => db.close())(), TypeError);
  assert.deepEqual(await ids(db), [2]);
  assert.equal(db.open, true);
});

test('b9: everything that the types declare is exported, by import and by require', () => {
  const types = readFileSync(new URL('../index.d.ts', import.meta.url), 'utf8');
  const declared = [...types.matchAll(/^export (?:class|function|const) (\w+)/gm)].map((match) => match[1]).sort();
  assert.deepEqual(Object.keys(sync).sort(), declared);
  assert.deepEqual(Object.keys(createRequire(import.meta.url)('../index.js')).sort(), declared);
  assert.throws(() => new Statement(), { name: 'TypeError', message: /prepare/ });
});

test('b9: a prepared statement is a Statement', async (t) => {
  const db = await empty(t);
  assert.ok((await db.prepare('SELECT 1')) instanceof Statement);
});

test('b9: lists are parameters or refused, never bytes; bytes are those that a view shows', async (t) => {
  const db = await empty(t);
  const blob = async (value) => (await db.get('SELECT ?1 AS v, typeof(?1) AS t', value));
  const bytes = new Uint8Array([0, 1, 2, 3, 4, 5, 6, 7]);
  const shared = new Uint8Array(new SharedArrayBuffer(4));
  shared.set([9, 8, 7, 6]);
  const views = [
    [bytes.subarray(2, 5), [2, 3, 4]],
    [new DataView(bytes.buffer, 1, 2), [1, 2]],
    [new Uint16Array([1, 258]), [1, 0, 2, 1]],
    [new BigInt64Array([1n]), [1, 0, 0, 0, 0, 0, 0, 0]],
    [new Float64Array(0), []],
    [shared, [9, 8, 7, 6]],
    [shared.buffer, [9, 8, 7, 6]],
    [Buffer.from('é'), [0xc3, 0xa9]],
  ];
  for (const [value, want] of views) assert.deepEqual(await blob(value), { v: Buffer.from(want), t: 'blob' });
  // A list is the values one by one; one inside of the values is refused.
  assert.deepEqual(await db.get('SELECT ? AS a, ? AS b, ? AS c', [1, 2, 3]), { a: 1, b: 2, c: 3 });
  assert.deepEqual(await db.get('SELECT ? AS a', [bytes]), { a: Buffer.from(bytes) });
  for (const list of [[1, 2, 3], [], new Array(3)]) {
    for (const args of [[[list]], [{ v: list }], [list, list]]) {
      await assert.rejects(db.get('SELECT :v AS v' + ', ?'.repeat(args.length - 1), ...args), TypeError);
    }
    await assert.rejects(db.batch([{ sql: 'SELECT ?', args: [list] }]), TypeError);
  }
  await assert.rejects(db.get('SELECT ?', [1, 2, 3]), RangeError);
});
