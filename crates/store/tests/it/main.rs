//! Integration tests of the store.

mod bucket;
mod cloud;
mod foreign;
mod keeping;
mod listing;
mod model;
mod reading;
mod restoring;
mod support;
mod writing;
