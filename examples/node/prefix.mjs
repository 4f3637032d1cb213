// Prefix bootstrap: the first 128 KiB of the database are here at once; the rest is fetched when a query needs it.
//
//   TURSO_DATABASE_URL=http://127.0.0.1:8080 node prefix.mjs [app.db]
import { connect } from '@tursodatabase/sync';

const db = await connect({
  path: process.argv[2] ?? './app.db',
  url: process.env.TURSO_DATABASE_URL,
  authToken: process.env.TURSO_AUTH_TOKEN,
  partialSyncExperimental: {
    bootstrapStrategy: { kind: 'prefix', length: 128 * 1024 }, // 128 KiB
  },
});

const before = await db.stats();
console.log(`${before.pagesPresent} of ${before.pagesTotal} pages are here`);
console.log(await db.all("SELECT * FROM messages WHERE user_id = 'u_123' ORDER BY id LIMIT 3"));
const after = await db.stats();
console.log(`${after.pagesPresent} of ${after.pagesTotal} pages are here, after ${after.requests} requests`);
await db.close();
