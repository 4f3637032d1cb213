//! The native part of the npm package `@tursodatabase/sync`.
