// Compares random programs with better-sqlite3: node test/reference/run.mjs [--programs N] [--seed FIRST] [--seconds N]
// A program that comes out otherwise is printed with its seed, and then the status is 1. The third one ends the run.
import { inspect, parseArgs } from 'node:util';
import { differences } from './differences.mjs';

const { values } = parseArgs({
  options: { programs: { type: 'string', default: '1000' }, seed: { type: 'string', default: '1' }, seconds: { type: 'string' } },
});
const { ran, found } = await differences({
  first: Number(values.seed),
  programs: Number(values.programs),
  seconds: values.seconds === undefined ? Infinity : Number(values.seconds),
  most: 3,
  log: (ran) => ran % 1000 === 0 && console.error(`${ran} programs after ${Math.round(performance.now() / 1000)} s`),
  tell({ seed, difference, steps }) {
    console.log(`seed ${seed}:`, inspect(difference, { depth: 6, breakLength: 160, maxStringLength: 400 }));
    console.log('its steps:', steps);
  },
});
console.log(`${ran} programs, ${found.length} that differ`);
process.exit(found.length === 0 ? 0 : 1);
