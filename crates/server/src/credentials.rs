//! All that decides who is let in, and the files that it is read from, now and again.

use std::{path::PathBuf, sync::Arc};

use parking_lot::RwLock;

use crate::{
    access::{Authenticator, Caller, Denied},
    auth::{CredentialError, Jwt, Open, StaticTokens, best},
    error::ServerError,
    metrics::Reloaded,
};

/// Whom a server lets in: who gets in by what its program gave, by a token of a file, or by a key of a file or folder.
/// Everybody, if there is none of these.
pub(crate) struct Credentials {
    given: Option<Arc<dyn Authenticator>>,
    tokens: Option<InFile<StaticTokens>>,
    keys: Option<InFile<Jwt>>,
}

impl Credentials {
    /// Reads the files.
    pub(crate) fn new(
        given: Option<Arc<dyn Authenticator>>,
        tokens: Option<PathBuf>,
        keys: Option<PathBuf>,
    ) -> Result<Self, ServerError> {
        Ok(Self {
            given,
            tokens: tokens
                .map(|path| InFile::new(path, |path| StaticTokens::read(path)))
                .transpose()?,
            keys: keys
                .map(|path| InFile::new(path, |path| Jwt::read(path)))
                .transpose()?,
        })
    }

    /// What the files said when they were read.
    pub(crate) fn told(&self) -> Vec<String> {
        let tokens = self.tokens.as_ref().map(|tokens| tokens_told(&tokens.current()));
        let keys = self.keys.as_ref().map(|keys| keys_told(&keys.current()));
        tokens.into_iter().chain(keys).collect()
    }

    /// Reads the files again, each on its own: what one of them says is in force at once, or stays as it was if it cannot
    /// be used.
    pub(crate) fn reload(&self) -> Vec<(Reloaded, Result<String, ServerError>)> {
        let tokens = self.tokens.as_ref().map(|tokens| {
            let told = tokens.read_again().map(|tokens| tokens_told(&tokens));
            (Reloaded::Tokens, told)
        });
        let keys = self.keys.as_ref().map(|keys| {
            let told = keys.read_again().map(|keys| keys_told(&keys));
            (Reloaded::Keys, told)
        });
        tokens.into_iter().chain(keys).collect()
    }
}

fn tokens_told(tokens: &StaticTokens) -> String {
    counted(tokens.count(), "token")
}

/// With their ids, which are not secret.
fn keys_told(keys: &Jwt) -> String {
    let ids: Vec<_> = keys
        .key_ids()
        .map(|id| id.unwrap_or("a secret without an id"))
        .collect();
    format!("{} ({})", counted(ids.len(), "key"), ids.join(", "))
}

impl Authenticator for Credentials {
    fn check(&self, authorization: Option<&str>, database: &str) -> Result<Caller, Denied> {
        if self.given.is_none() && self.tokens.is_none() && self.keys.is_none() {
            return Open.check(authorization, database);
        }
        let given = self.given.iter().map(|way| way.check(authorization, database));
        let tokens = self
            .tokens
            .iter()
            .map(|tokens| tokens.current().check(authorization, database));
        let keys = self
            .keys
            .iter()
            .map(|keys| keys.current().check(authorization, database));
        best(given.chain(tokens).chain(keys))
    }
}

fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// What a file said when it was read last, and could be.
struct InFile<T> {
    path: PathBuf,
    read: fn(&PathBuf) -> Result<T, CredentialError>,
    current: RwLock<Arc<T>>,
}

impl<T> InFile<T> {
    fn new(path: PathBuf, read: fn(&PathBuf) -> Result<T, CredentialError>) -> Result<Self, ServerError> {
        let current = RwLock::new(Arc::new(read(&path)?));
        Ok(Self { path, read, current })
    }

    fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read())
    }

    fn read_again(&self) -> Result<Arc<T>, ServerError> {
        let new = Arc::new((self.read)(&self.path)?);
        *self.current.write() = Arc::clone(&new);
        Ok(new)
    }
}
