// `@tursodatabase/sync`, as published, as a client of a remote: the checks a user of that package would notice first.
// Arguments: --url, --empty-url (a database without any table), --token, --dir (scratch), --server ours|tursodb, and
// --phase first|reopened. `first` leaves a replica behind, `reopened` continues with it after the server was restarted.
// Must never look into the client's own files: only what its public API says counts.

import assert from 'node:assert/strict';
import path from 'node:path';
import { connect } from '@tursodatabase/sync';
import { Checks, argumentsByName, before, remoteRows } from './checks.mjs';

const { url, 'empty-url': emptyUrl, token, dir, server, phase } = argumentsByName();
const checks = new Checks('@tursodatabase/sync', server);
const remote = (sql, args) => remoteRows(url, token, sql, args);
let replicas = 0;

/** A new replica with its own file; `traffic` counts what it asked for. */
async function replica(options = {}) {
  const traffic = { requests: 0, bytes: 0 };
  const countingFetch = async (input, init) => {
    traffic.requests += 1;
    const response = await fetch(input, init);
    const body = new Uint8Array(await response.arrayBuffer());
    traffic.bytes += body.length;
    return new Response(body, { status: response.status, headers: response.headers });
  };
  replicas += 1;
  const file = options.path ?? path.join(dir, `node-${replicas}.db`);
  const db = await connect({ url, authToken: token, fetch: countingFetch, ...options, path: file });
  return { db, traffic };
}

const prefix = (length, more = {}) => ({
  partialSyncExperimental: { bootstrapStrategy: { kind: 'prefix', length }, ...more },
});
const query = (sql, more = {}) => ({
  partialSyncExperimental: { bootstrapStrategy: { kind: 'query', query: sql }, ...more },
});
const FINGERPRINT = 'SELECT count(*), sum(id), sum(length(body)), sum(score) FROM item';
const fingerprint = async (db) => Object.values(await db.get(FINGERPRINT));

async function pageCountOfRemote() {
  const [[pages]] = await remote('PRAGMA page_count');
  return pages;
}

checks.add('a full bootstrap reads every row', async () => {
  const { db } = await replica();
  assert.deepEqual(await fingerprint(db), (await remote(FINGERPRINT))[0]);
  assert.equal(Object.values(await db.get('PRAGMA integrity_check'))[0], 'ok');
  assert.equal(await db.pull(), false);
  await db.close();
});

checks.add('a bootstrap in chunks reads every row', async () => {
  const { db, traffic } = await replica({ pullBytesThreshold: 100_000 });
  assert.deepEqual(await fingerprint(db), (await remote(FINGERPRINT))[0]);
  assert.ok(traffic.requests > 2, `came in ${traffic.requests} request(s)`);
  await db.close();
});

checks.add('a prefix bootstrap downloads a part and fetches the rest on demand', async () => {
  const { db, traffic } = await replica(prefix(32 * 1024, { segmentSize: 16 * 1024 }));
  const whole = (await pageCountOfRemote()) * 4096;
  assert.ok(traffic.bytes < 34 * 1024, `bootstrap took ${traffic.bytes} bytes`);
  assert.deepEqual(
    Object.values(await db.get('SELECT id, score FROM item WHERE id = 1400')),
    (await remote('SELECT id, score FROM item WHERE id = 1400'))[0],
  );
  assert.ok(traffic.bytes < whole / 3, `one row took ${traffic.bytes} of ${whole} bytes`);
  assert.deepEqual(await fingerprint(db), (await remote(FINGERPRINT))[0]);
  await db.close();
});

checks.add('an index lookup on absent pages finds its rows', async () => {
  const { db } = await replica(prefix(4096, { segmentSize: 4096 }));
  const sql = 'SELECT id FROM item WHERE score = 4200 ORDER BY id';
  assert.deepEqual((await db.all(sql)).map((row) => [row.id]), await remote(sql));
  await db.close();
});

checks.add('default segments and prefetch read the same rows', async () => {
  for (const prefetch of [false, true]) {
    const { db } = await replica(prefix(4096, { prefetch }));
    assert.equal((await db.get('SELECT id FROM item WHERE id = 900')).id, 900);
    assert.deepEqual(await fingerprint(db), (await remote(FINGERPRINT))[0]);
    await db.close();
  }
});

checks.add('rows of a query bootstrap are read without another request', async () => {
  const { db, traffic } = await replica(query('SELECT * FROM item WHERE id BETWEEN 200 AND 220'));
  const { requests } = traffic;
  const rows = await db.all('SELECT id, score FROM item WHERE id BETWEEN 200 AND 220');
  assert.deepEqual(
    rows.map((row) => [row.id, row.score]),
    await remote('SELECT id, score FROM item WHERE id BETWEEN 200 AND 220'),
  );
  assert.equal(traffic.requests, requests, 'asked the remote again');
  assert.equal((await db.get('SELECT id FROM item WHERE id = 1300')).id, 1300);
  await db.close();
});

checks.ours('a query bootstrap sends only the pages that the query touches', async () => {
  const { db, traffic } = await replica(query('SELECT * FROM item WHERE id BETWEEN 200 AND 220'));
  const whole = (await pageCountOfRemote()) * 4096;
  assert.ok(traffic.bytes < whole / 4, `took ${traffic.bytes} of ${whole} bytes`);
  await db.close();
});

checks.add('inserts, updates and deletes arrive on the remote', async () => {
  const { db } = await replica();
  await db.exec("INSERT INTO item(id, body, score) VALUES (100001, 'new', 1), (100002, 'newer', 2)");
  await db.exec("UPDATE item SET body = 'changed' WHERE id = 5");
  await db.exec('DELETE FROM item WHERE id = 6');
  await db.push();
  assert.deepEqual(
    await remote('SELECT id, body FROM item WHERE id IN (5, 6, 100001, 100002) ORDER BY id'),
    [[5, 'changed'], [100001, 'new'], [100002, 'newer']],
  );
  await db.push();
  await db.pull();
  assert.deepEqual(await fingerprint(db), (await remote(FINGERPRINT))[0]);
  await db.close();
});

checks.add('a partial replica pushes a change of a row that it had to fetch', async () => {
  const { db } = await replica(prefix(4096, { segmentSize: 8192 }));
  await db.exec("UPDATE item SET body = 'from a partial replica' WHERE id = 1234");
  await db.push();
  assert.deepEqual(await remote('SELECT body FROM item WHERE id = 1234'), [['from a partial replica']]);
  await db.close();
});

checks.add('values of every kind arrive as they were', async () => {
  const { db } = await replica();
  await db.exec('CREATE TABLE kinds(k TEXT PRIMARY KEY, v)');
  const values = [null, 7, -9007199254740991, 1.5, 1e300, '', 'žluť 漢字 🦀', "it's", Buffer.from('00ff10', 'hex')];
  const insert = await db.prepare('INSERT INTO kinds VALUES (?, ?)');
  for (const [i, value] of values.entries()) await insert.run(`k${i}`, value);
  await db.exec("INSERT INTO kinds VALUES ('huge', 9223372036854775807), ('low', -9223372036854775808)");
  await db.push();
  const sql = 'SELECT k, typeof(v), quote(v), length(v) FROM kinds ORDER BY k';
  assert.deepEqual((await db.all(sql)).map((row) => Object.values(row)), await remote(sql));
  await db.close();
});

checks.add('tables, indexes and columns created on the replica arrive, with rows without a key', async () => {
  const { db } = await replica();
  await db.exec('CREATE TABLE log(at INTEGER, line TEXT); CREATE INDEX log_at ON log(at)');
  await db.exec("INSERT INTO log VALUES (1, 'a'), (1, 'a'), (NULL, 'b')");
  await db.exec('ALTER TABLE log ADD COLUMN level DEFAULT 5');
  await db.exec("INSERT INTO log VALUES (2, 'c', 6)");
  await db.push();
  assert.deepEqual(await remote('SELECT at, line, level FROM log ORDER BY rowid'), [
    [1, 'a', 5], [1, 'a', 5], [null, 'b', 5], [2, 'c', 6],
  ]);
  const other = await replica();
  assert.equal((await other.db.get('SELECT count(*) AS n FROM log WHERE at = 1')).n, 2);
  await db.close();
  await other.db.close();
});

checks.add('two clients see each other, and the last push wins', async () => {
  const a = (await replica()).db;
  const b = (await replica(prefix(8192))).db;
  await a.exec("UPDATE item SET body = 'A' WHERE id = 700");
  await a.exec("INSERT INTO item(id, body, score) VALUES (200000, 'A', 1)");
  await b.exec("UPDATE item SET body = 'B', score = 77 WHERE id = 700");
  await b.exec("INSERT INTO item(id, body, score) VALUES (200000, 'B', 2)");
  await a.push();
  await b.push();
  for (const db of [a, b]) {
    await db.pull();
    assert.deepEqual(
      (await db.all('SELECT id, body, score FROM item WHERE id IN (700, 200000) ORDER BY id')).map(Object.values),
      [[700, 'B', 77], [200000, 'B', 2]],
    );
  }
  await a.close();
  await b.close();
});

checks.add('changes that were not pushed survive a pull', async () => {
  const a = (await replica()).db;
  const b = (await replica()).db;
  await a.exec("INSERT INTO item(id, body, score) VALUES (300000, 'local', 1)");
  await b.exec("INSERT INTO item(id, body, score) VALUES (300001, 'remote', 1)");
  await b.push();
  assert.equal(await a.pull(), true);
  const sql = 'SELECT id FROM item WHERE id IN (300000, 300001) ORDER BY id';
  assert.deepEqual((await a.all(sql)).map((row) => row.id), [300000, 300001]);
  await a.push();
  assert.deepEqual(await remote(sql), [[300000], [300001]]);
  await a.close();
  await b.close();
});

checks.add('an absent page is read at the replica\'s own revision after the remote moved on', async () => {
  const { db } = await replica(prefix(4096, { segmentSize: 4096 }));
  const [[old]] = await remote('SELECT body FROM item WHERE id = 1450');
  await remote("UPDATE item SET body = 'moved on' WHERE id = 1450");
  assert.equal((await db.get('SELECT body FROM item WHERE id = 1450')).body, old);
  assert.equal(await db.pull(), true);
  assert.equal((await db.get('SELECT body FROM item WHERE id = 1450')).body, 'moved on');
  await db.close();
});

checks.add('a pull brings a database that grew and one that shrank', async () => {
  const { db } = await replica(prefix(4096, { segmentSize: 16 * 1024 }));
  await db.get(FINGERPRINT);
  await remote('CREATE TABLE bulk(id INTEGER PRIMARY KEY, v TEXT)');
  await remote(
    "INSERT INTO bulk(v) SELECT hex(randomblob(300)) FROM item LIMIT 1000",
  );
  assert.equal(await db.pull(), true);
  assert.deepEqual(
    Object.values(await db.get('SELECT count(*), sum(length(v)) FROM bulk')),
    (await remote('SELECT count(*), sum(length(v)) FROM bulk'))[0],
  );
  await remote('DROP TABLE bulk');
  assert.equal(await db.pull(), true);
  await assert.rejects(async () => db.get('SELECT count(*) FROM bulk'), /no such table/);
  assert.deepEqual(await fingerprint(db), (await remote(FINGERPRINT))[0]);
  await db.close();
});

checks.add('a large transaction is pushed in one piece, and in several when asked to split', async () => {
  for (const [base, options] of [[400_000, {}], [410_000, { pushOperationsThreshold: 100 }]]) {
    const { db, traffic } = await replica(options);
    const { requests } = traffic;
    const { n } = await db.get('SELECT count(*) AS n FROM item WHERE id <= 500');
    for (let i = 0; i < 4; i += 1) {
      await db.exec(
        `INSERT INTO item(id, body, score) SELECT id + ${base + i * 500}, body, score FROM item WHERE id <= 500`,
      );
    }
    await db.push();
    assert.equal((await remote(`SELECT count(*) FROM item WHERE id BETWEEN ${base} AND ${base + 5000}`))[0][0], 4 * n);
    if (options.pushOperationsThreshold) assert.ok(traffic.requests - requests > 3, 'was not split');
    await db.close();
  }
  await remote('DELETE FROM item WHERE id >= 400000');
});

checks.add('a refused change is reported with the text of the constraint', async () => {
  const a = (await replica()).db;
  await a.exec('CREATE TABLE IF NOT EXISTS person(id INTEGER PRIMARY KEY, email TEXT UNIQUE)');
  await a.push();
  const b = (await replica()).db;
  await a.exec("INSERT INTO person VALUES (1, 'same')");
  await a.push();
  await b.exec("INSERT INTO person VALUES (2, 'same')");
  await assert.rejects(async () => b.push(), /UNIQUE constraint failed: person\.email/);
  assert.deepEqual(await remote('SELECT id FROM person'), [[1]]);
  await a.close();
  await b.close();
});

checks.add('a transform callback rewrites what is sent', async () => {
  const { db } = await replica({
    transform: (m) =>
      m.changeType === 'update'
        ? { operation: 'rewrite', stmt: { sql: 'UPDATE item SET score = score + ? WHERE id = ?', values: [3, m.id] } }
        : null,
  });
  const [[score]] = await remote('SELECT score FROM item WHERE id = 50');
  await remote('UPDATE item SET score = score + 10 WHERE id = 50');
  await db.exec('UPDATE item SET score = score + 3 WHERE id = 50');
  await db.push();
  assert.deepEqual(await remote('SELECT score FROM item WHERE id = 50'), [[score + 13]]);
  await db.close();
});

checks.ours('a long poll waits, and ends when something changes', async () => {
  const { db } = await replica({ longPollTimeoutMs: 400 });
  const started = performance.now();
  assert.equal(await db.pull(), false);
  assert.ok(performance.now() - started >= 350, 'answered at once');
  await db.close();
  const patient = (await replica({ longPollTimeoutMs: 15_000 })).db;
  const pulled = patient.pull();
  await remote("UPDATE item SET body = 'poll' WHERE id = 60");
  assert.equal(await before(5_000, pulled), true);
  assert.equal((await patient.get('SELECT body FROM item WHERE id = 60')).body, 'poll');
  await patient.close();
});

checks.add('an empty database is opened, filled, pushed and opened by another client', async () => {
  const { db } = await replica({ url: emptyUrl });
  assert.equal(await db.pull(), false);
  await db.exec('CREATE TABLE first(id INTEGER PRIMARY KEY, v TEXT)');
  await db.exec("INSERT INTO first VALUES (1, 'one'), (2, 'two')");
  await db.push();
  await db.pull();
  for (const options of [{}, prefix(8192)]) {
    const other = await replica({ url: emptyUrl, ...options });
    assert.deepEqual((await other.db.all('SELECT id, v FROM first ORDER BY id')).map(Object.values), [
      [1, 'one'], [2, 'two'],
    ]);
    await other.db.close();
  }
  await db.close();
});

checks.add('several clients read and write at the same time', async () => {
  const clients = await Promise.all(Array.from({ length: 6 }, () => replica(prefix(4096, { segmentSize: 32 * 1024 }))));
  await Promise.all(
    clients.map(async ({ db }, i) => {
      await db.get(FINGERPRINT);
      await db.exec(`INSERT INTO item(id, body, score) VALUES (${500_000 + i}, 'client ${i}', ${i})`);
      await db.push();
    }),
  );
  for (const { db } of clients) {
    await db.pull();
    assert.equal((await db.get('SELECT count(*) AS n FROM item WHERE id >= 500000')).n, 6);
    await db.close();
  }
  await remote('DELETE FROM item WHERE id >= 500000');
});

checks.ours('a wrong token is refused with a clear error', async () => {
  await assert.rejects(async () => replica({ authToken: 'not the token' }), /status=401/);
});

checks.ours('writes of `remoteWritesExperimental` run on the remote', async () => {
  const { db } = await replica({ remoteWritesExperimental: true });
  await db.exec("INSERT INTO item(id, body, score) VALUES (600000, 'remote write', 1)");
  assert.deepEqual(await remote('SELECT body FROM item WHERE id = 600000'), [['remote write']]);
  assert.equal((await db.get('SELECT body FROM item WHERE id = 600000')).body, 'remote write');
  await db.exec('BEGIN');
  await db.exec('DELETE FROM item WHERE id = 600000');
  await db.exec('ROLLBACK');
  assert.equal((await remote('SELECT count(*) FROM item WHERE id = 600000'))[0][0], 1);
  const statement = await db.prepare('UPDATE item SET score = ? WHERE id = ?');
  await statement.run(9, 600000);
  assert.deepEqual(await remote('SELECT score FROM item WHERE id = 600000'), [[9]]);
  await db.close();
});

checks.add('a replica is left behind for the time after a restart', async () => {
  const { db } = await replica({
    ...prefix(4096, { segmentSize: 4096 }),
    path: path.join(dir, 'node-left-behind.db'),
    clientName: 'left-behind',
  });
  await db.exec("INSERT INTO item(id, body, score) VALUES (700000, 'before the restart', 1)");
  await db.push();
  await db.exec("INSERT INTO item(id, body, score) VALUES (700001, 'not pushed', 1)");
  await db.close();
});

const afterRestart = new Checks('@tursodatabase/sync after a restart', server);

afterRestart.ours('a replica from before continues where it was', async () => {
  const { db } = await replica({
    ...prefix(4096, { segmentSize: 4096 }),
    path: path.join(dir, 'node-left-behind.db'),
    clientName: 'left-behind',
  });
  assert.equal((await db.get('SELECT id FROM item WHERE id = 1111')).id, 1111);
  await db.pull();
  await db.push();
  assert.deepEqual(await remote('SELECT id, body FROM item WHERE id IN (700000, 700001) ORDER BY id'), [
    [700000, 'before the restart'], [700001, 'not pushed'],
  ]);
  assert.deepEqual(await fingerprint(db), (await remote(FINGERPRINT))[0]);
  await db.close();
  // For the next time: something to pull, committed just before the server ends.
  await remote('UPDATE item SET score = score + 1 WHERE id % 100 = 0');
});

const failed = await (phase === 'reopened' ? afterRestart : checks).run();
// A client that hangs keeps the event loop alive; every check has had its deadline by now.
process.exit(failed === 0 ? 0 : 1);
