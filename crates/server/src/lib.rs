//! The remote that this project ships: serves SQLite files as they are, page by page, at any revision that is still
//! kept, together with SQL over HTTP.
#![forbid(unsafe_code)]

pub mod access;
