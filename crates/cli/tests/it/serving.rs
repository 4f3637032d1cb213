//! `serve`: how it starts, whom it lets in, and how it ends.

use std::process::Command;

use crate::support::*;

#[test]
fn both_signals_end_the_server_in_good_order() {
    for name in ["-INT", "-TERM"] {
        let place = Place::new();
        let mut served = Serving::file(&place.remote);
        place.replica("a.db", &served.url);
        signal(name, served.child.id());
        assert_eq!(served.child.wait().unwrap().code(), Some(0), "{name}");
    }
}

/// Was red: the old pages of a database that only its owner could read were in a file that everybody could read.
#[cfg(unix)]
#[test]
fn those_who_cannot_read_a_database_cannot_read_its_page_history() {
    use std::os::unix::fs::PermissionsExt as _;

    let place = Place::new();
    let set =
        |path: &str, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let remote = place.path("remote.db");
    let modes = || {
        let names = [
            "remote.db-history",
            "remote.db-history-wal",
            "remote.db-history-shm",
        ];
        names.map(|name| std::fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777)
    };
    for mode in [0o600, 0o640] {
        set(&remote, mode);
        let served = Serving::file(&place.remote);
        assert_eq!(sql(&served.url, "", "update town set people = 1").0, 200);
        assert_eq!(modes(), [0o600; 3], "{mode:o}");
        served.kill();
    }
    // As a version before this one has left them.
    for name in [
        "remote.db-history",
        "remote.db-history-wal",
        "remote.db-history-shm",
    ] {
        set(&place.path(name), 0o644);
    }
    let served = Serving::file(&place.remote);
    assert_eq!(modes(), [0o640; 3]);
    served.kill();
    for name in [
        "remote.db-history",
        "remote.db-history-wal",
        "remote.db-history-shm",
    ] {
        std::fs::remove_file(place.path(name)).unwrap();
    }
    let _served = Serving::file(&place.remote);
    assert_eq!(modes(), [0o640; 3]);
}

/// An instruction of SQLite that nothing can interrupt for half an hour.
#[cfg(target_os = "linux")]
#[test]
fn v1_sigterm_ends_the_server_whatever_runs() {
    use std::io::Write as _;

    let place = Place::new();
    let mut served = Serving::file(&place.remote);
    let sql = "SELECT printf('%.*c', 40000000, 'a') LIKE '%' || printf('%.*cb', 49000, 'a')";
    let body = format!(r#"{{"requests":[{{"type":"execute","stmt":{{"sql":"{sql}"}}}}]}}"#);
    let address = served.url.trim_start_matches("http://");
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    write!(
        socket,
        "POST /v2/pipeline HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", served.child.id())).unwrap();
        let fields: Vec<_> = stat
            .rsplit(") ")
            .next()
            .unwrap()
            .split(' ')
            .map(str::to_owned)
            .collect();
        fields[11].parse::<u64>().unwrap()
    };
    let before = ticks();
    while ticks() < before + 100 {
        std::thread::yield_now();
    }
    signal("-TERM", served.child.id());
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_replica_goes_on_after_a_restart_and_after_a_kill() {
    let place = Place::new();
    let mut served = Serving::file(&place.remote);
    let address = served.url.trim_start_matches("http://").to_owned();
    let again = ["serve", place.remote.to_str().unwrap(), "--listen", &address];
    let a = place.replica("a.db", &served.url);
    let b = place.replica("b.db", &served.url);
    ok(&["query", &a, "update town set name = 'one' where id = 10"]);
    ok(&["push", &a]);
    signal("-TERM", served.child.id());
    served.child.wait().unwrap();
    let served = Serving::start(&again);
    assert_eq!(ok(&["pull", &b, "--json"]).json()["changed"], true);
    ok(&["query", &b, "update town set name = 'two' where id = 11"]);
    ok(&["push", &b]);
    served.kill();
    let _served = Serving::start(&again);
    ok(&["pull", &a]);
    let said = ok(&[
        "query",
        &a,
        "--json",
        "select name from town where id in (10, 11) order by id",
    ]);
    assert_eq!(said.out, "[{\"name\":\"one\"},\n {\"name\":\"two\"}]\n");
}

#[test]
fn a_token_is_asked_for_and_can_come_from_the_environment() {
    let place = Place::new();
    let remote = place.remote.to_str().unwrap();
    let served = Serving::start(&[
        "serve",
        remote,
        "--listen",
        "127.0.0.1:0",
        "--auth-token",
        "sesame",
    ]);
    let path = place.path("a.db");
    let without = run(&["query", &path, "--url", &served.url, "select 1"]);
    assert_eq!(without.code, 1);
    assert!(without.err.contains("token"), "{}", without.err);
    let wrong = run(&[
        "query",
        &path,
        "--url",
        &served.url,
        "--auth-token",
        "simsim",
        "select 1",
    ]);
    assert_eq!(wrong.code, 1);
    assert!(
        !wrong.err.contains("sesame") && !wrong.err.contains("simsim"),
        "{}",
        wrong.err
    );
    ok(&[
        "query",
        &path,
        "--url",
        &served.url,
        "--auth-token",
        "sesame",
        "select count(*) from town",
    ]);
    let mut command = program();
    command
        .args(["pull", &path])
        .env("PARTIAL_SYNC_AUTH_TOKEN", "sesame");
    assert_eq!(
        Said::of(command.output().unwrap()).out.split(';').next(),
        Some("nothing new")
    );
    assert!(!ok(&["query", "--help"]).out.contains("sesame"));
}

#[test]
fn a_key_that_is_none_is_refused_at_start() {
    let place = Place::new();
    let key = place.path("key");
    std::fs::write(&key, "hmac:short").unwrap();
    let said = run(&[
        "serve",
        place.remote.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--auth-jwt-key",
        &key,
    ]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("key, line 1: the shared secret has 5 bytes"),
        "{}",
        said.err
    );
}

#[test]
fn a_folder_serves_each_database_under_its_name() {
    let place = Place::new();
    let served = Serving::start(&[
        "serve",
        place.folder.path().to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
    ]);
    let url = format!("{}/remote", served.url);
    let said = ok(&[
        "query",
        &place.path("x.replica"),
        "--url",
        &url,
        "--json",
        "select count(*) as n from town",
    ]);
    assert_eq!(said.out, "[{\"n\":5000}]\n");
}

#[test]
fn a_sync_server_starts_as_in_tursos_shell_in_memory_or_with_a_file() {
    let place = Place::new();
    let file = place.remote.to_str().unwrap();
    let in_memory = Serving::start(&["--sync-server", "127.0.0.1:0", "--experimental-views"]);
    let a = place.path("a.db");
    ok(&[
        "query",
        &a,
        "--url",
        &in_memory.url,
        "create table t(x); insert into t values (1)",
    ]);
    ok(&["push", &a]);
    let b = place.path("b.db");
    assert_eq!(
        ok(&["query", &b, "--url", &in_memory.url, "--json", "select x from t"]).out,
        "[{\"x\":1}]\n"
    );

    let of_file = Serving::start(&[file, "--sync-server", "127.0.0.1:0"]);
    let c = place.path("c.db");
    ok(&["query", &c, "--url", &of_file.url, "select count(*) from town"]);
}

/// Was red: with the usual limit of 1,024, the 78th database could not be opened, and no connection accepted.
#[cfg(target_os = "linux")]
#[test]
fn v6_the_limit_of_open_files_is_raised() {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -S -n 100; exec \"$0\" serve --listen 127.0.0.1:0"])
        .arg(env!("CARGO_BIN_EXE_partial-sync"));
    let served = Serving::spawn(&mut command);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", served.child.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let [soft, hard] = [3, 4].map(|at| line.split_whitespace().nth(at).unwrap());
    assert_eq!(soft, hard, "{line}");
}

/// Was red: limits that follow from how many files may be open were set before that was raised.
#[cfg(target_os = "linux")]
#[test]
fn limits_follow_from_the_limit_of_open_files_after_it_was_raised() {
    let requests = |limits: &str| {
        let script = format!("ulimit {limits} && exec \"$0\" serve --check-config");
        let shell = Command::new("sh").args(["-c", "ulimit -H -n"]).output().unwrap();
        let hard = String::from_utf8(shell.stdout).unwrap();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &script])
            .arg(env!("CARGO_BIN_EXE_partial-sync"));
        shell.env_remove("PARTIAL_SYNC_CONFIG");
        let said = Said::of(shell.output().unwrap()).out;
        let is_many = hard.trim() == "unlimited" || hard.trim().parse::<u64>().unwrap() >= 8192;
        (said.contains("\nconcurrent-requests = 64\n"), is_many)
    };
    let (all, is_many) = requests("-S -n 600");
    assert!(all || !is_many);
    assert!(!requests("-n 600").0);
}

/// Whoever may not write in the folder: what cannot be done is refused, and told to who asks whether the server is ready.
#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_served_and_what_does_not_work_in_it_is_told() {
    use std::{
        io::{Read as _, Write as _},
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    };

    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data");
    let set = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::create_dir(&folder).unwrap();
    for mode in ["delete", "wal"] {
        let db = rusqlite::Connection::open(folder.join(format!("{mode}.db"))).unwrap();
        db.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(()))
            .unwrap();
        db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)")
            .unwrap();
    }
    let owner = std::fs::metadata(&folder).unwrap().uid();
    let serve = |more: &[&str]| {
        let mut command = match owner {
            // Who may do everything is not refused anything.
            0 => {
                set(place.path(), 0o755);
                let copy = place.path().join("program");
                std::fs::copy(program().get_program(), &copy).unwrap();
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                    .arg(copy);
                command
            }
            _ => program(),
        };
        command.args(["serve", folder.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
        Serving::spawn(command.args(more))
    };
    let ready = |served: &Serving| {
        let mut socket = std::net::TcpStream::connect(served.url.trim_start_matches("http://")).unwrap();
        write!(
            socket,
            "GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    for mode in [0o644, 0o666] {
        for name in ["delete.db", "wal.db"] {
            set(&folder.join(name), mode);
        }
        set(&folder, 0o555);
        let served = serve(&[]);
        let url = |name: &str| format!("{}/{name}", served.url);
        let (status, said) = sql(&url("delete"), "", "select x from t");
        assert!(
            status == 200 && said.contains("\"value\":\"1\""),
            "{mode:o}: {said}"
        );
        assert!(
            sql(&url("delete"), "", "insert into t values (2)")
                .1
                .contains("SQLITE_READONLY")
        );
        assert!(ready(&served).starts_with("HTTP/1.1 200 "), "{mode:o}");

        let replica = place.path().join(format!("replica-{mode:o}"));
        let replica = replica.to_str().unwrap();
        let rows = ok(&[
            "query",
            replica,
            "--url",
            &url("wal"),
            "select x from t",
            "--json",
        ]);
        assert_eq!(rows.out.trim(), "[{\"x\":1}]");
        let (_, said) = sql(&url("wal"), "", "select x from t");
        assert!(said.contains("SQLITE_READONLY"), "{mode:o}: {said}");
        let told = ready(&served);
        assert!(
            told.starts_with("HTTP/1.1 503 ") && told.contains("\"NO_SQL\""),
            "{mode:o}: {told}"
        );
        set(&folder, 0o755);
    }

    // The server cannot empty the WAL that a program which may write has: it waits for that, and follows.
    let writer = rusqlite::Connection::open(folder.join("wal.db")).unwrap();
    let grow = "PRAGMA wal_autocheckpoint = 0; INSERT INTO t VALUES (zeroblob(200000))";
    writer.execute_batch(grow).unwrap();
    for name in ["wal.db", "wal.db-wal", "wal.db-shm"] {
        set(&folder.join(name), 0o444);
    }
    set(&folder, 0o555);
    let config = place.path().join("server.toml");
    std::fs::write(&config, "[sql]\nwal-bytes = 65536\n").unwrap();
    let served = serve(&["--config", config.to_str().unwrap()]);
    let (status, said) = sql(&format!("{}/wal", served.url), "", "select count(*) from t");
    assert!(status == 200 && said.contains("\"value\":\"2\""), "{said}");
    let told = ready(&served);
    assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
    set(&folder, 0o755);
}
