//! SQL over HTTP, asked over real HTTP on loopback.
#![forbid(unsafe_code)]

mod auth;
mod batch;
mod batons;
mod commits;
mod execute;
mod limits;
mod refusals;
mod rows;
mod server;
