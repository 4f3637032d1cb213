//! The remote that this project ships: serves SQLite files as they are, page by page, at any revision that is still
//! kept, together with SQL over HTTP.
#![forbid(unsafe_code)]

pub mod access;
mod admin;
mod app;
pub mod auth;
pub mod backup_file;
mod beside;
mod clock;
mod credentials;
mod database;
mod databases;
mod descriptors;
mod error;
mod file_id;
pub mod follow;
mod forward;
mod front;
pub mod history;
pub mod hrana;
mod ids;
mod in_process;
mod limits;
mod lock;
mod log_states;
mod looks;
mod metrics;
mod mirror;
mod names;
mod new_file;
mod origin;
pub mod pages;
mod places;
mod ready;
mod reload;
mod replicate;
mod request_log;
mod restoring;
mod serve;
mod served;
mod server;
pub mod states;
mod system;
mod tls;
pub mod turns;

/// What SQLite may have of this process's memory, all databases and statements together. For programs: it holds for everything in
/// the process that uses SQLite. Statements of clients that may only read get nothing large when three
/// eighths of it are taken, and end at half; what would need more fails.
pub fn limit_sqlite_memory(bytes: u64) {
    partial_sync_vfs::sqlite::memory::set_limit(bytes);
}

/// Memory of large values goes back to the system when they are gone. For programs: it changes the allocator of the whole process.
pub fn give_back_large_blocks() {
    partial_sync_vfs::sqlite::memory::give_back_large_blocks();
}

/// What is free of the memory that the allocator keeps goes back to the system. For programs, every few seconds.
pub fn give_back_free_blocks() {
    partial_sync_vfs::sqlite::memory::give_back_free_blocks();
}

pub use admin::Admin;
pub use clock::Clock;
pub use error::{HistoryError, ServerError};
pub use front::raise_descriptor_limit;
pub use history::Retention;
pub use in_process::InProcess;
pub use limits::Limits;
pub use mirror::{Mirroring, TakeOver};
pub use new_file::NewFile;
pub use origin::Origin;
pub use replicate::{Durability, Replication};
pub use restoring::{Restored, restore};
pub use server::{BLOCKING_THREADS_WAIT, Server, ServerBuilder, ServerHandle};
