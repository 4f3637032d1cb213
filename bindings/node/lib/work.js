// Jobs on worker threads and the promises of their outcomes. Node is kept alive while any job is under way, and not by
// a database that is merely open.
'use strict';

let underWay = 0;
let alive;

function hold() {
  if (underWay++ > 0) return;
  if (alive === undefined) alive = setInterval(() => {}, 0x7fffffff);
  else alive.ref();
}

function release() {
  if (--underWay === 0) alive.unref();
}

/** The jobs of one database. It refers to no database, so that one that is forgotten can be collected. */
class Work {
  #pending = new Map();
  #last = 0;

  /** What the native part calls when a job has ended. */
  settled = (job, outcome) => {
    const resolve = this.#pending.get(job);
    if (resolve === undefined) return;
    this.#pending.delete(job);
    release();
    resolve(outcome);
  };

  /** Begins a job and gives the promise of its outcome, which is never rejected. */
  start(begin) {
    const job = (this.#last = (this.#last + 1) >>> 0);
    return new Promise((resolve, reject) => {
      try {
        begin(job);
      } catch (error) {
        reject(error);
        return;
      }
      this.#pending.set(job, resolve);
      hold();
    });
  }

  /** The jobs that have not ended. */
  get underWay() {
    return [...this.#pending.keys()];
  }

  /** Whether one of these jobs has not ended. */
  anyOf(jobs) {
    return jobs.some((job) => this.#pending.has(job));
  }
}

module.exports = { Work };
