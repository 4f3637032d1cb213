// Times what a Node program pays for rows: prints JSON with milliseconds of every repetition, and a checksum.
//
// rows.mjs PACKAGE FILE REPETITIONS, where PACKAGE is the path of an installed `@tursodatabase/sync`, ours or the
// published one.
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';

const [packagePath, file, repetitions] = process.argv.slice(2);
const { connect } = createRequire(import.meta.url)(packagePath);
const ROWS = 100_000;
const LOOKUPS = 10_000;
const db = await connect({ path: file });
const all = await db.prepare('SELECT id, name, population, area FROM places');
const one = await db.prepare('SELECT name, population, area FROM places WHERE id = ?');

async function bulk() {
  const rows = await all.all();
  if (rows.length !== ROWS) throw new Error(`${rows.length} rows`);
  let total = 0;
  for (const row of rows) total += row.population;
  return total;
}

async function single() {
  let total = 0;
  for (let i = 1; i <= LOOKUPS; i++) {
    const row = await one.get(((i * 7919) % ROWS) + 1);
    total += row.population;
  }
  return total;
}

async function timed(work) {
  const check = await work();
  const times = [];
  for (let i = 0; i < Number(repetitions); i++) {
    const start = performance.now();
    await work();
    times.push(performance.now() - start);
  }
  return { check, times };
}

console.log(JSON.stringify({ bulk: await timed(bulk), single: await timed(single) }));
await db.close();
