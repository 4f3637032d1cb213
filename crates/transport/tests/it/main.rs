//! Remotes: those in memory, over HTTP and TLS, decorated ones, and one that this project did not write. One binary, so that
//! SQLite is linked once.

mod allocated;
mod decorators;
mod http_conformance;
mod http_requests;
mod http_stream;
mod independent_remote;
mod loopback;
mod memory_conformance;
mod sqlite;
mod tls;
