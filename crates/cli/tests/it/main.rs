//! The program, run as a user runs it.

mod completing;
mod configuration;
mod hostile;
mod keys;
mod logs;
mod replicas;
mod serving;
mod support;
