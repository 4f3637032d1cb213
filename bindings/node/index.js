'use strict';

const { connect, Database, Transaction } = require('./lib/database.js');
const { SqliteError } = require('./lib/error.js');
const { retryFetch } = require('./lib/retry-fetch.js');

module.exports = { connect, Database, Transaction, SqliteError, retryFetch };
