//! Following a SQLite file, as Litestream does: snapshots of its committed states, no matter who commits, and the revisions
//! that the page history gives them.
//!
//! Never writes a page of the database and never blocks a reader or a writer of it for longer than SQLite itself does.

mod comparing;
mod follower;
mod frames;
mod header;
mod log;
mod logged;
mod partial;
mod snapshot;
mod source;
mod states;

pub(crate) use comparing::compare_all;
pub use follower::{Current, Follower, FollowerState};
pub use header::WalIndexHeader;
pub(crate) use log::{AttachLog, Attached, File, Pages, RevisionLog};
pub(crate) use logged::LoggedStates;
pub(crate) use partial::{CopyFolder, Missing, PartialFile};
pub use snapshot::Snapshot;
pub use source::{FileStamp, Place, SourceFiles};
pub(crate) use source::{as_immutable, may_be_database};
