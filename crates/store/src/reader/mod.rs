//! The reader of a log: the states of a database, their pages, and what changed between them.
//!
//! ```text
//! states     open, advance, states, pages, changes
//! whole      restoring a database, verifying every file
//! following  the head and the next names -> a catalog
//! listing    the same of a bucket without a head, as Litestream writes it
//! catalog    which files there are, and which of them make a state
//! files      a file once: its index, or all of it if it is small
//! contents   pages by the frames of a file: ranges, in blocks
//! ahead      blocks that are read before somebody who reads one after the other asks for them
//! disk       blocks in a folder, up to so many bytes
//! index      where the pages of a file are, compact
//! memory     what is kept in memory, up to so many bytes
//! flights    several who want the same share a request
//! ```
//!
//! A state is found first ([`Reader::state`]), then its pages are read; in between it may be collected, which is
//! [`StoreError::Gone`]. A reader holds nothing in the bucket and writes nothing to it.
//!
//! What must never happen here: that pages of two histories, or of two states, are mixed.

mod ahead;
mod catalog;
mod contents;
mod disk;
mod files;
mod flights;
mod following;
mod index;
mod listing;
mod memory;
mod options;
mod states;
mod whole;

pub use self::{
    catalog::State,
    options::{CacheFolder, ReadOptions},
    states::{Found, Reader},
    whole::Verified,
};
