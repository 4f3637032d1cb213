//! Partial sync for SQLite: open and use a remote database without downloading it.
//!
//! A *replica* is a local SQLite database that holds some pages of a remote one. A query that touches a page that is not
//! here fetches it in the middle of that query; writes commit locally, are recorded as logical changes, and are pushed as
//! SQL; a pull moves the replica to a newer revision of the remote and puts unpushed changes back on top.
//!
//! ```no_run
//! use partial_sync::{Bootstrap, Database, PartialSync};
//!
//! # fn main() -> partial_sync::Result<()> {
//! let db = Database::builder("app.db")
//!     .remote("libsql://my-db.example.com")
//!     .auth_token("...")
//!     .partial(PartialSync { bootstrap: Some(Bootstrap::prefix(128 * 1024)), ..PartialSync::default() })
//!     .connect()?;
//! let conn = db.connection()?;
//! let name: String = conn.query_row("SELECT name FROM users WHERE id = ?", (7,), |row| row.get(0))?;
//! conn.execute("UPDATE users SET name = ? WHERE id = ?", ("Ada", 7))?;
//! db.push()?;
//! db.pull()?;
//! # drop(name);
//! # Ok(())
//! # }
//! ```
//!
//! Every call blocks until it is done, with a deadline for whatever may wait; it may be made from any thread, also one of
//! an async runtime. A [`Connection`] belongs to one thread at a time; open as many as there are threads.
#![forbid(unsafe_code)]

mod bootstrap;
mod capture;
pub mod change;
mod connect;
mod connection;
mod database;
mod discard;
mod error;
mod files;
mod functions;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hydrate;
mod hydration;
mod info;
mod inspect;
mod kept;
pub mod log;
mod options;
mod plain;
mod pull;
mod push;
mod putback;
mod recorded;
mod remote;
mod replica;
mod request;
mod runtime;
mod session;
mod sharing;
mod side_files;
mod source;
mod statement;
mod stats;
mod transaction;
mod verify;

pub use connection::{Connection, OptionalRow, Transaction, TransactionBehavior};
pub use database::Database;
pub use discard::LocalChange;
pub use error::{Error, Result, SqliteError};
pub use hydrate::{HydrateProgress, Hydrated};
pub use inspect::{Owner, OwnerKind, PageAt, PageMapView, PageRole, PageView};
pub use options::{Bootstrap, Builder, PartialSync};
pub use partial_sync_core::ChangeId;
pub use runtime::CancelHandle;
pub use source::is_asked_for_a_statement;
pub use statement::{ColumnIndex, FromRow, Named, Params, Row, Rows, Statement};
pub use stats::Stats;
pub use verify::{PageDifference, Verified, VerifyProgress};

/// The program in docs/rust.md compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/rust.md")]
struct RustGuide;
