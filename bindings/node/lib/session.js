// A session is a way to use a connection: the database's own, or that of the transaction which has the connection to
// itself. It keeps turns, and has what can be done with SQL: the methods of `Database` and `Transaction` are these.
'use strict';

const { sqliteError, ERROR } = require('./error.js');
const { Lane } = require('./lane.js');
const { taken } = require('./parameters.js');
const { WAIT } = require('./prepared.js');
const { Statement, StatementPromise } = require('./statement.js');

/** Rows that `iterate` reads at a time: few at first, for a loop that is left soon. */
const ITERATE_FIRST = 16;
const ITERATE_MOST = 1024;

const MODES = {
  deferred: 'DEFERRED',
  read: 'DEFERRED',
  concurrent: 'DEFERRED',
  immediate: 'IMMEDIATE',
  write: 'IMMEDIATE',
  exclusive: 'EXCLUSIVE',
};

/** The word of SQL for a mode of transactions. */
function modeWord(mode) {
  if (Object.hasOwn(MODES, mode)) return MODES[mode];
  const known = Object.keys(MODES).map((name) => `'${name}'`);
  throw new TypeError(`unknown transaction mode ${JSON.stringify(mode)}; it must be one of ${known.join(', ')}`);
}

function sqlText(sql) {
  if (typeof sql !== 'string') throw new TypeError(`the SQL must be a string, and is ${typeof sql}`);
  return sql;
}

/** A statement of a batch: a string, `{ sql, args }` or `[sql, args]`. */
function batchItem(item, i) {
  const [sql, args] = typeof item === 'string' ? [item] : Array.isArray(item) ? item : [item?.sql, item?.args];
  if (typeof sql !== 'string') {
    throw new TypeError(`statement ${i + 1} of the batch must be a string, { sql, args } or [sql, args]`);
  }
  return { sql, args: args === undefined ? [] : taken([args]) };
}

class Session {
  #core;
  #lane = new Lane();

  constructor(core) {
    this.#core = core;
  }

  /** The session that a call of now belongs to. */
  get current() {
    return this;
  }

  /** The session that statements made here belong to. */
  get home() {
    return this;
  }

  get database() {
    return this.#core.database;
  }

  get bigints() {
    return this.#core.bigints;
  }

  get queryTimeout() {
    return this.#core.queryTimeout;
  }

  get lane() {
    return this.#lane;
  }

  /** The values of a call, and the time that it may take. */
  call(prepared, args, bound) {
    return this.#core.call(prepared, args, bound);
  }

  /** Whether a read can be done at once. */
  get idle() {
    return this.#core.ready && this.#lane.idle && !this.#core.asked;
  }

  // `assertOpen()` of the two kinds of sessions throws unless something may begin, `assertStillOpen()` unless what has waited
  // for its turn may continue.

  /** Learns that something has ended, with an error or without; a transaction may have gone with it. */
  ended() {}

  /** Runs work when it is its turn. */
  async turn(work) {
    this.assertOpen();
    await this.#lane.acquire(this.#core.patience);
    try {
      this.assertStillOpen();
      if (!this.#core.ready) await this.#core.connected();
      const result = await work();
      this.ended();
      return result;
    } catch (error) {
      this.ended(error);
      throw error;
    } finally {
      this.#lane.release();
    }
  }

  /** Reads on this thread: the answer, or WAIT where it has to be a turn. */
  here(read) {
    if (!this.idle) return WAIT;
    try {
      return read();
    } catch (error) {
      this.ended(error);
      throw error;
    }
  }

  /** Compiles a statement; the caller closes it. */
  async prepare(sql) {
    this.assertOpen();
    const prepared = this.idle ? this.#core.prepareHere(sql) : undefined;
    return prepared ?? (await this.turn(() => this.#core.prepare(sql)));
  }

  /** Compiles a statement for the application. */
  statement(sql) {
    const make = async () => new Statement(this.home, await this.prepare(sqlText(sql)));
    return StatementPromise.of(make());
  }

  #shape() {
    return { raw: false, pluck: false, bigints: this.bigints };
  }

  #rows(sql, args, here, there) {
    const core = this.#core;
    const shape = this.#shape();
    let given;
    try {
      sqlText(sql);
      const rows = this.here(() => {
        const prepared = core.cached(sql);
        return prepared === undefined ? WAIT : prepared[here](core.call(prepared, args).values, shape);
      });
      if (rows !== WAIT) return Promise.resolve(rows);
      given = taken(args);
    } catch (error) {
      return Promise.reject(error);
    }
    return this.turn(async () => {
      const prepared = await core.prepareCached(sql);
      const { values, timeout } = core.call(prepared, given);
      return await prepared[there](values, shape, timeout);
    });
  }

  get(sql, args) {
    return this.#rows(sql, args, 'getHere', 'get');
  }

  all(sql, args) {
    return this.#rows(sql, args, 'allHere', 'all');
  }

  async run(sql, args) {
    sqlText(sql);
    const given = taken(args);
    return await this.turn(async () => {
      const prepared = await this.#core.prepareCached(sql);
      const { values, timeout } = this.#core.call(prepared, given);
      return await prepared.run(values, timeout);
    });
  }

  rows(sql, args) {
    return this.#rowsOf(sql, taken(args));
  }

  async *#rowsOf(sql, args) {
    const prepared = await this.prepare(sqlText(sql));
    const { values, timeout } = this.#core.call(prepared, args);
    yield* this.iterate(prepared, values, this.#shape(), timeout);
  }

  /** Yields the rows of a statement and closes it. Between batches others have their turn. */
  async *iterate(prepared, values, shape, timeout) {
    try {
      let from = values;
      for (let limit = ITERATE_FIRST; ; limit = Math.min(limit * 4, ITERATE_MOST)) {
        const { rows, done, error } = await this.turn(async () => {
          const batch = await prepared.batch(from, shape, limit, timeout);
          if (batch.error !== undefined) this.ended(batch.error);
          return batch;
        });
        yield* rows;
        if (error !== undefined) throw error;
        if (done) return;
        from = undefined;
      }
    } finally {
      prepared.close();
    }
  }

  /** Runs a script; its rows are thrown away. */
  async exec(sql, options) {
    sqlText(sql);
    const timeout = this.#core.callTimeout(options);
    await this.turn(() => this.#core.exec(sql, timeout));
  }

  /** Runs statements in one transaction: all of them or none. */
  async batch(items, options = 'deferred') {
    if (!Array.isArray(items)) throw new TypeError('a batch is an array of statements');
    const { mode = 'deferred', raw = false } = typeof options === 'string' ? { mode: options } : options;
    const word = modeWord(mode);
    const statements = items.map(batchItem);
    if (statements.length === 0) return [];
    const core = this.#core;
    return await this.turn(async () => {
      const inside = core.inTransaction;
      await core.exec(inside ? 'SAVEPOINT turso_batch' : `BEGIN ${word}`);
      try {
        const results = [];
        for (const [i, { sql, args }] of statements.entries()) {
          results.push(await this.#batched(sql, args, raw));
          if (!core.hasTransaction) {
            throw sqliteError(`statement ${i + 1} has ended the transaction of the batch; the rest was not run`, ERROR);
          }
        }
        await core.exec(inside ? 'RELEASE turso_batch' : 'COMMIT');
        return results;
      } catch (error) {
        await (inside ? core.undoAfter('turso_batch') : core.undo());
        throw error;
      }
    });
  }

  async #batched(sql, args, raw) {
    const prepared = await this.#core.prepareCached(sql);
    const { values } = this.#core.call(prepared, args);
    if (!prepared.reader) {
      const { changes } = await prepared.run(values, this.queryTimeout);
      return { columns: [], columnTypes: [], rows: [], rowsAffected: changes };
    }
    const rows = await prepared.all(values, { ...this.#shape(), raw }, this.queryTimeout);
    return {
      columns: prepared.columns.map((column) => column.name),
      columnTypes: prepared.columns.map((column) => (column.decltype ?? '').toUpperCase()),
      rows,
      rowsAffected: prepared.readonly ? 0 : rows.length,
    };
  }
}

module.exports = { Session, modeWord };
