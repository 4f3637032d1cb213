//! `serve`: runs the server until it is told to stop, and then lets it finish what it is answering.

use std::{
    io::Write,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use partial_sync_server::{
    Admin, Durability, Mirroring, Origin, Replication, Retention, Server, ServerBuilder, ServerError,
    ServerHandle, TakeOver,
    access::{Access, Authenticator},
    auth::{AnyOf, Jwt, StaticToken},
    hrana::{Hrana, HranaOptions},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};

use crate::{
    arguments::{Configured, Serve},
    config::{
        file::{File, others_can_read},
        flags::TRUSTED_PROXY,
    },
    error::CliError,
    secret,
};

/// How often memory that is free is given back.
const TIDY_EVERY: Duration = Duration::from_secs(2);

pub(crate) fn run(arguments: Serve) -> Result<(), CliError> {
    for warning in arguments.warnings() {
        tracing::warn!("{warning}");
    }
    if arguments.check_config {
        return check(arguments);
    }
    partial_sync_server::limit_sqlite_memory(arguments.sqlite_memory);
    partial_sync_server::give_back_large_blocks();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_keep_alive(partial_sync_server::BLOCKING_THREADS_WAIT)
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let listen = address(&arguments.configured, "listen", &arguments.listen)?;
        let settings = Settings::of(&arguments)?;
        let config = arguments.configured.file.clone();
        let is_open = arguments.allow_unauthenticated;
        // Before anybody can know that there is something to stop.
        let mut signals = Signals::new()?;
        let listening = builder(arguments)?.listen(listen);
        // A bucket may be silent, and a large file be compared.
        let mut server = tokio::select! {
            server = listening => server.map_err(|error| settings.told(error))?,
            () = signals.stop() => {
                tracing::info!("stopped before it listened");
                return Ok(());
            }
        };
        if is_open && !server.addr().ip().is_loopback() {
            tracing::warn!(
                "everybody who reaches {} can read and write the database; see --auth-token",
                server.addr()
            );
        }
        let mut out = std::io::stdout();
        writeln!(out, "listening on {}", server.url())?;
        if let Some(url) = server.admin_url() {
            writeln!(out, "administration on {url}")?;
        }
        out.flush()?;
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        let mut reloading = Reloading::default();
        loop {
            tokio::select! {
                // It may take some milliseconds.
                _ = tidy.tick() => drop(tokio::task::spawn_blocking(partial_sync_server::give_back_free_blocks)),
                asked = signals.next() => match asked {
                    Asked::Stop => break,
                    Asked::Reload => reloading.begin(&server, config.as_ref()),
                },
                () = reloading.ended() => reloading.begin_again(&server, config.as_ref()),
                () = server.wait() => return Ok(()),
            }
        }
        tracing::info!("stopping; what is being answered is finished first");
        tokio::select! {
            () = server.shutdown() => {}
            () = signals.stop() => tracing::warn!("stopped without waiting"),
        }
        Ok(())
    });
    // Threads that SQLite does not let go of end with the program.
    runtime.shutdown_background();
    served
}

/// Files being read again: at most once at a time, however often that is asked for, since a file may never be read to its end.
#[derive(Default)]
struct Reloading {
    under_way: Option<JoinHandle<()>>,
    /// It was asked for once more.
    again: bool,
}

impl Reloading {
    fn begin(&mut self, server: &ServerHandle, config: Option<&Arc<File>>) {
        if self.under_way.is_some() {
            self.again = true;
            return;
        }
        let (reload, config) = (server.reload(), config.map(Arc::clone));
        self.under_way = Some(tokio::spawn(async move {
            // The server tells the log what became of it.
            let _ = reload.await;
            if let Some(config) = config {
                // A panic there is reported by its thread.
                let _ = tokio::task::spawn_blocking(move || tell_of_changes(&config)).await;
            }
        }));
    }

    /// Waits until nothing is under way that was.
    async fn ended(&mut self) {
        match &mut self.under_way {
            Some(under_way) => drop(under_way.await),
            None => std::future::pending().await,
        }
    }

    fn begin_again(&mut self, server: &ServerHandle, config: Option<&Arc<File>>) {
        self.under_way = None;
        if std::mem::take(&mut self.again) {
            self.begin(server, config);
        }
    }
}

/// What the configuration file says is read at the start, and not again.
fn tell_of_changes(config: &File) {
    let path = config.path.display();
    match config.changed() {
        Ok(keys) if keys.is_empty() => {}
        Ok(keys) => tracing::warn!(
            "{path} was changed since the start: {} take effect when the server is started again (check it with --check-config)",
            keys.join(", ")
        ),
        Err(error) => tracing::warn!(
            "{path} cannot be used for the next start: {}",
            error.told().join("; because: ")
        ),
    }
}

impl Serve {
    /// What is usable and not as it should be.
    fn warnings(&self) -> impl Iterator<Item = String> {
        let secrets = [&self.auth_token_file, &self.admin_token_file, &self.tls_key];
        let secrets = secrets.into_iter().flatten();
        let open = secrets.filter(|path| std::fs::metadata(path).is_ok_and(|file| others_can_read(&file)));
        let open =
            open.map(|path| format!("everybody on this machine can read {}: chmod o-r", path.display()));
        self.configured.warnings.iter().cloned().chain(open)
    }
}

/// Checks all that can be checked without touching a database or a port.
fn check(arguments: Serve) -> Result<(), CliError> {
    let listen = address(&arguments.configured, "listen", &arguments.listen)?;
    let settings = Settings::of(&arguments)?;
    let effective = arguments.configured.effective.clone();
    builder(arguments)?
        .check(listen)
        .map_err(|error| settings.told(error))?;
    write!(std::io::stdout(), "{effective}")?;
    Ok(())
}

/// The address that a setting means.
fn address(configured: &Configured, key: &str, address: &str) -> Result<SocketAddr, CliError> {
    let none = || std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, "it leads nowhere");
    let found = address
        .to_socket_addrs()
        .and_then(|mut found| found.next().ok_or_else(none));
    found.map_err(|source| CliError::Address {
        setting: configured.written(key),
        address: address.to_owned(),
        source,
    })
}

/// What errors of the server begin with: the setting that they are about, as it was written.
struct Settings {
    configured: Configured,
    /// The files that the server reads.
    files: Vec<(PathBuf, String)>,
}

impl Settings {
    fn of(arguments: &Serve) -> Result<Self, CliError> {
        let given = [
            (
                "auth-token-file",
                &arguments.auth_token_file,
                Some(secret::TOKEN_FILE),
            ),
            (
                "auth-jwt-key",
                &arguments.auth_jwt_key,
                Some(secret::JWT_KEY_FILE),
            ),
            (
                "admin-token-file",
                &arguments.admin_token_file,
                Some(secret::ADMIN_TOKEN_FILE),
            ),
            ("tls-cert", &arguments.tls_cert, None),
            ("tls-key", &arguments.tls_key, None),
        ];
        let mut files = Vec::new();
        for (key, path, variable) in given {
            match (path, variable) {
                (Some(path), _) => files.push((path.clone(), arguments.configured.written(key))),
                (None, Some(variable)) => {
                    let path = secret::variable(variable)?;
                    files.extend(path.map(|path| (path.into(), variable.to_owned())));
                }
                (None, None) => {}
            }
        }
        Ok(Self {
            configured: arguments.configured.clone(),
            files,
        })
    }

    fn told(&self, error: ServerError) -> CliError {
        let of_file = |file: &Path| {
            let found = self.files.iter().find(|(path, _)| file.starts_with(path));
            found.map(|(_, setting)| setting.clone())
        };
        let of_key = |key| Some(self.configured.written(key));
        let setting = match &error {
            ServerError::Credentials(error) => error.file().and_then(of_file),
            ServerError::Tls { path, .. } => of_file(path),
            ServerError::BadOrigin(_) => of_key("cors-origin"),
            ServerError::BadProxy(_) => of_key("trusted-proxy"),
            ServerError::Unauthenticated(_) => of_key("listen"),
            ServerError::AdminWithoutToken => of_key("admin-listen"),
            ServerError::OtherLog { .. } | ServerError::NoFile { .. } | ServerError::NothingToReplicate => {
                of_key("replicate")
            }
            ServerError::Origin(_) | ServerError::CacheInUse { .. } => of_key("from"),
            ServerError::Log(_) => of_key(
                match self.configured.written.iter().any(|(key, _)| key == "from") {
                    true => "from",
                    false => "replicate",
                },
            ),
            _ => None,
        };
        match setting {
            Some(setting) => CliError::InSetting(setting, error),
            None => error.into(),
        }
    }
}

/// Whom the server lets in. A flag takes the place of its variables.
fn let_in(
    mut server: ServerBuilder,
    configured: &Configured,
    token: Option<String>,
    token_file: Option<PathBuf>,
    jwt_key: Option<PathBuf>,
) -> Result<ServerBuilder, CliError> {
    let variable = |name| secret::variable(name);
    let mut ways: Vec<Box<dyn Authenticator>> = vec![];
    let token = match token {
        Some(token) => Some(secret::one(&token, &configured.written("auth-token"))?),
        None => match variable(secret::TOKEN)? {
            Some(token) => Some(secret::one(&token, secret::TOKEN)?),
            None => None,
        },
    };
    if let Some(token) = token {
        ways.push(Box::new(StaticToken::new(token, Access::Full)));
    }
    let (keys, keys_at) = match jwt_key {
        Some(path) => (None, Some(path)),
        None => (
            variable(secret::JWT_KEY)?,
            variable(secret::JWT_KEY_FILE)?.map(PathBuf::from),
        ),
    };
    if let Some(keys) = keys {
        let keys = Jwt::from_key_file(keys.as_bytes());
        ways.push(Box::new(keys.map_err(|source| {
            CliError::InSetting(secret::JWT_KEY.to_owned(), source.into())
        })?));
    }
    if !ways.is_empty() {
        server = server.authenticator(AnyOf(ways));
    }
    if let Some(path) = keys_at {
        server = server.auth_jwt_keys(path);
    }
    let token_file = match token_file {
        Some(path) => Some(path),
        None => variable(secret::TOKEN_FILE)?.map(PathBuf::from),
    };
    if let Some(path) = token_file {
        server = server.auth_token_file(path);
    }
    Ok(server)
}

/// Who may administer, and where.
fn administer(
    server: ServerBuilder,
    configured: &Configured,
    listen: Option<String>,
    token_file: Option<PathBuf>,
) -> Result<ServerBuilder, CliError> {
    let Some(listen) = listen else { return Ok(server) };
    let mut admin = Admin::listen(address(configured, "admin-listen", &listen)?);
    if let Some(token) = secret::variable(secret::ADMIN_TOKEN)? {
        let token = secret::one(&token, secret::ADMIN_TOKEN)?;
        admin = admin.authenticator(StaticToken::new(token, Access::Full));
    }
    let token_file = match token_file {
        Some(path) => Some(path),
        None => secret::variable(secret::ADMIN_TOKEN_FILE)?.map(PathBuf::from),
    };
    if let Some(path) = token_file {
        admin = admin.token_file(path);
    }
    Ok(server.admin(admin))
}

/// Whether a url is that of a remote, and not of a bucket.
fn is_remote(url: &str) -> bool {
    let scheme = url
        .split_once("://")
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    scheme.is_some_and(|scheme| ["http", "https", "libsql", "turso"].contains(&scheme.as_str()))
}

fn builder(arguments: Serve) -> Result<ServerBuilder, CliError> {
    if arguments.allow_unauthenticated
        && let Some(name) = secret::of_server()
    {
        return Err(CliError::LetsAllIn(name));
    }
    let tuning = arguments.configured.tuning.clone();
    let path = arguments.path.filter(|path| path.as_os_str() != ":memory:");
    let mut server = match (path, arguments.from) {
        (Some(path), _) => Server::builder(path),
        (None, Some(url)) if is_remote(&url) => {
            let of_buckets = ["take-over", "take-over-after", "public-url"];
            let given = [
                arguments.take_over,
                arguments.take_over_after.is_some(),
                arguments.public_url.is_some(),
            ];
            if let Some((key, _)) = of_buckets.iter().zip(given).find(|(_, given)| *given) {
                return Err(CliError::NoBucket(arguments.configured.written(key)));
            }
            let token = secret::origin_token(arguments.origin_token_file.as_deref())?;
            let origin = Origin::at(url).auth_token(token);
            Server::from_origin(match arguments.cache {
                Some(folder) => origin.cache(folder, arguments.cache_bytes),
                None => origin,
            })
        }
        (None, Some(_)) if arguments.origin_token_file.is_some() => {
            let setting = arguments.configured.written("origin-token-file");
            return Err(CliError::NoOrigin(setting));
        }
        (None, Some(url)) => {
            let mut mirroring = Mirroring::of(url);
            if let Some(folder) = arguments.cache {
                mirroring = mirroring.cache(folder, arguments.cache_bytes);
            }
            let when = match arguments.take_over {
                true => Some(TakeOver::Now),
                false => arguments.take_over_after.map(TakeOver::After),
            };
            if let Some(when) = when {
                let url = arguments.public_url.clone().ok_or(CliError::NeedsPublicUrl)?;
                mirroring = mirroring.take_over(when, url);
            }
            Server::from_bucket(mirroring)
        }
        (None, None) => Server::in_memory(),
    };
    server = server
        .retention(Retention {
            age: arguments.retain,
            bytes: arguments.retain_bytes,
        })
        .sql(Hrana::new(HranaOptions {
            temporary_bytes: arguments.temp_space,
            ..tuning.sql
        }))
        .limits(tuning.limits)
        .query_limits(tuning.queries)
        .longest_poll(arguments.longest_poll)
        .open_databases(arguments.open_databases)
        .log_requests(arguments.log_requests)
        .allow_unauthenticated(arguments.allow_unauthenticated);
    if let Some(url) = arguments.replicate {
        let mut replication = Replication::to(url).take_over(arguments.take_over);
        if arguments.replicate_async {
            replication = replication.durability(Durability::Async);
        }
        if let Some(url) = arguments.public_url {
            replication = replication.writer_url(url);
        }
        server = server.replicate(replication);
    }
    for origin in arguments.cors_origin {
        server = server.cors_origin(origin);
    }
    let proxies = match secret::variable(TRUSTED_PROXY)? {
        Some(list) if arguments.trusted_proxy.is_empty() => {
            list.split(',').map(|text| text.trim().to_owned()).collect()
        }
        _ => arguments.trusted_proxy,
    };
    for proxy in proxies {
        server = server.trusted_proxy(proxy);
    }
    for name in arguments.allowed_host {
        server = server.allowed_host(name);
    }
    server = let_in(
        server,
        &arguments.configured,
        arguments.auth_token,
        arguments.auth_token_file,
        arguments.auth_jwt_key,
    )?;
    server = administer(
        server,
        &arguments.configured,
        arguments.admin_listen,
        arguments.admin_token_file,
    )?;
    if let (Some(certificate), Some(key)) = (arguments.tls_cert, arguments.tls_key) {
        server = server.tls(certificate, key);
    }
    Ok(server)
}

/// What a signal asks for.
enum Asked {
    Stop,
    Reload,
}

/// Ctrl-C, SIGTERM and SIGHUP. The latter never ends the program.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    /// Waits until the program is asked to stop.
    async fn stop(&mut self) {
        while !matches!(self.next().await, Asked::Stop) {}
    }
}
