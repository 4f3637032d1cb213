// What a call returned is what happened: nothing succeeds before it is kept, no transaction continues in halves, and nothing
// waits for itself.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import path, { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import * as sync from '../index.mjs';
import { patient } from './watchdog.mjs';
import { little, messages, MESSAGES, network, open, scratch, until } from './world.mjs';

const packageFile = fileURLToPath(new URL('../index.mjs', import.meta.url));
const requireFile = fileURLToPath(new URL('../index.js', import.meta.url));

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
  assert.equal((await db.run('INSERT INTO t VALUES (3, 3)')).changes, 1, 'the database continues');
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

test('b3: a transaction begun by hand takes no more statements either, until it is ended', async (t) => {
  const db = await empty(t);
  await db.run("INSERT INTO t VALUES (1, 'x')");
  for (const [end, ends] of [['ROLLBACK', true], ['COMMIT', false]]) {
    await db.exec('BEGIN');
    await db.run('INSERT INTO t VALUES (2, 2)');
    await assert.rejects(db.run("INSERT OR ROLLBACK INTO t VALUES (3, 'x')"), { code: 'SQLITE_CONSTRAINT_UNIQUE' });
    for (const call of [
      () => db.run('INSERT INTO t VALUES (4, 4)'),
      () => db.get('INSERT INTO t VALUES (5, 5) RETURNING id'),
      () => db.exec('INSERT INTO t VALUES (6, 6)'),
      () => db.all('SELECT * FROM t'),
      () => db.batch(['INSERT INTO t VALUES (7, 7)']),
      () => db.transaction(() => db.run('INSERT INTO t VALUES (8, 8)'))(),
    ]) {
      await assert.rejects(call(), { name: 'SqliteError', code: 'SQLITE_ABORT_ROLLBACK' });
      assert.equal(db.inTransaction, true, 'nobody has ended it');
    }
    if (ends) await db.exec(end);
    else await assert.rejects(db.exec(end), { code: 'SQLITE_ABORT_ROLLBACK' });
    assert.equal(db.inTransaction, false);
    assert.deepEqual(await ids(db), [1]);
  }
});

test('b1: a call that writes succeeds after its commit, whose error is its own', async (t) => {
  const db = await empty(t);
  await db.exec('PRAGMA foreign_keys = ON; CREATE TABLE child (id INTEGER PRIMARY KEY, p REFERENCES t DEFERRABLE INITIALLY DEFERRED)');
  const insert = 'INSERT INTO child VALUES (?, 99) RETURNING id';
  const statement = await db.prepare(insert);
  const calls = {
    get: () => db.get(insert, 1),
    all: () => db.all(insert, 1),
    run: () => db.run(insert, 1),
    exec: () => db.exec('INSERT INTO child VALUES (1, 99)'),
    iterate: () => db.iterate(insert, 1).next(),
    batch: () => db.batch([{ sql: insert, args: [1] }]),
    transaction: () => db.transaction(() => db.get(insert, 1))(),
    transactionAsync: () => db.transactionAsync((txn) => txn.get(insert, 1))(),
    'statement.get': () => statement.get(1),
    'statement.all': () => statement.all(1),
    'statement.run': () => statement.run(1),
    'statement.iterate': () => statement.iterate(1).next(),
  };
  for (const [name, call] of Object.entries(calls)) {
    await assert.rejects(call(), { name: 'SqliteError', code: 'SQLITE_CONSTRAINT_FOREIGNKEY' }, name);
    assert.deepEqual(await db.get('SELECT count(*) AS n FROM child'), { n: 0 }, name);
    assert.equal(db.inTransaction, false);
  }
  // Another connection sees it the moment that the call has succeeded, also of rows that nobody reads.
  const other = await open(t, { path: db.path, timeout: 0 });
  const many = 'INSERT INTO t SELECT value, value FROM generate_series(?, ?) RETURNING id';
  assert.deepEqual(await db.get(many, 1, 3000), { id: 1 });
  assert.deepEqual(await other.get('SELECT count(*) AS n FROM t'), { n: 3000 });
  const left = db.iterate(many, 3001, 9000);
  assert.deepEqual((await left.next()).value, { id: 3001 });
  assert.deepEqual(await other.get('SELECT count(*) AS n FROM t'), { n: 9000 });
  assert.equal((await other.run('INSERT INTO t VALUES (-1, -1)')).changes, 1, 'and holds no lock');
  db.interrupt();
  let rest = 0;
  for await (const _ of left) rest += 1;
  assert.equal(rest, 5999, 'what was kept is told, whatever comes in between');
});

test('b1: a COMMIT that is broken off while it waits has not committed, and its transaction is still there', async (t) => {
  const db = await empty(t, { timeout: 15_000 });
  const reader = await open(t, { path: db.path });
  await reader.exec('BEGIN; SELECT * FROM t');
  const broken = { code: 'SQLITE_INTERRUPT' };
  const interrupted = async (call) => {
    const running = call();
    running.catch(() => {});
    await new Promise(setImmediate);
    db.interrupt();
    await assert.rejects(running, broken);
  };
  const insert = (id) => db.run('INSERT INTO t VALUES (?, ?)', id, id);
  await db.exec('BEGIN');
  await insert(1);
  await assert.rejects(db.exec('COMMIT', { queryTimeout: 20 }), broken);
  assert.equal(db.inTransaction, true);
  await interrupted(() => db.exec('COMMIT'));
  assert.equal(db.inTransaction, true);
  assert.deepEqual(await reader.all('SELECT id FROM t'), []);
  await reader.exec('COMMIT');
  await db.exec('COMMIT');
  assert.deepEqual(await ids(db), [1]);
  // The others roll back, and leave nothing open.
  await reader.exec('BEGIN; SELECT * FROM t');
  await interrupted(() => insert(2));
  let ended;
  const end = new Promise((resolve) => (ended = resolve));
  const move = db.transaction(async () => {
    await insert(3);
    ended();
  })();
  await end;
  await interrupted(() => move);
  assert.equal(db.inTransaction, false);
  await reader.exec('COMMIT');
  assert.deepEqual(await ids(db), [1]);
});

test('b1: an iterator gives the rows that come before a failure, and then fails', async (t) => {
  const db = await empty(t);
  await db.exec(`INSERT INTO t ${endless} SELECT x, x FROM c LIMIT 5000`);
  // The largest negative number has no absolute value.
  const sql = 'SELECT id, abs(CASE id WHEN ? THEN -9223372036854775807 - 1 ELSE id END) AS a FROM t ORDER BY id';
  const statement = await db.prepare(sql);
  for (const last of [1, 3, 17, 300, 3000]) {
    for (const [name, rows] of [
      ['iterate', db.iterate(sql, last)],
      ['statement.iterate', statement.iterate(last)],
      ['in a batch of a worker', db.iterate(`${sql} LIMIT (SELECT count(*) FROM generate_series(1, 30000))`, last)],
    ]) {
      const seen = [];
      await assert.rejects(async () => {
        for await (const { id } of rows) seen.push(id);
      }, { name: 'SqliteError', code: 'SQLITE_ERROR', message: /overflow/ }, name);
      assert.deepEqual(seen, Array.from({ length: last - 1 }, (_, i) => i + 1), `${name}, ${last}`);
      assert.equal((await rows.next()).done, true);
    }
  }
});

test('b3: a page that an iterator could not fetch ends its transaction, and is named as the cause', async (t) => {
  const { url } = await messages(t);
  const net = await network(t, url);
  for (const kind of ['transaction', 'transactionAsync']) {
    const db = await open(t, { path: ':memory:', url: net.url, partialSyncExperimental: little });
    await db.get('SELECT body FROM messages WHERE id = 1');
    let first;
    const work = db[kind](async (handle) => {
      const to = kind === 'transaction' ? db : handle;
      await to.run("INSERT INTO messages (user_id, body) VALUES ('me', 'mine')");
      net.down = true;
      let rows = 0;
      await assert.rejects(async () => {
        for await (const _ of to.iterate('SELECT body FROM messages')) rows += 1;
      }, (error) => {
        first = error;
        return error.code.startsWith('SQLITE_IOERR');
      });
      assert.ok(rows > 0, 'what was here is told');
      await assert.rejects(to.run("INSERT INTO messages (user_id, body) VALUES ('me', 'more')"), {
        code: 'SQLITE_ABORT_ROLLBACK',
        cause: first,
      });
    });
    await assert.rejects(work(), (error) => error === first, kind);
    net.down = false;
    assert.equal(db.inTransaction, false);
    assert.deepEqual(await db.get("SELECT count(*) AS n FROM messages WHERE user_id = 'me'"), { n: 0 });
  }
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

test('b8: a value whose toString or getter binds other values is told so, and is bound as it is', async (t) => {
  const db = await empty(t);
  let inner;
  const ask = () => (inner = db.get('SELECT ? AS a, ? AS b, ? AS c', 'x', 'y', 7).then(() => 'it worked', (error) => error));
  class Moment extends Date {
    toString() {
      ask();
      return 'now';
    }
  }
  const observed = new Proxy(['now', 'then'], {
    get: (list, key) => {
      if (key === '0') ask();
      return list[key];
    },
  });
  const statement = await db.prepare('SELECT ? AS v, ? AS w');
  for (const args of [[new Moment(), 'then'], [observed]]) {
    for (const call of [() => db.get('SELECT ? AS v, ? AS w', ...args), () => statement.get(...args), async () => (await db.all('SELECT ? AS v, ? AS w', ...args))[0]]) {
      inner = undefined;
      assert.deepEqual(await call(), { v: 'now', w: 'then' });
      assert.match(String(await inner), /TypeError: a value that is being bound .* cannot itself bind values/);
    }
    await db.run('INSERT INTO t (v) SELECT ? || ?', ...args);
    assert.match(String(await inner), /cannot itself bind values|it worked/);
    assert.deepEqual(await db.all('DELETE FROM t RETURNING v'), [{ v: 'nowthen' }]);
  }
  // Values by name are read before they are bound: there it works.
  const named = { w: 'then', get v() { return ask(), 'now'; } };
  assert.deepEqual(await db.get('SELECT :v AS v, :w AS w', named), { v: 'now', w: 'then' });
  assert.equal(await inner, 'it worked');
});

/** A replica of which little is here; `make` gives its functions, and is given the database by `own()`. */
async function withFunctions(t, make) {
  const { url } = await messages(t);
  const path = join(scratch(t), 'replica.db');
  let db;
  const given = make({ own: () => db, url, path });
  db = await open(t, { path, url, partialSyncExperimental: little, ...given });
  db.kept = await db.prepare('SELECT 4');
  db.halfway = db.iterate('SELECT value FROM generate_series(1, 30)');
  await db.halfway.next();
  return { db, url, path };
}

/** What a function of the application does with its own database: what a pull's function may do too. */
const sqlUses = {
  halfway: async (db) => {
    // More than it has read ahead, and all that there is: its snapshot would be in the way of what writes.
    for (let i = 0; i < 30; i++) await db.halfway.next();
  },
  get: (db) => db.get('SELECT 1'),
  run: (db) => db.run('INSERT INTO messages (user_id, body) VALUES (1, 2)'),
  all: (db) => db.all('SELECT * FROM messages'),
  exec: (db) => db.exec('SELECT 1'),
  prepare: (db) => db.prepare('SELECT 2'),
  pragma: (db) => db.pragma('user_version'),
  batch: (db) => db.batch(['SELECT 1']),
  iterate: (db) => db.iterate('SELECT 1').next(),
  'a statement': (db) => db.kept.get(),
  transaction: (db) => db.transaction(() => db.get('SELECT 1'))(),
  transactionAsync: (db) => db.transactionAsync((txn) => txn.get('SELECT 1'))(),
};
/** And what it may not. */
const otherUses = {
  pull: (db) => db.pull(),
  push: (db) => db.push(),
  checkpoint: (db) => db.checkpoint(),
  discardChange: (db) => db.discardChange(1),
  hydrate: (db) => db.hydrate(),
  close: (db) => db.close(),
};
const uses = Object.entries({ ...sqlUses, ...otherUses });
/** Those that begin something new. */
const beginning = uses.filter(([name]) => name !== 'halfway');
/** What waits for nobody. */
async function useAtOnce(db) {
  assert.equal(typeof db.inTransaction, 'boolean');
  assert.equal(db.kept.columns().length, 1);
  await db.connect();
  assert.ok((await db.stats()).requests > 0);
}
const itself = /this would wait for itself: .* of this database waits for what the \w+ function answers/;

for (const kind of ['authToken', 'fetch', 'body']) {
  test(`b8: the ${kind} function of a page fetch that uses its own database is told so at once`, async (t) => {
    let use;
    let seen;
    let times = 0;
    const { db } = await withFunctions(t, ({ own, url }) => {
      const using = async () => {
        if (use === undefined) return;
        times += 1;
        seen = await use(own()).then(() => 'it worked', (error) => error);
        if (seen instanceof Error) throw seen;
      };
      if (kind === 'authToken') return { authToken: async () => (await using(), '') };
      if (kind === 'fetch') return { fetch: async (...args) => (await using(), await fetch(...args)) };
      return {
        fetch: async (...args) => {
          const answer = await fetch(...args);
          const bytes = new Uint8Array(await answer.arrayBuffer());
          const body = new ReadableStream({
            async pull(controller) {
              await using();
              controller.enqueue(bytes);
              controller.close();
            },
          }, { highWaterMark: 0 });
          return { status: answer.status, headers: answer.headers, body };
        },
      };
    });
    let at = MESSAGES;
    for (const [name, call] of uses) {
      use = call;
      times = 0;
      at -= 700;
      await assert.rejects(db.get('SELECT body FROM messages WHERE id = ?', at), (error) => {
        assert.ok(seen instanceof TypeError, `${name}: ${seen}`);
        assert.match(seen.message, itself, name);
        assert.match(error.message, itself, `the query of ${name} says why`);
        return true;
      });
      assert.equal(times, 1, 'it is not tried again');
      use = undefined;
      assert.match((await db.get('SELECT body FROM messages WHERE id = ?', at)).body, new RegExp(`${at}$`));
    }
    // Also in a transaction, with either handle; and what needs no turn works.
    use = (own) => own.get('SELECT 1');
    await assert.rejects(db.transaction(() => db.get('SELECT body FROM messages WHERE id = 3000'))(), itself);
    await db.transactionAsync(async (txn) => {
      use = () => txn.get('SELECT 1');
      await assert.rejects(txn.get('SELECT body FROM messages WHERE id = 2000'), itself);
    })().catch((error) => assert.match(error.message, itself));
    use = useAtOnce;
    assert.match((await db.get('SELECT body FROM messages WHERE id = 1000')).body, /1000$/);
    assert.equal(seen, 'it worked');
  });
}

test('b8: whether a transaction is open is told at once, also while a query waits for a page', async (t) => {
  let answer;
  const asked = new Promise((resolve) => (answer = resolve));
  let held;
  const { db } = await withFunctions(t, () => ({
    authToken: async () => {
      if (held !== undefined) await held(answer());
      return '';
    },
  }));
  for (const begun of [false, true]) {
    if (begun) await db.exec('BEGIN');
    let go;
    const waits = new Promise((resolve) => (go = resolve));
    held = () => waits;
    const query = db.get('SELECT body FROM messages WHERE id = ?', begun ? 3000 : 9000);
    await asked;
    assert.equal(db.inTransaction, begun);
    held = undefined;
    go();
    await query;
    assert.equal(db.inTransaction, begun);
  }
  await db.exec('ROLLBACK');
  assert.equal(db.inTransaction, false);
});

test('b8: another handle of the same replica is refused too, however its path is spelled; another database is not', async (t) => {
  let others;
  const seen = [];
  const { db, url, path } = await withFunctions(t, () => ({
    authToken: async () => {
      for (const other of others?.splice(0) ?? []) {
        seen.push(await other.get('SELECT body FROM messages WHERE id = 9000').catch((error) => error));
      }
      return '';
    },
  }));
  const link = join(dirname(path), 'link');
  symlinkSync(dirname(path), link);
  const elsewhere = await open(t, { path: ':memory:' });
  await elsewhere.exec('CREATE TABLE messages AS SELECT 9000 AS id, 2 AS body');
  others = [await open(t, { path, url }), await open(t, { path: join(link, 'replica.db'), url }), elsewhere];
  assert.match((await db.get('SELECT body FROM messages WHERE id = 9000')).body, /9000$/);
  assert.match(seen[0].message, itself);
  assert.match(seen[1].message, itself);
  assert.deepEqual(seen[2], { body: 2 });
});

test('b8: the url function, which must answer at once, cannot wait; a call that it leaves behind fails at once', async (t) => {
  const left = [];
  let active = false;
  const { db } = await withFunctions(t, ({ own, url }) => ({
    url: () => {
      if (active) for (const [name, call] of beginning) left.push([name, call(own()).then(() => 'it worked', (error) => error)]);
      active = false;
      return url;
    },
  }));
  active = true;
  assert.match((await db.get('SELECT body FROM messages WHERE id = 9000')).body, /9000$/);
  assert.ok(left.length > 0);
  for (const [name, outcome] of left) assert.match(String((await outcome).message), itself, name);
});

test('b8: functions of a pull and a push may read their database, and not wait for another pull or the close', async (t) => {
  const outcomes = {};
  let active = false;
  const { db } = await withFunctions(t, ({ own }) => ({
    authToken: async () => {
      if (!active) return '';
      active = false;
      for (const [name, call] of uses) {
        // Rows that are here already: a page that is not would ask this function again.
        const sql = name === 'all' ? (own) => own.all('SELECT 3') : call;
        outcomes[name] = await sql(own()).then(() => 'it worked', (error) => error);
      }
      await useAtOnce(own());
      return '';
    },
  }));
  await db.run("INSERT INTO messages (user_id, body) VALUES ('me', 'mine')");
  for (const operation of ['push', 'pull']) {
    active = true;
    await db[operation]();
    for (const name in sqlUses) assert.equal(outcomes[name], 'it worked', `${operation}, ${name}: ${outcomes[name]}`);
    for (const name in otherUses) assert.match(outcomes[name].message, itself, `${operation}, ${name}`);
  }
  // Not where a transaction waits for the pull.
  active = true;
  await db.transaction(() => db.pull())();
  for (const [name] of beginning) assert.match(String(outcomes[name].message), itself, name);
});

test('b8: a function that is asked during the first connect cannot use the database that connects', async (t) => {
  const { url } = await messages(t);
  const seen = new Map();
  const calls = { ...Object.fromEntries(beginning.filter(([name]) => name !== 'a statement')), stats: () => db.stats(), connect: () => db.connect() };
  const db = new sync.Database({
    path: ':memory:',
    url,
    authToken: async () => {
      if (!db.open) for (const [name, call] of Object.entries(calls)) seen.set(name, await call(db).catch((error) => error));
      return '';
    },
  });
  t.after(() => db.close());
  await db.connect();
  assert.deepEqual([...seen.keys()], Object.keys(calls));
  for (const [name, error] of seen) assert.match(String(error?.message), itself, name);
  assert.deepEqual(await db.get('SELECT count(*) AS n FROM messages'), { n: MESSAGES });
});

test('b8: a transform decides at once; what it begins with its own database runs afterwards', async (t) => {
  let mode;
  const left = [];
  const { db } = await withFunctions(t, ({ own }) => ({
    transform: () => {
      if (mode === 'promise') return Promise.reject(new Error('nobody handles this'));
      if (mode === 'async') return own().get('SELECT 1');
      // What was begun runs beside the push that is among it.
      if (mode === undefined) return null;
      for (const [name, call] of beginning) {
        if (mode !== 'leave' && name !== mode) continue;
        if (mode === 'leave' && name === 'close') continue;
        left.push([name, call(own()).then(() => 'it worked', (error) => error)]);
      }
      mode = undefined;
      assert.equal(own().inTransaction, false);
      return null;
    },
  }));
  await db.halfway.return();
  await db.run("INSERT INTO messages (user_id, body) VALUES ('me', 'mine')");
  for (mode of ['promise', 'async']) {
    await assert.rejects(db.push(), /transform must decide at once, and gave a promise/);
  }
  for (mode of ['leave', 'close']) {
    left.length = 0;
    await db.run("INSERT INTO messages (user_id, body) VALUES ('me', 'more')");
    await db.push();
    assert.ok(left.length > 0);
    for (const [name, outcome] of left) assert.equal(await outcome, 'it worked', name);
  }
  assert.equal(db.open, false);
});

test('b9: an interrupt ends iterators that are halfway, and nothing else than what had begun', async (t) => {
  const db = await empty(t);
  await db.exec(`INSERT INTO t ${endless} SELECT x, x FROM c LIMIT 5000`);
  const halfway = [db.iterate('SELECT id FROM t'), (await db.prepare('SELECT v FROM t')).iterate()];
  for (const iterator of halfway) assert.equal((await iterator.next()).done, false);
  const running = db.all(`${endless} SELECT x FROM c`);
  db.interrupt();
  await assert.rejects(running, { code: 'SQLITE_INTERRUPT' });
  assert.deepEqual(await db.get('SELECT 1 AS one'), { one: 1 });
  db.interrupt();
  assert.deepEqual(await db.get('SELECT 2 AS two'), { two: 2 });
  assert.equal((await db.run('INSERT INTO t VALUES (-1, -1)')).changes, 1);
  for (const iterator of halfway) {
    await assert.rejects(async () => {
      for await (const _ of iterator);
    }, { code: 'SQLITE_INTERRUPT' });
    assert.equal((await iterator.next()).done, true);
  }
  await db.exec('DROP TABLE t');
});

test('b9: an interrupt leaves alone what is begun after it, also in the same moment', async (t) => {
  const db = await empty(t);
  await db.exec(`INSERT INTO t ${endless} SELECT x, x FROM c LIMIT 500`);
  for (let round = 0; round < 40; round++) {
    // With and without a read that it ends.
    const before = round % 2 === 0 ? db.iterate('SELECT id FROM t') : undefined;
    await before?.next();
    db.interrupt();
    let rows = 0;
    for await (const _ of db.iterate('SELECT id FROM t')) rows += 1;
    assert.equal(rows, 500, `round ${round}`);
    if (before === undefined) continue;
    await assert.rejects(async () => {
      for await (const _ of before);
    }, { code: 'SQLITE_INTERRUPT' });
  }
});

test('b9: an interrupt finds what runs after a transaction that could not begin', async (t) => {
  const file = path.join(scratch(t), 'local.db');
  const db = await open(t, { path: file, timeout: 0 });
  const other = await open(t, { path: file });
  for (const kind of ['transaction', 'transactionAsync']) {
    await other.exec('BEGIN IMMEDIATE');
    await assert.rejects(db[kind](() => {}).immediate(), { code: 'SQLITE_BUSY' });
    await other.exec('ROLLBACK');
    const running = db.all(`${endless} SELECT x FROM c`, { queryTimeout: 15_000 });
    db.interrupt();
    await assert.rejects(running, (error) => error.code === 'SQLITE_INTERRUPT' && !/queryTimeout/.test(error.message));
    // One that waits for the lock is broken off, and leaves nothing behind either.
    await other.exec('BEGIN IMMEDIATE');
    const waits = await open(t, { path: file, timeout: 15_000 });
    const beginning = waits[kind](() => {}).immediate();
    beginning.catch(() => {});
    await new Promise(setImmediate);
    waits.interrupt();
    await assert.rejects(beginning, { code: 'SQLITE_INTERRUPT' });
    await other.exec('ROLLBACK');
    assert.equal(await waits[kind](() => 'well')(), 'well');
  }
});

test('b9: iterators that nobody reads on are given back when they are collected', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', '--input-type=module', '-e', `
    import { connect } from ${JSON.stringify(packageFile)};
    const db = await connect({ path: ':memory:' });
    await db.exec('CREATE TABLE t (a); INSERT INTO t SELECT value FROM generate_series(1, 5000)');
    const abandon = async () => { for (let i = 0; i < 50; i++) await db.iterate('SELECT a FROM t').next(); };
    await abandon();
    for (;;) {
      try {
        await db.exec('DROP TABLE t');
        break;
      } catch (error) {
        if (!/locked/.test(error.message)) throw error;
        await new Promise((resolve) => setTimeout(resolve, 5));
        globalThis.gc();
      }
    }
    console.log('given back');`]);
  assert.equal(stdout.trim(), 'given back');
});

test('b9: a worker thread that ends in the middle of a page fetch leaves nothing open', async (t) => {
  const { url } = await messages(t);
  const net = await network(t, url);
  const replica = join(scratch(t), 'replica.db');
  const source = `
    const { parentPort, workerData } = require('node:worker_threads');
    const { connect } = require(workerData.file);
    const functions = {
      none: {},
      authToken: { authToken: () => waiting ? new Promise(() => parentPort.postMessage('asked')) : '' },
      fetch: { fetch: (...args) => waiting ? new Promise(() => parentPort.postMessage('asked')) : fetch(...args) },
    };
    let waiting = false;
    connect({ ...functions[workerData.kind], path: workerData.replica, url: workerData.url,
      partialSyncExperimental: workerData.little }).then((db) => {
      parentPort.once('message', () => {
        waiting = true;
        db.all('SELECT * FROM messages').catch(() => {});
        db.iterate('SELECT count(*) FROM messages').next().catch(() => {});
        db.pull().catch(() => {});
      });
      parentPort.postMessage('connected');
    });`;
  for (const kind of ['none', 'authToken', 'fetch']) {
    const workerData = { file: requireFile, kind, replica, url: net.url, little };
    const worker = new Worker(source, { eval: true, workerData });
    assert.deepEqual(await once(worker, 'message'), ['connected'], kind);
    const before = net.requests.length;
    if (kind === 'none') net.delay = 60_000;
    worker.postMessage('go');
    if (kind === 'none') await until('it asks for a page', () => net.requests.length > before);
    else assert.deepEqual(await once(worker, 'message'), ['asked']);
    await worker.terminate();
    net.delay = 0;
    // The next one need not wait for what nobody answers any more.
    let db;
    await until(`the replica is free, ${kind}`, async () => {
      db = await sync.connect({ path: replica, url: net.url, partialSyncExperimental: little }).catch((error) => {
        if (error.code !== 'SQLITE_BUSY') throw error;
      });
      return db !== undefined;
    });
    // Not the page that the slow network still owes to the first one.
    assert.match((await db.get('SELECT body FROM messages WHERE id = 15000')).body, /15000$/);
    await db.close();
  }
});

test('b9: functions that are bound methods of what holds the database keep nothing alive', async (t) => {
  const { url } = await messages(t);
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', '--input-type=module', '-e', `
    import { connect } from ${JSON.stringify(packageFile)};
    const [url] = process.argv.slice(1);
    let left = 0;
    const gone = new FinalizationRegistry(() => (left -= 1));
    class Holder {
      async token() { return this.db === undefined ? '' : ''; }
      url() { return this.db === undefined ? url : url; }
      send(...args) { return this.db === undefined ? fetch(...args) : fetch(...args); }
      change() { return this.db === undefined ? null : null; }
      async use(close) {
        this.db = await connect({ path: ':memory:', url: this.url.bind(this), authToken: this.token.bind(this),
          fetch: this.send.bind(this), transform: this.change.bind(this) });
        await this.db.get('SELECT count(*) FROM messages');
        if (close) await this.db.close();
      }
    }
    const forget = async (close) => {
      const holder = new Holder();
      await holder.use(close);
      gone.register(holder);
      left += 1;
    };
    for (let i = 0; i < 4; i++) await forget(i % 2 === 0);
    while (left > 0) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      globalThis.gc();
    }
    console.log('all gone');`, url], { timeout: 60_000 });
  assert.equal(stdout.trim(), 'all gone');
});

test('b9: an interrupt of a write beside an iterator that is halfway leaves no transaction open', async (t) => {
  const { url } = await messages(t);
  const path = join(scratch(t), 'replica.db');
  const db = await open(t, { path, url });
  let broken = 0;
  for (let i = 0; i < 12; i++) {
    const halfway = db.iterate('SELECT id FROM messages');
    await halfway.next();
    const before = await db.get('SELECT count(*) AS n FROM messages');
    const writing = db.run("INSERT INTO messages (user_id, body) SELECT 'me', id FROM messages LIMIT 4000").then(
      () => 'kept',
      (error) => error.code,
    );
    // At any moment: in the insert, in its record, in the commit, or after it.
    for (let tick = 0; tick < i * 3; tick++) await new Promise(setImmediate);
    db.interrupt();
    const outcome = await writing;
    if (outcome !== 'kept') {
      assert.equal(outcome, 'SQLITE_INTERRUPT');
      broken += 1;
    }
    assert.equal(db.inTransaction, false, `round ${i}`);
    await halfway.next().catch(() => {});
    await halfway.return();
    const after = await db.get('SELECT count(*) AS n FROM messages');
    assert.equal(after.n - before.n, outcome === 'kept' ? 4000 : 0, `round ${i}`);
  }
  t.diagnostic(`${broken} of 12 were broken off`);
});

test('b3: a batch in a transaction that is broken off beside an unread iterator leaves nothing of itself', async (t) => {
  const db = await empty(t);
  await db.exec('CREATE TABLE part (v)');
  await db.exec('BEGIN; INSERT INTO part VALUES (1)');
  const halfway = db.iterate(`${endless} SELECT x FROM c`);
  await halfway.next();
  const batch = db.batch(['INSERT INTO part VALUES (2)', `${endless} SELECT count(*) FROM c`]);
  setTimeout(() => db.interrupt(), 50);
  await assert.rejects(batch, { code: 'SQLITE_INTERRUPT' });
  await db.exec('COMMIT');
  await halfway.return();
  assert.deepEqual(await db.all('SELECT v FROM part'), [{ v: 1 }]);
});

test('b9: what a call is given is what it was when the call was made', async (t) => {
  const db = await empty(t);
  await db.exec('CREATE TABLE given (v)');
  const statement = await db.prepare('INSERT INTO given VALUES (?)');
  const bytes = new Uint8Array(1);
  const list = [0];
  const named = { v: 0 };
  /** Each is called three times in a row, and what it is given is changed in between. */
  const calls = {
    run: () => db.run('INSERT INTO given VALUES (?)', list),
    'run by name': () => db.run('INSERT INTO given VALUES (:v)', named),
    'run of bytes': () => db.run('INSERT INTO given VALUES (?)', bytes),
    'run of bytes in a list': () => db.run('INSERT INTO given VALUES (?)', [bytes.buffer]),
    get: () => db.get('INSERT INTO given VALUES (?) RETURNING v', list),
    all: () => db.all('INSERT INTO given VALUES (?) RETURNING v', list),
    iterate: () => db.iterate('INSERT INTO given VALUES (?) RETURNING v', list).next(),
    batch: () => db.batch([['INSERT INTO given VALUES (?)', list]]),
    'batch by name': () => db.batch([{ sql: 'INSERT INTO given VALUES (:v)', args: named }]),
    statement: () => statement.run(list),
    'get of a statement': () => statement.get(list),
    'all of a statement': () => statement.all(bytes),
    'iterate of a statement': () => statement.iterate(list).next(),
    'a statement that is being compiled': () => db.prepare('INSERT INTO given VALUES (?)').run(list),
    'one that is bound': () => db.prepare('INSERT INTO given VALUES (?)').bind(list).run(),
  };
  for (const [name, call] of Object.entries(calls)) {
    const promises = [1, 2, 3].map((n) => {
      bytes[0] = list[0] = named.v = n;
      return call();
    });
    bytes[0] = list[0] = named.v = 9;
    await Promise.all(promises);
    const rows = await db.prepare('SELECT v FROM given ORDER BY rowid').pluck().all();
    assert.deepEqual(rows.map((v) => (typeof v === 'number' ? v : v[0])), [1, 2, 3], name);
    await db.exec('DELETE FROM given');
  }
  statement.bind(list);
  list[0] = 10;
  await statement.run();
  assert.equal(await db.prepare('SELECT v FROM given').pluck().get(), 9);
});

test('b9: a transaction function may throw undefined', async (t) => {
  const db = await empty(t);
  for (const thrown of [undefined, null, 'text']) {
    const failed = await db.transaction(async () => {
      await db.run("INSERT INTO t VALUES (1, 'x')");
      throw thrown;
    })().then(() => 'nothing', (error) => error);
    assert.equal(failed, thrown);
  }
  assert.deepEqual(await ids(db), []);
});

test('b9: texts longer than a string of JavaScript are an error of the row, and end the query', async (t) => {
  patient(t, 15);
  const db = await empty(t);
  const sql = 'SELECT CAST(zeroblob(CASE value WHEN 2 THEN 540000000 END) AS TEXT) AS v FROM generate_series(1, 3)';
  const tooBig = { name: 'SqliteError', code: 'SQLITE_TOOBIG', kind: 'too_big' };
  await assert.rejects(db.get(`${sql} LIMIT 2 OFFSET 1`), tooBig);
  const rows = [];
  await assert.rejects(async () => {
    for await (const { v } of db.iterate(sql)) rows.push(v);
  }, tooBig);
  assert.equal(rows.length, 1);
  // No read is left in the middle, which would keep others from writing.
  const other = await open(t, { path: db.path, timeout: 0 });
  await other.run('INSERT INTO t VALUES (1, 1)');
});

test('b9: large values are read and made on a worker thread', async (t) => {
  const db = await empty(t);
  await db.exec("INSERT INTO t SELECT value, printf('%.*c', 300000, char(64 + value)) FROM generate_series(1, 20)");
  let settled = 0;
  const calls = {
    'many rows': () => db.all('SELECT v FROM t'),
    'a value that is made': () => db.get("SELECT printf('%.*c', 2000000, 'x') AS v"),
    'a value on the way': () => db.get("SELECT length(hex(zeroblob(2000000))) AS v"),
  };
  for (const [name, call] of Object.entries(calls)) {
    // What ends on this thread has called back before the other microtasks have.
    const before = settled;
    const promise = call().then(() => (settled += 1));
    for (let i = 0; i < 20; i++) await null;
    assert.equal(settled, before, `${name} did not wait for a worker`);
    await promise;
  }
  // Much smaller ones do not.
  const small = db.get('SELECT id FROM t').then(() => (settled += 1));
  for (let i = 0; i < 20; i++) await null;
  assert.equal(settled, 4);
  await small;
});
