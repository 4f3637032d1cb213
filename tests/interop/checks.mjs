// Runs named checks, one line of output each. Every check has a deadline of its own, because a native client that
// waits for ever must fail one check and not the whole run. Must never retry a check: a flaky pass hides a bug.

import assert from 'node:assert/strict';

const DEADLINE_MS = 20_000;

/** Collects checks; `run` executes them in order and returns how many failed. */
export class Checks {
  #list = [];

  /**
   * @param {string} peer prefix of every line: which client speaks
   * @param {'ours' | 'tursodb'} server which server answers
   */
  constructor(peer, server) {
    this.peer = peer;
    this.server = server;
  }

  /** A check that every server must pass. */
  add(name, run) {
    this.#list.push({ name, run });
  }

  /** A check of something that only this project's server does; against another server it is reported as skipped. */
  ours(name, run) {
    if (this.server === 'ours') this.add(name, run);
    else this.#list.push({ name });
  }

  async run() {
    let failed = 0;
    for (const { name, run } of this.#list) {
      if (run === undefined) {
        console.log(`skip ${this.peer}: ${name}`);
        continue;
      }
      const started = performance.now();
      try {
        await before(DEADLINE_MS, run());
        console.log(`ok   ${this.peer}: ${name} (${Math.round(performance.now() - started)} ms)`);
      } catch (error) {
        failed += 1;
        const reason = String(error?.message ?? error).replaceAll('\n', ' ').slice(0, 600);
        console.log(`FAIL ${this.peer}: ${name}: ${reason}`);
      }
    }
    return failed;
  }
}

/** Rejects when `promise` has not settled within `ms`. */
export function before(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** `--name value` pairs of the command line. */
export function argumentsByName() {
  const pairs = {};
  for (let i = 2; i < process.argv.length; i += 2) {
    assert.match(process.argv[i], /^--/, `expected --name value, got ${process.argv[i]}`);
    pairs[process.argv[i].slice(2)] = process.argv[i + 1];
  }
  return pairs;
}

/** Runs one statement on a remote over `/v2/pipeline` and returns its rows as arrays of JavaScript values. */
export async function remoteRows(url, token, sql, args = []) {
  const stmt = { sql, args: args.map(toHrana), want_rows: true };
  const response = await fetch(`${url}/v2/pipeline`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) },
    body: JSON.stringify({ baton: null, requests: [{ type: 'execute', stmt }] }),
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  const text = await response.text();
  assert.equal(response.status, 200, `POST /v2/pipeline: ${response.status} ${text.slice(0, 300)}`);
  const [result] = JSON.parse(text).results;
  assert.equal(result.type, 'ok', `${sql}: ${JSON.stringify(result.error)}`);
  return result.response.result.rows.map((row) => row.map(fromHrana));
}

function toHrana(value) {
  if (value === null) return { type: 'null' };
  if (typeof value === 'bigint' || Number.isInteger(value)) return { type: 'integer', value: String(value) };
  if (typeof value === 'number') return { type: 'float', value };
  return { type: 'text', value };
}

function fromHrana(value) {
  if (value.type === 'null') return null;
  if (value.type === 'integer') return Number(value.value);
  if (value.type === 'blob') return Buffer.from(value.base64, 'base64').toString('hex');
  return value.value;
}
