// Loads the native part: the file beside this package if it was built here, else the package of this platform.
'use strict';

const { platform } = require('./platform.js');

function load() {
  const name = platform();
  const problems = [];
  for (const from of [`../turso-sync.${name}.node`, `@tursodatabase/sync-${name}`]) {
    try {
      return require(from);
    } catch (error) {
      problems.push(error);
      // A file that is there and does not load says more than a package that is not installed.
      if (error.code !== 'MODULE_NOT_FOUND') break;
    }
  }
  const last = problems.at(-1);
  const missing = last.code === 'MODULE_NOT_FOUND';
  throw new Error(
    missing
      ? `@tursodatabase/sync has no native part for ${name} here. Install the package again without ` +
        `--omit=optional (it comes as @tursodatabase/sync-${name}), or build it: npm run build in bindings/node`
      : `the native part of @tursodatabase/sync for ${name} does not load: ${last.message}`,
    { cause: last },
  );
}

module.exports = load();
