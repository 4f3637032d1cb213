// The types from CommonJS; compiled by tsc and never run.
import sync = require('@tursodatabase/sync');

async function main(): Promise<void> {
  const db: sync.Database = await sync.connect({ path: ':memory:' });
  const stats: sync.DatabaseStats = await db.stats();
  console.log(stats.pagesPresent);
  // @ts-expect-error no such option
  await sync.connect({ path: ':memory:', uri: 'libsql://...' });
}

void main();
