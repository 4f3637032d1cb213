// Builds the native part with cargo and puts it beside the package as turso-sync.<platform>.node.
// Arguments go to cargo, such as --release or -p partial-sync-cli. CARGO_TARGET_DIR is honoured. With --target TRIPLE it is
// built for another platform; a triple with a version of glibc (x86_64-unknown-linux-gnu.2.28) or musl needs cargo-zigbuild.
import { spawnSync } from 'node:child_process';
import { copyFileSync, renameSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { platform, platformOf } from './lib/platform.js';

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, '../..');
const args = process.argv.slice(2);
const at = args.indexOf('--target');
const wanted = at === -1 ? undefined : args[at + 1];
const triple = wanted?.replace(/\.\d+\.\d+$/, '');
const name = triple ? platformOf(triple) : platform();

const build = triple !== wanted || triple?.includes('musl') ? 'zigbuild' : 'build';
const cargo = spawnSync('cargo', [build, '-p', 'partial-sync-node', ...args], { cwd: root, stdio: 'inherit' });
if (cargo.error) throw cargo.error;
if (cargo.status !== 0) process.exit(cargo.status ?? 1);

const target = path.resolve(root, process.env.CARGO_TARGET_DIR ?? 'target');
const profile = args.includes('--release') ? 'release' : 'debug';
const library = name.startsWith('darwin')
  ? 'libpartial_sync_node.dylib'
  : name.startsWith('win32')
    ? 'partial_sync_node.dll'
    : 'libpartial_sync_node.so';
const file = path.join(here, `turso-sync.${name}.node`);
// A process that has the old file loaded keeps it: the new one takes its name, and not its place on the disk.
copyFileSync(path.join(target, triple ?? '', profile, library), `${file}.new`);
// What only a debugger needs is most of a release's size. Where no `strip` knows the format the file stays large.
if (profile === 'release' && process.platform !== 'win32') spawnSync('strip', ['-S', `${file}.new`]);
renameSync(`${file}.new`, file);
console.log(path.relative(process.cwd(), file));
