// @libsql/client as a client of SQL over HTTP: one line per check, exit status 1 when one fails.
//
//     node libsql_client.mjs URL [TOKEN]
//     node libsql_client.mjs --url URL [--token TOKEN]
//
// Makes and drops tables named libsql_*; must never touch another table of the database behind the url.

import assert from 'node:assert/strict';
import { createClient, LibsqlError } from '@libsql/client/http';
import * as hrana from '@libsql/hrana-client';
import { Checks, argumentsByName } from './checks.mjs';

const [first, second] = process.argv.slice(2);
const { url: given, token, server = 'ours' } = first?.startsWith('--') ? argumentsByName() : { url: first, token: second };
if (!given) {
  console.error('usage: node libsql_client.mjs URL [TOKEN]');
  process.exit(2);
}
// The client appends `v2/pipeline` as a relative url does: without a slash the last part of a path would be lost.
const url = given.endsWith('/') ? given : `${given}/`;
const open = (options = {}) => createClient({ url, authToken: token, ...options });
const db = open();
const checks = new Checks('@libsql/client', server);

/** The error of a promise that must fail with this code and this text. */
async function fails(promise, code, text) {
  const error = await promise.then(
    () => assert.fail(`expected ${code}: ${text}`),
    (error) => error,
  );
  assert.ok(error instanceof LibsqlError, `${error}`);
  assert.equal(error.code, code, error.message);
  assert.ok(error.message.includes(text), error.message);
  return error;
}

/** Runs `use` with an empty table `libsql_t(id INTEGER PRIMARY KEY, v UNIQUE)`. */
function onTable(use) {
  return async () => {
    await db.executeMultiple('DROP TABLE IF EXISTS libsql_t; CREATE TABLE libsql_t(id INTEGER PRIMARY KEY, v UNIQUE)');
    try {
      await use();
    } finally {
      await db.execute('DROP TABLE libsql_t');
    }
  };
}

const values = async () => (await db.execute('SELECT v FROM libsql_t ORDER BY id')).rows.map((row) => row.v);

checks.add('execute: positional and named arguments', async () => {
  const positional = await db.execute({ sql: 'SELECT ? AS a, ? AS b', args: [1, 'two'] });
  assert.deepEqual(positional.columns, ['a', 'b']);
  assert.deepEqual({ ...positional.rows[0] }, { a: 1, b: 'two' });
  assert.equal(positional.rows[0][1], 'two');
  const named = await db.execute({ sql: 'SELECT :a AS a, @b AS b, $c AS c', args: { a: 1, b: 2, c: 3 } });
  assert.deepEqual({ ...named.rows[0] }, { a: 1, b: 2, c: 3 });
  const prefixed = await db.execute({ sql: 'SELECT :a AS a', args: { ':a': null } });
  assert.equal(prefixed.rows[0].a, null);
});

checks.add('execute: every kind of value comes back', async () => {
  const bytes = Uint8Array.from([0, 1, 2, 254, 255]);
  const given = [null, 0.1, 1.7976931348623157e308, 5e-324, 'snö ☃ "quoted"', '', bytes.buffer];
  const { rows } = await db.execute({ sql: `SELECT ${given.map(() => '?').join(', ')}`, args: given });
  for (const [index, value] of given.entries()) assert.deepEqual(rows[0][index], value);
  const truth = await db.execute({ sql: 'SELECT ? AS t, typeof(?) AS k', args: [true, new Date(1234)] });
  assert.deepEqual({ ...truth.rows[0] }, { t: 1, k: 'real' });
});

checks.add('execute: integers as number, bigint and string', async () => {
  const large = 9007199254740993n;
  const query = { sql: 'SELECT ? AS n', args: [large] };
  await assert.rejects(db.execute(query), RangeError);
  const bigint = open({ intMode: 'bigint' });
  assert.equal((await bigint.execute(query)).rows[0].n, large);
  const string = open({ intMode: 'string' });
  assert.equal((await string.execute(query)).rows[0].n, String(large));
  const extremes = await string.execute('SELECT 9223372036854775807 AS a, -9223372036854775808 AS b');
  assert.deepEqual({ ...extremes.rows[0] }, { a: '9223372036854775807', b: '-9223372036854775808' });
});

checks.add('execute: rowsAffected, lastInsertRowid, column types', onTable(async () => {
  const inserted = await db.execute("INSERT INTO libsql_t VALUES (7, 'a'), (8, 'b')");
  assert.deepEqual([inserted.rowsAffected, inserted.lastInsertRowid], [2, 8n]);
  const updated = await db.execute("UPDATE libsql_t SET v = v || 'x'");
  assert.equal(updated.rowsAffected, 2);
  const selected = await db.execute('SELECT id, v FROM libsql_t');
  assert.deepEqual([selected.rowsAffected, selected.columnTypes], [0, ['INTEGER', '']]);
  const returned = await db.execute("INSERT INTO libsql_t(v) VALUES ('c') RETURNING id, v");
  assert.deepEqual({ ...returned.rows[0] }, { id: 9, v: 'c' });
}));

checks.add('errors: the text and the code of SQLite', onTable(async () => {
  await fails(db.execute('SELECT * FROM libsql_absent'), 'SQLITE_ERROR', 'no such table: libsql_absent');
  await fails(db.execute('SELEC 1'), 'SQLITE_ERROR', 'near "SELEC": syntax error');
  await db.execute("INSERT INTO libsql_t VALUES (1, 'a')");
  await fails(
    db.execute("INSERT INTO libsql_t VALUES (2, 'a')"),
    'SQLITE_CONSTRAINT',
    'UNIQUE constraint failed: libsql_t.v',
  );
  await fails(
    db.execute("INSERT INTO libsql_t VALUES (1, 'b')"),
    'SQLITE_CONSTRAINT',
    'UNIQUE constraint failed: libsql_t.id',
  );
  await fails(db.execute('SELECT 1; SELECT 2'), 'SQL_MANY_STATEMENTS', 'more than one statement');
  await fails(db.execute({ sql: 'SELECT ?', args: [1, 2] }), 'ARGS_INVALID', 'positional arguments');
  await fails(db.execute("ATTACH 'x' AS y"), 'SQLITE_AUTH', 'ATTACH');
}));

for (const mode of ['write', 'deferred', 'read']) {
  checks.add(`batch: mode ${mode}`, onTable(async () => {
    await db.execute("INSERT INTO libsql_t VALUES (1, 'a')");
    const results = await db.batch(['SELECT v FROM libsql_t', { sql: 'SELECT ? AS n', args: [5] }, ['SELECT :m AS m', { m: 6 }]], mode);
    assert.deepEqual(results.map((result) => result.rows[0][0]), ['a', 5, 6]);
  }));
}

checks.add('batch: all of it or nothing, and the error names the step', onTable(async () => {
  const insert = (v) => ({ sql: 'INSERT INTO libsql_t(v) VALUES (?)', args: [v] });
  const results = await db.batch([insert('a'), insert('b'), 'SELECT count(*) AS n FROM libsql_t'], 'write');
  assert.equal(results[2].rows[0].n, 2);
  const error = await fails(db.batch([insert('c'), insert('a'), insert('d')], 'write'), 'SQLITE_CONSTRAINT', 'libsql_t.v');
  assert.equal(error.statementIndex, 1);
  assert.deepEqual(await values(), ['a', 'b']);
}));

checks.add('batch: the same text many times', onTable(async () => {
  const rows = Array.from({ length: 500 }, (_, id) => ({ sql: 'INSERT INTO libsql_t VALUES (?, ?)', args: [id, `v${id}`] }));
  const results = await db.batch(rows, 'write');
  assert.equal(results.length, 500);
  assert.equal((await values()).length, 500);
}));

checks.add('transaction: commit', onTable(async () => {
  const transaction = await db.transaction('write');
  await transaction.execute("INSERT INTO libsql_t VALUES (1, 'a')");
  const [, seen] = await transaction.batch(["INSERT INTO libsql_t VALUES (2, 'b')", 'SELECT count(*) AS n FROM libsql_t']);
  assert.equal(seen.rows[0].n, 2);
  assert.deepEqual(await values(), [], 'not visible outside before the commit');
  await transaction.commit();
  assert.ok(transaction.closed);
  assert.deepEqual(await values(), ['a', 'b']);
  await fails(transaction.execute('SELECT 1'), 'TRANSACTION_CLOSED', 'closed');
}));

checks.add('transaction: rollback, and close without commit', onTable(async () => {
  const rolled = await db.transaction('write');
  await rolled.execute("INSERT INTO libsql_t VALUES (1, 'a')");
  await rolled.rollback();
  assert.deepEqual(await values(), []);
  const closed = await db.transaction('write');
  await closed.execute("INSERT INTO libsql_t VALUES (1, 'a')");
  closed.close();
  await db.execute("INSERT INTO libsql_t VALUES (2, 'b')");
  assert.deepEqual(await values(), ['b']);
}));

checks.add('transaction: an error in it leaves it usable', onTable(async () => {
  const transaction = await db.transaction('write');
  await transaction.execute("INSERT INTO libsql_t VALUES (1, 'a')");
  await fails(transaction.execute("INSERT INTO libsql_t VALUES (2, 'a')"), 'SQLITE_CONSTRAINT', 'libsql_t.v');
  await transaction.execute("INSERT INTO libsql_t VALUES (3, 'c')");
  await transaction.commit();
  assert.deepEqual(await values(), ['a', 'c']);
}));

checks.add('transaction: executeMultiple', onTable(async () => {
  const transaction = await db.transaction('deferred');
  await transaction.executeMultiple("INSERT INTO libsql_t VALUES (1, 'a'); INSERT INTO libsql_t VALUES (2, 'b')");
  await transaction.commit();
  assert.deepEqual(await values(), ['a', 'b']);
}));

checks.add('transaction: ten clients count together and lose nothing', onTable(async () => {
  await db.execute('INSERT INTO libsql_t VALUES (1, 0)');
  const count = async () => {
    const client = open();
    const transaction = await client.transaction('write');
    const { rows } = await transaction.execute('SELECT v FROM libsql_t');
    await transaction.execute({ sql: 'UPDATE libsql_t SET v = CAST(? AS INTEGER)', args: [rows[0].v + 1] });
    await transaction.commit();
    client.close();
  };
  await Promise.all(Array.from({ length: 10 }, count));
  assert.deepEqual(await values(), [10]);
}));

checks.add('executeMultiple: stops at the first error', onTable(async () => {
  await fails(
    db.executeMultiple("INSERT INTO libsql_t VALUES (1, 'a'); INSERT INTO libsql_absent VALUES (1); INSERT INTO libsql_t VALUES (2, 'b')"),
    'SQLITE_ERROR',
    'no such table: libsql_absent',
  );
  assert.deepEqual(await values(), ['a']);
}));

checks.add('migrate: without foreign keys, and all of it or nothing', async () => {
  await db.migrate([
    'CREATE TABLE libsql_child(p REFERENCES libsql_parent(id))',
    'INSERT INTO libsql_child VALUES (1)',
    'CREATE TABLE libsql_parent(id INTEGER PRIMARY KEY)',
  ]);
  await fails(db.migrate(['DROP TABLE libsql_parent', 'DROP TABLE libsql_absent']), 'SQLITE_ERROR', 'no such table');
  const { rows } = await db.execute("SELECT count(*) AS n FROM sqlite_schema WHERE name GLOB 'libsql_[cp]*'");
  assert.equal(rows[0].n, 2);
  await db.migrate(['DROP TABLE libsql_child', 'DROP TABLE libsql_parent']);
});

checks.add('many statements at the same time', async () => {
  const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => db.execute({ sql: 'SELECT ? AS n', args: [n] })));
  assert.deepEqual(answers.map((answer) => answer.rows[0].n), Array.from({ length: 50 }, (_, n) => n));
});

checks.add('a large answer and a large argument', onTable(async () => {
  const text = 'x'.repeat(1_000_000);
  await db.execute({ sql: 'INSERT INTO libsql_t VALUES (1, ?)', args: [text] });
  assert.deepEqual(await values(), [text]);
  const { rows } = await db.execute('SELECT value FROM generate_series(1, 20000)');
  assert.equal(rows.length, 20_000);
}));

/** Runs `use` with a stream of Hrana 3, which the client finds by itself and speaks in Protobuf. */
function onStream(use) {
  return onTable(async () => {
    const client = hrana.openHttp(url, token, undefined, undefined, 3);
    try {
      assert.equal(await client.getVersion(), 3);
      const stream = client.openStream();
      await use(stream);
      stream.close();
    } finally {
      client.close();
    }
  });
}

checks.ours('Protobuf: every kind of value', onStream(async (stream) => {
  const values = [null, 1.5, -0.0, 9007199254740993n, 'text \0', new Uint8Array([0, 255]).buffer];
  stream.intMode = 'bigint';
  const { rows, columnNames } = await stream.query(['SELECT ? AS a, ?, ?, ?, ?, ?, -9e999', values]);
  assert.equal(columnNames[0], 'a');
  assert.deepEqual(Array.from(rows[0]), [...values, -Infinity]);
  assert.equal((await stream.run('INSERT INTO libsql_t VALUES (7, 7)')).lastInsertRowid, 7n);
  const described = await stream.describe('SELECT v FROM libsql_t WHERE id = :id');
  assert.deepEqual(described.paramNames, [':id']);
  assert.equal(await stream.getAutocommit(), true);
}));

for (const cursor of [false, true]) {
  checks.ours(`Protobuf: a batch ${cursor ? 'with' : 'without'} a cursor continues only in the transaction that it began`, onStream(async (stream) => {
    const batch = stream.batch(cursor);
    const begin = batch.step();
    const begun = begin.run('BEGIN');
    const insert = batch.step().condition(hrana.BatchCond.ok(begin));
    const inserted = insert.run("INSERT INTO libsql_t VALUES (1, 'a')");
    const rollback = batch.step().condition(hrana.BatchCond.ok(insert));
    const rolledBack = rollback.run('ROLLBACK');
    const guard = hrana.BatchCond.and(batch, [hrana.BatchCond.ok(rollback), hrana.BatchCond.not(hrana.BatchCond.isAutocommit(batch))]);
    const skipped = batch.step().condition(guard).run("INSERT INTO libsql_t VALUES (2, 'b')");
    const fails = batch.step().run('INSERT INTO libsql_absent VALUES (1)').catch((error) => error);
    await batch.execute();
    await Promise.all([begun, inserted, rolledBack]);
    assert.equal(await skipped, undefined);
    const error = await fails;
    assert.ok(error instanceof hrana.ResponseError);
    assert.equal(error.code, 'SQLITE_ERROR');
    assert.deepEqual(await values(), []);
  }));
}

checks.ours('Protobuf: stored texts and a sequence', onStream(async (stream) => {
  const sql = stream.storeSql("INSERT INTO libsql_t(v) VALUES ('a')");
  await stream.run(sql);
  await stream.sequence("INSERT INTO libsql_t(v) VALUES ('b'); INSERT INTO libsql_t(v) VALUES ('c')");
  assert.deepEqual(await values(), ['a', 'b', 'c']);
}));

if (token) {
  checks.add('a wrong and a missing token are told what to do', async () => {
    for (const authToken of [`${token}x`, undefined]) {
      const client = open({ authToken });
      const error = await client.execute('SELECT 1').then(() => assert.fail('let in'), (error) => error);
      assert.match(`${error.message} ${error.cause?.status ?? ''}`, /401|token/i);
    }
  });
}

const failed = await checks.run();
db.close();
process.exit(failed === 0 ? 0 : 1);
