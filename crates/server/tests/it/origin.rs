//! Servers in front of another remote: the same revisions, the same pages, few questions to it.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, future::join_all};
use partial_sync_core::Revision;
use partial_sync_server::{Origin, Server, ServerError, ServerHandle, access::Access, auth::StaticToken};
use partial_sync_transport::{
    Counting, Features, HttpRemote, PageStream, PagesRequest, Remote, RemoteError, RemoteErrorKind,
    TransferStats,
    hrana::{Batch, BatchResult},
    memory::MemoryRemote,
    wire::PageEncoding,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    admin::support::Served,
    pages::support::{Answer, Client, Refused, TestDb, dump, ids, insert},
    replicate::support::{assert_same, sql},
};

const INSERT: &str = "INSERT INTO t(v) VALUES (randomblob(2000))";

/// A server in front of a remote, and what it asks of that.
async fn before(url: &str) -> (ServerHandle, Arc<Counting>) {
    before_remote(url, Arc::new(HttpRemote::builder(url).build().unwrap())).await
}

async fn before_remote(url: &str, remote: Arc<dyn Remote>) -> (ServerHandle, Arc<Counting>) {
    let asked = Arc::new(Counting::new(remote));
    let remote = Arc::clone(&asked);
    let origin = Origin::at(url).asking(move |_| Ok(Arc::clone(&remote) as _));
    let server = Server::from_origin(origin).listen("127.0.0.1:0").await.unwrap();
    (server, asked)
}

async fn serve_at(db: &TestDb, addr: SocketAddr) -> ServerHandle {
    Server::builder(&db.path).listen(addr).await.unwrap()
}

fn at(revision: &Revision, pages: impl IntoIterator<Item = u32>) -> PagesRequest {
    PagesRequest {
        revision: Some(revision.clone()),
        select: ids(pages),
        ..PagesRequest::default()
    }
}

fn poll(since: &Revision) -> PagesRequest {
    PagesRequest {
        since: Some(since.clone()),
        long_poll: Some(Duration::from_secs(60)),
        ..PagesRequest::default()
    }
}

/// What a replica with these pages has after it was told what changed.
fn pulled(mut pages: Vec<Bytes>, since: &Answer) -> Vec<Bytes> {
    pages.resize(since.size as usize, Bytes::new());
    for (page, bytes) in &since.pages {
        pages[*page as usize] = bytes.clone();
    }
    pages
}

/// The status and the code of a refusal.
fn told<T>(answer: Result<T, Refused>) -> (u16, String) {
    answer.map_or_else(|refused| (refused.status, refused.code), |_| (200, String::new()))
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_caches_give_what_the_origin_gives_at_every_revision_also_at_those_from_before_they_began() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let db = TestDb::new();
    let server = db.serve().await;
    let origin = Client::new(&server.url());
    let mut known = vec![origin.latest().await];
    let mut caches = vec![before(&server.url()).await.0];
    for n in 0..60 {
        let text = match random.u8(..8) {
            0 => "DELETE FROM t WHERE id % 3 = 0".to_owned(),
            1 => "VACUUM".to_owned(),
            2 => format!(
                "UPDATE t SET v = randomblob({}) WHERE id % 5 = {}",
                random.u16(..9000),
                n % 5
            ),
            _ => format!("INSERT INTO t(v) VALUES (randomblob({}))", random.u16(..20_000)),
        };
        sql(&origin, &text).await.unwrap();
        if n == 20 {
            caches.push(before(&server.url()).await.0);
        }
        if random.bool() {
            let latest = origin.latest().await;
            for cache in caches.iter().filter(|_| random.bool()) {
                assert!(Client::new(&cache.url()).latest().await == latest, "{n}");
            }
            known.push(latest);
        }
    }
    let latest = origin.latest().await;
    let encodings = [PageEncoding::Raw, PageEncoding::ZstdBlocks];
    for _ in 0..2 {
        random.shuffle(&mut known);
        for state in &known {
            let cache = Client::new(&caches[random.usize(..2)].url());
            let encoding = encodings[random.usize(..2)];
            let request = PagesRequest {
                revision: Some(state.revision.clone()),
                ..PagesRequest::default()
            };
            let found = cache.ask_encoded(request, encoding).await.unwrap();
            assert_same(&found.whole(), &state.whole(), &state.revision);
            let since = cache.since(&state.revision).await.unwrap();
            assert_same(&pulled(state.whole(), &since), &latest.whole(), "pulled");
            let until = &known[random.usize(..known.len())];
            let request = PagesRequest {
                since: Some(state.revision.clone()),
                revision: Some(until.revision.clone()),
                ..PagesRequest::default()
            };
            // What is older than what the client has is refused by the one, and given by the other where it does not know.
            if origin.ask(request.clone()).await.is_ok() {
                let since = cache.ask(request).await.unwrap();
                assert_same(&pulled(state.whole(), &since), &until.whole(), "pinned");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_others_commit_every_pull_through_a_cache_is_a_state_of_the_origin_and_none_goes_back() {
    let db = TestDb::new();
    let server = db.serve().await;
    let (cache, _) = before(&server.url()).await;
    let origin = Client::new(&server.url());
    let (done, is_done) = watch::channel(false);
    let readers = (0..4).map(|n| {
        let (origin, cache, is_done) = (origin.clone(), Client::new(&cache.url()), is_done.clone());
        tokio::spawn(async move {
            let first = cache.latest().await;
            let (mut revision, mut pages) = (first.revision.clone(), first.whole());
            while !*is_done.borrow() {
                // Sometimes it asks the origin, and then the cache again.
                let from = if n == 3 { &origin } else { &cache };
                let request = if n == 1 {
                    poll(&revision)
                } else {
                    PagesRequest {
                        long_poll: None,
                        ..poll(&revision)
                    }
                };
                let since = from.ask(request).await.unwrap();
                pages = pulled(pages, &since);
                revision = since.revision.clone();
                let same = cache.since(&revision).await.unwrap();
                let number = |revision: &Revision| -> u64 {
                    revision.as_str().split_once('-').unwrap().1.parse().unwrap()
                };
                assert!(
                    number(&same.revision) >= number(&revision),
                    "{} {revision}",
                    same.revision
                );
                let whole = origin.at(&revision).await.unwrap().whole();
                assert_same(&pages, &whole, &revision);
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    for n in 0..60 {
        sql(
            &origin,
            if n % 9 == 5 {
                "DELETE FROM t WHERE id % 2"
            } else {
                INSERT
            },
        )
        .await
        .unwrap();
    }
    done.send_replace(true);
    sql(&origin, INSERT).await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_point_query_costs_one_question_and_a_warm_one_none() {
    let db = TestDb::new();
    insert(&db.open(), 1, 5000);
    let server = db.serve().await;
    let (cache, asked) = before(&server.url()).await;
    let client = Client::new(&cache.url());
    let revision = client
        .ask(PagesRequest {
            select: ids([]),
            ..PagesRequest::default()
        })
        .await
        .unwrap()
        .revision;
    asked.clear();
    let query = |id: u32| PagesRequest {
        query: Some(format!("SELECT v FROM t WHERE id = {id}")),
        ..at(&revision, [])
    };
    let cold = client.ask(query(2500)).await.unwrap();
    assert!(cold.pages.len() > 2, "{:?}", cold.ids());
    assert_eq!(asked.requests(), 1, "{:?}", asked.page_requests());
    let direct = Client::new(&server.url()).ask(query(2500)).await.unwrap();
    assert!(cold.pages == direct.pages);
    // And the leaf that is selected comes with what the query touches.
    let leaf = *cold.order.last().unwrap() + 40;
    let hydrated = client
        .ask(PagesRequest {
            select: ids([leaf]),
            ..query(400)
        })
        .await
        .unwrap();
    assert!(
        hydrated.order[0] == leaf && hydrated.pages.len() > 2,
        "{:?}",
        hydrated.order
    );
    assert_eq!(asked.requests(), 2);
    asked.clear();
    for _ in 0..3 {
        client.ask(query(2500)).await.unwrap();
        client
            .ask(PagesRequest {
                select: ids([leaf]),
                ..query(400)
            })
            .await
            .unwrap();
    }
    assert_eq!(asked.requests(), 0);
    assert!(asked.ids_delivered_twice().is_empty());
    // The next commit costs a question, and the pages that it changed one.
    sql(&client, "UPDATE t SET v = 'new' WHERE id = 2500")
        .await
        .unwrap();
    let since = client.since(&revision).await.unwrap();
    assert_eq!(asked.requests(), 2, "{:?}", asked.page_requests());
    asked.clear();
    let latest = PagesRequest {
        revision: Some(since.revision),
        ..query(2500)
    };
    assert!(client.ask(latest).await.unwrap().pages != cold.pages);
    client.ask(query(2500)).await.unwrap();
    assert_eq!(asked.requests(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_database_comes_in_few_questions_and_each_page_once() {
    let db = TestDb::new();
    insert(&db.open(), 1, 40_000);
    let server = db.serve().await;
    let (cache, asked) = before(&server.url()).await;
    let client = Client::new(&cache.url());
    let all = client
        .ask_encoded(PagesRequest::default(), PageEncoding::ZstdBlocks)
        .await
        .unwrap();
    assert_same(&all.whole(), &dump(&db.path), "cold");
    let bytes = all.size as usize * 4096;
    assert!(bytes > 20_000_000, "{bytes}");
    assert!(asked.requests() <= 3 + bytes / (1 << 20), "{}", asked.requests());
    assert!(asked.ids_delivered_twice().is_empty());
    asked.clear();
    client.at(&all.revision).await.unwrap();
    assert_eq!(asked.requests(), 0);
}

/// A remote whose requests for pages wait until they are let go.
#[derive(Debug)]
struct Held {
    inner: HttpRemote,
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Remote for Held {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        async move {
            self.waiting.send_modify(|waiting| *waiting += 1);
            let mut open = self.open.subscribe();
            open.wait_for(|open| *open).await.unwrap();
            self.inner.pages(request).await
        }
        .boxed()
    }

    fn execute(&self, _: Batch, _: Option<Duration>) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        unreachable!()
    }

    fn url(&self) -> String {
        self.inner.url()
    }

    fn transferred(&self) -> TransferStats {
        TransferStats::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_want_is_asked_for_once_and_what_is_wanted_meanwhile_goes_together() {
    let db = TestDb::new();
    insert(&db.open(), 1, 2000);
    let server = db.serve().await;
    let inner = HttpRemote::builder(server.url()).build().unwrap();
    let held = Arc::new(Held {
        inner,
        open: watch::Sender::new(true),
        waiting: watch::Sender::new(0),
    });
    let (cache, asked) = before_remote(&server.url(), Arc::clone(&held) as _).await;
    let client = Client::new(&cache.url());
    let latest = client
        .ask(PagesRequest {
            select: ids([]),
            ..PagesRequest::default()
        })
        .await
        .unwrap();
    asked.clear();
    held.open.send_replace(false);
    held.waiting.send_replace(0);
    let mut waiting = held.waiting.subscribe();
    let mut all = Vec::new();
    let ask = |page: u32| {
        let (client, request) = (client.clone(), at(&latest.revision, [page]));
        tokio::spawn(async move { client.ask(request).await.unwrap() })
    };
    // Each of the first has a request of its own, and then there are as many as may be.
    for n in 0..8 {
        all.push(ask(10 + n));
        waiting
            .wait_for(|waiting| *waiting == n as usize + 1)
            .await
            .unwrap();
    }
    for page in 10..110 {
        all.push(ask(page));
    }
    // They are here when this is answered, which waits for nobody.
    let metrics = async || {
        client
            .http
            .get(format!("{}/metrics", client.url))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    while !metrics().await.contains("partial_sync_requests_under_way 108") {
        tokio::task::yield_now().await;
    }
    held.open.send_replace(true);
    for answer in join_all(all).await {
        assert_eq!(answer.unwrap().pages.len(), 1);
    }
    assert!((9..=12).contains(&asked.requests()), "{}", asked.requests());
    assert!(asked.ids_delivered_twice().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_wait_for_an_origin_that_is_silent_what_is_here_is_given() {
    let db = TestDb::new();
    insert(&db.open(), 1, 4000);
    let server = db.serve().await;
    let held = Arc::new(Held {
        inner: HttpRemote::builder(server.url()).build().unwrap(),
        open: watch::Sender::new(true),
        waiting: watch::Sender::new(0),
    });
    let (cache, _) = before_remote(&server.url(), Arc::clone(&held) as _).await;
    let client = Client::new(&cache.url());
    let here = client.ask(PagesRequest {
        select: ids(0..200),
        ..PagesRequest::default()
    });
    let here = here.await.unwrap();
    held.open.send_replace(false);
    let all: Vec<_> = (0..64)
        .map(|n| {
            let (client, request) = (client.clone(), at(&here.revision, [300 + n]));
            tokio::spawn(async move {
                client
                    .ask_encoded(request, PageEncoding::ZstdBlocks)
                    .await
                    .unwrap()
            })
        })
        .collect();
    let metrics = async || {
        let metrics = client.http.get(format!("{}/metrics", client.url));
        metrics.send().await.unwrap().text().await.unwrap()
    };
    while !metrics().await.contains("partial_sync_requests_under_way 64") {
        tokio::task::yield_now().await;
    }
    // Not among the small answers that are given at once.
    let again = client.ask_encoded(at(&here.revision, 0..200), PageEncoding::ZstdBlocks);
    assert!(again.await.unwrap().pages == here.pages);
    held.open.send_replace(true);
    join_all(all).await;
}

/// A remote that answers a long poll at once.
#[derive(Debug)]
struct Impatient(MemoryRemote);

impl Remote for Impatient {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        self.0.pages(PagesRequest {
            long_poll: None,
            ..request
        })
    }

    fn execute(&self, _: Batch, _: Option<Duration>) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        unreachable!()
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn transferred(&self) -> TransferStats {
        TransferStats::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_that_waits_for_nothing_is_not_asked_all_the_time() {
    let remote = foreign();
    let revision = remote.push_revision(pages([1, 2, 3]));
    let (cache, asked) = before_remote("http://127.0.0.1:1", Arc::new(Impatient(remote))).await;
    let client = Client {
        features: "hydrate, zstd, require, list, zstd-bodies, zstd-blocks, foreign-sql",
        ..Client::new(&cache.url())
    };
    let request = PagesRequest {
        long_poll: Some(Duration::from_secs(2)),
        ..poll(&revision)
    };
    assert!(client.ask(request).await.unwrap().pages.is_empty());
    assert!(asked.requests() < 10, "{}", asked.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_reads_everything_costs_few_questions_and_brings_each_page_once() {
    let db = TestDb::new();
    insert(&db.open(), 1, 40_000);
    let server = db.serve().await;
    let (cache, asked) = before(&server.url()).await;
    let client = Client::new(&cache.url());
    let query = PagesRequest {
        select: ids([]),
        query: Some("SELECT sum(length(v)) FROM t".to_owned()),
        ..PagesRequest::default()
    };
    let found = client.ask_encoded(query, PageEncoding::ZstdBlocks).await.unwrap();
    assert_same(&found.whole(), &dump(&db.path), "a scan");
    assert!(asked.requests() <= 8, "{}", asked.requests());
    assert!(
        asked.ids_delivered_twice().is_empty(),
        "{}",
        asked.ids_delivered_twice().len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_wait_for_a_commit_the_origin_has_one_poll_and_none_when_they_left() {
    let db = TestDb::new();
    let server = db.serve().await;
    let (cache, asked) = before(&server.url()).await;
    let client = Client::new(&cache.url());
    let old = client.latest().await;
    asked.clear();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (client, request) = (client.clone(), poll(&old.revision));
            tokio::spawn(async move { client.ask(request).await.unwrap() })
        })
        .collect();
    let metrics = async |url: &str| {
        client
            .http
            .get(format!("{url}/metrics"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    while !metrics(&cache.url())
        .await
        .contains("partial_sync_waiting_polls 20")
    {
        tokio::task::yield_now().await;
    }
    while !metrics(&server.url())
        .await
        .contains("partial_sync_waiting_polls 1")
    {
        tokio::task::yield_now().await;
    }
    let polls = || {
        asked
            .page_requests()
            .into_iter()
            .filter(|asked| asked.long_poll.is_some())
            .count()
    };
    assert_eq!(polls(), 1);
    sql(&Client::new(&server.url()), INSERT).await.unwrap();
    for answer in join_all(waiting).await {
        let answer = answer.unwrap();
        assert_same(&pulled(old.whole(), &answer), &dump(&db.path), "woken");
    }
    while !metrics(&server.url())
        .await
        .contains("partial_sync_waiting_polls 0")
    {
        tokio::task::yield_now().await;
    }
    cache.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_goes_to_the_origin_with_its_token_through_two_caches_and_its_writer_reads_what_it_wrote() {
    let db = TestDb::new();
    let server = Server::builder(&db.path)
        .authenticator(StaticToken::new("secret".to_owned(), Access::Full))
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let open = async |url: String, token: &'static str| {
        Server::from_origin(Origin::at(url).auth_token(token))
            .listen("127.0.0.1:0")
            .await
    };
    let refused = open(server.url(), "other").await.unwrap_err();
    assert!(refused.to_string().contains("token"), "{refused}");
    let first = open(server.url(), "secret").await.unwrap();
    let second = open(first.url(), "").await;
    let second = match second {
        Ok(second) => second,
        // It sends no empty token.
        Err(_) => Server::from_origin(Origin::at(first.url()))
            .listen("127.0.0.1:0")
            .await
            .unwrap(),
    };
    let client = Client::new(&second.url());
    let ask = async |token: Option<&str>, baton: Option<&str>, text: &str| -> (u16, Value) {
        let mut request = client.http.post(format!("{}/v2/pipeline", client.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let body = json!({"baton": baton, "requests": [{"type": "execute", "stmt": {"sql": text}}]});
        let answer = request.body(body.to_string()).send().await.unwrap();
        (
            answer.status().as_u16(),
            serde_json::from_str(&answer.text().await.unwrap()).unwrap(),
        )
    };
    assert_eq!(ask(None, None, INSERT).await.0, 401);
    let (_, begun) = ask(Some("secret"), None, "BEGIN IMMEDIATE").await;
    let (_, inserted) = ask(Some("secret"), begun["baton"].as_str(), INSERT).await;
    let (_, committed) = ask(Some("secret"), inserted["baton"].as_str(), "COMMIT").await;
    assert_eq!(committed["results"][0]["type"], "ok");
    assert_same(&client.latest().await.whole(), &dump(&db.path), "its own write");
    server.shutdown().await;
    let (status, refused) = ask(Some("secret"), None, INSERT).await;
    assert_eq!((status, &refused["code"]), (502, &json!("WRITER_UNREACHABLE")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_behind_each_other_end_a_request_that_nobody_takes() {
    let db = TestDb::new();
    let server = db.serve().await;
    let remote = server.url();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    // Pages come from the origin, and SQL goes to itself.
    let origin = Origin::at(format!("http://{port}"));
    let origin = origin.asking(move |_| Ok(Arc::new(HttpRemote::builder(remote.clone()).build()?)));
    let cache = Server::from_origin(origin).listen(port).await.unwrap();
    assert_eq!(
        sql(&Client::new(&cache.url()), INSERT).await.unwrap_err(),
        "WRITER_UNREACHABLE"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_origin_is_away_what_is_here_is_served_and_afterwards_all_continue() {
    let db = TestDb::new();
    insert(&db.open(), 1, 100);
    let server = db.serve().await;
    let addr = server.addr();
    let (cache, asked) = before(&server.url()).await;
    let client = Client::new(&cache.url());
    let old = client.latest().await;
    let away = {
        let since = client.since(&old.revision).await.unwrap();
        assert!(since.pages.is_empty());
        server.shutdown().await;
        let refused = client.ask(PagesRequest::default()).await.unwrap_err();
        assert_eq!((refused.status, &*refused.code), (502, "ORIGIN_UNREACHABLE"));
        assert!(!refused.message.contains("127.0.0.1"), "{}", refused.message);
        assert!(client.at(&old.revision).await.unwrap() == old);
        let ready = client
            .http
            .get(format!("{}/ready", client.url))
            .send()
            .await
            .unwrap();
        assert_eq!(ready.status(), 503);
        let (client, request) = (client.clone(), poll(&old.revision));
        tokio::spawn(async move { client.ask(request).await })
    };
    assert!(away.await.unwrap().is_err());
    let server = serve_at(&db, addr).await;
    insert(&db.open(), 101, 100);
    let since = client.since(&old.revision).await.unwrap();
    assert_same(&pulled(old.whole(), &since), &dump(&db.path), "after a restart");
    asked.clear();
    assert!(client.at(&old.revision).await.unwrap() == old);
    assert_eq!(asked.requests(), 0);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_with_another_history_is_another_database_and_nothing_of_the_one_before_is_given() {
    let db = TestDb::new();
    insert(&db.open(), 1, 100);
    let server = db.serve().await;
    let addr = server.addr();
    let (cache, _) = before(&server.url()).await;
    let client = Client::new(&cache.url());
    let old = client.latest().await;
    let waits = client.clone();
    let request = poll(&old.revision);
    let waits = tokio::spawn(async move { waits.ask(request).await });
    server.shutdown().await;
    let other = TestDb::new();
    insert(&other.open(), 500, 90);
    let server = serve_at(&other, addr).await;
    let refused = client.since(&old.revision).await;
    assert_eq!(told(refused), refusal(400, "REVISION_UNKNOWN"));
    let (status, _) = told(waits.await.unwrap());
    assert!([400, 502].contains(&status), "{status}");
    for _ in 0..2 {
        assert_same(
            &client.latest().await.whole(),
            &dump(&other.path),
            "the other one",
        );
        let refused = client.at(&old.revision).await;
        assert_eq!(told(refused), refusal(400, "REVISION_UNKNOWN"));
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_the_origin_keeps_no_more_is_expired_here_too_unless_its_pages_are_here() {
    let served = Served::new(&["a"]).await;
    let origin = served.client("a");
    sql(&origin, INSERT).await.unwrap();
    let ancient = origin.latest().await;
    sql(&origin, INSERT).await.unwrap();
    let (cache, _) = before(&origin.url).await;
    let client = Client::new(&cache.url());
    let old = client.latest().await;
    sql(&origin, "UPDATE t SET v = randomblob(2000)").await.unwrap();
    let newer = origin.latest().await;
    // It hears of this one, and has none of its pages.
    client
        .ask(PagesRequest {
            select: ids([]),
            ..PagesRequest::default()
        })
        .await
        .unwrap();
    sql(&origin, "UPDATE t SET v = randomblob(2000)").await.unwrap();
    origin.latest().await;
    served
        .ok("POST", "/namespaces/a/drop-history", json!({ "all": true }))
        .await;
    let expired = || refusal(410, "REVISION_EXPIRED");
    assert_eq!(told(origin.at(&old.revision).await), expired());
    let latest = dump(&served.path("a"));
    for _ in 0..2 {
        assert_eq!(told(client.since(&ancient.revision).await), expired());
        assert_eq!(told(client.at(&ancient.revision).await), expired());
        assert_eq!(told(client.at(&newer.revision).await), expired());
        assert!(client.at(&old.revision).await.unwrap() == old);
        for state in [&old, &newer] {
            let since = client.since(&state.revision).await.unwrap();
            assert_same(
                &pulled(state.whole(), &since),
                &latest,
                "everything may have changed",
            );
        }
    }
}

/// Pages of 512 bytes.
fn pages(of: impl IntoIterator<Item = u8>) -> Vec<Bytes> {
    of.into_iter().map(|n| Bytes::from(vec![n; 512])).collect()
}

/// A remote that is not this project's: it lists nothing, and runs no queries with pages.
fn foreign() -> MemoryRemote {
    let remote = MemoryRemote::new();
    remote.set_features(Features::default());
    remote
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_that_can_do_no_more_than_it_has_to_is_served_with_all_that_ours_can_do() {
    let remote = foreign();
    let first = remote.push_revision(pages([1, 2, 3, 4]));
    let (cache, asked) = before_remote("http://127.0.0.1:1", Arc::new(remote.clone())).await;
    let client = Client {
        features: "hydrate, zstd, require, list, zstd-bodies, zstd-blocks, foreign-sql",
        ..Client::new(&cache.url())
    };
    assert_same(&client.latest().await.whole(), &pages([1, 2, 3, 4]), "first");
    remote.push_revision(pages([1, 9, 3, 4, 5]));
    asked.clear();
    let since = client.since(&first).await.unwrap();
    assert_eq!(since.ids(), [1, 4]);
    assert_eq!(asked.requests(), 1, "the pages came with the answer");
    remote.push_revision(pages([1, 9]));
    remote.push_revision(pages([1, 9, 3, 7]));
    let since = client.since(&first).await.unwrap();
    assert_same(
        &pulled(pages([1, 2, 3, 4]), &since),
        &pages([1, 9, 3, 7]),
        "shrunk and grown",
    );
    // It does not say what changed: everything may have.
    remote.set_replace_base(true);
    let fourth = remote.push_revision(pages([8, 9, 3]));
    let since = client.since(&first).await.unwrap();
    assert_eq!((since.ids(), &since.revision), (vec![0, 1, 2], &fourth));
    assert_same(
        &client.at(&first).await.unwrap().whole(),
        &pages([1, 2, 3, 4]),
        "first",
    );
    remote.expire(&first);
    assert_same(
        &client.at(&first).await.unwrap().whole(),
        &pages([1, 2, 3, 4]),
        "it is here",
    );
    cache.shutdown().await;
    let (cache, _) = before_remote("http://127.0.0.1:1", Arc::new(remote.clone())).await;
    let client = Client {
        url: cache.url(),
        ..client
    };
    assert_eq!(told(client.since(&first).await), refusal(410, "REVISION_EXPIRED"));
    assert_eq!(told(client.at(&first).await), refusal(410, "REVISION_EXPIRED"));
    assert_eq!(
        told(client.at(&Revision::new("m77").unwrap()).await),
        refusal(400, "REVISION_UNKNOWN")
    );
    cache.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_read_sends_no_sql_to_a_remote_that_cannot_be_told_so() {
    let remote = foreign();
    remote.push_revision(pages([1]));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", port.local_addr().unwrap());
    let origin = Origin::at(url).asking(move |_| Ok(Arc::new(remote.clone())));
    let cache = Server::from_origin(origin)
        .authenticator(StaticToken::new("reader".to_owned(), Access::ReadOnly))
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::new(&cache.url());
    let request = client
        .http
        .post(format!("{}/v2/pipeline", client.url))
        .bearer_auth("reader");
    let body = json!({"baton": null, "requests": [{"type": "execute", "stmt": {"sql": INSERT}}]});
    let answer = request.body(body.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    port.set_nonblocking(true).unwrap();
    assert_eq!(port.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_that_call_different_states_by_one_name_get_each_their_own_pages() {
    let remotes = [("a", foreign()), ("b", foreign())];
    for ((_, remote), first) in remotes.iter().zip([1, 101]) {
        remote.push_revision(pages(first..first + 5));
    }
    let there = remotes.clone();
    let origin = Origin::at("http://127.0.0.1:1").asking(move |name| {
        match there.iter().find(|(other, _)| *other == name) {
            Some((_, remote)) => Ok(Arc::new(remote.clone()) as _),
            None => Err(RemoteError::new(RemoteErrorKind::NotFound, "there is none")),
        }
    });
    let cache = Server::from_origin(origin).listen("127.0.0.1:0").await.unwrap();
    for _ in 0..3 {
        for ((name, remote), first) in remotes.iter().zip([1, 101]) {
            let client = Client {
                features: "hydrate, zstd, require, list, zstd-bodies, zstd-blocks, foreign-sql",
                ..Client::new(&format!("{}/{name}", cache.url()))
            };
            let (revision, _) = remote.latest().unwrap();
            assert_eq!(revision.as_str(), "m1");
            let found = client.ask(at(&revision, 0..5)).await.unwrap();
            assert_same(&found.whole(), &pages(first..first + 5), name);
        }
    }
    cache.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_of_a_folder_are_served_by_their_names_and_another_name_costs_one_question() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        let db = TestDb::new();
        insert(&db.open(), 1, if name == "a" { 10 } else { 300 });
        db.open()
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
            .unwrap();
        std::fs::copy(&db.path, folder.path().join(format!("{name}.db"))).unwrap();
    }
    let server = Server::builder(folder.path())
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let cache = Server::from_origin(Origin::at(format!("{}/", server.url())))
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    for name in ["a", "b"] {
        let client = Client::new(&format!("{}/{name}", cache.url()));
        sql(&client, INSERT).await.unwrap();
        let path = folder.path().join(format!("{name}.db"));
        assert_same(&client.latest().await.whole(), &dump(&path), name);
    }
    let requests = async || {
        let client = Client::new(&server.url());
        let text = client
            .http
            .get(format!("{}/metrics", client.url))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let counted = text
            .lines()
            .filter(|line| line.starts_with("partial_sync_requests_total"));
        counted
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum::<u64>()
    };
    let before = requests().await;
    let refused = Client::new(&format!("{}/c", cache.url()))
        .ask(PagesRequest::default())
        .await;
    assert_eq!(told(refused), refusal(404, "NOT_FOUND"));
    // And the one that counts.
    assert_eq!(requests().await, before + 2);
    cache.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_do_not_fit_are_asked_for_again_and_are_right() {
    let db = TestDb::new();
    insert(&db.open(), 1, 3000);
    let server = db.serve().await;
    let cache = Server::from_origin(Origin::at(server.url()).memory(100 << 10))
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::new(&cache.url());
    let all = futures_util::stream::iter(0..6).map(async |n| {
        let encoding = [PageEncoding::Raw, PageEncoding::ZstdBlocks][n % 2];
        client
            .ask_encoded(PagesRequest::default(), encoding)
            .await
            .unwrap()
    });
    let all: Vec<_> = all.buffer_unordered(3).collect().await;
    let expected = dump(&db.path);
    for answer in all {
        assert_same(&answer.whole(), &expected, "small");
    }
    let query = PagesRequest {
        query: Some("SELECT sum(length(v)) FROM t".to_owned()),
        ..PagesRequest::default()
    };
    let found = client.ask(query).await.unwrap();
    assert!(found.pages.len() > 300, "{}", found.pages.len());
}

/// A server in front of a remote that keeps pages in a folder, and what it asks.
async fn keeping(url: &str, folder: &Path, bytes: u64) -> Result<(ServerHandle, Arc<Counting>), ServerError> {
    let asked = Arc::new(Counting::new(Arc::new(HttpRemote::builder(url).build().unwrap())));
    let remote = Arc::clone(&asked);
    let origin = Origin::at(url).asking(move |_| Ok(Arc::clone(&remote) as _));
    let origin = origin.memory(100 << 10).cache(folder, bytes);
    let server = Server::from_origin(origin).listen("127.0.0.1:0").await?;
    Ok((server, asked))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_folder_counts_after_a_restart_if_the_origin_says_so() {
    let db = TestDb::new();
    insert(&db.open(), 1, 3000);
    let folder = tempfile::tempdir().unwrap();
    let server = db.serve().await;
    let addr = server.addr();
    let (cache, _) = keeping(&server.url(), folder.path(), 100 << 20).await.unwrap();
    let client = Client::new(&cache.url());
    let old = client.latest().await;
    let in_use = keeping(&server.url(), folder.path(), 100 << 20)
        .await
        .unwrap_err();
    assert!(in_use.to_string().contains("another folder"), "{in_use}");
    cache.shutdown().await;

    // The same revision: nothing is asked for but what it is.
    let (cache, asked) = keeping(&server.url(), folder.path(), 100 << 20).await.unwrap();
    let client = Client::new(&cache.url());
    assert!(client.at(&old.revision).await.unwrap() == old);
    assert_eq!(asked.requests(), 1, "{:?}", asked.page_requests());
    cache.shutdown().await;

    // Another one: what changed is asked for, and comes.
    insert(&db.open(), 5000, 10);
    db.open()
        .execute("UPDATE t SET v = 'new' WHERE id = 1500", [])
        .unwrap();
    let (cache, asked) = keeping(&server.url(), folder.path(), 100 << 20).await.unwrap();
    let client = Client::new(&cache.url());
    let new = client.latest().await;
    assert_same(&new.whole(), &dump(&db.path), "after commits");
    assert!(asked.ids_delivered().len() < 20, "{:?}", asked.ids_delivered());
    assert_same(
        &client.at(&old.revision).await.unwrap().whole(),
        &old.whole(),
        "before them",
    );
    cache.shutdown().await;

    // Another history at the same url: nothing counts.
    server.shutdown().await;
    let other = TestDb::new();
    insert(&other.open(), 1, 2900);
    let server = serve_at(&other, addr).await;
    let (cache, _) = keeping(&server.url(), folder.path(), 100 << 20).await.unwrap();
    let client = Client::new(&cache.url());
    assert_same(
        &client.latest().await.whole(),
        &dump(&other.path),
        "another history",
    );
    assert_eq!(
        told(client.at(&old.revision).await),
        refusal(400, "REVISION_UNKNOWN")
    );
    cache.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_too_small_or_was_damaged_gives_right_pages_and_takes_no_more_than_allowed() {
    let db = TestDb::new();
    insert(&db.open(), 1, 3000);
    let folder = tempfile::tempdir().unwrap();
    let server = db.serve().await;
    for n in 0..3 {
        let (cache, _) = keeping(&server.url(), folder.path(), 700 << 10).await.unwrap();
        let client = Client::new(&cache.url());
        for _ in 0..2 {
            assert_same(&client.latest().await.whole(), &dump(&db.path), n);
        }
        sql(&client, "UPDATE t SET v = randomblob(300) WHERE id % 7 = 0")
            .await
            .unwrap();
        cache.shutdown().await;
        let mut files: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|file| file.unwrap())
            .collect();
        files.sort_by_key(|file| file.file_name());
        assert!(files[1].metadata().unwrap().len() <= 700 << 10, "{files:?}");
        // All of it, and every other byte the next time.
        let mut bytes = std::fs::read(files[1].path()).unwrap();
        assert!(bytes.len() > 600 << 10);
        bytes
            .iter_mut()
            .skip(n)
            .step_by(n + 1)
            .for_each(|byte| *byte ^= 0x55);
        std::fs::write(files[1].path(), bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_remote_whose_revisions_may_be_mere_numbers_nothing_counts_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let serve = async |remote: &MemoryRemote| {
        let remote = remote.clone();
        let origin = Origin::at("http://127.0.0.1:1").asking(move |_| Ok(Arc::new(remote.clone())));
        let cache = Server::from_origin(origin.cache(folder.path(), 1 << 20))
            .listen("127.0.0.1:0")
            .await
            .unwrap();
        let client = Client {
            features: "hydrate, zstd, require, list, zstd-bodies, zstd-blocks, foreign-sql",
            ..Client::new(&cache.url())
        };
        (cache, client)
    };
    for first in [1, 101] {
        // It calls its first state m1, as the one before did.
        let remote = foreign();
        let revision = remote.push_revision(pages(first..first + 50));
        let (cache, client) = serve(&remote).await;
        assert_same(
            &client.at(&revision).await.unwrap().whole(),
            &pages(first..first + 50),
            first,
        );
        cache.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_in_from_elsewhere_without_a_token() {
    let db = TestDb::new();
    let server = db.serve().await;
    let refused = Server::from_origin(Origin::at(server.url()))
        .listen("0.0.0.0:0")
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("without authentication"),
        "{refused}"
    );
}
