// What the sessions of one database share: the native database, its jobs, and compiled statements that are used again.
'use strict';

const native = require('./native.js');
const { Callbacks, WAITS_FOR_ITSELF } = require('./callbacks.js');
const { places, within } = require('./context.js');
const { check, notOpen, sqliteError, ABORT_ROLLBACK } = require('./error.js');
const { parse, parseCall } = require('./options.js');
const { Prepared } = require('./prepared.js');
const { Session, modeWord } = require('./session.js');
const { Work } = require('./work.js');

/** Compiled statements of one-shot calls that are kept. */
const KEPT = 64;
/** How long a call waits for a transaction of its connection to end, in milliseconds. */
const PATIENCE = 30_000;
/** An interrupt that comes before a step begins is lost; it is repeated this often, in milliseconds. */
const REPEAT = 5;
const WITHOUT_STATEMENTS = 'The supplied SQL string contains no statements';

/** The way to the application's functions. What the native part holds is never collected, and they may hold the database. */
function weakly(callbacks) {
  const weak = new WeakRef(callbacks);
  return (id, question) => weak.deref()?.asked(id, question);
}

const waitsForItself = (name, whom) =>
  Object.assign(
    new TypeError(
      `this would wait for itself: ${whom} of this database waits for what the ${name} function answers. Until it has ` +
        'answered, it cannot use the database; keep what it needs elsewhere',
    ),
    { code: WAITS_FOR_ITSELF },
  );

/** The session of the database itself. Code inside of a `transaction` belongs to that. */
class RootSession extends Session {
  #core;

  constructor(core) {
    super(core);
    this.#core = core;
  }

  get idle() {
    return super.idle && !this.#core.closing;
  }

  assertOpen() {
    this.#core.assertNotClosing();
    this.#core.assertNotAsked();
    // A turn that is free can be taken by anyone.
    if (!this.lane.idle) this.#core.assertNotInside();
  }

  assertStillOpen() {
    this.#core.assertOpen();
  }

  get current() {
    if (this.#core.transactions === 0) return this;
    for (const { session, ambient } of places()) {
      if (ambient && session.belongsTo(this.#core)) return session;
    }
    return this;
  }
}

/** The session of a transaction, until that is over. */
class TransactionSession extends Session {
  #core;
  #home;
  #over = false;
  /** The error that statements get once SQLite's transaction has gone. */
  #gone;

  constructor(core, home) {
    super(core);
    this.#core = core;
    this.#home = home;
  }

  get home() {
    return this.#home ?? this;
  }

  get open() {
    return !this.#over;
  }

  get idle() {
    return super.idle && !this.#over && this.#gone === undefined;
  }

  belongsTo(core) {
    return core === this.#core && !this.#over;
  }

  assertOpen() {
    if (this.#over) throw new TypeError('The transaction has already completed');
    if (this.#gone !== undefined) throw this.#gone;
    this.#core.assertNotAsked();
  }

  assertStillOpen() {
    this.#core.assertOpen();
    this.assertOpen();
  }

  /** What went on has ended: with `error`, or well. Statements that follow must not run without their transaction. */
  ended(error) {
    if (this.#over || this.#gone !== undefined || this.#core.hasTransaction) return;
    const message =
      error === undefined
        ? 'the transaction was ended by a statement of its own function; nothing more belongs to it'
        : `SQLite has rolled this transaction back, because of: ${error.message}. Nothing of it was kept, and it takes no ` +
          'more statements; its function must end';
    this.#gone = sqliteError(message, ABORT_ROLLBACK);
    if (error !== undefined) this.#gone.cause = error;
  }

  /** Throws what SQLite rolled the transaction back for, if it has. */
  assertWhole() {
    if (this.#gone?.cause !== undefined) throw this.#gone.cause;
  }

  /** What the transaction is told to have failed with, when its function threw `error`. */
  failure(error) {
    return this.#gone !== undefined && error === this.#gone ? (error.cause ?? error) : error;
  }

  /** Waits for what was begun, and then lets nothing begin. */
  async finish(work) {
    await this.lane.acquire();
    this.#over = true;
    try {
      return await work();
    } finally {
      this.lane.release();
    }
  }
}

class Core {
  #native;
  #options;
  #connecting;
  #closing;
  #kept = new Map();
  #callbacks;
  /** Pulls, pushes and checkpoints that run or wait, in their order. */
  #remote = [];
  /** How many of them were begun inside of a transaction of this database. */
  #remoteInside = 0;
  /** The last transaction. */
  #transaction;
  /** What this database is told by from others that are open: its file, or itself. */
  #replica;

  constructor(options, database) {
    this.#options = parse(options);
    if (this.#options.tracing !== undefined) native.logToStderr(this.#options.tracing);
    this.work = new Work();
    this.#replica = this.path === ':memory:' ? Symbol(this.path) : native.fullPath(this.path);
    this.#callbacks = new Callbacks(this.#options.functions, this.#replica);
    this.#native = new native.Database(this.#options.native, this.work.settled, weakly(this.#callbacks));
    this.#callbacks.native = this.#native;
    this.database = database;
    this.root = new RootSession(this);
    this.bigints = false;
    this.ready = false;
    /** Nothing begins any more; what was begun continues. */
    this.closing = false;
    this.closed = false;
    /** Transactions that run or wait for their turn. */
    this.transactions = 0;
  }

  get path() {
    return this.#options.native.path;
  }

  get queryTimeout() {
    return this.#options.queryTimeout;
  }

  get patience() {
    return this.transactions > 0 ? PATIENCE : undefined;
  }

  get inTransaction() {
    return this.#native.inTransaction;
  }

  /** Whether a transaction is open that SQLite has not rolled back by itself. */
  get hasTransaction() {
    return this.#native.inTransaction && !this.#native.transactionIsLost;
  }

  assertOpen() {
    if (this.closed) throw notOpen();
  }

  assertNotClosing() {
    if (this.closing) throw notOpen();
  }

  /** Opens the database, once; after a failure it is tried again. */
  async connected() {
    this.assertOpen();
    if (this.ready) return;
    this.assertNotAsked();
    this.#connecting ??= this.work.start((job) => this.#native.connect(job));
    const connecting = this.#connecting;
    const outcome = await connecting;
    if (outcome.error && this.#connecting === connecting) this.#connecting = undefined;
    check(outcome);
    this.ready = true;
  }

  /** Compiles a statement on this thread; undefined when that would wait, or fails. */
  prepareHere(sql) {
    const statement = this.#native.prepareHere(sql);
    return statement ? new Prepared(this.work, this.#native, statement, sql) : undefined;
  }

  /** Compiles a statement. */
  async prepare(sql) {
    const here = this.prepareHere(sql);
    if (here !== undefined) return here;
    if (!native.hasStatement(sql)) throw new RangeError(WITHOUT_STATEMENTS);
    const { statement } = check(await this.work.start((job) => this.#native.prepare(job, sql)));
    return new Prepared(this.work, this.#native, statement, sql);
  }

  #keep(sql, prepared) {
    this.#kept.set(sql, prepared);
    if (this.#kept.size > KEPT) {
      const [[oldest, unused]] = this.#kept;
      this.#kept.delete(oldest);
      unused.close();
    }
    return prepared;
  }

  /** The kept statement, or one that is compiled on this thread; undefined when that would wait, or fails. */
  cached(sql) {
    const kept = this.#kept.get(sql);
    if (kept !== undefined) {
      // The last used one is the last.
      this.#kept.delete(sql);
      this.#kept.set(sql, kept);
      return kept;
    }
    const prepared = this.prepareHere(sql);
    return prepared && this.#keep(sql, prepared);
  }

  /** The kept statement, or one that is compiled. */
  async prepareCached(sql) {
    return this.cached(sql) ?? this.#keep(sql, await this.prepare(sql));
  }

  /** The options at the end of a call's arguments. */
  callTimeout(options) {
    return (options === undefined ? undefined : parseCall(options)) ?? this.queryTimeout;
  }

  /** The values of a call, and the time that it may take. */
  call({ parameters }, args, bound) {
    const { values, timeout = this.queryTimeout } = parameters.call(args, bound);
    return { values, timeout };
  }

  async exec(sql, timeout) {
    check(await this.work.start((job) => this.#native.exec(job, sql, timeout)));
  }

  /** A pull, push or checkpoint, which needs no turn, but goes after those that were begun before. */
  async remotely(operation, ...values) {
    this.assertNotClosing();
    const asked = this.#asked();
    if (asked !== undefined) throw waitsForItself(asked.name, 'a query, pull or push');
    if (!this.ready) await this.connected();
    this.#remote.push(operation);
    const inside = [...places()].some(({ session }) => session?.belongsTo(this)) ? 1 : 0;
    this.#remoteInside += inside;
    try {
      return check(await this.work.start((job) => this.#native[operation](job, ...values)));
    } finally {
      this.#remoteInside -= inside;
      this.#remote.splice(this.#remote.indexOf(operation), 1);
    }
  }

  /** Fetches absent pages. */
  async hydrate(query, progress) {
    const { hydrated } = await this.#callbacks.hydrating(progress, query !== undefined, (number) =>
      this.remotely('hydrate', query, number),
    );
    return { fetched: hydrated.fetched, absent: hydrated.other };
  }

  /** The statistics, which wait for nothing that is under way. */
  async stats() {
    this.assertNotClosing();
    await this.connected();
    const { stats } = check(await this.work.start((job) => this.#native.stats(job)));
    const camel = (name) => name.replaceAll(/_./g, (part) => part[1].toUpperCase());
    return Object.fromEntries(Object.entries(JSON.parse(stats)).map(([name, value]) => [camel(name), value]));
  }

  /** Throws inside of a transaction of this database, which what would wait for its end must not be a part of. */
  assertNotInside() {
    for (const { session } of places()) {
      if (session?.belongsTo(this)) {
        throw new TypeError(
          'this would wait for the end of the transaction that it is a part of. Inside of transactionAsync((txn) => ...) ' +
            'use the handle, as in txn.run(...); close the database after the transaction',
        );
      }
    }
  }

  /** The function of this database that the running code is inside of, and that has not answered. */
  #asked() {
    for (const { asked } of places()) if (asked?.replica === this.#replica && !asked.answered) return asked;
    return undefined;
  }

  /** Whether the running code must not use the connection: a statement, or a transaction, waits for it. */
  get asked() {
    const asked = this.#asked();
    return asked !== undefined && (asked.forAStatement || this.#remoteInside > 0 || !this.ready);
  }

  /** Throws when the running code would wait for what waits for it. */
  assertNotAsked() {
    if (this.asked) throw waitsForItself(this.#asked().name, 'a query or transaction');
  }

  /** Runs `body` in a transaction of its own, which the session that it is given stands for. */
  async transact(mode, body, { ambient }) {
    const word = modeWord(mode);
    for (const { session } of places()) {
      if (session?.belongsTo(this)) throw sqliteError('cannot start a transaction within a transaction', 1);
    }
    this.assertOpen();
    this.transactions += 1;
    try {
      return await this.root.turn(async () => {
        const session = new TransactionSession(this, ambient ? this.root : undefined);
        this.#transaction = session;
        let begun = false;
        try {
          await this.exec(`BEGIN ${word}`);
          begun = true;
          const result = await within({ session, ambient }, () => body(session));
          await session.finish(async () => {
            session.assertWhole();
            await this.exec('COMMIT');
          });
          return result;
        } catch (error) {
          if (session.open) await session.finish(() => {});
          if (begun) await this.undo();
          throw session.failure(error);
        }
      });
    } finally {
      this.transactions -= 1;
    }
  }

  /** Undoes the transaction that is open, if one is. Also an interrupt does not keep it open: it would take in what comes next. */
  async undo() {
    check(await this.work.start((job) => this.#native.undoTransaction(job)));
  }

  /** Undoes what came after a savepoint, where there is one. Also an interrupt does not keep it. */
  async undoAfter(savepoint) {
    check(await this.work.start((job) => this.#native.undoAfter(job, savepoint)));
  }

  /** Breaks what runs now: statements, and what goes between the database and its remote. */
  interrupt() {
    const { lane } = this.#transaction?.open ? this.#transaction : this.root;
    const { turn } = lane;
    const strike = () => {
      this.#native.interrupt();
      this.#native.cancel();
    };
    this.#strike(strike, () => turn !== undefined && lane.turn === turn);
  }

  /** Strikes until the jobs of now have ended, and `more` does not hold. */
  #strike(strike, more = () => false) {
    strike();
    const jobs = this.work.underWay;
    const timer = setInterval(() => {
      if (more() || this.work.anyOf(jobs)) strike();
      else clearInterval(timer);
    }, REPEAT);
  }

  /** Closes the database after what was begun before; a pull or a first connect is broken off. */
  async close() {
    if (this.#closing === undefined) {
      if (!this.root.lane.idle) this.assertNotInside();
      const asked = this.#asked();
      if (asked !== undefined) throw waitsForItself(asked.name, 'a query, pull or push');
      this.#closing = this.#close();
    }
    await this.#closing;
  }

  async #close() {
    this.closing = true;
    const connecting = this.#connecting !== undefined && !this.ready;
    if (connecting || this.#remote[0] === 'pull') this.#strike(() => this.#native.cancel());
    // A transaction that does not end in time is rolled back by the end of its connection.
    const ended = await this.root.lane.acquire(this.patience).then(
      () => true,
      () => false,
    );
    this.closed = true;
    this.ready = false;
    if (ended) this.root.lane.release();
    this.#kept.clear();
    check(await this.work.start((job) => this.#native.close(job)));
  }
}

module.exports = { Core };
