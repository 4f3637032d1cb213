//! Every command on replicas of a real server.

use std::os::unix::fs::FileExt;

use crate::support::*;

#[test]
fn a_query_makes_a_partial_replica_and_later_ones_remember_it() {
    let place = Place::new();
    let served = Serving::file(&place.remote);
    let path = place.path("a.db");
    let made = ok(&[
        "query",
        &path,
        "--url",
        &served.url,
        "--bootstrap-prefix",
        "16k",
        "--segment-size",
        "4k",
        "--stats",
        "select name from town where id = 4321",
    ]);
    assert_eq!(made.out, "name\n────────────────\ntown number 4321\n");
    let stats = made.stats();
    assert!(
        stats["pages_present"].as_u64().unwrap() < stats["pages_total"].as_u64().unwrap() / 4,
        "{stats}"
    );
    assert!(stats["requests"].as_u64().unwrap() >= 2);

    let again = ok(&["query", &path, "--stats", "select name from town where id = 4321"]);
    assert_eq!(again.out, made.out);
    assert_eq!(
        again.stats()["requests"],
        0,
        "what is here is not asked for again"
    );
}

#[test]
fn s3_a_replica_follows_its_database_to_a_new_url_with_what_was_not_pushed() {
    let (old, new) = (Place::new(), Place::new());
    let path = {
        let served = Serving::file(&old.remote);
        let path = old.replica("a.db", &served.url);
        ok(&["query", &path, "insert into town values (9001, 'not pushed', 1)"]);
        path
    };
    let served = Serving::file(&new.remote);
    let refused = run(&["push", &path, "--url", &served.url]);
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("--accept-new-url"), "{}", refused.err);
    ok(&["pull", &path, "--url", &served.url, "--accept-new-url"]);
    // From then on it knows the url.
    ok(&["push", &path]);
    let there = new.remote_rows("select id, name from town where id > 9000");
    assert_eq!(there, [(9001, "not pushed".to_owned())]);
    let here = ok(&["query", &path, "--json", "select count(*) as n from town"]);
    assert_eq!(here.out.trim(), r#"[{"n":5001}]"#);
}

#[test]
fn several_statements_print_several_tables_and_values_are_exact() {
    let place = Place::new();
    let served = Serving::file(&place.remote);
    let path = place.replica("a.db", &served.url);
    let sql = "select 9223372036854775807 as big, 0.1 + 0.2 as sum; select x'00ff' as b, null as n, 'ä' || char(10) as t;";
    let said = ok(&["query", &path, sql]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(
        lines[2], "9223372036854775807  0.30000000000000004",
        "{}",
        said.out
    );
    assert_eq!(lines[5], "x'00ff'  NULL  ä\\n", "{}", said.out);

    let said = ok(&["query", &path, "--json", sql]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(
        lines[0],
        r#"[{"big":9223372036854775807,"sum":0.30000000000000004}]"#
    );
    assert_eq!(lines[1], r#"[{"b":{"base64":"AP8="},"n":null,"t":"ä\n"}]"#);

    let said = ok(&[
        "query",
        &path,
        "--json",
        "select id from town where id < 4 order by id",
    ]);
    assert_eq!(said.json().as_array().unwrap().len(), 3);
    assert_eq!(ok(&["query", &path, "--json", "select 1 where 0"]).out, "[]\n");
    assert_eq!(
        with_stdin(&["query", &path, "-"], "select 1 as one").out,
        "one\n───\n  1\n"
    );
}

#[test]
fn a_local_write_is_pushed_and_another_replica_pulls_it() {
    let place = Place::new();
    let served = Serving::file(&place.remote);
    let (a, b) = (
        place.replica("a.db", &served.url),
        place.replica("b.db", &served.url),
    );
    ok(&[
        "query",
        &a,
        "update town set name = 'mine' where id = 2; insert into town values (6000, 'new', 1)",
    ]);
    assert_eq!(ok(&["stats", &a, "--json"]).json()["cdc_operations"], 2);
    assert_eq!(ok(&["push", &a, "--json"]).json()["pushed"], 2);
    assert_eq!(ok(&["push", &a]).out, "nothing to push\n");
    let expected = vec![(2, "mine".to_owned()), (6000, "new".to_owned())];
    assert_eq!(
        place.remote_rows("select id, name from town where id in (2, 6000) order by id"),
        expected
    );

    assert_eq!(ok(&["pull", &b, "--json"]).json()["changed"], true);
    assert_eq!(ok(&["pull", &b, "--json"]).json()["changed"], false);
    let said = ok(&[
        "query",
        &b,
        "--json",
        "select id, name from town where id in (2, 6000) order by id",
    ]);
    assert_eq!(
        said.out,
        "[{\"id\":2,\"name\":\"mine\"},\n {\"id\":6000,\"name\":\"new\"}]\n"
    );
    ok(&["pull", &a]);
    assert!(ok(&["verify", &a]).out.ends_with("equal\n"));
}

#[test]
fn local_writes_work_while_the_server_is_gone_and_are_pushed_when_it_is_back() {
    let place = Place::new();
    let served = Serving::file(&place.remote);
    let address = served.url.trim_start_matches("http://").to_owned();
    let a = place.replica("a.db", &served.url);
    ok(&["query", &a, "select * from town where id = 1"]);
    served.kill();
    ok(&["query", &a, "update town set name = 'offline' where id = 1"]);
    let failed = run(&["push", &a, "--timeout", "2s"]);
    assert_eq!(failed.code, 1);
    assert!(failed.err.starts_with("error: "), "{}", failed.err);
    let served = Serving::start(&["serve", place.remote.to_str().unwrap(), "--listen", &address]);
    ok(&["push", &a]);
    assert_eq!(
        place.remote_rows("select id, name from town where id = 1"),
        [(1, "offline".to_owned())]
    );
    drop(served);
}

#[test]
fn s6_a_refused_change_is_listed_and_given_up() {
    let place = Place::new();
    let served = Serving::file(&place.remote);
    let path = place.replica("a.db", &served.url);
    let other = place.replica("b.db", &served.url);
    ok(&[
        "query",
        &path,
        "create unique index only on town(name) where id > 5000; drop index only; update town set name = 'x' where id = 1",
    ]);
    ok(&[
        "query",
        &other,
        "insert into town(id, name) values (5001, 'same'), (5002, 'same')",
    ]);
    ok(&["push", &other]);
    let listed = ok(&["changes", &path]).out;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains("1  create unique index only"), "{listed}");
    assert!(listed.contains("3  update \"town\" (id = 1)"), "{listed}");
    assert_eq!(ok(&["changes", &path, "--json"]).out.lines().count(), 3);
    let said = run(&["push", &path]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("`partial-sync discard REPLICA 1`"),
        "{}",
        said.err
    );
    let said = run(&["discard", &path, "77"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("no unpushed change 77"), "{}", said.err);
    assert_eq!(
        ok(&["discard", &path, "1", "--with-dependents", "--json"]).json()["discarded"],
        serde_json::json!([1, 2])
    );
    ok(&["push", &path]);
    ok(&["pull", &path]);
}

#[test]
fn a_hydrated_and_checkpointed_replica_needs_no_server() {
    let place = Place::new();
    let served = Serving::file(&place.remote);
    let path = place.replica("a.db", &served.url);
    let said = ok(&["hydrate", &path, "--json"]).json();
    assert!(said["fetched"].as_u64().unwrap() > 20, "{said}");
    assert_eq!(said["absent"], 0);
    assert_eq!(
        ok(&["hydrate", &path]).out,
        "fetched 0 pages; every page is here\n"
    );
    ok(&["checkpoint", &path]);
    served.kill();
    let said = ok(&[
        "query",
        &path,
        "--json",
        "--stats",
        "select count(*) as n from town",
    ]);
    assert_eq!(
        (said.out.as_str(), &said.stats()["requests"]),
        ("[{\"n\":5000}]\n", &0.into())
    );
    let stock = rusqlite::Connection::open(&path).unwrap();
    let verdict: String = stock
        .query_row("pragma integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
}

#[test]
fn what_a_query_needs_can_be_fetched_at_connect_or_later_and_the_query_then_needs_no_server() {
    let place = Place::new();
    let served = Serving::file(&place.remote);
    let path = place.path("a.db");
    let richest = "select name from town where people > 99900 order by people";
    let said = ok(&[
        "query",
        &path,
        "--url",
        &served.url,
        "--bootstrap-query",
        richest,
        "--segment-size",
        "4k",
        "--stats",
        "select 1",
    ]);
    assert_eq!(said.stats()["requests"], 1);
    let lookup = "select people from town where id = 2500";
    let hydrated = ok(&["hydrate", &path, "--query", lookup, "--json"]).json();
    assert!(hydrated["absent"].as_u64().unwrap() > 20, "{hydrated}");
    served.kill();
    for sql in [richest, lookup] {
        let said = ok(&["query", &path, "--json", "--stats", sql]);
        assert_eq!(said.stats()["requests"], 0);
        assert!(!said.json().as_array().unwrap().is_empty());
    }
}

#[test]
fn inspect_draws_what_is_here_without_fetching_anything() {
    let place = Place::new();
    let served = Serving::file(&place.remote);
    let path = place.replica("a.db", &served.url);
    ok(&["query", &path, "update town set people = 0 where id = 1"]);
    let before = ok(&["stats", &path, "--json"]).json();
    let said = ok(&["inspect", &path, "--width", "80"]);
    for part in ["a.db", "█", "·", "◆", "town", "by_people", "index", "not here"] {
        assert!(said.out.contains(part), "no {part:?} in\n{}", said.out);
    }
    assert!(!said.out.contains('\x1b'), "no colour where there is no terminal");
    assert!(
        said.out.lines().all(|line| line.chars().count() <= 100),
        "{}",
        said.out
    );
    let forced = Said::of(
        program()
            .args(["inspect", &path])
            .env("CLICOLOR_FORCE", "1")
            .output()
            .unwrap(),
    );
    assert!(forced.out.contains("\x1b[38;5;"));
    let refused = program()
        .args(["inspect", &path])
        .env("CLICOLOR_FORCE", "1")
        .env("NO_COLOR", "1")
        .output();
    assert!(!Said::of(refused.unwrap()).out.contains('\x1b'));

    let json = ok(&["inspect", &path, "--json"]).json();
    assert_eq!(json["pages_total"], before["pages_total"]);
    assert_eq!(json["dirty"], before["pages_dirty"]);
    let picture = place.path("map.svg");
    ok(&["inspect", &path, "--svg", &picture]);
    let svg = std::fs::read_to_string(&picture).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("town"));
    assert_eq!(
        ok(&["stats", &path, "--json"]).json()["pages_present"],
        before["pages_present"]
    );
}

#[test]
fn verify_finds_a_page_that_is_not_what_the_remote_has() {
    let place = Place::new();
    let served = Serving::file(&place.remote);
    let path = place.replica("a.db", &served.url);
    ok(&["hydrate", &path]);
    assert!(ok(&["verify", &path]).out.ends_with("equal\n"));
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"!", 9 * 4096 + 3000).unwrap();
    let said = run(&["verify", &path]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("page 10 differs"), "{}", said.out);
    assert!(said.err.contains("make it again"), "{}", said.err);
    assert_eq!(
        run(&["verify", &path, "--json"]).json()["differing"][0]["page"],
        10
    );
}

#[test]
fn errors_say_what_to_do_on_stderr_and_leave_an_exit_code() {
    let place = Place::new();
    let served = Serving::file(&place.remote);
    let path = place.replica("a.db", &served.url);
    let missing = place.path("missing.db");
    for command in [
        "pull",
        "push",
        "checkpoint",
        "stats",
        "hydrate",
        "inspect",
        "verify",
    ] {
        let said = run(&[command, &missing]);
        assert_eq!(said.code, 2, "{command}");
        assert!(said.err.contains("--url"), "{command}: {}", said.err);
        assert!(said.out.is_empty());
    }
    assert!(!std::path::Path::new(&missing).exists());
    for (arguments, code, text) in [
        (
            &["query", &path, "select * from nowhere"][..],
            1,
            "no such table: nowhere",
        ),
        (&["query", &missing, "select 1"], 2, "--url"),
        (
            &["query", &path, "--url", "http://127.0.0.1:1", "select 1"],
            1,
            "belongs to",
        ),
        (
            &[
                "query",
                &missing,
                "--url",
                "http://127.0.0.1:1",
                "--timeout",
                "1s",
                "select 1",
            ],
            1,
            "error: ",
        ),
        (
            &[
                "query",
                &missing,
                "--url",
                &served.url,
                "--segment-size",
                "0",
                "select 1",
            ],
            1,
            "segment",
        ),
        (&["query", &path, "--timeout", "soon", "select 1"], 2, "30s"),
        (&["frobnicate"], 2, "frobnicate"),
        (&["serve", "/nowhere/at/all.db"], 1, "does not exist"),
        (
            &["serve", &path, "--listen", "0.0.0.0:0"],
            1,
            "refusing to listen",
        ),
        (&["serve", &path, "--tls-cert", "x.pem"], 2, "tls-key"),
    ] {
        let said = run(arguments);
        assert_eq!(said.code, code, "{arguments:?}: {}", said.err);
        assert!(said.err.contains(text), "{arguments:?}: {}", said.err);
    }
    assert!(
        !std::path::Path::new(&missing).exists(),
        "a connect that fails leaves nothing"
    );
}

#[test]
fn a_plain_file_can_be_queried_too() {
    let place = Place::new();
    let said = ok(&[
        "query",
        place.remote.to_str().unwrap(),
        "--json",
        "select count(*) as n from town",
    ]);
    assert_eq!(said.out, "[{\"n\":5000}]\n");
}
