// Prefetch: pages that a query is expected to want next are fetched along.
//
//   TURSO_DATABASE_URL=http://127.0.0.1:8080 node prefetch.mjs
import { connect } from '@tursodatabase/sync';

for (const prefetch of [false, true]) {
  const db = await connect({
    path: ':memory:',
    url: process.env.TURSO_DATABASE_URL,
    authToken: process.env.TURSO_AUTH_TOKEN,
    partialSyncExperimental: {
      bootstrapStrategy: { kind: 'prefix', length: 128 * 1024 }, // 128 KiB
      prefetch,
    },
  });
  const before = await db.stats();
  const { n } = await db.get('SELECT count(*) AS n FROM messages WHERE length(body) > 10');
  const after = await db.stats();
  console.log(`prefetch ${prefetch}: ${n} messages in ${after.requests - before.requests} requests`);
  await db.close();
}
