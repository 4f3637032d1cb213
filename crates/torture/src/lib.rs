//! The laboratory: histories of replicas, a remote and everything that can go wrong between them, held against a model that
//! is plain SQLite.
//!
//! A history is a [`Case`](steps::Case): the tables, the replicas, and a list of steps. It is made from a seed
//! ([`generator`]), run against the real engine, the real server and real SQLite ([`world`]), and judged after every step
//! ([`oracle`], [`model`]). One that fails is made short ([`shrink`]) and printed as text, which can be saved under
//! `cases/` and is replayed by the tests of this crate.
//!
//! Nothing here knows a defect: what is allowed follows from the documentation of the engine and the protocol.
#![forbid(unsafe_code)]

pub mod faults;
pub mod generator;
pub mod model;
pub mod oracle;
pub mod remote;
pub mod replica;
pub mod report;
pub mod run;
pub mod shrink;
pub mod steps;
pub mod workload;
pub mod world;
