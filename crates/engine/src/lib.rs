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

mod capture;
pub mod change;
mod checkpoint;
mod database;
mod discard;
mod error;
mod error_kind;
mod fetch;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod log;
mod look;
mod open;
pub mod options;
mod pull;
mod push;
mod runtime;
mod sql;

pub use database::Database;
pub use discard::LocalChange;
pub use error::{Error, Result, SqliteError};
pub use error_kind::ErrorKind;
pub use fetch::source::is_asked_for_a_statement;
pub use look::{
    hydrate::{HydrateProgress, Hydrated},
    inspect::{Owner, OwnerKind, PageAt, PageMapView, PageRole, PageView},
    stats::Stats,
    verify::{PageDifference, Verified, VerifyProgress},
};
pub use open::options::{Bootstrap, Builder, PartialSync};
pub use partial_sync_core::ChangeId;
pub use runtime::CancelHandle;
pub use sql::{
    connection::{Connection, OptionalRow, Transaction, TransactionBehavior},
    statement::{ColumnIndex, FromRow, Named, Params, Row, Rows, Statement},
};

/// The program in docs/rust.md compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/rust.md")]
struct RustGuide;
