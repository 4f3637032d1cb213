// Segment size: how many bytes are fetched around a page that is not here.
//
//   TURSO_DATABASE_URL=http://127.0.0.1:8080 node segment_size.mjs
import { connect } from '@tursodatabase/sync';

for (const segmentSize of [16 * 1024, 128 * 1024]) {
  const db = await connect({
    path: ':memory:',
    url: process.env.TURSO_DATABASE_URL,
    authToken: process.env.TURSO_AUTH_TOKEN,
    partialSyncExperimental: {
      bootstrapStrategy: { kind: 'prefix', length: 128 * 1024 }, // 128 KiB
      segmentSize,
      prefetch: false, // segments alone, without what else the statement will read
    },
  });
  const before = await db.stats();
  await db.get('SELECT * FROM messages ORDER BY id DESC');
  const after = await db.stats();
  const pages = after.pagesPresent - before.pagesPresent;
  const requests = after.requests - before.requests;
  console.log(`segments of ${segmentSize / 1024} KiB: ${pages} pages in ${requests} requests`);
  await db.close();
}
