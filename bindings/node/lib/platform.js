// What this platform is called in the names of files and packages.
'use strict';

const { readFileSync } = require('node:fs');

/** Whether this Linux has musl instead of glibc. */
function isMusl() {
  const report = process.report?.getReport?.();
  if (report?.header) return !report.header.glibcVersionRuntime;
  try {
    return readFileSync('/usr/bin/ldd', 'latin1').includes('musl');
  } catch {
    return false;
  }
}

/** What this platform is called in the names of files and packages, such as `linux-x64-gnu`. */
function platform() {
  const { platform: system, arch } = process;
  if (system === 'linux') return `linux-${arch}-${isMusl() ? 'musl' : 'gnu'}`;
  if (system === 'win32') return `win32-${arch}-msvc`;
  return `${system}-${arch}`;
}

/** The same for one of Rust's target triples. */
function platformOf(triple) {
  const arch = { x86_64: 'x64', aarch64: 'arm64' }[triple.split('-')[0]];
  if (!arch) throw new Error(`no package is made for ${triple}`);
  if (triple.includes('-apple-')) return `darwin-${arch}`;
  if (triple.includes('-windows-')) return `win32-${arch}-msvc`;
  return `linux-${arch}-${triple.includes('musl') ? 'musl' : 'gnu'}`;
}

module.exports = { platform, platformOf };
