//! Several databases, tokens, limits, refusals, TLS, and the end of a server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use partial_sync_core::Revision;
use partial_sync_server::{Clock, Limits, Retention, Server, ServerError, access::Access, auth::StaticToken};
use partial_sync_transport::{HttpRemote, PagesRequest, Remote, wire::PullUpdatesRequest};
use prost::Message;
use rusqlite::Connection;

use super::support::{Client, TestDb, dump, ids, insert};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_serves_each_of_its_databases_by_path_and_by_host() {
    let folder = tempfile::tempdir().unwrap();
    for (name, rows) in [("one", 10), ("two", 400)] {
        let db = Connection::open(folder.path().join(format!("{name}.db"))).unwrap();
        db.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
            .unwrap();
        insert(&db, 1, rows);
    }
    std::fs::write(folder.path().join("secret.txt"), "no database").unwrap();
    let server = Server::builder(folder.path())
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::new(&server.url());
    for name in ["one", "two"] {
        let by_path = Client::new(&format!("{}/{name}", server.url()));
        let answer = by_path.latest().await;
        assert_eq!(answer.whole(), dump(&folder.path().join(format!("{name}.db"))));
        let request = client.http.post(format!("{}/pull-updates", server.url()));
        let by_host = request
            .header("host", format!("{name}.localhost"))
            .send()
            .await
            .unwrap();
        assert_eq!(by_host.status(), 200);
        let size = by_host.bytes().await.unwrap().len();
        assert!(size > answer.size as usize * 4096 && size < (answer.size as usize + 1) * 4096);
    }
    for path in [
        "three/pull-updates",
        "secret/pull-updates",
        "..%2fone/pull-updates",
        "one/x",
    ] {
        let answer = client
            .http
            .post(format!("{}/{path}", server.url()))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
    assert!(!folder.path().join("three.db").exists());
    let metrics = client
        .http
        .get(format!("{}/metrics", server.url()))
        .send()
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    for line in [
        "partial_sync_requests_total{endpoint=\"pull-updates\"} ",
        "partial_sync_database_revision{database=\"two\"} 1\n",
        "partial_sync_open_batons 0\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_needs_no_token_and_everything_else_does() {
    let db = TestDb::new();
    let server = Server::builder(&db.path)
        .authenticator(StaticToken::new("sesame", Access::ReadOnly))
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let http = Client::new("").http;
    let status = async |path: &str, token: Option<&str>| {
        let url = format!("{}{path}", server.url());
        let request = match path {
            "/pull-updates" => http.post(url),
            _ => http.get(url),
        };
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("/", None).await, 200);
    assert_eq!(status("/health", None).await, 200);
    for path in ["/metrics", "/pull-updates", "/nothing"] {
        assert_eq!(status(path, None).await, 401, "{path}");
        assert_eq!(status(path, Some("open")).await, 401, "{path}");
    }
    assert_eq!(status("/pull-updates", Some("sesame")).await, 200);
    assert_eq!(status("/nothing", Some("sesame")).await, 404);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_answered_is_refused_with_a_code_and_a_reason() {
    let db = TestDb::new();
    let server = Server::builder(&db.path)
        .limits(Limits {
            body: 1000,
            ..Limits::default()
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::new(&server.url());
    let latest = client.latest().await.revision;
    let (generation, seq) = latest.as_str().split_once('-').unwrap();
    let future = format!("{generation}-{}", seq.parse::<u64>().unwrap() + 1);
    for unknown in [
        &future,
        "17",
        "{}",
        "ffffffffffffffff-1",
        &format!("{generation}-0"),
        &"x".repeat(500),
    ] {
        let unknown = Revision::new(unknown).unwrap();
        for refused in [
            client.at(&unknown).await.unwrap_err(),
            client.since(&unknown).await.unwrap_err(),
        ] {
            assert_eq!((refused.status, refused.code.as_str()), (400, "REVISION_UNKNOWN"));
            assert!(refused.message.len() < 300, "{}", refused.message);
        }
    }
    let selector = PullUpdatesRequest {
        server_pages_selector: bytes::Bytes::from_static(b"no bitmap"),
        ..PullUpdatesRequest::default()
    };
    let log = PullUpdatesRequest {
        stream_kind: 1,
        ..PullUpdatesRequest::default()
    };
    for body in [vec![0xff; 30], selector.encode_to_vec(), log.encode_to_vec()] {
        let refused = client.ask_raw(body).await.unwrap_err();
        assert_eq!(
            (refused.status, refused.code.as_str()),
            (400, "BAD_REQUEST"),
            "{}",
            refused.message
        );
    }
    let refused = client.ask_raw(vec![0; 1001]).await.unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (413, "TOO_LARGE"));
    let get = client
        .http
        .get(format!("{}/pull-updates", server.url()))
        .send()
        .await
        .unwrap();
    assert_eq!(get.status(), 405);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_revisions_expire_by_age() {
    let db = TestDb::new();
    let writer = db.open();
    let seconds = Arc::new(AtomicU64::new(1_700_000_000));
    let clock = Clock::new({
        let seconds = Arc::clone(&seconds);
        move || SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.load(SeqCst))
    });
    let server = Server::builder(&db.path)
        .retention(Retention {
            age: Duration::from_secs(100),
            bytes: u64::MAX,
        })
        .clock(clock)
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::new(&server.url());
    let mut revisions = vec![];
    for round in 0..3 {
        insert(&writer, round * 100 + 1, 100);
        revisions.push(client.latest().await);
        seconds.fetch_add(60, SeqCst);
    }
    // Replaced at 60 and at 120; it is 180 now. The first expires when it is more than 100 seconds after that.
    // Few pages, so that the answer is one piece: a longer one would be cut when its revision expires under it.
    let few = PagesRequest {
        revision: Some(revisions[0].revision.clone()),
        select: ids(0..4),
        ..PagesRequest::default()
    };
    let expired = async {
        loop {
            match client.ask(few.clone()).await {
                Ok(answer) => assert!(
                    answer
                        .pages
                        .iter()
                        .all(|(id, data)| revisions[0].pages[id] == *data)
                ),
                Err(refused) => return refused,
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(30), expired)
        .await
        .unwrap();
    assert_eq!((refused.status, refused.code.as_str()), (410, "REVISION_EXPIRED"));
    let refused = client.since(&revisions[0].revision).await.unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (410, "REVISION_EXPIRED"));
    for kept in &revisions[1..] {
        assert_eq!(client.at(&kept.revision).await.unwrap(), *kept);
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_authentication_listens_on_loopback_only() {
    let db = TestDb::new();
    let refused = Server::builder(&db.path).listen("0.0.0.0:0").await.unwrap_err();
    assert!(matches!(refused, ServerError::Unauthenticated(_)), "{refused}");
    let told = Server::builder(&db.path)
        .allow_unauthenticated(true)
        .listen("0.0.0.0:0")
        .await
        .unwrap();
    told.shutdown().await;
    let token = StaticToken::new("sesame", Access::Full);
    let safe = Server::builder(&db.path)
        .authenticator(token)
        .listen("0.0.0.0:0")
        .await
        .unwrap();
    safe.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_cannot_be_served_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.db");
    std::fs::write(
        &text,
        "this is not a SQLite database, but it is long enough to be one ".repeat(100),
    )
    .unwrap();
    let refused = Server::builder(&text).listen("127.0.0.1:0").await.unwrap_err();
    assert!(matches!(refused, ServerError::Open { .. }), "{refused}");
    let nowhere = folder.path().join("no/such/folder/app.db");
    let refused = Server::builder(nowhere).listen("127.0.0.1:0").await.unwrap_err();
    assert!(matches!(refused, ServerError::BadPath { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_come_over_tls() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/pages/tls");
    let db = TestDb::new();
    insert(&db.open(), 1, 100);
    let server = Server::builder(&db.path)
        .tls(format!("{folder}/certificate.pem"), format!("{folder}/key.pem"))
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    assert!(server.url().starts_with("https://127.0.0.1:"));
    let certificate = std::fs::read(format!("{folder}/certificate.pem")).unwrap();
    let remote = HttpRemote::builder(server.url())
        .root_certificate(certificate)
        .build()
        .unwrap();
    let answer = remote.pages(PagesRequest::default()).await.unwrap();
    assert!(answer.header.db_size.0 > 10);
    drop(answer);
    server.shutdown().await;
    let wrong = Server::builder(&db.path).tls(format!("{folder}/key.pem"), format!("{folder}/key.pem"));
    let refused = wrong.listen("127.0.0.1:0").await.unwrap_err();
    assert!(matches!(refused, ServerError::Tls { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_finishes_the_answer_that_is_under_way_and_ends_long_polls() {
    let db = TestDb::new();
    insert(&db.open(), 1, 40_000);
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let first = client
        .ask(PagesRequest {
            select: ids([0]),
            ..PagesRequest::default()
        })
        .await
        .unwrap();
    let poll = PagesRequest {
        since: Some(first.revision),
        long_poll: Some(Duration::from_secs(200)),
        ..PagesRequest::default()
    };
    let polling = tokio::spawn({
        let client = client.clone();
        async move { client.ask(poll).await }
    });
    let mut answer = client
        .http
        .post(format!("{}/pull-updates", server.url()))
        .send()
        .await
        .unwrap();
    let mut bytes = answer.chunk().await.unwrap().unwrap().len();
    let stopping = tokio::spawn(server.shutdown());
    while let Some(chunk) = answer.chunk().await.unwrap() {
        bytes += chunk.len();
    }
    assert!(
        bytes as u64 > u64::from(first.size) * 4096,
        "{bytes} bytes of {} pages",
        first.size
    );
    stopping.await.unwrap();
    // Either it was answered, or it had not reached the server before that stopped listening.
    if let Ok(answer) = polling.await {
        assert!(answer.unwrap().pages.is_empty());
    }
}

#[test]
fn a_server_can_be_started_and_stopped_without_a_runtime() {
    let server = Server::in_memory().start_blocking("127.0.0.1:0").unwrap();
    assert_ne!(server.addr().port(), 0);
    server.shutdown_blocking();
}
