// A fetch that tries again.
'use strict';

const RETRIED = new Set([408, 425, 429, 500, 502, 503, 504]);

const pause = (ms, signal) =>
  new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal?.addEventListener('abort', stop, { once: true });
  });

function number(name, value, least) {
  if (typeof value !== 'number' || !(value >= least)) {
    throw new RangeError(`retryFetch: ${name} is ${String(value)}; it must be a number of at least ${least}`);
  }
  return value;
}

/**
 * Makes a `fetch` that tries again when the network failed or the server was not able to answer (408, 425, 429, 5xx).
 * The pause before the second attempt is `delayMs`, and each further one is `backoff` times longer.
 */
function retryFetch(options = {}) {
  const { attempts = 3, delayMs = 500, backoff = 2, fetch: once = globalThis.fetch } = options;
  number('attempts', attempts, 1);
  number('delayMs', delayMs, 0);
  number('backoff', backoff, 0);
  if (typeof once !== 'function') throw new TypeError('retryFetch: fetch must be a function');
  return async function fetchWithRetries(input, init) {
    const signal = init?.signal;
    for (let attempt = 1; ; attempt++) {
      const last = attempt >= attempts;
      try {
        const response = await once(input, init);
        if (last || !RETRIED.has(response.status)) return response;
        await response.body?.cancel();
      } catch (error) {
        if (last || signal?.aborted) throw error;
      }
      await pause(delayMs * backoff ** (attempt - 1), signal);
    }
  };
}

module.exports = { retryFetch };
