// What tests share: a scratch folder, remotes (the real server on real files), and a proxy that makes a network bad.
// Everything that a test makes is ended with it.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect } from '../index.mjs';
import './watchdog.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const target = path.resolve(root, process.env.CARGO_TARGET_DIR ?? 'target');
const program = path.join(target, 'debug', process.platform === 'win32' ? 'partial-sync.exe' : 'partial-sync');

/** A folder that goes with the test. */
export function scratch(t) {
  const folder = mkdtempSync(path.join(tmpdir(), 'turso-sync-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Serves the SQLite file at `file` and gives its url. */
export async function serve(t, file, ...more) {
  const server = spawn(program, ['serve', file, '--listen', '127.0.0.1:0', ...more], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.after(async () => {
    server.kill();
    await once(server, 'exit');
  });
  for await (const line of server.stdout) {
    const url = /listening on (\S+)/.exec(line);
    if (url) return url[1];
  }
  throw new Error('the server ended before it listened');
}

export const USERS = 200;
export const MESSAGES = 20_000;

/** A remote with 20,000 messages of 200 users, about 2 MiB, in which message i is of user i % 200. */
export async function messages(t, ...more) {
  const folder = scratch(t);
  const file = path.join(folder, 'remote.db');
  const db = await connect({ path: file });
  await db.exec(`
    CREATE TABLE messages (id INTEGER PRIMARY KEY, user_id TEXT NOT NULL, body TEXT NOT NULL);
    INSERT INTO messages SELECT value, 'u_' || (value % ${USERS}), printf('%080d', value)
      FROM generate_series(1, ${MESSAGES});
    CREATE INDEX messages_user ON messages (user_id);
  `);
  await db.close();
  return { folder, url: await serve(t, file, ...more) };
}

/** Opens a database that is closed with the test. */
export async function open(t, options) {
  const db = await connect(options);
  t.after(() => db.close());
  return db;
}

/**
 * A network to `url` that can be made bad: `network.delay` (ms before an answer), `network.held` (a promise that answers wait
 * for), `network.down`, `network.requests`.
 */
export async function network(t, url) {
  const state = { delay: 0, held: undefined, down: false, requests: [] };
  const target = new URL(url);
  const server = http.createServer(async (request, response) => {
    state.requests.push(request.url);
    if (state.down) {
      request.destroy();
      return;
    }
    await state.held;
    // A test that has ended does not wait for an answer that nobody awaits.
    await new Promise((resolve) => setTimeout(resolve, state.delay).unref());
    const onward = http.request(
      { host: target.hostname, port: target.port, path: request.url, method: request.method, headers: request.headers },
      (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      },
    );
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  state.url = `http://127.0.0.1:${server.address().port}`;
  return state;
}

/** Partial sync with little of the database here, so that queries fetch pages. */
export const little = { bootstrapStrategy: { kind: 'prefix', length: 4096 }, segmentSize: 4096 };

/** Checks again and again until it holds, for at most ten seconds. */
export async function until(what, check) {
  const end = performance.now() + 10_000;
  while (!(await check())) {
    if (performance.now() > end) throw new Error(`it did not happen within ten seconds: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
