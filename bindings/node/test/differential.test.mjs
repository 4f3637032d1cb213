// Random programs come out as with better-sqlite3, except for what docs/node.md says. A sample, as large as fits into a minute;
// for more: node test/reference/run.mjs --programs 100000
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { DIFFERENCES } from './reference/compare.mjs';
import { differences } from './reference/differences.mjs';

const SECONDS = Number(process.env.SECONDS ?? 60);

test('the differences to better-sqlite3 are those of the documentation', () => {
  const page = readFileSync(new URL('../../../docs/node.md', import.meta.url), 'utf8');
  const [, table] = /\| difference \| here \|\n\|---\|---\|\n((?:\|.*\n)+)/.exec(page);
  const named = [...table.matchAll(/^\| ([^|]+?) \|/gm)].map((match) => match[1]);
  assert.deepEqual(named.sort(), Object.keys(DIFFERENCES).sort());
});

test('random programs come out as with better-sqlite3', async (t) => {
  const first = Number(process.env.SEED ?? 1000);
  const { ran, found } = await differences({ first, programs: Infinity, seconds: SECONDS });
  t.diagnostic(`${ran} programs from seed ${first} on`);
  const [one] = found;
  assert.equal(one, undefined, one && `seed ${one.seed}: ${JSON.stringify(one.difference)}\n${one.steps}`);
  assert.ok(ran > 0);
});
