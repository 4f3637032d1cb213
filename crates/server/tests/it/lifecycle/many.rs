//! A folder of more databases than can be open at the same time.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use partial_sync_server::{Server, ServerHandle};
use partial_sync_transport::PagesRequest;
use rusqlite::Connection;
use serde_json::json;

use crate::pages::support::{Client, dump, insert};

/// A folder of databases `d0`, `d1`, ..., all with the same content.
fn folder(n: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let first = path(folder.path(), 0);
    let db = Connection::open(&first).unwrap();
    db.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
        .unwrap();
    insert(&db, 1, 3);
    drop(db);
    for i in 1..n {
        std::fs::copy(&first, path(folder.path(), i)).unwrap();
    }
    folder
}

fn path(folder: &Path, i: usize) -> PathBuf {
    folder.join(format!("d{i}.db"))
}

fn client(server: &ServerHandle, i: usize) -> Client {
    Client::new(&format!("{}/d{i}", server.url()))
}

/// The files of a folder that this process has open: how many descriptors, and of how many databases.
pub(super) fn open_files(folder: &Path) -> (usize, usize) {
    let (mut descriptors, mut databases) = (0, HashSet::new());
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else {
            continue;
        };
        if let Ok(name) = target.strip_prefix(folder) {
            descriptors += 1;
            let name = name.to_str().unwrap().split(".db").next().unwrap().to_owned();
            databases.insert(name);
        }
    }
    (descriptors, databases.len())
}

/// Was red: databases were never closed, and the 78th failed at 1,024 descriptors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v11_no_more_databases_are_open_than_allowed_and_none_is_forgotten() {
    let folder = folder(120);
    let server = Server::builder(folder.path())
        .open_databases(10)
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let mut revisions = Vec::new();
    for i in 0..120 {
        revisions.push(client(&server, i).latest().await.revision);
        let (descriptors, databases) = open_files(folder.path());
        assert!(databases <= 10, "{databases} after {i}");
        assert!(descriptors <= 10 * 14, "{descriptors} after {i}");
    }
    // Each continues where it was.
    for (i, revision) in revisions.iter().enumerate() {
        insert(&Connection::open(path(folder.path(), i)).unwrap(), 10, 2);
        let changes = client(&server, i).since(revision).await.unwrap();
        assert!(!changes.pages.is_empty() && changes.revision != *revision);
    }
    server.shutdown().await;
    assert_eq!(open_files(folder.path()).1, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v11_what_is_in_use_is_not_closed() {
    let folder = folder(12);
    let server = Server::builder(folder.path())
        .open_databases(2)
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    // A transaction in the first, a long poll on the second.
    let url = format!("{}/d0/v2/pipeline", server.url());
    let http = client(&server, 0).http;
    let sql = async |baton: serde_json::Value, sql: &str| {
        let body = json!({"baton": baton, "requests": [{"type": "execute", "stmt": {"sql": sql}}]});
        let answer = http
            .post(&url)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send();
        let text = answer.await.unwrap().text().await.unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let open = sql(serde_json::Value::Null, "BEGIN").await;
    let open = sql(open["baton"].clone(), "INSERT INTO t(v) VALUES (1)").await;
    let polled = client(&server, 1);
    let before = polled.latest().await;
    let poll = PagesRequest {
        since: Some(before.revision.clone()),
        long_poll: Some(Duration::from_secs(300)),
        ..PagesRequest::default()
    };
    let waiting = tokio::spawn(async move { polled.ask(poll).await });
    for i in 2..12 {
        client(&server, i).latest().await;
    }
    let done = sql(open["baton"].clone(), "COMMIT").await;
    assert_eq!(done["results"][0]["type"], "ok", "{done}");
    insert(&Connection::open(path(folder.path(), 1)).unwrap(), 10, 1);
    let woken = waiting.await.unwrap().unwrap();
    assert_ne!(woken.revision, before.revision);
    assert_eq!(
        client(&server, 0).latest().await.whole(),
        dump(&path(folder.path(), 0))
    );
    server.shutdown().await;
}

/// Opening and closing meet: the same few names from many clients, with room for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn v11_a_database_is_opened_while_it_is_closed() {
    let folder = folder(4);
    let server = Server::builder(folder.path())
        .open_databases(1)
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let all: Vec<_> = (0..4).map(|i| client(&server, i)).collect();
        clients.spawn(async move {
            let mut seen = vec![None; all.len()];
            for round in 0..20 {
                let i = (worker * 7 + round * 3) % all.len();
                let answer = all[i].latest().await;
                let seen = seen[i].get_or_insert_with(|| answer.clone());
                assert_eq!(*seen, answer);
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    server.shutdown().await;
}

/// Names without a database behind them cost nothing; 600 that are asked for are served with 200 open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v11_ten_thousand_databases_of_which_two_hundred_are_in_use() {
    let folder = folder(600);
    for i in 600..10_000 {
        std::fs::write(path(folder.path(), i), "").unwrap();
    }
    let server = Server::builder(folder.path())
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    for i in 0..600 {
        client(&server, i).latest().await;
    }
    let (descriptors, databases) = open_files(folder.path());
    assert!(
        databases <= 200 && descriptors <= 200 * 14,
        "{databases}, {descriptors}"
    );
    server.shutdown().await;
    assert_eq!(open_files(folder.path()), (0, 0));
}

/// Was red: each left a descriptor, until another database was closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v11_databases_that_cannot_be_opened_and_those_that_are_replaced_leave_no_descriptors() {
    let folder = folder(40);
    let elsewhere = tempfile::tempdir().unwrap();
    for i in 0..20 {
        std::fs::hard_link(path(folder.path(), i), path(elsewhere.path(), i)).unwrap();
    }
    for i in 20..30 {
        std::fs::write(path(folder.path(), i), [7; 4096]).unwrap();
    }
    let server = Server::builder(folder.path())
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    for i in 0..30 {
        let refused = client(&server, i).ask(PagesRequest::default()).await;
        assert!(refused.is_err(), "{i}: {refused:?}");
    }
    assert_eq!(open_files(folder.path()), (0, 0));
    for i in 30..40 {
        client(&server, i).latest().await;
        std::fs::rename(path(folder.path(), i), path(elsewhere.path(), i)).unwrap();
        std::fs::copy(path(elsewhere.path(), 0), path(folder.path(), i)).unwrap();
    }
    // Each is found to be another file, and is let go of.
    let gone = async {
        while open_files(folder.path()).0 + open_files(elsewhere.path()).0 > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(20), gone).await;
    assert!(
        gone.is_ok(),
        "{:?} {:?}",
        open_files(folder.path()),
        open_files(elsewhere.path())
    );
    server.shutdown().await;
}

const CHILD: &str = "PARTIAL_SYNC_TEST_SERVE_FOLDER";

/// A process that serves a folder with so many descriptors, and its url.
fn serve_with(descriptors: u32, folder: &Path) -> (Child, String) {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "ulimit -n {descriptors}; \
             exec \"$0\" --exact lifecycle::many::the_child_process_serves_a_folder --nocapture"
        ))
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines
        .map(Result::unwrap)
        .find_map(|line| Some(line.split_once("serving at ")?.1.to_owned()));
    (child, url.expect("the child says where it serves"))
}

/// Was red: each transaction kept a database open, until no file could be opened any more, by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v11_transactions_in_many_databases_keep_no_other_one_closed() {
    let folder = folder(60);
    let (mut child, url) = serve_with(400, folder.path());
    let http = Client::new(&url).http;
    let begin = json!({"requests": [
        {"type": "execute", "stmt": {"sql": "BEGIN"}}, {"type": "execute", "stmt": {"sql": "SELECT * FROM t"}}
    ]});
    for round in 0..2 {
        for i in 0..60 {
            let begins = http.post(format!("{url}/d{i}/v2/pipeline"));
            let begins = begins.header("content-type", "application/json");
            let answer = begins.body(begin.to_string()).send().await.unwrap();
            assert_eq!(answer.status(), 200, "database {i}, round {round}");
            let honest = Client::new(&format!("{url}/d0"));
            let answer = honest.ask(PagesRequest::default()).await;
            assert!(answer.is_ok(), "with {i} transactions, round {round}: {answer:?}");
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Was red: the 78th database could not be opened, nor could any after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v11_when_descriptors_are_short_unused_databases_make_room() {
    let folder = folder(60);
    let (mut child, url) = serve_with(300, folder.path());
    for round in 0..2 {
        for i in 0..60 {
            let answer = Client::new(&format!("{url}/d{i}"))
                .ask(PagesRequest::default())
                .await;
            assert!(answer.is_ok(), "database {i}, round {round}: {answer:?}");
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_child_process_serves_a_folder() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let server = Server::builder(path).start_blocking("127.0.0.1:0").unwrap();
    println!("\nserving at {}", server.url());
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}
