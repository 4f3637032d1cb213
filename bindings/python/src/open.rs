//! Opening a database: the engine's builder from what Python was given, and the functions that it calls back.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use partial_sync::{
    Bootstrap, CancelHandle, Connection as EngineConnection, Database, PartialSync,
    change::transform::{ChangeType, RowValues, Transform, TransformMutation},
};
use partial_sync_transport::{AuthToken, UrlSource};
use pyo3::{
    prelude::*,
    types::{PyBool, PyDict, PyString, PyTuple},
};

use crate::{
    callbacks::Callbacks,
    errors, fork, program_code,
    values::{from_object, to_object},
    waits,
};

/// The attributes of `turso._options.Local`, which has checked them.
#[derive(FromPyObject)]
pub(crate) struct Local {
    pub path: PathBuf,
    pub timeout: f64,
    pub cached_statements: usize,
    pub detect_types: i32,
    pub check_same_thread: bool,
}

/// The attributes of `turso._options.Remote`, which has checked them.
#[derive(FromPyObject)]
pub(crate) struct Remote {
    url: Option<Py<PyAny>>,
    auth_token: Option<Py<PyAny>>,
    client_name: String,
    long_poll_timeout_ms: Option<u64>,
    bootstrap_if_empty: bool,
    accept_new_url: bool,
    /// Length of the prefix, or SQL.
    bootstrap: Option<BootstrapChoice>,
    partial: bool,
    segment_size: Option<u64>,
    prefetch: Option<bool>,
    transform: Option<Py<PyAny>>,
    push_operations_threshold: Option<usize>,
    pull_bytes_threshold: Option<u64>,
    encryption: Option<(String, Option<String>)>,
    request_timeout: Option<f64>,
}

#[derive(FromPyObject)]
enum BootstrapChoice {
    Prefix(u64),
    Query(String),
}

/// Opens a database and a connection to it.
pub(crate) fn open(
    py: Python<'_>,
    path: PathBuf,
    busy_timeout: f64,
    remote: Option<Remote>,
    cancel: &CancelHandle,
    callbacks: &Arc<Callbacks>,
) -> PyResult<(Database, EngineConnection)> {
    let mut builder = Database::builder(path)
        .cancel_handle(cancel.clone())
        .busy_timeout(Duration::from_secs_f64(busy_timeout));
    if let Some(remote) = remote {
        builder = builder
            .client_name(remote.client_name)
            .bootstrap_if_empty(remote.bootstrap_if_empty)
            .accept_new_url(remote.accept_new_url);
        if let Some(url) = remote.url {
            fork::check_engine_is_of_this_process()?;
            builder = builder.remote(url_source(url.into_bound(py), callbacks)?);
        }
        if let Some(token) = remote.auth_token {
            builder = builder.auth_token(token_source(token.into_bound(py), callbacks)?);
        }
        if let Some(timeout) = remote.long_poll_timeout_ms {
            builder = builder.long_poll(Duration::from_millis(timeout));
        }
        if remote.partial {
            builder = builder.partial(PartialSync {
                bootstrap: remote.bootstrap.map(|choice| match choice {
                    BootstrapChoice::Prefix(length) => Bootstrap::prefix(length),
                    BootstrapChoice::Query(query) => Bootstrap::query(query),
                }),
                segment_size: remote.segment_size,
                prefetch: remote.prefetch,
            });
        }
        if let Some(transform) = remote.transform {
            let (function, callbacks) = (callbacks.source(transform), callbacks.clone());
            builder = builder.transform(Arc::new(move |mutation: &TransformMutation| {
                callbacks
                    .answer(|py| ask_transform(&function.get(py)?, mutation))
                    .unwrap_or_else(Transform::Fail)
            }));
        }
        if let Some(changes) = remote.push_operations_threshold {
            builder = builder.push_operations_threshold(changes);
        }
        if let Some(bytes) = remote.pull_bytes_threshold {
            builder = builder.pull_bytes_threshold(bytes);
        }
        if let Some((key, cipher)) = remote.encryption {
            builder = builder.remote_encryption(key, cipher);
        }
        if let Some(timeout) = remote.request_timeout {
            builder = builder.timeout(Duration::from_secs_f64(timeout));
        }
    }
    let work = move || {
        let database = builder.connect()?;
        let connection = database.connection()?;
        // Once it had a deadline, what runs looks now and then whether it should stop: also for a signal.
        connection.set_deadline(Some(Instant::now() + Duration::from_secs(60)))?;
        connection.set_deadline(None)?;
        Ok((database, connection))
    };
    let (database, connection) =
        waits::breakable(py, cancel, work)?.map_err(|error| errors::raise(py, error))?;
    if database.is_replica()
        && let Err(error) = fork::check_engine_is_of_this_process()
    {
        std::mem::forget((database, connection));
        return Err(error);
    }
    Ok((database, connection))
}

fn url_source(url: Bound<'_, PyAny>, callbacks: &Arc<Callbacks>) -> PyResult<UrlSource> {
    if let Ok(url) = url.cast::<PyString>() {
        return Ok(UrlSource::Fixed(url.to_str()?.to_owned()));
    }
    let (function, callbacks) = (callbacks.source(url.unbind()), callbacks.clone());
    Ok(UrlSource::try_function(move || {
        Ok(callbacks.answer(|py| program_code::call(&function.get(py)?, ())?.extract::<Option<String>>())?)
    }))
}

fn token_source(token: Bound<'_, PyAny>, callbacks: &Arc<Callbacks>) -> PyResult<AuthToken> {
    if let Ok(token) = token.cast::<PyString>() {
        return Ok(AuthToken::Fixed(token.to_str()?.to_owned()));
    }
    let (function, callbacks) = (callbacks.source(token.unbind()), callbacks.clone());
    Ok(AuthToken::function(move || {
        let (function, callbacks) = (function.clone(), callbacks.clone());
        async move {
            // It may take its time, to refresh the token, and must not keep a thread that moves bytes.
            let asked = tokio::task::spawn_blocking(move || {
                callbacks.answer(|py| program_code::call(&function.get(py)?, ())?.extract::<Option<String>>())
            });
            match asked.await {
                Ok(Ok(token)) => Ok(token),
                Ok(Err(message)) => Err(message.into()),
                Err(error) => Err(error.into()),
            }
        }
    }))
}

/// Calls `transform(change_time, table_name, id, change_type, before, after, updates)`, which gives None to keep the
/// change, False to skip it, or SQL and its values.
fn ask_transform(transform: &Bound<'_, PyAny>, mutation: &TransformMutation) -> PyResult<Transform> {
    let py = transform.py();
    let row = |values: &Option<RowValues>| -> PyResult<Option<Bound<'_, PyDict>>> {
        let Some(values) = values else { return Ok(None) };
        let row = PyDict::new(py);
        for (column, value) in values {
            row.set_item(column, to_object(py, value)?)?;
        }
        Ok(Some(row))
    };
    let change_type = match mutation.change_type {
        ChangeType::Insert => "insert",
        ChangeType::Update => "update",
        ChangeType::Delete => "delete",
    };
    let change = (
        mutation.change_time,
        &mutation.table_name,
        mutation.id,
        change_type,
        row(&mutation.before)?,
        row(&mutation.after)?,
        row(&mutation.updates)?,
    );
    let answer = program_code::call(transform, change)?;
    if answer.is_none() {
        return Ok(Transform::Keep);
    }
    if answer.is_exact_instance_of::<PyBool>() && !answer.is_truthy()? {
        return Ok(Transform::Skip);
    }
    let (sql, values) = answer.extract::<(Bound<'_, PyString>, Bound<'_, PyTuple>)>()?;
    Ok(Transform::Rewrite {
        sql: sql.to_str()?.to_owned(),
        values: values
            .iter()
            .map(|value| from_object(&value))
            .collect::<PyResult<_>>()?,
    })
}
