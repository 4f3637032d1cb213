//! Who waits for whom: writers for their turn, one-shot requests for nobody's idle transaction.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use axum::http::Request;
use bytes::Bytes;
use futures_util::FutureExt as _;
use partial_sync_server::{
    Clock,
    access::{Access, Caller, CallerId, SqlEndpoint as _},
    auth::{AnyOf, StaticToken},
    follow::{Follower, SourceFiles},
    history::SqliteHistory,
    hrana::{Hrana, HranaOptions},
};
use serde_json::{Value, json};

use super::server::{Server, outcome};

fn execute(sql: &str) -> Value {
    json!({"type": "execute", "stmt": {"sql": sql}})
}

/// Was red: SQLite's waiting polls, and one of 64 pushers wrote 88 times while another wrote once; some failed after 5 seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v14_of_64_pushers_none_writes_twice_as_often_as_another_and_none_fails() {
    const PUSHERS: usize = 64;
    // Each waits longer for all others than it may wait for one.
    const WORK: &str = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
                        SELECT count(*) FROM n";
    const STEPS: [&str; 3] = ["BEGIN IMMEDIATE", WORK, "COMMIT"];
    let steps = STEPS.map(|sql| (json!(null), sql));
    let alone = Server::start().await;
    alone.execute("CREATE TABLE t(v)").await.unwrap();
    let began = Instant::now();
    for _ in 0..4 {
        alone.batch(&steps).await;
    }
    let options = HranaOptions {
        concurrent_requests: PUSHERS,
        caller_requests: PUSHERS,
        // As long as forty of them take here and now.
        busy_timeout: began.elapsed() * 10,
        statement_timeout: Duration::from_secs(600),
        ..HranaOptions::default()
    };
    let server = Arc::new(Server::with_options(options).await);
    server.execute("CREATE TABLE t(v)").await.unwrap();
    let left = Arc::new(AtomicUsize::new(PUSHERS * 4));
    let tasks: Vec<_> = (0..PUSHERS)
        .map(|_| {
            let (server, left, steps) = (server.clone(), left.clone(), steps.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while left
                    .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
                    .is_ok()
                {
                    let given = server.batch(&steps).await;
                    assert_eq!(given["step_errors"], json!([null, null, null]));
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    let (least, most) = (done.iter().min().unwrap(), done.iter().max().unwrap());
    assert!(*most < 2 * least, "{done:?}");
}

/// Was red: with 256 transactions of one client open, every request of everybody was refused.
#[tokio::test]
async fn v4_idle_transactions_of_one_caller_keep_nobody_from_one_shot_requests_or_transactions() {
    let options = HranaOptions {
        batons: 8,
        caller_batons: 4,
        ..HranaOptions::default()
    };
    let tokens = ["hog", "honest"].map(|token| Box::new(StaticToken::new(token, Access::Full)) as Box<_>);
    let server = Server::start_with(options, AnyOf(tokens.into())).await;
    let begin = json!({"requests": [execute("BEGIN")]});
    let mut held = 0;
    for _ in 0..8 {
        let (status, answer) = server.send("/v2/pipeline", Some("hog"), &begin).await;
        assert_eq!(status, 200);
        match outcome(&answer["results"][0]) {
            Ok(_) => held += 1,
            Err(error) => assert_eq!(error["code"], "TOO_MANY_STREAMS"),
        }
    }
    assert_eq!(held, 4);
    let one_shot = json!({"requests": [
        execute("BEGIN IMMEDIATE"), execute("CREATE TABLE IF NOT EXISTS t(v)"), execute("COMMIT"), execute("SELECT 1")
    ]});
    for token in ["hog", "honest"] {
        let (status, answer) = server.send("/v2/pipeline", Some(token), &one_shot).await;
        assert_eq!(status, 200);
        for result in answer["results"].as_array().unwrap() {
            outcome(result).unwrap();
        }
    }
    for _ in 0..4 {
        let (_, answer) = server.send("/v2/pipeline", Some("honest"), &begin).await;
        outcome(&answer["results"][0]).unwrap();
    }
}

/// Was red: writers that waited for another one took all the turns of their caller, and its reads waited with them.
#[tokio::test]
async fn v14_reads_do_not_wait_for_writers_that_wait() {
    let options = HranaOptions {
        concurrent_requests: 2,
        busy_timeout: Duration::from_secs(600),
        statement_timeout: Duration::from_secs(600),
        baton_idle: Duration::from_secs(600),
        ..HranaOptions::default()
    };
    let server = Arc::new(Server::with_options(options).await);
    server.execute("CREATE TABLE t(v)").await.unwrap();
    let open = server.pipeline(None, json!([execute("BEGIN IMMEDIATE")])).await;
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move { server.execute("INSERT INTO t VALUES (1)").await })
        })
        .collect();
    for _ in 0..50 {
        assert_eq!(server.column("SELECT count(*) FROM t").await[0]["value"], "0");
    }
    let commit = json!([execute("COMMIT"), {"type": "close"}]);
    server.pipeline(open["baton"].as_str(), commit).await;
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    assert_eq!(server.column("SELECT count(*) FROM t").await[0]["value"], "8");
}

/// A body that tells whether anybody still has it.
struct Watched(
    Vec<u8>,
    #[expect(dead_code, reason = "dropped with the body")] Arc<()>,
);

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Was red: it waited for its turn all the same, with its body in memory, which counted no more.
#[tokio::test]
async fn v2_a_request_whose_client_goes_away_before_its_turn_leaves_nothing_behind() {
    let server = Server::with_options(HranaOptions {
        concurrent_requests: 1,
        ..HranaOptions::default()
    })
    .await;
    let answer = |sql: &str, watch: Arc<()>| {
        let body = json!({"requests": [execute(sql)]}).to_string().into_bytes();
        let request = Request::post("/v2/pipeline").body(Bytes::from_owner(Watched(body, watch)));
        let caller = Caller {
            access: Access::ReadOnly,
            id: CallerId::of_token("a"),
        };
        server
            .hrana
            .answer(server.database.clone(), caller, request.unwrap())
    };
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let mut runs = answer(endless, Arc::default());
    assert!((&mut runs).now_or_never().is_none());
    let watch = Arc::new(());
    let mut waits = answer("SELECT 1", watch.clone());
    assert!((&mut waits).now_or_never().is_none());
    drop(waits);
    assert_eq!(Arc::strong_count(&watch), 1);
    drop(runs);
    assert_eq!(answer("SELECT 1", watch).await.status(), 200);
}

/// Was red in the queue's first version: it would have waited for its turn to be refused.
#[tokio::test]
async fn v14_who_may_not_write_does_not_queue() {
    let options = HranaOptions {
        busy_timeout: Duration::from_millis(20),
        ..HranaOptions::default()
    };
    let tokens = [("reader", Access::ReadOnly), ("writer", Access::Full)];
    let tokens = tokens.map(|(token, access)| Box::new(StaticToken::new(token, access)) as Box<_>);
    let server = Server::start_with(options, AnyOf(tokens.into())).await;
    let begin = json!({"requests": [execute("BEGIN IMMEDIATE")]});
    let (_, answer) = server.send("/v2/pipeline", Some("writer"), &begin).await;
    outcome(&answer["results"][0]).unwrap();
    let (_, answer) = server.send("/v2/pipeline", Some("reader"), &begin).await;
    assert_eq!(
        outcome(&answer["results"][0]).unwrap_err()["code"],
        "SQLITE_READONLY"
    );
}

/// A served file with a small limit for the WAL, and a client.
struct Served {
    hrana: Hrana,
    url: String,
    client: reqwest::Client,
    _handle: partial_sync_server::ServerHandle,
    folder: tempfile::TempDir,
}

impl Served {
    async fn start() -> Self {
        Self::with_grace(Duration::ZERO).await
    }

    async fn with_grace(read_grace: Duration) -> Self {
        Self::with(HranaOptions {
            read_grace,
            ..HranaOptions::default()
        })
        .await
    }

    async fn with(options: HranaOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hrana = Hrana::new(HranaOptions {
            wal_bytes: 1 << 20,
            baton_idle: Duration::from_secs(3600),
            transaction_timeout: Duration::from_secs(3600),
            statement_timeout: Duration::from_secs(3600),
            request_timeout: Duration::from_secs(3600),
            ..options
        });
        let tokens = [("writer", Access::Full), ("reader", Access::ReadOnly)];
        let tokens = tokens.map(|(token, access)| Box::new(StaticToken::new(token, access)) as Box<_>);
        let builder = partial_sync_server::Server::builder(folder.path().join("served.db"))
            .authenticator(AnyOf(tokens.into()))
            .sql(hrana.clone());
        let handle = builder.listen("127.0.0.1:0").await.unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            hrana,
            url: format!("{}/v2/pipeline", handle.url()),
            client: reqwest::Client::new(),
            _handle: handle,
            folder,
        }
    }

    async fn send(&self, baton: Option<&str>, requests: Value) -> (u16, Value) {
        self.send_as("writer", baton, requests).await
    }

    async fn send_as(&self, token: &str, baton: Option<&str>, requests: Value) -> (u16, Value) {
        let body = json!({"baton": baton, "requests": requests}).to_string();
        let request = self
            .client
            .post(&self.url)
            .bearer_auth(token)
            .header("content-type", "application/json");
        let response = request.body(body).send().await.unwrap();
        let status = response.status().as_u16();
        (
            status,
            serde_json::from_str(&response.text().await.unwrap()).unwrap(),
        )
    }

    async fn write(&self) {
        let insert = execute("INSERT INTO t VALUES (randomblob(65536))");
        let (_, answer) = self.send(None, json!([insert, {"type": "close"}])).await;
        outcome(&answer["results"][0]).unwrap();
    }
}

/// Was red: a transaction that only reads kept the WAL growing for 300 seconds, and the next one again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v13_a_transaction_that_keeps_the_wal_from_being_emptied_is_ended_and_its_client_is_told() {
    let server = Served::start().await;
    server
        .send(None, json!([execute("CREATE TABLE t(v)"), {"type": "close"}]))
        .await;
    let (_, open) = server
        .send(None, json!([execute("BEGIN"), execute("SELECT count(*) FROM t")]))
        .await;
    let (_, idle) = server.send(None, json!([execute("BEGIN")])).await;
    let mut batons = server.hrana.watch_batons();
    assert_eq!(*batons.borrow(), 2);
    let ended = batons.wait_for(|open| *open == 1);
    tokio::select! {
        ended = ended => drop(ended.unwrap()),
        () = async { loop { server.write().await } } => {}
    }
    let last = json!([execute("SELECT count(*) FROM t"), {"type": "close"}]);
    let (status, answer) = server.send(open["baton"].as_str(), last.clone()).await;
    assert_eq!((status, &answer["code"]), (400, &json!("SNAPSHOT_TOO_OLD")));
    let (_, answer) = server.send(idle["baton"].as_str(), last).await;
    outcome(&answer["results"][0]).expect("a transaction that has not read yet holds nothing");
    assert_eq!(server.hrana.open_batons(), 0);
}

/// Was red: 723 MB. No read was old enough to be ended, and there always was one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v13_short_reads_that_overlap_all_the_time_do_not_keep_the_wal_from_being_emptied() {
    let server = Arc::new(Served::with_grace(Duration::from_secs(60)).await);
    server
        .send(None, json!([execute("CREATE TABLE t(v)"), {"type": "close"}]))
        .await;
    let reads = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..12)
        .map(|n| {
            let (server, reads) = (Arc::clone(&server), Arc::clone(&reads));
            tokio::spawn(async move {
                let begin = json!([execute("BEGIN"), execute("SELECT count(*) FROM t")]);
                let end = json!([execute("SELECT count(*) FROM t"), execute("COMMIT"), {"type": "close"}]);
                loop {
                    let (_, opened) = server.send(None, begin.clone()).await;
                    tokio::time::sleep(Duration::from_millis(20 + 5 * n)).await;
                    let (_, ended) = server.send(opened["baton"].as_str(), end.clone()).await;
                    outcome(&ended["results"][1]).expect("a short read is not ended");
                    reads.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    let wal = server.folder.path().join("served.db-wal");
    let mut most = 0;
    for _ in 0..400 {
        server.write().await;
        most = most.max(std::fs::metadata(&wal).map_or(0, |wal| wal.len()));
    }
    readers.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(reads.load(SeqCst) > 100, "{reads:?} reads");
    assert!(
        most < 8 << 20,
        "{most} bytes in the WAL of 26 MB that were written"
    );
}

/// Was red: a stream between two transactions had the turn that a read needed to end, for which it waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v13_who_waits_for_room_in_the_wal_has_no_turn_that_others_need_to_make_it() {
    let server = Arc::new(
        Served::with(HranaOptions {
            read_grace: Duration::from_secs(3600),
            concurrent_requests: 1,
            caller_requests: 1,
            ..HranaOptions::default()
        })
        .await,
    );
    let close = json!([execute("CREATE TABLE t(v)"), {"type": "close"}]);
    server.send(None, close).await;
    let (_, between) = server.send_as("reader", None, json!([execute("SELECT 1")])).await;
    let begin = json!([execute("BEGIN"), execute("SELECT count(*) FROM t")]);
    let (_, open) = server.send_as("reader", None, begin).await;
    let mut batons = server.hrana.watch_batons();
    assert_eq!(*batons.borrow_and_update(), 2);
    let wal = server.folder.path().join("served.db-wal");
    while std::fs::metadata(&wal).unwrap().len() <= (1 << 20) + 32 {
        server.write().await;
    }
    let next = {
        let (server, between) = (Arc::clone(&server), between["baton"].as_str().unwrap().to_owned());
        let next = json!([execute("SELECT count(*) > 10 FROM t"), {"type": "close"}]);
        tokio::spawn(async move { server.send_as("reader", Some(&between), next).await })
    };
    // Until it has taken its stream; it does not before there is room.
    let _ = tokio::time::timeout(Duration::from_secs(1), batons.changed()).await;
    let end = json!([execute("COMMIT"), {"type": "close"}]);
    let ended = server.send_as("reader", open["baton"].as_str(), end);
    let (status, ended) = tokio::time::timeout(Duration::from_secs(60), ended)
        .await
        .expect("it is not kept from ending");
    assert_eq!(status, 200);
    outcome(&ended["results"][0]).unwrap();
    let (status, next) = next.await.unwrap();
    assert_eq!(status, 200);
    outcome(&next["results"][0]).unwrap();
}

/// Was red: every transaction waited until the reads were old enough to be ended, as often as so much had been written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v13_who_writes_does_not_wait_until_reads_that_pin_the_wal_are_old_enough_to_be_ended() {
    let server = Served::with_grace(Duration::from_secs(3600)).await;
    let close = json!([execute("CREATE TABLE t(v)"), {"type": "close"}]);
    server.send(None, close).await;
    let begin = json!([execute("BEGIN"), execute("SELECT count(*) FROM t")]);
    let (_, open) = server.send_as("reader", None, begin).await;
    let wal = server.folder.path().join("served.db-wal");
    let writes = async {
        while std::fs::metadata(&wal).unwrap().len() < 3 << 19 {
            server.write().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), writes)
        .await
        .expect("none of the writes waits");
    // And the read has not been ended.
    let end = json!([execute("SELECT count(*) FROM t"), execute("COMMIT"), {"type": "close"}]);
    let (_, ended) = server.send_as("reader", open["baton"].as_str(), end).await;
    outcome(&ended["results"][0]).unwrap();
}

/// Another program's read cannot be ended: the others do not wait for it again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v13_a_read_of_another_program_that_pins_the_wal_is_waited_for_as_often_as_the_wal_doubles() {
    let server = Served::start().await;
    server
        .send(None, json!([execute("CREATE TABLE t(v)"), {"type": "close"}]))
        .await;
    server.write().await;
    let mut sqlite = Command::new("sqlite3")
        .arg(server.folder.path().join("served.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(sqlite.stdout.take().unwrap()).lines();
    let mut input = sqlite.stdin.take().unwrap();
    input.write_all(b"BEGIN;\nSELECT count(*) FROM t;\n").unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "1");
    // From 1 MiB to 6.5 MiB it doubles twice or three times. A wait before each write would take three minutes.
    let writes = async {
        for _ in 0..100 {
            server.write().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), writes)
        .await
        .expect("few of the writes wait");
    drop(input);
    sqlite.wait().unwrap();
}

/// The same for a statement that runs; what follows it in its request must not run outside of its transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v13_a_statement_that_keeps_the_wal_from_being_emptied_is_ended_and_nothing_runs_after_it() {
    let server = Served::start().await;
    server
        .send(None, json!([execute("CREATE TABLE t(v)"), {"type": "close"}]))
        .await;
    let endless = "WITH RECURSIVE n(i) AS (SELECT count(*) FROM t UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let requests = json!([
        execute("BEGIN"), execute(endless), execute("DELETE FROM t"), {"type": "sequence", "sql": "DELETE FROM t; COMMIT"}
    ]);
    let (status, answer) = tokio::select! {
        answer = server.send(None, requests) => answer,
        () = async { loop { server.write().await } } => unreachable!(),
    };
    assert_eq!(status, 200);
    outcome(&answer["results"][0]).unwrap();
    for result in &answer["results"].as_array().unwrap()[1..] {
        assert_eq!(outcome(result).unwrap_err()["code"], "SNAPSHOT_TOO_OLD");
    }
    let (status, answer) = server.send(answer["baton"].as_str(), json!([])).await;
    assert_eq!((status, &answer["code"]), (400, &json!("SNAPSHOT_TOO_OLD")));
    let (_, answer) = server
        .send(
            None,
            json!([execute("SELECT count(*) > 10 FROM t"), {"type": "close"}]),
        )
        .await;
    assert_eq!(
        answer["results"][0]["response"]["result"]["rows"][0][0]["value"],
        "1"
    );
}

/// Was red: it waited as long as another program's read might have been in the way, for a file that nobody could read any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v13_who_waits_for_room_in_the_wal_waits_no_longer_than_there_is_a_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("followed.db");
    let [writer, reader] = [(); 2].map(|()| rusqlite::Connection::open(&path).unwrap());
    writer
        .query_row("PRAGMA journal_mode = wal", [], |_| Ok(()))
        .unwrap();
    writer.execute_batch("CREATE TABLE t(v)").unwrap();
    reader.execute_batch("BEGIN").unwrap();
    reader
        .query_row("SELECT count(*) FROM t", [], |_| Ok(()))
        .unwrap();
    writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    let files = SourceFiles::open(&path).unwrap();
    let history = Arc::new(SqliteHistory::in_memory().unwrap());
    let follower = Arc::new(Follower::open(files, history, Clock::default()).unwrap());
    let waits = {
        let follower = Arc::clone(&follower);
        tokio::spawn(async move { follower.wait_for_room(0, Duration::from_secs(3600)).await })
    };
    follower.end().await;
    tokio::time::timeout(Duration::from_secs(60), waits)
        .await
        .expect("there is nothing to wait for")
        .unwrap();
}
