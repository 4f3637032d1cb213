//! Pages from the remote: [`source`] answers the VFS when a page is absent, [`statement`] brings what the running statement will
//! touch, and [`request`] is what both ask with.

pub(crate) mod request;
pub(crate) mod source;
pub(crate) mod statement;
