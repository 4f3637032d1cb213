//! `restore`: whether a server has the database open or not, and whatever is killed in the middle, what was there or the
//! backup is there, and replicas are told.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::RecvTimeoutError,
    time::Duration,
};

use rusqlite::Connection;

use crate::{
    admin::{kill_at_each_instant, make},
    support::*,
};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A database that was served and killed, with commits in its WAL and revisions, and a backup from before.
struct Killed {
    folder: tempfile::TempDir,
    database: PathBuf,
    backup: PathBuf,
}

impl Killed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (database, backup) = (folder.path().join("a.db"), folder.path().join("backup"));
        make(&database, 100);
        ok(&["backup", text(&database), text(&backup)]);
        let this = Self {
            folder,
            database,
            backup,
        };
        let server = Serving::file(&this.database);
        ok(&["query", text(&this.replica()), "--url", &server.url, "SELECT 1"]);
        // Through the server, so that no connection of this process takes the WAL over.
        this.write_through(&server, 200);
        ok(&["pull", text(&this.replica())]);
        server.kill();
        assert!(this.beside("-wal").metadata().unwrap().len() > 200_000);
        assert!(this.beside("-history").exists());
        this
    }

    /// The same again: SQLite and the server find the files as they were left.
    fn copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        Self {
            database: folder.path().join("a.db"),
            backup: folder.path().join("backup"),
            folder,
        }
    }

    /// So many rows more.
    fn write_through(&self, server: &Serving, rows: u32) {
        let other = self.folder.path().join("writer.db");
        let insert = format!(
            "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO t SELECT i + 1000, randomblob(1000) FROM n"
        );
        ok(&["query", text(&other), "--url", &server.url, &insert]);
        ok(&["push", text(&other)]);
    }

    fn replica(&self) -> PathBuf {
        self.folder.path().join("replica.db")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", text(&self.database)))
    }

    fn restore(&self) -> [&str; 4] {
        ["restore", text(&self.backup), text(&self.database), "--yes"]
    }

    /// Serves what is there: the rows, of a database that is sound, as a server gives them out. `false` = the old ones.
    fn is_restored(&self, what: &str) -> bool {
        let server = Serving::file(&self.database);
        let copy = self.folder.path().join("copy");
        ok(&["backup", &server.url, text(&copy), "--force"]);
        let db = Connection::open(&copy).unwrap();
        let rows: i64 = db
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap();
        let check: String = db
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(check, "ok", "{what}");
        let restored = rows == 100;
        assert!(restored || rows == 300, "{what}: {rows}");
        let pull = run(&[
            "pull",
            text(&self.replica()),
            "--url",
            &server.url,
            "--accept-new-url",
        ]);
        let plain = run(&["pull", text(&self.replica())]);
        let _ = (pull, plain);
        restored
    }
}

fn nothing_waits(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            !["-restore-", "-restoring-"]
                .iter()
                .any(|kind| name.contains(kind))
                && !name.starts_with(".partial-sync"),
            "{name}"
        );
    }
}

#[test]
fn a_restore_without_a_server_has_nothing_of_the_old_file() {
    let killed = Killed::new();
    ok(&killed.restore());
    for suffix in [
        "-wal",
        "-shm",
        "-history",
        "-history-wal",
        "-history-shm",
        "-lock",
    ] {
        assert!(!killed.beside(suffix).exists(), "{suffix}");
    }
    assert!(killed.is_restored(""));
    nothing_waits(killed.folder.path());
    // Where there is nothing but what was left.
    let killed = Killed::new();
    std::fs::remove_file(&killed.database).unwrap();
    ok(&killed.restore());
    assert!(killed.is_restored("without the file"));
}

#[test]
fn what_is_no_backup_is_refused_and_changes_nothing() {
    let killed = Killed::new();
    let bytes = std::fs::read(&killed.backup).unwrap();
    let bad = killed.folder.path().join("bad");
    let mut torn = bytes.clone();
    torn[2 * 4096..4 * 4096].fill(0xff);
    for (contents, expected) in [
        (&b""[..], "not a SQLite database"),
        (b"hello", "not a SQLite database"),
        (&bytes[..bytes.len() - 1], "not whole"),
        (&bytes[..bytes.len() - 4096], "not whole"),
        (&torn, "damaged"),
    ] {
        std::fs::write(&bad, contents).unwrap();
        let said = run(&["restore", text(&bad), text(&killed.database), "--yes"]);
        assert!(
            said.code == 1 && said.err.contains(expected),
            "{expected}: {}",
            said.err
        );
    }
    std::fs::write(&bad, &bytes).unwrap();
    std::fs::write(killed.folder.path().join("bad-wal"), "x").unwrap();
    let said = run(&["restore", text(&bad), text(&killed.database), "--yes"]);
    assert!(said.err.contains("WAL"), "{}", said.err);
    let said = run(&["restore", text(&killed.database), text(&killed.database), "--yes"]);
    assert_eq!(said.code, 1, "{}", said.err);
    let said = run(&["restore", text(&killed.backup), text(&killed.database)]);
    assert!(said.code == 2 && said.err.contains("--yes"), "{}", said.err);
    assert!(!killed.is_restored("nothing was done"));
    nothing_waits(killed.folder.path());
}

#[test]
fn a_restore_that_is_killed_at_any_instant_has_happened_or_not() {
    let (mut not, mut done) = (0, 0);
    let first = Killed::new();
    kill_at_each_instant(|command, what| {
        let killed = first.copy();
        let ended = command.args(killed.restore()).output().unwrap();
        // The next server completes it, if it has happened.
        match killed.is_restored(what) {
            true => done += 1,
            false => not += 1,
        }
        ok(&killed.restore());
        nothing_waits(killed.folder.path());
        ended.status.success()
    });
    assert!(not == 0 && done == 0 || not > 2 && done > 5, "{not} and {done}");
}

#[test]
fn a_server_that_is_killed_while_it_takes_a_restore_over_leaves_the_backup() {
    let first = Killed::new();
    kill_at_each_instant(|command, what| {
        let killed = first.copy();
        command.args(["serve", text(&killed.database), "--listen", "127.0.0.1:0"]);
        let Some((mut server, _)) = Serving::try_spawn(command) else {
            return false;
        };
        let said = run(&killed.restore());
        let ended = server.child.try_wait().unwrap().is_some();
        drop(server);
        assert_eq!(said.code, 0, "{what}: {}", said.err);
        assert!(killed.is_restored(&format!("the server was killed at {what}")));
        nothing_waits(killed.folder.path());
        !ended
    });
}

/// What clients see: docs/server.md has it as a table.
#[test]
fn replicas_are_told_of_a_restore_beside_them_and_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&folder.path().join(name)).to_owned();
    make(&folder.path().join("a.db"), 100);
    let server = Serving::file(&folder.path().join("a.db"));
    let (url, database, backup) = (server.url.as_str(), at("a.db"), at("backup"));
    ok(&["backup", url, &backup]);
    let count = |path: &str, below: &str| {
        let rows = ok(&[
            "query",
            path,
            &format!("SELECT count(*) AS n FROM t WHERE {below}"),
            "--json",
        ]);
        rows.json()[0]["n"].as_i64().unwrap()
    };
    let [reader, never, before, after] = ["reader.db", "never.db", "before.db", "after.db"].map(at);
    let insert = |path: &str, id: u32| {
        ok(&[
            "query",
            path,
            "--url",
            url,
            &format!("INSERT INTO t VALUES ({id}, 'mine')"),
        ]);
    };
    ok(&["query", &reader, "--url", url, "SELECT 1"]);
    insert(&never, 5001);
    insert(&before, 5002);
    ok(&["push", &before]);
    insert(&before, 5003);
    insert(&after, 5004);
    ok(&["push", &after]);
    for path in [&reader, &never, &before, &after] {
        ok(&["pull", path]);
    }
    assert_eq!(count(&reader, "id > 5000"), 2);

    let said = ok(&["restore", &backup, &database, "--yes"]);
    assert!(said.out.contains("the server serves it"), "{}", said.out);

    // All are told at their next pull; nothing of what is here changes.
    for path in [&reader, &never, &before, &after] {
        let said = run(&["pull", path]);
        assert!(
            said.code == 1 && said.err.contains("does not know"),
            "{path}: {}",
            said.err
        );
    }
    assert_eq!(
        (
            count(&never, "id = 5001"),
            count(&before, "id >= 5002"),
            count(&reader, "id > 5000")
        ),
        (1, 3, 2)
    );
    // Who has not continues with what is there now, when it is told to, and its changes with it.
    ok(&["pull", &reader, "--accept-new-url"]);
    assert_eq!(count(&reader, "id > 5000"), 0);
    ok(&["pull", &never, "--accept-new-url"]);
    assert_eq!((count(&never, "id > 5000"), count(&never, "id <= 100")), (1, 100));
    ok(&["push", &never]);
    ok(&["pull", &reader]);
    assert_eq!(count(&reader, "id = 5001"), 1);
    // Who has pushed since the backup is told that too, before it sends anything.
    insert(&after, 5005);
    for path in [&before, &after] {
        let said = run(&["push", path]);
        assert!(
            said.code == 1 && said.err.contains("restored from a backup"),
            "{path}: {}",
            said.err
        );
    }
    // When it continues, it gives up what it had pushed and the restore took away, and keeps what it had not.
    for (path, kept, gone) in [(&before, 5003, 5002), (&after, 5005, 5004)] {
        ok(&["pull", path, "--accept-new-url"]);
        assert_eq!(
            (
                count(path, &format!("id = {kept}")),
                count(path, &format!("id = {gone}"))
            ),
            (1, 0)
        );
        ok(&["push", path]);
    }
    ok(&["pull", &reader]);
    assert_eq!(count(&reader, "id IN (5001, 5003, 5005)"), 3);
    assert_eq!(count(&reader, "id > 5000"), 3);
}

/// Was red: whatever began with the name of the database and `-restore-` was removed, another database and the backup itself too.
#[test]
fn a_restore_removes_nothing_that_it_did_not_put_there() {
    let folder = tempfile::tempdir().unwrap();
    let [database, other, backup] =
        ["a.db", "a.db-restore-test.db", "a.db-restore-1-2"].map(|name| folder.path().join(name));
    make(&database, 10);
    make(&other, 20);
    ok(&["backup", text(&database), text(&backup)]);
    let hidden = folder.path().join(".a.db-restore-notes");
    std::fs::write(&hidden, "mine").unwrap();
    ok(&["restore", text(&backup), text(&database), "--yes"]);
    assert!(other.exists() && backup.exists() && hidden.exists());
}

/// Was red: of two restores to a server that stood still one took the other's file away, and the other one said that it had been
/// restored.
#[test]
fn of_two_restores_that_wait_for_a_server_none_says_what_is_not_so() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("a.db");
    let backups = [1, 2].map(|rows| {
        let backup = folder.path().join(format!("backup-{rows}"));
        make(&backup, rows);
        backup
    });
    make(&database, 3);
    let server = Serving::file(&database);
    let has = |rows: u32| {
        let answer = sql(&server.url, "", "SELECT count(*) FROM t").1;
        answer.contains(&format!("\"value\":\"{rows}\""))
    };
    assert!(has(3));
    let pid = server.child.id();
    signal("-STOP", pid);
    let said = std::thread::scope(|scope| {
        let restore = |backup: &Path, timeout: &str| {
            let (backup, database) = (text(backup).to_owned(), text(&database).to_owned());
            let timeout = timeout.to_owned();
            scope.spawn(move || run(&["restore", &backup, &database, "--yes", "--timeout", &timeout]))
        };
        let first = restore(&backups[0], "1s");
        let second = restore(&backups[1], "2s");
        [first.join().unwrap(), second.join().unwrap()]
    });
    signal("-CONT", pid);
    for said in &said {
        assert!(
            said.code == 1 && said.err.contains("nothing was restored"),
            "{}{}",
            said.out,
            said.err
        );
    }
    assert!(has(3));
    // One that the server takes says so, while another one waits.
    let restored = ok(&["restore", text(&backups[0]), text(&database), "--yes"]);
    assert!(restored.out.contains("the server serves it"), "{}", restored.out);
    assert!(has(1));
    nothing_waits(folder.path());
}

/// Was red: a restore that failed, because something of the old database could not be removed, took effect at the next start.
#[test]
fn a_restore_that_fails_does_not_take_effect_later() {
    let folder = tempfile::tempdir().unwrap();
    let [database, backup, blocking] =
        ["a.db", "backup", "a.db-history"].map(|name| folder.path().join(name));
    make(&database, 10);
    ok(&["backup", text(&database), text(&backup)]);
    make(&folder.path().join("b.db"), 1);
    std::fs::rename(folder.path().join("b.db"), &database).unwrap();
    // A folder is not removed as a file.
    std::fs::create_dir(&blocking).unwrap();
    let said = run(&["restore", text(&backup), text(&database), "--yes"]);
    assert!(said.code == 1 && said.err.contains("removed"), "{}", said.err);
    nothing_waits(folder.path());
    std::fs::remove_dir(&blocking).unwrap();
    let server = Serving::file(&database);
    assert!(
        sql(&server.url, "", "SELECT count(*) FROM t")
            .1
            .contains("\"value\":\"1\"")
    );
}

/// Was red: its pages were copied while they changed, and were of no state that ever was.
#[test]
fn a_database_that_is_written_to_is_not_restored_as_a_mixture() {
    let folder = tempfile::tempdir().unwrap();
    let [source, database] = ["source.db", "a.db"].map(|name| folder.path().join(name));
    let writer = Connection::open(&source).unwrap();
    // The first and the last page have the same number, and there are many in between.
    writer
        .execute_batch(
            "PRAGMA synchronous=OFF; CREATE TABLE first(v); INSERT INTO first VALUES (0); CREATE TABLE large(v);
             WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 50)
             INSERT INTO large SELECT zeroblob(1000000) FROM n;
             CREATE TABLE last(v); INSERT INTO last VALUES (0);",
        )
        .unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writes = std::thread::spawn(move || {
        // Now and then, so that there is no journal most of the time.
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_millis(3)) {
            writer
                .execute_batch("BEGIN; UPDATE first SET v = v + 1; UPDATE last SET v = v + 1; COMMIT")
                .unwrap();
        }
    });
    for _ in 0..5 {
        let said = run(&["restore", text(&source), text(&database), "--yes"]);
        if said.code == 0 {
            let differ = "SELECT (SELECT v FROM first) - (SELECT v FROM last)";
            let db = Connection::open(&database).unwrap();
            let differ: i64 = db.query_row(differ, [], |row| row.get(0)).unwrap();
            assert_eq!(differ, 0);
        }
    }
    drop(stop);
    writes.join().unwrap();
    ok(&["restore", text(&source), text(&database), "--yes"]);
}

/// Was red: the file could not be read, it said.
#[test]
fn a_restore_of_a_served_file_that_is_not_there_says_what_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let [database, backup, away] = ["a.db", "backup", "away"].map(|name| folder.path().join(name));
    make(&database, 10);
    ok(&["backup", text(&database), text(&backup)]);
    let server = Serving::file(&database);
    let restore = |more: &[&str]| {
        let arguments = ["restore", text(&backup), text(&database), "--yes"];
        run(&[&arguments, more].concat())
    };
    std::fs::rename(&database, &away).unwrap();
    let said = restore(&["--timeout", "300ms"]);
    assert!(
        said.code == 1 && said.err.contains("was moved away"),
        "{}",
        said.err
    );
    assert!(!database.exists());
    nothing_waits(folder.path());
    std::fs::rename(&away, &database).unwrap();
    assert!(
        sql(&server.url, "", "DELETE FROM t")
            .1
            .contains("\"type\":\"ok\"")
    );
    // Deleted, it is let go of.
    std::fs::remove_file(&database).unwrap();
    let said = restore(&[]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        sql(&server.url, "", "SELECT count(*) FROM t")
            .1
            .contains("\"value\":\"10\"")
    );
}

/// Was red: changes that had not been pushed were gone.
#[test]
fn a_replica_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let [database, backup, replica] = ["a.db", "backup", "replica.db"].map(|name| folder.path().join(name));
    make(&database, 10);
    ok(&["backup", text(&database), text(&backup)]);
    let server = Serving::file(&database);
    ok(&[
        "query",
        text(&replica),
        "--url",
        &server.url,
        "DELETE FROM t WHERE id = 1",
    ]);
    let restored = run(&["restore", text(&backup), text(&replica), "--yes"]);
    assert!(
        restored.code == 1 && restored.err.contains("is a replica"),
        "{}",
        restored.err
    );
    let saved = run(&["backup", &server.url, text(&replica), "--force"]);
    assert_ne!(saved.code, 0, "{}", saved.out);
    let own = run(&["backup", text(&backup), text(&backup), "--force"]);
    assert_ne!(own.code, 0, "{}", own.out);
    ok(&["push", text(&replica)]);
}
