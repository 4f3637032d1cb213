//! The server over real HTTP on loopback, and its page history. One binary, so that SQLite is linked once.
#![forbid(unsafe_code)]

mod admin;
mod front;
mod history_crash;
mod keys;
mod lifecycle;
mod mirror;
mod origin;
mod pages;
mod queries;
mod replicate;
mod sql;
mod succession;
