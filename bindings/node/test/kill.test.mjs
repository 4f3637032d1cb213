// Kill after success: a process kills itself right after a call has succeeded, at synchronous=FULL; everything that succeeded
// is there when the database is opened again. KILLS=500 for more than a sample, SEED for another one.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connect } from '../index.mjs';
import { random } from './reference/programs.mjs';
import { patient } from './watchdog.mjs';
import { little, messages, scratch } from './world.mjs';

const KILLS = Number(process.env.KILLS ?? 12);
const SEED = Number(process.env.SEED ?? 1);
const AT_ONCE = 4;
// So many processes at a time wait for each other's work too.
patient(undefined, 3);

/** Ways to write one row `(id, body)` into messages; each has succeeded when it has ended. */
export const WAYS = {
  run: (db, id) => db.run('INSERT INTO messages VALUES (?, 1, ?)', id, `run ${id}`),
  statement: async (db, id) => (await db.prepare('INSERT INTO messages VALUES (?, 1, ?)')).run(id, `statement ${id}`),
  get: (db, id) => db.get('INSERT INTO messages VALUES (?, 1, ?) RETURNING id', id, `get ${id}`),
  all: (db, id) => db.all('INSERT INTO messages VALUES (?, 1, ?) RETURNING id', id, `all ${id}`),
  statementGet: async (db, id) =>
    (await db.prepare('INSERT INTO messages SELECT value, 1, ? FROM generate_series(?, ?) RETURNING id')).get(`get ${id}`, id, id),
  next: async (db, id) => void (await db.iterate('INSERT INTO messages VALUES (?, 1, ?) RETURNING id', id, `next ${id}`).next()),
  upsert: (db, id) =>
    db.get('INSERT INTO messages VALUES (?, 1, ?) ON CONFLICT (id) DO UPDATE SET body = 1 RETURNING body', id, `upsert ${id}`),
  exec: (db, id) => db.exec(`INSERT INTO messages VALUES (${id}, 1, 'exec ${id}')`),
  batch: (db, id) => db.batch([{ sql: 'INSERT INTO messages VALUES (?, 1, ?)', args: [id, `batch ${id}`] }]),
  transaction: (db, id) => db.transaction(() => db.run('INSERT INTO messages VALUES (?, 1, ?)', id, `transaction ${id}`))(),
  transactionAsync: (db, id) =>
    db.transactionAsync((txn) => txn.get('INSERT INTO messages VALUES (?, 1, ?) RETURNING id', id, `async ${id}`))(),
  commit: async (db, id) => {
    await db.exec('BEGIN IMMEDIATE');
    await db.run('INSERT INTO messages VALUES (?, 1, ?)', id, `commit ${id}`);
    await db.get('COMMIT');
  },
};
const FIRST = 1_000_000;

/** What the process of a seed does: the ways in which it writes. */
function plan(seed) {
  const r = random(seed);
  const kind = r.pick(['delete', 'wal', 'wal', 'replica']);
  return { kind, ways: Array.from({ length: 1 + r.below(4) }, () => r.pick(Object.keys(WAYS))) };
}

/** The process: writes, and kills itself the moment that the last write has succeeded. */
async function writeAndDie(seed, path, url) {
  const { kind, ways } = plan(seed);
  const db = await connect(kind === 'replica' ? { path, url, partialSyncExperimental: little } : { path });
  if (kind === 'wal') await db.pragma('journal_mode = WAL');
  await db.exec('PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, user_id, body)');
  for (const [i, way] of ways.entries()) {
    await WAYS[way](db, FIRST + i);
    if (i === ways.length - 1) process.kill(process.pid, 'SIGKILL');
  }
}

const [, file, seedOfProcess, ...more] = process.argv;
if (file === fileURLToPath(import.meta.url) && seedOfProcess !== undefined) {
  await writeAndDie(Number(seedOfProcess), ...more);
} else {
  test('b1: what has succeeded is there after the process was killed', async (t) => {
    const folder = scratch(t);
    const { url } = await messages(t);
    let next = SEED;
    const one = async () => {
      while (next < SEED + KILLS) {
        const seed = next++;
        const { kind, ways } = plan(seed);
        const path = join(folder, `${seed}.db`);
        const child = spawn(process.execPath, [file ?? fileURLToPath(import.meta.url), String(seed), path, url], { stdio: 'inherit' });
        const [status, signal] = await once(child, 'exit');
        assert.equal(signal, 'SIGKILL', `seed ${seed} ended with ${status}`);
        const db = await connect(kind === 'replica' ? { path, url, partialSyncExperimental: little } : { path });
        const rows = await db.all('SELECT id, body FROM messages WHERE id >= ? ORDER BY id', FIRST);
        const want = ways.map((_, i) => FIRST + i);
        assert.deepEqual(rows.map(({ id }) => id), want, `seed ${seed}, ${kind}, ${ways.join(', ')}`);
        assert.equal(await db.pragma('integrity_check', { simple: true }), 'ok');
        await db.close();
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, one));
  });
}
