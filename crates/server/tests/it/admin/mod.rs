//! Administration over HTTP: who is let in, and what may be done while others use what it is done to.

mod deleting;
mod forking;
mod front;
mod kicking;
mod making;
mod restoring;
pub(crate) mod support;
