// Opens a replica, asks it and closes it, again and again; prints resident memory (KiB) and open descriptors as it goes. Its
// functions are bound methods of an object that holds the database, each cycle abandons an iterator and breaks a query off, and
// now and then a page fetch is broken off, a worker thread ends in the middle of one, and a database is forgotten without
// being closed.
//
// node --expose-gc cycles.mjs PATH URL CYCLES
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { connect } from '../../bindings/node/index.mjs';

const [path, url, given] = process.argv.slice(2);
const cycles = Number(given);
/** How often there is what takes longer than a cycle. */
const NOW_AND_THEN = Math.max(20, Math.floor(cycles / 50));
const partialSyncExperimental = { bootstrapStrategy: { kind: 'prefix', length: 4096 } };

function resident() {
  globalThis.gc();
  return `${/VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]} ${readdirSync('/proc/self/fd').length}`;
}

class Application {
  /** The promise that the next token is; undefined for one at once. */
  waiting;

  async token() {
    if (this.waiting !== undefined) this.asked();
    return (await this.waiting) ?? '';
  }

  async open(path) {
    this.db = await connect({ path, url, authToken: this.token.bind(this), partialSyncExperimental });
    return this.db;
  }
}

const worker = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { connect } = require(workerData.file);
  let waiting = false;
  const authToken = () => (waiting ? new Promise(() => parentPort.postMessage('asked')) : '');
  connect({ path: ':memory:', url: workerData.url, authToken, partialSyncExperimental: workerData.partialSyncExperimental })
    .then((db) => {
      waiting = true;
      return db.get('SELECT count(*) FROM t');
    });`;

async function endAWorker() {
  const file = fileURLToPath(new URL('../../bindings/node/index.js', import.meta.url));
  const ending = new Worker(worker, { eval: true, workerData: { file, url, partialSyncExperimental } });
  await once(ending, 'message');
  await ending.terminate();
}

/** Fails unless it is broken off. */
const broken = (call) =>
  call.then(
    () => Promise.reject(new Error('it was not broken off')),
    (error) => (error.code === 'SQLITE_INTERRUPT' ? undefined : Promise.reject(error)),
  );

async function breakAFetchOff() {
  const application = new Application();
  const db = await application.open(':memory:');
  application.waiting = new Promise(() => {});
  const asked = new Promise((resolve) => (application.asked = resolve));
  const query = broken(db.get('SELECT count(*) FROM t'));
  await asked;
  db.interrupt();
  await query;
  application.waiting = undefined;
  await broken(db.get('WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n', { queryTimeout: 1 }));
  const { n } = await db.get('SELECT count(*) AS n FROM t');
  if (n !== 1000) throw new Error(`${n} rows`);
  await db.close();
}

for (let cycle = 1; cycle <= cycles; cycle++) {
  const db = await new Application().open(path);
  const { n } = await db.get('SELECT count(*) AS n FROM t');
  if (n !== 1000) throw new Error(`${n} rows`);
  await db.iterate('SELECT v FROM t').next();
  const query = broken(db.run('WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n'));
  db.interrupt();
  await query;
  await db.close();
  if (cycle % NOW_AND_THEN === 0) {
    await breakAFetchOff();
    await endAWorker();
    await (await new Application().open(':memory:')).get('SELECT 1');
  }
  if (cycle % (cycles / 10) === 0) console.log(cycle, resident());
}
