// Options: each is taken, or an error names it and says what is allowed. Nothing is ignored.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { connect, Database } from '../index.mjs';
import { messages } from './world.mjs';

const url = 'http://127.0.0.1:1';

/** Options, and what the error must say about them. */
const WRONG = [
  [undefined, /must be an object/],
  ['app.db', /must be an object/],
  [{}, /option "path" is missing/],
  [{ path: '' }, /option "path" is ""; it must be a string that is not empty/],
  [{ path: 7 }, /option "path" is 7/],
  [{ path: 'a.db', uri: url }, /unknown option "uri"; did you mean "url"\?/],
  [{ path: 'a.db', authtoken: 't' }, /unknown option "authtoken"; did you mean "authToken"\?/],
  [{ path: 'a.db', partialSync: {} }, /unknown option "partialSync"; did you mean "partialSyncExperimental"\?/],
  [{ path: 'a.db', url: 7 }, /option "url" is 7; it must be a string, or a function/],
  [{ path: 'a.db', authToken: {} }, /option "authToken" is an object/],
  [{ path: 'a.db', clientName: 1 }, /option "clientName"/],
  [{ path: 'a.db', longPollTimeoutMs: -1 }, /option "longPollTimeoutMs" is -1; it must be a whole number of milliseconds, 0 or more/],
  [{ path: 'a.db', longPollTimeoutMs: '5' }, /option "longPollTimeoutMs" is "5"/],
  [{ path: 'a.db', tracing: 'loud' }, /option "tracing" is "loud"; it must be one of 'error', 'warn', 'info', 'debug', 'trace'/],
  [{ path: 'a.db', transform: 'x' }, /option "transform" is "x"; it must be a function/],
  [{ path: 'a.db', fetch: {} }, /option "fetch" is an object; it must be a function/],
  [{ path: 'a.db', pushOperationsThreshold: 0 }, /option "pushOperationsThreshold" is 0; .* 1 or more/],
  [{ path: 'a.db', pullBytesThreshold: 1.5 }, /option "pullBytesThreshold" is 1.5/],
  [{ path: 'a.db', remoteEncryption: 'k' }, /option "remoteEncryption" is "k"/],
  [{ path: 'a.db', remoteEncryption: { cipher: 'aes256gcm' } }, /option "remoteEncryption.key"/],
  [{ path: 'a.db', remoteEncryption: { key: 'k', cipher: 'rot13' } }, /option "remoteEncryption.cipher" is "rot13"/],
  [{ path: 'a.db', remoteEncryption: { kee: 'k' } }, /unknown option "kee" in "remoteEncryption"; did you mean "key"\?/],
  [{ path: 'a.db', experimental: 'views' }, /option "experimental"/],
  [{ path: 'a.db', queryTimeout: Infinity }, /option "queryTimeout" is Infinity/],
  [{ path: 'a.db', remoteWritesExperimental: true }, /"remoteWritesExperimental" is not supported/],
  [{ path: 'a.db', partialSyncExperimental: 5 }, /option "partialSyncExperimental" is 5/],
  [
    { path: 'a.db', url, partialSyncExperimental: { segmentsize: 4096 } },
    /unknown option "segmentsize" in "partialSyncExperimental"; did you mean "segmentSize"\?/,
  ],
  [{ path: 'a.db', url, partialSyncExperimental: { segmentSize: 0 } }, /segmentSize" is 0/],
  [{ path: 'a.db', url, partialSyncExperimental: { segmentSize: '16k' } }, /segmentSize" is "16k"/],
  [{ path: 'a.db', url, partialSyncExperimental: { prefetch: 1 } }, /prefetch" is 1; it must be true or false/],
  [{ path: 'a.db', url, partialSyncExperimental: { bootstrapStrategy: 'prefix' } }, /bootstrapStrategy" is "prefix"; it must be \{ kind/],
  [{ path: 'a.db', url, partialSyncExperimental: { bootstrapStrategy: { kind: 'prefx' } } }, /kind" is "prefx"; it must be one of 'prefix', 'query'/],
  [{ path: 'a.db', url, partialSyncExperimental: { bootstrapStrategy: { kind: 'prefix' } } }, /length" is undefined/],
  [{ path: 'a.db', url, partialSyncExperimental: { bootstrapStrategy: { kind: 'prefix', size: 1 } } }, /unknown option "size"/],
  [
    { path: 'a.db', url, partialSyncExperimental: { bootstrapStrategy: { kind: 'prefix', length: 1, query: 'SELECT 1' } } },
    /query" does not go with kind 'prefix'/,
  ],
  [{ path: 'a.db', url, partialSyncExperimental: { bootstrapStrategy: { kind: 'query', query: '' } } }, /query" is ""/],
];

test('a wrong option is named, with what is allowed', async () => {
  for (const [options, message] of WRONG) {
    assert.throws(() => new Database(options), message);
    await assert.rejects(connect(options), (error) => {
      assert.ok(error instanceof TypeError || error instanceof RangeError, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
});

test('a segment size that cannot be is told by the engine', async () => {
  await assert.rejects(connect({ path: ':memory:', url, partialSyncExperimental: { segmentSize: 2 ** 40 } }), {
    name: 'SqliteError',
    code: 'SQLITE_MISUSE',
    message: /1099511627776/,
  });
});

test('options that are undefined or null are those that were not given', async () => {
  const db = await connect({
    path: ':memory:',
    url: undefined,
    authToken: undefined,
    fetch: null,
    partialSyncExperimental: undefined,
    remoteWritesExperimental: false,
    logicalMvccPull: undefined,
    experimental: ['strict', 'triggers'],
  });
  assert.deepEqual(await db.get('SELECT 1 AS v'), { v: 1 });
  await db.close();
});

test('tracing writes to standard error what the engine does', async (t) => {
  const { url } = await messages(t);
  const program = `
    import { connect } from ${JSON.stringify(new URL('../index.mjs', import.meta.url).href)};
    const [url, tracing] = process.argv.slice(1);
    const db = await connect({ path: ':memory:', url, tracing, partialSyncExperimental: { segmentSize: 4096 } });
    await db.get('SELECT count(*) FROM messages');
    await db.close();`;
  for (const [level, expected] of [['debug', /DEBUG partial_sync.*fetching absent pages/], ['error', /^$/]]) {
    const { stderr } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program, url, level]);
    assert.match(stderr, expected, level);
  }
});
