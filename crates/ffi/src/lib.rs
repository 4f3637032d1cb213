//! The C ABI of partial-sync: what `include/partial_sync.h` declares, for C and every language that can call C.
//!
//! This crate translates and decides nothing: each function checks what it was given, calls the engine, and turns the
//! outcome into a code and an error object. The header is made from the doc comments here by cbindgen (the test
//! `tests/it/header.rs` compares them; `UPDATE_HEADER=1` writes it), so they speak to the C programmer.
//!
//! No panic may cross the boundary, no pointer may be read that was not checked for null, and no reference to a handle
//! may outlive the call that it was given to. What a caller must hold to is said once, in [`boundary`].
#![allow(
    clippy::missing_safety_doc,
    reason = "the rules are the same for every function: the module `boundary` and the top of the header have them"
)]

mod asked;
pub mod batch;
mod boundary;
mod call;
pub mod callback;
pub mod cancel;
mod codec;
pub mod column;
pub mod config;
pub mod connection;
pub mod database;
pub mod error;
mod limit;
mod options;
mod pipe;
pub mod statement;
pub mod stats;
pub mod sync;
pub mod version;
