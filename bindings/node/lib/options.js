// What may be given to connect(): every option is known, of the right type and in range, or an error says what is not.
'use strict';

const LARGEST = Number.MAX_SAFE_INTEGER;
const TRACING = ['error', 'warn', 'info', 'debug', 'trace'];
const CIPHERS = [
  'aes256gcm',
  'aes128gcm',
  'chacha20poly1305',
  'aegis128l',
  'aegis128x2',
  'aegis128x4',
  'aegis256',
  'aegis256x2',
  'aegis256x4',
];

/** Levenshtein's distance. */
function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length];
}

const plain = (name) => name.toLowerCase().replaceAll(/[^a-z]/g, '');

/** The known name that is nearest to one that is not known. */
function nearest(name, known) {
  const far = (candidate) => {
    const [a, b] = [plain(name), plain(candidate)];
    // One that goes on where the other ends is meant rather than one of the same length.
    return a !== '' && (a.startsWith(b) || b.startsWith(a)) ? 0.5 : distance(a, b);
  };
  return known.reduce((best, candidate) => (far(candidate) < far(best) ? candidate : best));
}

const shown = (value) => {
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
};

const wrong = (name, value, allowed) => new TypeError(`option "${name}" is ${shown(value)}; it must be ${allowed}`);

function object(name, value, known, allowed) {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(name, value, allowed);
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    const where = name === '' ? '' : ` in "${name}"`;
    throw new TypeError(`unknown option "${key}"${where}; did you mean "${nearest(key, known)}"?`);
  }
  return value;
}

const given = (value) => value !== undefined && value !== null;

function text(name, value) {
  if (typeof value !== 'string' || value === '') throw wrong(name, value, 'a string that is not empty');
  return value;
}

function whole(name, value, least, unit, most = LARGEST) {
  const allowed = `a whole number of ${unit}, ${least} or more`;
  if (typeof value !== 'number') throw wrong(name, value, allowed);
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`option "${name}" is ${value}; it must be ${allowed}`);
  }
  return value;
}

function oneOf(name, value, allowed) {
  if (allowed.includes(value)) return value;
  const list = allowed.map((word) => `'${word}'`).join(', ');
  throw wrong(name, value, `one of ${list}`);
}

function boolean(name, value) {
  if (typeof value !== 'boolean') throw wrong(name, value, 'true or false');
  return value;
}

function callable(name, value) {
  if (typeof value !== 'function') throw wrong(name, value, 'a function');
  return value;
}

const STRATEGY = "{ kind: 'prefix', length } or { kind: 'query', query }";

function strategy(value) {
  const name = 'partialSyncExperimental.bootstrapStrategy';
  object(name, value, ['kind', 'length', 'query'], STRATEGY);
  const kind = oneOf(`${name}.kind`, value.kind, ['prefix', 'query']);
  const other = kind === 'prefix' ? 'query' : 'length';
  if (given(value[other])) {
    throw new TypeError(`option "${name}.${other}" does not go with kind '${kind}'; a strategy is ${STRATEGY}`);
  }
  return kind === 'prefix'
    ? { prefix: whole(`${name}.length`, value.length, 0, 'bytes') }
    : { query: text(`${name}.query`, value.query) };
}

function partial(value) {
  const name = 'partialSyncExperimental';
  object(name, value, ['bootstrapStrategy', 'segmentSize', 'prefetch'], 'an object');
  const { bootstrapStrategy, segmentSize, prefetch } = value;
  return {
    ...(given(bootstrapStrategy) ? strategy(bootstrapStrategy) : {}),
    segmentSize: given(segmentSize) ? whole(`${name}.segmentSize`, segmentSize, 1, 'bytes') : undefined,
    prefetch: given(prefetch) ? boolean(`${name}.prefetch`, prefetch) : undefined,
  };
}

function encryption(value) {
  object('remoteEncryption', value, ['key', 'cipher'], '{ key, cipher }');
  return {
    encryptionKey: text('remoteEncryption.key', value.key),
    encryptionCipher: given(value.cipher) ? oneOf('remoteEncryption.cipher', value.cipher, CIPHERS) : undefined,
  };
}

function unsupported(name, value, why) {
  if (boolean(name, value)) throw new TypeError(`option "${name}" is not supported: ${why}; leave it out`);
}

/** Each option: checks it, and puts it into what the native part takes or among the functions it asks for. */
const OPTIONS = {
  path(value, to) {
    to.native.path = text('path', value);
  },
  url(value, to) {
    if (typeof value === 'function') to.functions.url = value;
    else if (typeof value === 'string') to.native.url = text('url', value);
    else throw wrong('url', value, 'a string, or a function that gives a string or null');
  },
  authToken(value, to) {
    if (typeof value === 'function') to.functions.authToken = value;
    else if (typeof value === 'string') to.native.token = value;
    else throw wrong('authToken', value, 'a string, or a function that gives one or its promise');
  },
  clientName(value, to) {
    to.native.clientName = text('clientName', value);
  },
  longPollTimeoutMs(value, to) {
    to.native.longPoll = whole('longPollTimeoutMs', value, 0, 'milliseconds');
  },
  tracing(value, to) {
    to.tracing = oneOf('tracing', value, TRACING);
  },
  transform(value, to) {
    to.functions.transform = callable('transform', value);
  },
  pushOperationsThreshold(value, to) {
    to.native.pushThreshold = whole('pushOperationsThreshold', value, 1, 'changes');
  },
  pullBytesThreshold(value, to) {
    to.native.pullThreshold = whole('pullBytesThreshold', value, 1, 'bytes');
  },
  acceptNewUrl(value, to) {
    to.native.acceptNewUrl = boolean('acceptNewUrl', value);
  },
  remoteEncryption(value, to) {
    Object.assign(to.native, encryption(value));
  },
  fetch(value, to) {
    to.functions.fetch = callable('fetch', value);
  },
  partialSyncExperimental(value, to) {
    to.native.partial = partial(value);
  },
  experimental(value) {
    // Names of features that SQLite has without being asked.
    if (!Array.isArray(value) || value.some((name) => typeof name !== 'string')) {
      throw wrong('experimental', value, 'an array of names');
    }
  },
  queryTimeout(value, to) {
    to.queryTimeout = whole('queryTimeout', value, 0, 'milliseconds', 0xffffffff);
  },
  timeout(value, to) {
    to.native.busyTimeout = whole('timeout', value, 0, 'milliseconds', 0x7fffffff);
  },
  remoteWritesExperimental(value) {
    unsupported('remoteWritesExperimental', value, 'writes are local and go to the remote by push()');
  },
  logicalMvccPull(value) {
    unsupported('logicalMvccPull', value, 'a pull brings pages');
  },
};
const NAMES = Object.keys(OPTIONS);

/** Checks options and gives them as the native part takes them, and the functions among them. */
function parse(options) {
  object('', options, NAMES, 'an object');
  if (!given(options.path)) {
    throw new TypeError('option "path" is missing: the file of the database, or \':memory:\'');
  }
  const to = { native: { clientName: 'turso-sync-js' }, functions: {}, tracing: undefined, queryTimeout: undefined };
  for (const name of Object.keys(options)) {
    if (given(options[name])) OPTIONS[name](options[name], to);
  }
  const { url, authToken, fetch, transform } = to.functions;
  to.native.asksUrl = url !== undefined;
  to.native.asksToken = authToken !== undefined;
  to.native.asksFetch = fetch !== undefined;
  to.native.asksTransform = transform !== undefined;
  return to;
}

/** Checks the options of one call, `{ queryTimeout }`. */
function parseCall(options) {
  object('', options, ['queryTimeout'], 'an object');
  return given(options.queryTimeout)
    ? whole('queryTimeout', options.queryTimeout, 0, 'milliseconds', 0xffffffff)
    : undefined;
}

module.exports = { parse, parseCall, nearest };
