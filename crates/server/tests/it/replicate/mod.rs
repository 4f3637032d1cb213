//! Databases that are replicated to a bucket.

mod commits;
mod company;
mod fences;
mod history;
mod place;
mod rivals;
mod starts;
pub(crate) mod support;
mod truth;
