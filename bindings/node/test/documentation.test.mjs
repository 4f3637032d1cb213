// The examples of the documentation, in their shapes.
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { connect } from '@tursodatabase/sync';
import { messages, MESSAGES, scratch, until } from './world.mjs';

test('prefix bootstrap', async (t) => {
  const { url } = await messages(t);
  const db = await connect({
    path: path.join(scratch(t), 'app.db'),
    url,
    authToken: process.env.TURSO_AUTH_TOKEN,
    partialSyncExperimental: {
      bootstrapStrategy: { kind: 'prefix', length: 128 * 1024 }, // 128 KiB
    },
  });
  const fresh = await db.stats();
  assert.equal(fresh.pagesPresent, 32);
  assert.ok(fresh.pagesTotal > 500);
  assert.deepEqual(await db.get('SELECT count(*) AS n FROM messages'), { n: MESSAGES });
  assert.ok((await db.stats()).pagesPresent > 32, 'the query fetched the pages that it needed');
  await db.close();
});

test('query bootstrap', async (t) => {
  const { url } = await messages(t);
  const db = await connect({
    path: path.join(scratch(t), 'app.db'),
    url,
    authToken: process.env.TURSO_AUTH_TOKEN,
    partialSyncExperimental: {
      bootstrapStrategy: {
        kind: 'query',
        query: `SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100`,
      },
    },
  });
  const { requests } = await db.stats();
  const rows = await db.all(`SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100`);
  assert.equal(rows.length, 100);
  assert.equal((await db.stats()).requests, requests, 'what the query touches was here');
  await db.close();
});

test('query bootstrap in memory leaves no file', async (t) => {
  const { url } = await messages(t);
  const folder = scratch(t);
  const before = process.cwd();
  process.chdir(folder);
  t.after(() => process.chdir(before));
  const db = await connect({
    path: ':memory:',
    url,
    partialSyncExperimental: {
      bootstrapStrategy: {
        kind: 'query',
        query: "SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100",
      },
    },
  });
  assert.equal((await db.all("SELECT * FROM messages WHERE user_id = 'u_123'")).length, 100);
  await db.run("INSERT INTO messages VALUES (?, 'me', 'hello')", MESSAGES + 1);
  await db.close();
  assert.deepEqual(readdirSync(folder), []);
  assert.ok(!existsSync('/:memory:'));
});

test('segment size', async (t) => {
  const { url } = await messages(t);
  for (const [segmentSize, pages] of [
    [16 * 1024, 4],
    [undefined, 32],
  ]) {
    const db = await connect({
      path: ':memory:',
      url,
      partialSyncExperimental: {
        bootstrapStrategy: { kind: 'prefix', length: 128 * 1024 }, // 128 KiB
        segmentSize,
        prefetch: false,
      },
    });
    const before = await db.stats();
    await db.get('SELECT body FROM messages WHERE id = ?', MESSAGES / 2);
    const segments = (await db.stats()).requests - before.requests;
    assert.ok(segments >= 1);
    // The row is given when its page is here, and the rest of the segment arrives after it.
    await until(`${pages} pages came with each request`, async () => {
      return (await db.stats()).pagesPresent === before.pagesPresent + pages * segments;
    });
    await db.close();
  }
});

test('prefetch', async (t) => {
  const { url } = await messages(t);
  const requests = {};
  for (const prefetch of [true, false]) {
    const db = await connect({
      path: ':memory:',
      url,
      partialSyncExperimental: {
        bootstrapStrategy: { kind: 'prefix', length: 128 * 1024 }, // 128 KiB
        segmentSize: 4096,
        prefetch,
      },
    });
    const before = await db.stats();
    await db.all("SELECT body FROM messages WHERE user_id = 'u_77'");
    const after = await db.stats();
    requests[prefetch] = after.requests - before.requests;
    if (prefetch) assert.ok(after.prefetchHits > 0, 'queries read what prefetch brought');
    await db.close();
  }
  assert.ok(requests.true * 4 < requests.false, `${requests.true} requests with prefetch, ${requests.false} without`);
});

test('push and pull', async (t) => {
  const { url, folder } = await messages(t);
  const options = {
    url,
    partialSyncExperimental: { bootstrapStrategy: { kind: 'prefix', length: 128 * 1024 } },
  };
  const one = await connect({ path: path.join(folder, 'one.db'), ...options });
  const other = await connect({ path: path.join(folder, 'other.db'), ...options });
  assert.equal(await other.pull(), false);
  await one.run('UPDATE messages SET body = ? WHERE id = ?', 'changed', 7);
  assert.equal((await one.stats()).cdcOperations, 1);
  await one.push();
  assert.equal((await one.stats()).cdcOperations, 0);
  assert.equal(await other.pull(), true);
  assert.deepEqual(await other.get('SELECT body FROM messages WHERE id = 7'), { body: 'changed' });
  await one.checkpoint();
  assert.equal((await one.stats()).mainWalSize, 0);
  await one.close();
  await other.close();
});
