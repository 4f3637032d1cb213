// A program that uses only what the published @tursodatabase/sync 0.7.2 has too, in the way that it has it. The path
// and the url are its arguments; SYNC_PACKAGE may name another package to run it with.
import assert from 'node:assert/strict';

const { connect, Database, Transaction, retryFetch } = await import(process.env.SYNC_PACKAGE ?? '@tursodatabase/sync');
const [path, url] = process.argv.slice(2);

const changes = [];
const db = await connect({
  path,
  url: () => url,
  authToken: async () => '',
  clientName: 'program',
  longPollTimeoutMs: 0,
  pushOperationsThreshold: 100,
  fetch: retryFetch({ attempts: 3, delayMs: 10, backoff: 2 }),
  transform: (m) => {
    changes.push(m);
    return m.tableName === 'drafts' ? { operation: 'skip' } : null;
  },
  partialSyncExperimental: {
    bootstrapStrategy: { kind: 'prefix', length: 128 * 1024 },
    segmentSize: 16 * 1024,
    prefetch: false,
  },
});
assert.ok(db instanceof Database);
assert.equal(db.name, path);
assert.equal(db.memory, false);
assert.equal(db.inTransaction, false);

await db.exec('CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, body TEXT UNIQUE, data BLOB)');
await db.exec('CREATE TABLE IF NOT EXISTS drafts (id INTEGER PRIMARY KEY, body TEXT)');
const insert = await db.prepare('INSERT INTO notes (body, data) VALUES (?, ?)');
assert.deepEqual(await insert.run('one', Buffer.from('1')), { changes: 1, lastInsertRowid: 1 });
assert.deepEqual(await insert.run(['two', null]), { changes: 1, lastInsertRowid: 2 });
const select = await db.prepare('SELECT id, body FROM notes WHERE id > ? ORDER BY id');
assert.deepEqual(await select.all(0), [
  { id: 1, body: 'one' },
  { id: 2, body: 'two' },
]);
assert.deepEqual(await select.get(1), { id: 2, body: 'two' });
assert.equal(await select.get(99), undefined);
assert.deepEqual(await select.raw(true).all(0), [
  [1, 'one'],
  [2, 'two'],
]);
select.raw(false);
assert.deepEqual(await select.pluck(true).all(0), [1, 2]);
select.pluck(false);
assert.deepEqual(await select.safeIntegers(true).get(0), { id: 1n, body: 'one' });
assert.deepEqual(select.columns().map((column) => [column.name, column.type]), [
  ['id', 'INTEGER'],
  ['body', 'TEXT'],
]);
const seen = [];
for await (const row of select.safeIntegers(false).iterate(0)) seen.push(row.body);
assert.deepEqual(seen, ['one', 'two']);
select.close();

assert.deepEqual(await db.get('SELECT data FROM notes WHERE id = :id', { id: 1 }), { data: Buffer.from('1') });
assert.equal((await db.get("SELECT count(*) AS n FROM messages WHERE user_id = 'u_123'")).n, 100);
const streamed = [];
for await (const { id } of db.iterate('SELECT id FROM messages WHERE id <= ?', 3)) streamed.push(id);
assert.deepEqual(streamed, [1, 2, 3]);

const add = db.transaction(async (...bodies) => {
  for (const body of bodies) await db.run('INSERT INTO notes (body) VALUES (?)', body);
  return bodies.length;
});
assert.equal(await add('three', 'four'), 2);
assert.equal(await add.immediate('five'), 1);
await assert.rejects(add('six', 'one'), /UNIQUE constraint failed: notes\.body/);
const count = db.transactionAsync(async (txn, table) => {
  assert.ok(txn instanceof Transaction && txn.open);
  await txn.exec("INSERT INTO drafts (body) VALUES ('draft')");
  const statement = await txn.prepare('SELECT count(*) AS n FROM notes');
  return [table, (await statement.get()).n, (await txn.all('SELECT body FROM drafts')).length];
});
assert.deepEqual(await count('notes'), ['notes', 5, 1]);

const [inserted, rows] = await db.batch(
  ["INSERT INTO notes (body) VALUES ('seven')", { sql: 'SELECT body FROM notes WHERE id > ?', args: [5] }],
  'write',
);
assert.deepEqual(inserted, { columns: [], columnTypes: [], rows: [], rowsAffected: 1 });
assert.deepEqual(rows, { columns: ['body'], columnTypes: ['TEXT'], rows: [{ body: 'seven' }], rowsAffected: 0 });
assert.ok(Array.isArray(await db.pragma('table_info(notes)')));

assert.ok((await db.stats()).cdcOperations > 0);
await db.push();
assert.equal((await db.stats()).cdcOperations, 0);
assert.ok(changes.some((m) => m.tableName === 'notes' && m.changeType === 'insert' && m.after.body === 'one'));

const other = new Database({ path: ':memory:', url });
await other.connect();
assert.deepEqual(
  (await other.all('SELECT body FROM notes ORDER BY id')).map((row) => row.body),
  ['one', 'two', 'three', 'four', 'five', 'seven'],
);
await other.run("UPDATE notes SET body = 'ONE' WHERE id = 1");
await other.push();
await other.close();

assert.equal(await db.pull(), true);
assert.deepEqual(await db.get('SELECT body FROM notes WHERE id = 1'), { body: 'ONE' });
await db.checkpoint();
const stats = await db.stats();
for (const key of ['cdcOperations', 'mainWalSize', 'revertWalSize', 'networkSentBytes', 'networkReceivedBytes']) {
  assert.equal(typeof stats[key], 'number', key);
}
assert.equal(typeof stats.revision, 'string');
await db.close();
console.log('all as expected');
