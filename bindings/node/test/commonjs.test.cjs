// The package from CommonJS.
'use strict';

const assert = require('node:assert/strict');
const { before, test } = require('node:test');
const sync = require('@tursodatabase/sync');

before(() => import('./watchdog.mjs'));

test('require and import give the same things', async () => {
  assert.deepEqual(Object.keys(sync).sort(), ['Database', 'SqliteError', 'Statement', 'Transaction', 'connect', 'retryFetch']);
  const imported = await import('@tursodatabase/sync');
  for (const [name, value] of Object.entries(sync)) assert.equal(imported[name], value, name);
});

test('a database from CommonJS', async () => {
  const db = await sync.connect({ path: ':memory:' });
  assert.deepEqual(await db.get('SELECT ? AS v', 'works'), { v: 'works' });
  await db.close();
});
