//! Pages from the remote: [`initial`] fetches what a replica begins with, [`source`] answers the VFS when a page is absent,
//! [`statement_prefetch`] brings what the running statement will touch, [`by_running`] what a query does where the remote runs none, and
//! [`request`] is what all of them ask with.

pub(crate) mod by_running;
pub(crate) mod initial;
pub(crate) mod request;
pub(crate) mod source;
pub(crate) mod statement_prefetch;
