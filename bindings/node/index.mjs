import sync from './index.js';

export const { connect, Database, Transaction, SqliteError, retryFetch } = sync;
