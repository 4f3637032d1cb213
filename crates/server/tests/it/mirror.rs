//! Servers of a bucket, and replicas that read from it without one, beside the server that writes it: the same revisions, the same pages, SQL
//! passed on.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use futures_util::future::BoxFuture;

use partial_sync_core::Revision;
use partial_sync_server::{Mirroring, Server, ServerHandle, access::Access, auth::StaticToken};
use partial_sync_store::BucketRemote;
use partial_sync_transport::{
    HttpRemote, PageStream, PagesRequest, Remote, RemoteError, TransferStats, conformance,
    hrana::{Batch, BatchResult},
};
use serde_json::{Value, json};

use crate::{
    pages::support::{Client, TestDb, dump, ids},
    replicate::support::{TestStore, Weather, assert_same, database_in, id_of, replication, sql},
};

const INSERT: &str = "INSERT INTO t(v) VALUES (randomblob(2000))";

/// A server of the bucket.
async fn mirror(store: &Arc<TestStore>) -> ServerHandle {
    let store = store.clone();
    let mirroring = Mirroring::in_buckets(move |_| Ok(store.bucket()));
    Server::from_bucket(mirroring)
        .listen("127.0.0.1:0")
        .await
        .unwrap()
}

/// A writer that the head names, since it listens before its database is asked for.
async fn writer(path: &Path, store: &Arc<TestStore>) -> ServerHandle {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let replication = replication(store).writer_url(format!("http://{port}"));
    Server::builder(path)
        .replicate(replication)
        .listen(port)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_of_a_bucket_give_what_its_writer_gives_at_every_revision() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let server = writer(&db.path, &store).await;
    let of_writer = Client::new(&server.url());
    let mirrors = [mirror(&store).await, mirror(&store).await];
    let first = of_writer.latest().await;
    for n in 0..20 {
        let text = match n % 7 {
            3 => "DELETE FROM t",
            5 => "VACUUM",
            _ => INSERT,
        };
        sql(&of_writer, text).await.unwrap();
        let latest = of_writer.latest().await;
        for mirror in &mirrors {
            let client = Client::new(&mirror.url());
            // One that it has not heard of itself.
            assert!(client.at(&latest.revision).await.unwrap() == latest, "{n}");
            assert!(client.latest().await == latest, "{n}");
        }
    }
    let (last, _) = database_in(&store, None).await;
    let (lineage, _) = first.revision.as_str().split_once('-').unwrap();
    for id in id_of(&first.revision)..=last {
        let revision = Revision::new(format!("{lineage}-{id}")).unwrap();
        let (_, pages) = database_in(&store, Some(id)).await;
        for mirror in &mirrors {
            let client = Client::new(&mirror.url());
            assert_same(&client.at(&revision).await.unwrap().whole(), &pages, id);
            let since = client.since(&revision).await.unwrap();
            let mut whole = pages.clone();
            whole.resize(since.size as usize, bytes::Bytes::new());
            for (page, bytes) in since.pages {
                whole[page as usize] = bytes;
            }
            assert_same(&whole, &dump(&db.path), format_args!("since {id}"));
        }
    }
    let future = Revision::new(format!("{lineage}-{}", last + 1)).unwrap();
    let refused = Client::new(&mirrors[0].url()).at(&future).await.unwrap_err();
    assert_eq!((refused.status, &*refused.code), (400, "REVISION_UNKNOWN"));
    for server in mirrors.into_iter().chain([server]) {
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_at_a_server_of_a_bucket_ends_with_the_next_commit_and_a_query_brings_its_pages() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let server = writer(&db.path, &store).await;
    let of_writer = Client::new(&server.url());
    for _ in 0..50 {
        sql(&of_writer, INSERT).await.unwrap();
    }
    let mirror = mirror(&store).await;
    let client = Client::new(&mirror.url());
    let old = client.latest().await;
    let query = PagesRequest {
        select: ids([]),
        query: Some("SELECT v FROM t WHERE id = 17".to_owned()),
        ..PagesRequest::default()
    };
    let along = client.ask(query.clone()).await.unwrap();
    assert!(along.pages.len() > 1 && along.pages == of_writer.ask(query).await.unwrap().pages);
    let poll = PagesRequest {
        since: Some(old.revision.clone()),
        long_poll: Some(std::time::Duration::from_secs(60)),
        ..PagesRequest::default()
    };
    let waits = client.clone();
    let poll = tokio::spawn(async move { waits.ask(poll).await.unwrap() });
    sql(&of_writer, INSERT).await.unwrap();
    let woken = poll.await.unwrap();
    assert_eq!(woken.revision, of_writer.latest().await.revision);
    assert!(!woken.pages.is_empty());
    mirror.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_is_passed_on_with_its_token_and_batons_and_a_reader_sees_its_own_writes() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = Server::builder(&db.path)
        .replicate(replication(&store).writer_url(format!("http://{port}")))
        .authenticator(StaticToken::new("secret".to_owned(), Access::Full))
        .listen(port)
        .await
        .unwrap();
    let mirror = mirror(&store).await;
    let client = Client::new(&mirror.url());
    let ask = async |token: Option<&str>, body: Value| -> (u16, Value) {
        let mut request = client.http.post(format!("{}/v2/pipeline", client.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.body(body.to_string()).send().await.unwrap();
        let status = answer.status().as_u16();
        (
            status,
            serde_json::from_str(&answer.text().await.unwrap()).unwrap(),
        )
    };
    let run = |baton: Option<&str>, text: &str| json!({"baton": baton, "requests": [{"type": "execute", "stmt": {"sql": text}}]});
    assert_eq!(ask(None, run(None, INSERT)).await.0, 401);
    let (status, begun) = ask(Some("secret"), run(None, "BEGIN IMMEDIATE")).await;
    assert_eq!(status, 200);
    let (_, inserted) = ask(Some("secret"), run(begun["baton"].as_str(), INSERT)).await;
    let (_, committed) = ask(Some("secret"), run(inserted["baton"].as_str(), "COMMIT")).await;
    assert_eq!(committed["results"][0]["type"], "ok");
    assert_same(&client.latest().await.whole(), &dump(&db.path), "its own write");
    server.shutdown().await;
    let (status, refused) = ask(Some("secret"), run(None, INSERT)).await;
    assert_eq!((status, &refused["code"]), (502, &json!("WRITER_UNREACHABLE")));
    // Pages need no writer.
    assert_same(
        &client.latest().await.whole(),
        &dump(&db.path),
        "without a writer",
    );
    mirror.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_goes_in_no_circle_and_a_bucket_without_a_writer_says_so() {
    let (db, store) = (TestDb::new(), TestStore::new());
    // It names the server of the bucket as the writer.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let wrong = replication(&store).writer_url(format!("http://{port}"));
    let server = Server::builder(&db.path)
        .replicate(wrong)
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let mirrored = store.clone();
    let mirroring = Mirroring::in_buckets(move |_| Ok(mirrored.bucket()));
    let mirror = Server::from_bucket(mirroring).listen(port).await.unwrap();
    let client = Client::new(&mirror.url());
    assert_eq!(sql(&client, INSERT).await.unwrap_err(), "WRITER_UNREACHABLE");
    mirror.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_fails_is_said_and_one_that_holds_another_history_now_is_another_database() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let server = writer(&db.path, &store).await;
    sql(&Client::new(&server.url()), INSERT).await.unwrap();
    let mirror = mirror(&store).await;
    let client = Client::new(&mirror.url());
    let old = client.latest().await;
    store.set(Weather::Denied);
    let refused = client.ask(PagesRequest::default()).await.unwrap_err();
    assert_eq!((refused.status, &*refused.code), (503, "NOT_REPLICATED"));
    let ready = client
        .http
        .get(format!("{}/ready", client.url))
        .send()
        .await
        .unwrap();
    assert_eq!(ready.status(), 503);
    store.set(Weather::Fine);
    assert!(client.latest().await == old);
    server.shutdown().await;

    store.clear().await;
    let other = TestDb::new();
    other.open().execute_batch("CREATE TABLE other(x)").unwrap();
    let server = writer(&other.path, &store).await;
    // As soon as it has a transaction that the old one has not.
    for _ in 0..3 {
        sql(&Client::new(&server.url()), INSERT).await.unwrap();
    }
    let found = client.at(&old.revision).await;
    assert!(found.is_err() || found.unwrap() == old);
    let mut latest = client.ask(PagesRequest::default()).await;
    if latest.is_err() {
        latest = client.ask(PagesRequest::default()).await;
    }
    assert_same(&latest.unwrap().whole(), &dump(&other.path), "the other one");
    let refused = client.since(&old.revision).await.unwrap_err();
    assert_eq!((refused.status, &*refused.code), (400, "REVISION_UNKNOWN"));
    mirror.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_makes_up_names_makes_few_requests_to_the_bucket_and_keeps_nobody_from_a_database() {
    const NAMES: usize = 300;
    let (db, store) = (TestDb::new(), TestStore::new());
    let server = writer(&db.path, &store).await;
    let mirrored = store.clone();
    let mirroring =
        Mirroring::in_buckets(move |name| Ok(mirrored.bucket_of(if name.is_empty() { "no" } else { name })));
    let mirror = Server::from_bucket(mirroring)
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let known = Client::new(&format!("{}/app", mirror.url()));
    let latest = known.latest().await;

    let (all, lists) = (store.all.load(SeqCst), store.lists.load(SeqCst));
    let mut strangers = tokio::task::JoinSet::new();
    for n in 0..NAMES {
        let client = Client::new(&format!("{}/app{n}", mirror.url()));
        strangers.spawn(async move { client.ask(PagesRequest::default()).await.unwrap_err() });
        // No endpoint: nothing is looked for.
        let stray = format!("{}/favicon{n}/x", mirror.url());
        assert_eq!(known.http.get(stray).send().await.unwrap().status(), 404);
    }
    assert!(known.latest().await == latest);
    let told = strangers.join_all().await;
    let looked_for = told.iter().filter(|refused| refused.status == 404).count();
    assert!(told.iter().all(|refused| matches!(refused.status, 404 | 503)));
    let all = store.all.load(SeqCst) - all;
    assert!(
        all <= looked_for + 5 && all < 100,
        "{all} requests, {looked_for} looked for"
    );
    let lists = store.lists.load(SeqCst) - lists;
    assert!(lists <= looked_for * 20, "{lists} listings");
    mirror.shutdown().await;
    server.shutdown().await;
}

/// Asks as nobody's client does.
async fn raw(server: &ServerHandle, request: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = server.url().trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_reaches_nothing_of_the_writers_host_but_its_sql() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let host = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base", host.local_addr().unwrap());
    let server = Server::builder(&db.path)
        .replicate(replication(&store).writer_url(url))
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let mirror = mirror(&store).await;
    for path in [
        "/v2/../../admin",
        "/v2/%2e%2e/%2e%2E/admin",
        "/v3/pipeline/../../..",
        "/v2/x",
        "/v2//evil.example",
    ] {
        let answer = raw(
            &mirror,
            &format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            ),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    let came = futures_util::FutureExt::now_or_never(host.accept());
    assert!(came.is_none(), "the host was asked");
    mirror.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_read_at_a_server_of_a_bucket_does_not_write_through_it() {
    let (db, store) = (TestDb::new(), TestStore::new());
    // It asks for no token: only servers of the bucket reach it.
    let server = writer(&db.path, &store).await;
    let mirrored = store.clone();
    let mirroring = Mirroring::in_buckets(move |_| Ok(mirrored.bucket()));
    let mirror = Server::from_bucket(mirroring)
        .authenticator(StaticToken::new("reader".to_owned(), Access::ReadOnly))
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let before = dump(&db.path);
    let http = Client::new(&mirror.url()).http;
    for (text, expected) in [(INSERT, "error"), ("SELECT count(*) FROM t", "ok")] {
        let body = json!({"requests": [{"type": "execute", "stmt": {"sql": text}}]});
        let request = http
            .post(format!("{}/v2/pipeline", mirror.url()))
            .bearer_auth("reader");
        let answer = request
            .body(body.to_string())
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["results"][0]["type"], expected, "{answer}");
    }
    assert_same(&dump(&db.path), &before, "nothing was written");
    mirror.shutdown().await;
    server.shutdown().await;
}

/// Pages of a bucket; SQL of the server that writes it.
#[derive(Debug)]
struct Direct {
    bucket: BucketRemote,
    writer: HttpRemote,
}

impl Remote for Direct {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        self.bucket.pages(request)
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        self.writer.execute(batch, deadline)
    }

    fn url(&self) -> String {
        self.bucket.url()
    }

    fn transferred(&self) -> TransferStats {
        self.bucket.transferred()
    }
}

impl conformance::Subject for Direct {
    fn remote(&self) -> &dyn Remote {
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_without_a_server_does_what_every_remote_does_and_names_revisions_as_its_servers_do() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let server = writer(&db.path, &store).await;
    let of_writer = Client::new(&server.url());
    for _ in 0..50 {
        sql(&of_writer, INSERT).await.unwrap();
    }
    let places = store.clone();
    let direct = Direct {
        bucket: BucketRemote::new("memory:///app", move || Ok(places.bucket())),
        writer: HttpRemote::builder(server.url()).build().unwrap(),
    };
    conformance::run_all(&direct, conformance::CORE).await;
    conformance::run_all(&direct, conformance::EXTENDED).await;
    let there = direct.pages(PagesRequest::default()).await.unwrap();
    assert_eq!(there.header.revision, of_writer.latest().await.revision);
    server.shutdown().await;
}
