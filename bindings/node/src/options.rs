//! What a database is opened with: the engine's table of options for `lib/options.js`, which checks by it, and what that hands
//! over.

use std::{sync::Arc, time::Duration};

use napi::bindgen_prelude::Either3;
use napi_derive::napi;
use partial_sync::{
    Bootstrap, Builder, CancelHandle, Database, PartialSync,
    options::{self, Given, Language, OptionError, OptionSpec},
};

use crate::{callbacks, mailbox::Mailbox};

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
    pub client_name: Option<String>,
    /// How long a pull lets the remote wait.
    pub long_poll: Option<f64>,
    /// How long a statement waits for a lock.
    pub busy_timeout: Option<f64>,
    /// How long a page is waited for.
    pub request_timeout: Option<f64>,
    /// Changes in one push request.
    pub push_threshold: Option<f64>,
    /// Bytes in one request of a full bootstrap.
    pub pull_threshold: Option<f64>,
    /// Whether the first connect fetches from the remote.
    pub bootstrap_if_empty: Option<bool>,
    /// Whether the replica may continue with another remote.
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
        let name = self
            .client_name
            .as_deref()
            .unwrap_or(Language::Node.client_name());
        let mut builder = Database::builder(self.path)
            .client_name(name)
            .cancel_handle(cancel);
        if self.asks_url {
            builder = builder.remote(callbacks::url_function(mailbox));
        } else if let Some(url) = self.url {
            builder = builder.remote(url);
        }
        if self.asks_token {
            builder = builder.auth_token(callbacks::token_function(mailbox));
        } else if let Some(token) = self.token {
            builder = builder.auth_token(token);
        }
        if self.asks_fetch {
            builder = builder.http_client(callbacks::fetch_function(mailbox));
        }
        if self.asks_transform {
            builder = builder.transform(callbacks::transform_function(mailbox));
        }
        if let Some(wait) = self.long_poll {
            builder = builder.long_poll(millis(wait));
        }
        if let Some(wait) = self.busy_timeout {
            builder = builder.busy_timeout(millis(wait));
        }
        if let Some(wait) = self.request_timeout {
            builder = builder.timeout(millis(wait));
        }
        if let Some(changes) = self.push_threshold {
            builder =
                builder.push_operations_threshold(usize::try_from(whole(changes)).unwrap_or(usize::MAX));
        }
        if let Some(bytes) = self.pull_threshold {
            builder = builder.pull_bytes_threshold(whole(bytes));
        }
        if let Some(wanted) = self.bootstrap_if_empty {
            builder = builder.bootstrap_if_empty(wanted);
        }
        if let Some(accepted) = self.accept_new_url {
            builder = builder.accept_new_url(accepted);
        }
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

/// The names of all options; the part before a dot is the object that one is in.
#[napi]
pub(crate) fn option_names() -> Vec<&'static str> {
    (options::ALL.iter())
        .flat_map(|option| option.spelled(Language::Node))
        .copied()
        .collect()
}

/// What is wrong with a value.
#[napi(object, object_from_js = false)]
pub(crate) struct WrongOption {
    /// What to tell.
    pub message: String,
    /// It has the right type, but not a possible value.
    pub is_range: bool,
}

/// What is wrong with the value of an option, which the caller calls `called`; `value` where it is one of these.
#[napi]
pub(crate) fn check_option(
    name: String,
    called: String,
    kind: String,
    value: Option<Either3<bool, f64, String>>,
    shown: String,
) -> Option<WrongOption> {
    let given = match (&value, kind.as_str()) {
        (Some(Either3::A(flag)), _) => Given::Flag(*flag),
        (Some(Either3::B(number)), _) => Given::Number(*number),
        (Some(Either3::C(text)), _) => Given::Text(text),
        (None, "function") => Given::Function,
        (None, "names") => Given::Names,
        (None, _) => Given::Other,
    };
    let wrong = (OptionSpec::find(Language::Node, &name)?)
        .check(Language::Node, &called, given, shown)
        .err()?;
    Some(WrongOption {
        message: wrong.to_string(),
        is_range: matches!((wrong, given), (OptionError::Range { .. }, Given::Number(_))),
    })
}

/// The text about an option that is not known.
#[napi]
pub(crate) fn unknown_option(name: String, within: String, known: Vec<String>) -> String {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    OptionError::unknown(&name, &within, &known).to_string()
}

/// The text about an option that was given twice, with different values.
#[napi]
pub(crate) fn same_option(first: String, second: String) -> String {
    OptionError::Twice { first, second }.to_string()
}

/// The known name that is close to one that is not known.
#[napi]
pub(crate) fn nearest_name(name: String, known: Vec<String>) -> Option<String> {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    options::nearest(&name, &known).map(str::to_owned)
}
