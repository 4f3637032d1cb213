//! The file at the path of a database becomes another one while it is being served.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use partial_sync_server::{HistoryError, Server, ServerError, ServerHandle, history::SqliteHistory};
use partial_sync_transport::PagesRequest;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::pages::support::{Answer, Client, TestDb, dump, insert, pages_of, shell};

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// Another database with a table `t` of so many rows.
fn make(path: &Path, rows: i64) {
    shell(
        path,
        &format!(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
             WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO t SELECT i, randomblob(300) FROM n"
        ),
    );
}

/// The latest state, or the typed answer as long as nothing is in place.
async fn settled(client: &Client) -> Answer {
    for _ in 0..3 {
        match client.ask(PagesRequest::default()).await {
            Ok(answer) => return answer,
            Err(refused) => assert_eq!(refused.status, 503, "{refused:?}"),
        }
    }
    panic!("still refused");
}

/// What was before is unknown, by its typed code; what is there now is served, followed and sound.
async fn is_a_new_lineage(server: &ServerHandle, path: &Path, old: &Answer) {
    let client = Client::new(&server.url());
    let now = settled(&client).await;
    assert_eq!(now.whole(), dump(path));
    let life = |answer: &Answer| answer.revision.as_str().split('-').next().unwrap().to_owned();
    assert_ne!(life(&now), life(old));
    for refused in [client.since(&old.revision).await, client.at(&old.revision).await] {
        let refused = refused.unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (400, "REVISION_UNKNOWN"));
    }
    let db = Connection::open(path).unwrap();
    db.execute("INSERT INTO t(v) VALUES (randomblob(9000))", [])
        .unwrap();
    let after = client.latest().await;
    assert_eq!(after.whole(), dump(path));
    let changes = client.since(&now.revision).await.unwrap();
    assert_eq!(changes.revision, after.revision);
    assert_eq!(client.at(&now.revision).await.unwrap(), now);
    let check: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
}

/// Was red: every request was answered with 500 until the server was started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_another_file_moved_to_the_path_is_a_new_lineage() {
    let db = TestDb::new();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    for rows in [500, 5, 100] {
        // Commits in the WAL, which stays beside the file that takes the place.
        insert(&db.open(), 1000, 20);
        let old = client.latest().await;
        let other = beside(&db.path, ".new");
        make(&other, rows);
        std::fs::rename(&other, &db.path).unwrap();
        is_a_new_lineage(&server, &db.path, &old).await;
    }
    server.shutdown().await;
}

/// Moves the file away under a name and puts another database in its place.
fn replace(path: &Path, away: &Path) {
    let other = beside(path, ".new");
    make(&other, 40);
    std::fs::hard_link(path, away).unwrap();
    std::fs::rename(&other, path).unwrap();
}

/// Was red: the last commits were missing, or pages of them, because the server itself still read what was before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_a_file_that_was_replaced_has_its_last_commits_under_its_other_name() {
    let db = TestDb::new();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    for round in 0..10 {
        shell(
            &db.path,
            "DELETE FROM t; INSERT INTO t VALUES (1, randomblob(20000))",
        );
        client.latest().await;
        shell(
            &db.path,
            "DELETE FROM t WHERE id = 1;
             INSERT INTO t SELECT value, randomblob(500) FROM generate_series(1, 100)",
        );
        let away = beside(&db.path, &format!(".away{round}"));
        replace(&db.path, &away);
        settled(&client).await;
        assert_eq!(shell(&away, "PRAGMA integrity_check"), "ok");
        assert_eq!(shell(&away, "SELECT count(*) FROM t"), "100");
        assert_eq!(
            shell(&db.path, "PRAGMA integrity_check; SELECT count(*) FROM t"),
            "ok\n40"
        );
    }
    server.shutdown().await;
}

/// Was red: the WAL was deleted with what had not been copied, since somebody read what was before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_a_replaced_file_that_another_program_reads_keeps_its_wal() {
    let db = TestDb::new();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    shell(&db.path, "INSERT INTO t VALUES (1, randomblob(20000))");
    let mut reader = std::process::Command::new("sqlite3")
        .arg(&db.path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut to_reader = reader.stdin.take().unwrap();
    to_reader.write_all(b"BEGIN; SELECT count(*) FROM t;\n").unwrap();
    let mut from_reader = BufReader::new(reader.stdout.take().unwrap()).lines();
    assert_eq!(from_reader.next().unwrap().unwrap(), "1");
    shell(
        &db.path,
        "INSERT INTO t SELECT value, randomblob(500) FROM generate_series(2, 100)",
    );
    client.latest().await;
    let away = beside(&db.path, ".away");
    replace(&db.path, &away);
    settled(&client).await;

    let inode = std::fs::metadata(&away).unwrap().ino();
    let aside = beside(&db.path, &format!("-wal-{inode}"));
    std::fs::rename(aside, beside(&away, "-wal")).unwrap();
    to_reader
        .write_all(b"SELECT count(*), sum(length(v)) FROM t;\n")
        .unwrap();
    assert_eq!(from_reader.next().unwrap().unwrap(), "1|20000");
    drop(to_reader);
    assert!(reader.wait().unwrap().success());
    assert_eq!(
        shell(&away, "PRAGMA integrity_check; SELECT count(*) FROM t"),
        "ok\n100"
    );
    assert_eq!(
        shell(&db.path, "PRAGMA integrity_check; SELECT count(*) FROM t"),
        "ok\n40"
    );
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_a_file_deleted_and_made_again_is_a_new_lineage_and_is_missing_until_then() {
    let db = TestDb::new();
    insert(&db.open(), 1, 300);
    let server = db.serve().await;
    let client = Client::new(&server.url());
    for also in [&[][..], &["-wal", "-shm"], &["-wal", "-shm", "-history", "-lock"]] {
        let old = client.latest().await;
        std::fs::remove_file(&db.path).unwrap();
        for suffix in also {
            // The server may have removed it first.
            let _ = std::fs::remove_file(beside(&db.path, suffix));
        }
        for request in [
            PagesRequest::default(),
            PagesRequest {
                since: Some(old.revision.clone()),
                ..PagesRequest::default()
            },
        ] {
            let refused = client.ask(request).await.unwrap_err();
            assert_eq!((refused.status, refused.code.as_str()), (503, "DATABASE_MISSING"));
            assert!(!refused.message.contains("app.db"), "{}", refused.message);
        }
        assert!(!db.path.exists(), "the server does not make it");
        make(&db.path, 77);
        is_a_new_lineage(&server, &db.path, &old).await;
    }
    server.shutdown().await;
}

/// What `cp` does: the file is there before its content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_a_file_that_is_still_being_copied_is_not_served_and_not_touched() {
    let db = TestDb::new();
    insert(&db.open(), 1, 300);
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let old = client.latest().await;
    let other = beside(&db.path, ".new");
    make(&other, 400);
    let bytes = std::fs::read(&other).unwrap();
    std::fs::remove_file(&db.path).unwrap();
    for n in [0, 1, 4096, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&db.path, &bytes[..n]).unwrap();
        let refused = client.ask(PagesRequest::default()).await.unwrap_err();
        assert!([500, 503].contains(&refused.status), "{n}: {refused:?}");
        assert_eq!(std::fs::read(&db.path).unwrap(), bytes[..n], "{n} bytes");
    }
    std::fs::write(&db.path, &bytes).unwrap();
    is_a_new_lineage(&server, &db.path, &old).await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_a_file_that_is_moved_away_has_all_commits_and_put_back_continues() {
    let db = TestDb::new();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    insert(&db.open(), 1, 100);
    let old = client.latest().await;
    let away = beside(&db.path, ".away");
    std::fs::rename(&db.path, &away).unwrap();
    assert_eq!(client.ask(PagesRequest::default()).await.unwrap_err().status, 503);
    std::fs::rename(&away, &db.path).unwrap();
    let back = settled(&client).await;
    assert!(back.pages == old.pages);
    let changed = client.since(&old.revision).await.unwrap();
    assert!(changed.revision == back.revision && changed.pages.is_empty());
    insert(&db.open(), 101, 100);
    let old = client.latest().await;
    // For good this time.
    std::fs::rename(&db.path, &away).unwrap();
    make(&db.path, 5);
    is_a_new_lineage(&server, &db.path, &old).await;
    let count: i64 = Connection::open(&away)
        .unwrap()
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 200);
    server.shutdown().await;
}

/// What was answered is in the file, wherever it is. Was red: it was in a WAL that stayed behind, also when the server had stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_a_file_that_is_moved_away_for_good_has_all_commits() {
    for asked in [true, false] {
        let db = TestDb::new();
        let server = db.serve().await;
        let client = Client::new(&server.url());
        client.latest().await;
        shell(
            &db.path,
            "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO t SELECT i, 'x' FROM n",
        );
        let away = beside(&db.path, ".away");
        std::fs::rename(&db.path, &away).unwrap();
        let count = || shell(&away, "SELECT count(*) FROM t");
        if asked {
            assert_eq!(client.ask(PagesRequest::default()).await.unwrap_err().status, 503);
            assert_eq!(count(), "100");
            let wal = std::fs::metadata(beside(&db.path, "-wal")).unwrap();
            assert_eq!(
                wal.len(),
                0,
                "another file that comes to this path is not read through it"
            );
        }
        server.shutdown().await;
        assert_eq!(count(), "100", "asked: {asked}");
        for suffix in ["-wal", "-shm", "-lock"] {
            assert!(!beside(&db.path, suffix).exists(), "{suffix}");
        }
    }
}

/// A folder with databases that have a table `t`, and a server of it.
async fn folder_of(names: &[&str]) -> (tempfile::TempDir, ServerHandle) {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        shell(
            &folder.path().join(name),
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
        );
    }
    let server = Server::builder(folder.path())
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    (folder, server)
}

async fn run(server: &ServerHandle, name: &str, statement: &str) -> Value {
    let url = format!("{}/{name}", server.url());
    sql_at(&url, &Value::Null, &[statement]).await.1
}

/// Was red: the file was opened by its new name while it still was by its old one. Its commits were in the WAL of the old name, and
/// nobody could use it until the server was started again, without these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_a_database_that_gets_another_name_is_the_same_at_once() {
    for to in ["c", "b"] {
        let (folder, server) = folder_of(&["a.db", "b.db"]).await;
        let path = |name: &str| folder.path().join(format!("{name}.db"));
        run(&server, "b", "INSERT INTO t(v) VALUES ('of b')").await;
        for n in 0..20 {
            run(&server, "a", &format!("INSERT INTO t(v) VALUES ({n})")).await;
        }
        std::fs::rename(path("a"), path(to)).unwrap();
        let counted = run(&server, to, "SELECT count(*) FROM t WHERE v < 20").await;
        assert_eq!(
            counted["results"][0]["response"]["result"]["rows"][0][0]["value"], "20",
            "{counted}"
        );
        run(&server, to, "INSERT INTO t(v) VALUES ('last')").await;
        server.shutdown().await;
        assert_eq!(
            shell(&path(to), "SELECT count(*) FROM t; PRAGMA integrity_check"),
            "21\nok"
        );
        for left in ["a.db-wal", "a.db-shm", "a.db-lock", "c.db-wal"] {
            assert!(!folder.path().join(left).exists(), "{left}");
        }
    }
}

/// Was red: each name would have had a WAL of its own for one file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_a_file_with_two_names_in_a_folder_is_not_served() {
    let (folder, server) = folder_of(&["a.db"]).await;
    std::fs::hard_link(folder.path().join("a.db"), folder.path().join("b.db")).unwrap();
    for name in ["a", "b"] {
        let refused = run(&server, name, "INSERT INTO t(v) VALUES (1)").await;
        assert!(
            refused["message"].as_str().unwrap().contains("another name"),
            "{refused}"
        );
        for suffix in ["-wal", "-shm", "-history", "-lock"] {
            assert!(
                !folder.path().join(format!("{name}.db{suffix}")).exists(),
                "{name} {suffix}"
            );
        }
    }
    std::fs::remove_file(folder.path().join("b.db")).unwrap();
    let done = run(&server, "a", "INSERT INTO t(v) VALUES (1)").await;
    assert_eq!(done["results"][0]["type"], "ok", "{done}");
    server.shutdown().await;
}

/// Was red: two servers wrote one file through two WALs, of which each was beside a name of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_a_file_with_two_names_in_two_folders_is_not_served_by_two_servers() {
    let (folder, first) = folder_of(&["a.db"]).await;
    let done = run(&first, "a", "INSERT INTO t(v) VALUES (1)").await;
    assert_eq!(done["results"][0]["type"], "ok", "{done}");
    let (elsewhere, second) = folder_of(&[]).await;
    let (path, link) = (folder.path().join("a.db"), elsewhere.path().join("b.db"));
    std::fs::hard_link(&path, &link).unwrap();
    // By a server of the folder, and by one of the file, which does not start.
    let refused = run(&second, "b", "INSERT INTO t(v) VALUES (2)").await;
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("another name"), "{refused}");
    let refused = Server::builder(&link).listen("127.0.0.1:0").await.unwrap_err();
    assert!(matches!(refused, ServerError::TwoNames { .. }), "{refused}");
    assert!(refused.to_string().contains("-samefile"), "{refused}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    // A symbolic link leads to the same name.
    let symbolic = elsewhere.path().join("c.db");
    std::os::unix::fs::symlink(&path, &symbolic).unwrap();
    std::fs::remove_file(&link).unwrap();
    let refused = Server::builder(&symbolic)
        .listen("127.0.0.1:0")
        .await
        .unwrap_err();
    assert!(matches!(refused, ServerError::InUse { .. }), "{refused}");
    // What is moved to the path, or restored, has one name.
    std::fs::hard_link(&path, &link).unwrap();
    let other = beside(&path, ".new");
    make(&other, 3);
    std::fs::rename(&other, &path).unwrap();
    let counted = run(&first, "a", "SELECT count(*) FROM t").await;
    assert_eq!(
        counted["results"][0]["response"]["result"]["rows"][0][0]["value"],
        "3"
    );
    // And so has the file that was there, with all that was committed in it.
    let counted = run(&second, "b", "SELECT count(*) FROM t").await;
    assert_eq!(
        counted["results"][0]["response"]["result"]["rows"][0][0]["value"],
        "1"
    );
    for server in [first, second] {
        server.shutdown().await;
    }
    for file in [path, link] {
        assert_eq!(shell(&file, "PRAGMA integrity_check"), "ok");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_a_history_that_is_deleted_while_it_is_in_use_begins_again() {
    let db = TestDb::new();
    insert(&db.open(), 1, 300);
    let server = db.serve().await;
    let client = Client::new(&server.url());
    for also in [&[][..], &["-history-wal", "-history-shm"]] {
        insert(&db.open(), 1000, 20);
        let old = client.latest().await;
        insert(&db.open(), 2000, 20);
        client.latest().await;
        std::fs::remove_file(beside(&db.path, "-history")).unwrap();
        for suffix in also {
            std::fs::remove_file(beside(&db.path, suffix)).unwrap();
        }
        is_a_new_lineage(&server, &db.path, &old).await;
        shell(&db.path, "DELETE FROM t WHERE id >= 1000");
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_a_long_poll_is_told_when_the_database_is_replaced() {
    let db = TestDb::new();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let old = client.latest().await;
    let poll = PagesRequest {
        since: Some(old.revision.clone()),
        long_poll: Some(Duration::from_secs(300)),
        ..PagesRequest::default()
    };
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.ask(poll).await }
    });
    let other = beside(&db.path, ".new");
    make(&other, 3);
    std::fs::rename(&other, &db.path).unwrap();
    let refused = waiting.await.unwrap().unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (400, "REVISION_UNKNOWN"));
    is_a_new_lineage(&server, &db.path, &old).await;
    server.shutdown().await;
}

async fn sql(server: &ServerHandle, baton: &Value, statements: &[&str]) -> (u16, Value) {
    sql_at(&server.url(), baton, statements).await
}

async fn sql_at(url: &str, baton: &Value, statements: &[&str]) -> (u16, Value) {
    let requests: Vec<_> = statements
        .iter()
        .map(|sql| json!({"type": "execute", "stmt": {"sql": sql}}))
        .collect();
    let client = Client::new(url);
    let request = client.http.post(format!("{}/v2/pipeline", client.url));
    let body = json!({"baton": baton, "requests": requests}).to_string();
    let answer = request
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    let status = answer.status().as_u16();
    (
        status,
        serde_json::from_str(&answer.text().await.unwrap()).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_a_transaction_that_was_open_in_the_file_before_ends_with_an_error() {
    let db = TestDb::new();
    let server = db.serve().await;
    let old = Client::new(&server.url()).latest().await;
    let (status, open) = sql(
        &server,
        &Value::Null,
        &["BEGIN IMMEDIATE", "INSERT INTO t(v) VALUES (1)"],
    )
    .await;
    assert_eq!(status, 200, "{open}");
    let other = beside(&db.path, ".new");
    make(&other, 3);
    std::fs::rename(&other, &db.path).unwrap();
    let (status, refused) = sql(&server, &open["baton"], &["COMMIT"]).await;
    assert_eq!(
        (status, &refused["code"]),
        (400, &json!("STREAM_EXPIRED")),
        "{refused}"
    );
    // Nothing of it is in the new file, and no lock of it.
    let (status, fresh) = sql(
        &server,
        &Value::Null,
        &["SELECT count(*) FROM t", "INSERT INTO t(v) VALUES (2)"],
    )
    .await;
    assert_eq!(status, 200, "{fresh}");
    let count = &fresh["results"][0]["response"]["result"]["rows"][0][0]["value"];
    assert_eq!(count, &json!("3"), "{fresh}");
    assert_eq!(fresh["results"][1]["type"], "ok", "{fresh}");
    is_a_new_lineage(&server, &db.path, &old).await;
    server.shutdown().await;
}

/// Readers and writers all the while: each gets the old one, the new one, or a typed answer, and no file is spoiled.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn v10_no_file_is_spoiled_when_files_are_replaced_under_load() {
    let db = TestDb::new();
    insert(&db.open(), 1, 50);
    let server = Server::builder(&db.path).listen("127.0.0.1:0").await.unwrap();
    let url = server.url();
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (client, stopped) = (Client::new(&url), stop.clone());
        load.spawn(async move {
            while !stopped.load(Relaxed) {
                let request = client.http.post(format!("{}/pull-updates", client.url));
                let answer = request.send().await.unwrap();
                let status = answer.status().as_u16();
                // One that is being sent is cut when the file goes.
                match answer.bytes().await {
                    Ok(all) if status == 200 => drop(pages_of(&all)),
                    Ok(_) => assert_eq!(status, 503),
                    Err(cut) => assert_eq!(status, 200, "{cut}"),
                }
            }
        });
        let (client, stopped) = (Client::new(&url), stop.clone());
        load.spawn(async move {
            while !stopped.load(Relaxed) {
                let body = json!({"requests": [
                    {"type": "execute", "stmt": {"sql": "INSERT INTO t(v) VALUES (randomblob(2000))"}},
                    {"type": "close"}]});
                let request = client.http.post(format!("{}/v2/pipeline", client.url));
                let answer = request
                    .header("content-type", "application/json")
                    .body(body.to_string())
                    .send()
                    .await
                    .unwrap();
                let status = answer.status().as_u16();
                assert!(
                    [200, 503].contains(&status),
                    "{status}: {}",
                    answer.text().await.unwrap()
                );
            }
        });
    }
    let client = Client::new(&url);
    for round in 0..10 {
        settled(&client).await;
        // The file before keeps a name, so that it can be looked at.
        replace(&db.path, &beside(&db.path, &format!(".away{round}")));
        settled(&client).await;
    }
    stop.store(true, Relaxed);
    while let Some(done) = load.join_next().await {
        done.unwrap();
    }
    server.shutdown().await;
    let files = (0..10).map(|round| beside(&db.path, &format!(".away{round}")));
    for file in files.chain([db.path.clone()]) {
        assert_eq!(shell(&file, "PRAGMA integrity_check"), "ok", "{}", file.display());
    }
}

/// Was red: a history that was removed while it was being opened was an error of the server.
#[tokio::test]
async fn v10_a_history_that_is_removed_while_it_is_opened_is_asked_for_again() {
    let db = TestDb::new();
    let opened = AtomicUsize::new(0);
    let sqlite = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
    let server =
        Server::builder(db.path.parent().unwrap()).history(move |path| match opened.fetch_add(1, Relaxed) {
            0 => Err(HistoryError::Moved),
            1 => Err(sqlite(rusqlite::ffi::SQLITE_READONLY_DBMOVED).into()),
            2 => Err(sqlite(rusqlite::ffi::SQLITE_CANTOPEN).into()),
            _ => Ok(Arc::new(SqliteHistory::open(path)?)),
        });
    let server = server.listen("127.0.0.1:0").await.unwrap();
    let name = db.path.file_stem().unwrap().to_str().unwrap();
    let client = Client::new(&format!("{}/{name}", server.url()));
    for _ in 0..3 {
        let refused = client.ask(PagesRequest::default()).await.unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (503, "DATABASE_MISSING"));
    }
    assert_eq!(client.latest().await.whole(), dump(&db.path));
    server.shutdown().await;
}
