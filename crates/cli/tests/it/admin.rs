//! `admin` against a server of a folder, and what is left when the server is killed at any instant of it.

use std::{path::Path, process::Command, time::Duration};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::{Said, Serving, program, signal, sql};

const TOKEN: &str = "boss-of-it-all";

/// A server of a folder, and where it is administered.
pub(crate) struct Administered {
    pub serving: Serving,
    pub url: String,
}

impl Administered {
    pub(crate) fn new(folder: &Path) -> Self {
        let mut command = program();
        Self::spawn(Self::arguments(&mut command, folder))
    }

    fn arguments<'c>(command: &'c mut Command, folder: &Path) -> &'c mut Command {
        command
            .args([
                "serve",
                folder.to_str().unwrap(),
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .env("PARTIAL_SYNC_ADMIN_TOKEN", TOKEN)
    }

    fn spawn(command: &mut Command) -> Self {
        Self::try_spawn(command).unwrap()
    }

    /// `None` = it ended before it listened.
    fn try_spawn(command: &mut Command) -> Option<Self> {
        let (serving, mut lines) = Serving::try_spawn(command)?;
        let line = lines.next()?.unwrap();
        let url = line.strip_prefix("administration on ")?.to_owned();
        Some(Self { serving, url })
    }

    /// Runs `partial-sync admin`.
    pub(crate) fn admin(&self, arguments: &[&str]) -> Said {
        let mut command = program();
        command.arg("admin").args(arguments).args(["--url", &self.url]);
        Said::of(command.env("PARTIAL_SYNC_ADMIN_TOKEN", TOKEN).output().unwrap())
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> Said {
        let said = self.admin(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}{}", said.out, said.err);
        said
    }
}

pub(crate) fn make(path: &Path, rows: u32) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(&format!(
        "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v);
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO t SELECT i, randomblob(1000) FROM n"
    ))
    .unwrap();
}

fn rows(path: &Path) -> i64 {
    let db = Connection::open(path).unwrap();
    let check: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap()
}

#[test]
fn a_server_is_administered_from_the_program() {
    let folder = tempfile::tempdir().unwrap();
    make(&folder.path().join("a.db"), 10);
    let server = Administered::new(folder.path());
    assert_eq!(server.ok(&["list"]).out, "a\n");
    assert_eq!(server.ok(&["create", "b"]).out, "made b\n");
    let forked = server.ok(&["fork", "a", "c", "--json"]).json();
    let revision = forked["revision"].as_str().unwrap();
    assert_eq!(rows(&folder.path().join("c.db")), 10);
    server.ok(&["fork", "a", "d", "--revision", revision]);
    let stats = server.ok(&["stats", "a", "--json"]).json();
    assert_eq!(stats["revision"], revision);
    assert!(server.ok(&["stats", "a"]).out.contains("revisions kept"));
    assert!(server.ok(&["revisions", "a"]).out.starts_with(revision));
    assert!(
        server
            .ok(&["kick", "--database", "a"])
            .out
            .starts_with("ended 0 requests")
    );
    server.ok(&["kick", "--caller", "somebody"]);
    server.ok(&["drop-history", "a", "--all", "--yes"]);
    assert_eq!(server.ok(&["delete", "a", "--yes"]).out, "deleted a\n");
    let names: Value = server.ok(&["list", "--json"]).json();
    let names: Vec<_> = names["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["b", "c", "d"]);
}

#[test]
fn admin_asks_before_anything_is_lost_and_tells_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    make(&folder.path().join("a.db"), 10);
    let server = Administered::new(folder.path());
    for (arguments, code, text) in [
        (&["delete", "a"][..], 2, "--yes"),
        (&["drop-history", "a", "--all"], 2, "--yes"),
        (&["drop-history", "a", "--yes"], 2, "--all"),
        (
            &["delete", "none", "--yes"],
            1,
            "there is no database \"none\" here (NOT_FOUND)",
        ),
        (&["create", "a"], 1, "EXISTS"),
        (&["create", "../x"], 1, "BAD_NAME"),
        (&["create", ".."], 1, "NOT_FOUND"),
        (
            &["fork", "a", "b", "--timestamp", "2001-01-01T00:00:00Z"],
            1,
            "REVISION_EXPIRED",
        ),
        (&["kick"], 2, "--database"),
    ] {
        let said = server.admin(arguments);
        assert_eq!(said.code, code, "{arguments:?}: {}", said.err);
        assert!(said.err.contains(text), "{arguments:?}: {}", said.err);
        assert!(!said.err.contains(TOKEN));
    }
    let list = |token: Option<&str>, url: &str| {
        let mut command = program();
        command.args(["admin", "list", "--url", url]);
        if let Some(token) = token {
            command.env("PARTIAL_SYNC_ADMIN_TOKEN", token);
        }
        Said::of(command.output().unwrap())
    };
    assert_eq!(list(None, &server.url).code, 2);
    assert!(list(Some("wrong"), &server.url).err.contains("UNAUTHORIZED"));
    assert!(list(Some(TOKEN), &server.serving.url).err.contains("NOT_FOUND"));
    assert_eq!(rows(&folder.path().join("a.db")), 10);
    let without = Said::of(
        program()
            .args([
                "serve",
                folder.path().to_str().unwrap(),
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .output()
            .unwrap(),
    );
    assert!(
        without.code == 1 && without.err.contains("--admin-token-file"),
        "{}",
        without.err
    );
}

type Next = fn(u32) -> u32;

/// The system calls that change what is in a folder. Those that write pages are many and much the same.
const CALLS: [(&str, Next); 6] = [
    ("unlink,unlinkat", |n| n + 1),
    ("rename,renameat,renameat2,link,linkat", |n| n + 1),
    ("fsync", |n| n + 1),
    ("fdatasync", |n| n + 1),
    ("ftruncate", |n| 2 * n),
    ("pwrite64", |n| 3 * n),
];

/// Runs the program again and again, and kills it at the n-th call of each kind, until it comes to its end without. `run` says
/// whether it did.
pub(crate) fn kill_at_each_instant(mut run: impl FnMut(&mut Command, &str) -> bool) {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("there is no strace here");
        return;
    }
    let mut killed = 0;
    for (calls, next) in CALLS {
        let mut n = 1;
        loop {
            let mut command = program();
            let mut traced = Command::new("strace");
            // -D: the process that is started is the program, which a test can kill, and not strace, whose end would set it free.
            traced
                .args(["-D", "-f", "-qq", "-o", "/dev/null"])
                .args(["-e", &format!("trace={calls}")])
                .args(["-e", &format!("inject={calls}:signal=SIGKILL:when={n}")])
                .arg(command.get_program());
            for (name, _) in command.get_envs() {
                traced.env_remove(name);
            }
            drop(std::mem::replace(&mut command, traced));
            if run(&mut command, &format!("{n}. {calls}")) {
                break;
            }
            killed += 1;
            n = next(n);
        }
    }
    assert!(killed > 5, "killed {killed} times");
}

/// Whatever a server leaves that is killed at any instant of this is a whole database of the name, or none, and a name that can
/// be used.
fn kill_while(arguments: &[&str], after: impl Fn(&Path, bool)) {
    kill_at_each_instant(|command, what| {
        let folder = tempfile::tempdir().unwrap();
        make(&folder.path().join("a.db"), 300);
        let Some(server) = Administered::try_spawn(Administered::arguments(command, folder.path())) else {
            return false;
        };
        let done = server.admin(arguments).code == 0;
        let Administered { mut serving, .. } = server;
        let ended = serving.child.try_wait().unwrap().is_some();
        let _ = serving.child.kill();
        serving.child.wait().unwrap();
        after(folder.path(), done);
        let again = Administered::new(folder.path());
        for name in ["a", "b"] {
            let path = folder.path().join(format!("{name}.db"));
            let listed = again.ok(&["list"]).out.lines().any(|line| line == name);
            assert_eq!(listed, path.exists(), "{what}");
            match listed {
                true => assert_eq!(rows(&path), 300, "{what}: {name}"),
                false => drop(again.ok(&["create", name])),
            }
        }
        done && !ended
    });
}

#[test]
fn a_server_that_is_killed_while_it_deletes_leaves_the_database_or_nothing() {
    kill_while(&["delete", "a", "--yes"], |folder, done| {
        assert!(!done || !folder.join("a.db").exists());
        if !folder.join("a.db").exists() {
            let left: Vec<_> = std::fs::read_dir(folder)
                .unwrap()
                .map(|it| it.unwrap().file_name())
                .collect();
            assert!(left.iter().all(|name| name == "a.db-lock"), "{left:?}");
        }
    });
}

/// A process whose writes to files fail, until this is dropped.
struct FullDisk(std::process::Child);

impl FullDisk {
    /// Of these calls, and of one file if it is given. `None` = there is no strace here, or it may not be used.
    fn of(process: u32, calls: &str, file: Option<&Path>) -> Option<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-p", &process.to_string()]);
        command.args([
            "-e",
            &format!("trace={calls}"),
            "-e",
            &format!("inject={calls}:error=ENOSPC"),
        ]);
        if let Some(file) = file {
            command.arg("-P").arg(file);
        }
        let mut this = Self(command.spawn().ok()?);
        let is_traced = |task: std::fs::DirEntry| {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        };
        let tasks = || std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        while !tasks().flatten().all(is_traced) {
            // It may not do that everywhere.
            if this.0.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(this)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // So that it lets go of the process.
        signal("-TERM", self.0.id());
        let _ = self.0.wait();
    }
}

/// Was red: its last commits had to be taken into its file first, and the header of that be changed, for which there was no room.
#[test]
fn a_database_is_deleted_to_make_room_on_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    make(&folder.path().join("a.db"), 300);
    let server = Administered::new(folder.path());
    let process = server.serving.child.id();
    let url = format!("{}/a", server.serving.url);
    let lock = folder.path().join("a.db-lock");
    // A lock that does not say whose it is, for which there was no room, is a lock. Was red: nothing could be opened.
    let Some(full) = FullDisk::of(process, "write,ftruncate", Some(&lock)) else {
        return eprintln!("there is no strace here");
    };
    let (status, answer) = sql(&url, "", "CREATE TABLE large AS SELECT randomblob(100000)");
    assert_eq!(status, 200, "{answer}");
    drop(full);
    assert_eq!(std::fs::read_to_string(lock).unwrap(), "");
    let full = FullDisk::of(process, "pwrite64", None).unwrap();
    for made in [&["create", "b"][..], &["fork", "a", "b"]] {
        let refused = server.admin(made);
        assert_eq!(refused.code, 1);
        assert!(refused.err.contains("make room"), "{}", refused.err);
    }
    server.ok(&["delete", "a", "--yes"]);
    drop(full);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    server.ok(&["create", "a"]);
}

#[test]
fn a_server_that_is_killed_while_it_copies_leaves_the_copy_or_nothing() {
    kill_while(&["fork", "a", "b"], |folder, done| {
        assert_eq!(rows(&folder.join("a.db")), 300);
        assert!(!done || folder.join("b.db").exists());
    });
}
