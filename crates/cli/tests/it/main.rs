//! The program, run as a user runs it.

mod keys;
mod replicas;
mod serving;
mod support;
