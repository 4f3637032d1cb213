// A lane lets one operation at a time use a connection, in the order in which they asked.
'use strict';

const { sqliteError, BUSY } = require('./error.js');

class Lane {
  #held = false;
  #turns = 0;
  #waiting = [];

  /** Whether an operation could begin at once. */
  get idle() {
    return !this.#held;
  }

  /** A number for the turn of now; undefined while nobody has one. */
  get turn() {
    return this.#held ? this.#turns : undefined;
  }

  /** Takes the lane, after those who asked before, within `limit` milliseconds. */
  async acquire(limit) {
    if (!this.#held) {
      this.#held = true;
      this.#turns += 1;
      return;
    }
    await new Promise((resolve, reject) => {
      const turn = { resolve, timer: undefined };
      if (limit !== undefined) {
        turn.timer = setTimeout(() => {
          this.#waiting.splice(this.#waiting.indexOf(turn), 1);
          reject(
            sqliteError(
              `waited ${limit} ms for a transaction of this connection to end. Inside a transaction use its own ` +
                'handle; a connection of its own does not wait',
              BUSY,
            ),
          );
        }, limit);
      }
      this.#waiting.push(turn);
    });
  }

  /** Gives the lane to the next one. */
  release() {
    const turn = this.#waiting.shift();
    if (turn === undefined) {
      this.#held = false;
      return;
    }
    this.#turns += 1;
    clearTimeout(turn.timer);
    turn.resolve();
  }
}

module.exports = { Lane };
