import sync from './index.js';

export const { connect, Database, Statement, Transaction, SqliteError, retryFetch } = sync;
