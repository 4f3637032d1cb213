//! (skeleton)
#![forbid(unsafe_code)]

pub mod change;
