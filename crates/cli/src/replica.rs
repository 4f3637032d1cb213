//! Opens the replica that a command is about.

use std::path::Path;

use partial_sync::{Bootstrap, Builder, Database, PartialSync, options::Language};

use crate::{
    arguments::{OnReplica, Partial, Remote},
    error::CliError,
    secret,
};

/// Opens a replica that is here, or makes one of the remote given. Without a remote, a plain SQLite file is opened as it
/// is.
pub(crate) fn open_or_make(path: &Path, remote: &Remote, partial: &Partial) -> Result<Database, CliError> {
    let mut builder = builder(path, remote)?;
    if let Some(partial) = options(partial) {
        builder = builder.partial(partial);
    }
    Ok(builder.connect()?)
}

/// Opens a replica that is here.
pub(crate) fn open(on: &OnReplica) -> Result<Database, CliError> {
    if Database::remote_of(&on.replica)?.is_none() {
        return Err(CliError::NoReplica(on.replica.clone()));
    }
    Ok(builder(&on.replica, &on.remote)?.connect()?)
}

fn builder(path: &Path, remote: &Remote) -> Result<Builder, CliError> {
    let mut builder = Database::builder(path)
        .client_name(Language::Program.client_name())
        .timeout(remote.timeout)
        .accept_new_url(remote.accept_new_url);
    let url = match &remote.url {
        Some(url) => Some(url.clone()),
        None => Database::remote_of(path)?,
    };
    match url {
        Some(url) => builder = builder.remote(url),
        None if path.is_file() => {}
        None => return Err(CliError::NoReplica(path.to_owned())),
    }
    if let Some(token) = secret::token(&remote.bearer)? {
        builder = builder.auth_token(token);
    }
    Ok(builder)
}

fn options(partial: &Partial) -> Option<PartialSync> {
    let bootstrap = match (partial.bootstrap_prefix, &partial.bootstrap_query) {
        (Some(length), _) => Some(Bootstrap::prefix(length)),
        (None, Some(query)) => Some(Bootstrap::query(query)),
        (None, None) => None,
    };
    let given = bootstrap.is_some() || partial.segment_size.is_some() || partial.prefetch.is_some();
    given.then_some(PartialSync {
        bootstrap,
        segment_size: partial.segment_size,
        prefetch: partial.prefetch,
    })
}
