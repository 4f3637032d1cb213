//! Where the url and the token of a remote come from: fixed texts, or functions asked before each request.

use std::{fmt, future::Future, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;

use crate::{
    remote::{RemoteError, RemoteErrorKind},
    url::RemoteUrl,
};

/// What a function of the application failed with.
type FunctionError = Box<dyn std::error::Error + Send + Sync>;

/// Gives the url; `None` = sync is paused.
pub type UrlFunction = Arc<dyn Fn() -> Result<Option<String>, FunctionError> + Send + Sync>;

/// Gives the token; `None` = send none.
pub type TokenFunction =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Option<String>, FunctionError>> + Send + Sync>;

/// The url of a remote. `Debug` shows no secrets.
#[derive(Clone)]
#[non_exhaustive]
pub enum UrlSource {
    /// Always this one.
    Fixed(String),
    /// Asked before each request; `None` makes the request fail with [`RemoteErrorKind::Paused`].
    Function(UrlFunction),
}

impl UrlSource {
    /// A function asked before each request; it must return at once.
    pub fn function(f: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self::try_function(move || Ok(f()))
    }

    /// The same for one that can fail, which makes the request fail.
    pub fn try_function(
        f: impl Fn() -> Result<Option<String>, FunctionError> + Send + Sync + 'static,
    ) -> Self {
        Self::Function(Arc::new(f))
    }

    /// Refuses a fixed url that cannot be used.
    pub(super) fn check(&self) -> Result<(), RemoteError> {
        match self {
            Self::Fixed(url) => RemoteUrl::parse(url).map(drop),
            Self::Function(_) => Ok(()),
        }
    }

    /// The url to use now.
    pub(super) fn ask(&self) -> Result<RemoteUrl, RemoteError> {
        match self {
            Self::Fixed(url) => RemoteUrl::parse(url),
            Self::Function(f) => {
                let url = f().map_err(|e| function_failed("url", e))?;
                RemoteUrl::parse(&url.ok_or_else(|| {
                    RemoteError::new(
                        RemoteErrorKind::Paused,
                        "sync is paused: the url function gave no url. Reads of present pages and local writes \
                         continue; try again when it gives one",
                    )
                })?)
            }
        }
    }

    /// For messages; `None` while there is no url.
    pub(super) fn shown(&self) -> Option<String> {
        let url = match self {
            Self::Fixed(url) => url.clone(),
            Self::Function(f) => f().ok()??,
        };
        Some(RemoteUrl::parse(&url).map_or_else(|_| crate::url::redact(&url), |u| u.to_string()))
    }
}

fn function_failed(what: &str, error: FunctionError) -> RemoteError {
    RemoteError {
        kind: RemoteErrorKind::Client,
        message: format!("the {what} function failed: {error}"),
        source: Some(error.into()),
    }
}

impl From<&str> for UrlSource {
    fn from(url: &str) -> Self {
        Self::Fixed(url.to_owned())
    }
}

impl From<String> for UrlSource {
    fn from(url: String) -> Self {
        Self::Fixed(url)
    }
}

impl fmt::Debug for UrlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(_) => f.write_str(&self.shown().unwrap_or_default()),
            Self::Function(_) => f.write_str("(function)"),
        }
    }
}

/// The token of a remote. `Debug` does not show it.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum AuthToken {
    /// None, unless the url holds one.
    #[default]
    None,
    /// Always this one.
    Fixed(String),
    /// Asked before each request, retries included; the request's deadline covers it.
    Function(TokenFunction),
    /// What is in it at the time of the request.
    Replaceable(ReplaceableToken),
}

/// A token that may be replaced while requests use it.
#[derive(Clone, Default)]
pub struct ReplaceableToken(Arc<Mutex<AuthToken>>);

impl ReplaceableToken {
    /// Holds `token`.
    pub fn new(token: impl Into<AuthToken>) -> Self {
        Self(Arc::new(Mutex::new(token.into())))
    }

    /// Requests that begin from now on use `token`.
    pub fn replace(&self, token: impl Into<AuthToken>) {
        *self.0.lock() = token.into();
    }
}

impl AuthToken {
    /// An async function asked before each request.
    pub fn function<F, T>(f: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<Option<String>, FunctionError>> + Send + 'static,
    {
        Self::Function(Arc::new(move || f().boxed()))
    }

    /// What a replaceable one holds now, else itself.
    fn current(&self) -> Self {
        match self {
            Self::Replaceable(token) => token.0.lock().current(),
            other => other.clone(),
        }
    }

    /// The token to use now.
    pub(super) async fn ask(&self, url: &RemoteUrl) -> Result<Option<String>, RemoteError> {
        let token = match &self.current() {
            Self::None | Self::Replaceable(_) => url.token().map(str::to_owned),
            Self::Fixed(token) => Some(token.clone()),
            Self::Function(f) => f().await.map_err(|e| function_failed("auth token", e))?,
        };
        match token {
            Some(token) if token.trim().is_empty() => Ok(None),
            Some(token) if token.trim().bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(Some(token.trim().to_owned()))
            }
            Some(_) => Err(RemoteError::new(
                RemoteErrorKind::Client,
                "the auth token holds characters that no token has (spaces, line breaks or non-ASCII). Check how it \
                 was copied",
            )),
            None => Ok(None),
        }
    }
}

impl From<&str> for AuthToken {
    fn from(token: &str) -> Self {
        Self::Fixed(token.to_owned())
    }
}

impl From<String> for AuthToken {
    fn from(token: String) -> Self {
        Self::Fixed(token)
    }
}

impl<T: Into<AuthToken>> From<Option<T>> for AuthToken {
    fn from(token: Option<T>) -> Self {
        token.map_or(Self::None, Into::into)
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Fixed(_) => "fixed",
            Self::Function(_) => "function",
            Self::Replaceable(_) => "replaceable",
        })
    }
}
