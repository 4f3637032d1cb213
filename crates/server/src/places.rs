//! Where the databases of a server are in object storage, by their names.

use std::{fmt, sync::Arc};

use partial_sync_store::{Bucket, StoreError};

type Open = dyn Fn(&str) -> Result<Bucket, StoreError> + Send + Sync;

/// See the module.
#[derive(Clone)]
pub(crate) struct Places(Arc<Open>);

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places")
    }
}

impl Places {
    /// The place that a url names, and each named database below it.
    pub(crate) fn below(url: String) -> Self {
        Self::new(move |name| {
            partial_sync_store::open(&url_of(&url, name), partial_sync_store::environment())
        })
    }

    /// The same, where nothing is made for a name that anybody may ask for.
    pub(crate) fn there_below(url: String) -> Self {
        Self::new(move |name| partial_sync_store::open_existing(&url_of(&url, name)))
    }

    /// Those that a function gives.
    pub(crate) fn new(open: impl Fn(&str) -> Result<Bucket, StoreError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    /// That of a database; the only one of a server has an empty name.
    pub(crate) fn of(&self, name: &str) -> Result<Bucket, StoreError> {
        (self.0)(name)
    }
}

/// The url of a database below another one.
pub(crate) fn url_of(url: &str, name: &str) -> String {
    match name {
        "" => url.to_owned(),
        name => format!("{}/{name}", url.trim_end_matches('/')),
    }
}
