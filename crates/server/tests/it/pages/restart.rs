//! What a server finds when it starts again: clients continue from the revision they have.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use partial_sync_server::Server;
use partial_sync_transport::{HttpRemote, PagesRequest, Remote};

use super::support::{Client, TestDb, dump, ids, insert, shell};

fn history_of(db: &TestDb) -> std::path::PathBuf {
    db.path.with_file_name("app.db-history")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_changes_goes_on_with_the_same_revisions_and_compares_no_page() {
    let db = TestDb::new();
    let writer = db.open();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let old = client.latest().await;
    insert(&writer, 1, 100);
    let latest = client.latest().await;
    drop(writer);
    server.shutdown().await;
    // Were pages compared with these hashes, every one of them would seem to have changed.
    let history = rusqlite::Connection::open(history_of(&db)).unwrap();
    history
        .execute_batch("UPDATE hashes SET hash = hash + 1")
        .unwrap();
    drop(history);
    let server = db.serve().await;
    let client = Client::new(&server.url());
    assert_eq!(client.latest().await, latest);
    assert_eq!(client.at(&old.revision).await.unwrap(), old);
    assert!(!client.since(&old.revision).await.unwrap().pages.is_empty());
    server.shutdown().await;
}

/// After `stop`, 50 rows are changed by somebody else, and the server is started again.
async fn changes_while_stopped_are_found(db: &TestDb, url: &str, stop: impl AsyncFnOnce()) {
    let client = Client::new(url);
    let before = client.latest().await;
    stop().await;
    shell(
        &db.path,
        "UPDATE t SET v = randomblob(400) WHERE id BETWEEN 100 AND 149",
    );
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let after = client.latest().await;
    assert_ne!(after.revision, before.revision);
    assert_eq!(after.whole(), dump(&db.path));
    let differ: Vec<u32> = (0..after.size)
        .filter(|id| before.pages.get(id) != after.pages.get(id))
        .collect();
    // Asked first, so that it is the one to have pages compared, and asked of the file.
    let list = PagesRequest {
        since: Some(before.revision.clone()),
        list: true,
        ..PagesRequest::default()
    };
    let remote = HttpRemote::builder(server.url()).build().unwrap();
    let listed = remote.pages(list).await.unwrap().header;
    assert_eq!(listed.revision, after.revision);
    assert!(listed.listed.unwrap().iter().eq(differ.iter().copied()));
    assert_eq!(client.since(&before.revision).await.unwrap().ids(), differ);
    // Nobody saw what the changed pages were; the others are as they were.
    let same: Vec<u32> = (0..before.size).filter(|id| !differ.contains(id)).collect();
    let pick = |select: Vec<u32>| PagesRequest {
        revision: Some(before.revision.clone()),
        select: ids(select),
        ..PagesRequest::default()
    };
    assert_eq!(client.ask(pick(same.clone())).await.unwrap().ids(), same);
    for lost in [vec![differ[0]], (0..before.size).collect()] {
        let refused = client.ask(pick(lost)).await.unwrap_err();
        assert_eq!(
            (refused.status, refused.code.as_str()),
            (410, "REVISION_EXPIRED"),
            "{}",
            refused.message
        );
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_made_while_the_server_was_stopped_are_one_new_revision() {
    let db = TestDb::new();
    insert(&db.open(), 1, 1000);
    let server = db.serve().await;
    let url = server.url();
    changes_while_stopped_are_found(&db, &url, async || server.shutdown().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_made_after_a_kill_are_one_new_revision() {
    let db = TestDb::new();
    insert(&db.open(), 1, 1000);
    let mut server = spawn(&db);
    let url = server.url.clone();
    shell(
        &db.path,
        "UPDATE t SET v = randomblob(400) WHERE id BETWEEN 10 AND 20",
    );
    changes_while_stopped_are_found(&db, &url, async || server.kill()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_was_answered_survives_a_kill() {
    let db = TestDb::new();
    insert(&db.open(), 1, 300);
    let mut states = Vec::new();
    for round in 0..4 {
        let mut server = spawn(&db);
        let client = Client::new(&server.url);
        for (revision, pages) in &states {
            assert_eq!(
                client.at(revision).await.unwrap().whole(),
                *pages,
                "round {round}"
            );
        }
        for _ in 0..3 {
            shell(
                &db.path,
                "UPDATE t SET v = randomblob(400) WHERE id % 50 = abs(random()) % 50",
            );
            let answer = client.latest().await;
            assert_eq!(answer.whole(), dump(&db.path));
            states.push((answer.revision.clone(), answer.whole()));
        }
        server.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_history_or_with_a_broken_one_the_server_starts_and_old_revisions_are_unknown() {
    let db = TestDb::new();
    insert(&db.open(), 1, 10);
    for ruin in [0, 1] {
        let server = db.serve().await;
        let old = Client::new(&server.url()).latest().await.revision;
        server.shutdown().await;
        match ruin {
            0 => std::fs::remove_file(history_of(&db)).unwrap(),
            _ => std::fs::write(history_of(&db), [7; 10_000]).unwrap(),
        }
        let server = db.serve().await;
        let client = Client::new(&server.url());
        let latest = client.latest().await;
        assert_eq!(latest.whole(), dump(&db.path));
        for refused in [
            client.at(&old).await.unwrap_err(),
            client.since(&old).await.unwrap_err(),
        ] {
            assert_eq!((refused.status, refused.code.as_str()), (400, "REVISION_UNKNOWN"));
        }
        server.shutdown().await;
    }
}

/// A server in a process of its own.
pub(crate) struct Spawned {
    child: Child,
    pub(crate) url: String,
}

impl Spawned {
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CHILD: &str = "PARTIAL_SYNC_TEST_SERVE";

pub(crate) fn spawn(db: &TestDb) -> Spawned {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "pages::restart::the_child_process_serves_until_it_is_killed",
            "--nocapture",
        ])
        .env(CHILD, &db.path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines
        .map(Result::unwrap)
        .find_map(|line| Some(line.split_once("serving at ")?.1.to_owned()));
    let url = url.expect("the child says where it serves");
    Spawned { child, url }
}

#[test]
fn the_child_process_serves_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let server = Server::builder(path).start_blocking("127.0.0.1:0").unwrap();
    println!("\nserving at {}", server.url());
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}
