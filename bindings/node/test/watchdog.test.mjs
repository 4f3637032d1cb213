// The watchdog itself.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { text } from 'node:stream/consumers';

/** What a program with the watchdog, here of a second, says and how it ends. */
async function ends(program, ...args) {
  const imports = `import ${JSON.stringify(new URL('watchdog.mjs', import.meta.url).href)};
    import { connect } from ${JSON.stringify(new URL('../index.mjs', import.meta.url).href)};`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', imports + program, ...args], {
    env: { ...process.env, WATCHDOG: '1' },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const [said, [code, signal]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
  return { said, code, signal };
}

test('a call that waits too long ends the tests, with the caller and every thread', async (t) => {
  const silent = createServer().listen(0, '127.0.0.1');
  t.after(() => silent.close());
  await once(silent, 'listening');
  const { said, code } = await ends(
    "await connect({ path: ':memory:', url: process.argv[1], requestTimeoutMs: 60000 });",
    `http://127.0.0.1:${silent.address().port}`,
  );
  assert.equal(code, 70, said);
  for (const part of ['watchdog: a call has taken longer than 1 s', 'Database.connect was called', 'thread ', 'nativeStack']) {
    assert.ok(said.includes(part), `${part}: ${said}`);
  }
});

test('an event loop that stands still ends the tests, with every thread', async () => {
  const { said, signal } = await ends('for (;;);');
  assert.equal(signal, 'SIGABRT', said);
  assert.match(said, /watchdog: the event loop stands still\n(thread \d+ .*\n)+/);
});
