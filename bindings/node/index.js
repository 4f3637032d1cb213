'use strict';

const { connect, Database, Statement, Transaction } = require('./lib/database.js');
const { SqliteError } = require('./lib/error.js');
const { retryFetch } = require('./lib/retry-fetch.js');

module.exports = { connect, Database, Statement, Transaction, SqliteError, retryFetch };
