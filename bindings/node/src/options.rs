//! What a database is opened with. `lib/options.js` has checked names, types and ranges; this only hands over.

use std::{sync::Arc, time::Duration};

use napi_derive::napi;
use partial_sync::{Bootstrap, Builder, CancelHandle, Database, PartialSync};

use crate::{mailbox::Mailbox, remote, transform};

/// Options as `lib/options.js` gives them. Times are milliseconds, sizes bytes.
#[napi(object, object_to_js = false)]
#[derive(Clone)]
pub struct Options {
    /// Path of the file, or `:memory:`.
    pub path: String,
    /// A fixed url.
    pub url: Option<String>,
    /// Whether there is a function for it.
    pub asks_url: bool,
    /// A fixed token.
    pub token: Option<String>,
    /// Whether there is a function for it.
    pub asks_token: bool,
    /// Whether requests go through JavaScript.
    pub asks_fetch: bool,
    /// Whether changes go through JavaScript.
    pub asks_transform: bool,
    /// Part of the client's id.
    pub client_name: String,
    /// How long a pull lets the remote wait.
    pub long_poll: Option<f64>,
    /// How long a statement waits for a lock.
    pub busy_timeout: Option<f64>,
    /// Changes in one push request.
    pub push_threshold: Option<f64>,
    /// Bytes in one request of a full bootstrap.
    pub pull_threshold: Option<f64>,
    /// Whether the replica may go on with another remote.
    pub accept_new_url: Option<bool>,
    /// Of the remote's encryption.
    pub encryption_key: Option<String>,
    /// Of the remote's encryption.
    pub encryption_cipher: Option<String>,
    /// Partial sync.
    pub partial: Option<Partial>,
}

/// Partial sync. One of `prefix` and `query` at most.
#[napi(object, object_to_js = false)]
#[derive(Clone)]
pub struct Partial {
    /// Bytes.
    pub prefix: Option<f64>,
    /// SQL.
    pub query: Option<String>,
    /// Bytes.
    pub segment_size: Option<f64>,
    /// Whether to fetch ahead.
    pub prefetch: Option<bool>,
}

/// Checked to be a whole number that is not negative.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    number as u64
}

fn millis(number: f64) -> Duration {
    Duration::from_millis(whole(number))
}

impl Options {
    /// The engine's builder for them.
    pub(crate) fn builder(self, mailbox: &Arc<Mailbox>, cancel: CancelHandle) -> Builder {
        let mut builder = Database::builder(self.path)
            .client_name(self.client_name)
            .cancel_handle(cancel);
        if self.asks_url {
            builder = builder.remote(remote::url_function(mailbox));
        } else if let Some(url) = self.url {
            builder = builder.remote(url);
        }
        if self.asks_token {
            builder = builder.auth_token(remote::token_function(mailbox));
        } else if let Some(token) = self.token {
            builder = builder.auth_token(token);
        }
        if self.asks_fetch {
            builder = builder.http_client(remote::fetch_function(mailbox));
        }
        if self.asks_transform {
            builder = builder.transform(transform::function(mailbox));
        }
        if let Some(wait) = self.long_poll {
            builder = builder.long_poll(millis(wait));
        }
        if let Some(wait) = self.busy_timeout {
            builder = builder.busy_timeout(millis(wait));
        }
        if let Some(changes) = self.push_threshold {
            builder =
                builder.push_operations_threshold(usize::try_from(whole(changes)).unwrap_or(usize::MAX));
        }
        if let Some(bytes) = self.pull_threshold {
            builder = builder.pull_bytes_threshold(whole(bytes));
        }
        builder = builder.accept_new_url(self.accept_new_url.unwrap_or(false));
        if let Some(key) = self.encryption_key {
            builder = builder.remote_encryption(key, self.encryption_cipher);
        }
        if let Some(partial) = self.partial {
            let bootstrap = match (partial.prefix, partial.query) {
                (_, Some(query)) => Some(Bootstrap::query(query)),
                (Some(length), None) => Some(Bootstrap::prefix(whole(length))),
                (None, None) => None,
            };
            builder = builder.partial(PartialSync {
                bootstrap,
                segment_size: partial.segment_size.map(whole),
                prefetch: partial.prefetch,
            });
        }
        builder
    }
}
