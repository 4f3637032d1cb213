//! The program, run as a user runs it.

mod admin;
mod backups;
mod buckets;
mod completing;
mod configuration;
mod hostile;
mod keys;
mod logs;
mod origins;
mod replicas;
mod replicating;
mod restores;
mod serving;
mod support;
