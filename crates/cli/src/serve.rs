//! `serve`: runs the server until it is told to stop, and then lets it finish what it is answering.

use std::io::Write;

use partial_sync_server::{
    Retention, Server, ServerBuilder,
    access::{Access, Authenticator},
    auth::{AnyOf, Jwt, StaticToken},
    hrana::{Hrana, HranaOptions},
};

use crate::{arguments::Serve, error::CliError};

pub(crate) fn run(arguments: Serve) -> Result<(), CliError> {
    partial_sync_server::limit_sqlite_memory(arguments.sqlite_memory);
    if let Err(error) = partial_sync_server::raise_descriptor_limit() {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let listen = arguments.listen.clone();
        let is_open = arguments.allow_unauthenticated;
        // Before anybody can know that there is something to stop.
        let mut stop = Stop::new()?;
        let mut server = builder(arguments)?.listen(listen).await?;
        if is_open && !server.addr().ip().is_loopback() {
            tracing::warn!(
                "everybody who reaches {} can read and write the database; see --auth-token",
                server.addr()
            );
        }
        let mut out = std::io::stdout();
        writeln!(out, "listening on {}", server.url())?;
        out.flush()?;
        tokio::select! {
            () = stop.asked() => tracing::info!("stopping; what is being answered is finished first"),
            () = server.wait() => return Ok(()),
        }
        tokio::select! {
            () = server.shutdown() => {}
            () = stop.asked() => tracing::warn!("stopped without waiting"),
        }
        Ok(())
    });
    // Threads that SQLite does not let go of end with the program.
    runtime.shutdown_background();
    served
}

fn builder(arguments: Serve) -> Result<ServerBuilder, CliError> {
    let mut server = match arguments.path.filter(|path| path.as_os_str() != ":memory:") {
        Some(path) => Server::builder(path),
        None => Server::in_memory(),
    };
    server = server
        .retention(Retention {
            age: arguments.retain,
            bytes: arguments.retain_bytes,
        })
        .sql(Hrana::new(HranaOptions {
            temporary_bytes: arguments.temp_space,
            ..HranaOptions::default()
        }))
        .open_databases(arguments.open_databases)
        .allow_unauthenticated(arguments.allow_unauthenticated);
    for origin in arguments.cors_origin {
        server = server.cors_origin(origin);
    }
    for name in arguments.allowed_host {
        server = server.allowed_host(name);
    }
    let mut ways: Vec<Box<dyn Authenticator>> = vec![];
    if let Some(token) = arguments.auth_token {
        ways.push(Box::new(StaticToken::new(token, Access::Full)));
    }
    if let Some(path) = arguments.auth_jwt_key {
        let key = match std::fs::read(&path) {
            Ok(key) => key,
            Err(source) => {
                return Err(CliError::File {
                    doing: "read",
                    path,
                    source,
                });
            }
        };
        let jwt = Jwt::from_key_file(&key).map_err(|source| CliError::Key { path, source })?;
        ways.push(Box::new(jwt));
    }
    if !ways.is_empty() {
        server = server.authenticator(AnyOf(ways));
    }
    if let (Some(certificate), Some(key)) = (arguments.tls_cert, arguments.tls_key) {
        server = server.tls(certificate, key);
    }
    Ok(server)
}

/// Ctrl-C, and where there is such a thing, SIGTERM.
struct Stop {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(unix)]
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn asked(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
