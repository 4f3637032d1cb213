// Builds the native part with cargo and puts it beside the package as turso-sync.<platform>.node.
// Arguments go to cargo, such as --release or -p partial-sync-cli. CARGO_TARGET_DIR is honoured.
import { spawnSync } from 'node:child_process';
import { copyFileSync, renameSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { platform } from './lib/platform.js';

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, '../..');
const args = process.argv.slice(2);

const cargo = spawnSync('cargo', ['build', '-p', 'partial-sync-node', ...args], { cwd: root, stdio: 'inherit' });
if (cargo.error) throw cargo.error;
if (cargo.status !== 0) process.exit(cargo.status ?? 1);

const target = path.resolve(root, process.env.CARGO_TARGET_DIR ?? 'target');
const profile = args.includes('--release') ? 'release' : 'debug';
const library = {
  darwin: 'libpartial_sync_node.dylib',
  win32: 'partial_sync_node.dll',
}[process.platform] ?? 'libpartial_sync_node.so';
const file = path.join(here, `turso-sync.${platform()}.node`);
// A process that has the old file loaded keeps it: the new one takes its name, and not its place on the disk.
copyFileSync(path.join(target, profile, library), `${file}.new`);
// What only a debugger needs is most of a release's size. Where there is no `strip` the file stays large.
if (profile === 'release' && process.platform !== 'win32') spawnSync('strip', ['-S', `${file}.new`]);
renameSync(`${file}.new`, file);
console.log(path.relative(process.cwd(), file));
