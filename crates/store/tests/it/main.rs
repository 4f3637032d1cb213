//! Integration tests of the store.

mod branching;
mod bucket;
mod cloud;
mod foreign;
mod keeping;
mod listing;
mod model;
mod reading;
mod remote;
mod restoring;
#[cfg(feature = "s3")]
mod slow;
mod support;
mod writing;
