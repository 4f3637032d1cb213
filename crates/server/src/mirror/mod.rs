//! Serving what a bucket has, without a file of its own: pages, selectors and hydration from the bucket and a cache, SQL from the server that
//! writes. Any number of such servers may serve the same bucket; none of them writes to it.
//!
//! | file | what |
//! |---|---|
//! | `options.rs` | what a server is told: which bucket, and how much of this machine it may use |
//! | `mirrors.rs` | the databases by name |
//! | `states.rs` | the states of one, out of its log |
//! | `forward.rs` | SQL, sent to the writer that the head names |
//!
//! What must never happen here: that a page of one history is given as that of another, or that a request is sent in a circle.

mod forward;
mod mirrors;
mod options;
mod states;

pub(crate) use mirrors::Mirrors;
pub use options::Mirroring;
pub(crate) use states::LogStates;
