//! SQL in, rows out: [`connection`] and [`statement`] are the API, and both stand on one [`recorded`] connection, which runs what
//! they ask for, past [`transaction`] and the recorder ([`crate::capture`]).

pub(crate) mod connection;
mod functions;
pub(crate) mod kept;
pub(crate) mod records;
pub(crate) mod shared_connection;
pub(crate) mod statement;
pub(crate) mod transaction;
