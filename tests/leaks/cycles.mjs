// Opens a replica, asks it and closes it, again and again; prints resident memory (KiB), open descriptors and threads as it goes.
// Its functions are bound methods of an object that holds the database, each cycle abandons an iterator and breaks a query off, and
// every 20th cycle a page fetch is broken off, worker threads end in the middle of one and while they wait for a token, and a
// database is forgotten without being closed.
//
// node --expose-gc cycles.mjs PATH URL CYCLES
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, request as httpRequest } from 'node:http';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { connect } from '../../bindings/node/index.mjs';

const [path, url, given] = process.argv.slice(2);
const cycles = Number(given);
/** How often there is what takes longer than a cycle. */
const NOW_AND_THEN = 20;
const partialSyncExperimental = { bootstrapStrategy: { kind: 'prefix', length: 4096 } };

function held() {
  globalThis.gc();
  const [, memory, threads] = /VmRSS:\s+(\d+)[^]*Threads:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'));
  return `${memory} ${readdirSync('/proc/self/fd').length} ${threads}`;
}

class Application {
  /** The promise that the next token is; undefined for one at once. */
  waiting;

  async token() {
    if (this.waiting !== undefined) this.asked();
    return (await this.waiting) ?? '';
  }

  url() {
    return url;
  }

  fetch(request, init) {
    return fetch(request, init);
  }

  transform() {
    return null;
  }

  async open(path) {
    this.db = await connect({
      path,
      url: this.url.bind(this),
      authToken: this.token.bind(this),
      fetch: this.fetch.bind(this),
      transform: this.transform.bind(this),
      partialSyncExperimental,
    });
    return this.db;
  }
}

/** In front of the remote; does not answer a request whose token says so. */
const proxy = createServer((request, response) => {
  if (request.headers.authorization === 'Bearer hush') {
    request.resume().on('end', () => proxy.emit('hushed'));
    return;
  }
  const { method, headers } = request;
  request.pipe(
    httpRequest(url + request.url, { method, headers }, (answer) => answer.pipe(response.writeHead(answer.statusCode, answer.headers))),
  );
});
await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
proxy.unref();

// Its query waits for a page: for the token of that request, or for its answer.
const worker = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { connect } = require(workerData.file);
  let next = () => '';
  const authToken = () => next();
  connect({ path: ':memory:', url: workerData.url, authToken, partialSyncExperimental: workerData.partialSyncExperimental })
    .then((db) => {
      next = workerData.forToken ? () => new Promise(() => parentPort.postMessage('asked')) : () => 'hush';
      return db.get('SELECT count(*) FROM t');
    });`;

async function endAWorker(forToken) {
  const file = fileURLToPath(new URL('../../bindings/node/index.js', import.meta.url));
  const workerData = { file, url: `http://127.0.0.1:${proxy.address().port}`, forToken, partialSyncExperimental };
  const ending = new Worker(worker, { eval: true, workerData });
  await (forToken ? once(ending, 'message') : once(proxy, 'hushed'));
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
    await endAWorker(true);
    await endAWorker(false);
    await (await new Application().open(':memory:')).get('SELECT 1');
    // V8 does not know what a forgotten database holds; when it looks for one by itself is a matter of chance.
    globalThis.gc();
  }
  if (cycle % (cycles / 10) === 0) console.log(cycle, held());
}
