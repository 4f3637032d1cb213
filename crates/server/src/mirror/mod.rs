//! Serving what a bucket has, without a file of its own: pages, selectors and hydration from the bucket and a cache, SQL from the server that
//! writes. Any number of such servers may serve the same bucket, and one of them may become the writer.
//!
//! | file | what |
//! |---|---|
//! | `options.rs` | what a server is told: which bucket, and how much of this machine it may use |
//! | `mirrors.rs` | the databases by name |
//! | `opened.rs` | one of them while it is open |
//! | `succession.rs` | becoming the writer, and when |
//! | `source.rs` | the pages that its working copy lacks |
//!
//! SQL is [sent](crate::forward) to the writer that the head names. What must never happen here: that a page of one history is given as that
//! of another.

mod mirrors;
mod opened;
mod options;
mod source;
mod succession;

pub(crate) use mirrors::Mirrors;
pub use options::{Mirroring, TakeOver};
