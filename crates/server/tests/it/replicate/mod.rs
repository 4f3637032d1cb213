//! Databases that are replicated to a bucket.

mod commits;
mod fences;
mod starts;
pub(crate) mod support;
