// Statements, rows, transactions and errors, on plain local databases: what a user of SQLite in Node expects.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { connect, Database, SqliteError, Transaction } from '../index.mjs';
import { open, scratch } from './world.mjs';

const memory = (t, options) => open(t, { path: ':memory:', ...options });

/** A database in memory with table t (id, a, b) of three rows. */
async function three(t) {
  const db = await memory(t);
  await db.exec(`
    CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b TEXT UNIQUE);
    INSERT INTO t VALUES (1, 10, 'x'), (2, 20, 'y'), (3, NULL, 'z');
  `);
  return db;
}

test('rows are plain objects with the columns in order', async (t) => {
  const db = await three(t);
  const statement = await db.prepare('SELECT b, id, a FROM t WHERE id <= ?');
  assert.deepEqual(await statement.all(2), [
    { b: 'x', id: 1, a: 10 },
    { b: 'y', id: 2, a: 20 },
  ]);
  assert.deepEqual(Object.keys(await statement.get(1)), ['b', 'id', 'a']);
  assert.equal(Object.getPrototypeOf(await statement.get(1)), Object.prototype);
  assert.equal(await statement.get(0), undefined);
  assert.deepEqual(await statement.all(0), []);
});

test('raw and pluck give arrays and first columns', async (t) => {
  const db = await three(t);
  const statement = await db.prepare('SELECT id, a FROM t');
  assert.equal(statement.raw(), statement);
  assert.deepEqual(await statement.all(), [[1, 10], [2, 20], [3, null]]);
  assert.deepEqual(await statement.get(), [1, 10]);
  assert.deepEqual(await statement.pluck().all(), [1, 2, 3]);
  assert.equal(await statement.get(), 1);
  assert.deepEqual(await statement.pluck(false).get(), { id: 1, a: 10 });
});

test('a statement need not be awaited before it is used', async (t) => {
  const db = await three(t);
  assert.deepEqual(await db.prepare('SELECT id FROM t').pluck().all(), [1, 2, 3]);
  assert.deepEqual(await db.prepare('SELECT a FROM t WHERE id = ?').bind(2).get(), { a: 20 });
  assert.equal((await db.prepare('DELETE FROM t').run()).changes, 3);
  const rows = [];
  for await (const row of db.prepare('SELECT 1 AS one').raw().iterate()) rows.push(row);
  assert.deepEqual(rows, [[1]]);
  await assert.rejects(db.prepare('SELECT * FROM nowhere').all(), /no such table: nowhere/);
});

test('statements tell about themselves', async (t) => {
  const db = await three(t);
  const reader = await db.prepare('SELECT id, a + 1 AS more FROM t');
  assert.deepEqual(reader.columns(), [
    { name: 'id', type: 'INTEGER', column: null, table: null, database: null },
    { name: 'more', type: null, column: null, table: null, database: null },
  ]);
  assert.equal(reader.reader, true);
  assert.equal(reader.source, 'SELECT id, a + 1 AS more FROM t');
  assert.equal(reader.database, db);
  assert.equal((await db.prepare('DELETE FROM t')).reader, false);
  reader.close();
  reader.close();
  await assert.rejects(reader.get(), { name: 'TypeError', message: /closed/ });
});

test('values of every type are bound by position, in an array, and by name', async (t) => {
  const db = await memory(t);
  const typed = async (value) => Object.values(await db.get('SELECT ?1 AS v, typeof(?1) AS t', value));
  assert.deepEqual(await typed(null), [null, 'null']);
  assert.deepEqual(await typed(undefined), [null, 'null']);
  assert.deepEqual(await typed(5), [5, 'integer']);
  assert.deepEqual(await typed(-(2 ** 40)), [-(2 ** 40), 'integer']);
  assert.deepEqual(await typed(5.5), [5.5, 'real']);
  assert.deepEqual(await typed(-0), [-0, 'real']);
  assert.deepEqual(await typed(1e300), [1e300, 'real']);
  assert.deepEqual(await typed(NaN), [null, 'null']);
  assert.deepEqual(await typed(7n), [7, 'integer']);
  assert.deepEqual(await typed(true), [1, 'integer']);
  assert.deepEqual(await typed('é\0'), ['é\0', 'text']);
  assert.deepEqual(await typed(new Uint8Array([1, 2])), [Buffer.from([1, 2]), 'blob']);
  assert.deepEqual(await typed(new Uint8Array([1, 2, 3]).buffer), [Buffer.from([1, 2, 3]), 'blob']);
  assert.deepEqual(await typed(new Float32Array([1])), [Buffer.from([0, 0, 128, 63]), 'blob']);
  assert.deepEqual(await db.get('SELECT ? AS a, ? AS b', [1, 2]), { a: 1, b: 2 });
  assert.deepEqual(await db.get('SELECT :a AS a, @b AS b, $c AS c', { a: 1, b: 2, c: 3 }), { a: 1, b: 2, c: 3 });
  assert.deepEqual(await db.get('SELECT :a AS a, $c AS c', { ':a': 1, $c: 3, other: 4 }), { a: 1, c: 3 });
  assert.deepEqual(await db.get('SELECT ?2 AS v', { 1: 'one', 2: 'two' }), { v: 'two' });
});

test('values that do not fit are refused, and say why', async (t) => {
  const db = await memory(t);
  await assert.rejects(db.get('SELECT ?, ?', 1), { name: 'RangeError', message: /2 parameters, 1 were given/ });
  await assert.rejects(db.get('SELECT ?', 1, 2), { name: 'RangeError', message: /1 parameter, 2 were given/ });
  await assert.rejects(db.run('SELECT 1', [1]), RangeError);
  await assert.rejects(db.get('SELECT :name', { nam: 1 }), { message: /":name"; did you mean it by "nam"\?/ });
  await assert.rejects(db.get('SELECT ?', { a: 1 }), { name: 'TypeError', message: /plain "\?"/ });
  await assert.rejects(db.get('SELECT ?', 2n ** 63n), { name: 'RangeError', message: /64-bit/ });
  await assert.rejects(db.get('SELECT ?', [() => 1]), { name: 'TypeError', message: /parameter 1 is a function/ });
  await assert.rejects(db.get('SELECT ?, ?', 1, [2]), { name: 'TypeError', message: /parameter 2 .* Array/ });
  await assert.rejects(db.get('SELECT ?', Symbol('s')), { name: 'TypeError', message: /a symbol/ });
  await assert.rejects(db.get(7), { name: 'TypeError', message: /SQL must be a string/ });
  await assert.rejects(db.get('-- nothing'), { name: 'RangeError', message: /no statements/ });
  assert.deepEqual(await db.get('SELECT ? AS v', 3), { v: 3 }, 'it continues after all that');
});

test('bound values serve the calls that give none', async (t) => {
  const db = await three(t);
  const statement = await db.prepare('SELECT b FROM t WHERE id = ?');
  assert.equal(statement.bind(2), statement);
  assert.deepEqual(await statement.get(), { b: 'y' });
  assert.deepEqual(await statement.get(3), { b: 'z' });
  assert.deepEqual(await statement.get(), { b: 'y' });
  assert.throws(() => statement.bind(1, 2), RangeError);
});

test('integers are numbers, or BigInt by safeIntegers', async (t) => {
  const db = await memory(t);
  const sql = 'SELECT 9007199254740993 AS v, 1 AS one, 0.5 AS half';
  assert.deepEqual(await db.get(sql), { v: 9007199254740992, one: 1, half: 0.5 });
  const statement = await db.prepare(sql);
  assert.deepEqual(await statement.safeIntegers().get(), { v: 9007199254740993n, one: 1n, half: 0.5 });
  assert.deepEqual(await statement.safeIntegers(false).get(), { v: 9007199254740992, one: 1, half: 0.5 });
  db.defaultSafeIntegers();
  assert.deepEqual(await db.get('SELECT 1 AS v'), { v: 1n });
  db.defaultSafeIntegers(false);
  assert.deepEqual(await db.get('SELECT 1 AS v'), { v: 1 });
});

test('column names may be anything', async (t) => {
  const db = await memory(t);
  const sql = `SELECT 1 AS "__proto__", 2 AS "constructor", 3 AS "a""b\\", 4 AS "7", 5 AS x, 6 AS x, 7 AS "" `;
  for (let i = 0; i < 100; i++) {
    const row = await db.get(sql);
    assert.equal(Object.getPrototypeOf(row), Object.prototype);
    assert.deepEqual(Object.entries(row).sort(), [
      ['', 7], ['7', 4], ['__proto__', 1], ['a"b\\', 3], ['constructor', 2], ['x', 6],
    ].sort());
  }
});

test('run tells what changed', async (t) => {
  const db = await three(t);
  assert.deepEqual(await db.run('INSERT INTO t VALUES (?, ?, ?)', 9, 90, 'nine'), { changes: 1, lastInsertRowid: 9 });
  assert.deepEqual(await db.run('UPDATE t SET a = 0'), { changes: 4, lastInsertRowid: 9 });
  assert.equal((await db.run('SELECT 1')).changes, 0);
  assert.deepEqual(await db.all('INSERT INTO t (a) VALUES (8), (9) RETURNING id, a'), [
    { id: 10, a: 8 },
    { id: 11, a: 9 },
  ]);
  assert.equal((await db.get("UPDATE t SET a = 1 WHERE b = 'x' RETURNING a")).a, 1);
});

test('a long result comes whole and in order, and leaves the event loop time', async (t) => {
  const db = await memory(t);
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const rows = await db.all(`
    SELECT value AS i, value * 1.5 AS x, 'text ' || value AS s, CASE value % 3 WHEN 0 THEN NULL ELSE value * 5000000000 END AS big,
      CAST('b' || value AS BLOB) AS b, 'ü' || value AS u
    FROM generate_series(1, 50000)`);
  clearInterval(timer);
  assert.equal(rows.length, 50_000);
  for (const [at, row] of rows.entries()) {
    const i = at + 1;
    const want = { i, x: i * 1.5, s: `text ${i}`, big: i % 3 === 0 ? null : i * 5e9, b: Buffer.from(`b${i}`), u: `ü${i}` };
    if (i % 997 === 0) assert.deepEqual(row, want);
    else if (row.i !== i || row.u !== want.u || row.x !== want.x) assert.deepEqual(row, want);
  }
  assert.ok(ticks > 3, `${ticks} ticks`);
});

test('a statement that changes rows and gives many runs once', async (t) => {
  const db = await memory(t);
  await db.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, v)');
  const rows = await db.all('INSERT INTO t (v) SELECT value FROM generate_series(1, 5000) RETURNING id');
  assert.equal(rows.length, 5000);
  assert.deepEqual(await db.get('SELECT count(*) AS n FROM t'), { n: 5000 });
  const first = await db.get('UPDATE t SET v = v + 1 RETURNING id, v');
  assert.deepEqual(first, { id: 1, v: 2 });
  assert.deepEqual(await db.get('SELECT sum(v) AS s FROM t'), { s: 12507500 });
});

test('a statement follows a change of the schema', async (t) => {
  const db = await three(t);
  const statement = await db.prepare('SELECT * FROM t');
  assert.deepEqual(Object.keys(await statement.get()), ['id', 'a', 'b']);
  await db.exec('ALTER TABLE t RENAME COLUMN a TO amount; ALTER TABLE t ADD COLUMN more DEFAULT 5');
  assert.deepEqual(await statement.get(), { id: 1, amount: 10, b: 'x', more: 5 });
  await db.exec('ALTER TABLE t DROP COLUMN more');
  assert.deepEqual((await statement.all())[2], { id: 3, amount: null, b: 'z' });
});

test('iterate streams, lets others in between, and is freed by leaving the loop', async (t) => {
  const db = await memory(t);
  await db.exec('CREATE TABLE n (i)');
  await db.exec('INSERT INTO n SELECT value FROM generate_series(1, 100000)');
  const seen = [];
  for await (const { i } of db.iterate('SELECT i FROM n')) {
    seen.push(i);
    if (i % 1000 === 0) assert.deepEqual(await db.get('SELECT count(*) AS c FROM n'), { c: 100_000 });
    if (i === 5000) break;
  }
  assert.equal(seen.length, 5000);
  await db.exec('DROP TABLE n');

  const statement = await db.prepare('SELECT value FROM generate_series(1, ?)');
  const sums = [0, 0];
  for await (const a of statement.pluck().iterate(40)) {
    sums[0] += a;
    for await (const b of statement.iterate(30)) sums[1] += b;
  }
  assert.deepEqual(sums, [820, 40 * 465]);
  const endless = db.iterate('WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c');
  assert.deepEqual((await endless.next()).value, { x: 1 });
  await endless.return();
});

test('a transaction commits what it did, or nothing', async (t) => {
  const db = await three(t);
  const add = db.transaction(async (...values) => {
    assert.equal(db.inTransaction, true);
    for (const value of values) await db.run('INSERT INTO t (b) VALUES (?)', value);
    return values.length;
  });
  assert.equal(await add('p', 'q'), 2);
  assert.equal(db.inTransaction, false);
  await assert.rejects(add('r', 'x'), { code: 'SQLITE_CONSTRAINT_UNIQUE' });
  for (const mode of ['default', 'deferred', 'immediate', 'exclusive']) assert.equal(await add[mode](mode), 1);
  assert.equal(add.database, db);
  assert.deepEqual(await db.prepare("SELECT b FROM t WHERE id > 3 ORDER BY id").pluck().all(), [
    'p', 'q', 'default', 'deferred', 'immediate', 'exclusive',
  ]);
  assert.equal(await db.transaction(() => 5)(), 5);
  await assert.rejects(db.transaction(async () => add('s'))(), /within a transaction/);
  assert.throws(() => db.transaction('no'), TypeError);
});

test('what is done outside of a transaction waits for its end', async (t) => {
  const db = await three(t);
  const log = [];
  let outside;
  const remove = db.transaction(async () => {
    await db.run('DELETE FROM t');
    await new Promise((resolve) => setTimeout(resolve, 20));
    log.push(`inside ${(await db.get('SELECT count(*) AS n FROM t')).n}`);
    throw new Error('changed my mind');
  });
  const removing = remove();
  outside = db.get('SELECT count(*) AS n FROM t').then(({ n }) => log.push(`outside ${n}`));
  await assert.rejects(removing, /changed my mind/);
  await outside;
  assert.deepEqual(log, ['inside 0', 'outside 3']);
  const twice = db.transaction(async (b) => (await db.run('INSERT INTO t (b) VALUES (?)', b)).changes);
  assert.deepEqual(await Promise.all([twice('one'), twice('two'), twice('three')]), [1, 1, 1]);
});

test('transactionAsync gives a handle that has the connection to itself', async (t) => {
  const db = await three(t);
  let kept;
  const work = db.transactionAsync(async (txn, b) => {
    assert.ok(txn instanceof Transaction);
    assert.equal(txn.open, true);
    kept = txn;
    await txn.run('INSERT INTO t (b) VALUES (?)', b);
    const insert = await txn.prepare('INSERT INTO t (b) VALUES (?)');
    await insert.run(`${b}${b}`);
    await txn.exec("INSERT INTO t (b) VALUES ('script')");
    await txn.batch(["INSERT INTO t (b) VALUES ('batch')"]);
    const rows = [];
    for await (const row of txn.iterate('SELECT b FROM t WHERE id > 3')) rows.push(row.b);
    assert.deepEqual(rows, ['w', 'ww', 'script', 'batch']);
    assert.equal((await txn.all('SELECT * FROM t')).length, 7);
    if (b === 'w') throw new Error('no');
    return (await txn.get('SELECT count(*) AS n FROM t')).n;
  });
  const working = work.immediate('w');
  const outside = db.get('SELECT count(*) AS n FROM t');
  await assert.rejects(working, /no/);
  assert.deepEqual(await outside, { n: 3 }, 'it waited for the rollback');
  assert.equal(kept.open, false);
  await assert.rejects(kept.get('SELECT 1'), { name: 'TypeError', message: 'The transaction has already completed' });
});

test('a batch is one transaction', async (t) => {
  const db = await three(t);
  assert.deepEqual(
    await db.batch(
      ["INSERT INTO t (b) VALUES ('n')", { sql: 'SELECT id, b FROM t WHERE id > ?', args: [2] }, ['SELECT :v + 1', { v: 1 }]],
      'write',
    ),
    [
      { columns: [], columnTypes: [], rows: [], rowsAffected: 1 },
      { columns: ['id', 'b'], columnTypes: ['INTEGER', 'TEXT'], rows: [{ id: 3, b: 'z' }, { id: 4, b: 'n' }], rowsAffected: 0 },
      { columns: [':v + 1'], columnTypes: [''], rows: [{ ':v + 1': 2 }], rowsAffected: 0 },
    ],
  );
  assert.deepEqual((await db.batch(['SELECT 1, 2'], { mode: 'read', raw: true }))[0].rows, [[1, 2]]);
  await assert.rejects(db.batch(["INSERT INTO t (b) VALUES ('m')", "INSERT INTO t (b) VALUES ('x')"]), SqliteError);
  assert.deepEqual(await db.get("SELECT count(*) AS n FROM t WHERE b = 'm'"), { n: 0 });
  assert.deepEqual(await db.batch([]), []);
  await assert.rejects(db.batch(['SELECT 1'], 'wirte'), /unknown transaction mode "wirte"/);
  await assert.rejects(db.batch([7]), /statement 1 of the batch/);
  await db.exec('BEGIN');
  await db.run("INSERT INTO t (b) VALUES ('kept')");
  await assert.rejects(db.batch(["INSERT INTO t (b) VALUES ('gone')", 'nonsense']));
  await db.exec('COMMIT');
  assert.deepEqual(await db.prepare("SELECT b FROM t WHERE b IN ('kept', 'gone')").pluck().all(), ['kept']);
});

test('pragmas and properties', async (t) => {
  const db = await three(t);
  assert.deepEqual(await db.pragma('user_version = 5'), []);
  assert.deepEqual(await db.pragma('user_version'), [{ user_version: 5 }]);
  assert.equal(await db.pragma('user_version', { simple: true }), 5);
  assert.equal(await db.pragma('foreign_keys', { simple: true }), 0);
  assert.deepEqual([db.name, db.open, db.memory, db.readonly, db.inTransaction], [':memory:', true, true, false, false]);
});

test('errors have SQLite names and numbers, and the stack of the caller', async (t) => {
  const db = await three(t);
  const failures = [
    ["INSERT INTO t (b) VALUES ('x')", 'SQLITE_CONSTRAINT_UNIQUE', 2067, /UNIQUE constraint failed: t\.b/],
    ['INSERT INTO t VALUES (1, 1, 1)', 'SQLITE_CONSTRAINT_PRIMARYKEY', 1555, /UNIQUE constraint failed: t\.id/],
    ['SELEC 1', 'SQLITE_ERROR', 1, /near "SELEC": syntax error/],
    ['SELECT * FROM nowhere', 'SQLITE_ERROR', 1, /no such table: nowhere/],
    ['SELECT abs(-9223372036854775808)', 'SQLITE_ERROR', 1, /integer overflow/],
  ];
  async function theCaller(sql) {
    await db.run(sql);
  }
  for (const [sql, code, rawCode, message] of failures) {
    for (const call of ['run', 'get', 'all', 'exec']) {
      await assert.rejects(db[call](sql), (error) => {
        assert.ok(error instanceof SqliteError && error instanceof Error);
        assert.deepEqual([error.name, error.code, error.rawCode], ['SqliteError', code, rawCode]);
        assert.match(error.message, message);
        return true;
      });
    }
    await assert.rejects(theCaller(sql), (error) => /theCaller/.test(error.stack));
  }
});

test('a busy database says so', async (t) => {
  const file = path.join(scratch(t), 'busy.db');
  const one = await open(t, { path: file });
  const two = await open(t, { path: file, timeout: 20 });
  await one.exec('CREATE TABLE t (a); BEGIN IMMEDIATE');
  await assert.rejects(two.run('INSERT INTO t VALUES (1)'), { name: 'SqliteError', code: 'SQLITE_BUSY', rawCode: 5 });
  await one.exec('COMMIT');
  assert.equal((await two.run('INSERT INTO t VALUES (1)')).changes, 1);
});

test('a Database connects when it is first used, once', async (t) => {
  const file = path.join(scratch(t), 'lazy.db');
  const db = new Database({ path: file });
  assert.equal(db.open, false);
  await Promise.all([db.exec('CREATE TABLE IF NOT EXISTS t (a)'), db.connect(), db.connect(), db.get('SELECT 1')]);
  assert.equal(db.open, true);
  await db.close();
  const bad = new Database({ path: path.join(scratch(t), 'no', 'such', 'folder.db') });
  await assert.rejects(bad.get('SELECT 1'), SqliteError);
  await assert.rejects(bad.connect(), SqliteError);
});

test('after closing, every call says that the database is not open', async (t) => {
  const db = await three(t);
  const statement = await db.prepare('SELECT 1');
  const last = db.run("INSERT INTO t (b) VALUES ('last')");
  await db.close();
  assert.equal((await last).changes, 1, 'what was begun before is done');
  await db.close();
  assert.equal(db.open, false);
  assert.equal(db.inTransaction, false);
  const calls = {
    get: () => db.get('SELECT 1'),
    all: () => db.all('SELECT 1'),
    run: () => db.run('SELECT 1'),
    exec: () => db.exec('SELECT 1'),
    prepare: () => db.prepare('SELECT 1'),
    batch: () => db.batch(['SELECT 1']),
    iterate: () => db.iterate('SELECT 1').next(),
    pragma: () => db.pragma('user_version'),
    transaction: () => db.transaction(() => 1)(),
    transactionAsync: () => db.transactionAsync(() => 1)(),
    pull: () => db.pull(),
    push: () => db.push(),
    stats: () => db.stats(),
    checkpoint: () => db.checkpoint(),
    connect: () => db.connect(),
    statement: () => statement.get(),
  };
  for (const [name, call] of Object.entries(calls)) {
    await assert.rejects(call(), { name: 'TypeError', message: 'The database connection is not open' }, name);
  }
});

test('await using closes', async (t) => {
  const db = await connect({ path: path.join(scratch(t), 'using.db') });
  await db[Symbol.asyncDispose]();
  assert.equal(db.open, false);
});

test(':memory: leaves no file', async (t) => {
  const folder = scratch(t);
  const before = process.cwd();
  process.chdir(folder);
  t.after(() => process.chdir(before));
  const db = await connect({ path: ':memory:' });
  await db.exec('CREATE TABLE t (a); INSERT INTO t VALUES (1)');
  assert.deepEqual(await db.get('SELECT * FROM t'), { a: 1 });
  await db.close();
  assert.deepEqual(readdirSync(folder), []);
});

test('statements that are not queries work through every method', async (t) => {
  const db = await open(t, { path: path.join(scratch(t), 'modes.db') });
  await db.pragma('journal_mode = WAL');
  assert.equal(await db.get('BEGIN'), undefined);
  await db.all('CREATE TABLE t (a)');
  assert.equal(db.inTransaction, true);
  assert.deepEqual(await db.all('COMMIT'), []);
  assert.equal(db.inTransaction, false);
  assert.equal((await db.get('PRAGMA wal_checkpoint(TRUNCATE)')).busy, 0);
  assert.equal((await db.all('EXPLAIN QUERY PLAN SELECT * FROM t')).length, 1);
  assert.deepEqual(await db.prepare('/* a comment */ VALUES (1), (2)').pluck().all(), [1, 2]);
});
