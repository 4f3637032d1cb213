// Nothing blocks the event loop, everything that waits can be ended, and Node ends when the program has.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { connect } from '../index.mjs';
import { little, messages, MESSAGES, network, open, scratch, until } from './world.mjs';

const packageFile = fileURLToPath(new URL('../index.mjs', import.meta.url));

/** Runs a program in a Node of its own and gives what it printed; it must end by itself within a minute. */
async function program(source, ...args) {
  const text = `import { connect, Database } from ${JSON.stringify(packageFile)};\n${source}`;
  const options = ['--input-type=module', '-e', text, ...args];
  const { stdout } = await promisify(execFile)(process.execPath, options, { timeout: 60_000 });
  return stdout.trim();
}

/** A replica of which little is here, behind a network that can be made slow. */
async function far(t, options = {}) {
  const { url } = await messages(t);
  const net = await network(t, url);
  const db = await open(t, { path: ':memory:', url: net.url, partialSyncExperimental: little, ...options });
  return { db, net };
}

test('the event loop runs while a query waits for pages', async (t) => {
  const { db, net } = await far(t);
  net.delay = 500;
  let ticks = 0;
  let longest = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    ticks += 1;
  }, 5);
  const start = performance.now();
  const row = await db.get('SELECT body FROM messages WHERE id = ?', MESSAGES - 3);
  const took = performance.now() - start;
  clearInterval(timer);
  assert.match(row.body, /19997$/);
  assert.ok(took >= 500, `${took} ms: no page was fetched`);
  assert.ok(ticks > 30, `${ticks} ticks in ${took} ms`);
  assert.ok(longest < 250, `nothing ran for ${longest} ms`);
});

test('many databases wait for pages at the same time, and file reads are not held up', async (t) => {
  const { url } = await messages(t);
  const net = await network(t, url);
  const make = () => open(t, { path: ':memory:', url: net.url, partialSyncExperimental: little });
  const all = await Promise.all(Array.from({ length: 12 }, make));
  let answer;
  net.held = new Promise((resolve) => (answer = resolve));
  const before = net.requests.length;
  const queries = all.map((db) => db.get('SELECT body FROM messages WHERE id = 1'));
  const { readFile } = await import('node:fs/promises');
  await readFile(packageFile);
  await until('all of them wait', () => net.requests.length >= before + all.length);
  answer();
  await Promise.all(queries);
});

test('interrupt breaks a page fetch, and the database continues', async (t) => {
  const { db, net } = await far(t);
  net.delay = 20_000;
  const start = performance.now();
  const before = net.requests.length;
  const query = db.all('SELECT * FROM messages');
  await until('the query asks for a page', () => net.requests.length > before);
  db.interrupt();
  await assert.rejects(query, { name: 'SqliteError', code: 'SQLITE_INTERRUPT', rawCode: 9 });
  assert.ok(performance.now() - start < 5000);
  net.delay = 0;
  assert.deepEqual(await db.get('SELECT count(*) AS n FROM messages'), { n: MESSAGES });
});

test('interrupt breaks a computation, a pull, a push and a first connect', async (t) => {
  const { db, net } = await far(t);
  const endless = 'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c';
  const computing = db.get(endless);
  db.interrupt();
  await assert.rejects(computing, { code: 'SQLITE_INTERRUPT' });
  await db.run("INSERT INTO messages (user_id, body) VALUES ('me', 'mine')");
  net.delay = 20_000;
  for (const operation of ['pull', 'push']) {
    const running = db[operation]();
    db.interrupt();
    await assert.rejects(running, { code: 'SQLITE_INTERRUPT' }, operation);
  }
  const { Database } = await import('../index.mjs');
  const unborn = new Database({ path: ':memory:', url: net.url });
  const connecting = unborn.connect();
  unborn.interrupt();
  await assert.rejects(connecting, { code: 'SQLITE_INTERRUPT' });
  net.delay = 0;
  await unborn.connect();
  await unborn.close();
  await db.push();
});

test('queryTimeout ends a page fetch, a computation and a wait for a lock', async (t) => {
  const { db, net } = await far(t, { queryTimeout: 150 });
  const late = { name: 'SqliteError', code: 'SQLITE_INTERRUPT' };
  net.delay = 20_000;
  await assert.rejects(db.all('SELECT * FROM messages'), late);
  net.delay = 0;
  assert.deepEqual(await db.get('SELECT count(*) AS n FROM messages', { queryTimeout: 30_000 }), { n: MESSAGES });
  const endless = 'WITH RECURSIVE c(x) AS (SELECT ? UNION ALL SELECT x + 1 FROM c) SELECT x FROM c';
  for (const call of [
    () => db.all(endless, 1),
    () => db.run(endless, [1], { queryTimeout: 50 }),
    () => db.prepare(endless).then((statement) => statement.all(1, { queryTimeout: 50 })),
    () => db.exec(endless.replace('?', '1'), { queryTimeout: 50 }),
  ]) {
    const start = performance.now();
    await assert.rejects(call(), late);
    assert.ok(performance.now() - start < 5000);
  }
  const file = path.join(scratch(t), 'locked.db');
  const holder = await open(t, { path: file });
  await holder.exec('CREATE TABLE t (a); BEGIN IMMEDIATE');
  const waiter = await open(t, { path: file, queryTimeout: 50 });
  const start = performance.now();
  await assert.rejects(waiter.run('INSERT INTO t VALUES (1)'));
  assert.ok(performance.now() - start < 3000);
  await holder.exec('COMMIT');
  assert.equal((await waiter.run('INSERT INTO t VALUES (1)')).changes, 1);
  await assert.rejects(waiter.get('SELECT 1', { queryTimeout: -1 }), RangeError);
  assert.deepEqual(await waiter.get('SELECT :queryTimeout AS v', { queryTimeout: 7 }), { v: 7 }, 'a parameter of that name');
});

test('a read of what is here is answered while another database waits', async (t) => {
  const { db, net } = await far(t);
  const local = await open(t, { path: ':memory:' });
  net.delay = 400;
  let done = false;
  const slow = db.get('SELECT count(*) AS n FROM messages WHERE id > 19990').then(() => (done = true));
  for (let i = 0; i < 100; i++) await local.get('SELECT ? AS v', i);
  assert.equal(done, false);
  assert.ok((await db.stats()).requests > 0, 'nor do statistics wait');
  await slow;
});

test('closing breaks off a pull that waits for news', async (t) => {
  const { url } = await messages(t);
  const db = await open(t, { path: ':memory:', url, longPollTimeoutMs: 60_000 });
  const pull = db.pull();
  const ended = assert.rejects(pull);
  const start = performance.now();
  await db.close();
  await ended;
  assert.ok(performance.now() - start < 5000);
});

test('a database that was not closed does not keep Node running', async (t) => {
  const { url } = await messages(t);
  const out = await program(
    `const db = await connect({ path: ':memory:', url: process.argv[1], partialSyncExperimental: { segmentSize: 4096 },
       fetch: (...args) => fetch(...args), authToken: async () => '', transform: () => null });
     console.log((await db.get('SELECT count(*) AS n FROM messages')).n);`,
    url,
  );
  assert.equal(out, String(MESSAGES));
});

test('a program that only awaits a slow query does not end before it', async (t) => {
  const { url } = await messages(t);
  const net = await network(t, url);
  const running = program(
    `const db = new Database({ path: ':memory:', url: process.argv[1], partialSyncExperimental: { segmentSize: 4096 } });
     await db.connect();
     console.log((await db.get('SELECT body FROM messages WHERE id = 20000')).body.length);`,
    net.url,
  );
  await until('it connects', () => net.requests.length > 0);
  net.delay = 300;
  assert.equal(await running, '80');
});

test('a program may exit in the middle of everything', async (t) => {
  const { url } = await messages(t);
  const out = await program(
    `const db = await connect({ path: ':memory:', url: process.argv[1], partialSyncExperimental: { segmentSize: 4096 },
       fetch: (...args) => fetch(...args) });
     db.all('SELECT * FROM messages').catch(() => {});
     db.pull().catch(() => {});
     const local = await connect({ path: ':memory:' });
     local.all('WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c').catch(() => {});
     setTimeout(() => { console.log('out'); process.exit(0); }, 50);`,
    url,
  );
  assert.equal(out, 'out');
});

test('worker threads use databases, and may be ended while they do', async () => {
  const source = `
    const { parentPort, workerData } = require('node:worker_threads');
    const { connect } = require(workerData);
    connect({ path: ':memory:' }).then(async (db) => {
      parentPort.postMessage((await db.get('SELECT 1 + 1 AS two')).two);
      await db.all('WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c LIMIT 3000000');
    });`;
  const file = fileURLToPath(new URL('../index.js', import.meta.url));
  for (let i = 0; i < 3; i++) {
    const worker = new Worker(source, { eval: true, workerData: file });
    const two = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    assert.equal(two, 2);
    await worker.terminate();
  }
  const db = await connect({ path: ':memory:' });
  assert.deepEqual(await db.get('SELECT 3 AS v'), { v: 3 });
  await db.close();
});

test('rows are made without generated code where that is forbidden', async () => {
  const text = `
    const { connect } = require(${JSON.stringify(fileURLToPath(new URL('../index.js', import.meta.url)))});
    connect({ path: ':memory:' }).then(async (db) => {
      const rows = await db.all('SELECT value AS a, -value AS b FROM generate_series(1, 1000)');
      console.log(JSON.stringify(rows[999]));
    });`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--disallow-code-generation-from-strings', '-e', text]);
  assert.equal(stdout.trim(), '{"a":1000,"b":-1000}');
});
