//! What the tests of the engine share: a real server over real HTTP on a database that stock SQLite made, replicas of it
//! in temporary folders, and contents as text so that two databases can be compared.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use partial_sync::{Bootstrap, Builder, Connection, Database, PartialSync};
use partial_sync_server::{Retention, Server, ServerHandle};
use partial_sync_transport::{Counting, HttpRemote, Remote};
use rusqlite::types::ValueRef;
use tempfile::TempDir;

/// A served database.
pub(crate) struct Served {
    pub server: Option<ServerHandle>,
    pub folder: TempDir,
    pub file: PathBuf,
    port: u16,
    retention: Retention,
}

impl Served {
    /// Serves a database made by this script.
    pub(crate) fn new(script: &str) -> Self {
        Self::keeping(script, Retention::default())
    }

    /// The same, with old pages kept as `retention` says.
    pub(crate) fn keeping(script: &str, retention: Retention) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("remote.db");
        let conn = rusqlite::Connection::open(&file).unwrap();
        conn.pragma_update(None, "foreign_keys", false).unwrap();
        conn.execute_batch(script).unwrap();
        drop(conn);
        let mut served = Self {
            server: None,
            folder,
            file,
            port: 0,
            retention,
        };
        served.start();
        served
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_blocking();
        }
    }

    pub(crate) fn start(&mut self) {
        let addr = format!("127.0.0.1:{}", self.port);
        let server = Server::builder(&self.file)
            .retention(self.retention)
            .start_blocking(addr)
            .unwrap();
        self.port = server.addr().port();
        self.server = Some(server);
    }

    /// Stock SQLite on the served file, as another process would use it.
    pub(crate) fn sqlite(&self) -> rusqlite::Connection {
        let conn = rusqlite::Connection::open(&self.file).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        conn.pragma_update(None, "foreign_keys", false).unwrap();
        conn
    }

    pub(crate) fn execute(&self, script: &str) {
        self.sqlite().execute_batch(script).unwrap();
    }

    /// A remote that counts.
    pub(crate) fn counting(&self) -> Arc<Counting> {
        Arc::new(Counting::new(self.http()))
    }

    /// Pages that the server has sent since it was started, and the bytes of them and of what was around them.
    pub(crate) fn sent(&self) -> (u64, u64) {
        let mut server = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        server
            .write_all(b"GET /metrics HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        server.read_to_string(&mut answer).unwrap();
        let number = |name: &str| {
            let line = answer.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split(' ').nth(1)?.parse().ok())
                .unwrap()
        };
        (
            number("partial_sync_pages_sent_total "),
            number("partial_sync_page_bytes_sent_total "),
        )
    }

    pub(crate) fn http(&self) -> Arc<dyn Remote> {
        Arc::new(HttpRemote::builder(self.url()).build().unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A folder for replicas.
pub(crate) struct Replicas(pub TempDir);

impl Replicas {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn builder(&self, name: &str) -> Builder {
        Database::builder(self.path(name)).client_name(name)
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn prefix(bytes: u64, segment: u64) -> PartialSync {
    PartialSync {
        bootstrap: Some(Bootstrap::prefix(bytes)),
        segment_size: Some(segment),
        ..PartialSync::default()
    }
}

/// Rows of a query on a replica, as text.
pub(crate) fn rows(conn: &Connection, sql: &str) -> partial_sync::Result<Vec<String>> {
    let mut statement = conn.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query(())?;
    let mut out = vec![];
    while let Some(row) = rows.next()? {
        let row: Vec<String> = (0..columns).map(|i| shown(row.get_ref(i).unwrap())).collect();
        out.push(row.join("|"));
    }
    Ok(out)
}

/// Rows of a query on stock SQLite, as text.
pub(crate) fn stock_rows(conn: &rusqlite::Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query(())?;
    let mut out = vec![];
    while let Some(row) = rows.next()? {
        let row: Vec<String> = (0..columns).map(|i| shown(row.get_ref(i).unwrap())).collect();
        out.push(row.join("|"));
    }
    Ok(out)
}

fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "Null".into(),
        ValueRef::Integer(n) => format!("Integer({n})"),
        ValueRef::Real(f) => format!("{f:?}"),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => format!("Text({text:?})"),
            Err(_) => format!("Text of {bytes:02x?}"),
        },
        ValueRef::Blob(bytes) => format!("x{bytes:02x?}"),
    }
}

const TABLES: &str = "select name from sqlite_schema where type = 'table' and name not like 'sqlite_%' \
     and name not like 'partial_sync_%' and name <> 'turso_sync_last_change_id' order by name";

/// Every row of every table of a replica (but not the bookkeeping), as text.
pub(crate) fn contents(conn: &Connection) -> Vec<String> {
    all_rows(|sql| rows(conn, sql).unwrap())
}

/// The same of a file, by stock SQLite.
pub(crate) fn stock_contents(conn: &rusqlite::Connection) -> Vec<String> {
    all_rows(|sql| stock_rows(conn, sql).unwrap())
}

fn all_rows(query: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let mut out = query(SCHEMA);
    for table in query(TABLES) {
        let name = table.trim_start_matches("Text(\"").trim_end_matches("\")");
        out.push(name.to_owned());
        let mut all = query(&format!("select * from \"{}\"", name.replace('"', "\"\"")));
        all.sort();
        out.extend(all);
    }
    out
}

const SCHEMA: &str = "select type, name, tbl_name from sqlite_schema where name not like 'sqlite_%' \
     and name not like 'partial_sync_%' and tbl_name not like 'partial_sync_%' \
     and tbl_name <> 'turso_sync_last_change_id' order by type, name";

pub(crate) fn stock(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).unwrap()
}

/// Waits, without a fixed pause, until something is so; panics after a while.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !so() {
        assert!(std::time::Instant::now() < end, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// A seed for a random test: from `PARTIAL_SYNC_SEED`, or a new one. It is printed, so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("PARTIAL_SYNC_SEED") {
        Ok(text) => text.parse().expect("PARTIAL_SYNC_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("PARTIAL_SYNC_SEED={seed}");
    seed
}

/// Fails with the first line in which two contents differ, cut short.
pub(crate) fn assert_same(left: &[String], right: &[String], what: &str) {
    let short = |line: Option<&String>| line.map(|l| l.chars().take(300).collect::<String>());
    for n in 0..left.len().max(right.len()) {
        let (l, r) = (left.get(n), right.get(n));
        assert!(
            l == r,
            "{what}: line {n} differs\n  {:?}\n  {:?}",
            short(l),
            short(r)
        );
    }
}
