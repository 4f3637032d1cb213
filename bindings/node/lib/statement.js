// A prepared statement as the application has it.
'use strict';

const { taken } = require('./parameters.js');
const { WAIT } = require('./prepared.js');

const toggled = (toggle) => {
  if (typeof toggle !== 'boolean') throw new TypeError('expected true or false');
  return toggle;
};

/** The column of a statement as `columns()` tells it. */
const described = ({ name, decltype }) => ({
  name,
  type: decltype === undefined || decltype === null ? null : decltype.toUpperCase(),
  column: null,
  table: null,
  database: null,
});

class Statement {
  #session;
  #prepared;
  #shape;
  #bound = [];
  #closed = false;

  /** Made by `prepare`. */
  constructor(session, prepared) {
    if (prepared === undefined) throw new TypeError('a Statement is made by prepare(sql)');
    this.#session = session;
    this.#prepared = prepared;
    this.#shape = { raw: false, pluck: false, bigints: session.bigints };
  }

  /** Rows as arrays. */
  raw(toggle = true) {
    this.#shape = { ...this.#shape, raw: toggled(toggle), pluck: toggle ? false : this.#shape.pluck };
    return this;
  }

  /** The first column alone. */
  pluck(toggle = true) {
    this.#shape = { ...this.#shape, pluck: toggled(toggle), raw: toggle ? false : this.#shape.raw };
    return this;
  }

  /** Integers as BigInt. */
  safeIntegers(toggle = true) {
    this.#shape = { ...this.#shape, bigints: toggled(toggle) };
    return this;
  }

  columns() {
    return this.#prepared.columns.map(described);
  }

  get source() {
    return this.#prepared.source;
  }

  get reader() {
    return this.#prepared.reader;
  }

  get database() {
    return this.#session.database;
  }

  /** Values for the calls that give none. */
  bind(...args) {
    const bound = taken(args);
    this.#prepared.parameters.values(bound);
    this.#bound = bound;
    return this;
  }

  #call(args) {
    if (this.#closed) throw new TypeError('the statement is closed');
    return this.#session.call(this.#prepared, args, this.#bound);
  }

  #read(args, here, there) {
    let call;
    const session = this.#session.current;
    const shape = this.#shape;
    try {
      const { values } = this.#call(args);
      const rows = session.here(() => this.#prepared[here](values, shape));
      if (rows !== WAIT) return Promise.resolve(rows);
      call = this.#call(taken(args));
    } catch (error) {
      return Promise.reject(error);
    }
    return session.turn(() => this.#prepared[there](call.values, shape, call.timeout));
  }

  /** The first row, or undefined. */
  get(...args) {
    return this.#read(args, 'getHere', 'get');
  }

  /** All rows. */
  all(...args) {
    return this.#read(args, 'allHere', 'all');
  }

  /** Runs it to its end. */
  async run(...args) {
    const { values, timeout } = this.#call(taken(args));
    return await this.#session.current.turn(() => this.#prepared.run(values, timeout));
  }

  /** The rows one after the other, read as they are asked for. */
  iterate(...args) {
    return this.#iterate(taken(args));
  }

  async *#iterate(args) {
    const { values, timeout } = this.#call(args);
    // A compiled copy of its own: this one may be used for something else while its rows are being taken.
    const session = this.#session.current;
    const copy = await session.prepare(this.#prepared.source);
    yield* session.iterate(copy, values, this.#shape, timeout);
  }

  /** Breaks what runs on the connection now. */
  interrupt() {
    this.database.interrupt();
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#prepared.close();
  }

  async [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    this.close();
  }
}

/** The promise of a statement, with the statement's methods: `db.prepare(sql).all()` needs no await between. */
class StatementPromise extends Promise {
  static get [Symbol.species]() {
    return Promise;
  }

  static of(promise) {
    return new StatementPromise((resolve, reject) => promise.then(resolve, reject));
  }
}

for (const name of ['run', 'get', 'all', 'close']) {
  StatementPromise.prototype[name] = async function (...args) {
    const given = taken(args);
    return (await this)[name](...given);
  };
}
for (const name of ['raw', 'pluck', 'safeIntegers', 'bind']) {
  StatementPromise.prototype[name] = function (...args) {
    const given = taken(args);
    return StatementPromise.of(this.then((statement) => statement[name](...given)));
  };
}
StatementPromise.prototype.iterate = function (...args) {
  return iterated(this, taken(args));
};

async function* iterated(promise, args) {
  yield* (await promise).iterate(...args);
}

module.exports = { Statement, StatementPromise };
