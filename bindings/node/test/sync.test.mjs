// What goes between a replica and its remote, and the functions with which an application takes part in it.
import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import path from 'node:path';
import { test } from 'node:test';
import { connect, Database, retryFetch, SqliteError } from '../index.mjs';
import { little, messages, MESSAGES, network, open, scratch, serve } from './world.mjs';
import { patient } from './watchdog.mjs';

/** A remote with one table, and a way to make replicas of it. */
async function empty(t, schema = 'CREATE TABLE t (id INTEGER PRIMARY KEY, v)') {
  const folder = scratch(t);
  const file = path.join(folder, 'remote.db');
  const db = await connect({ path: file });
  await db.exec(schema);
  await db.close();
  const url = await serve(t, file);
  let replicas = 0;
  const replica = (options = {}) => open(t, { path: path.join(folder, `replica-${replicas++}.db`), url, ...options });
  return { folder, url, replica };
}

test('every request goes through the fetch function, also that of a page in the middle of a query', async (t) => {
  const { url } = await messages(t);
  const seen = [];
  const db = await open(t, {
    path: ':memory:',
    url,
    partialSyncExperimental: little,
    fetch: async (input, init) => {
      seen.push({ input, init });
      return await fetch(input, init);
    },
  });
  const atConnect = seen.length;
  assert.ok(atConnect > 0);
  await db.get('SELECT body FROM messages WHERE id = ?', MESSAGES - 1);
  assert.ok(seen.length > atConnect, 'the page was fetched through the function');
  await db.run("UPDATE messages SET body = 'x' WHERE id = 1");
  const beforePush = seen.length;
  await db.push();
  assert.ok(seen.length > beforePush);
  assert.equal((await db.stats()).requests, seen.length, 'nothing went past it');
  for (const { input, init } of seen) {
    assert.ok(String(input).startsWith(url));
    assert.equal(init.method, 'POST');
    assert.ok(init.body instanceof Uint8Array);
    assert.ok(init.signal instanceof AbortSignal);
  }
});

test('hydrating fetches what is absent and tells how far it is', async (t) => {
  const { url } = await messages(t);
  const db = await open(t, { path: ':memory:', url, partialSyncExperimental: little });
  const cold = `SELECT body FROM messages WHERE id = ${MESSAGES - 1}`;
  const some = await db.hydrate({ query: cold });
  assert.ok(some.fetched > 0 && some.absent > 0);
  const { requests } = await db.stats();
  await db.get(cold);
  assert.equal((await db.stats()).requests, requests);
  const told = [];
  const everything = await db.hydrate({ progress: (...at) => told.push(at) });
  assert.equal(everything.absent, 0);
  assert.deepEqual(told.at(-1), [everything.fetched, everything.fetched]);
  const { requests: then } = await db.stats();
  assert.equal(await db.get("SELECT count(*) AS n FROM messages WHERE body <> ''").then(({ n }) => n), MESSAGES);
  assert.equal((await db.stats()).requests, then);
});

test('what the progress of a hydration throws ends it, and what had come stays', async (t) => {
  const { url } = await messages(t);
  const db = await open(t, { path: ':memory:', url, partialSyncExperimental: little });
  const enough = new Error('enough');
  const stops = () => {
    throw enough;
  };
  await assert.rejects(db.hydrate({ progress: stops }), (error) => error === enough);
  for (const wrong of [{ query: 1 }, { progress: 'soon' }]) await assert.rejects(db.hydrate(wrong), TypeError);
  await assert.rejects(db.hydrate({ query: 'SELECT * FROM nowhere' }), /nowhere/);
  const local = await open(t, { path: ':memory:' });
  await assert.rejects(local.hydrate(), { name: 'SqliteError' });
  assert.equal((await db.hydrate()).absent, 0);
});

test('a fetch function that fails gives an error with its message', async (t) => {
  const { url } = await messages(t);
  let broken = false;
  const db = await open(t, {
    path: ':memory:',
    url,
    partialSyncExperimental: little,
    fetch: (input, init) => {
      if (broken) throw new Error('the cable is unplugged');
      return fetch(input, init);
    },
  });
  broken = true;
  await assert.rejects(db.get('SELECT count(*) FROM messages'), (error) => {
    assert.ok(error instanceof SqliteError);
    assert.match(error.message, /the cable is unplugged/);
    assert.equal(error.code, 'SQLITE_IOERR');
    return true;
  });
  broken = false;
  assert.deepEqual(await db.get('SELECT count(*) AS n FROM messages'), { n: MESSAGES });
});

test('a fetch function whose body breaks off does not give half an answer', async (t) => {
  const { url } = await messages(t);
  let cut = 0;
  const db = await open(t, {
    path: ':memory:',
    url,
    partialSyncExperimental: { ...little, segmentSize: 65_536 },
    fetch: async (input, init) => {
      const response = await fetch(input, init);
      if (cut === 0) return response;
      cut -= 1;
      const bytes = new Uint8Array(await response.arrayBuffer());
      let sent = false;
      const body = new ReadableStream({
        pull(controller) {
          if (sent) controller.error(new Error('cut'));
          else controller.enqueue(bytes.subarray(0, bytes.length / 2));
          sent = true;
        },
      });
      return new Response(body, { status: response.status, headers: response.headers });
    },
  });
  cut = 1;
  assert.deepEqual(await db.get('SELECT count(*) AS n FROM messages'), { n: MESSAGES });
  assert.deepEqual(await db.pragma('integrity_check'), [{ integrity_check: 'ok' }]);
});

test('retryFetch tries again, waits longer each time, and gives up', async (t) => {
  const { url } = await messages(t);
  let left = 2;
  const flaky = retryFetch({
    attempts: 3,
    delayMs: 1,
    fetch: (input, init) => {
      if (left-- > 0) throw new TypeError('fetch failed');
      return fetch(input, init);
    },
  });
  const db = await open(t, { path: ':memory:', url, fetch: flaky });
  assert.deepEqual(await db.get('SELECT count(*) AS n FROM messages'), { n: MESSAGES });

  let tried = 0;
  const never = retryFetch({ attempts: 3, delayMs: 1, fetch: async () => (tried++, new Response('', { status: 503 })) });
  assert.equal((await never('http://127.0.0.1/')).status, 503);
  assert.equal(tried, 3);
  const refused = retryFetch({ delayMs: 1, fetch: async () => (tried++, new Response('', { status: 404 })) });
  assert.equal((await refused('http://127.0.0.1/')).status, 404);
  assert.equal(tried, 4, 'what will not change is not tried again');
  assert.throws(() => retryFetch({ attempts: 0 }), RangeError);
});

test('the token is asked for each request, and a wrong one is told', async (t) => {
  const folder = scratch(t);
  const file = path.join(folder, 'remote.db');
  const remote = await connect({ path: file });
  await remote.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, v)');
  await remote.close();
  const url = await serve(t, file, '--auth-token', 's3cret');
  let asked = 0;
  const db = await open(t, {
    path: path.join(folder, 'with-token.db'),
    url,
    authToken: async () => {
      asked += 1;
      return 's3cret';
    },
  });
  const before = asked;
  await db.pull();
  assert.ok(asked > before && before > 0);
  await assert.rejects(connect({ path: ':memory:', url, authToken: 'wrong' }), {
    name: 'SqliteError',
    code: 'SQLITE_AUTH',
  });
  await assert.rejects(
    connect({ path: ':memory:', url, authToken: () => Promise.reject(new Error('no session')) }),
    /no session/,
  );
  assert.deepEqual((await connect({ path: ':memory:', url, authToken: () => 's3cret' })).open, true);
});

test('a url function may begin with null: local work continues, and sync begins when it gives a url', async (t) => {
  const { url, replica } = await empty(t);
  let now = null;
  const db = await replica({ url: () => now });
  await db.exec('CREATE TABLE IF NOT EXISTS drafts (v)');
  await db.run("INSERT INTO drafts VALUES ('early')");
  await assert.rejects(db.push(), /paused/);
  now = url;
  await db.push();
  await db.pull();
  now = null;
  await db.run("INSERT INTO drafts VALUES ('later')");
  await assert.rejects(db.pull(), /paused/);
  now = url;
  await db.push();
  const other = await replica();
  assert.deepEqual(await other.prepare('SELECT v FROM drafts ORDER BY v').pluck().all(), ['early', 'later']);
});

test('a url function that throws is told, with its message', async (t) => {
  const { url, replica } = await empty(t);
  let broken = false;
  const db = await replica({
    url: () => {
      if (broken) throw new Error('no settings yet');
      return url;
    },
  });
  broken = true;
  await assert.rejects(db.pull(), { name: 'SqliteError', message: /the url function failed: no settings yet/ });
  broken = false;
  assert.equal(await db.pull(), false);
});

test('transform leaves out and rewrites changes, and what it throws stops the push and loses nothing', async (t) => {
  const { replica } = await empty(t);
  const seen = [];
  let mood = 'work';
  const db = await replica({
    transform: (m) => {
      if (mood === 'throw') throw new Error('not today');
      seen.push(m);
      if (m.after?.v === 'secret') return { operation: 'skip' };
      if (m.after?.v === 'shout') {
        return {
          operation: 'rewrite',
          stmt: { sql: 'INSERT INTO t VALUES (?, upper(?) || ?)', values: [m.id, m.after.v, '!'] },
        };
      }
      return null;
    },
  });
  await db.exec("INSERT INTO t VALUES (1, 'plain'), (2, 'secret'), (3, 'shout')");
  mood = 'throw';
  await assert.rejects(db.push(), (error) => /not today/.test(error.message) && error instanceof SqliteError);
  assert.equal((await db.stats()).cdcOperations, 3);
  mood = 'work';
  await db.push();
  const other = await replica();
  assert.deepEqual(await other.all('SELECT * FROM t ORDER BY id'), [
    { id: 1, v: 'plain' },
    { id: 3, v: 'SHOUT!' },
  ]);
  assert.deepEqual(
    seen.map(({ changeTime, ...rest }) => [typeof changeTime, rest])[0],
    ['number', { tableName: 't', id: 1, changeType: 'insert', after: { id: 1, v: 'plain' } }],
  );
  seen.length = 0;
  await db.run("UPDATE t SET v = x'00ff' WHERE id = 1");
  await db.run('DELETE FROM t WHERE id = 3');
  await db.push();
  assert.deepEqual(
    seen.map((m) => [m.changeType, Object.keys(m).sort(), m.updates]),
    [
      ['update', ['after', 'before', 'changeTime', 'changeType', 'id', 'tableName', 'updates'], { v: Buffer.from([0, 255]) }],
      ['delete', ['before', 'changeTime', 'changeType', 'id', 'tableName'], undefined],
    ],
  );
});

test('transform that decides nonsense is told so', async (t) => {
  const { replica } = await empty(t);
  for (const decision of [{ operation: 'explode' }, { operation: 'rewrite' }, Promise.resolve(null), 7]) {
    const db = await replica({ transform: () => decision });
    await db.run('INSERT INTO t VALUES (NULL, 1)');
    await assert.rejects(db.push(), /transform|rewrite/);
    assert.equal((await db.stats()).cdcOperations, 1);
  }
});

test('thresholds divide what is sent and what is fetched', async (t) => {
  const { url } = await messages(t);
  const net = await network(t, url);
  const whole = await open(t, { path: ':memory:', url: net.url });
  const inOne = net.requests.length;
  const parts = await open(t, { path: ':memory:', url: net.url, pullBytesThreshold: 200_000 });
  assert.ok(net.requests.length - inOne > inOne + 3, 'a full bootstrap in several requests');
  assert.deepEqual(await parts.get('SELECT count(*) AS n FROM messages'), { n: MESSAGES });
  await whole.exec('UPDATE messages SET body = 1 WHERE id <= 50');
  for (let id = 100; id < 110; id++) await parts.run('UPDATE messages SET body = 2 WHERE id = ?', id);
  let before = net.requests.length;
  await whole.push();
  const once = net.requests.length - before;
  const few = await open(t, { path: ':memory:', url: net.url, pushOperationsThreshold: 2 });
  for (let id = 200; id < 210; id++) await few.run('UPDATE messages SET body = 3 WHERE id = ?', id);
  before = net.requests.length;
  await few.push();
  assert.ok(net.requests.length - before >= once + 4, 'ten transactions in pushes of two');
});

const VALUES = [
  null,
  0n,
  -1n,
  9223372036854775807n,
  -9223372036854775808n,
  2n ** 53n + 1n,
  0.1,
  -1.5e300,
  5e-324,
  Infinity,
  -Infinity,
  '',
  'grüße, 世界, 👩‍👩‍👧‍👦',
  'a\0b',
  '\ud83d\ude00'.repeat(1000),
  'x'.repeat(1_000_000),
  Buffer.alloc(0),
  Buffer.from([0, 1, 2, 253, 254, 255]),
];

test('every value comes back through a push and a pull', async (t) => {
  const { replica } = await empty(t);
  const one = await replica();
  const other = await replica();
  for (const value of VALUES) await one.run('INSERT INTO t (v) VALUES (?)', value);
  await one.push();
  await other.pull();
  for (const db of [one, other]) {
    const rows = await db.prepare('SELECT v FROM t ORDER BY id').safeIntegers().pluck().all();
    assert.deepEqual(rows, VALUES);
    const singly = [];
    const by = await db.prepare('SELECT v FROM t WHERE id = ?').then((s) => s.safeIntegers().pluck());
    for (let id = 1; id <= VALUES.length; id++) singly.push(await by.get(id));
    assert.deepEqual(singly, VALUES);
  }
});

test('a blob of 100 MB comes back through a push and a pull', async (t) => {
  patient(t, 15);
  const { replica } = await empty(t);
  const blob = Buffer.alloc(100_000_000);
  randomFillSync(blob, 0, 1_000_000);
  randomFillSync(blob, 99_000_000);
  // A server of a debug build may need more than 30 s for it on a busy machine, and this is not about that.
  const requestTimeoutMs = 300_000;
  const one = await replica({ requestTimeoutMs });
  await one.run('INSERT INTO t VALUES (1, ?)', blob);
  await one.push();
  const other = await replica({ partialSyncExperimental: little, requestTimeoutMs });
  const { v } = await other.get('SELECT v FROM t WHERE id = 1');
  assert.equal(Buffer.compare(v, blob), 0);
});

test('sixteen connections of one replica file work at the same time', async (t) => {
  const { url, folder } = await messages(t);
  const file = path.join(folder, 'shared.db');
  const options = { path: file, url, partialSyncExperimental: little };
  const all = await Promise.all(Array.from({ length: 16 }, () => open(t, options)));
  const counts = await Promise.all(all.map((db) => db.get('SELECT count(*) AS n FROM messages')));
  assert.deepEqual(counts, Array(16).fill({ n: MESSAGES }));
  await Promise.all(all.map((db, i) => db.run('UPDATE messages SET body = ? WHERE id = ?', `by ${i}`, i + 1)));
  await all[0].push();
  const fresh = await open(t, { path: ':memory:', url, partialSyncExperimental: little });
  const bodies = await fresh.prepare('SELECT body FROM messages WHERE id <= 16 ORDER BY id').pluck().all();
  assert.deepEqual(bodies, all.map((_, i) => `by ${i}`));
});

test('a replica is there without its remote', async (t) => {
  const { url, folder } = await messages(t);
  const net = await network(t, url);
  const file = path.join(folder, 'app.db');
  const options = { path: file, url: net.url };
  await (await connect(options)).close();
  net.down = true;
  const db = new Database(options);
  t.after(() => db.close());
  assert.deepEqual(await db.get('SELECT count(*) AS n FROM messages'), { n: MESSAGES });
  await db.run("INSERT INTO messages (user_id, body) VALUES ('me', 'offline')");
  await assert.rejects(db.push(), { name: 'SqliteError', code: 'SQLITE_IOERR' });
  net.down = false;
  await db.push();
});

test('S3: a replica follows its database to a new url, with what was not pushed', async (t) => {
  const old = await empty(t);
  const moved = await empty(t);
  const options = { path: path.join(old.folder, 'app.db') };
  const before = await connect({ ...options, url: old.url });
  await before.run("INSERT INTO t VALUES (1, 'not pushed')");
  await before.close();
  await assert.rejects(connect({ ...options, url: moved.url }), /acceptNewUrl/);
  const after = await open(t, { ...options, url: moved.url, acceptNewUrl: true });
  await after.pull();
  await after.push();
  const other = await moved.replica();
  assert.deepEqual(await other.all('SELECT * FROM t'), [{ id: 1, v: 'not pushed' }]);
  assert.deepEqual(await after.all('SELECT * FROM t'), [{ id: 1, v: 'not pushed' }]);
});

test('S6: a refused change is discarded with what depends on it', async (t) => {
  const { replica } = await empty(t);
  const one = await replica();
  const two = await replica();
  await one.run("INSERT INTO t VALUES (1, 'same'), (2, 'same')");
  await one.push();
  await two.exec('CREATE UNIQUE INDEX only ON t(v); DROP INDEX only; PRAGMA user_version = 5');
  const refused = await two.push().then(
    () => assert.fail('it was accepted'),
    (error) => error,
  );
  assert.match(refused.message, /discardChange\(\d+\)/);
  assert.equal(await two.discardChange(10_000), 0);
  await assert.rejects(two.discardChange('1'), TypeError);
  assert.equal(await two.discardChange(refused.change, { withDependents: true }), 2);
  await two.push();
  await two.pull();
  assert.equal((await two.stats()).cdcOperations, 0);
  await one.pull();
  assert.deepEqual(await one.get('PRAGMA user_version'), { user_version: 5 });
});

test('what the remote refuses is told with its words', async (t) => {
  const { replica } = await empty(t, 'CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)');
  const one = await replica();
  const other = await replica();
  await one.run("INSERT INTO t VALUES (1, 'same')");
  await other.run("INSERT INTO t VALUES (2, 'same')");
  await one.push();
  await assert.rejects(other.push(), (error) => {
    assert.ok(error instanceof SqliteError);
    assert.match(error.message, /UNIQUE constraint failed/);
    return true;
  });
});

test('a plain local database has no remote', async (t) => {
  const db = await open(t, { path: path.join(scratch(t), 'plain.db') });
  for (const call of ['pull', 'push']) {
    await assert.rejects(db[call](), { name: 'SqliteError', code: 'SQLITE_MISUSE', message: /url/ });
  }
  await db.checkpoint();
  assert.equal((await db.stats()).cdcOperations, 0);
});
