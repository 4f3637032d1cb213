//! Serving what another remote has, without a file of its own: a cache near its readers, and the way for several processes of a machine to
//! share pages. The revisions that clients get are the origin's own, so that they may ask either of the two.
//!
//! | file | what |
//! |---|---|
//! | `options.rs` | what a server is told: which remote, and how much of this machine it may use |
//! | `origins.rs` | the databases by name |
//! | `states.rs` | the states of one, as the origin tells them |
//! | `gathering.rs` | the pages of a state, from the cache and from the origin |
//! | `asking.rs` | how the origin is asked which states there are |
//! | `fetching.rs` | how it is asked for pages: what several want at a time is asked for once |
//! | `timeline.rs` | which states are known, in their order, and what changed between them |
//! | `cache.rs` | pages, each with the states in which it is the same |
//! | `disk.rs` | those of a file of this machine |
//!
//! What must never happen here: that a page of one state is given as that of another, that a client is told of an older state than the one
//! that it has, or that anything is known of an origin that has another history now.

mod asking;
mod cache;
mod disk;
mod fetching;
mod gathering;
mod options;
mod origins;
mod states;
mod timeline;

pub use options::Origin;
pub(crate) use origins::Origins;
