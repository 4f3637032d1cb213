//! A database to serve, a server on it, and a client that speaks the wire format and checks nothing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use bytes::Bytes;
use partial_sync_core::Revision;
use partial_sync_server::{Server, ServerHandle};
use partial_sync_transport::{
    PageSelector, PagesRequest,
    wire::{
        FrameDecoder, HEADER_LIMIT, PROTOBUF, PageEncoding, PullUpdatesHeader, PullUpdatesRequest, Unpacker,
    },
};
use prost::Message;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rusqlite::Connection;

/// A database in a folder of its own.
pub(crate) struct TestDb {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

impl TestDb {
    /// A database with a table `t(id INTEGER PRIMARY KEY, v BLOB)`.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let this = Self {
            _folder: folder,
            path,
        };
        this.open()
            .execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
            .unwrap();
        this
    }

    pub(crate) fn open(&self) -> Connection {
        let db = Connection::open(&self.path).unwrap();
        db.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
        let _: String = db
            .query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))
            .unwrap();
        db
    }

    pub(crate) async fn serve(&self) -> ServerHandle {
        Server::builder(&self.path).listen("127.0.0.1:0").await.unwrap()
    }
}

/// Inserts `n` rows with ids from `from` and 500 random bytes each.
pub(crate) fn insert(db: &Connection, from: i64, n: i64) {
    db.execute(
        "WITH RECURSIVE n(i) AS (VALUES (?1) UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
         INSERT INTO t(id, v) SELECT i, randomblob(500) FROM n",
        [from, from + n - 1],
    )
    .unwrap();
}

/// All pages of the latest state, as they are in the file. On a connection of its own: a writer's cache may hold other
/// bytes for pages that it has freed, which SQLite does not write.
pub(crate) fn dump(path: &Path) -> Vec<Bytes> {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    let mut pages = db
        .prepare("SELECT data FROM sqlite_dbpage ORDER BY pgno")
        .unwrap();
    let rows = pages.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    rows.map(|data| Bytes::from(data.unwrap())).collect()
}

/// Runs the `sqlite3` program, another process, on a database.
pub(crate) fn shell(path: &Path, sql: &str) -> String {
    let out = Command::new("sqlite3")
        .arg("-cmd")
        .arg(".timeout 20000")
        .arg(path)
        .arg(sql)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub revision: Revision,
    pub size: u32,
    pub pages: BTreeMap<u32, Bytes>,
    pub order: Vec<u32>,
}

impl Answer {
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.pages.keys().copied().collect()
    }

    /// The pages of a full answer, in order; nothing may be missing.
    pub(crate) fn whole(&self) -> Vec<Bytes> {
        assert!(
            self.ids().into_iter().eq(0..self.size),
            "ids {:?} of {}",
            self.ids(),
            self.size
        );
        self.pages.values().cloned().collect()
    }
}

/// A refusal: status and JSON body.
#[derive(Debug)]
pub(crate) struct Refused {
    pub status: u16,
    pub code: String,
    pub message: String,
}

/// A client of one database.
#[derive(Clone)]
pub(crate) struct Client {
    pub http: reqwest::Client,
    pub url: String,
    /// What answers say that the server can do.
    pub features: &'static str,
}

const FEATURES: &str = "hydrate, zstd, require, list, zstd-bodies, zstd-blocks, writes";

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            http: reqwest::Client::builder()
                .tls_backend_preconfigured(no_tls())
                .build()
                .unwrap(),
            url: url.to_owned(),
            features: FEATURES,
        }
    }

    /// One whose requests a proxy passes on that says so.
    pub(crate) fn through_proxy(url: &str, forwarded_for: &str) -> Self {
        let forwarded_for = HeaderValue::try_from(forwarded_for).unwrap();
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-for"), forwarded_for)]);
        let builder = reqwest::Client::builder().tls_backend_preconfigured(no_tls());
        Self {
            http: builder.default_headers(headers).build().unwrap(),
            url: url.to_owned(),
            features: FEATURES,
        }
    }

    /// A client without a url that speaks HTTP/2.
    pub(crate) fn http2() -> reqwest::Client {
        reqwest::Client::builder()
            .tls_backend_preconfigured(no_tls())
            .http2_prior_knowledge()
            .build()
            .unwrap()
    }

    pub(crate) async fn ask(&self, request: PagesRequest) -> Result<Answer, Refused> {
        self.ask_encoded(request, PageEncoding::Raw).await
    }

    pub(crate) async fn ask_encoded(
        &self,
        request: PagesRequest,
        encoding: PageEncoding,
    ) -> Result<Answer, Refused> {
        let body = PullUpdatesRequest::new(&request, encoding).encode_to_vec();
        self.ask_raw(body).await
    }

    /// Asks a server, whatever it says that it can do.
    pub(crate) async fn ask_any(&self, request: PagesRequest) -> Result<Answer, Refused> {
        self.send(PullUpdatesRequest::new(&request, PageEncoding::Raw).encode_to_vec())
            .await
            .map(|(answer, _)| answer)
    }

    pub(crate) async fn ask_raw(&self, body: Vec<u8>) -> Result<Answer, Refused> {
        let (answer, features) = self.send(body).await?;
        assert_eq!(features, self.features);
        Ok(answer)
    }

    async fn send(&self, body: Vec<u8>) -> Result<(Answer, HeaderValue), Refused> {
        let request = self.http.post(format!("{}/pull-updates", self.url));
        let answer = request
            .header("content-type", PROTOBUF)
            .body(body)
            .send()
            .await
            .unwrap();
        if answer.status() != 200 {
            let status = answer.status().as_u16();
            return Err(refusal(status, &answer.bytes().await.unwrap()));
        }
        let features = answer.headers()["partial-sync-features"].clone();
        Ok((pages_of(&answer.bytes().await.unwrap()), features))
    }

    pub(crate) async fn latest(&self) -> Answer {
        self.ask(PagesRequest::default()).await.unwrap()
    }

    pub(crate) async fn at(&self, revision: &Revision) -> Result<Answer, Refused> {
        let revision = Some(revision.clone());
        self.ask(PagesRequest {
            revision,
            ..PagesRequest::default()
        })
        .await
    }

    pub(crate) async fn since(&self, revision: &Revision) -> Result<Answer, Refused> {
        let since = Some(revision.clone());
        self.ask(PagesRequest {
            since,
            ..PagesRequest::default()
        })
        .await
    }
}

/// What an answer says instead of pages.
pub(crate) fn refusal(status: u16, body: &[u8]) -> Refused {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap();
    Refused {
        status,
        code: json["code"].as_str().unwrap().to_owned(),
        message: json["message"].as_str().unwrap().to_owned(),
    }
}

/// The pages of an answer.
pub(crate) fn pages_of(body: &[u8]) -> Answer {
    let mut frames = FrameDecoder::new();
    frames.push(body);
    let header = frames.next(HEADER_LIMIT).unwrap().unwrap();
    let (revision, size, _, encoding) = PullUpdatesHeader::decode(header).unwrap().check().unwrap();
    let (mut pages, mut order) = (BTreeMap::new(), Vec::new());
    let mut unpacker = Unpacker::default();
    while let Some(frame) = frames.next(Unpacker::limit(encoding)).unwrap() {
        for (id, data) in unpacker.unpack(frame, encoding).unwrap() {
            let id = u32::try_from(id).unwrap();
            assert!(pages.insert(id, data).is_none(), "page id {id} came twice");
            order.push(id);
        }
    }
    assert!(frames.is_at_boundary(), "the stream was cut");
    Answer {
        revision,
        size: size.0,
        pages,
        order,
    }
}

pub(crate) fn ids(ids: impl IntoIterator<Item = u32>) -> PageSelector {
    PageSelector::Ids(ids.into_iter().collect())
}

fn no_tls() -> rustls::ClientConfig {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}
