// The errors of this package.
'use strict';

const native = require('./native.js');

/** What SQLite, the file system or the remote refused. */
class SqliteError extends Error {
  /**
   * @param {string} message
   * @param {string} code name of the extended result code, such as `SQLITE_CONSTRAINT_UNIQUE`
   * @param {number} [rawCode] the extended result code
   */
  constructor(message, code, rawCode) {
    super(message);
    this.code = code;
    this.rawCode = rawCode;
  }
}
Object.defineProperty(SqliteError.prototype, 'name', { value: 'SqliteError', configurable: true, writable: true });

const ERROR = 1;
const BUSY = 5;
const INTERRUPT = 9;
const ABORT_ROLLBACK = 516;

const KINDS = native.kindsOfErrors();

/** Without a `kind` it is the one that the code stands for. */
function sqliteError(message, rawCode, kind = KINDS.find((known) => known.rawCode === rawCode).kind) {
  const error = new SqliteError(message, native.codeName(rawCode), rawCode);
  error.kind = kind;
  return error;
}

/** What went wrong in a job, if anything. Its stack begins at the caller of `maker`: it has room for ten frames. */
function failureOf(outcome, maker = failureOf) {
  if (!outcome.error) return undefined;
  const error = sqliteError(outcome.error.message, outcome.error.rawCode, outcome.error.kind);
  Error.captureStackTrace(error, maker);
  if (outcome.error.change != null) error.change = outcome.error.change;
  return error;
}

/** Throws what went wrong in a job, so that the stack names who awaits it. */
function check(outcome) {
  if (outcome.error) throw failureOf(outcome, check);
  return outcome;
}

const notOpen = () => new TypeError('The database connection is not open');

module.exports = {
  KINDS,
  SqliteError,
  sqliteError,
  check,
  failureOf,
  notOpen,
  ERROR,
  BUSY,
  INTERRUPT,
  ABORT_ROLLBACK,
};
