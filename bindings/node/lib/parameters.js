// What a call was given besides its SQL: values by position or by name, and options of the call.
'use strict';

const { nearestName } = require('./native.js');
const { parseCall } = require('./options.js');

/** Whether a value holds values by name and is none itself. */
function isNamed(value) {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    !ArrayBuffer.isView(value) &&
    !(value instanceof ArrayBuffer) &&
    !(value instanceof SharedArrayBuffer) &&
    !(value instanceof Date)
  );
}

function takenValue(value) {
  if (typeof value !== 'object' || value === null) return value;
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength).slice();
  if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) return value.slice(0);
  if (value instanceof Date) return String(value);
  return value;
}

/** What a call was given, as it is now: its caller may use the same list or buffer again before the call has its turn. */
function taken(args) {
  return args.map((given) => {
    if (Array.isArray(given)) return given.map(takenValue);
    if (!isNamed(given)) return takenValue(given);
    return Object.fromEntries(Object.entries(given).map(([name, value]) => [name, takenValue(value)]));
  });
}

/** Parameters of a statement: `:a`, `@a` and `$a` by name, `?` and `?1` by position. */
class Parameters {
  #names;
  #keys;

  /** @param {string[]} names with their prefixes; empty for a plain `?` */
  constructor(names) {
    this.#names = names;
    this.#keys = names.map((name) => name.slice(1));
  }

  get count() {
    return this.#names.length;
  }

  /** Whether there is one of this name. */
  #has(name) {
    return this.#keys.includes(name) || this.#names.includes(name);
  }

  /** What a call was given: the values in the order of the parameters, and the time that it may take. */
  call(args, bound = []) {
    const last = args.length === 0 ? undefined : args[args.length - 1];
    if (!isNamed(last) || !('queryTimeout' in last) || this.#has('queryTimeout')) {
      return { values: this.values(args.length === 0 ? bound : args), timeout: undefined };
    }
    const before = args.slice(0, -1);
    return { values: this.values(before.length === 0 ? bound : before), timeout: parseCall(last) };
  }

  /** The values in the order of the parameters. */
  values(args) {
    let values = args;
    if (args.length === 1) {
      const [only] = args;
      if (Array.isArray(only)) values = only;
      else if (isNamed(only)) return this.#byName(only);
    }
    if (values.length !== this.#names.length) {
      const s = this.#names.length === 1 ? '' : 's';
      throw new RangeError(`the statement has ${this.#names.length} parameter${s}, ${values.length} were given`);
    }
    return values;
  }

  #byName(given) {
    return this.#names.map((name, i) => {
      // A plain `?` goes by its number.
      const key = this.#keys[i] || String(i + 1);
      if (Object.hasOwn(given, key)) return given[key];
      if (name !== '' && Object.hasOwn(given, name)) return given[name];
      const names = Object.keys(given);
      if (name === '') {
        throw new TypeError(`parameter ${i + 1} is a plain "?": give the values as an array, or name the parameter`);
      }
      const near = nearestName(key, names);
      const meant = near === null ? '' : `; did you mean it by "${near}"?`;
      throw new RangeError(`no value was given for the parameter "${name}"${meant}`);
    });
  }
}

module.exports = { Parameters, taken };
