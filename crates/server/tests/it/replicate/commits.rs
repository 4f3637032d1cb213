//! Commits on their way to the bucket: when they are answered, shared, tried again, and seen by replicas.

use std::sync::atomic::Ordering::SeqCst;

use partial_sync_server::{
    Durability, Server,
    hrana::{Hrana, HranaOptions},
};

use super::support::{
    TestStore, Weather, assert_same, database_in, id_of, replication, serve, serve_async, sql,
};
use crate::pages::support::{Client, TestDb, dump};

const INSERT: &str = "INSERT INTO t(v) VALUES (randomblob(2000))";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_one_put_and_its_revision_is_the_transaction_of_the_log() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let server = serve(&db.path, &store).await;
    let client = Client::new(&server.url());
    for n in 0..5 {
        let before = store.puts.load(SeqCst);
        let all = store.all.load(SeqCst);
        sql(&client, if n == 3 { "DELETE FROM t; VACUUM" } else { INSERT })
            .await
            .ok();
        sql(&client, INSERT).await.unwrap();
        let (id, pages) = database_in(&store, None).await;
        let latest = client.latest().await;
        assert_eq!(id_of(&latest.revision), id);
        assert_same(&latest.whole(), &pages, n);
        assert_same(&dump(&db.path), &pages, n);
        let puts = store.puts.load(SeqCst) - before;
        assert!((1..=2).contains(&puts), "{puts}");
        assert_eq!(store.all.load(SeqCst) - all, puts);
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_come_while_one_is_put_share_the_next_put() {
    const CLIENTS: i64 = 64;
    let (db, store) = (TestDb::new(), TestStore::new());
    let server = serve(&db.path, &store).await;
    let client = Client::new(&server.url());
    client.latest().await;
    let before = store.puts.load(SeqCst);
    store.set(Weather::Held);
    let mut commits = tokio::task::JoinSet::new();
    let commit = |commits: &mut tokio::task::JoinSet<_>| {
        let client = client.clone();
        commits.spawn(async move { sql(&client, INSERT).await });
    };
    commit(&mut commits);
    store.until_waiting(1).await;
    (1..CLIENTS).for_each(|_| commit(&mut commits));
    let rows = || -> i64 {
        let db = db.open();
        db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap()
    };
    while rows() < CLIENTS {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.puts.load(SeqCst) - before, 1);
    store.set(Weather::Fine);
    for done in commits.join_all().await {
        done.unwrap();
    }
    // Some had committed, and not yet asked for their revision.
    let puts = store.puts.load(SeqCst) - before;
    assert!((2..=4).contains(&puts), "{puts}");
    assert_same(&database_in(&store, None).await.1, &dump(&db.path), "the bucket");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_put_fails_is_not_answered_and_gets_there_later_once() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let server = serve(&db.path, &store).await;
    let client = Client::new(&server.url());
    sql(&client, INSERT).await.unwrap();
    let old = client.latest().await;
    for weather in [Weather::Denied, Weather::Lost, Weather::Denied] {
        let (before, _) = database_in(&store, None).await;
        store.set(weather);
        assert_eq!(sql(&client, INSERT).await.unwrap_err(), "NOT_REPLICATED");
        // What is published can be read, and nothing else.
        assert!(client.at(&old.revision).await.unwrap() == old);
        // One that is there, and whose answer was lost, is found.
        match client.ask(Default::default()).await {
            Ok(latest) => assert!(weather == Weather::Lost && id_of(&latest.revision) == before + 1),
            Err(refused) => assert_eq!((refused.status, &*refused.code), (503, "NOT_REPLICATED")),
        }
        // A second commit does not take the place of the first.
        assert_eq!(sql(&client, INSERT).await.unwrap_err(), "NOT_REPLICATED");
        store.set(Weather::Fine);
        let latest = client.latest().await;
        let (id, pages) = database_in(&store, None).await;
        assert_eq!(id_of(&latest.revision), id);
        assert_same(&latest.whole(), &pages, "the bucket");
        assert_same(&latest.whole(), &dump(&db.path), "the file");
        assert!((before + 1..=before + 2).contains(&id), "{before} {id}");
        let mut whole = old.pages.clone();
        whole.extend(client.since(&old.revision).await.unwrap().pages);
        assert!(whole.into_values().eq(latest.whole()));
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asynchronous_commit_is_answered_before_it_is_in_the_bucket_and_seen_after() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let server = serve_async(&db.path, &store).await;
    let client = Client::new(&server.url());
    sql(&client, INSERT).await.unwrap();
    let old = client.latest().await;
    store.set(Weather::Held);
    sql(&client, INSERT).await.unwrap();
    sql(&client, INSERT).await.unwrap();
    assert_eq!(database_in(&store, None).await.0, id_of(&old.revision));
    let waits = client.clone();
    let latest = tokio::spawn(async move { waits.latest().await });
    store.until_waiting(1).await;
    assert!(!latest.is_finished());
    assert!(client.at(&old.revision).await.unwrap() == old);
    store.set(Weather::Fine);
    let latest = latest.await.unwrap();
    assert_same(&latest.whole(), &dump(&db.path), "the file");
    let (id, pages) = database_in(&store, None).await;
    assert_eq!(id_of(&latest.revision), id);
    assert_same(&latest.whole(), &pages, "the bucket");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_bucket_that_takes_nothing_has_a_limit() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let options = HranaOptions {
        wal_bytes: 64 << 10,
        ..HranaOptions::default()
    };
    let server = Server::builder(&db.path)
        .sql(Hrana::new(options))
        .replicate(replication(&store).durability(Durability::Async))
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::new(&server.url());
    store.set(Weather::Denied);
    let large = "INSERT INTO t(v) VALUES (randomblob(200000))";
    let mut taken = 0;
    let refused = loop {
        match sql(&client, large).await {
            Ok(_) => taken += 1,
            Err(code) => break code,
        }
    };
    assert_eq!(refused, "NOT_REPLICATED");
    assert!((2..6).contains(&taken), "{taken} were taken");
    // Who reads does.
    let count = sql(&client, "SELECT count(*) FROM t").await.unwrap();
    assert_eq!(count["rows"][0][0]["value"], taken.to_string());
    store.set(Weather::Fine);
    client.latest().await;
    sql(&client, large).await.unwrap();
    let latest = client.latest().await;
    assert_same(&latest.whole(), &database_in(&store, None).await.1, "the bucket");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_does_not_wait_long_for_a_bucket_that_is_silent_and_loses_nothing() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let server = serve_async(&db.path, &store).await;
    let client = Client::new(&server.url());
    sql(&client, INSERT).await.unwrap();
    store.set(Weather::Held);
    sql(&client, INSERT).await.unwrap();
    store.until_waiting(1).await;
    server.shutdown().await;
    store.set(Weather::Fine);
    let server = serve(&db.path, &store).await;
    let latest = Client::new(&server.url()).latest().await;
    assert_same(&latest.whole(), &dump(&db.path), "the file");
    assert_same(&database_in(&store, None).await.1, &dump(&db.path), "the bucket");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_wait_for_a_silent_bucket_each_is_told_in_time() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let patience = std::time::Duration::from_secs(1);
    let server = Server::builder(&db.path).replicate(replication(&store).patience(patience));
    let server = server.listen("127.0.0.1:0").await.unwrap();
    let client = Client::new(&server.url());
    sql(&client, INSERT).await.unwrap();
    store.set(Weather::Held);
    let before = store.puts.load(SeqCst);
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..12 {
        let client = client.clone();
        waiting.spawn(async move {
            match n % 2 {
                0 => sql(&client, INSERT).await.unwrap_err(),
                _ => client
                    .ask(Default::default())
                    .await
                    .map_or_else(|refused| refused.code, |_| "read".to_owned()),
            }
        });
    }
    for told in waiting.join_all().await {
        assert!(told == "NOT_REPLICATED" || told == "read", "{told}");
    }
    // One after the other, each would have waited for a try of his own.
    let tries = store.puts.load(SeqCst) - before;
    assert!(tries < 6, "{tries}");
    store.set(Weather::Fine);
    assert_same(&client.latest().await.whole(), &dump(&db.path), "the file");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_takes_longer_than_anybody_waits_is_not_begun_again() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let patience = std::time::Duration::from_millis(200);
    let server = Server::builder(&db.path).replicate(replication(&store).patience(patience));
    let server = server.listen("127.0.0.1:0").await.unwrap();
    let client = Client::new(&server.url());
    sql(&client, INSERT).await.unwrap();
    store.set(Weather::Held);
    let before = store.puts.load(SeqCst);
    for _ in 0..4 {
        assert_eq!(sql(&client, INSERT).await.unwrap_err(), "NOT_REPLICATED");
    }
    assert_eq!(store.puts.load(SeqCst) - before, 1);
    store.set(Weather::Fine);
    assert_same(&client.latest().await.whole(), &dump(&db.path), "the file");
    assert_same(&database_in(&store, None).await.1, &dump(&db.path), "the bucket");
    server.shutdown().await;
}
