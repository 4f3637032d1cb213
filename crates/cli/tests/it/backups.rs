//! `backup`: one state of a database in a file, whatever happens meanwhile.

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use rusqlite::Connection;

use crate::{
    admin::{Administered, kill_at_each_instant, make},
    support::*,
};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Whole, and complete without anything beside it: the same two values at both ends.
fn is_one_state(path: &Path) -> i64 {
    let db = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let check: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    let mode: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!((check.as_str(), mode.as_str()), ("ok", "delete"));
    let value = |id: i64| {
        db.query_row("SELECT n FROM t WHERE id = ?", [id], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(value(1), value(2000));
    value(1)
}

/// A database whose first and last row are changed by each commit.
struct Written {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Written {
    fn new(folder: &Path) -> Self {
        let path = folder.join("a.db");
        let db = Connection::open(&path).unwrap();
        db.busy_timeout(Duration::from_secs(20)).unwrap();
        db.execute_batch(
            "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, v BLOB);
             WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO t SELECT i, 0, randomblob(1500) FROM n",
        )
        .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                db.execute(
                    "UPDATE t SET n = n + 1, v = randomblob(1500) WHERE id IN (1, 2000)",
                    [],
                )
                .unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Self {
            path,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_backup_is_one_state_while_others_write_and_of_any_revision_that_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    let written = Written::new(folder.path());
    let tokens = out.path().join("tokens");
    std::fs::write(&tokens, "read-only reader\n").unwrap();
    let server = Serving::start(&[
        "serve",
        text(&written.path),
        "--listen",
        "127.0.0.1:0",
        "--auth-token-file",
        text(&tokens),
    ]);
    let backup = |source: &str, name: &str, more: &[&str]| {
        let mut command = program();
        command
            .args(["backup", source, text(&out.path().join(name)), "--json"])
            .args(more);
        Said::of(command.env("PARTIAL_SYNC_AUTH_TOKEN", "reader").output().unwrap())
    };
    let mut states = vec![];
    for n in 0..3 {
        let name = format!("{n}");
        let said = backup(&server.url, &name, &[]);
        assert_eq!(said.code, 0, "{}", said.err);
        let revision = said.json()["revision"].as_str().unwrap().to_owned();
        states.push((revision, is_one_state(&out.path().join(name))));
    }
    assert!(states.windows(2).all(|two| two[0].1 < two[1].1), "{states:?}");
    // The same revision again is the same file, byte by byte.
    let again = backup(&server.url, "again", &["--revision", &states[0].0]);
    assert_eq!(again.code, 0, "{}", again.err);
    let bytes = |name: &str| std::fs::read(out.path().join(name)).unwrap();
    assert!(bytes("again") == bytes("0"));
    // A file that is being served, as any program sees it.
    let said = backup(text(&written.path), "file", &[]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(is_one_state(&out.path().join("file")) >= states[2].1);
    assert_eq!(names(out.path()), ["0", "1", "2", "again", "file", "tokens"]);

    for (source, name, more, code, expected) in [
        (server.url.as_str(), "0", &[][..], 2, "--force"),
        (
            text(&written.path),
            "x",
            &["--revision", &states[0].0],
            2,
            "needs the url",
        ),
        (text(out.path()), "x", &[], 1, "cannot be read"),
        (text(&tokens), "x", &[], 1, "cannot be read"),
        (
            &server.url,
            "x",
            &["--revision", "0000000000000001-1"],
            1,
            "was never made",
        ),
        ("http://127.0.0.1:1", "x", &[], 1, "nothing was written"),
    ] {
        let said = backup(source, name, more);
        assert_eq!(said.code, code, "{source} {name}: {}{}", said.out, said.err);
        assert!(said.err.contains(expected), "{source} {name}: {}", said.err);
    }
    let live = Said::of(
        program()
            .args(["backup", &server.url, text(&written.path), "--force"])
            .output()
            .unwrap(),
    );
    assert!(
        live.code == 2 && live.err.contains("partial-sync restore"),
        "{}",
        live.err
    );
    assert_eq!(backup(&server.url, "0", &["--force"]).code, 0);
    assert!(is_one_state(&out.path().join("0")) > states[2].1);
    assert_eq!(names(out.path()), ["0", "1", "2", "again", "file", "tokens"]);
}

/// A way to a server on which the first answer stops after a megabyte, until it is let go on. The address.
fn stopping_way(to: String) -> (String, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let way = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = way.local_addr().unwrap().to_string();
    let (stopped, stops) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    std::thread::spawn(move || {
        let mut first = Some((stopped, goes_on));
        for client in way.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(&to).unwrap());
            let (mut asks, mut asked) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut asks, &mut asked));
            let first = first.take();
            std::thread::spawn(move || {
                if let Some((stopped, goes_on)) = first {
                    std::io::copy(&mut (&mut server).take(1 << 20), &mut client).unwrap();
                    stopped.send(()).unwrap();
                    goes_on.recv().unwrap();
                }
                let _ = std::io::copy(&mut server, &mut client);
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (address, stops, go_on)
}

#[test]
fn a_backup_of_a_revision_that_expires_in_the_middle_leaves_nothing_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    make(&folder.path().join("a.db"), 40_000);
    let server = Administered::new(folder.path());
    let (way, stops, go_on) = stopping_way(server.serving.url.trim_start_matches("http://").to_owned());
    let backup = program()
        .args([
            "backup",
            &format!("http://{way}/a"),
            text(&out.path().join("b.db")),
            "--timeout",
            "10m",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    stops.recv().unwrap();
    let db = Connection::open(folder.path().join("a.db")).unwrap();
    db.busy_timeout(Duration::from_secs(20)).unwrap();
    db.execute("UPDATE t SET v = randomblob(1000)", []).unwrap();
    server.ok(&["drop-history", "a", "--all", "--yes"]);
    go_on.send(()).unwrap();
    let said = Said::of(backup.wait_with_output().unwrap());
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("no longer kept"), "{}", said.err);
    assert_eq!(names(out.path()), Vec::<String>::new());
}

#[test]
fn a_backup_that_is_killed_leaves_the_whole_file_or_nothing_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    make(&folder.path().join("a.db"), 100);
    let target = folder.path().join("b.db");
    kill_at_each_instant(|command, what| {
        let ended = command
            .args(["backup", text(&folder.path().join("a.db")), text(&target)])
            .output()
            .unwrap();
        if target.exists() {
            let rows = Connection::open(&target).unwrap();
            let rows: i64 = rows
                .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
                .unwrap();
            assert_eq!(rows, 100, "{what}");
            std::fs::remove_file(&target).unwrap();
        }
        ended.status.success()
    });
    // The one that came to its end has tidied up after the others.
    let left = names(folder.path());
    assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
}

/// Whoever has it open, and whatever journal it has, nothing is lost.
#[test]
fn only_a_backup_is_replaced_and_only_until_somebody_writes_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    make(&path("a.db"), 10);
    let backup = |target: &Path| {
        let source = path("a.db");
        run(&["backup", text(&source), text(target), "--force"])
    };
    let live = path("live.db");
    for mode in ["delete", "truncate", "persist", "memory", "wal"] {
        let db = Connection::open(&live).unwrap();
        let now: String = db
            .query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0))
            .unwrap();
        assert_eq!(now, mode);
        db.execute_batch("CREATE TABLE mine(x); INSERT INTO mine VALUES (1)")
            .unwrap();
        let said = backup(&live);
        assert!(
            said.code == 2 && said.err.contains("partial-sync restore"),
            "{mode}: {}",
            said.err
        );
        db.execute("INSERT INTO mine VALUES (2)", []).unwrap();
        drop(db);
        // Nobody has it open now, which does not make it a backup.
        assert_eq!(backup(&live).code, 2, "{mode}");
        let db = Connection::open(&live).unwrap();
        let rows: i64 = db
            .query_row("SELECT count(*) FROM mine", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 2, "{mode}");
        drop(db);
        std::fs::remove_file(&live).unwrap();
    }
    // What is not a database, as it seems, may be one that is encrypted.
    std::fs::write(path("notes"), "hello").unwrap();
    assert_eq!(backup(&path("notes")).code, 2);

    let target = path("b.db");
    assert_eq!(backup(&target).code, 0);
    assert_eq!(backup(&target).code, 0);
    let db = Connection::open(&target).unwrap();
    db.execute_batch("BEGIN IMMEDIATE; DELETE FROM t").unwrap();
    assert_eq!(backup(&target).code, 2, "somebody is writing to it");
    db.execute_batch("ROLLBACK").unwrap();
    assert_eq!(backup(&target).code, 0);
    drop(db);
    Connection::open(&target)
        .unwrap()
        .execute("DELETE FROM t WHERE id = 1", [])
        .unwrap();
    assert_eq!(backup(&target).code, 2);
    // One that was restored is a database.
    let (fresh, restored) = (path("c.db"), path("d.db"));
    assert_eq!(backup(&fresh).code, 0);
    ok(&["restore", text(&fresh), text(&restored)]);
    assert_eq!(backup(&restored).code, 2);
    assert_eq!(backup(&fresh).code, 0);
}

#[test]
fn a_backup_that_somebody_writes_to_while_the_next_one_is_made_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("a.db"), folder.path().join("b.db"));
    make(&source, 10);
    ok(&["backup", text(&source), text(&target)]);
    let db = Connection::open(&source).unwrap();
    // A reader waits until this is over.
    db.execute_batch("PRAGMA journal_mode=DELETE; BEGIN EXCLUSIVE")
        .unwrap();
    let next = program()
        .args(["backup", text(&source), text(&target)])
        .args(["--force", "--timeout", "10m"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !names(folder.path()).iter().any(|name| name.starts_with('.')) {
        std::thread::sleep(Duration::from_millis(5));
    }
    Connection::open(&target)
        .unwrap()
        .execute("INSERT INTO t VALUES (11, 'mine')", [])
        .unwrap();
    db.execute_batch("ROLLBACK").unwrap();
    let said = Said::of(next.wait_with_output().unwrap());
    assert_eq!(said.code, 2, "{}", said.err);
    let rows: i64 = Connection::open(&target)
        .unwrap()
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 11);
    let left = names(folder.path());
    assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
}

/// As `sqlite3 FILE '.backup NEW'` does.
#[test]
fn a_backup_of_an_empty_file_is_an_empty_database() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("a.db"), folder.path().join("b.db"));
    std::fs::write(&source, "").unwrap();
    assert_eq!(ok(&["backup", text(&source), text(&target)]).out, "1 page\n");
    let db = Connection::open(&target).unwrap();
    let check: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!((check.as_str(), tables), ("ok", 0));
    drop(db);
    ok(&["restore", text(&target), text(&source), "--yes"]);
    assert!(source.metadata().unwrap().len() > 0);
}

#[test]
fn a_backup_that_is_told_to_end_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("a.db");
    make(&source, 10);
    let db = Connection::open(&source).unwrap();
    // A reader waits until this is over.
    db.execute_batch("PRAGMA journal_mode=DELETE; BEGIN EXCLUSIVE")
        .unwrap();
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let backup = program()
            .args(["backup", text(&source), text(&folder.path().join("b.db"))])
            .args(["--timeout", "10m"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while !names(folder.path()).iter().any(|name| name.starts_with('.')) {
            std::thread::sleep(Duration::from_millis(5));
        }
        signal(name, backup.id());
        let said = Said::of(backup.wait_with_output().unwrap());
        assert_eq!(said.code, code, "{}", said.err);
        assert!(
            said.err.contains("interrupted; nothing was written"),
            "{}",
            said.err
        );
        let left = names(folder.path());
        assert!(
            !left.iter().any(|name| name.starts_with('.') || name == "b.db"),
            "{left:?}"
        );
    }
}

#[test]
fn a_file_with_the_journal_of_a_killed_program_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (live, killed) = (folder.path().join("a.db"), folder.path().join("killed.db"));
    let db = Connection::open(&live).unwrap();
    db.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v);
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO t SELECT i, zeroblob(1000) FROM n;
         PRAGMA cache_size=5; BEGIN; UPDATE t SET v = randomblob(1000)",
    )
    .unwrap();
    // As it is on the disk now, a kill would leave it.
    let beside = |path: &Path| PathBuf::from(format!("{}-journal", text(path)));
    std::fs::copy(&live, &killed).unwrap();
    std::fs::copy(beside(&live), beside(&killed)).unwrap();
    let target = folder.path().join("b.db");
    let said = run(&["backup", text(&killed), text(&target)]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("killed while it wrote"), "{}", said.err);
    let remedy = "PRAGMA schema_version";
    assert!(said.err.contains(remedy), "{}", said.err);
    assert!(!target.exists());
    Connection::open(&killed)
        .unwrap()
        .query_row(remedy, [], |_| Ok(()))
        .unwrap();
    ok(&["backup", text(&killed), text(&target)]);
    let changed: i64 = Connection::open(&target)
        .unwrap()
        .query_row("SELECT count(*) FROM t WHERE v <> zeroblob(1000)", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(changed, 0);
}
