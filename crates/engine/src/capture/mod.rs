//! Records what local transactions change, in the same SQLite transaction.
//!
//! How: SQLite's preupdate hook copies every row that a statement is about to change into a buffer (the hook may not touch
//! the connection). When the statement has ended, the buffer becomes [`Change`]s that wait in memory, and they are written
//! to the log table before anything that could separate them from their statement: before `COMMIT`, before `SAVEPOINT` and
//! `RELEASE`, and when they grow large. `ROLLBACK TO` therefore throws away exactly the waiting ones and SQLite itself the
//! written ones. A statement outside of a transaction is run in one of ours. Everything that changed is recorded as it came
//! out, whatever changed it; rows of virtual tables are told from those of the tables that they are kept in. Schema changes
//! are recorded as their text, and so is a statement on a virtual table whose rows cannot be told, if it does the same
//! wherever it is run.
//!
//! What must never happen here: a change that commits without its record, a record of a change that did not commit, or a
//! change id that is used twice.

mod arguments;
mod attach;
mod by_plan;
pub(crate) mod cause;
pub(crate) mod classify;
mod failed;
pub(crate) mod given;
mod hook;
mod plan;
pub(crate) mod pragma;
mod record;
mod recorder;
mod refusal;
mod repeatable;
mod rows;
mod run;
pub(crate) mod schema;
mod state;
#[cfg(test)]
mod tests;
mod units;
mod virtual_rows;
pub(crate) mod virtual_tables;
mod writer;

pub(crate) use self::{arguments::Arguments, recorder::Capture, state::CaptureOptions};
