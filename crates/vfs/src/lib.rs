//! A SQLite VFS under which a database file may lack most of its pages, and the thin unsafe layer over SQLite that this
//! project needs.
//!
//! - [`replica`]: which pages are here, who may see which copy, how absent ones are obtained;
//! - [`storage`]: the file operations underneath, behind a trait;
//! - [`source`]: where absent pages come from, as a trait: this crate never names HTTP;
//! - [`sqlite`]: owned connections and statements, the preupdate hook, and what the current thread is executing;
//! - [`temporary`]: a quota for temporary files;
//! - `shim`: the C side of the VFS.
//!
//! All unsafe code of the SQLite side lives in this crate, in `shim`, `temporary` and `sqlite`.

pub mod crash;
mod error;
mod forks;
mod locks;
pub mod memory;
mod register;
mod registry;
pub mod replica;
mod shim;
mod side_file;
pub mod source;
pub mod sqlite;
pub mod storage;
mod sync;
pub mod temporary;

pub use error::ReadError;
pub use forks::OpenFile;
pub use locks::HEAD_LEN as WAL_INDEX_HEAD_LEN;
pub use memory::MemoryStorage;
pub use replica::{
    HeaderKind, NextBase, OrdinaryMark, PageCounts, Replica, ReplicaConfig, Stay, WalMark, header_kind,
    hidden, hide_file, save_page_map,
};
pub use shim::{VFS_NAME, register_vfs};
pub use source::{Base, Miss, PageSink, PageSource, SourceError};
pub use storage::{OsStorage, Storage, StorageFile, read_whole, side_file_path, temporary_path, write_whole};
