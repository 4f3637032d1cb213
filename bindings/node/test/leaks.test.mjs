// A sample of scripts/leaks, too short to tell about a little memory.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { connect } from '../index.mjs';
import { scratch, serve } from './world.mjs';

const program = fileURLToPath(new URL('../../../tests/leaks/cycles.mjs', import.meta.url));

test('what is closed, abandoned, broken off or forgotten leaves nothing open', { skip: !existsSync('/proc/self/fd') }, async (t) => {
  const folder = scratch(t);
  const file = join(folder, 'remote.db');
  const db = await connect({ path: file });
  await db.exec(`CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);
    INSERT INTO t SELECT value, printf('%0100d', value) FROM generate_series(1, 1000)`);
  await db.close();
  const url = await serve(t, file);
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', program, join(folder, 'replica.db'), url, '100']);
  const lines = stdout.trim().split('\n').map((line) => line.split(' ').map(Number));
  assert.equal(lines.length, 10);
  const [[, memory, descriptors]] = lines;
  const [, memoryThen, descriptorsThen] = lines.at(-1);
  assert.ok(descriptorsThen <= descriptors + 8, stdout);
  assert.ok(memoryThen < memory + 64 * 1024, stdout);
});
