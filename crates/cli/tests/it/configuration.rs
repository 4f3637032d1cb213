//! The configuration file of `serve`: what it sets, what takes its place, and how mistakes in it are told.

use crate::support::*;

/// Runs `serve --check-config` with a file of this text.
fn check(place: &Place, text: impl AsRef<[u8]>, more: &[&str]) -> Said {
    let path = place.path("server.toml");
    std::fs::write(&path, text).unwrap();
    run(&[&["serve", "--config", &path, "--check-config"], more].concat())
}

fn line<'a>(said: &'a Said, key: &str) -> &'a str {
    let found = said.out.lines().find(|line| {
        let line = line.trim_start_matches("# ");
        line.split(' ').next() == Some(key)
    });
    found.unwrap_or_else(|| panic!("{key} is not in {}{}", said.out, said.err))
}

#[test]
fn a_flag_comes_before_the_environment_that_before_the_file_and_that_before_the_default() {
    let place = Place::new();
    std::fs::write(place.path("of-file"), "one\n").unwrap();
    std::fs::write(place.path("of-variable"), "two\n").unwrap();
    std::fs::write(place.path("of-flag"), "three\n").unwrap();
    let text =
        "retain = \"2h\"\nauth-token-file = \"of-file\"\nallowed-host = [\"a.example\", \"b.example\"]\n";
    let said = check(&place, text, &[]);
    assert_eq!(line(&said, "retain"), "retain = \"2h\"  # line 1");
    assert_eq!(line(&said, "retain-bytes"), "retain-bytes = \"1g\"  # default");
    let path = place.path("of-file");
    assert_eq!(
        line(&said, "auth-token-file"),
        format!("auth-token-file = {path:?}  # line 2")
    );
    assert_eq!(line(&said, "tls-cert"), "# tls-cert is not set");
    let hosts = "allowed-host = [\"a.example\", \"b.example\"]  # line 3";
    assert_eq!(line(&said, "allowed-host"), hosts);
    let said = check(&place, text, &["--retain", "3h", "--allowed-host", "c.example"]);
    assert_eq!(line(&said, "retain"), "retain = \"3h\"  # flag");
    assert_eq!(
        line(&said, "allowed-host"),
        "allowed-host = [\"c.example\"]  # flag"
    );

    let serve = |more: &[&str], variable: bool| {
        let mut command = program();
        command.args(["serve", place.remote.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
        command
            .args(more)
            .env("PARTIAL_SYNC_CONFIG", place.path("server.toml"));
        if variable {
            command.env("PARTIAL_SYNC_AUTH_TOKEN_FILE", place.path("of-variable"));
        }
        let served = Serving::spawn(&mut command);
        ["one", "two", "three"].map(|token| sql(&served.url, token, "select 1").0 == 200)
    };
    assert_eq!(serve(&[], false), [true, false, false]);
    assert_eq!(serve(&[], true), [false, true, false]);
    let flag = ["--auth-token-file", &place.path("of-flag")];
    assert_eq!(serve(&flag, true), [false, false, true]);
}

#[test]
fn the_path_is_a_key_and_paths_begin_where_the_file_is() {
    let place = Place::new();
    let config = place.path("server.toml");
    std::fs::write(&config, "path = \"remote.db\"\nlisten = \"127.0.0.1:0\"\n").unwrap();
    let served = Serving::start(&["serve", "--config", &config]);
    let (status, answer) = sql(&served.url, "", "select count(*) from town");
    assert!(status == 200 && answer.contains("\"5000\""), "{answer}");
}

#[test]
fn limits_without_a_flag_are_set_in_sections_and_hold() {
    let place = Place::new();
    let config = place.path("server.toml");
    let text = "listen = \"127.0.0.1:0\"\n[limits]\nbody = \"2k\"\n[sql]\npipeline-requests = 1\n";
    std::fs::write(&config, text).unwrap();
    let served = Serving::start(&["serve", place.remote.to_str().unwrap(), "--config", &config]);
    // With its `close`, two requests.
    let (status, answer) = sql(&served.url, "", "select 1");
    assert!(status == 400 && answer.contains("BATCH_TOO_LARGE"), "{answer}");
    let (status, answer) = sql(&served.url, "", &"-".repeat(3000));
    assert!(status == 413 && answer.contains("2048 bytes"), "{answer}");
}

#[test]
fn what_is_printed_is_a_file_that_means_the_same() {
    let place = Place::new();
    let text = "listen = \"127.0.0.1:0\"\nallowed-host = [\"a\\\"b\"]\n[limits]\nhead-time = \"1500ms\"\nbody = 1001\n";
    let once = check(&place, text, &["--longest-poll", "90s"]);
    assert!(
        once.out.contains("head-time = \"1s 500ms\"\n"),
        "{}{}",
        once.out,
        once.err
    );
    let twice = check(&place, &once.out, &[]);
    let without_origin = |said: &Said| {
        let lines = said
            .out
            .lines()
            .map(|line| line.split("  # ").next().unwrap().to_owned());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(without_origin(&once), without_origin(&twice), "{}", twice.err);
}

#[test]
fn the_example_is_a_configuration() {
    let place = Place::new();
    std::fs::write(place.path("tokens"), "sesame\n").unwrap();
    std::fs::write(place.path("admin-tokens"), "open\n").unwrap();
    let example = include_str!("../../../../examples/server/partial-sync.toml");
    let said = check(&place, example, &[]);
    assert_eq!(said.code, 0, "{}", said.err);
    // So is the example with all that is commented out, but for what excludes each other or names files that are not here.
    let is_key = |line: &&str| line.starts_with('#') && line.contains(" = ") && !line.starts_with("# ");
    let not_here = [
        "#allow-unauthenticated",
        "#auth-token ",
        "#auth-jwt-key",
        "#tls-",
        "#from ",
        "#cache ",
    ];
    let all: Vec<_> = example
        .lines()
        .map(
            |line| match is_key(&line) && !not_here.iter().any(|key| line.starts_with(key)) {
                true => &line[1..],
                false => line,
            },
        )
        .collect();
    let said = check(&place, all.join("\n"), &[]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.out.contains("reader-memory-bytes = \"128m\"\n"),
        "{}",
        said.out
    );
}

#[test]
fn a_mistake_is_told_with_file_line_and_key_and_what_to_do() {
    let place = Place::new();
    for (text, at, told) in [
        (
            "listn = \"x\"",
            1,
            "there is no key `listn`; did you mean `listen`?",
        ),
        ("\nauth_token_file = \"x\"", 2, "did you mean `auth-token-file`?"),
        ("connections = 5", 1, "did you mean `limits.connections`?"),
        (
            "[limit]\nconnections = 5",
            2,
            "`limit.connections`; did you mean `limits.connections`?",
        ),
        ("[limits]\nlisten = \"x\"", 2, "did you mean `listen`?"),
        (
            "[sequel]",
            1,
            "there is no section [sequel], but limits, sql, queries",
        ),
        ("config = \"x\"", 1, "there is no key `config`"),
        ("zzz = 1", 1, "--check-config` prints the keys"),
        (
            "retain = \"x\"",
            1,
            "retain: expected number at 0; write it like 30s",
        ),
        (
            "retain-bytes = \"x\"",
            1,
            "retain-bytes: `x` is not a size; write a number",
        ),
        ("retain-bytes = 1.5", 1, "retain-bytes: a number must be whole"),
        (
            "open-databases = -1",
            1,
            "open-databases: a number must be whole, not negative",
        ),
        ("auth-token-file = \"\"", 1, "auth-token-file: the text is empty"),
        (
            "\n\nlisten = \"here\"",
            3,
            "listen: `here` is not an address with a port",
        ),
        ("path = 5", 1, "path: write a text in quotes"),
        ("cors-origin = \"x\"", 1, "cors-origin: write a list"),
        ("allowed-host = [1]", 1, "allowed-host: a list must have texts"),
        (
            "allow-unauthenticated = \"yes\"",
            1,
            "allow-unauthenticated: write true or false",
        ),
        (
            "tls-cert = \"x\"",
            1,
            "tls-cert: the following required arguments were not provided: --tls-key",
        ),
        (
            "# both\nallow-unauthenticated = true\nauth-token-file = \"x\"",
            2,
            "allow-unauthenticated: the argument '--allow-unauthenticated' cannot be used with '--auth-token-file",
        ),
        ("[limits]\nbody = 0", 2, "limits.body: it must be at least 1"),
        (
            "[limits]\n\nhead-time = 10",
            3,
            "limits.head-time: write a time as a text with its unit",
        ),
        ("listen = \"a\"\nlisten = \"b\"", 2, "duplicate key"),
        ("listen = a", 1, "string values must be quoted"),
    ] {
        let said = check(&place, text, &[]);
        assert_eq!(said.code, 2, "{text}: {}{}", said.out, said.err);
        let config = place.path("server.toml");
        assert!(
            said.err.contains(&format!("{config}:{at}: ")),
            "{text}: {}",
            said.err
        );
        assert!(said.err.contains(told), "{text}: {}", said.err);
        assert_eq!(said.out, "", "{text}");
    }
    let said = check(&place, b"listen = \"\xff\"", &[]);
    assert!(
        said.code == 2 && said.err.contains("server.toml:1: this is not UTF-8"),
        "{}",
        said.err
    );
    let said = run(&["serve", "--config", &place.path("nothing")]);
    assert!(
        said.code == 1 && said.err.contains("read the configuration file"),
        "{}",
        said.err
    );
    let said = Said::of(
        program()
            .arg("serve")
            .env("PARTIAL_SYNC_CONFIG", "")
            .output()
            .unwrap(),
    );
    assert!(
        said.code == 2 && said.err.contains("PARTIAL_SYNC_CONFIG is empty"),
        "{}",
        said.err
    );
    // What is wrong with the command line is told as always.
    let said = check(&place, "retain = \"1h\"", &["--bogus"]);
    assert!(
        said.code == 2 && said.err.contains("unexpected argument '--bogus'"),
        "{}",
        said.err
    );
}

#[test]
fn a_check_reads_the_files_that_are_named_and_touches_neither_a_database_nor_a_port() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("listen = \"{}\"\n", taken.local_addr().unwrap());
    let said = check(&place, format!("path = \"made.db\"\n{listen}"), &[]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(!place.folder.path().join("made.db").exists());
    std::fs::write(place.path("keys"), "hmac:short").unwrap();
    for (text, told) in [
        (
            "auth-jwt-key = \"keys\"",
            "keys, line 1: the shared secret has 5 bytes",
        ),
        ("auth-token-file = \"nothing\"", "nothing"),
        ("tls-cert = \"c.pem\"\ntls-key = \"k.pem\"", "c.pem"),
        ("cors-origin = [\"x\"]", "\"x\" is not an origin"),
        (
            "listen = \"0.0.0.0:80\"",
            "refusing to listen on 0.0.0.0:80 without authentication",
        ),
    ] {
        let said = check(&place, text, &[]);
        assert!(said.code == 1 && said.err.contains(told), "{text}: {}", said.err);
    }
}

#[cfg(unix)]
#[test]
fn a_secret_that_everybody_can_read_is_warned_of_and_none_is_printed() {
    use std::os::unix::fs::PermissionsExt as _;

    let place = Place::new();
    let set = |name: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(place.path(name), mode).unwrap();
    };
    std::fs::write(place.path("tokens"), "simsim\n").unwrap();
    let text = "# first\nauth-token = \"sesame\"\nauth-token-file = \"tokens\"\n";
    check(&place, text, &[]);
    for (mode, warned) in [(0o644, true), (0o640, false)] {
        set("server.toml", mode);
        set("tokens", mode);
        let said = check(&place, text, &[]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(
            said.err.contains("server.toml:2: auth-token is a secret"),
            warned,
            "{}",
            said.err
        );
        assert_eq!(said.err.contains("tokens: chmod o-r"), warned, "{}", said.err);
        assert!(line(&said, "auth-token").contains("is set, and not shown"));
        for secret in ["sesame", "simsim"] {
            assert!(!said.out.contains(secret) && !said.err.contains(secret));
        }
    }
    let said = check(&place, "auth-token = sesame\n", &[]);
    assert!(said.code == 2 && !said.err.contains("sesame"), "{}", said.err);
}

/// By the option or the variable that it was given by.
#[test]
fn a_bad_address_or_file_is_told_with_the_setting_as_it_was_written() {
    let place = Place::new();
    let config = place.path("server.toml");
    let said = |text: &str, flags: &[&str], variables: &[(&str, &str)]| {
        std::fs::write(&config, text).unwrap();
        let mut command = program();
        command
            .args(["serve", "--config", &config, "--check-config"])
            .args(flags);
        Said::of(command.envs(variables.iter().copied()).output().unwrap())
    };
    let admin = ("PARTIAL_SYNC_ADMIN_TOKEN", "open");
    let (missing, no_host) = (place.path("missing"), "no.host.invalid:80");
    let in_file = |key: &str| format!("{config}:1: {key}: ");
    let told = |setting: &str| format!("error: {setting}: {no_host:?} is not an address of this machine: ");
    for (text, flags, variables, expected) in [
        ("", &["--listen", no_host][..], &[][..], told("--listen")),
        ("", &["--admin-listen", no_host], &[admin], told("--admin-listen")),
        (
            "listen = \"no.host.invalid:80\"",
            &[],
            &[],
            told(in_file("listen").trim_end_matches(": ")),
        ),
        (
            "admin-listen = \"no.host.invalid:80\"",
            &[],
            &[admin],
            told(in_file("admin-listen").trim_end_matches(": ")),
        ),
        (
            "admin-listen = \"nonsense\"",
            &[],
            &[admin],
            format!(
                "{}`nonsense` is not an address with a port",
                in_file("admin-listen")
            ),
        ),
        (
            "admin-listen = \"127.0.0.1:0\"",
            &[],
            &[("PARTIAL_SYNC_ADMIN_TOKEN_FILE", &missing)],
            format!("error: PARTIAL_SYNC_ADMIN_TOKEN_FILE: {missing}: it cannot be read"),
        ),
        (
            "admin-listen = \"127.0.0.1:0\"",
            &["--admin-token-file", &missing],
            &[],
            format!("error: --admin-token-file: {missing}: it cannot be read"),
        ),
        (
            "auth-token-file = \"missing\"",
            &[],
            &[],
            format!(
                "error: {}{missing}: it cannot be read",
                in_file("auth-token-file")
            ),
        ),
        (
            "",
            &[],
            &[("PARTIAL_SYNC_AUTH_JWT_KEY_FILE", &missing)],
            format!("error: PARTIAL_SYNC_AUTH_JWT_KEY_FILE: {missing}: it cannot be read"),
        ),
        (
            "admin-listen = \"127.0.0.1:0\"",
            &[],
            &[("PARTIAL_SYNC_ADMIN_TOKEN", "two words")],
            "error: PARTIAL_SYNC_ADMIN_TOKEN must have one token".to_owned(),
        ),
        (
            "trusted-proxy = [\"a.proxy\"]",
            &[],
            &[],
            format!(
                "error: {}\"a.proxy\" is not the address",
                in_file("trusted-proxy")
            ),
        ),
        (
            "",
            &["--trusted-proxy", "a.proxy"],
            &[],
            "error: --trusted-proxy: \"a.proxy\" is not the address".to_owned(),
        ),
        (
            "",
            &[],
            &[("PARTIAL_SYNC_TRUSTED_PROXY", "10.0.0.1,a.proxy")],
            "error: PARTIAL_SYNC_TRUSTED_PROXY: \"a.proxy\" is not the address".to_owned(),
        ),
        (
            "cors-origin = [\"x\"]",
            &[],
            &[],
            format!("error: {}\"x\" is not an origin", in_file("cors-origin")),
        ),
        (
            "tls-cert = \"missing\"\ntls-key = \"k.pem\"",
            &[],
            &[],
            format!(
                "error: {}the TLS certificate or key cannot be used: {missing}: ",
                in_file("tls-cert")
            ),
        ),
        (
            "listen = \"0.0.0.0:80\"",
            &[],
            &[],
            format!("error: {}refusing to listen on 0.0.0.0:80", in_file("listen")),
        ),
        (
            "admin-listen = \"127.0.0.1:0\"",
            &[],
            &[],
            format!("error: {}administration needs a token", in_file("admin-listen")),
        ),
        (
            "auth-token = \"two words\"",
            &[],
            &[],
            format!(
                "error: {} must have one token",
                in_file("auth-token").trim_end_matches(": ")
            ),
        ),
    ] {
        let said = said(text, flags, variables);
        assert_ne!(said.code, 0, "{expected}: {}", said.out);
        assert!(said.err.contains(&expected), "{expected}: {}", said.err);
    }
    let said = said("admin-listen = \"127.0.0.1:0\"", &[], &[admin]);
    assert_eq!(said.code, 0, "{}", said.err);
    let line = line(&said, "PARTIAL_SYNC_ADMIN_TOKEN");
    assert_eq!(line, "# PARTIAL_SYNC_ADMIN_TOKEN is set, and not shown here");
    assert!(!said.out.contains("open\""), "{}", said.out);
}
