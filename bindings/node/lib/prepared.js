// A compiled statement without any waiting for turns: anyone who calls this has the connection's lane.
//
// A read is tried on this thread first, where it may go as far as nothing has to be waited for. What would wait (a page
// that is not here, a lock, much work) is started over on a worker, which hands over batches of rows: while this thread
// makes objects of one, the worker reads the next ones.
'use strict';

const { HEADER, encode, encodeRead, reserve, Rows, decode, header } = require('./codec.js');
const { check, failureOf, sqliteError, INTERRUPT } = require('./error.js');
const { Parameters } = require('./parameters.js');

const DONE = 0;
const MORE = 1;
const WOULD_WAIT = 2;
const HAS_BYTES = 1;
const NEW_COLUMNS = 2;

/** Rows that this thread reads at most before a worker continues. */
const HERE = 256;
/** Rows of a worker's batch, the first one being small. */
const FIRST_BATCH = 256;
const BATCH = 2048;
/** Batches that are asked for before the first of them was taken. */
const AHEAD = 3;
/** After a read that would have waited, or that gave much, so many go to a worker at once. */
const ON_WORKER = 8;
/** Much: so many characters of text or bytes of blobs. */
const LARGE = 256 * 1024;

/** What the answer is when it has to come from a worker. */
const WAIT = Symbol('wait');

const BIGINTS = 1;
const PLUCK = 2;

class Prepared {
  #work;
  #database;
  #native;
  #rows;
  #columns;
  #isQuery;
  /** How many of the next reads go to a worker without being tried here. */
  #onWorker = 0;

  constructor(work, database, native, source) {
    this.#work = work;
    this.#database = database;
    this.#native = native;
    this.source = source;
    this.readonly = native.readonly;
    this.#isQuery = native.isQuery;
    this.parameters = new Parameters(native.parameters());
    this.#use(native.columns());
  }

  #use(columns) {
    this.#columns = columns;
    this.#rows = new Rows(columns.map((column) => column.name));
  }

  get columns() {
    return this.#columns;
  }

  get reader() {
    return this.#columns.length > 0;
  }

  #bits(shape) {
    return (shape.bigints ? BIGINTS : 0) | (shape.pluck ? PLUCK : 0);
  }

  /** Reads at most `limit` rows on this thread; gives the status. */
  #read(values, shape, limit) {
    if (!this.#isQuery) return WOULD_WAIT;
    if (this.#onWorker > 0) {
      this.#onWorker -= 1;
      return WOULD_WAIT;
    }
    const { words, texts, blobs } = encodeRead(values, this.#columns.length, this.#bits(shape), limit);
    const text = this.#native.readHere(words, texts, blobs);
    const { status } = header;
    if (status === WOULD_WAIT) {
      this.#onWorker = ON_WORKER;
      return status;
    }
    const { flags } = header;
    if ((flags & NEW_COLUMNS) !== 0) this.#use(this.#native.columnsNow());
    const bytes = (flags & HAS_BYTES) === 0 ? undefined : this.#native.takeBytes();
    if (text.length > LARGE || bytes?.length > LARGE) this.#onWorker = ON_WORKER;
    decode(HEADER, text, bytes);
    return status;
  }

  /** The first row if this thread can have it, or WAIT. */
  getHere(values, shape) {
    if (this.#read(values, shape, 1) === WOULD_WAIT) return WAIT;
    return header.rows === 0 ? undefined : this.#rows.maker(shape.raw, shape.pluck, 1)();
  }

  /** All rows if this thread can have them, or WAIT. A long result is left to a worker from the beginning. */
  allHere(values, shape) {
    const rows = [];
    const status = this.#read(values, shape, HERE);
    if (status === WOULD_WAIT) return WAIT;
    if (status === MORE) {
      this.#native.reset();
      this.#onWorker = ON_WORKER;
      return WAIT;
    }
    this.#take(shape, rows, header.rows);
    return rows;
  }

  /** Appends rows that are in the codec's buffer. */
  #take(shape, rows, count) {
    const make = this.#rows.maker(shape.raw, shape.pluck, count);
    for (let i = 0; i < count; i++) rows.push(make());
  }

  /** Asks a worker for rows, from the beginning when there are values. */
  #ask(values, shape, limit, timeout) {
    const { words, count, texts, blobs } = encode(values ?? []);
    const from = values === undefined ? -1 : count;
    return this.#work.start((job) => {
      this.#database.read(job, this.#native, words, from, this.#bits(shape), limit, timeout, texts, blobs);
    });
  }

  /** Appends a batch's rows; gives whether they were the last. */
  #decode({ batch }, shape, rows) {
    if (batch.columns) this.#use(batch.columns);
    if (batch.rows > 0) {
      const text = this.#native.takeBatch(reserve(batch.words));
      decode(0, text, batch.bytes ? this.#native.takeBytes() : undefined);
      this.#take(shape, rows, batch.rows);
    }
    return batch.done;
  }

  /** The first row, by way of a worker. */
  async get(values, shape, timeout) {
    const rows = [];
    const done = this.#decode(check(await this.#ask(values, shape, 1, timeout)), shape, rows);
    if (!done) this.#native.reset();
    return rows[0];
  }

  /** All rows, by way of a worker. */
  async all(values, shape, timeout) {
    // What changes rows has done so when it gives the first one: to fail after that would not be true.
    const end = timeout === undefined || !this.readonly ? undefined : performance.now() + timeout;
    const left = () => (end === undefined ? undefined : Math.max(0, Math.ceil(end - performance.now())));
    const rows = [];
    if (this.#decode(check(await this.#ask(values, shape, FIRST_BATCH, timeout)), shape, rows)) return rows;
    const more = () => this.#ask(undefined, shape, BATCH, left());
    const ahead = Array.from({ length: AHEAD }, more);
    try {
      for (;;) {
        const outcome = await ahead[0];
        ahead.shift();
        if (outcome.batch?.done === false) ahead.push(more());
        if (this.#decode(check(outcome), shape, rows)) return rows;
        if (end !== undefined && performance.now() > end) throw timedOut();
      }
    } finally {
      // After the end, or a failure, the batches that were asked for ahead are empty.
      if (ahead.length > 0) await Promise.all(ahead);
    }
  }

  /** Rows a batch at a time: gives them, and whether they were the last, or else the failure that came after them. */
  async batch(values, shape, limit, timeout) {
    const rows = [];
    if (values !== undefined) {
      const status = this.#read(values, shape, limit);
      if (status !== WOULD_WAIT) {
        this.#take(shape, rows, header.rows);
        return { rows, done: status === DONE };
      }
    }
    const outcome = await this.#ask(values, shape, limit, timeout);
    if (!outcome.batch) check(outcome);
    const done = this.#decode(outcome, shape, rows);
    return { rows, done, error: failureOf(outcome) };
  }

  /** Runs it to its end. */
  async run(values, timeout) {
    const { words, count, texts, blobs } = encode(values);
    const outcome = await this.#work.start((job) => {
      this.#database.run(job, this.#native, words, count, timeout, texts, blobs);
    });
    const { changes, lastInsertRowid } = check(outcome).ran;
    return { changes, lastInsertRowid };
  }

  close() {
    this.#native.close();
  }
}

const timedOut = () => sqliteError('the query took longer than its queryTimeout and was interrupted', INTERRUPT);

module.exports = { Prepared, WAIT };
