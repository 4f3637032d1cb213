//! Keys and tokens of the real program: where they come from, and SIGHUP.

use crate::support::*;

const SECRETS: [&str; 2] = [
    "the first secret, of more than 32 bytes",
    "the second secret, of more than 32 bytes",
];

/// Was red: SIGHUP ended the program.
#[cfg(unix)]
#[test]
fn v12_sighup_reads_keys_and_tokens_again_and_never_ends_the_program() {
    let place = Place::new();
    let (keys, tokens) = (place.path("keys"), place.path("tokens"));
    std::fs::write(&keys, format!("hmac:{}", SECRETS[0])).unwrap();
    std::fs::write(&tokens, "one\n").unwrap();
    let mut command = program();
    command.args(["serve", place.remote.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    command.args(["--auth-jwt-key", &keys, "--auth-token-file", &tokens]);
    let (mut served, mut log) = Log::of(&mut command);
    let reload = |log: &mut Log, said: &str| {
        signal("-HUP", served.child.id());
        log.wait_for(said)
    };
    let write = "update town set people = 1 where id = 1";
    let is_let_in = |token: &str| sql(&served.url, token, write).0 == 200;
    assert!(is_let_in("one") && !is_let_in("two"));

    std::fs::write(&tokens, "two\nread-only three the reports\n").unwrap();
    reload(&mut log, "read again: 1 key (a secret without an id)");
    assert!(!is_let_in("one") && is_let_in("two"));
    assert!(sql(&served.url, "three", write).1.contains("SQLITE_READONLY"));

    std::fs::write(&tokens, format!("four\nfull\n{}", SECRETS[1])).unwrap();
    std::fs::write(&keys, SECRETS[1]).unwrap();
    let said = reload(&mut log, "tokens, line 2: the line must be a token");
    assert!(
        said.contains("ERROR") && said.contains("stays in force"),
        "{said}"
    );
    let said = log.wait_for("keys, line 1: this is not a key");
    assert!(!said.contains(SECRETS[1]), "{said}");
    assert!(!is_let_in("four") && is_let_in("two"));
    std::fs::remove_file(&tokens).unwrap();
    reload(&mut log, "keys, line 1: this is not a key");
    assert!(is_let_in("two"));
    signal("-TERM", served.child.id());
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
}

#[cfg(unix)]
#[test]
fn v12_sighup_without_anything_to_read_again_ends_nothing() {
    let place = Place::new();
    let mut command = program();
    command.args(["serve", place.remote.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    let (mut served, mut log) = Log::of(&mut command);
    for _ in 0..2 {
        signal("-HUP", served.child.id());
        log.wait_for("none come from a file");
    }
    assert_eq!(sql(&served.url, "", "select 1").0, 200);
    signal("-TERM", served.child.id());
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
}

/// A file that never ends being read, as a pipe that nobody writes to.
#[cfg(unix)]
#[test]
fn v12_a_file_that_is_slow_keeps_nobody_waiting_and_sigterm_ends_the_program() {
    let place = Place::new();
    let tokens = place.path("tokens");
    std::fs::write(&tokens, "one\n").unwrap();
    let mut command = program();
    command.args(["serve", place.remote.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    command.args(["--auth-token-file", &tokens]);
    let (mut served, mut log) = Log::of(&mut command);
    std::fs::remove_file(&tokens).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(&tokens)
        .status()
        .unwrap();
    assert!(made.success());
    signal("-HUP", served.child.id());
    // Opening it for writing waits until somebody reads it.
    let pipe = std::fs::OpenOptions::new().write(true).open(&tokens).unwrap();
    assert_eq!(sql(&served.url, "one", "select 1").0, 200);
    signal("-HUP", served.child.id());
    signal("-TERM", served.child.id());
    log.wait_for("stopping");
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
    drop(pipe);
}

/// Was impossible: keys and tokens had to be made with other programs.
#[test]
fn v12_a_token_of_the_program_allows_what_it_was_made_for() {
    let place = Place::new();
    rusqlite::Connection::open(place.path("other.db"))
        .unwrap()
        .execute_batch("create table town(id)")
        .unwrap();
    let (key, public) = (place.path("key"), place.path("key.pub"));
    let said = ok(&["token", "key", "--out", &key]);
    let id = said
        .out
        .lines()
        .last()
        .unwrap()
        .strip_prefix("its id: ")
        .unwrap()
        .to_owned();
    let private = std::fs::read_to_string(&key).unwrap();
    assert!(
        !said.out.contains(private.lines().nth(1).unwrap()),
        "{}",
        said.out
    );
    let create = |more: &[&str]| {
        let said = ok(&[&["token", "create", "--key", &key, "--expiration", "1h"], more].concat());
        let token = said.out.strip_suffix('\n').unwrap();
        assert!(
            said.err.is_empty() && !token.contains(char::is_whitespace),
            "{}{}",
            said.out,
            said.err
        );
        token.to_owned()
    };
    let served = Serving::start(&[
        "serve",
        place.folder.path().to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--auth-jwt-key-file",
        &public,
    ]);
    let write = |database: &str, token: &str| {
        let url = format!("{}/{database}", served.url);
        let (status, answer) = sql(&url, token, "delete from town where id = 0");
        (status, answer.contains("SQLITE_READONLY"))
    };
    let (all, reader) = (create(&[]), create(&["--read-only", "--subject", "ann"]));
    let other = create(&["--database", "other", "--database", "third"]);
    let (may, may_read, no) = ((200, false), (200, true), (403, false));
    assert_eq!([write("remote", &all), write("other", &all)], [may, may]);
    assert_eq!(
        [write("remote", &reader), write("other", &reader)],
        [may_read, may_read]
    );
    assert_eq!([write("remote", &other), write("other", &other)], [no, may]);
    assert_eq!(write("remote", ""), (401, false));

    let said = with_stdin(&["token", "show"], &format!("{reader}\n")).out;
    for line in [
        "alg   \"EdDSA\"\n",
        &format!("kid   \"{id}\"\n"),
        "sub   \"ann\"\n",
        "a     \"ro\"\n",
    ] {
        assert!(said.contains(line), "{line:?} in {said}");
    }
    assert!(
        said.lines()
            .any(|line| line.starts_with("exp   2") && line.ends_with('Z')),
        "{said}"
    );
    // {"alg":"EdDSA"} . {"exp":1,"a":{"\u001b":1}}
    let expired = "eyJhbGciOiJFZERTQSJ9.eyJleHAiOjEsImEiOnsiXHUwMDFiIjoxfX0.AAAA";
    let shown = with_stdin(&["token", "show"], expired).out;
    assert!(
        shown.contains("exp   1970-01-01T00:00:01Z (expired)\n"),
        "{shown}"
    );
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    let file = place.path("token");
    std::fs::write(&file, &other).unwrap();
    let shown = ok(&["token", "show", &file, "--json"]).json();
    assert_eq!(
        shown["claims"]["p"]["rw"]["ns"],
        serde_json::json!(["other", "third"])
    );
    let signature = reader.rsplit('.').next().unwrap();
    assert!(!said.contains(signature));
    for bad in ["", "s3cret", "s3cret.s3cret.x", "e30.e30"] {
        let said = with_stdin(&["token", "show"], bad);
        assert!(
            said.code == 1 && said.err.contains("not a JSON Web Token"),
            "{}",
            said.err
        );
        assert!(!said.err.contains("s3cret"), "{}", said.err);
    }
}

#[test]
fn v12_a_key_is_for_its_owner_only_and_never_overwritten() {
    let place = Place::new();
    let (key, public) = (place.path("key"), place.path("key.pub"));
    ok(&["token", "key", "--out", &key]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let read = || (std::fs::read(&key).ok(), std::fs::read(&public).ok());
    let before = read();
    let make = || run(&["token", "key", "--out", &key]);
    let refused = make();
    assert!(
        refused.code == 1 && refused.err.contains("never overwritten"),
        "{}",
        refused.err
    );
    assert_eq!(read(), before);
    std::fs::remove_file(&key).unwrap();
    assert!(make().err.contains("key.pub is there already"));
    assert_eq!(read(), (None, before.1.clone()), "no half of a pair");
    std::fs::remove_file(&public).unwrap();
    std::fs::write(&key, "mine").unwrap();
    assert!(make().err.contains("key is there already"));
    assert_eq!(read(), (Some(b"mine".to_vec()), None));
    let nowhere = run(&["token", "key", "--out", &place.path("no/key")]);
    assert!(
        nowhere.code == 1 && nowhere.err.contains("could not write"),
        "{}",
        nowhere.err
    );
}

#[test]
fn v12_a_token_is_made_of_a_key_in_the_environment_and_wrong_calls_say_what_to_do() {
    let place = Place::new();
    let create = |variable: Option<&str>, arguments: &[&str]| {
        let mut command = program();
        command.args(["token", "create"]).args(arguments);
        if let Some(value) = variable {
            command.env("PARTIAL_SYNC_SIGNING_KEY", value);
        }
        Said::of(command.output().unwrap())
    };
    let never = ["--expiration", "never"];
    let secret = format!("new hmac:{}", SECRETS[0]);
    let made = create(Some(&secret), &never);
    let shown = with_stdin(&["token", "show", "--json"], &made.out).json();
    assert_eq!(
        (&shown["header"]["kid"], &shown["header"]["alg"]),
        (&"new".into(), &"HS256".into())
    );
    assert_eq!(shown["claims"].get("exp"), None);
    let key = place.path("key");
    std::fs::write(&key, SECRETS[0]).unwrap();
    for (variable, arguments, code, text) in [
        (None, &never[..], 2, "give the key to sign with by --key FILE"),
        (Some(""), &never, 2, "PARTIAL_SYNC_SIGNING_KEY is empty"),
        (
            Some(SECRETS[0]),
            &never,
            1,
            "PARTIAL_SYNC_SIGNING_KEY: line 1: tokens cannot be signed",
        ),
        (
            None,
            &["--expiration", "never", "--key", &key],
            1,
            "key, line 1: tokens cannot be signed",
        ),
        (Some(&secret), &[], 2, "--expiration <TIME>"),
        (Some(&secret), &["--expiration", "30"], 2, "write it like 30s"),
        (
            Some(&secret),
            &["--expiration", "0s"],
            2,
            "expired when it is made",
        ),
        (
            Some(&secret),
            &["--expiration", "200000years"],
            2,
            "write `never`",
        ),
        (
            Some(&secret),
            &["--expiration", "1h", "--database", ""],
            2,
            "--database",
        ),
    ] {
        let said = create(variable, arguments);
        assert_eq!(
            (said.code, said.out.as_str()),
            (code, ""),
            "{arguments:?}: {}",
            said.err
        );
        assert!(said.err.contains(text), "{text:?} in {}", said.err);
        assert!(!said.err.contains(SECRETS[0]), "{}", said.err);
    }
}

/// Was red: a token could be given on the command line, where others see it, or in one variable.
#[test]
fn v12_no_secret_has_to_be_on_a_command_line() {
    let place = Place::new();
    let remote = place.remote.to_str().unwrap().to_owned();
    let file = |name: &str, contents: &str| {
        let path = place.path(name);
        std::fs::write(&path, contents).unwrap();
        path
    };
    let keys = format!("hmac:{}", SECRETS[0]);
    let tokens = file("tokens", "read-only sesame\n");
    let of_key = {
        let mut command = program();
        command.args(["token", "create", "--expiration", "1h", "--read-only"]);
        command.env("PARTIAL_SYNC_SIGNING_KEY", &keys);
        Said::of(command.output().unwrap()).out.trim().to_owned()
    };
    let serve = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = program();
        command
            .args(["serve", &remote, "--listen", "127.0.0.1:0"])
            .args(arguments);
        command.envs(variables.iter().copied());
        command
    };
    let key_file = file("keys", &keys);
    for (variables, good) in [
        (&[("PARTIAL_SYNC_AUTH_TOKEN", "sesame\n")][..], "sesame"),
        (&[("PARTIAL_SYNC_AUTH_TOKEN_FILE", tokens.as_str())], "sesame"),
        (&[("PARTIAL_SYNC_AUTH_JWT_KEY", keys.as_str())], of_key.as_str()),
        (
            &[("PARTIAL_SYNC_AUTH_JWT_KEY_FILE", key_file.as_str())],
            of_key.as_str(),
        ),
        (
            &[
                ("PARTIAL_SYNC_AUTH_TOKEN", "other"),
                ("PARTIAL_SYNC_AUTH_TOKEN_FILE", tokens.as_str()),
            ],
            "sesame",
        ),
    ] {
        let served = Serving::spawn(&mut serve(variables, &[]));
        assert_eq!(sql(&served.url, good, "select 1").0, 200, "{variables:?}");
        assert_eq!(sql(&served.url, "simsim", "select 1").0, 401, "{variables:?}");
        // The client's side.
        let at = place.path(&format!("{}.replica", variables.len() + variables[0].0.len()));
        let given = file("token", &format!("\n{good}\n"));
        let query = ["query", &at, "--url", &served.url, "select 1"];
        let client = |arguments: &[&str], variable: Option<(&str, &str)>| {
            let mut command = program();
            command.args(query).args(arguments).envs(variable);
            Said::of(command.output().unwrap())
        };
        for said in [
            client(
                &["--auth-token-file", &given],
                Some(("PARTIAL_SYNC_AUTH_TOKEN", "wrong")),
            ),
            client(&[], Some(("PARTIAL_SYNC_AUTH_TOKEN", good))),
            client(&[], Some(("PARTIAL_SYNC_AUTH_TOKEN_FILE", &given))),
        ] {
            assert_eq!((said.code, said.err.as_str()), (0, ""), "{variables:?}");
        }
        let said = client(&["--auth-token", good], None);
        assert!(
            said.code == 0 && said.err.contains("others on this machine can read"),
            "{}",
            said.err
        );
        assert!(!said.err.contains(good));
    }
    let (_served, mut log) = Log::of(&mut serve(&[], &["--auth-token", "sesame"]));
    let said = log.wait_for("others on this machine can read");
    assert!(said.contains("WARN") && !said.contains("sesame"), "{said}");
}

#[test]
fn v12_secrets_that_contradict_each_other_or_are_empty_are_told() {
    let place = Place::new();
    let remote = place.remote.to_str().unwrap().to_owned();
    let two = place.path("two");
    std::fs::write(&two, "sesame\nsimsim\n").unwrap();
    let said = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = program();
        command.args(arguments).envs(variables.iter().copied());
        Said::of(command.output().unwrap())
    };
    let serve = ["serve", &remote, "--listen", "127.0.0.1:0"];
    let open = [
        "serve",
        &remote,
        "--listen",
        "127.0.0.1:0",
        "--allow-unauthenticated",
    ];
    let shell = [remote.as_str(), "--sync-server", "127.0.0.1:0"];
    let query = [
        "query",
        &place.path("a.db"),
        "--url",
        "http://127.0.0.1:1",
        "select 1",
    ];
    let both = [
        ("PARTIAL_SYNC_AUTH_TOKEN", "sesame"),
        ("PARTIAL_SYNC_AUTH_TOKEN_FILE", two.as_str()),
    ];
    for (arguments, variables, code, text) in [
        (
            &serve[..],
            &[("PARTIAL_SYNC_AUTH_TOKEN", "")][..],
            2,
            "PARTIAL_SYNC_AUTH_TOKEN is empty",
        ),
        (
            &serve,
            &[("PARTIAL_SYNC_AUTH_JWT_KEY", " ")],
            2,
            "PARTIAL_SYNC_AUTH_JWT_KEY is empty",
        ),
        (
            &shell,
            &[("PARTIAL_SYNC_AUTH_JWT_KEY_FILE", "")],
            2,
            "PARTIAL_SYNC_AUTH_JWT_KEY_FILE is empty",
        ),
        (
            &serve,
            &[("PARTIAL_SYNC_AUTH_TOKEN", "sesame\nsimsim")],
            1,
            "PARTIAL_SYNC_AUTH_TOKEN must have one token",
        ),
        (
            &serve,
            &[("PARTIAL_SYNC_AUTH_JWT_KEY", "hmac:sesame")],
            1,
            "PARTIAL_SYNC_AUTH_JWT_KEY: line 1: the shared",
        ),
        (
            &open,
            &[("PARTIAL_SYNC_AUTH_TOKEN", "sesame")],
            2,
            "lets everybody in, but PARTIAL_SYNC_AUTH_TOKEN",
        ),
        (&query, &both, 2, "are both set: unset one"),
        (
            &query,
            &[("PARTIAL_SYNC_AUTH_TOKEN_FILE", two.as_str())],
            1,
            "two must have one token and nothing else",
        ),
        (
            &query,
            &[("PARTIAL_SYNC_AUTH_TOKEN_FILE", "/nothing/here")],
            1,
            "could not read /nothing/here",
        ),
    ] {
        let said = said(arguments, variables);
        assert_eq!(said.code, code, "{arguments:?}: {}", said.err);
        assert!(said.err.contains(text), "{text:?} in {}", said.err);
        assert!(
            !said.err.contains("sesame") && !said.err.contains("simsim"),
            "{}",
            said.err
        );
    }
    // A client that was given nothing asks without a token.
    let local = place.path("local.db");
    rusqlite::Connection::open(&local)
        .unwrap()
        .execute_batch("create table t(x)")
        .unwrap();
    let said = said(&["query", &local, "select 1"], &[("PARTIAL_SYNC_AUTH_TOKEN", "")]);
    assert_eq!(said.code, 0, "{}", said.err);
}

/// It reads the files that the configuration names; who has changed the configuration itself is told what became of it.
#[cfg(unix)]
#[test]
fn sighup_says_which_changes_of_the_configuration_wait_for_a_restart() {
    let place = Place::new();
    let (config, tokens) = (place.path("server.toml"), place.path("tokens"));
    std::fs::write(&tokens, "one\n").unwrap();
    let text = |more: &str| format!("listen = \"127.0.0.1:0\"\nauth-token-file = \"tokens\"\n{more}");
    std::fs::write(&config, text("retain = \"2h\"\n[limits]\nbody = \"1m\"\n")).unwrap();
    let mut command = program();
    command.args(["serve", place.remote.to_str().unwrap(), "--config", &config]);
    let (served, mut log) = Log::of(&mut command);
    assert_eq!(sql(&served.url, "one", "select 1").0, 200);
    log.wait_for("opened");
    let mut reload = || {
        signal("-HUP", served.child.id());
        // In whichever order.
        let lines = [(); 2].map(|()| log.wait_for(" "));
        let read = lines.iter().any(|line| line.contains("read again: 1 token"));
        assert!(read, "{lines:?}");
        lines
            .into_iter()
            .find(|line| !line.contains("read again"))
            .unwrap()
    };
    let changed = "retain = \"3h\"\nauth-token = \"sesame\"\n[limits]\nbody = \"2m\"\n";
    std::fs::write(&config, text(changed)).unwrap();
    let said = reload();
    assert!(
        said.contains(&format!(
            "{config} was changed since the start: auth-token, limits.body, retain take effect when the server is started again"
        )) && !said.contains("sesame"),
        "{said}"
    );
    std::fs::write(&config, text("retain =")).unwrap();
    let said = reload();
    assert!(
        said.contains("server.toml:3: ") && said.contains("next start"),
        "{said}"
    );
    std::fs::remove_file(&config).unwrap();
    assert!(reload().contains("could not read the configuration file"));
    assert_eq!(sql(&served.url, "one", "select 1").0, 200);
    // As it was: nothing waits.
    std::fs::write(&config, text("retain = \"2h\"\n[limits]\nbody = \"1m\"\n")).unwrap();
    signal("-HUP", served.child.id());
    log.wait_for("read again: 1 token");
    signal("-TERM", served.child.id());
    let rest = log.rest();
    assert!(!rest.iter().any(|line| line.contains(&config)), "{rest:?}");
}
