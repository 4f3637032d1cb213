//! A replica's database file as SQLite sees it through the VFS: pages that are here are read, pages that are not are
//! asked of the [`PageSource`](crate::PageSource), and nothing that is here is ever overwritten by a fetch.
//!
//! # Who may see which copy of a page
//!
//! The main file holds, for each present page, its content at the base revision (or a newer local one that a checkpoint
//! put there). Three parties touch it:
//!
//! - a *fetch* fills a page that is absent, if the replica is still in the fetch's epoch; otherwise its readers keep the
//!   copy to themselves;
//! - a *checkpoint* writes pages from the WAL, which SQLite only does when no reader needs the older copy;
//! - a *pull* moves the epoch: pages that were filled since it asked "what changed", and pages that the database has no
//!   more, become absent for new readers, and stay as they are for those that began before.
//!
//! A reader belongs to the epoch in which its snapshot began. It may use a present page only if that page became present
//! in its epoch or before ([`PageMap`](partial_sync_core::PageMap)), and checks after reading that this is still so; otherwise it fetches the page at
//! its own revision. `fill` serialises the three writers; readers take no lock.
//!
//! `state` is what a replica is made of, `main_file` reads and writes its database file, `fetch` obtains what is absent (`flight`,
//! `sink`), `durable` says what survives a crash, `gate` is where snapshots begin and the base moves (`bases`). `instance` and
//! `access` say who may change a file of it, `hidden` and `ordinary` what other programs see.

mod access;
mod bases;
mod durable;
mod fetch;
mod flight;
mod gate;
mod hidden;
mod instance;
#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
mod main_file;
mod ordinary;
mod sink;
mod state;

pub use durable::{WalMark, save_page_map};
pub use gate::{NextBase, Stay};
pub use hidden::{HeaderKind, OrdinaryMark, header_kind, hidden, hide_file};
pub(crate) use instance::Instance;
pub(crate) use main_file::Absent;
pub use state::{PageCounts, Replica, ReplicaConfig};
