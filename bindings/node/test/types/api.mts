// What the types allow, and what they must refuse; compiled by tsc and never run.
import {
  connect,
  Database,
  retryFetch,
  SqliteError,
  Transaction,
  type DatabaseOpts,
  type DatabaseRowMutation,
  type DatabaseRowTransformResult,
  type DatabaseStats,
} from '@tursodatabase/sync';

const db: Database = await connect({
  path: './app.db',
  url: 'libsql://...',
  authToken: process.env.TURSO_AUTH_TOKEN,
  partialSyncExperimental: {
    bootstrapStrategy: { kind: 'prefix', length: 128 * 1024 },
    segmentSize: 16 * 1024,
    prefetch: true,
  },
});

const options: DatabaseOpts = {
  path: ':memory:',
  url: () => null,
  authToken: async () => 'token',
  clientName: 'me',
  bootstrapIfEmpty: false,
  requestTimeoutMs: 1000,
  longPollTimeoutMs: 1000,
  tracing: 'info',
  transform: (m: DatabaseRowMutation): DatabaseRowTransformResult => {
    if (m.changeType === 'delete') return { operation: 'skip' };
    if (m.tableName === 't') return { operation: 'rewrite', stmt: { sql: 'SELECT ?', values: [m.id, 1n, null] } };
    return null;
  },
  pushOperationsThreshold: 10,
  pullBytesThreshold: 1 << 20,
  remoteEncryption: { key: 'a2V5', cipher: 'aes256gcm' },
  fetch: retryFetch({ attempts: 5, delayMs: 100, backoff: 1.5, fetch }),
  experimental: ['views'],
  queryTimeout: 1000,
  timeout: 5000,
};
new Database(options);

await connect({
  path: 'a.db',
  auth_token: 'x',
  bootstrap_if_empty: false,
  request_timeout_ms: 1000,
  partial_sync_experimental: { segment_size: 4096 },
});
await connect({
  path: 'a.db',
  // @ts-expect-error a misspelled option
  authtoken: 'x',
});
// @ts-expect-error no path
await connect({ url: 'libsql://...' });
await connect({
  path: 'a.db',
  partialSyncExperimental: {
    bootstrapStrategy: { kind: 'query', query: 'SELECT 1' },
    // @ts-expect-error a misspelled option
    segmentsize: 4096,
  },
});
// @ts-expect-error a prefix has a length
await connect({ path: 'a.db', partialSyncExperimental: { bootstrapStrategy: { kind: 'prefix', query: 'SELECT 1' } } });
// @ts-expect-error no such level
await connect({ path: 'a.db', tracing: 'loud' });

const changed: boolean = await db.pull();
const stats: DatabaseStats = await db.stats();
const times: number | null = stats.lastPushUnixTime;
const { changes, lastInsertRowid }: { changes: number; lastInsertRowid: number } = await db.run(
  'INSERT INTO t VALUES (?, ?, ?, ?, ?)',
  1,
  2n,
  'three',
  new Uint8Array(),
  null,
);
await db.all('SELECT :a', { a: 1 }, { queryTimeout: 5 });
await db.get('SELECT ?', [1]);
// @ts-expect-error a function is not a value
await db.get('SELECT ?', () => 1);

const statement = await db.prepare('SELECT 1');
const same: typeof statement = statement.raw().pluck(false).safeIntegers().bind(1);
const names: string[] = statement.columns().map((column) => column.name);
const rows: any[] = await db.prepare('SELECT 1').pluck().all();
for await (const row of db.iterate('SELECT 1')) console.log(row);

const add = db.transaction(async (a: number, b: string) => `${a}${b}`);
const text: string = await add(1, 'x');
const again: string = await add.immediate(1, 'x');
// @ts-expect-error the arguments are those of the function
await add('x', 1);
const move = db.transactionAsync(async (txn: Transaction, n: number) => (await txn.run('SELECT ?', n)).changes);
const moved: number = await move.exclusive(5);
// @ts-expect-error the handle is not an argument
await move(db, 5);
await db.batch(['SELECT 1', { sql: 'SELECT ?', args: [1] }, ['SELECT :a', { a: 1 }]], { mode: 'write', raw: true });
// @ts-expect-error no such mode
await db.batch([], 'wirte');

try {
  await db.push();
} catch (error) {
  if (error instanceof SqliteError) console.log(error.code, error.rawCode, error.message);
}
{
  await using scoped = await connect({ path: ':memory:' });
  console.log(scoped.open);
}
console.log(changed, times, changes, lastInsertRowid, same, names, rows, text, again, moved);
