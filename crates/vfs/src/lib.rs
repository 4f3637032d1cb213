//! (skeleton)

pub mod sqlite;
