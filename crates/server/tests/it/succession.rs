//! Servers of a bucket that become the writer of its database: nothing is restored for it, and nothing is lost by it.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use partial_sync_core::Revision;
use partial_sync_server::{Mirroring, Server, ServerHandle, TakeOver};
use partial_sync_transport::PagesRequest;
use serde_json::{Value, json};

use crate::{
    pages::support::{Client, TestDb},
    replicate::support::{TestStore, Weather, assert_same, database_in, id_of, replication, serve, sql},
};

const INSERT: &str = "INSERT INTO t(v) VALUES (randomblob(2000))";
/// Longer than any test waits for something else.
const NEVER: TakeOver = TakeOver::After(Duration::from_secs(3600));

fn free_address() -> SocketAddr {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    port.local_addr().unwrap()
}

fn mirroring(store: &Arc<TestStore>, at: SocketAddr, when: TakeOver) -> Mirroring {
    let store = store.clone();
    Mirroring::in_buckets(move |_| Ok(store.bucket())).take_over(when, format!("http://{at}"))
}

/// A server of the bucket that takes over.
async fn successor(store: &Arc<TestStore>, at: SocketAddr, when: TakeOver) -> ServerHandle {
    let mirroring = mirroring(store, at, when);
    Server::from_bucket(mirroring).listen(at).await.unwrap()
}

/// A bucket with a database of so many rows, whose writer has gone.
async fn left_behind(rows: u32) -> Arc<TestStore> {
    let (db, store) = (TestDb::new(), TestStore::new());
    db.open()
        .execute_batch(&format!(
            "CREATE TABLE big(id INTEGER PRIMARY KEY, v BLOB);
             WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO big SELECT i, randomblob(3000) FROM n;
             DELETE FROM t"
        ))
        .unwrap();
    serve(&db.path, &store).await.shutdown().await;
    store
}

/// What the server gives is what the bucket has, now and at every revision from one on.
async fn assert_as_in_bucket(client: &Client, store: &Arc<TestStore>, from: &Revision) {
    let latest = client.latest().await;
    let (last, pages) = database_in(store, None).await;
    assert_eq!(id_of(&latest.revision), last);
    assert_same(&latest.whole(), &pages, "the latest");
    let (lineage, _) = from.as_str().split_once('-').unwrap();
    for id in id_of(from)..=last {
        let revision = Revision::new(format!("{lineage}-{id}")).unwrap();
        let (_, then) = database_in(store, Some(id)).await;
        assert_same(&client.at(&revision).await.unwrap().whole(), &then, id);
        let since = client.since(&revision).await.unwrap();
        let mut whole = then;
        whole.resize(since.size as usize, bytes::Bytes::new());
        for (page, bytes) in since.pages {
            whole[page as usize] = bytes;
        }
        assert_same(&whole, &pages, format_args!("since {id}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_a_bucket_that_becomes_the_writer_reads_what_it_needs_and_has_what_it_wrote() {
    let store = left_behind(3000).await;
    let (_, pages) = database_in(&store, None).await;
    assert!(pages.len() > 2000);
    let server = successor(&store, free_address(), TakeOver::Now).await;
    let client = Client::new(&server.url());
    let before = store.bytes.load(SeqCst);
    sql(&client, INSERT).await.unwrap();
    let read = store.bytes.load(SeqCst) - before;
    assert!(
        read < 1 << 20,
        "{read} bytes read for one row; the database has {}",
        pages.len() * 4096
    );
    let poll = PagesRequest {
        select: partial_sync_transport::PageSelector::Ids([0].into_iter().collect()),
        ..PagesRequest::default()
    };
    let first = client.ask(poll).await.unwrap().revision;
    for n in 0..24 {
        let text = match n % 8 {
            2 => "UPDATE big SET v = randomblob(3000) WHERE id % 500 = 3",
            4 => "DELETE FROM big WHERE id > 2000",
            5 => "VACUUM",
            6 => "INSERT INTO big SELECT id + 5000, randomblob(2500) FROM big WHERE id < 900",
            7 => "DELETE FROM big WHERE id > 5000",
            _ => INSERT,
        };
        sql(&client, text).await.unwrap();
    }
    assert_as_in_bucket(&client, &store, &first).await;
    let check = sql(&client, "PRAGMA integrity_check").await.unwrap();
    assert_eq!(check["rows"][0][0]["value"], "ok");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_reads_since_before_sees_its_state_while_pages_are_written_and_moved() {
    let store = left_behind(1500).await;
    let server = successor(&store, free_address(), TakeOver::Now).await;
    let client = Client::new(&server.url());
    let ask = async |baton: Option<&str>, text: &str| -> Value {
        let body = json!({"baton": baton, "requests": [{"type": "execute", "stmt": {"sql": text}}]});
        let request = client.http.post(format!("{}/v2/pipeline", client.url));
        let answer = request.body(body.to_string()).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    };
    let value = |answer: &Value| answer["results"][0]["response"]["result"]["rows"][0][0]["value"].clone();
    let sum = "SELECT count(*) || ' ' || sum(id) || ' ' || sum(length(hex(v))) FROM big";
    let begun = ask(None, "BEGIN").await;
    // Page 1 and the schema: the pages of the table are still in the bucket.
    let one = ask(begun["baton"].as_str(), "SELECT count(*) FROM t").await;
    for text in [
        "UPDATE big SET v = randomblob(10) WHERE id % 3 = 0",
        "DELETE FROM big WHERE id % 3 = 1",
        INSERT,
        "DELETE FROM big WHERE id % 2 = 0",
    ] {
        sql(&client, text).await.unwrap();
    }
    let then = ask(one["baton"].as_str(), sum).await;
    assert_eq!(value(&then), json!("1500 1125750 9000000"));
    ask(then["baton"].as_str(), "COMMIT").await;
    sql(&client, "VACUUM").await.unwrap();
    let latest = client.latest().await;
    assert_same(
        &latest.whole(),
        &database_in(&store, None).await.1,
        "after all that",
    );
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_whose_writer_is_gone_one_takes_its_place_and_the_other_passes_sql_on() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let at = free_address();
    let writer = Server::builder(&db.path)
        .replicate(replication(&store).writer_url(format!("http://{at}")))
        .listen(at)
        .await
        .unwrap();
    sql(&Client::new(&writer.url()), INSERT).await.unwrap();
    let soon = TakeOver::After(Duration::from_millis(300));
    let servers = [
        successor(&store, free_address(), soon).await,
        successor(&store, free_address(), soon).await,
    ];
    let clients = [Client::new(&servers[0].url()), Client::new(&servers[1].url())];
    for client in &clients {
        sql(client, INSERT).await.unwrap();
    }
    let first = clients[0].latest().await;
    writer.shutdown().await;
    for client in &clients {
        // Nobody has to be told where the writer is.
        while let Err(code) = sql(client, INSERT).await {
            assert!(
                ["WRITER_UNREACHABLE", "DATABASE_TAKEN_OVER"].contains(&&*code),
                "{code}"
            );
        }
    }
    for client in &clients {
        assert_as_in_bucket(client, &store, &first.revision).await;
    }
    let rows = sql(&clients[0], "SELECT count(*) FROM t").await.unwrap();
    assert_eq!(rows, sql(&clients[1], "SELECT count(*) FROM t").await.unwrap());
    for server in servers {
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_its_place_passes_sql_on_and_one_that_comes_back_has_it_again() {
    let store = left_behind(10).await;
    let at = free_address();
    let first = successor(&store, at, TakeOver::Now).await;
    let of_first = Client::new(&first.url());
    sql(&of_first, INSERT).await.unwrap();
    let second = successor(&store, free_address(), TakeOver::Now).await;
    let of_second = Client::new(&second.url());
    sql(&of_second, INSERT).await.unwrap();
    // It finds out with what it writes next, which is nowhere.
    assert_eq!(sql(&of_first, INSERT).await.unwrap_err(), "DATABASE_TAKEN_OVER");
    sql(&of_first, INSERT).await.unwrap();
    let rows = sql(&of_first, "SELECT count(*) FROM t").await.unwrap();
    assert_eq!(rows["rows"][0][0]["value"], "3");
    first.shutdown().await;
    second.shutdown().await;
    // The head does not name it.
    let again = successor(&store, at, NEVER).await;
    assert_eq!(sql(&of_first, INSERT).await.unwrap_err(), "WRITER_UNREACHABLE");
    again.shutdown().await;
    let taken = successor(&store, at, TakeOver::Now).await;
    sql(&of_first, INSERT).await.unwrap();
    taken.shutdown().await;
    let again = successor(&store, at, NEVER).await;
    sql(&of_first, INSERT).await.unwrap();
    let rows = sql(&of_first, "SELECT count(*) FROM t").await.unwrap();
    assert_eq!(rows["rows"][0][0]["value"], "5");
    again.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_kill_and_what_was_not_may_be() {
    let store = left_behind(10).await;
    let at = free_address();
    let server = successor(&store, at, TakeOver::Now).await;
    let client = Client::new(&server.url());
    for _ in 0..5 {
        sql(&client, INSERT).await.unwrap();
    }
    store.set(Weather::Held);
    let waits = client.clone();
    let waiting = tokio::spawn(async move { sql(&waits, INSERT).await });
    store.until_waiting(1).await;
    // As its end would be: nothing of it reaches the bucket any more.
    store.cut_after(0);
    waiting.abort();
    drop(server);
    store.mend();
    store.let_late_arrive().await;
    let next = successor(&store, free_address(), TakeOver::Now).await;
    let client = Client::new(&next.url());
    let rows = sql(&client, "SELECT count(*) FROM t").await.unwrap();
    let rows = rows["rows"][0][0]["value"].as_str().unwrap().to_owned();
    assert!(["5", "6"].contains(&&*rows), "{rows} rows");
    sql(&client, INSERT).await.unwrap();
    assert_same(
        &client.latest().await.whole(),
        &database_in(&store, None).await.1,
        "the next writer",
    );
    next.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_its_place_takes_it_from_nobody_also_where_it_could_not_see_at_once_who_has_it() {
    let store = left_behind(10).await;
    let first = successor(&store, free_address(), TakeOver::Now).await;
    let of_first = Client::new(&first.url());
    sql(&of_first, INSERT).await.unwrap();
    let second = successor(&store, free_address(), TakeOver::Now).await;
    let of_second = Client::new(&second.url());
    sql(&of_second, INSERT).await.unwrap();
    assert_eq!(sql(&of_first, INSERT).await.unwrap_err(), "DATABASE_TAKEN_OVER");
    store.set(Weather::Denied);
    for _ in 0..3 {
        sql(&of_first, INSERT).await.unwrap_err();
    }
    store.mend();
    sql(&of_first, INSERT).await.unwrap();
    sql(&of_second, INSERT).await.unwrap();
    let rows = sql(&of_first, "SELECT count(*) FROM t").await.unwrap();
    assert_eq!(rows["rows"][0][0]["value"], "4");
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_can_have_no_working_copy_takes_nothing_over_and_a_folder_that_is_not_there_is_made() {
    let store = left_behind(10).await;
    let first = successor(&store, free_address(), TakeOver::Now).await;
    let of_first = Client::new(&first.url());
    sql(&of_first, INSERT).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    std::fs::write(&file, "of somebody").unwrap();
    let at = free_address();
    let second = mirroring(&store, at, TakeOver::Now).cache(&file, 1 << 20);
    Server::from_bucket(second).listen(at).await.unwrap_err();
    sql(&of_first, INSERT).await.unwrap();
    let second = mirroring(&store, at, TakeOver::Now).cache(folder.path().join("not/yet"), 1 << 20);
    let second = Server::from_bucket(second).listen(at).await.unwrap();
    let rows = sql(&Client::new(&second.url()), "SELECT count(*) FROM t").await;
    assert_eq!(rows.unwrap()["rows"][0][0]["value"], "2");
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_become_the_writer_does_not_try_with_every_request() {
    let store = left_behind(10).await;
    let at = free_address();
    // The head names it.
    let first = successor(&store, at, TakeOver::Now).await;
    let client = Client::new(&first.url());
    sql(&client, INSERT).await.unwrap();
    first.shutdown().await;
    store.set(Weather::Lost);
    let server = successor(&store, at, NEVER).await;
    let puts = store.puts.load(SeqCst);
    for _ in 0..10 {
        client.latest().await;
    }
    assert_eq!(store.puts.load(SeqCst), puts, "writes to the bucket for readers");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_with_one_url_do_not_take_the_database_from_each_other() {
    let store = left_behind(10).await;
    let start = async || {
        let store = store.clone();
        let mirroring = Mirroring::in_buckets(move |_| Ok(store.bucket()));
        let mirroring = mirroring.take_over(TakeOver::Now, "http://127.0.0.1:9");
        Server::from_bucket(mirroring)
            .listen("127.0.0.1:0")
            .await
            .unwrap()
    };
    let (first, second) = (start().await, start().await);
    let clients = [Client::new(&first.url()), Client::new(&second.url())];
    sql(&clients[1], INSERT).await.unwrap();
    assert_eq!(sql(&clients[0], INSERT).await.unwrap_err(), "DATABASE_TAKEN_OVER");
    for _ in 0..3 {
        // Nobody is at that url.
        assert_eq!(sql(&clients[0], INSERT).await.unwrap_err(), "WRITER_UNREACHABLE");
        sql(&clients[1], INSERT).await.unwrap();
    }
    first.shutdown().await;
    second.shutdown().await;
}
