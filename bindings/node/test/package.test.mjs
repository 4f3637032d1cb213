// The package as its users get it: packed and installed, typed, with its examples, and in place of the published one.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { messages, scratch } from './world.mjs';

const run = promisify(execFile);
const here = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const examples = path.resolve(here, '../../examples/node');
const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';

test('the types fit the examples, and refuse what is wrong', async () => {
  const compiler = path.join(here, 'node_modules/typescript/bin/tsc');
  await run(process.execPath, [compiler, '-p', path.join(here, 'test/types')]).catch((error) => {
    throw new Error(error.stdout);
  });
});

test('the packed package works in an empty project, by import and by require', async (t) => {
  const { url } = await messages(t);
  const folder = scratch(t);
  const { stdout } = await run(npm, ['pack', '--json', '--pack-destination', folder], { cwd: here });
  const [{ filename, files }] = JSON.parse(stdout);
  const names = files.map((file) => file.path);
  assert.ok(names.some((name) => name.endsWith('.node')), 'the native part is in it');
  assert.ok(!names.some((name) => /^(src|test|node_modules)\//.test(name)), names.join(' '));
  const project = path.join(folder, 'project');
  mkdirSync(project);
  writeFileSync(path.join(project, 'package.json'), '{ "name": "project", "private": true }');
  await run(npm, ['install', '--offline', '--no-audit', '--no-fund', path.join(folder, filename)], { cwd: project });
  const body = `connect({ path: './app.db', url: process.env.TURSO_DATABASE_URL, authToken: process.env.TURSO_AUTH_TOKEN,
      partialSyncExperimental: { bootstrapStrategy: { kind: 'prefix', length: 128 * 1024 } } }).then(async (db) => {
        console.log((await db.get('SELECT count(*) AS n FROM messages')).n); await db.close(); });`;
  writeFileSync(path.join(project, 'first.mjs'), `import { connect } from '@tursodatabase/sync';\n${body}`);
  writeFileSync(path.join(project, 'second.cjs'), `const { connect } = require('@tursodatabase/sync');\n${body}`);
  for (const file of ['first.mjs', 'second.cjs']) {
    const env = { ...process.env, TURSO_DATABASE_URL: url };
    assert.equal((await run(process.execPath, [file], { cwd: project, env })).stdout.trim(), '20000', file);
  }
});

test('there is a package for each platform, of the same version', () => {
  const { version } = JSON.parse(readFileSync(path.join(here, 'package.json'), 'utf8'));
  const platforms = readdirSync(path.join(here, 'npm'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
  assert.deepEqual(platforms.map((entry) => entry.name).sort(), [
    'darwin-arm64',
    'darwin-x64',
    'linux-arm64-gnu',
    'linux-arm64-musl',
    'linux-x64-gnu',
    'linux-x64-musl',
    'win32-x64-msvc',
  ]);
  for (const { name } of platforms) {
    const manifest = JSON.parse(readFileSync(path.join(here, 'npm', name, 'package.json'), 'utf8'));
    assert.equal(manifest.name, `@tursodatabase/sync-${name}`);
    assert.equal(manifest.version, version);
    assert.equal(manifest.main, `turso-sync.${name}.node`);
    assert.deepEqual([[manifest.os[0], manifest.cpu[0]].join('-')], [name.split('-').slice(0, 2).join('-')]);
  }
});

/** What each example must say. */
const SAID = {
  'prefix.mjs': [/^32 of \d+ pages are here/, /id: 123,[^]*id: 323,/, /pages are here, after \d+ requests/],
  'query.mjs': [/^100 messages with \d+ of \d+ pages, after 1 request/],
  'segment_size.mjs': [/16 KiB: \d pages/, /128 KiB: \d\d pages/],
  'prefetch.mjs': [/prefetch false: 20000 messages/, /prefetch true: 20000 messages/],
  'push_and_pull.mjs': [/^1 change is local\n0 changes are local/, /new on the phone: true/, /from my laptop/],
};

test('the examples run and say what they promise', async (t) => {
  const { url, folder } = await messages(t);
  assert.deepEqual(
    readdirSync(examples).filter((name) => name.endsWith('.mjs')).sort(),
    Object.keys(SAID).sort(),
  );
  // Beside the examples the package is found by its name; here it is what the name stands for.
  mkdirSync(path.join(folder, 'node_modules/@tursodatabase'), { recursive: true });
  symlinkSync(here, path.join(folder, 'node_modules/@tursodatabase/sync'), 'junction');
  for (const [name, said] of Object.entries(SAID)) {
    writeFileSync(path.join(folder, name), readFileSync(path.join(examples, name)));
    const env = { ...process.env, TURSO_DATABASE_URL: url, TURSO_AUTH_TOKEN: '' };
    const { stdout } = await run(process.execPath, [path.join(folder, name)], { cwd: folder, env });
    for (const pattern of said) assert.match(stdout, pattern, name);
  }
});

test('a program written for the published package runs as it is', async (t) => {
  const { url, folder } = await messages(t);
  const file = path.join(here, 'test/published.mjs');
  const { stdout } = await run(process.execPath, [file, path.join(folder, 'app.db'), url], { cwd: here });
  assert.match(stdout, /all as expected/);
});
