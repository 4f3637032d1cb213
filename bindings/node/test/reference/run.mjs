// Compares random programs with better-sqlite3: node test/reference/run.mjs [--programs N] [--seed FIRST] [--seconds N]
// A program that comes out otherwise is printed with its seed, and the first one ends the run with status 1.
import { inspect, parseArgs } from 'node:util';
import { differences } from './differences.mjs';

const { values } = parseArgs({
  options: { programs: { type: 'string', default: '1000' }, seed: { type: 'string', default: '1' }, seconds: { type: 'string' } },
});
const seconds = values.seconds === undefined ? Infinity : Number(values.seconds);
const { ran, found } = await differences({ first: Number(values.seed), programs: Number(values.programs), seconds, most: 3, log: (ran, seed) => process.stderr.isTTY || (ran % 100 === 0 && console.error(ran, seed, Math.round(performance.now()))) });
for (const { seed, difference, steps } of found) {
  console.log(`seed ${seed}:`, inspect(difference, { depth: 6, breakLength: 160, maxStringLength: 400 }));
  console.log('its steps:', steps);
}
console.log(`${ran} programs, ${found.length} that differ`);
process.exit(found.length === 0 ? 0 : 1);
