// Query bootstrap: the pages that a query touches are here at once. Here in memory: no file is left.
//
//   TURSO_DATABASE_URL=http://127.0.0.1:8080 node query.mjs
import { connect } from '@tursodatabase/sync';

const db = await connect({
  path: ':memory:',
  url: process.env.TURSO_DATABASE_URL,
  authToken: process.env.TURSO_AUTH_TOKEN,
  partialSyncExperimental: {
    bootstrapStrategy: {
      kind: 'query',
      query: `SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100`,
    },
  },
});

const rows = await db.all(`SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100`);
const { pagesPresent, pagesTotal, requests } = await db.stats();
console.log(`${rows.length} messages with ${pagesPresent} of ${pagesTotal} pages, after ${requests} request`);
await db.close();
