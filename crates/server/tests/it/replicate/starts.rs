//! Starts: of a new log, after a clean end, after a kill at any request, and those that are refused.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use bytes::Bytes;
use parking_lot::Mutex;
use partial_sync_core::Revision;
use partial_sync_server::{Server, ServerBuilder, ServerError, history::SqliteHistory};
use partial_sync_vfs::side_file_path;

use super::support::{
    TestStore, Weather, assert_same, copy_of, database_in, id_of, replication, serve, serve_async, sql,
    try_serve,
};
use crate::pages::support::{Client, TestDb, dump, shell};

const INSERT: &str = "INSERT INTO t(v) VALUES (randomblob(2000))";

/// What a server says is what is in the bucket: its latest state; every state that it has, from `first` on; and what changed since each.
async fn check(url: &str, path: &Path, store: &TestStore, first: &Revision) {
    let client = Client::new(url);
    let latest = client.latest().await;
    let (id, pages) = database_in(store, None).await;
    assert_eq!(id_of(&latest.revision), id);
    assert_same(&latest.whole(), &pages, "the bucket");
    assert_same(&latest.whole(), &dump(path), "the file");
    let (lineage, _) = latest.revision.as_str().split_once('-').unwrap();
    for id in id_of(first)..=id {
        let revision = Revision::new(format!("{lineage}-{id}")).unwrap();
        let (found, pages) = database_in(store, Some(id)).await;
        // Only what the snapshot began with has no file of its own.
        assert!(found == id || id == id_of(first));
        if let Ok(answer) = client.at(&revision).await {
            assert_same(&answer.whole(), &pages, id);
        }
        let changed = client.since(&revision).await.unwrap();
        let mut whole: Vec<Bytes> = pages;
        whole.resize(latest.size as usize, Bytes::new());
        for (page, bytes) in changed.pages {
            whole[page as usize] = bytes;
        }
        assert_same(&whole, &latest.whole(), format_args!("since {id}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revisions_from_before_the_replication_go_on_and_so_they_do_after_restarts() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let plain = client.latest().await;
    sql(&client, INSERT).await.unwrap();
    server.shutdown().await;

    let server = serve(&db.path, &store).await;
    let client = Client::new(&server.url());
    let mut whole = plain.pages.clone();
    whole.extend(client.since(&plain.revision).await.unwrap().pages);
    let first = client.latest().await;
    assert!(whole.into_values().eq(first.whole()));
    check(&server.url(), &db.path, &store, &first.revision).await;
    server.shutdown().await;

    // Nothing happened meanwhile: a fence, and no page is compared.
    let (all, puts) = (store.all.load(SeqCst), store.puts.load(SeqCst));
    let server = serve(&db.path, &store).await;
    let client = Client::new(&server.url());
    let requests = (store.all.load(SeqCst) - all, store.puts.load(SeqCst) - puts);
    assert_eq!(requests, (15, 2));
    let latest = client.latest().await;
    assert_eq!(id_of(&latest.revision), id_of(&first.revision) + 1);
    assert!(client.since(&first.revision).await.unwrap().pages.is_empty());
    server.shutdown().await;

    // Somebody else wrote: a fence, and what he wrote.
    shell(&db.path, "UPDATE t SET v = randomblob(1500)");
    let server = serve(&db.path, &store).await;
    check(&server.url(), &db.path, &store, &first.revision).await;
    assert_eq!(database_in(&store, None).await.0, id_of(&latest.revision) + 2);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_that_is_cut_off_at_any_request_is_begun_again() {
    for cut in 0.. {
        let (db, store) = (TestDb::new(), TestStore::new());
        db.open().execute_batch(INSERT).unwrap();
        store.cut_after(cut);
        let started = try_serve(&db.path, &store).await;
        let was_cut = started.is_err();
        if let Ok(server) = started {
            server.shutdown().await;
        }
        if cut % 2 == 0 {
            store.let_late_arrive().await;
        }
        store.mend();
        shell(&db.path, "UPDATE t SET v = randomblob(1500)");
        let server = serve(&db.path, &store).await;
        let first = Client::new(&server.url()).latest().await;
        store.let_late_arrive().await;
        check(&server.url(), &db.path, &store, &first.revision).await;
        server.shutdown().await;
        if !was_cut {
            assert!(cut > 5, "{cut}");
            return;
        }
    }
}

/// A server with an answered commit and one that is on its way is killed; the next one is cut off at a request, as often as asked; what
/// was on its way arrives before, in between, or never.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_by_a_kill_at_any_request_whatever_arrives_late() {
    let mut whole_start = false;
    for cut in 0..60 {
        for (arrives, cuts) in [(0, 1), (1, 1), (2, 2), (9, 3)] {
            let (db, store) = (TestDb::new(), TestStore::new());
            let server = serve_async(&db.path, &store).await;
            let client = Client::new(&server.url());
            sql(&client, INSERT).await.unwrap();
            let first = client.latest().await;
            store.cut_after(0);
            // One that is on its way, with pages that nobody else changes, and one that is not yet.
            sql(&client, "CREATE TABLE u AS SELECT randomblob(3000) AS v")
                .await
                .unwrap();
            client.ask(Default::default()).await.unwrap_err();
            sql(&client, "UPDATE t SET v = randomblob(1800)").await.unwrap();
            let copy = db.path.with_file_name("copy.db");
            copy_of(&db.path, &copy);
            server.shutdown().await;

            let mut was_cut = false;
            for n in 0..cuts {
                if arrives == n {
                    store.let_late_arrive().await;
                }
                store.mend();
                store.cut_after(cut);
                // What a kill at this moment leaves.
                let next = copy.with_file_name(format!("copy{n}.db"));
                let started = try_serve(&copy, &store).await;
                copy_of(&copy, &next);
                was_cut |= started.is_err();
                if let Ok(server) = started {
                    server.shutdown().await;
                }
                copy_of(&next, &copy);
                shell(&copy, "INSERT INTO t(v) VALUES (randomblob(100))");
            }
            store.mend();
            let server = serve(&copy, &store).await;
            store.let_late_arrive().await;
            check(&server.url(), &copy, &store, &first.revision).await;
            sql(&Client::new(&server.url()), INSERT).await.unwrap();
            check(&server.url(), &copy, &store, &first.revision).await;
            server.shutdown().await;
            whole_start |= !was_cut;
        }
        if whole_start {
            return;
        }
    }
    panic!("a start has more requests than are cut");
}

async fn is_refused(path: &Path, store: &Arc<TestStore>) -> String {
    let (before, _) = database_in(store, None).await;
    let refused = try_serve(path, store).await.unwrap_err();
    let is_so = matches!(refused, ServerError::OtherLog { .. } | ServerError::NoFile { .. });
    assert!(is_so, "{refused}");
    assert_eq!(before, database_in(store, None).await.0);
    refused.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_does_not_continue_the_log_is_refused_and_changes_nothing() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let server = serve(&db.path, &store).await;
    let client = Client::new(&server.url());
    sql(&client, INSERT).await.unwrap();
    server.shutdown().await;
    let old = db.path.with_file_name("old.db");
    copy_of(&db.path, &old);
    let plain = db.path.with_file_name("plain.db");
    copy_of(&db.path, &plain);
    let server = serve(&db.path, &store).await;
    let client = Client::new(&server.url());
    for _ in 0..2 {
        sql(&client, INSERT).await.unwrap();
    }
    server.shutdown().await;
    let is = |text: String, part: &str| assert!(text.contains(part), "{text}");
    is(is_refused(&TestDb::new().path, &store).await, "is not a copy");
    // One whose history is gone.
    let bare = db.path.with_file_name("bare.db");
    std::fs::copy(&db.path, &bare).unwrap();
    is(is_refused(&bare, &store).await, "is not a copy");
    // One from a backup.
    is(is_refused(&old, &store).await, "another server has written");
    let server = Server::builder(&plain).listen("127.0.0.1:0").await.unwrap();
    sql(&Client::new(&server.url()), INSERT).await.unwrap();
    server.shutdown().await;
    is_refused(&plain, &store).await;
    // And where nothing is: the url may be wrong, and the file would lose its log.
    let empty = TestStore::new();
    is(is_refused(&db.path, &empty).await, "in another place");
    // The one that does is not.
    let server = serve(&db.path, &store).await;
    sql(&Client::new(&server.url()), INSERT).await.unwrap();
    assert_same(&database_in(&store, None).await.1, &dump(&db.path), "the bucket");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_file_is_not_taken_for_an_empty_database_and_is_made_by_a_takeover() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let old = serve(&db.path, &store).await;
    let of_old = Client::new(&old.url());
    for _ in 0..20 {
        sql(&of_old, INSERT).await.unwrap();
    }
    let before = of_old.latest().await;
    let pages = dump(&db.path);

    // What is beside it is there still, and knows the log.
    let lost = db.path.with_file_name("lost.db");
    copy_of(&db.path, &lost);
    std::fs::remove_file(&lost).unwrap();
    for _ in 0..2 {
        let text = is_refused(&lost, &store).await;
        assert!(text.contains("--take-over"), "{text}");
    }
    std::fs::write(&lost, "").unwrap();
    is_refused(&lost, &store).await;

    // Nor are commits that a WAL has which was left thrown away.
    let wal = lost.with_file_name("lost.db-wal");
    assert!(std::fs::metadata(&wal).unwrap().len() > 0);
    let taken = replication(&store).take_over(true);
    let refused = Server::builder(&lost)
        .replicate(taken)
        .listen("127.0.0.1:0")
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, ServerError::Leftover { path } if *path == wal),
        "{refused}"
    );
    std::fs::remove_file(&wal).unwrap();

    // Cut off anywhere, it is done again.
    let mut cut = 0;
    let new = loop {
        store.cut_after(cut);
        let taken = replication(&store).take_over(true);
        let server = Server::builder(&lost)
            .replicate(taken.clone())
            .listen("127.0.0.1:0")
            .await;
        store.mend();
        match server {
            Ok(server) => break server,
            Err(error) if cut > 300 => panic!("{error}"),
            // Each try leaves a fence, which is one more file to read.
            Err(_) => cut += 3,
        }
    };
    assert!(cut > 8, "{cut}");
    let of_new = Client::new(&new.url());
    let latest = of_new.latest().await;
    assert_same(&latest.whole(), &pages, "restored");
    // A replica of the old one continues.
    assert!(
        of_new
            .since(&before.revision)
            .await
            .is_ok_and(|since| since.pages.is_empty())
    );
    assert_eq!(sql(&of_old, INSERT).await.unwrap_err(), "DATABASE_TAKEN_OVER");
    sql(&of_new, INSERT).await.unwrap();
    check(&new.url(), &lost, &store, &latest.revision).await;
    new.shutdown().await;
    old.shutdown().await;
    let new = serve(&lost, &store).await;
    check(&new.url(), &lost, &store, &latest.revision).await;
    new.shutdown().await;
}

fn taking_over(path: &Path, store: &Arc<TestStore>) -> ServerBuilder {
    Server::builder(path).replicate(replication(store).take_over(true))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_takeovers_at_one_path_one_is_refused_before_it_does_anything() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let old = serve(&db.path, &store).await;
    let first = Client::new(&old.url()).latest().await;
    let path = db.path.with_file_name("new.db");
    store.set(Weather::Held);
    let one = tokio::spawn(taking_over(&path, &store).listen("127.0.0.1:0"));
    store.until_waiting(1).await;
    let refused = tokio::select! {
        other = taking_over(&path, &store).listen("127.0.0.1:0") => other.err(),
        () = store.until_waiting(2) => None,
    };
    store.set(Weather::Fine);
    assert!(matches!(refused, Some(ServerError::InUse { .. })), "{refused:?}");
    let one = one.await.unwrap().unwrap();
    check(&one.url(), &path, &store, &first.revision).await;
    one.shutdown().await;
    old.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_whose_page_history_is_not_written_back_is_done_again() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let old = serve(&db.path, &store).await;
    let first = Client::new(&old.url()).latest().await;
    let path = db.path.with_file_name("new.db");
    // Somebody who has it open: SQLite leaves the WAL as it is.
    let open = Arc::new(Mutex::new(None));
    let others = Arc::clone(&open);
    let server = taking_over(&path, &store).history(move |path| {
        let history = SqliteHistory::open(path)?;
        if path.to_string_lossy().ends_with("-adopted") {
            let reader = rusqlite::Connection::open(side_file_path(path, "-history")).unwrap();
            reader
                .query_row("SELECT count(*) FROM meta", [], |_| Ok(()))
                .unwrap();
            *others.lock() = Some(reader);
        }
        Ok(Arc::new(history))
    });
    server.listen("127.0.0.1:0").await.unwrap_err();
    drop(open.lock().take());
    let new = taking_over(&path, &store).listen("127.0.0.1:0").await.unwrap();
    check(&new.url(), &path, &store, &first.revision).await;
    new.shutdown().await;
    old.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_that_cannot_have_a_file_takes_nothing_over() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let old = serve(&db.path, &store).await;
    // Its lock cannot be made.
    let path = db.path.with_file_name("new.db");
    std::fs::create_dir(db.path.with_file_name("new.db-lock")).unwrap();
    taking_over(&path, &store)
        .listen("127.0.0.1:0")
        .await
        .unwrap_err();
    sql(&Client::new(&old.url()), INSERT).await.unwrap();
    old.shutdown().await;
}
