// Runs a program with this package and then with better-sqlite3, and compares what every step gave and the databases that
// are left. What differs on purpose is in docs/node.md; `DIFFERENCES` has what is done about each of them here.
//
// What a limit of time, an interrupt or a fault breaks off depends on the moment. This package goes first, and the reference
// leaves out what it has reported as failed: that nothing else was left out shows in the databases.
import { createRequire } from 'node:module';
import path from 'node:path';
import { connect } from '../../index.mjs';
import { SCHEMA } from './programs.mjs';

/** The reference; undefined where scripts/test-node has not installed it. */
export function reference() {
  try {
    return createRequire(import.meta.url)('better-sqlite3');
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error;
    return undefined;
  }
}

/**
 * The deliberate differences by the names that docs/node.md gives them, and what is done about them: a function that brings
 * the reference to the same, or how the runner below or the programs take account of it.
 */
export const DIFFERENCES = {
  integers: (value) => (Number.isInteger(value) && !Object.is(value, -0) && Math.abs(value) < 2 ** 63 ? BigInt(value) : value),
  'booleans and dates': (value) => (typeof value === 'boolean' ? BigInt(value) : value instanceof Date ? String(value) : value),
  lists: (list) => Symbol(`a list among the values: ${list}`),
  'numbered parameters': 'the programs have none',
  'any method': 'the reference uses the method that it allows',
  'the first statement': 'the programs have one statement in a text, except for exec',
  'bound values': 'the programs bind none',
  'no lock by iterators': (db) => db.unsafeMode(true),
  'no nesting': 'the reference is not asked',
  'no halves': 'the reference is not asked',
  'the whole statement': 'the reference reads all rows',
  'as SQLite has it': (db) => db.exec('PRAGMA foreign_keys = OFF; PRAGMA recursive_triggers = OFF'),
  'a changed schema': 'the reference leaves out what has failed so',
  'rows read ahead': (rows) => new ReadAhead(rows),
  columns: 'not compared',
  'not there': 'not compared',
};

function shown(value) {
  if (typeof value === 'bigint') return `${value}n`;
  if (Object.is(value, -0)) return '-0';
  if (value instanceof Uint8Array) return `x'${Buffer.from(value).toString('hex')}'`;
  if (Array.isArray(value)) return value.map(shown);
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value).map(([name, content]) => [name, shown(content)]);
  }
  return value;
}

const failed = (error) => ({ error: [error.name, error.code ?? null].join(' '), message: error.message });
const outcomeOf = (value) => ({ value: value === undefined ? 'nothing' : shown(value) });

/** What an interrupt, a limit of time or a fault makes of a call. */
const BROKEN_OFF = /^SQLITE_(?:INTERRUPT|IOERR)/;

class Stopped extends Error {}

// ---- this package ----

class Package {
  constructor(given, options) {
    this.given = given;
    this.options = options;
    this.trace = [];
    this.fault = undefined;
  }

  async open() {
    const { options } = this;
    this.db = await connect(
      options.url === undefined
        ? { path: options.path }
        : {
            path: options.path,
            url: options.url,
            authToken: () => this.token(),
            partialSyncExperimental: { bootstrapStrategy: { kind: 'prefix', length: 4096 }, segmentSize: 32768 },
          },
    );
    this.slots = new Map();
    this.iterators = new Map();
  }

  async token() {
    if (this.fault === 'throws') throw new Error('no token today');
    if (this.fault === 'gives a number') return 7;
    if (this.fault === 'reads itself') await this.db.get('SELECT 1');
    return '';
  }

  async start() {
    await this.open();
    if (this.given.kind === 'wal') await this.db.pragma('journal_mode = WAL');
    if (this.given.kind === 'memory') await this.db.exec(SCHEMA);
    await this.db.pragma(`foreign_keys = ${this.given.foreignKeys ? 'ON' : 'OFF'}`);
    for (const step of this.given.steps) await this.step(step, this.db).catch(() => {});
    return this.trace;
  }

  /** Runs a step; notes what it gave, and throws what it threw. */
  async step(step, to, handle = this.db) {
    const entry = { do: step.do, mayFail: false };
    this.trace.push(entry);
    try {
      const value = await this.perform(step, to, entry, handle);
      Object.assign(entry, outcomeOf(value));
      // Rows that were read ahead and not asked for may have met a page that could not be fetched.
      if (entry.mayFail && step.call?.do.endsWith('iterate')) entry.lost = await this.isLost(to);
    } catch (error) {
      Object.assign(entry, failed(error));
      if (this.options.url !== undefined && error.code === 'SQLITE_SCHEMA') entry.mayFail = true;
      // What is wrong by itself is so with the reference too, and may leave something: `OR FAIL` does.
      else if (!BROKEN_OFF.test(error.code) && error.kind !== 'callback') entry.mayFail = false;
      // Whether SQLite has rolled back shows in the next statement.
      if (entry.mayFail) entry.lost = await this.isLost(to);
      throw error;
    } finally {
      entry.inTransaction = this.db.inTransaction;
    }
  }

  isLost(to) {
    return to.all('SELECT 1').then(() => false, ({ code }) => code === 'SQLITE_ABORT_ROLLBACK');
  }

  async rows(call, method, take, args) {
    if (method !== 'iterate') return await call[method](...args);
    const rows = [];
    for await (const row of call.iterate(...args)) {
      rows.push(row);
      if (rows.length >= take) break;
    }
    return rows;
  }

  async perform(step, to, entry, handle) {
    const { slots, iterators } = this;
    switch (step.do) {
      case 'run': case 'get': case 'all': case 'iterate':
        return await this.rows(to, step.do, step.take, [step.sql, ...step.args]);
      case 'exec':
        return void (await to.exec(step.sql));
      case 'prepare': {
        slots.delete(step.slot);
        const statement = await to.prepare(step.sql);
        slots.set(step.slot, { statement, args: step.args, to });
        return undefined;
      }
      case 'statement.run': case 'statement.get': case 'statement.all': case 'statement.iterate': {
        const slot = slots.get(step.slot);
        // The statement of another handle waits for this transaction.
        if (slot === undefined || (slot.to !== to && handle !== this.db)) return 'no statement';
        return await this.rows(slot.statement, step.do.slice(10), step.take, slot.args);
      }
      case 'raw': case 'pluck': case 'safeIntegers':
        slots.get(step.slot)?.statement[step.do](step.on);
        return undefined;
      case 'defaultSafeIntegers':
        return void this.db.defaultSafeIntegers(step.on);
      case 'pragma':
        return handle === this.db ? await this.db.pragma(step.source, { simple: step.simple }) : 'not here';
      case 'batch':
        return (await to.batch(step.items.map(({ sql, args }) => ({ sql, args: args.length === 1 && typeof args[0] === 'object' && args[0]?.constructor === Object ? args[0] : args })), step.mode)).map(({ rows }) => rows);
      case 'limited': {
        entry.mayFail = true;
        if (step.how === 'timeout') return await to.all(step.sql, ...step.args, { queryTimeout: step.ms });
        const running = to.all(step.sql, ...step.args);
        running.catch(() => {});
        for (let i = 0; i < step.ticks; i++) await new Promise(setImmediate);
        this.db.interrupt();
        return await running;
      }
      case 'fault':
        entry.mayFail = this.options.url !== undefined;
        this.fault = step.fault;
        try {
          return await this.rows(to, step.call.do, step.call.take, [step.call.sql, ...step.call.args]);
        } finally {
          this.fault = undefined;
        }
      case 'transaction': case 'transactionAsync': {
        let own;
        const body = async (inner) => {
          for (const one of step.body) {
            await this.step(one, inner, step.do === 'transaction' ? this.db : inner).catch((error) => {
              if (!one.caught) throw error;
            });
          }
          if (step.throws) throw (own = new Stopped('its own'));
          return 'done';
        };
        const run = step.do === 'transaction' ? this.db.transaction(() => body(this.db)) : this.db.transactionAsync(body);
        return await run[step.mode]().catch((error) => {
          if (error === own) return 'stopped';
          throw error;
        });
      }
      case 'open': {
        await iterators.get(step.slot)?.return();
        iterators.set(step.slot, to.iterate(step.sql, ...step.args));
        return (await iterators.get(step.slot).next()).value;
      }
      case 'next': {
        const rows = [];
        for (let i = 0; i < step.times; i++) rows.push((await iterators.get(step.slot)?.next())?.value ?? 'no row');
        return rows;
      }
      case 'return':
        await iterators.get(step.slot)?.return();
        iterators.delete(step.slot);
        return undefined;
      case 'sync':
        if (this.options.url !== undefined && !this.db.inTransaction) await this.db[step.call]();
        return undefined;
      case 'reopen':
        if (this.given.kind === 'memory') return undefined;
        await this.db.close();
        await this.open();
        await this.db.pragma(`foreign_keys = ${this.given.foreignKeys ? 'ON' : 'OFF'}`);
        return undefined;
      default:
        return void (await to.exec(step.do));
    }
  }
}

// ---- the reference ----

/** An iterator that reads ahead as this package does: so many rows at a time, and what went wrong after them comes last. */
class ReadAhead {
  #rows;
  #most = 16;
  #read = [];
  /** What there is instead of more rows; undefined while there may be more. */
  #end;

  constructor(rows) {
    this.#rows = rows;
  }

  #fill() {
    try {
      while (this.#read.length < this.#most) {
        const { value, done } = this.#rows.next();
        if (done) {
          this.#end = () => {};
          break;
        }
        this.#read.push(value);
      }
    } catch (error) {
      this.#fail(error);
    }
    this.#most = Math.min(this.#most * 4, 1024);
  }

  #fail(error) {
    this.#end = () => {
      this.#end = () => {};
      throw error;
    };
  }

  next() {
    if (this.#read.length === 0 && this.#end === undefined) this.#fill();
    if (this.#read.length === 0) this.#end();
    return { value: this.#read.shift() };
  }

  /** Ends it, as an interrupt does when it has not read to its end. */
  interrupt(code = 'SQLITE_INTERRUPT', message = 'interrupted') {
    if (this.#end !== undefined) return;
    this.#rows.return();
    this.#fail(Object.assign(new Error(message), { entry: { error: `SqliteError ${code}`, message } }));
  }

  return() {
    this.#rows.return();
    this.#read = [];
    this.#end = () => {};
  }
}

const hasRows = (statement) => statement.reader;

class Reference {
  constructor(Database, given, options, theirs) {
    this.Database = Database;
    this.given = given;
    this.options = options;
    this.theirs = theirs;
    this.trace = [];
    /** Why the transaction function that runs takes no more statements. */
    this.gone = undefined;
    /** Whether a transaction that was begun by hand is one that SQLite has rolled back. */
    this.lost = false;
    this.depth = 0;
  }

  open() {
    this.db = new this.Database(this.options.path);
    DIFFERENCES['as SQLite has it'](this.db);
    DIFFERENCES['no lock by iterators'](this.db);
    this.slots = new Map();
    this.iterators = new Map();
  }

  start() {
    this.open();
    if (this.given.kind === 'wal') this.db.pragma('journal_mode = WAL');
    if (this.given.kind === 'memory') this.db.exec(SCHEMA);
    this.bigints = false;
    this.db.pragma(`foreign_keys = ${this.given.foreignKeys ? 'ON' : 'OFF'}`);
    for (const step of this.given.steps) {
      try {
        this.step(step);
      } catch (error) {
        if (!(error instanceof Error)) throw error;
      }
    }
    return this.trace;
  }

  step(step) {
    const ours = this.theirs[this.trace.length];
    const entry = { do: step.do };
    const open = this.db.inTransaction;
    this.trace.push(entry);
    try {
      Object.assign(entry, outcomeOf(this.follow(step, ours)));
    } catch (error) {
      Object.assign(entry, error?.entry ?? failed(error));
      throw error;
    } finally {
      if (this.depth === 0 && !this.lost) this.lost = open && !this.db.inTransaction && !ENDS.test(step.do);
      // What has rolled back takes the transaction function with it.
      if (this.depth > 0 && this.gone === undefined && !this.db.inTransaction && !['transaction', 'transactionAsync'].includes(step.do)) {
        this.gone = entry.error === undefined ? 'ended' : { error: entry.error, message: entry.message };
      }
      entry.inTransaction = this.db.inTransaction || this.lost || (this.gone !== undefined && this.gone !== 'ended');
    }
  }

  follow(step, ours) {
    if (step.do === 'limited' && step.how === 'interrupt') for (const iterator of this.iterators.values()) iterator.interrupt();
    // The first write of a replica makes its change log: what undoes it undoes a change of the schema.
    const isUndone = step.do === 'next' && this.given.kind === 'replica' && ours?.message === 'abort due to ROLLBACK';
    if (isUndone) this.iterators.get(step.slot)?.interrupt('SQLITE_ABORT_ROLLBACK', ours.message);
    if (this.depth === 0 && this.lost && !this.isPure(step)) return this.followLost(step, ours);
    if (this.depth > 0 && this.gone !== undefined && !this.isPure(step)) {
      if (step.do === 'prepare') this.slots.delete(step.slot);
      if (step.do.startsWith('statement.')) this.lookAtHandle(this.slots.get(step.slot));
      throw this.refused();
    }
    if (ours?.mayFail && ours.error !== undefined) {
      const open = this.db.inTransaction;
      const value = { entry: { error: ours.error, message: ours.message } };
      if (open && ours.lost) this.db.exec('ROLLBACK');
      throw Object.assign(new Error(ours.message), value);
    }
    const value = this.perform(step);
    if (ours?.lost) this.db.exec('ROLLBACK');
    return value;
  }

  /** A step of a transaction that was begun by hand and that SQLite has rolled back: refused, until one ends it. */
  followLost(step, ours) {
    // A text without a statement has nothing to refuse.
    if (step.do === 'prepare' || (step.do === 'exec' && step.sql === '')) return this.perform(step);
    if (step.do === 'reopen') {
      this.lost = this.given.kind === 'memory';
      return this.perform(step);
    }
    if (step.do === 'open') {
      this.iterators.get(step.slot)?.return();
      this.iterators.delete(step.slot);
    }
    if (step.do === 'ROLLBACK' || step.do === 'COMMIT') this.lost = false;
    if (step.do === 'ROLLBACK' || step.do === 'ROLLBACK TO s') return undefined;
    if (step.do === 'RELEASE s' && ours?.inTransaction === false) this.lost = false;
    // What is wrong by itself is found first.
    if (ours?.error !== undefined && !/ABORT_ROLLBACK/.test(ours.error)) {
      throw Object.assign(new Error(ours.message), { entry: { error: ours.error, message: ours.message } });
    }
    throw this.refused();
  }

  /** Whether a step needs no transaction. */
  isPure(step) {
    if (this.depth === 0 && /^(?:transaction|open$)/.test(step.do)) return false;
    if (PURE.has(step.do) || (step.do === 'pragma' && this.handle !== undefined)) return true;
    return step.do === 'batch' ? step.items.length === 0 : this.noStatement(step);
  }

  /** Whether a step is about a statement that is not there, or that waits for the transaction which is running. */
  noStatement({ do: what, slot }) {
    const kept = this.slots.get(slot);
    return what.startsWith('statement.') && (kept === undefined || (kept.handle !== this.handle && this.handle !== undefined));
  }

  refused() {
    return Object.assign(new Error('refused'), { entry: { error: 'SqliteError SQLITE_ABORT_ROLLBACK', message: 'refused' } });
  }

  value(value) {
    return DIFFERENCES.integers(DIFFERENCES['booleans and dates'](value));
  }

  args(args) {
    return args.map((value) => {
      if (args.length > 1 && Array.isArray(value)) return DIFFERENCES.lists(value);
      if (typeof value === 'object' && value?.constructor === Object) {
        return Object.fromEntries(Object.entries(value).map(([name, content]) => [name, this.value(content)]));
      }
      return this.value(value);
    });
  }

  prepare(sql) {
    const statement = this.db.prepare(sql);
    statement.safeIntegers(this.bigints);
    return statement;
  }

  /** Throws when a kept statement was given too few or too many values, or wrong names, which is told before what else is. */
  lookAtValues({ sql, args }) {
    const nulls = (of) => Object.fromEntries(Object.keys(of).map((name) => [name, null]));
    const blank = (value) => (Array.isArray(value) ? value.map(() => null) : value?.constructor === Object ? nulls(value) : null);
    try {
      this.db.prepare(sql).bind(...(args.length === 1 ? args.map(blank) : args.map(() => null)));
    } catch (error) {
      if (error instanceof this.Database.SqliteError) return;
      throw error;
    }
  }

  /** The same, and when the transaction has completed in which it was prepared. */
  lookAtHandle(slot) {
    this.lookAtValues(slot);
    if (slot.handle !== this.handle) throw new TypeError('The transaction has already completed');
  }

  rows(statement, method, take, given) {
    const args = this.args(given);
    if (!hasRows(statement)) {
      const { changes, lastInsertRowid } = statement.run(...args);
      return { run: { changes: Number(changes), lastInsertRowid: Number(lastInsertRowid) }, all: [], iterate: [] }[method];
    }
    const writes = !statement.readonly;
    if (method === 'run') {
      statement.all(...args);
      const { changes, rowid } = this.db.prepare('SELECT changes() AS changes, last_insert_rowid() AS rowid').get();
      return { changes: writes ? changes : 0, lastInsertRowid: rowid };
    }
    if (method === 'get') return writes ? statement.all(...args)[0] : statement.get(...args);
    if (method === 'all') return statement.all(...args);
    const rows = [];
    for (const row of writes ? statement.all(...args) : statement.iterate(...args)) {
      rows.push(row);
      if (rows.length >= take) break;
    }
    return rows;
  }

  call(sql, method, take, args) {
    return this.rows(this.prepare(sql), method, take, args);
  }

  perform(step) {
    const { db, slots, iterators } = this;
    switch (step.do) {
      case 'run': case 'get': case 'all': case 'iterate':
        return this.call(step.sql, step.do, step.take, step.args);
      case 'exec':
        return void db.exec(step.sql);
      case 'prepare':
        slots.delete(step.slot);
        slots.set(step.slot, { statement: this.prepare(step.sql), sql: step.sql, args: step.args, handle: this.handle });
        return undefined;
      case 'statement.run': case 'statement.get': case 'statement.all': case 'statement.iterate': {
        if (this.noStatement(step)) return 'no statement';
        const slot = slots.get(step.slot);
        if (slot.handle !== this.handle) this.lookAtHandle(slot);
        return this.rows(slot.statement, step.do.slice(10), step.take, slot.args);
      }
      case 'raw': case 'pluck': case 'safeIntegers': {
        const statement = slots.get(step.slot)?.statement;
        if (statement !== undefined && (step.do === 'safeIntegers' || hasRows(statement))) statement[step.do](step.on);
        return undefined;
      }
      case 'defaultSafeIntegers':
        this.bigints = step.on;
        return undefined;
      case 'pragma': {
        if (this.handle !== undefined) return 'not here';
        const rows = this.call(`PRAGMA ${step.source}`, 'all', undefined, []);
        return step.simple ? Object.values(rows[0] ?? {})[0] : rows;
      }
      case 'batch': {
        if (step.items.length === 0) return [];
        const inside = db.inTransaction;
        db.exec(inside ? 'SAVEPOINT batch' : `BEGIN ${step.mode}`);
        try {
          const lists = (args) => args.map((value) => (Array.isArray(value) ? DIFFERENCES.lists(value) : value));
          const all = step.items.map(({ sql, args }) => this.call(sql, 'all', undefined, lists(args)));
          db.exec(inside ? 'RELEASE batch' : 'COMMIT');
          return all;
        } catch (error) {
          if (db.inTransaction) db.exec(inside ? 'ROLLBACK TO batch; RELEASE batch' : 'ROLLBACK');
          throw error;
        }
      }
      case 'limited':
        return this.call(step.sql, 'all', undefined, step.args);
      case 'fault':
        return this.call(step.call.sql, step.call.do, step.call.take, step.call.args);
      case 'transaction': case 'transactionAsync':
        return this.transaction(step);
      case 'open': {
        iterators.get(step.slot)?.return();
        iterators.set(step.slot, DIFFERENCES['rows read ahead'](this.prepare(step.sql).iterate(...this.args(step.args))));
        return iterators.get(step.slot).next().value;
      }
      case 'next':
        return Array.from({ length: step.times }, () => iterators.get(step.slot)?.next().value ?? 'no row');
      case 'return':
        iterators.get(step.slot)?.return();
        iterators.delete(step.slot);
        return undefined;
      case 'sync':
        return undefined;
      case 'reopen':
        if (this.given.kind === 'memory') return undefined;
        for (const iterator of iterators.values()) iterator.return();
        db.close();
        this.open();
        this.bigints = false;
        this.db.pragma(`foreign_keys = ${this.given.foreignKeys ? 'ON' : 'OFF'}`);
        return undefined;
      default:
        return void db.exec(step.do);
    }
  }

  transaction(step) {
    const nested = Object.assign(new Error('nested'), { entry: { error: 'SqliteError SQLITE_ERROR', message: 'cannot start a transaction within a transaction' } });
    if (this.depth > 0 || this.db.inTransaction) throw nested;
    const own = new Stopped('its own');
    const handle = step.do === 'transaction' ? undefined : {};
    let thrown;
    const run = this.db.transaction(() => {
      for (const one of step.body) {
        try {
          this.step(one);
        } catch (error) {
          if (!one.caught) throw (thrown = error);
        }
      }
      if (step.throws) throw (thrown = own);
      if (this.gone !== undefined) throw (thrown = this.gone === 'ended'
        ? Object.assign(new Error('ended'), { entry: { error: 'SqliteError SQLITE_ERROR', message: 'cannot commit' } })
        : Object.assign(new Error('gone'), { entry: this.gone }));
      return 'done';
    });
    this.depth += 1;
    this.handle = handle;
    this.gone = undefined;
    try {
      return run[step.mode]();
    } catch (error) {
      if (error === own) return 'stopped';
      // A refusal is told as what it was refused for.
      if (error === thrown && error.entry?.message === 'refused' && this.gone !== 'ended') throw Object.assign(new Error('gone'), { entry: this.gone });
      throw error;
    } finally {
      this.depth -= 1;
      this.handle = undefined;
      this.gone = undefined;
    }
  }
}

/** Steps that a transaction that is gone does not concern. */
const PURE = new Set(['transaction', 'transactionAsync', 'raw', 'pluck', 'safeIntegers', 'defaultSafeIntegers', 'open', 'next', 'return', 'sync']);

/** Steps that end a transaction on purpose. */
const ENDS = /^(?:COMMIT|ROLLBACK|RELEASE s|reopen)$/;

// ---- the comparison ----

const TABLES = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite^_%' ESCAPE '^' " +
  "AND name NOT LIKE 'partial^_sync%' ESCAPE '^' AND name NOT LIKE 'turso^_%' ESCAPE '^' ORDER BY name";

/** The contents of a database by way of a function that gives the rows of a query as arrays. */
export async function contents(all) {
  const dump = {};
  for (const [name, sql] of await all(TABLES)) {
    // No program writes to it, and it is large.
    if (name === 'fixed') {
      dump[name] = [sql, await all('SELECT count(*), sum(i), sum(length(s)) FROM fixed')];
      continue;
    }
    const columns = (await all(`SELECT name FROM pragma_table_info('${name}')`)).map(([column]) => `quote("${column}")`);
    const rowid = /WITHOUT ROWID/i.test(sql) ? '' : 'rowid, ';
    dump[name] = [sql, ...(await all(`SELECT ${rowid}${columns.join(', ')} FROM "${name}" ORDER BY 1, 2`))];
  }
  dump.check = await all('PRAGMA integrity_check');
  dump.version = await all('PRAGMA user_version');
  return dump;
}

/** What is compared of a step. The last rowid tells of an insert that was broken off too. */
const clear = ({ message: _, mayFail: __, lost: ___, ...entry } = {}, rowids) => {
  const text = JSON.stringify(entry);
  return rowids ? text : text.replaceAll(/\["lastInsertRowid",-?\d+\]/g, '');
};

/** Runs a program both ways; `start.copy` makes what it starts from. Gives undefined, or what differs. */
export async function compare(Database, given, { folder, start }) {
  const replica = given.kind === 'replica';
  const local = (name) => (given.kind === 'memory' ? ':memory:' : path.join(folder, `${given.seed}-${name}.db`));
  const ours = new Package(given, { path: local('ours'), url: replica ? start.url : undefined });
  if (given.kind === 'file' || given.kind === 'wal') start.copy(local('ours'));
  const trace = await ours.start();
  for (const iterator of ours.iterators.values()) await iterator.return();
  // A transaction that was left open is not part of what is left.
  if (ours.db.inTransaction) await ours.db.exec('ROLLBACK');
  let left;
  if (given.kind === 'memory' || replica) left = await contents((sql) => ours.db.prepare(sql).raw().safeIntegers(false).all());
  const isOpen = ours.db;
  await isOpen.close();

  const options = { path: local('reference') };
  if (given.kind !== 'memory') start.copy(options.path);
  const theirs = new Reference(Database, given, options, trace);
  const wanted = theirs.start();
  for (const iterator of theirs.iterators.values()) iterator.return();
  if (theirs.db.inTransaction) theirs.db.exec('ROLLBACK');
  const read = (db) => (sql) => db.prepare(sql).raw().all();
  const want = await contents(read(theirs.db));
  theirs.db.close();
  if (left === undefined) {
    const db = new Database(local('ours'));
    left = await contents(read(db));
    db.close();
  }

  let rowids = true;
  for (let i = 0; i < Math.max(trace.length, wanted.length); i++) {
    rowids &&= !(trace[i]?.mayFail && trace[i].error !== undefined);
    if (clear(trace[i], rowids) !== clear(wanted[i], rowids)) {
      return { at: i, ours: trace[i], reference: wanted[i], before: trace.slice(Math.max(0, i - 5), i) };
    }
  }
  for (const name of new Set([...Object.keys(left), ...Object.keys(want)])) {
    const [a, b] = [JSON.stringify(shown(left[name])), JSON.stringify(shown(want[name]))];
    if (a !== b) return { left: name, ours: a?.slice(0, 2000), reference: b?.slice(0, 2000) };
  }
  return undefined;
}
