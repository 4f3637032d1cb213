//! The integration tests of the engine, in one binary so that SQLite is linked once.

mod addresses;
mod bad_input;
mod beside;
mod bootstrap_later;
mod closing;
mod crash;
mod differential;
mod discarded;
mod exact_rows;
mod first_connect;
mod guarded;
mod hydration;
mod independent_remote;
mod limits;
mod looking;
mod lost_writes;
mod main_job;
mod old_versions;
mod other_programs;
mod pull;
mod push_rules;
mod replaced_base;
mod requests;
mod sharing;
mod snapshots;
mod support;
