//! The native part of the npm package `@tursodatabase/sync`: the engine's blocking calls as jobs on worker threads, and
//! rows as packed words. The JavaScript in `lib/` is the package's public face; nothing here is called by users.
//!
//! Node's main thread never waits here. It may run a read by itself, but only as far as nothing has to be waited for.
#![cfg_attr(test, allow(dead_code, reason = "what is exported is called by Node alone"))]

mod callbacks;
mod codec;
mod compiled;
mod database;
mod error;
mod mailbox;
mod messages;
mod mutation;
mod options;
mod pool;
mod shared;
mod statement;
mod tracing_log;
