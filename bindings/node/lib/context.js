// What the running code is inside of: transactions, and functions that the native part has called. It is followed through
// awaits and timers, so that a call can tell that it would wait for its own caller.
'use strict';

const { AsyncLocalStorage } = require('node:async_hooks');

const storage = new AsyncLocalStorage();
let users = 0;

/** Runs an async `body` inside of `place`, an object; `outer` of it is what that was inside of. */
async function within(place, body) {
  users += 1;
  try {
    return await storage.run({ __proto__: null, ...place, outer: storage.getStore() }, body);
  } finally {
    users -= 1;
    // While it is in use, every promise of the process is a little slower.
    if (users === 0) storage.disable();
  }
}

const NOWHERE = [];

function* outwards(from) {
  for (let at = from; at !== undefined; at = at.outer) yield at;
}

/** The places that the running code is inside of, the innermost first. */
const places = () => (users === 0 ? NOWHERE : outwards(storage.getStore()));

module.exports = { within, places };
