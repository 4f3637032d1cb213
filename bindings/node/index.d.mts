// Types of @tursodatabase/sync for ES modules.
export * from './index.js';
