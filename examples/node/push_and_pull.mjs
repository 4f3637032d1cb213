// Push and pull: writes are local first, a push sends them, a pull brings those of others.
//
//   TURSO_DATABASE_URL=http://127.0.0.1:8080 node push_and_pull.mjs
import { connect } from '@tursodatabase/sync';

const replica = () =>
  connect({
    path: ':memory:',
    url: process.env.TURSO_DATABASE_URL,
    authToken: process.env.TURSO_AUTH_TOKEN,
    partialSyncExperimental: {
      bootstrapStrategy: { kind: 'prefix', length: 128 * 1024 }, // 128 KiB
    },
  });

const laptop = await replica();
const phone = await replica();

const { lastInsertRowid } = await laptop.run(
  'INSERT INTO messages (user_id, body) VALUES (?, ?)',
  'u_123',
  'from my laptop',
);
console.log(`${(await laptop.stats()).cdcOperations} change is local`);
await laptop.push();
console.log(`${(await laptop.stats()).cdcOperations} changes are local`);

console.log(`something new on the phone: ${await phone.pull()}`);
console.log(await phone.get('SELECT user_id, body FROM messages WHERE id = ?', lastInsertRowid));

await laptop.close();
await phone.close();
