//! What a server reads again when it is told to, without a restart: keys, tokens, and the TLS certificate.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use parking_lot::Mutex;

use crate::{
    access::{Authenticator as _, Caller, Denied},
    credentials::Credentials,
    error::ServerError,
    metrics::{Metrics, Reloaded},
    tls::Tls,
};

/// See the module.
pub(crate) struct Reload {
    /// Decides who may do what.
    pub credentials: Credentials,
    /// Decides who may administer.
    admin: Option<Credentials>,
    tls: Option<Arc<Tls>>,
    count: AtomicU64,
    metrics: Arc<Metrics>,
    /// One at a time: of two, the later one has the last word.
    turn: Mutex<()>,
}

impl Reload {
    pub(crate) fn new(
        credentials: Credentials,
        admin: Option<Credentials>,
        tls: Option<Arc<Tls>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            credentials,
            admin,
            tls,
            count: AtomicU64::new(0),
            metrics,
            turn: Mutex::default(),
        }
    }

    /// Where it counts.
    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Whether somebody may administer.
    pub(crate) fn check_admin(&self, authorization: Option<&str>) -> Result<Caller, Denied> {
        match &self.admin {
            Some(admin) => admin.check(authorization, ""),
            None => Err(Denied::Missing),
        }
    }

    /// Who was let in at one count may not be let in at another.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(SeqCst)
    }

    /// Reads everything again, and tells the log. What cannot be used stays as it was, and is an error.
    pub(crate) fn run(&self) -> Result<(), ServerError> {
        let _turn = self.turn.lock();
        let mut read = self.credentials.reload();
        let admin = self.admin.iter().flat_map(Credentials::reload);
        read.extend(admin.map(|(kind, read)| (kind, read.map(|what| format!("{what} for administration")))));
        // After the credentials are in force, and whatever became of the rest.
        self.count.fetch_add(1, SeqCst);
        if let Some(tls) = &self.tls {
            read.push((
                Reloaded::Certificate,
                tls.reload().map(|()| "the TLS certificate".to_owned()),
            ));
        }
        if read.is_empty() {
            tracing::info!("told to read keys, tokens and certificates again, but none come from a file");
        }
        let mut failed = Vec::new();
        for (part, result) in read {
            self.metrics.reloaded(part, result.is_ok());
            match result {
                Ok(what) => tracing::info!("read again: {what}"),
                Err(error) => {
                    tracing::error!(%error, "what was read before stays in force");
                    failed.push(error);
                }
            }
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(ServerError::Reload(failed)),
        }
    }
}
