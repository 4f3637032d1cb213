//! A SQLite database on object storage: an append-only log of LTX files in Litestream's layout, with one writer at a time.
//!
//! ```text
//! url        a url and the usual environment variables -> a Bucket
//! bucket     the objects of one database: files of the log by level and transactions, the head, nothing else
//! probe      refuses a store whose conditional writes do not hold
//! head       head.json: who may write, where the log begins, which files there are
//! end        what a log has at its end, and who wrote it
//! writer     one PUT for a commit; lost answers are settled; a writer that was replaced stops
//! keeper     compaction and collection, beside the writer
//! branch     a database that begins with a state of another one, whose files it reads
//! reader     the states of a database, their pages, and what changed between them
//! remote     the same as the remote of a replica, which needs no server to read
//! counted    a store whose requests and bytes are counted
//! ```
//!
//! What the objects are, why no committed transaction is lost, and what each step costs is in `docs/object-storage.md`. The rules
//! that everything here rests on:
//!
//! - A file of level 0 holds one transaction and is written with create-if-absent: who wrote the name first has committed.
//! - A transaction counts as committed when its file is there *and* its id is above the floor of the head *and* the writer is
//!   still the head's. A writer that cannot know the last two because it slept looks at the head before it says so.
//! - The head is changed by compare-and-swap only. Nothing is deleted that the head still needs; what the head does not name any
//!   more is of no use to anybody, so deleting it late, or twice, or never, harms nothing.
//!
//! What must never happen in this crate: that a transaction is reported as committed which a reader of the log does not find.
#![forbid(unsafe_code)]

mod branch;
mod bucket;
mod clock;
#[cfg(feature = "cloud")]
mod cloud;
#[cfg(feature = "remote")]
mod counted;
mod end;
mod error;
mod folder;
mod head;
mod hex;
mod hex_id;
mod join;
mod keeper;
mod layout;
mod merge;
mod pieces;
mod places;
mod probe;
mod reader;
#[cfg(feature = "remote")]
mod remote;
mod run;
#[cfg(feature = "cloud")]
mod transfer;
mod upload;
mod url;
mod writer;

pub use branch::{Branch, Branched, Standing};
pub use bucket::{Bucket, Created, Listed};
pub use clock::{Clock, LocalClock, Mark};
pub use end::{End, Wrote};
pub use error::StoreError;
pub use folder::Folder;
pub use head::Head;
pub use keeper::Keeper;
pub use layout::{FileName, Layout, Level};
pub use object_store;
pub use reader::{CacheFolder, Found, ReadOptions, Reader, State, Verified};
#[cfg(feature = "remote")]
pub use remote::BucketRemote;
pub use run::{HeadFile, Parent, Pin, Run};
pub use url::{environment, open, open_existing};
pub use writer::{Begin, Claim, New, Writer};
