// Opens a replica, asks it and closes it, again and again; prints resident memory (KiB) as it goes. Its functions are bound
// methods of an object that holds the database, each cycle abandons an iterator, and now and then a worker thread ends in the
// middle of a fetch, and a database is forgotten without being closed.
//
// node --expose-gc cycles.mjs PATH URL CYCLES
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { connect } from '../../bindings/node/index.mjs';

const [path, url, given] = process.argv.slice(2);
const cycles = Number(given);
const WORKERS = 50;
const partialSyncExperimental = { bootstrapStrategy: { kind: 'prefix', length: 4096 } };

function resident() {
  globalThis.gc();
  return /VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1];
}

class Application {
  async token() {
    return this.db === undefined ? '' : '';
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

for (let cycle = 1; cycle <= cycles; cycle++) {
  const db = await new Application().open(path);
  const { n } = await db.get('SELECT count(*) AS n FROM t');
  if (n !== 1000) throw new Error(`${n} rows`);
  await db.iterate('SELECT v FROM t').next();
  await db.close();
  if (cycle % Math.max(1, Math.floor(cycles / WORKERS)) === 0) {
    await endAWorker();
    await (await new Application().open(':memory:')).get('SELECT 1');
  }
  if (cycle % (cycles / 10) === 0) console.log(cycle, resident());
}
