//! The remote that this project ships: serves SQLite files as they are, page by page, at any revision that is still
//! kept, together with SQL over HTTP.
#![forbid(unsafe_code)]

pub mod access;
mod app;
pub mod auth;
mod clock;
mod databases;
mod error;
pub mod follow;
pub mod history;
pub mod hrana;
mod in_process;
mod metrics;
pub mod pages;
mod serve;
mod server;
mod tls;

pub use clock::Clock;
pub use error::{HistoryError, ServerError};
pub use history::Retention;
pub use in_process::InProcess;
pub use server::{Server, ServerBuilder, ServerHandle};
