//! A database in a bucket: its writer is killed under load, another one takes over, and replicas of a server of the bucket go on.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use crate::support::*;

/// A port that is free now: the bucket has to name the writer before it listens.
fn port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn writer(path: &str, bucket: &str, more: &[&str]) -> Serving {
    let listen = format!("127.0.0.1:{}", port());
    let public = format!("http://{listen}");
    let arguments = [
        "serve",
        path,
        "--replicate",
        bucket,
        "--listen",
        &listen,
        "--public-url",
        &public,
    ];
    Serving::start(&[&arguments[..], more].concat())
}

#[test]
fn a_writer_that_is_killed_under_load_loses_no_answered_row_and_a_replica_continues_with_the_next() {
    let place = Place::new();
    // A store over HTTP, where `scripts/test-store` has one.
    let bucket = match std::env::var("STORE_URL") {
        Ok(url) => format!("{url}/killed-{}", std::process::id()),
        Err(_) => format!("file://{}", place.path("bucket")),
    };
    let first = writer(place.remote.to_str().unwrap(), &bucket, &[]);
    let cache = place.path("cache");
    let mirror = Serving::start(&[
        "serve",
        "--from",
        &bucket,
        "--cache",
        &cache,
        "--listen",
        "127.0.0.1:0",
    ]);
    let replica = place.replica("a.db", &mirror.url);
    ok(&["query", &replica, "insert into town values (9001, 'first', 1)"]);
    ok(&["push", &replica]);

    // Rows that were answered, until it is killed.
    let (answered, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let load = std::thread::spawn({
        let (url, answered, stop) = (first.url.clone(), answered.clone(), stop.clone());
        move || {
            for n in 1.. {
                let text = format!("insert into town values ({}, 'load', 1)", 10_000 + n);
                let done = std::panic::catch_unwind(|| sql(&url, "", &text).0);
                match done {
                    Ok(200) => answered.store(n, SeqCst),
                    _ if stop.load(SeqCst) => return,
                    _ => {}
                }
            }
        }
    });
    while answered.load(SeqCst) < 20 {
        std::thread::yield_now();
    }
    stop.store(true, SeqCst);
    first.kill();
    load.join().unwrap();
    let answered = answered.load(SeqCst);

    // Its disk is gone too. Pages are served all the while.
    ok(&["pull", &replica]);
    let second = writer(&place.path("second.db"), &bucket, &["--take-over"]);
    let (status, count) = sql(&second.url, "", "select count(*) from town where name = 'load'");
    assert_eq!(status, 200);
    let there = (answered..=answered + 1).any(|rows| count.contains(&format!("\"value\":\"{rows}\"")));
    assert!(there, "{answered} were answered: {count}");
    ok(&["query", &replica, "insert into town values (9002, 'second', 1)"]);
    ok(&["push", &replica]);
    ok(&["pull", &replica]);
    let rows = ok(&[
        "query",
        &replica,
        "--json",
        "select id, name from town where id between 9001 and 9999",
    ]);
    assert_eq!(
        rows.out.trim(),
        "[{\"id\":9001,\"name\":\"first\"},\n {\"id\":9002,\"name\":\"second\"}]"
    );
    let (_, there) = sql(&second.url, "", "select name from town where id = 9002");
    assert!(there.contains("second"), "{there}");

    // Without --take-over nothing is made, and who was replaced says where to go.
    let refused = run(&[
        "serve",
        &place.path("third.db"),
        "--replicate",
        &bucket,
        "--listen",
        "127.0.0.1:0",
    ]);
    assert!(
        refused.code == 1 && refused.err.contains("--take-over"),
        "{}",
        refused.err
    );
    let remote = place.remote.to_str().unwrap();
    let refused = run(&["serve", remote, "--replicate", &bucket, "--listen", "127.0.0.1:0"]);
    assert!(
        refused.code == 1 && refused.err.contains(&second.url),
        "{}",
        refused.err
    );
}

#[test]
fn several_databases_are_each_at_their_name_and_served_by_it() {
    let place = Place::new();
    let folder = place.folder.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    for name in ["a", "b"] {
        std::fs::copy(&place.remote, folder.join(format!("{name}.db"))).unwrap();
    }
    let bucket = format!("file://{}", place.path("bucket"));
    let written = writer(folder.to_str().unwrap(), &bucket, &[]);
    for name in ["a", "b"] {
        let text = format!("insert into town values (9001, 'of {name}', 1)");
        assert_eq!(sql(&format!("{}/{name}", written.url), "", &text).0, 200);
    }
    let mirror = Serving::start(&["serve", "--from", &bucket, "--listen", "127.0.0.1:0"]);
    for name in ["a", "b"] {
        let replica = place.replica(&format!("{name}.db"), &format!("{}/{name}", mirror.url));
        let rows = ok(&[
            "query",
            &replica,
            "--json",
            "select name from town where id = 9001",
        ]);
        assert_eq!(rows.out.trim(), format!(r#"[{{"name":"of {name}"}}]"#));
        ok(&["query", &replica, "update town set people = 0 where id = 9001"]);
        ok(&["push", &replica]);
        let (_, there) = sql(
            &format!("{}/{name}", written.url),
            "",
            "select people from town where id = 9001",
        );
        assert!(there.contains(r#""value":"0""#), "{there}");
    }
    // Nothing is made for a name that anybody asks for.
    assert_eq!(sql(&format!("{}/c", mirror.url), "", "select 1").0, 404);
    assert!(!place.folder.path().join("bucket/c").exists());
    let refused = run(&["log", &format!("{bucket}/d")]);
    assert!(
        refused.code == 1 && refused.err.contains("no database"),
        "{}",
        refused.err
    );
    assert!(!place.folder.path().join("bucket/d").exists());
}

#[test]
fn a_server_that_waits_for_a_silent_bucket_ends_when_it_is_told_to() {
    let place = Place::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let path = place.remote.to_str().unwrap();
    let mut child = program()
        .args([
            "serve",
            path,
            "--replicate",
            "s3://bucket/app",
            "--listen",
            "127.0.0.1:0",
        ])
        .env(
            "AWS_ENDPOINT_URL",
            format!("http://{}", silent.local_addr().unwrap()),
        )
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_REGION", "us-east-1")
        .spawn()
        .unwrap();
    // It has asked.
    let _asked = silent.accept().unwrap();
    signal("-TERM", child.id());
    assert!(child.wait().unwrap().success());
    let rows: i64 = rusqlite::Connection::open(path)
        .unwrap()
        .query_row("SELECT count(*) FROM town", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 5000);
}

#[test]
fn a_server_of_a_bucket_takes_the_place_of_a_writer_that_is_killed_and_keeps_no_file_when_it_ends() {
    let place = Place::new();
    let bucket = format!("file://{}", place.path("bucket"));
    let first = writer(place.remote.to_str().unwrap(), &bucket, &[]);
    let (cache, at) = (place.path("cache"), format!("127.0.0.1:{}", port()));
    let url = format!("http://{at}");
    let successor = [
        "serve",
        "--from",
        &bucket,
        "--cache",
        &cache,
        "--listen",
        &at,
        "--public-url",
        &url,
        "--take-over-after",
        "200ms",
    ];
    let mut second = Serving::start(&successor);
    let replica = place.replica("a.db", &second.url);
    ok(&["query", &replica, "insert into town values (9001, 'first', 1)"]);
    ok(&["push", &replica]);
    first.kill();
    ok(&["query", &replica, "insert into town values (9002, 'second', 1)"]);
    while run(&["push", &replica]).code != 0 {
        std::thread::yield_now();
    }
    let (_, rows) = sql(
        &second.url,
        "",
        "select name from town where id > 9000 order by id",
    );
    assert!(rows.contains("first") && rows.contains("second"), "{rows}");
    signal("-TERM", second.child.id());
    assert!(second.child.wait().unwrap().success());
    let left: Vec<_> = std::fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("partial-sync-copy-"))
        .collect();
    assert_eq!(left, [""; 0]);
    // The head names it.
    let again = Serving::start(&successor);
    assert_eq!(
        sql(&again.url, "", "insert into town values (9003, 'third', 1)").0,
        200
    );
    let refused = run(&["serve", "--from", &bucket, "--take-over"]);
    assert!(refused.err.contains("--public-url"), "{}", refused.err);
}

#[test]
fn a_branch_of_a_database_that_is_written_is_written_and_served_for_itself_and_detached_meanwhile() {
    let place = Place::new();
    let bucket = format!("file://{}", place.path("bucket"));
    let new = format!("file://{}", place.path("new"));
    let remote = place.remote.to_str().unwrap();
    let first = writer(remote, &bucket, &[]);
    let insert = |url: &str, id: u64, name: &str| {
        let text = format!("insert into town values ({id}, '{name}', 1)");
        assert_eq!(sql(url, "", &text).0, 200);
    };
    insert(&first.url, 9001, "both");
    ok(&["verify", &bucket, remote]);
    ok(&["branch", &bucket, &new]);
    // Nothing of it is its own yet.
    let early = Serving::start(&["serve", "--from", &new, "--listen", "127.0.0.1:0"]);
    let replica = place.replica("a.db", &early.url);
    insert(&first.url, 9002, "of the first");

    let path = place.path("second.db");
    let second = writer(&path, &new, &["--take-over"]);
    insert(&second.url, 9003, "of the second");
    let named = "select name from town where id > 9000 order by id";
    let names = |replica: &str| {
        let rows = ok(&["query", replica, "--json", named]).json();
        let rows = rows.as_array().unwrap().clone();
        let rows = rows.iter().map(|row| row["name"].as_str().unwrap().to_owned());
        rows.collect::<Vec<_>>()
    };
    ok(&["pull", &replica]);
    assert_eq!(names(&replica), ["both", "of the second"]);
    ok(&["query", &replica, "insert into town values (9004, 'pushed', 1)"]);
    ok(&["push", &replica]);
    ok(&["verify", &new, &path]);

    ok(&["detach", &new]);
    insert(&second.url, 9005, "detached");
    ok(&["pull", &replica]);
    assert_eq!(names(&replica), ["both", "of the second", "pushed", "detached"]);
    first.kill();
    std::fs::remove_dir_all(place.path("bucket")).unwrap();
    // A branch that is on its own is restarted, and restored, without the other.
    second.kill();
    let second = writer(&path, &new, &[]);
    insert(&second.url, 9006, "again");
    ok(&["pull", &replica]);
    assert_eq!(names(&replica).last().unwrap(), "again");
    ok(&["verify", &new, &path]);
    let restored = place.path("restored.db");
    ok(&["restore", &new, &restored]);
    ok(&["verify", &new, &restored]);
}

#[test]
fn a_server_without_a_file_writes_to_a_branch_that_nobody_has_written_to() {
    let place = Place::new();
    let bucket = format!("file://{}", place.path("bucket"));
    let new = format!("file://{}", place.path("new"));
    let first = writer(place.remote.to_str().unwrap(), &bucket, &[]);
    ok(&["branch", &bucket, &new]);
    let listen = format!("127.0.0.1:{}", port());
    let url = format!("http://{listen}");
    let second = Serving::start(&[
        "serve",
        "--from",
        &new,
        "--take-over",
        "--public-url",
        &url,
        "--listen",
        &listen,
    ]);
    let replica = place.replica("a.db", &second.url);
    ok(&["query", &replica, "delete from town where id > 10"]);
    ok(&["push", &replica]);
    ok(&["detach", &new]);
    let (_, rows) = sql(&second.url, "", "select count(*) from town");
    assert!(rows.contains(r#""value":"10""#), "{rows}");
    let (_, rows) = sql(&first.url, "", "select count(*) from town");
    assert!(rows.contains(r#""value":"5000""#), "{rows}");
    first.kill();
    std::fs::remove_dir_all(place.path("bucket")).unwrap();
    ok(&["query", &replica, "delete from town where id > 5"]);
    ok(&["push", &replica]);
    let restored = place.path("restored.db");
    ok(&["restore", &new, &restored]);
    ok(&["verify", &new, &restored]);
}
