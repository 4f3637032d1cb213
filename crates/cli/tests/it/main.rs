//! The program, run as a user runs it.

mod replicas;
mod serving;
mod support;
