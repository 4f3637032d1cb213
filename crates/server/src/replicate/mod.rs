//! Writing a database's commits to object storage: the file here is the working copy, the log in the bucket is the database.
//!
//! | file | what |
//! |---|---|
//! | `options.rs` | what a server is told: which bucket, and what an answer to a commit waits for |
//! | `attach.rs` | begins a log, or continues one: what the file has and the log has not is found out and put there |
//! | `adopt.rs` | makes the file of a database that a bucket has |
//! | `log.rs` | one transaction of the log for each revision |
//! | `keeping.rs` | compaction and collection beside it |
//!
//! A revision's name is the lineage of the log and the id of its transaction, so every server of the same bucket gives the same
//! names. The page history records a revision first, then the log gets it, then it is published: whatever is cut off in between
//! is found by the next start.
//!
//! What must never happen here: that a revision is published which the log does not have, or that a file is
//! taken for the state of a log which it does not continue.

mod adopt;
mod attach;
mod keeping;
mod log;
mod options;

pub(crate) use log::Log;
pub(crate) use options::Replicator;
pub use options::{Durability, Replication};
