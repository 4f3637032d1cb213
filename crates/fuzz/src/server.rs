//! The server's two endpoints with any body, over a small database on disk.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    body::to_bytes,
    http::{Request, Response, StatusCode},
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use partial_sync_core::{PageCount, Revision};
use partial_sync_server::{
    InProcess, Server,
    access::{Access, Caller, CallerId, CommitListener, DatabaseHandle, NotCommitted, SqlEndpoint},
    hrana::{Hrana, HranaOptions},
    pages::QueryLimits,
};
use partial_sync_transport::{
    HttpClient,
    http::HttpRequest,
    wire::{FrameDecoder, HEADER_LIMIT, PROTOBUF, PullUpdatesHeader, PullUpdatesRequest, Unpacker},
};
use prost::Message;
use tempfile::TempDir;

use crate::{
    client::RUNTIME,
    input::{Input, database},
};

const SCRIPT: &str = "PRAGMA page_size = 512; PRAGMA journal_mode = wal;
    CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT); CREATE INDEX n ON notes(body);
    INSERT INTO notes VALUES (1, 'a'), (2, 'b'), (3, printf('%.600c', 'x'));";

/// One server for all runs: answering pages changes nothing.
struct Served {
    server: InProcess,
    revision: Revision,
    size: PageCount,
    _folder: TempDir,
}

static SERVED: LazyLock<Served> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("remote.db");
    std::fs::write(&path, &*FRESH).expect("room for some pages");
    let limits = QueryLimits {
        time: Duration::from_millis(300),
        pages: 100,
        ..QueryLimits::default()
    };
    let server = Server::builder(&path)
        .query_limits(limits)
        .longest_poll(Duration::ZERO);
    RUNTIME.block_on(async {
        let server = server.in_process().await.expect("a good database");
        let (status, answer) = pull(&server, Vec::new()).await;
        assert_eq!(status, 200);
        let (revision, size) = read(&answer);
        Served {
            server,
            revision,
            size,
            _folder: folder,
        }
    })
});

async fn pull(server: &InProcess, body: Vec<u8>) -> (u16, Vec<u8>) {
    let request = HttpRequest {
        method: "POST",
        url: "http://localhost/pull-updates".to_owned(),
        headers: vec![("content-type".to_owned(), PROTOBUF.to_owned())],
        body: body.into(),
    };
    let mut answer = server.send(request).await.expect("an answer");
    let mut body = Vec::new();
    while let Some(piece) = answer.body.next().await {
        body.extend_from_slice(&piece.expect("a whole answer"));
    }
    (answer.status, body)
}

/// Holds a stream against the rules that clients check.
fn read(answer: &[u8]) -> (Revision, PageCount) {
    let mut frames = FrameDecoder::new();
    frames.push(answer);
    let header = frames
        .next(HEADER_LIMIT)
        .expect("a header")
        .expect("a whole header");
    let header = PullUpdatesHeader::decode(header).expect("a header");
    let (revision, size, _, encoding) = header.check().expect("a good header");
    let mut seen = roaring::RoaringBitmap::new();
    let mut unpacker = Unpacker::default();
    while let Some(frame) = frames.next(Unpacker::limit(encoding)).expect("good frames") {
        for (id, page) in unpacker.unpack(frame, encoding).expect("pages") {
            assert!(id < u64::from(size.0));
            assert!(seen.insert(id as u32), "a page was sent twice");
            assert_eq!(page.len(), 512);
        }
    }
    assert!(frames.is_at_boundary());
    (revision, size)
}

/// Any body is refused, or answered with a stream that keeps the rules that clients check.
pub(crate) fn pull_endpoint(data: &[u8]) {
    let mut input = Input(data);
    let pinned = input.byte();
    let body = input.rest();
    let served = &*SERVED;
    // A revision has random parts that no mutator guesses.
    let body = match PullUpdatesRequest::decode(body) {
        Ok(mut request) if pinned & 3 != 0 => {
            let revision = served.revision.as_str().to_owned();
            if pinned & 1 != 0 {
                request.server_revision.clone_from(&revision);
            }
            if pinned & 2 != 0 {
                request.client_revision = revision;
            }
            request.encode_to_vec()
        }
        _ => body.to_vec(),
    };
    let (status, answer) = RUNTIME.block_on(pull(&served.server, body));
    match status {
        200 => assert_eq!(read(&answer), (served.revision.clone(), served.size)),
        refused => assert!((400..500).contains(&refused), "{refused}"),
    }
}

struct Nobody;

impl CommitListener for Nobody {
    fn committed(&self) -> BoxFuture<'static, Result<(), NotCommitted>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// The bytes of a fresh database.
static FRESH: LazyLock<Vec<u8>> = LazyLock::new(|| database(SCRIPT));

/// A folder of its own, in memory where there is such a place.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let shm = Path::new("/dev/shm");
    let folder = if shm.is_dir() {
        tempfile::tempdir_in(shm)
    } else {
        tempfile::tempdir()
    };
    folder.expect("a folder")
});

fn options() -> HranaOptions {
    HranaOptions {
        busy_timeout: Duration::from_millis(20),
        statement_timeout: Duration::from_millis(200),
        request_timeout: Duration::from_millis(400),
        answer_bytes: 1 << 20,
        value_bytes: 1 << 20,
        idle_connections: 0,
        ..HranaOptions::default()
    }
}

fn caller(access: Access) -> Caller {
    let id = CallerId::ANYONE;
    Caller { access, id }
}

/// Runs a body against a fresh database and checks what is left of it.
fn run(path: &str, body: Bytes, access: Access) -> (StatusCode, Bytes) {
    let file: PathBuf = FOLDER.path().join("remote.db");
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(FOLDER.path().join(format!("remote.db{suffix}")));
    }
    std::fs::write(&file, &*FRESH).expect("room for some pages");
    let endpoint = Hrana::new(options());
    let handle = DatabaseHandle {
        name: "".into(),
        path: Arc::new(file.clone()),
        read_only: false,
        listener: Arc::new(Nobody),
    };
    let request = Request::post(path).body(body).expect("a good path");
    let answer = RUNTIME.block_on(async {
        let answer: Response<_> = endpoint.answer(handle, caller(access), request).await;
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 8 << 20)
            .await
            .expect("a bounded answer");
        endpoint.shut_down().await;
        (status, body)
    });
    for entry in std::fs::read_dir(FOLDER.path()).expect("the folder") {
        let name = entry.expect("the folder").file_name();
        let known = ["remote.db", "remote.db-wal", "remote.db-shm"].map(std::ffi::OsString::from);
        assert!(known.contains(&name), "SQL made the file {name:?}");
    }
    let header = std::fs::read(&file).expect("the database is still there");
    assert_eq!(header[18..20], [2, 2], "the database is not in WAL mode any more");
    let conn = rusqlite::Connection::open(&file).expect("the database is still there");
    let ok: String = conn
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .expect("the database can be read");
    assert_eq!(ok, "ok");
    if access == Access::ReadOnly {
        assert_eq!(header, *FRESH, "a reader changed the database");
        let rows: i64 = conn
            .query_row("SELECT sum(id) FROM notes", (), |row| row.get(0))
            .expect("the table is still there");
        assert_eq!(rows, 6, "a reader changed the database");
    }
    answer
}

/// Any body of a pipeline or a cursor is answered with JSON; a reader changes nothing and a writer leaves a good database.
pub(crate) fn hrana_endpoint(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let access = if flags & 1 == 0 {
        Access::ReadOnly
    } else {
        Access::Full
    };
    let (cursor, protobuf) = (flags & 2 != 0, flags & 4 != 0);
    let path = match (cursor, protobuf) {
        (false, false) => "/v2/pipeline",
        (true, false) => "/v3/cursor",
        (false, true) => "/v3-protobuf/pipeline",
        (true, true) => "/v3-protobuf/cursor",
    };
    let (status, body) = run(path, Bytes::copy_from_slice(input.rest()), access);
    assert!(!status.is_server_error(), "{status}");
    if protobuf && status.is_success() {
        return;
    }
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        serde_json::from_slice::<serde_json::Value>(line).expect("the answer is JSON");
    }
}

/// No SQL text gets past the guard: no other file is reached or made, WAL mode stays, and a reader changes nothing.
pub(crate) fn sql_guard(data: &[u8]) {
    let mut input = Input(data);
    let access = if input.byte() & 1 == 0 {
        Access::ReadOnly
    } else {
        Access::Full
    };
    let Ok(sql) = std::str::from_utf8(input.rest()) else {
        return;
    };
    let body = serde_json::json!({
        "baton": null,
        "requests": [{"type": "sequence", "sql": sql}, {"type": "close"}],
    });
    let (status, _) = run("/v2/pipeline", body.to_string().into(), access);
    assert!(status.is_success(), "{status}");
}
