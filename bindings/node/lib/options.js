// What was given to connect(), by the names of the engine's table of options (docs/options.md). The table says what is known, of
// the right type and in range, and what to tell about the rest; here is what is particular to JavaScript.
'use strict';

const { checkOption, optionNames, sameOption, unknownOption } = require('./native.js');

/** The options of each object: '' has those at the top, 'remoteEncryption' has 'key' and 'cipher'. */
const OPTIONS = new Map([['', []]]);
for (const name of optionNames()) {
  const dot = name.lastIndexOf('.');
  const within = name.slice(0, Math.max(dot, 0));
  if (!OPTIONS.has(within)) OPTIONS.set(within, []);
  OPTIONS.get(within).push(name.slice(dot + 1));
}

const given = (value) => value !== undefined && value !== null;

const inCamelCase = (key) => key.replaceAll(/(?<=[a-z])_([a-z])/g, (_, letter) => letter.toUpperCase());

const shown = (value) => {
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
};

function kind(value) {
  if (Array.isArray(value) && value.every((name) => typeof name === 'string')) return 'names';
  return typeof value;
}

/** Throws unless `value` may be the option `name`, which the caller calls `as`. */
function check(name, as, value) {
  const simple = ['boolean', 'number', 'string'].includes(typeof value) ? value : undefined;
  const wrong = checkOption(name, as, kind(value), simple, shown(value));
  if (wrong) throw new (wrong.isRange ? RangeError : TypeError)(wrong.message);
}

function assertObject(as, value, allowed) {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return;
  throw new TypeError(`option "${as}" is ${shown(value)}; it must be ${allowed}`);
}

/** Puts the options of an object, and of the objects in it, into `found`: by name, with what the caller calls them. */
function read(within, as, value, found) {
  for (const [key, option] of Object.entries(value)) {
    const own = inCamelCase(key);
    const known = OPTIONS.get(within);
    if (!known.includes(own)) throw new TypeError(unknownOption(key, as, known));
    if (!given(option)) continue;
    const name = within === '' ? own : `${within}.${own}`;
    const spelled = as === '' ? key : `${as}.${key}`;
    const parts = OPTIONS.get(name);
    if (parts !== undefined) {
      assertObject(spelled, option, `{ ${parts.join(', ')} }`);
      found.set(name, { as: spelled });
      read(name, spelled, option, found);
      continue;
    }
    check(name, spelled, option);
    const other = found.get(name);
    if (other !== undefined && other.value !== option) throw new TypeError(sameOption(other.as, spelled));
    found.set(name, { as: spelled, value: option });
  }
}

/** Checks options and gives them as the native part takes them, and the functions among them. */
function parse(options) {
  assertObject('', options, 'an object');
  if (!given(options.path)) {
    throw new TypeError('option "path" is missing: the file of the database, or \':memory:\'');
  }
  const found = new Map();
  read('', '', options, found);
  const get = (name) => found.get(name)?.value;
  /** An option that its object must have, where that is given. */
  const part = (within, key) => {
    const whole = found.get(within);
    if (whole === undefined) return undefined;
    const name = `${within}.${key}`;
    if (!found.has(name)) check(name, `${whole.as}.${key}`, undefined);
    return get(name);
  };
  const functions = { fetch: get('fetch'), transform: get('transform') };
  /** An option that may be a function too. */
  const fixed = (name) => {
    const value = get(name);
    if (typeof value !== 'function') return value;
    functions[name] = value;
    return undefined;
  };
  const PARTIAL = 'partialSyncExperimental';
  const STRATEGY = `${PARTIAL}.bootstrapStrategy`;
  const strategy = part(STRATEGY, 'kind');
  if (strategy !== undefined) {
    const other = found.get(`${STRATEGY}.${strategy === 'prefix' ? 'query' : 'length'}`);
    if (other !== undefined) {
      throw new TypeError(
        `option "${other.as}" does not go with kind '${strategy}'; a strategy is { kind: 'prefix', length } or ` +
          "{ kind: 'query', query }",
      );
    }
  }
  const native = {
    path: get('path'),
    url: fixed('url'),
    token: fixed('authToken'),
    asksUrl: functions.url !== undefined,
    asksToken: functions.authToken !== undefined,
    asksFetch: functions.fetch !== undefined,
    asksTransform: functions.transform !== undefined,
    clientName: get('clientName'),
    longPoll: get('longPollTimeoutMs'),
    busyTimeout: get('timeout'),
    requestTimeout: get('requestTimeoutMs'),
    pushThreshold: get('pushOperationsThreshold'),
    pullThreshold: get('pullBytesThreshold'),
    bootstrapIfEmpty: get('bootstrapIfEmpty'),
    acceptNewUrl: get('acceptNewUrl'),
    encryptionKey: part('remoteEncryption', 'key'),
    encryptionCipher: get('remoteEncryption.cipher'),
    partial: found.has(PARTIAL)
      ? {
          prefix: strategy === 'prefix' ? part(STRATEGY, 'length') : undefined,
          query: strategy === 'query' ? part(STRATEGY, 'query') : undefined,
          segmentSize: get(`${PARTIAL}.segmentSize`),
          prefetch: get(`${PARTIAL}.prefetch`),
        }
      : undefined,
  };
  return { native, functions, tracing: get('tracing'), queryTimeout: get('queryTimeout') };
}

/** Checks the options of one call, `{ queryTimeout }`. */
function parseCall(options) {
  assertObject('', options, 'an object');
  const { queryTimeout, ...others } = options;
  for (const key of Object.keys(others)) throw new TypeError(unknownOption(key, '', ['queryTimeout']));
  if (!given(queryTimeout)) return undefined;
  check('queryTimeout', 'queryTimeout', queryTimeout);
  return queryTimeout;
}

module.exports = { parse, parseCall };
