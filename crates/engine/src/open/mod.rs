//! Opening: what a database is opened with, its files, and what is there once it is open.
//!
//! [`connect`] decides. A replica's files are read or made ([`files`], [`first_connect`], [`bootstrap`], [`info`]), its remote is found
//! ([`remote`]), and [`replica`] is what comes out; a second connect shares it ([`sharing`]). Each operation on it is a
//! [`session`]; the engine's own reads go through [`plain`].

pub(crate) mod bootstrap;
pub(crate) mod close;
mod connect;
pub(crate) mod files;
pub(crate) mod first_connect;
pub(crate) mod info;
pub(crate) mod local;
pub(crate) mod options;
pub(crate) mod paths;
pub(crate) mod plain;
pub(crate) mod remote;
pub(crate) mod replica;
pub(crate) mod session;
pub(crate) mod sharing;
pub(crate) mod side_files;
