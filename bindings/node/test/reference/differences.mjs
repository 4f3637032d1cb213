// Runs programs by seed, with one remote for those that use a replica.
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { inspect } from 'node:util';
import { patient } from '../watchdog.mjs';
import { serve } from '../world.mjs';
import { compare, reference } from './compare.mjs';
import { program, SCHEMA } from './programs.mjs';

const AT_ONCE = 16;
// So many at a time wait for each other's work too.
patient(undefined, 6);

/** Runs so many programs from a seed on, for so many seconds at most, until `most` of them came out otherwise, each of which `tell` is told. */
export async function differences({ first, programs, seconds = Infinity, most = 1, log = () => {}, tell = () => {} }) {
  const Database = reference();
  if (Database === undefined) throw new Error('better-sqlite3 is not here: scripts/test-node installs it');
  const folder = mkdtempSync(path.join(tmpdir(), 'turso-sync-reference-'));
  const after = [() => rmSync(folder, { recursive: true, force: true })];
  const found = [];
  let ran = 0;
  try {
    const file = path.join(folder, 'remote.db');
    const db = new Database(file);
    db.exec(SCHEMA);
    db.close();
    const copy = path.join(folder, 'copy.db');
    copyFileSync(file, copy);
    const url = await serve({ after: (end) => after.unshift(end) }, file);
    const start = { url, copy: (to) => copyFileSync(copy, to) };
    const end = performance.now() + seconds * 1000;
    let next = first;
    const one = async () => {
      while (next < first + programs && performance.now() < end && found.length < most) {
        const seed = next++;
        const given = program(seed);
        // Folders with very many files are slow.
        const here = mkdtempSync(path.join(folder, 'program-'));
        const difference = await compare(Database, given, { folder: here, start }).catch((error) => ({ failed: error.stack }));
        rmSync(here, { recursive: true, force: true });
        if (difference !== undefined) {
          found.push({ seed, difference, steps: inspect(given, { depth: 9, breakLength: 160 }) });
          tell(found.at(-1));
        }
        log(++ran, seed);
      }
    };
    // Most of the time of a program goes by between threads; others run meanwhile.
    await Promise.all(Array.from({ length: AT_ONCE }, one));
  } finally {
    for (const end of after) await end();
  }
  return { ran, found };
}
