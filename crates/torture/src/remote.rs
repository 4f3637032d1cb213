//! The remote of a history: the real server on a real file, in memory-backed storage, and the clients that write to the
//! file directly. In most histories it is called without a socket and does nothing of itself; in some it is a server like
//! any other.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use partial_sync_server::{InProcess, Retention, Server, ServerHandle};
use partial_sync_transport::{
    HttpClient, HttpRemote, PageSelector, PagesRequest, Remote as _,
    http::{ReqwestClient, RetryPolicy},
};
use rusqlite::Connection;

use crate::{
    model::{self, State},
    steps::Case,
    workload,
};

/// Everything that can fail here is a fault of the laboratory, or of the server.
pub type Result<T> = std::result::Result<T, String>;

/// See the module.
pub struct Remote {
    file: PathBuf,
    /// Other clients.
    pub conn: Connection,
    server: Option<Running>,
    http: bool,
    port: u16,
    pub(crate) runtime: tokio::runtime::Runtime,
    reqwest: Option<Arc<dyn HttpClient>>,
}

enum Running {
    InProcess(Arc<InProcess>),
    Http(ServerHandle),
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

impl Remote {
    /// Makes the database and serves it.
    pub fn new(folder: &Path, case: &Case) -> Result<Self> {
        let file = folder.join("remote.db");
        let conn = Connection::open(&file).map_err(text)?;
        rusqlite::vtab::series::load_module(&conn).map_err(text)?;
        conn.execute_batch(&format!(
            "PRAGMA page_size = {}; PRAGMA auto_vacuum = {}; PRAGMA foreign_keys = off; PRAGMA synchronous = off;",
            case.page_size, case.auto_vacuum
        ))
        .map_err(text)?;
        conn.execute_batch(&workload::script(&case.tables, case.filler))
            .map_err(text)?;
        conn.execute_batch("PRAGMA journal_mode = wal").map_err(text)?;
        conn.busy_timeout(Duration::from_secs(5)).map_err(text)?;
        model::apply_pragmas(&conn, &case.pragmas).map_err(text)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(text)?;
        let mut this = Self {
            file,
            conn,
            server: None,
            http: case.http,
            port: 0,
            runtime,
            reqwest: None,
        };
        this.start()?;
        Ok(this)
    }

    /// Starts the server.
    pub fn start(&mut self) -> Result<()> {
        // Only what is told to expire expires.
        let retention = Retention::default();
        self.server = Some(if self.http {
            let addr = format!("127.0.0.1:{}", self.port);
            let handle = Server::builder(&self.file)
                .retention(retention)
                .start_blocking(addr)
                .map_err(text)?;
            self.port = handle.addr().port();
            if self.reqwest.is_none() {
                self.reqwest = Some(Arc::new(ReqwestClient::new().map_err(text)?));
            }
            Running::Http(handle)
        } else {
            let server = Server::builder(&self.file).retention(retention).in_process();
            Running::InProcess(Arc::new(self.runtime.block_on(server).map_err(text)?))
        });
        Ok(())
    }

    /// Stops it; `kill` = without any notice, where it has no socket.
    pub fn stop(&mut self, kill: bool) {
        match self.server.take() {
            Some(Running::Http(handle)) => handle.shutdown_blocking(),
            Some(Running::InProcess(server)) if !kill => {
                if let Some(server) = Arc::into_inner(server) {
                    self.runtime.block_on(server.close());
                }
            }
            _ => {}
        }
    }

    /// What sends requests to it.
    pub fn client(&self) -> Option<Arc<dyn HttpClient>> {
        match self.server.as_ref()? {
            Running::Http(_) => self.reqwest.clone(),
            Running::InProcess(server) => Some(server.clone()),
        }
    }

    /// Its url.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A remote as replicas use it, through this client.
    pub fn through(
        &self,
        client: Arc<dyn HttpClient>,
        timeout: Duration,
        seed: u64,
    ) -> Result<Arc<HttpRemote>> {
        let remote = HttpRemote::builder(self.url())
            .client(client)
            .retry(RetryPolicy::none())
            .deadline(timeout)
            .seed(seed);
        Ok(Arc::new(remote.build().map_err(text)?))
    }

    /// The latest revision, as any client would learn it.
    pub fn revision(&self) -> Result<String> {
        let client = self.client().ok_or("the server is down")?;
        let remote = self.through(client, Duration::from_secs(10), 0)?;
        let request = PagesRequest {
            select: PageSelector::Ids([0].into_iter().collect()),
            ..PagesRequest::default()
        };
        let answer = self.runtime.block_on(remote.pages(request)).map_err(text)?;
        Ok(answer.header.revision.as_str().to_owned())
    }

    /// Lets go of every revision but the latest.
    pub fn expire(&self) -> Result<bool> {
        let Some(Running::InProcess(server)) = &self.server else {
            return Ok(false);
        };
        let nothing = Retention {
            age: Duration::ZERO,
            bytes: 0,
        };
        self.runtime.block_on(server.prune(nothing)).map_err(text)?;
        Ok(true)
    }

    /// What is in the file.
    pub fn state(&self) -> Result<State> {
        model::state(&self.conn).map_err(text)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.stop(true);
    }
}
