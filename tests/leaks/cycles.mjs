// Opens a replica, asks it and closes it, again and again; prints resident memory (KiB) as it goes.
//
// node --expose-gc cycles.mjs PATH URL CYCLES
import { readFileSync } from 'node:fs';
import { connect } from '../../bindings/node/index.mjs';

const [path, url, given] = process.argv.slice(2);
const cycles = Number(given);

function resident() {
  globalThis.gc();
  return /VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1];
}

for (let cycle = 1; cycle <= cycles; cycle++) {
  const db = await connect({
    path,
    url,
    partialSyncExperimental: { bootstrapStrategy: { kind: 'prefix', length: 4096 } },
  });
  const { n } = await db.get('SELECT count(*) AS n FROM t');
  if (n !== 1000) throw new Error(`${n} rows`);
  await db.close();
  if (cycle % (cycles / 10) === 0) console.log(cycle, resident());
}
