//! A server in front of another one: replicas of either continue with the other, and each asks for tokens of its own.

use crate::support::*;

const CACHE: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

fn before(url: &str, more: &[&str]) -> Serving {
    Serving::start(&[&CACHE[..], &["--from", url], more].concat())
}

/// Ends it as it is told to.
fn end(mut server: Serving) {
    signal("-TERM", server.child.id());
    assert!(server.child.wait().unwrap().success());
}

fn name_of(replica: &str, id: u32, more: &[&str]) -> String {
    let text = format!("select name from town where id = {id}");
    let said = ok(&[&["query", replica, "--json", &text], more].concat());
    said.json()[0]["name"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn replicas_read_write_and_move_through_a_cache_that_keeps_its_pages_over_a_restart() {
    let place = Place::new();
    let origin = Serving::file(&place.remote);
    let folder = place.path("cache");
    let cache = before(&origin.url, &["--cache", &folder]);
    let [one, two] = ["one.db", "two.db"].map(|name| place.replica(name, &cache.url));
    ok(&[
        "query",
        &one,
        "insert into town values (9001, 'through the cache', 1)",
    ]);
    ok(&["push", &one]);
    ok(&["pull", &two]);
    assert_eq!(name_of(&two, 9001, &[]), "through the cache");

    // It is the same remote, nearer or not.
    ok(&["pull", &one, "--url", &origin.url, "--accept-new-url"]);
    ok(&[
        "query",
        &one,
        "update town set name = 'from the origin' where id = 9001",
    ]);
    ok(&["push", &one]);
    ok(&["pull", &two]);
    assert_eq!(name_of(&two, 9001, &[]), "from the origin");
    let third = place.replica("three.db", &cache.url);
    assert_eq!(name_of(&third, 4000, &[]), name_of(&one, 4000, &[]));

    // Ended as it should be, and another one with what it had.
    let refused = run(&[&CACHE[..], &["--from", &origin.url, "--cache", &folder]].concat());
    assert!(
        refused.code == 1 && refused.err.contains("--from") && refused.err.contains("another folder"),
        "{}",
        refused.err
    );
    end(cache);
    let cache = before(&origin.url, &["--cache", &folder, "--cache-bytes", "10m"]);
    origin.kill();
    // The origin is gone: what is here is served, and what is not says why.
    let address = ["--url", &cache.url, "--accept-new-url"];
    let said = run(&[&["pull", &third][..], &address].concat());
    assert!(said.code == 1 && said.err.contains("502"), "{}", said.err);
}

#[test]
fn a_cache_has_a_token_for_its_origin_and_its_clients_show_it_theirs() {
    let place = Place::new();
    let path = place.remote.to_str().unwrap();
    let tokens = place.path("tokens");
    std::fs::write(&tokens, "full writer\nread-only reader\nread-only cache\n").unwrap();
    let origin = Serving::start(&[
        "serve",
        path,
        "--auth-token-file",
        &tokens,
        "--listen",
        "127.0.0.1:0",
    ]);
    let own = place.path("own");
    std::fs::write(&own, "cache\n").unwrap();
    let known = place.path("known");
    std::fs::write(&known, "full writer\nread-only reader\n").unwrap();
    let own = ["--origin-token-file", &own];
    let cache = before(&origin.url, &[&own[..], &["--auth-token-file", &known]].concat());
    let text = "insert into town values (9001, 'by the writer', 1)";
    assert_eq!(sql(&cache.url, "", text).0, 401);
    assert_eq!(sql(&cache.url, "cache", text).0, 401);
    let (_, refused) = sql(&cache.url, "reader", text);
    assert!(refused.contains("error"), "{refused}");
    assert_eq!(sql(&cache.url, "writer", text).0, 200);
    let token = place.path("token");
    std::fs::write(&token, "reader").unwrap();
    let reader = ["--auth-token-file", &token];
    let replica = place.path("a.db");
    ok(&[&["query", &replica, "--url", &cache.url, "select 1"][..], &reader].concat());
    assert_eq!(name_of(&replica, 9001, &reader), "by the writer");

    // A token that is not let in is said at the start, and so is one where none is wanted.
    let wrong = before_refused(&origin.url, &[], &[]);
    assert!(
        wrong.code == 1 && wrong.err.contains("--from: ") && wrong.err.contains("token"),
        "{}",
        wrong.err
    );
    let both = [
        ("PARTIAL_SYNC_ORIGIN_TOKEN", "cache"),
        ("PARTIAL_SYNC_ORIGIN_TOKEN_FILE", own[1]),
    ];
    let wrong = before_refused(&origin.url, &[], &both);
    assert!(
        wrong.code == 2 && wrong.err.contains("are both set"),
        "{}",
        wrong.err
    );
    let bucket = format!("file://{}", place.path("bucket"));
    let wrong = before_refused(&bucket, &own, &[]);
    assert!(
        wrong.code == 2 && wrong.err.contains("--origin-token-file is for a remote"),
        "{}",
        wrong.err
    );
    let wrong = before_refused(&origin.url, &["--take-over"], &[]);
    assert!(
        wrong.code == 2 && wrong.err.contains("--take-over is for a bucket"),
        "{}",
        wrong.err
    );
    let open = Said::of(
        program()
            .args(["serve", "--listen", "0.0.0.0:0", "--from", &origin.url])
            .env("PARTIAL_SYNC_ORIGIN_TOKEN", "cache")
            .output()
            .unwrap(),
    );
    assert!(
        open.code == 1 && open.err.contains("without authentication"),
        "{}",
        open.err
    );
}

fn before_refused(url: &str, more: &[&str], variables: &[(&str, &str)]) -> Said {
    let mut command = program();
    command.args(CACHE).args(["--from", url]).args(more);
    Said::of(command.envs(variables.iter().copied()).output().unwrap())
}
