//! The front door, knocked at with raw sockets: what does not come in, and that it keeps nobody else out.

mod bodies;
mod browsers;
mod connections;
mod paths;
pub(crate) mod raw;
pub(crate) mod stalls;
mod telling;
