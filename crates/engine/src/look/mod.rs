//! What looks at a replica, or completes it, and changes none of its contents.

pub(crate) mod hydrate;
pub(crate) mod inspect;
pub(crate) mod stats;
pub(crate) mod verify;
