// A call of the package that takes longer than 20 seconds, or an event loop that stands still for as long, ends the test
// process with everything that is known: the calls that wait and where they were made, Node's report, and what each thread
// of the process is doing. Imported by world.mjs, so that every test has it. WATCHDOG gives other seconds than 20.
import { readdirSync, readFileSync, writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { Database, Statement, Transaction } from '../index.mjs';

const LIMIT = Number(process.env.WATCHDOG ?? 20) * 1000;
const LOOK = 500;

/** Calls under way: when and where each was made. */
const waiting = new Map();
let last = 0;
let patience = 1;

/** For a test that moves very much data: lets calls take so many times longer until it has ended. */
export function patient(t, times) {
  patience = times;
  t?.after(() => (patience = 1));
}

function watched(name, call) {
  return function watchedCall(...args) {
    const result = call.apply(this, args);
    if (typeof result?.then !== 'function') return result;
    const id = ++last;
    waiting.set(id, { name, since: performance.now(), at: new Error(`${name} was called`) });
    // Not by another `then`: the stack of an error names the caller of a promise that one function alone awaits.
    return (async () => {
      try {
        return await result;
      } finally {
        waiting.delete(id);
      }
    })();
  };
}

/** An iterator each of whose steps is watched. */
function watchedSteps(name, iterate) {
  return function (...args) {
    const rows = iterate.apply(this, args);
    return Object.assign(rows, { next: watched(name, rows.next) });
  };
}

for (const type of [Database, Statement, Transaction]) {
  const { iterate } = type.prototype;
  Object.defineProperty(type.prototype, 'iterate', { value: watchedSteps(`${type.name}.iterate`, iterate) });
  for (const name of Object.getOwnPropertyNames(type.prototype)) {
    const { value } = Object.getOwnPropertyDescriptor(type.prototype, name);
    if (typeof value !== 'function' || ['constructor', 'iterate', 'prepare', 'transaction', 'transactionAsync'].includes(name)) {
      continue;
    }
    Object.defineProperty(type.prototype, name, { value: watched(`${type.name}.${name}`, value) });
  }
}

/** What each thread of the process is doing, where the system tells. */
function threads() {
  try {
    return readdirSync('/proc/self/task').map((id) => {
      const read = (file) => {
        try {
          return readFileSync(`/proc/self/task/${id}/${file}`, 'utf8').trim();
        } catch (error) {
          return `(${error.code})`;
        }
      };
      return `thread ${id} ${read('comm')}: in ${read('wchan')}, system call ${read('syscall')}`;
    });
  } catch {
    return [];
  }
}

function end(why, calls) {
  const report = process.report.getReport();
  const { nativeStack, javascriptStack, libuv } = typeof report === 'string' ? JSON.parse(report) : report;
  const text = [why, ...calls, ...threads(), JSON.stringify({ javascriptStack, nativeStack, libuv }, undefined, 1)].join('\n');
  writeSync(2, `\nwatchdog: ${text}\n`);
  process.exit(70);
}

const beat = new BigInt64Array(new SharedArrayBuffer(8));
setInterval(() => {
  Atomics.add(beat, 0, 1n);
  const now = performance.now();
  const late = [...waiting.values()].filter(({ since }) => now - since > LIMIT * patience);
  if (late.length === 0) return;
  end(`a call has taken longer than ${(LIMIT * patience) / 1000} s`, late.map(({ at }) => at.stack));
}, LOOK).unref();

// While the event loop stands still, only another thread can tell.
const watching = `
  const { workerData } = require('node:worker_threads');
  const { readdirSync, readFileSync, writeSync } = require('node:fs');
  ${threads}
  for (let last = -1n, still = 0; ; ) {
    Atomics.wait(workerData.beat, 0, last, workerData.look);
    const now = Atomics.load(workerData.beat, 0);
    still = now === last ? still + workerData.look : 0;
    last = now;
    if (still > workerData.limit) {
      writeSync(2, '\\nwatchdog: the event loop stands still\\n' + threads().join('\\n') + '\\n');
      process.kill(process.pid, 'SIGABRT');
    }
  }`;
new Worker(watching, { eval: true, execArgv: [], workerData: { beat, look: LOOK, limit: LIMIT } }).unref();
