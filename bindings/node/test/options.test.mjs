// Options: each is taken, or an error names it and says what is allowed. Nothing is ignored.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { connect, Database } from '../index.mjs';
import { messages, open } from './world.mjs';

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

/** A `|` table's row. */
const cells = (line) => line.replaceAll('`', '').split('|').slice(1, -1).map((cell) => cell.trim());
const rows = readFileSync(new URL('../../../docs/options.md', import.meta.url), 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map(cells);
/** What each option may be, by its name in JavaScript. */
const DOCUMENTED = new Map();
for (const [name, node] of rows.filter((row) => row.length === 7)) {
  const [, , allowed, byDefault] = rows.find((row) => row.length === 4 && row[0] === name);
  if (node !== '') DOCUMENTED.set(node, { allowed, byDefault });
}

const inSnakeCase = (name) => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** Options with one of them set, and what it needs beside it. */
function options(name, value, spell = (key) => key) {
  const all = { path: ':memory:' };
  const keys = name.split('.').map(spell);
  if (name.startsWith('remoteEncryption.')) all[keys[0]] = { key: 'k' };
  if (name.includes('bootstrapStrategy.')) {
    const kind = name.endsWith('query') ? 'query' : 'prefix';
    all[keys[0]] = { [keys[1]]: { kind, ...(kind === 'prefix' ? { length: 1 } : { query: 'SELECT 1' }) } };
  }
  let object = all;
  for (const key of keys.slice(0, -1)) object = object[key] ??= {};
  object[keys.at(-1)] = value;
  return all;
}

/** A possible value, and one that is out of range, or of another type where there is no range. */
function values(allowed) {
  const whole = /^a whole number of \w+, (\d+)/.exec(allowed);
  if (whole) return [Number(whole[1]) + 1, Number(whole[1]) - 1];
  const word = /^one of '(\w+)'/.exec(allowed);
  if (word) return [word[1], 'rot13'];
  if (allowed.startsWith('a string')) return ['x', 7];
  return { 'true or false': [true, 7], 'a function': [() => null, 7], 'an array of names': [['a'], 7] }[allowed];
}

test('the options in the documentation are those of the code', () => {
  const { optionNames } = createRequire(import.meta.url)('../lib/native.js');
  assert.deepEqual([...DOCUMENTED.keys()], optionNames());
  const types = readFileSync(new URL('../index.d.ts', import.meta.url), 'utf8');
  for (const [name, { byDefault }] of DOCUMENTED) {
    const own = name.split('.').at(-1);
    assert.match(types, new RegExp(`\\b${own}\\??:`), name);
    const told = new RegExp(`Default: (\\d+|true|false)\\.(?: \\*/|\\s+\\*/)\\s+${own}\\?: `).exec(types);
    if (told) assert.equal(told[1], byDefault, name);
  }
});

test('every option is taken under both of its names and held to its range', () => {
  let checked = 0;
  for (const [name, { allowed }] of DOCUMENTED) {
    const [good, bad] = values(allowed) ?? [];
    if (good === undefined) continue;
    for (const spell of [(key) => key, inSnakeCase]) {
      const spelled = name.split('.').map(spell).join('.');
      if (name !== 'tracing') new Database(options(name, good, spell));
      const shown = typeof bad === 'string' ? JSON.stringify(bad) : bad;
      assert.throws(() => new Database(options(name, bad, spell)), {
        name: /^a whole/.test(allowed) ? 'RangeError' : 'TypeError',
        message: `option "${spelled}" is ${shown}; it must be ${allowed}`,
      });
    }
    checked += 1;
  }
  assert.ok(checked >= 20, String(checked));
});

test('every misspelled name gets the same text', () => {
  for (const name of DOCUMENTED.keys()) {
    const dot = name.lastIndexOf('.');
    const own = name.slice(dot + 1);
    const within = dot < 0 ? '' : ` in "${name.slice(0, dot)}"`;
    assert.throws(() => new Database(options(`${name}q`, 1)), {
      name: 'TypeError',
      message: `unknown option "${own}q"${within}; did you mean "${own}"?`,
    });
  }
  assert.throws(() => new Database({ path: 'a.db', qqqq: 1 }), {
    message: /^unknown option "qqqq"; the options are path, url, authToken, /,
  });
});

test('two names of one option may be given when they agree', () => {
  new Database({ path: ':memory:', clientName: 'a', client_name: 'a', timeout: 1 });
  new Database({ path: ':memory:', partialSyncExperimental: { segmentSize: 1 }, partial_sync_experimental: { segment_size: 1 } });
  assert.throws(
    () =>
      new Database({
        path: ':memory:',
        partialSyncExperimental: { segmentSize: 1 },
        partial_sync_experimental: { segment_size: 2 },
      }),
    {
      name: 'TypeError',
      message: /^"partialSyncExperimental.segmentSize" and "partial_sync_experimental.segment_size" are two names of one option/,
    },
  );
});

test('a first connect that is to ask the remote for nothing leaves that to the first pull', async (t) => {
  const { url } = await messages(t);
  const db = await open(t, { path: ':memory:', url, bootstrapIfEmpty: false, requestTimeoutMs: 20_000 });
  assert.equal((await db.stats()).requests, 0);
  await db.pull();
  assert.ok((await db.get('SELECT count(*) AS n FROM messages')).n > 0);
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
