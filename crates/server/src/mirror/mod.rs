//! Serving what a bucket has, without a file of its own: pages, selectors and hydration from the bucket and a cache, SQL from the server that
//! writes. Any number of such servers may serve the same bucket, and one of them may become the writer.
//!
//! | file | what |
//! |---|---|
//! | `options.rs` | what a server is told: which bucket, and how much of this machine it may use |
//! | `mirrors.rs` | the databases by name |
//! | `opened.rs` | one of them while it is open |
//! | `forward.rs` | SQL, sent to the writer that the head names |
//! | `succession.rs` | becoming the writer, and when |
//! | `source.rs` | the pages that its working copy lacks |
//!
//! What must never happen here: that a page of one history is given as that of another, or that a request is sent in a circle.

mod forward;
mod mirrors;
mod opened;
mod options;
mod source;
mod succession;

pub(crate) use mirrors::Mirrors;
pub use options::{Mirroring, TakeOver};
