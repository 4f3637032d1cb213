// Answers what the native part asks: the application's functions `url`, `authToken`, `fetch` and `transform`.
'use strict';

const { encodeApart } = require('./codec.js');
const { within } = require('./context.js');

/** The code of an error that no further attempt will mend. */
const WAITS_FOR_ITSELF = 'ERR_WAITS_FOR_ITSELF';

const message = (error) => {
  if (!(error instanceof Error)) return String(error);
  // What undici's "fetch failed" is about is in its cause.
  const cause = error.cause instanceof Error ? `: ${error.cause.message || error.cause.code || error.cause}` : '';
  return `${error.message}${cause}`;
};

/** A promise where there must be none; what becomes of it concerns nobody any more. */
const unwanted = (value) => {
  if (typeof value?.then !== 'function') return false;
  value.then(undefined, () => {});
  return true;
};

function decided(result) {
  if (unwanted(result)) throw new TypeError('transform must decide at once, and gave a promise');
  if (result === null || result === undefined) return { decision: 'keep' };
  if (result?.operation === 'skip') return { decision: 'skip' };
  if (result?.operation === 'rewrite') {
    const { sql, values = [] } = result.stmt ?? {};
    if (typeof sql !== 'string' || !Array.isArray(values)) {
      throw new TypeError('a rewrite needs stmt: { sql, values } with a string and an array');
    }
    return { decision: 'rewrite', text: sql, ...encodeApart(values) };
  }
  throw new TypeError("transform must give null, { operation: 'skip' } or { operation: 'rewrite', stmt }");
}

/** A change as the application sees it: what does not apply is left out. */
function change({ before, after, updates, ...rest }) {
  return { ...rest, ...(before && { before }), ...(after && { after }), ...(updates && { updates }) };
}

/** The answering side of one database. `reply` gives the native object, unless it was collected. */
class Callbacks {
  #functions;
  #replica;
  #native;
  /** Requests under way, by the question that began each. */
  #transfers = new Map();
  /** Hydrations under way that tell how far they are, by their numbers. */
  #hydrations = new Map();
  #last = 0;

  /** @param replica what calls of the same database are known by */
  constructor(functions, replica) {
    this.#functions = functions;
    this.#replica = replica;
  }

  /** Whom to answer; weakly, since it holds this object. */
  set native(native) {
    this.#native = new WeakRef(native);
  }

  #answer(id, reply) {
    this.#native.deref()?.answer(id, reply);
  }

  /** What the native part calls. */
  asked = (id, question) => {
    switch (question.kind) {
      case 'abort':
        this.#transfers.get(question.about)?.controller.abort();
        this.#transfers.delete(question.about);
        return;
      case 'hydrated':
        this.#hydrated(question.about, question.progress);
        return;
      case 'transform':
        this.#transform(id, question.mutation);
        return;
      case 'read':
        this.#run(id, question, 'fetch', () => this.#read(id, question.about));
        return;
      case 'fetch':
        this.#run(id, question, 'fetch', () => this.#fetch(id, question.request));
        return;
      case 'token':
        this.#run(id, question, 'authToken', async () => this.#text(id, await this.#functions.authToken(), 'authToken'));
        return;
      case 'url':
        this.#run(id, question, 'url', async () => this.#text(id, this.#functions.url(), 'url'));
    }
  };

  /** Does the work of a hydration under a number, so that `progress` hears of it. What it throws ends the work. */
  async hydrating(progress, isQuery, work) {
    if (progress === undefined) return await work();
    const number = ++this.#last;
    const hydration = { progress };
    this.#hydrations.set(number, hydration);
    try {
      const done = await work(number);
      if ('thrown' in hydration) throw hydration.thrown;
      // What was told last may still be on its way.
      const { fetched } = done.hydrated;
      if (hydration.told !== fetched) progress(fetched, isQuery ? 0 : fetched);
      return done;
    } catch (error) {
      throw 'thrown' in hydration ? hydration.thrown : error;
    } finally {
      this.#hydrations.delete(number);
    }
  }

  #hydrated(number, { fetched, other }) {
    const hydration = this.#hydrations.get(number);
    if (hydration === undefined || 'thrown' in hydration) return;
    hydration.told = fetched;
    try {
      hydration.progress(fetched, other);
    } catch (error) {
      hydration.thrown = error;
      this.#native.deref()?.cancel();
    }
  }

  /** Works on an answer. Until it is there, calls of the same database are told that they would wait for themselves. */
  async #run(id, { about, forAStatement }, name, work) {
    const asked = { name, replica: this.#replica, forAStatement, answered: false };
    try {
      await within({ asked }, work);
    } catch (error) {
      this.#transfers.delete(about ?? id);
      this.#answer(id, { error: message(error), last: error?.code === WAITS_FOR_ITSELF });
    } finally {
      asked.answered = true;
    }
  }

  #text(id, value, name) {
    if (value !== null && value !== undefined && typeof value !== 'string') {
      unwanted(value);
      throw new TypeError(`the ${name} function must give a string, and gave ${typeof value}`);
    }
    this.#answer(id, { text: value ?? undefined });
  }

  #transform(id, mutation) {
    try {
      this.#answer(id, decided(this.#functions.transform(change(mutation))));
    } catch (error) {
      this.#answer(id, { error: message(error) });
    }
  }

  async #fetch(id, { url, method, headers, body }) {
    const controller = new AbortController();
    const transfer = { controller, reader: undefined };
    this.#transfers.set(id, transfer);
    const init = { method, headers: Object.fromEntries(headers), body, signal: controller.signal };
    const response = await this.#functions.fetch(url, init);
    if (controller.signal.aborted) unwanted(response?.body?.cancel?.());
    if (typeof response?.status !== 'number') throw new TypeError('it gave no Response');
    transfer.reader = response.body?.getReader?.();
    if (transfer.reader === undefined && typeof response.arrayBuffer === 'function' && response.body !== null) {
      transfer.whole = response;
    }
    this.#answer(id, { status: response.status, headers: [...(response.headers ?? [])] });
  }

  async #read(id, about) {
    const transfer = this.#transfers.get(about);
    let chunk;
    if (transfer?.reader !== undefined) {
      // An empty piece would say that this is the end.
      do {
        ({ value: chunk } = await transfer.reader.read());
      } while (chunk !== undefined && chunk.length === 0);
    } else if (transfer?.whole !== undefined) {
      chunk = new Uint8Array(await transfer.whole.arrayBuffer());
      transfer.whole = undefined;
    }
    if (chunk === undefined) this.#transfers.delete(about);
    this.#native.deref()?.answerChunk(id, chunk ?? new Uint8Array());
  }
}

module.exports = { Callbacks, WAITS_FOR_ITSELF };
