// Values as 64-bit words; src/codec.rs has the format. One buffer is used again for every call: nothing here may be
// entered a second time before it has returned. What could do so, a date's `toString` or a getter, is told that it cannot.
'use strict';

const NULL = 0;
const INT = 1;
const DOUBLE = 2;
const BIGINT = 3;
const TEXT = 4;
const BLOB = 5;

/** Words before the values, and before the rows, of a read on this thread. */
const HEADER = 2;
const LARGEST = 2n ** 63n;
/** Objects by rows of so many are built by generated code; it costs about as much as building that many without. */
const GENERATE_AFTER = 32;

function views(words) {
  return {
    words,
    ints: new Int32Array(words.buffer, words.byteOffset, words.length * 2),
    doubles: new Float64Array(words.buffer, words.byteOffset, words.length),
  };
}

/** The buffer for parameters and for rows that are read on this thread. */
let scratch = views(new BigInt64Array(4096));

/** Makes room for so many words. */
function reserve(words) {
  if (scratch.words.length < words) scratch = views(new BigInt64Array(words * 2));
  return scratch.words;
}

function kindOf(value) {
  if (typeof value === 'object') return `a value of type ${value.constructor?.name ?? 'Object'}`;
  return `a ${typeof value}`;
}

const encoded = { words: scratch.words, count: 0, texts: undefined, blobs: undefined };
/** Whether values are being encoded. */
let encoding = false;

function addText(text) {
  if (encoded.texts === undefined) encoded.texts = [];
  encoded.texts.push(text);
}

function addBlob(bytes) {
  if (encoded.blobs === undefined) encoded.blobs = [];
  encoded.blobs.push(bytes);
}

/** Encodes a value at a word and gives the word after it. */
function put(at, value, position) {
  const { ints, doubles, words } = scratch;
  switch (typeof value) {
    case 'number':
      if ((value | 0) === value && !Object.is(value, -0)) {
        ints[2 * at] = INT;
        ints[2 * at + 1] = value;
        return at + 1;
      }
      if (Number.isInteger(value) && value !== 0 && value >= -(2 ** 63) && value < 2 ** 63) {
        ints[2 * at] = BIGINT;
        words[at + 1] = BigInt(value);
        return at + 2;
      }
      ints[2 * at] = DOUBLE;
      doubles[at + 1] = value;
      return at + 2;
    case 'string':
      ints[2 * at] = TEXT;
      addText(value);
      return at + 1;
    case 'bigint':
      if (value < -LARGEST || value >= LARGEST) {
        throw new RangeError(`parameter ${position} is ${value}, which is no 64-bit integer`);
      }
      ints[2 * at] = BIGINT;
      words[at + 1] = value;
      return at + 2;
    case 'boolean':
      ints[2 * at] = INT;
      ints[2 * at + 1] = value ? 1 : 0;
      return at + 1;
    case 'undefined':
      ints[2 * at] = NULL;
      return at + 1;
    case 'object':
      if (value === null) {
        ints[2 * at] = NULL;
        return at + 1;
      }
      if (ArrayBuffer.isView(value)) {
        ints[2 * at] = BLOB;
        addBlob(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
        return at + 1;
      }
      if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) {
        ints[2 * at] = BLOB;
        addBlob(new Uint8Array(value instanceof ArrayBuffer ? value : value.slice(0)));
        return at + 1;
      }
      if (value instanceof Date) {
        ints[2 * at] = TEXT;
        addText(String(value));
        return at + 1;
      }
  }
  throw new TypeError(
    `parameter ${position} is ${kindOf(value)}; SQLite takes null, numbers, bigints, strings, booleans and bytes`,
  );
}

/**
 * Encodes values into the one buffer, after a header if there is to be one, with room for `room` words at least. What is
 * given back is valid until the next call.
 */
function encode(values, header = 0, room = 0) {
  if (encoding) throw new TypeError('a value that is being bound (its toString, or a getter) cannot itself bind values');
  encoding = true;
  try {
    const { length } = values;
    encoded.words = reserve(Math.max(2 * length + header, room));
    encoded.count = length;
    encoded.texts = undefined;
    encoded.blobs = undefined;
    let at = header;
    for (let i = 0; i < length; i++) at = put(at, values[i], i + 1);
    return encoded;
  } finally {
    encoding = false;
  }
}

/** Encodes the call of a read on this thread, for a row of so many columns at least. */
function encodeRead(values, columns, bits, limit) {
  const call = encode(values, HEADER, 2 * columns + HEADER);
  const { ints } = scratch;
  ints[0] = call.count;
  ints[1] = bits;
  ints[2] = limit;
  ints[3] = 0;
  return call;
}

/** Encodes values into a buffer of their own. */
function encodeApart(values) {
  const { words, count, texts, blobs } = encode(values);
  return { words: words.slice(0, 2 * count), count, texts, blobs };
}

// What is being decoded: words, the text of all of them, their bytes, and how far each of them was read.
let ints = scratch.ints;
let doubles = scratch.doubles;
let words = scratch.words;
let text = '';
let bytes;
let at = 0;
let textAt = 0;
let bytesAt = 0;

/** The next value. */
function next() {
  const word = at++;
  switch (ints[2 * word]) {
    case INT:
      return ints[2 * word + 1];
    case TEXT: {
      const from = textAt;
      textAt += ints[2 * word + 1];
      return text.slice(from, textAt);
    }
    case DOUBLE:
      return doubles[at++];
    case BIGINT:
      return words[at++];
    case BLOB: {
      const length = ints[2 * word + 1];
      const from = bytesAt;
      bytesAt += length;
      if (length === 0) return Buffer.alloc(0);
      // The bytes came as a buffer of their own: a lone blob is it, others do not keep each other alive.
      if (length === bytes.length) return bytes;
      return Buffer.from(bytes.subarray(from, bytesAt));
    }
    default:
      return null;
  }
}

function objectsSlowly(names) {
  return () => {
    const row = {};
    for (const name of names) {
      const value = next();
      if (name === '__proto__') {
        Object.defineProperty(row, name, { value, enumerable: true, configurable: true, writable: true });
      } else {
        row[name] = value;
      }
    }
    return row;
  };
}

/** A function that builds objects with these properties; slower where code may not be generated from strings. */
function objects(names) {
  try {
    // Only computed, `__proto__` is a property like others; and a literal of computed names takes longer to make.
    const key = (name) => (name === '__proto__' ? '["__proto__"]' : JSON.stringify(name));
    const properties = names.map((name) => `${key(name)}: next()`);
    return new Function('next', `return () => ({ ${properties.join(', ')} });`)(next);
  } catch {
    return objectsSlowly(names);
  }
}

function arrays(width) {
  return () => {
    const row = new Array(width);
    for (let i = 0; i < width; i++) row[i] = next();
    return row;
  };
}

/** How the rows of a statement become values: objects, arrays or the first column alone. */
class Rows {
  #names;
  #built = 0;
  #object;
  #array;

  constructor(names) {
    this.#names = names;
    this.#object = objectsSlowly(names);
    this.#array = arrays(names.length);
  }

  maker(raw, pluck, rows) {
    if (pluck) return next;
    if (raw) return this.#array;
    if (this.#built <= GENERATE_AFTER) {
      this.#built += rows;
      if (this.#built > GENERATE_AFTER) this.#object = objects(this.#names);
    }
    return this.#object;
  }
}

/** Begins to decode the rows in the one buffer, which are at a word. */
function decode(from, textOfAll, bytesOfAll) {
  ({ words, ints, doubles } = scratch);
  text = textOfAll;
  bytes = bytesOfAll;
  at = from;
  textAt = bytesAt = 0;
}

/** The header of what was read on this thread: status, number of rows, flags. */
const header = {
  get status() {
    return scratch.ints[0];
  },
  get rows() {
    return scratch.ints[1];
  },
  get flags() {
    return scratch.ints[2];
  },
};

module.exports = { HEADER, encode, encodeRead, encodeApart, reserve, Rows, decode, header };
