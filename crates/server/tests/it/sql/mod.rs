//! SQL over HTTP, asked over real HTTP on loopback.

mod abuse;
mod auth;
mod batch;
mod batons;
mod commits;
mod execute;
mod fairness;
mod limits;
mod packed;
mod protobuf;
mod refusals;
mod rows;
mod server;
