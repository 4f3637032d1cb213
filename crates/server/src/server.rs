//! Building, starting and stopping a server.

use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use partial_sync_vfs::temporary::Quota;
use tokio::sync::watch;

use crate::{
    access::{Authenticator, SqlEndpoint},
    admin::{Admin, AdminApp},
    app::{App, StatusLooks},
    clock::Clock,
    credentials::Credentials,
    database::{OpenHistory, Opener},
    databases::{Databases, default_history},
    error::{HistoryError, ServerError},
    front::{Bodies, Connections, Proxies, Requests, Visitors},
    history::{History, Retention},
    hrana::Hrana,
    in_process::InProcess,
    limits::Limits,
    mirror::{Mirroring, Mirrors},
    origin::{Origin, Origins},
    pages::{InFlight, PagesEndpoint, QueryLimits, QueryRunner, ReadTurns, SnapshotQueries},
    reload::Reload,
    replicate::{Replication, Replicator},
    request_log::RequestLog,
    serve,
    served::Served,
    tls::Tls,
    turns::Turns,
};

/// How long a thread that blocked for a request waits for the next one before it ends. Each that waits is woken in turn, so that
/// there are about as many as requests come in that time, not as many as there were at the busiest moment.
pub const BLOCKING_THREADS_WAIT: Duration = Duration::from_secs(1);

/// How long interrupting statements and closing the databases may take, after the last answers.
const LAST_CLOSES: Duration = Duration::from_millis(5500);

/// A server of SQLite files; see [`Server::builder`].
#[derive(Clone, Copy, Debug)]
pub struct Server;

impl Server {
    /// Serves a file, which is made if it is missing, or every `*.db` of a folder.
    ///
    /// The file is put into WAL mode. A file that is moved or copied to its path while it is being served is another
    /// database: replicas of the one before have to be made again, and are told so.
    pub fn builder(path: impl AsRef<Path>) -> ServerBuilder {
        ServerBuilder::new(Some(path.as_ref().to_owned()))
    }

    /// Serves an empty database that is gone when the server stops.
    pub fn in_memory() -> ServerBuilder {
        ServerBuilder::new(None)
    }

    /// Serves what a bucket has, without a file: pages from there and a cache, SQL from the server that writes it.
    pub fn from_bucket(mirroring: Mirroring) -> ServerBuilder {
        ServerBuilder {
            mirroring: Some(mirroring),
            ..ServerBuilder::new(None)
        }
    }

    /// Serves what another remote has, without a file: pages from there and a cache, SQL from there.
    pub fn from_origin(origin: Origin) -> ServerBuilder {
        ServerBuilder {
            origin: Some(origin),
            ..ServerBuilder::new(None)
        }
    }
}

/// Which requests are let in, and how they are read.
struct Door {
    visitors: Visitors,
    proxies: Proxies,
    tls: Option<Arc<Tls>>,
    reload: Arc<Reload>,
    /// Where it listens for administration.
    admin: Option<SocketAddr>,
}

/// What a server is to do.
#[must_use]
pub struct ServerBuilder {
    path: Option<PathBuf>,
    retention: Retention,
    authenticator: Option<Arc<dyn Authenticator>>,
    token_file: Option<PathBuf>,
    jwt_keys: Option<PathBuf>,
    allow_unauthenticated: bool,
    tls: Option<(PathBuf, PathBuf)>,
    sql: Arc<dyn SqlEndpoint>,
    queries: Arc<dyn QueryRunner>,
    query_limits: QueryLimits,
    limits: Limits,
    cors_origins: Vec<String>,
    allowed_hosts: Vec<String>,
    trusted_proxies: Vec<String>,
    longest_poll: Duration,
    open_databases: usize,
    clock: Clock,
    history: OpenHistory,
    log_requests: bool,
    admin: Option<Admin>,
    replication: Option<Replication>,
    mirroring: Option<Mirroring>,
    origin: Option<Origin>,
}

impl ServerBuilder {
    fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            retention: Retention::default(),
            authenticator: None,
            token_file: None,
            jwt_keys: None,
            allow_unauthenticated: false,
            tls: None,
            sql: Arc::new(Hrana::default()),
            queries: Arc::new(SnapshotQueries),
            query_limits: QueryLimits::default(),
            limits: Limits::default(),
            cors_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            longest_poll: Duration::from_secs(300),
            open_databases: 200,
            clock: Clock::default(),
            history: default_history(),
            log_requests: false,
            admin: None,
            replication: None,
            mirroring: None,
            origin: None,
        }
    }

    /// Replicates each database to object storage: every commit is put there too, and a revision is given to replicas when it is
    /// there. This server is the only writer then. Default: no.
    pub fn replicate(mut self, replication: Replication) -> Self {
        self.replication = Some(replication);
        self
    }

    /// For how long and up to how many bytes old pages are kept. Default: 24 hours, 1 GiB for each database.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Who may do what, besides those who are let in by [`Self::auth_token_file`] and [`Self::auth_jwt_keys`]. Default:
    /// without any of the three, everybody may do everything, on loopback only.
    pub fn authenticator(mut self, authenticator: impl Authenticator + 'static) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Lets in who sends a token of this file, which [`ServerHandle::reload`] reads again. Its lines:
    /// [`StaticTokens::from_token_file`](crate::auth::StaticTokens::from_token_file).
    pub fn auth_token_file(mut self, path: impl AsRef<Path>) -> Self {
        self.token_file = Some(path.as_ref().to_owned());
        self
    }

    /// Lets in who sends a JWT signed with a key of this file, or of a file of this folder, which [`ServerHandle::reload`]
    /// reads again. What may be in it: [`Jwt::from_key_file`](crate::auth::Jwt::from_key_file).
    pub fn auth_jwt_keys(mut self, path: impl AsRef<Path>) -> Self {
        self.jwt_keys = Some(path.as_ref().to_owned());
        self
    }

    /// Allows listening beyond loopback without an authenticator.
    pub fn allow_unauthenticated(mut self, allow: bool) -> Self {
        self.allow_unauthenticated = allow;
        self
    }

    /// Serves `https` with the certificate chain and the private key in these PEM files, which [`ServerHandle::reload`] reads
    /// again.
    pub fn tls(mut self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.tls = Some((certificate.as_ref().to_owned(), key.as_ref().to_owned()));
        self
    }

    /// Answers SQL. Default: [`Hrana`] with its default limits.
    pub fn sql(mut self, endpoint: impl SqlEndpoint + 'static) -> Self {
        self.sql = Arc::new(endpoint);
        self
    }

    /// Runs query selectors.
    pub fn queries(mut self, runner: impl QueryRunner + 'static) -> Self {
        self.queries = Arc::new(runner);
        self
    }

    /// How much a query selector may cost. Default: 10 seconds, 1,048,576 pages.
    pub fn query_limits(mut self, limits: QueryLimits) -> Self {
        self.query_limits = limits;
        self
    }

    /// Lets web pages of an origin (`https://app.example.org`; `*` = of all) use this server. May be called several times.
    /// Default: none but those that come from the host that they ask.
    pub fn cors_origin(mut self, origin: impl Into<String>) -> Self {
        self.cors_origins.push(origin.into());
        self
    }

    /// Answers requests for this name and every name below it, and of other names only those for `localhost` and for the
    /// addresses of loopback and of the server. May be called several times. Default: any name; of a server that
    /// listens on loopback and has no authenticator, none.
    pub fn allowed_host(mut self, name: impl Into<String>) -> Self {
        self.allowed_hosts.push(name.into());
        self
    }

    /// Believes a proxy of this address, or of this network (`10.0.0.0/8`), when it says in `X-Forwarded-For` for whom it asks: what one
    /// address may have, and what the log tells of a request, is by the last address there that is not one of these. May be called
    /// several times. Default: nobody is believed.
    pub fn trusted_proxy(mut self, address: impl Into<String>) -> Self {
        self.trusted_proxies.push(address.into());
        self
    }

    /// How much may come in at a time, and how long it may take.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Longest long poll, whatever a client asks for. Default: 5 minutes.
    pub fn longest_poll(mut self, time: Duration) -> Self {
        // What is added to a clock has an end.
        self.longest_poll = time.min(Duration::from_secs(10 * 366 * 86_400));
        self
    }

    /// Databases of a folder that are open at the same time. When another one is asked for, the one that nobody uses and
    /// that was asked for longest ago is closed; more are open only while more are used. Default: 200.
    pub fn open_databases(mut self, most: usize) -> Self {
        self.open_databases = most;
        self
    }

    /// Where old pages are kept: opens the history of the database at a path. Default: [`SqliteHistory::open`], a SQLite
    /// file beside the database; [`SqliteHistory::open_in`] for one whose file operations go through a storage.
    ///
    /// [`SqliteHistory::open`]: crate::history::SqliteHistory::open
    /// [`SqliteHistory::open_in`]: crate::history::SqliteHistory::open_in
    pub fn history(
        mut self,
        open: impl Fn(&Path) -> Result<Arc<dyn History>, HistoryError> + Send + Sync + 'static,
    ) -> Self {
        self.history = Arc::new(open);
        self
    }

    /// Whether each request is told to the log, at level `info`, when its answer has ended: id, method, path, database, status, bytes,
    /// time, caller and address, and nothing that a client could put a secret in. Its answer has the id in `x-request-id`. Default: no.
    pub fn log_requests(mut self, log: bool) -> Self {
        self.log_requests = log;
        self
    }

    /// Administration over HTTP, on a listener of its own. Default: none.
    pub fn admin(mut self, admin: Admin) -> Self {
        self.admin = Some(admin);
        self
    }

    /// The time of day that revisions are stamped with and retention goes by.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Starts the server on the runtime that this is called in. A single file is opened before this returns, so that a
    /// file that cannot be served is an error here. `addr` like `127.0.0.1:0`: port 0 = any free one.
    pub async fn listen(self, addr: impl ToSocketAddrs) -> Result<ServerHandle, ServerError> {
        let addr = serve::resolve(addr).map_err(ServerError::Address)?;
        let Door {
            visitors,
            proxies,
            tls,
            reload,
            admin,
        } = self.door(addr)?;
        // The port before the files: a server that cannot listen has touched nothing.
        let (listener, addr) = serve::bind(addr)?;
        let admin = match admin {
            Some(at) => Some((
                serve::bind(at)?,
                Visitors::new(&[], self.hosts(at, serve::is_loopback(at)))?,
            )),
            None => None,
        };
        let (served, databases) = self.served().await?;
        let (stop, stopping) = watch::channel(false);
        let (done, finished) = watch::channel(false);
        let app = self.app(
            Arc::clone(&served),
            Arc::clone(&reload),
            stopping.clone(),
            visitors,
            proxies,
        );
        let app = Arc::new(app);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let admin_addr = admin.as_ref().map(|((_, addr), _)| *addr);
        tokio::spawn(async move {
            let (admin_tls, admin_stopping) = (tls.clone(), stopping.clone());
            let administered = async {
                if let (Some(((listener, _), visitors)), Some(databases)) = (admin, databases) {
                    let app = Arc::new(AdminApp::new(Arc::clone(&app), databases, visitors));
                    serve::serve(listener, admin_tls, app, admin_stopping).await;
                }
            };
            tokio::join!(
                serve::serve(listener, tls, Arc::clone(&app), stopping),
                administered
            );
            let until = tokio::time::Instant::now() + LAST_CLOSES;
            app.sql.shut_down().await;
            if tokio::time::timeout_at(until, served.close()).await.is_err() {
                tracing::warn!("a database that is being read is left as after a crash");
            }
            drop(app);
            done.send_replace(true);
        });
        Ok(ServerHandle {
            addr,
            admin_addr,
            scheme,
            stop,
            finished,
            reload,
            thread: None,
        })
    }

    /// Reads all the files that the settings name, but no database, and checks what [`listen`](Self::listen) checks, without
    /// listening.
    pub fn check(&self, addr: impl ToSocketAddrs) -> Result<(), ServerError> {
        self.door(serve::resolve(addr).map_err(ServerError::Address)?)
            .map(drop)
    }

    /// Reads the files that say so, and refuses to let everybody in from anywhere.
    fn door(&self, addr: SocketAddr) -> Result<Door, ServerError> {
        let lets_all_in =
            self.authenticator.is_none() && self.token_file.is_none() && self.jwt_keys.is_none();
        if lets_all_in && !self.allow_unauthenticated && !serve::is_loopback(addr) {
            return Err(ServerError::Unauthenticated(addr));
        }
        // Who has to show a token is not fooled by a name.
        let is_open = lets_all_in && serve::is_loopback(addr);
        let visitors = Visitors::new(&self.cors_origins, self.hosts(addr, is_open))?;
        let admin = self.admin.as_ref().map(Admin::parts).transpose()?;
        let (admin, admin_credentials) = admin.unzip();
        let tls = match self.tls.clone() {
            Some((certificate, key)) => Some(Arc::new(Tls::new(certificate, key)?)),
            None => None,
        };
        let reload = self.reload(admin_credentials, tls.clone())?;
        Ok(Door {
            visitors,
            proxies: Proxies::new(&self.trusted_proxies)?,
            tls,
            reload,
            admin,
        })
    }

    /// The names that a listener answers to; `None` = any. `closed` = no others than those that are allowed.
    fn hosts(&self, addr: SocketAddr, closed: bool) -> Option<Vec<String>> {
        (closed || !self.allowed_hosts.is_empty()).then(|| {
            let mut hosts = self.allowed_hosts.clone();
            hosts.push(addr.ip().to_string());
            hosts
        })
    }

    /// What is served, and the files if it is files.
    async fn served(&self) -> Result<(Arc<dyn Served>, Option<Arc<Databases>>), ServerError> {
        if self.admin.is_some() && (self.mirroring.is_some() || self.origin.is_some()) {
            return Err(ServerError::NothingToAdminister);
        }
        if let Some(origin) = &self.origin {
            let origins = Origins::new(origin.clone(), self.open_databases).await?;
            return Ok((Arc::new(origins), None));
        }
        if let Some(mirroring) = &self.mirroring {
            let mirrors =
                Mirrors::new(mirroring.clone(), self.opener(None, true), self.open_databases).await?;
            return Ok((mirrors, None));
        }
        let databases = Arc::new(self.databases(true)?);
        if databases.is_single() {
            databases.get("").await?;
        }
        Ok((Arc::clone(&databases) as _, Some(databases)))
    }

    fn databases(&self, watched: bool) -> Result<Databases, ServerError> {
        let replicator = match &self.replication {
            Some(_) if self.path.is_none() => return Err(ServerError::NothingToReplicate),
            Some(replication) => {
                replication.check()?;
                Some(Arc::new(Replicator {
                    options: replication.clone(),
                    retention: self.retention.age,
                    runtime: tokio::runtime::Handle::current(),
                }))
            }
            None => None,
        };
        let opener = self.opener(replicator, watched);
        Databases::new(self.path.as_deref(), opener, self.open_databases)
    }

    fn opener(&self, replicator: Option<Arc<Replicator>>, watched: bool) -> Opener {
        Opener {
            retention: self.retention,
            clock: self.clock.clone(),
            history: self.history.clone(),
            sql: Arc::clone(&self.sql),
            replicator,
            watched,
        }
    }

    fn reload(&self, admin: Option<Credentials>, tls: Option<Arc<Tls>>) -> Result<Arc<Reload>, ServerError> {
        let given = self.authenticator.clone();
        let credentials = Credentials::new(given, self.token_file.clone(), self.jwt_keys.clone())?;
        for what in credentials.told() {
            tracing::info!("read: {what}");
        }
        for what in admin.iter().flat_map(Credentials::told) {
            tracing::info!("read: {what} for administration");
        }
        Ok(Arc::new(Reload::new(credentials, admin, tls, Arc::default())))
    }

    fn app(
        self,
        served: Arc<dyn Served>,
        reload: Arc<Reload>,
        stopping: watch::Receiver<bool>,
        visitors: Visitors,
        proxies: Proxies,
    ) -> App {
        let metrics = reload.metrics();
        App {
            served,
            looks: StatusLooks::default(),
            reload,
            sql: self.sql,
            pages: PagesEndpoint {
                queries: self.queries,
                query_limits: self.query_limits,
                query_turns: Arc::new(Turns::new(self.query_limits.at_once, self.query_limits.of_caller)),
                temporary: Quota::new(
                    self.query_limits.temporary_bytes / 2,
                    self.query_limits.temporary_bytes,
                ),
                in_flight: InFlight::default(),
                read_turns: ReadTurns::default(),
                given: Arc::default(),
                longest_poll: self.longest_poll,
                metrics: Arc::clone(&metrics),
                stopping,
            },
            metrics,
            connections: Connections::new(&self.limits),
            requests: Requests::new(&self.limits),
            kicks: Arc::default(),
            bodies: Bodies::new(&self.limits),
            visitors,
            proxies,
            request_log: self.log_requests.then(RequestLog::new),
            limits: self.limits,
        }
    }

    /// A server of one file without a socket, which does nothing unless it is told to; for simulations. To be called, and
    /// its requests sent, inside a runtime.
    pub async fn in_process(self) -> Result<InProcess, ServerError> {
        let clock = self.clock.clone();
        let databases = Arc::new(self.databases(false)?);
        databases.get("").await?;
        let (stop, stopping) = watch::channel(false);
        let visitors = Visitors::new(&self.cors_origins, None)?;
        let reload = self.reload(None, None)?;
        let served = Arc::clone(&databases) as Arc<dyn Served>;
        let app = Arc::new(self.app(served, reload, stopping, visitors, Proxies::default()));
        Ok(InProcess {
            app,
            databases,
            clock,
            stop,
        })
    }

    /// Starts the server on a runtime and a thread of its own, for programs without one.
    pub fn start_blocking(self, addr: impl ToSocketAddrs) -> Result<ServerHandle, ServerError> {
        let addr = serve::resolve(addr).map_err(ServerError::Address)?;
        let (started, starting) = std::sync::mpsc::channel();
        let failed = |source| ServerError::Listen { addr, source };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("partial-sync-server")
            .thread_keep_alive(BLOCKING_THREADS_WAIT)
            .enable_all()
            .build()
            .map_err(failed)?;
        let run = move || {
            runtime.block_on(async move {
                let handle = self.listen(addr).await;
                let finished = handle.as_ref().ok().map(|handle| handle.finished.clone());
                // Nobody is left to tell if the starting thread is gone; dropping the handle stops the server.
                let _ = started.send(handle);
                if let Some(mut finished) = finished {
                    let _ = finished.wait_for(|done| *done).await;
                }
            });
            // Threads that SQLite does not let go of are left behind.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new()
            .name("partial-sync-server".to_owned())
            .spawn(run)
            .map_err(failed)?;
        let mut handle = starting.recv().map_err(|_| ServerError::Stopping)??;
        handle.thread = Some(thread);
        Ok(handle)
    }
}

/// A running server. It stops when this is dropped, or, waiting for the end, by [`ServerHandle::shutdown`].
pub struct ServerHandle {
    addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    scheme: &'static str,
    stop: watch::Sender<bool>,
    finished: watch::Receiver<bool>,
    reload: Arc<Reload>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl ServerHandle {
    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base url: `http://127.0.0.1:40123`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.addr)
    }

    /// The base url for administration, if there is a listener for it.
    pub fn admin_url(&self) -> Option<String> {
        Some(format!("{}://{}", self.scheme, self.admin_addr?))
    }

    /// Reads the files of [`ServerBuilder::auth_token_file`], [`auth_jwt_keys`](ServerBuilder::auth_jwt_keys) and
    /// [`tls`](ServerBuilder::tls) again, and tells the log. The next request is judged by what they say now, and so is the
    /// answer to a long poll that waits; the next connection gets the new certificate, and open ones continue. A file that
    /// cannot be used is an error and leaves what it said before in force; the others count.
    pub fn reload(&self) -> BoxFuture<'static, Result<(), ServerError>> {
        let reload = Arc::clone(&self.reload);
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || reload.run()).await;
            read.map_err(|_| ServerError::Stopping)?
        })
    }

    /// The same, on this thread.
    pub fn reload_blocking(&self) -> Result<(), ServerError> {
        self.reload.run()
    }

    /// Stops accepting, finishes the answers under way, notes where the databases stand, and closes them. Takes at most ten
    /// seconds: answers have four of them, then statements are interrupted, and what cannot be interrupted is left to its
    /// thread.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        // An error means that the server's task is gone, which is an end too.
        let _ = self.finished.wait_for(|done| *done).await;
    }

    /// The same for a server that was started with [`ServerBuilder::start_blocking`].
    pub fn shutdown_blocking(mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic of the server's thread has been reported by the thread itself.
            let _ = thread.join();
        }
    }

    /// Waits until the server has stopped, for whatever reason.
    pub async fn wait(&mut self) {
        // As in `shutdown`.
        let _ = self.finished.wait_for(|done| *done).await;
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerHandle({})", self.url())
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}
