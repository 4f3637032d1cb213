// Makes the package ready to be published without a native part of its own: each platform's part comes from its package
// in this folder, as an optional dependency. Run it in a copy of the package or in a release, after every npm/<platform>/ has
// got its file; arguments name the platforms (default: all).
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const read = (file) => JSON.parse(readFileSync(file, 'utf8'));
const manifestFile = path.join(here, '../package.json');
const manifest = read(manifestFile);

manifest.optionalDependencies = {};
const named = process.argv.slice(2);
const all = readdirSync(here, { withFileTypes: true }).filter((entry) => entry.isDirectory());
for (const name of named.length > 0 ? named : all.map((entry) => entry.name)) {
  const platform = read(path.join(here, name, 'package.json'));
  if (platform.version !== manifest.version) {
    throw new Error(`${platform.name} is of version ${platform.version}, the package of ${manifest.version}`);
  }
  if (!existsSync(path.join(here, name, platform.main))) throw new Error(`npm/${name}/${platform.main} is missing`);
  manifest.optionalDependencies[platform.name] = platform.version;
}
manifest.files = manifest.files.filter((pattern) => !pattern.endsWith('.node'));
writeFileSync(manifestFile, `${JSON.stringify(manifest, null, 2)}\n`);
console.log(`ready: publish npm/*, then the package, ${Object.keys(manifest.optionalDependencies).length} platforms`);
