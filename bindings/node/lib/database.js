// The public face: Database, Transaction and connect().
'use strict';

const { Core } = require('./core.js');
const { modeWord } = require('./session.js');
const { Statement } = require('./statement.js');

/** Pairs of a name and a mode of transactions. */
const VARIANTS = ['deferred', 'concurrent', 'immediate', 'exclusive'];

function callable(fn) {
  if (typeof fn !== 'function') throw new TypeError('Expected the first argument to be a function');
  return fn;
}

/** Gives a function for transactions its variants, as the property of each mode. */
function withVariants(database, make) {
  const standard = make('deferred');
  const variants = Object.fromEntries(VARIANTS.map((mode) => [mode, make(mode)]));
  const all = { ...variants, default: standard };
  for (const fn of [standard, ...Object.values(variants)]) {
    for (const [name, value] of Object.entries(all)) Object.defineProperty(fn, name, { value });
    Object.defineProperty(fn, 'database', { value: database, enumerable: true });
  }
  return standard;
}

/** The handle of a transaction that has the connection to itself. */
class Transaction {
  #session;

  constructor(session) {
    this.#session = session;
  }

  get open() {
    return this.#session.open;
  }

  async exec(sql, options) {
    return await this.#session.exec(sql, options);
  }

  prepare(sql) {
    return this.#session.statement(sql);
  }

  async run(sql, ...args) {
    return await this.#session.run(sql, args);
  }

  async get(sql, ...args) {
    return await this.#session.get(sql, args);
  }

  async all(sql, ...args) {
    return await this.#session.all(sql, args);
  }

  iterate(sql, ...args) {
    return this.#session.rows(sql, args);
  }

  async batch(statements, options) {
    return await this.#session.batch(statements, options);
  }
}

/** A database: a replica of a remote one, or a plain local one. It connects when it is first used. */
class Database {
  #core;

  constructor(options) {
    this.#core = new Core(options, this);
  }

  get #session() {
    return this.#core.root.current;
  }

  get name() {
    return this.#core.path;
  }

  get path() {
    return this.#core.path;
  }

  get readonly() {
    return false;
  }

  get open() {
    return this.#core.ready;
  }

  get memory() {
    return this.#core.path === ':memory:';
  }

  get inTransaction() {
    return this.#core.inTransaction;
  }

  async connect() {
    await this.#core.connected();
  }

  async pull() {
    return (await this.#core.remotely('pull')).flag;
  }

  async push() {
    await this.#core.remotely('push');
  }

  async discardChange(change, { withDependents = false } = {}) {
    if (!Number.isSafeInteger(change)) {
      throw new TypeError('discardChange: the change is a whole number, as the error of a push or pull names it');
    }
    return (await this.#core.remotely('discardChange', change, Boolean(withDependents))).count;
  }

  async hydrate({ query, progress } = {}) {
    if (query !== undefined && typeof query !== 'string') throw new TypeError('hydrate: query is a SELECT, as a string');
    if (progress !== undefined && typeof progress !== 'function') throw new TypeError('hydrate: progress is a function');
    return await this.#core.hydrate(query, progress);
  }

  async checkpoint() {
    await this.#core.remotely('checkpoint');
  }

  async stats() {
    const { lastPullUnixTime = null, lastPushUnixTime = null, revision = null, ...rest } = await this.#core.stats();
    return { ...rest, lastPullUnixTime, lastPushUnixTime, revision };
  }

  async exec(sql, options) {
    await this.#session.exec(sql, options);
  }

  prepare(sql) {
    return this.#session.statement(sql);
  }

  async run(sql, ...args) {
    return await this.#session.run(sql, args);
  }

  get(sql, ...args) {
    return this.#session.get(sql, args);
  }

  all(sql, ...args) {
    return this.#session.all(sql, args);
  }

  iterate(sql, ...args) {
    return this.#session.rows(sql, args);
  }

  async batch(statements, options) {
    return await this.#session.batch(statements, options);
  }

  /** A function that runs `fn` in a transaction; what it and what it calls do with this database belongs to it. */
  transaction(fn) {
    callable(fn);
    const core = this.#core;
    return withVariants(this, (mode) => {
      modeWord(mode);
      return async function (...args) {
        return await core.transact(mode, async () => fn.apply(this, args), { ambient: true });
      };
    });
  }

  /** A function that runs `fn(txn, ...args)` in a transaction; what is done with `txn` belongs to it. */
  transactionAsync(fn) {
    callable(fn);
    const core = this.#core;
    return withVariants(this, (mode) => async function (...args) {
      return await core.transact(mode, async (session) => fn.call(this, new Transaction(session), ...args), {
        ambient: false,
      });
    });
  }

  /** Runs a pragma: its rows, or with `simple` the first value of the first one. */
  async pragma(source, options = {}) {
    if (typeof source !== 'string') throw new TypeError('Expected the first argument to be a string');
    const rows = await this.#session.all(`PRAGMA ${source}`, []);
    return options?.simple ? Object.values(rows[0] ?? {})[0] : rows;
  }

  /** Whether integers are BigInt unless a statement says otherwise. */
  defaultSafeIntegers(toggle = true) {
    if (typeof toggle !== 'boolean') throw new TypeError('Expected true or false');
    this.#core.bigints = toggle;
    return this;
  }

  interrupt() {
    this.#core.interrupt();
  }

  async close() {
    await this.#core.close();
  }

  async [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    await this.#core.close();
  }
}

/** Opens a database. */
async function connect(options) {
  const database = new Database(options);
  await database.connect();
  return database;
}

module.exports = { connect, Database, Statement, Transaction };
