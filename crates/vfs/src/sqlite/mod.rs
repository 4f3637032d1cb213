//! Owned, safe wrappers over the part of SQLite's C interface that this project stands on: connections and statements
//! without lifetimes, the preupdate hook, and what the current thread is executing (which the VFS asks in the middle of
//! a read).
//!
//! Everything unsafe about talking to SQLite as a *client* is in this folder; it must never know about replicas, pages
//! or the change log.

pub mod code_names;
mod conn;
pub mod context;
mod deadline;
mod error;
pub mod foreign_keys;
mod limits;
pub mod linear;
pub mod memory;
mod preupdate;
mod stmt;
#[cfg(test)]
mod tests;
mod turns;

pub use conn::{Conn, Held, InterruptHandle, OpenOptions, TxnState, WeakConn};
pub use error::{Error, Result, codes};
pub use preupdate::{PreUpdate, PreUpdateHook, RowChange, check_build};
pub use rusqlite::types::ValueRef;
pub use stmt::{Step, Stmt};
