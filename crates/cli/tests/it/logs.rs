//! The log of `serve`: its two forms, a line for each request, and what must never be in it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::Value;

use crate::support::*;

/// Sends bytes on a connection of their own, and reads what comes back.
fn send(served: &Serving, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(served.url.trim_start_matches("http://")).unwrap();
    socket.write_all(request).unwrap();
    let mut answer = Vec::new();
    // A connection that is closed early is as good as an answer.
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn serve(place: &Place, more: &[&str]) -> std::process::Command {
    let mut command = program();
    command.args([
        "serve",
        place.folder.path().to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
    ]);
    command.args(more);
    command
}

/// The rest of the log, after the server was told to stop.
fn stopped(mut served: Serving, log: Log) -> Vec<String> {
    signal("-TERM", served.child.id());
    let lines = log.rest();
    served.child.wait().unwrap();
    lines
}

#[test]
fn a_request_is_told_with_what_an_operator_asks_for() {
    let place = Place::new();
    std::fs::write(place.path("tokens"), "sesame\n").unwrap();
    let tokens = place.path("tokens");
    let flags = [
        "--log-requests",
        "--log-format",
        "json",
        "--auth-token-file",
        &tokens,
    ];
    let (served, log) = Log::of(&mut serve(&place, &flags));
    let url = format!("{}/remote", served.url);
    let (_, answer) = sql(&url, "sesame", "select name from town where id = 7");
    let body = answer.split_once("\r\n\r\n").unwrap().1.len();
    assert_eq!(sql(&url, "", "select 1").0, 401);
    assert_eq!(
        sql(&format!("{}/nothing", served.url), "sesame", "select 1").0,
        404
    );
    send(&served, b"GET /health?a=b HTTP/1.0\r\n\r\n");
    let lines: Vec<Value> = stopped(served, log)
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let told: Vec<_> = lines.iter().filter(|line| line["message"] == "request").collect();
    assert_eq!(told.len(), 4, "{lines:?}");
    let is = |at: usize, key: &str| told[at][key].clone();
    assert_eq!(is(0, "level"), "INFO");
    assert_eq!(is(0, "method"), "POST");
    assert_eq!(is(0, "path"), "/remote/v2/pipeline");
    assert_eq!(is(0, "database"), "remote");
    assert_eq!(is(0, "status"), 200);
    assert_eq!(is(0, "bytes"), body);
    assert_eq!(is(0, "remote"), "127.0.0.1");
    assert_eq!(is(0, "cut"), Value::Null);
    assert!(is(0, "ms").is_u64() && is(0, "timestamp").is_string());
    assert_eq!(is(0, "caller").as_str().unwrap().len(), 16);
    let id = is(0, "id").as_str().unwrap().to_owned();
    assert!(answer.contains(&format!("x-request-id: {id}\r\n")), "{answer}");
    assert_eq!(told.iter().filter(|line| line["id"] == *id).count(), 1);
    assert_eq!((is(1, "status"), is(1, "caller")), (401.into(), Value::Null));
    assert_eq!(
        (is(2, "status"), is(2, "path")),
        (404.into(), "/*/v2/pipeline".into())
    );
    assert_eq!(is(2, "caller"), is(0, "caller"));
    assert_eq!((is(3, "method"), is(3, "path")), ("GET".into(), "/health".into()));
}

/// By a flag, by the environment, and by the configuration file, of which the first that says something counts.
#[test]
fn the_client_of_a_trusted_proxy_is_told_and_of_others_the_address_that_they_have() {
    let place = Place::new();
    let config = place.path("server.toml");
    std::fs::write(&config, "trusted-proxy = [\"10.0.0.0/8\", \"127.0.0.1\"]\n").unwrap();
    let of_proxy = "198.51.100.7";
    for (flags, variable, told) in [
        (&[][..], None, "127.0.0.1"),
        (&["--trusted-proxy", "127.0.0.0/8"], None, of_proxy),
        (&["--trusted-proxy", "192.0.2.1"], Some("127.0.0.1"), "127.0.0.1"),
        (&[], Some("192.0.2.1, 127.0.0.1"), of_proxy),
        (&["--config", &config], None, of_proxy),
        (&["--config", &config], Some("192.0.2.1"), "127.0.0.1"),
    ] {
        let mut command = serve(&place, &["--log-requests"]);
        command.args(flags);
        if let Some(variable) = variable {
            command.env("PARTIAL_SYNC_TRUSTED_PROXY", variable);
        }
        let (served, mut log) = Log::of(&mut command);
        send(
            &served,
            b"GET /health HTTP/1.0\r\nX-Forwarded-For: 1.1.1.1, 198.51.100.7\r\n\r\n",
        );
        let line = log.wait_for(" request id=");
        assert!(
            line.contains(&format!("remote={told}")),
            "{flags:?} {variable:?}: {line}"
        );
        // Before the next one.
        drop(served);
    }
    let said = run(&["serve", "--check-config", "--trusted-proxy", "example.org"]);
    assert!(
        said.code == 1 && said.err.contains("\"example.org\" is not the address of a proxy"),
        "{}",
        said.err
    );
}

#[test]
fn without_the_flag_requests_are_not_told_and_answers_have_no_id() {
    let place = Place::new();
    let (served, log) = Log::of(&mut serve(&place, &[]));
    let (status, answer) = sql(&format!("{}/remote", served.url), "", "select 1");
    assert!(status == 200 && !answer.contains("x-request-id"), "{answer}");
    let lines = stopped(served, log);
    assert!(!lines.iter().any(|line| line.contains("request")), "{lines:?}");
}

#[test]
fn a_client_that_leaves_before_its_answer_is_told_of_as_nginx_does() {
    let place = Place::new();
    let (served, mut log) = Log::of(&mut serve(&place, &["--log-requests"]));
    let sql = "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c";
    let body = format!(r#"{{"requests":[{{"type":"execute","stmt":{{"sql":"{sql}"}}}}]}}"#);
    let mut socket = TcpStream::connect(served.url.trim_start_matches("http://")).unwrap();
    write!(
        socket,
        "POST /remote/v2/pipeline HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    // It is opened for this request.
    log.wait_for("opened");
    drop(socket);
    let line = log.wait_for(" request id=");
    assert!(
        line.contains("status=499 bytes=0") && line.contains("caller="),
        "{line}"
    );
}

#[test]
fn requests_for_administration_are_told_too_and_none_of_their_secrets() {
    let place = Place::new();
    std::fs::write(place.path("admin"), "read-only looker\nboss-of-it-all\n").unwrap();
    let admin = place.path("admin");
    let flags = ["--admin-listen", "127.0.0.1:0", "--admin-token-file", &admin];
    let more = ["--log-requests", "--log-format", "json"];
    let mut command = serve(&place, &[&flags[..], &more].concat());
    let mut child = command
        .env("RUST_LOG", "trace")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // What it says must be read, or it waits.
    let mut log = child.stderr.take().unwrap();
    let log = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    });
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("administration on ") {
        assert!(
            std::io::BufRead::read_line(&mut out, &mut said).unwrap() > 0,
            "{said}"
        );
    }
    let address = said.split("administration on http://").nth(1).unwrap().trim();
    let ask = |method: &str, path: &str, token: &str| {
        let mut socket = TcpStream::connect(address).unwrap();
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("x-request-id: "), "{answer}");
    };
    for (method, path, token) in [
        ("GET", "/v1/namespaces/remote/stats?sesame", "looker"),
        ("DELETE", "/v1/namespaces/remote", "looker"),
        ("GET", "/v1/namespaces/sesame/stats", "boss-of-it-all"),
        ("GET", "/sesame", "wrong-sesame"),
        ("DELETE", "/v1/namespaces/remote", "boss-of-it-all"),
    ] {
        ask(method, path, token);
    }
    signal("-TERM", child.id());
    child.wait().unwrap();
    let text = log.join().unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let told: Vec<_> = lines.iter().filter(|line| line["message"] == "request").collect();
    let is = |at: usize| {
        let line = told[at];
        let text = |key: &str| line[key].as_str().map(str::to_owned);
        let status = line["status"].as_u64().unwrap();
        (
            text("method").unwrap(),
            text("path").unwrap(),
            status,
            text("database"),
            text("caller").is_some(),
        )
    };
    let expected = |method: &str, path: &str, status, database: Option<&str>, caller| {
        (
            method.to_owned(),
            path.to_owned(),
            status,
            database.map(str::to_owned),
            caller,
        )
    };
    assert_eq!(told.len(), 5, "{text}");
    let of_remote = |rest: &str| format!("/v1/namespaces/remote{rest}");
    assert_eq!(
        is(0),
        expected("GET", &of_remote("/stats"), 200, Some("remote"), true)
    );
    assert_eq!(
        is(1),
        expected("DELETE", &of_remote(""), 403, Some("remote"), true)
    );
    assert_eq!(is(2), expected("GET", "/v1/namespaces/*/stats", 404, None, true));
    assert_eq!(is(3), expected("GET", "/*", 401, None, false));
    assert_eq!(
        is(4),
        expected("DELETE", &of_remote(""), 200, Some("remote"), true)
    );
    for secret in ["sesame", "looker", "boss-of-it-all"] {
        // The operation of an administrator is told with the name that it was for.
        let found = text.lines().find(|line| line.contains(secret));
        assert_eq!(found, None, "{secret}");
    }
}

/// With all that can be logged, over HTTP/1 and HTTP/2.
#[test]
fn no_secret_is_in_the_log_wherever_a_client_puts_it() {
    let place = Place::new();
    let secret = "sesame0123456789abcdef";
    std::fs::write(place.path("tokens"), format!("{secret}\n")).unwrap();
    let tokens = place.path("tokens");
    for format in ["text", "json"] {
        let mut command = serve(
            &place,
            &[
                "--log-requests",
                "--log-format",
                format,
                "--auth-token-file",
                &tokens,
            ],
        );
        let (served, log) = Log::of(command.env("RUST_LOG", "trace"));
        let body = |sql: &str| {
            format!(
                r#"{{"requests":[{{"type":"execute","stmt":{{"sql":"{sql}","args":[{{"type":"text","value":"{secret}"}}]}}}}]}}"#
            )
        };
        for (line, headers) in [
            (format!("GET /?token={secret} HTTP/1.1"), String::new()),
            (format!("GET /{secret} HTTP/1.1"), String::new()),
            (format!("GET /remote/v2/{secret} HTTP/1.1"), String::new()),
            (format!("GET http://{secret}@localhost/ HTTP/1.1"), String::new()),
            (
                format!("GET http://{secret}/ HTTP/1.1"),
                format!("Host: {secret}\r\n"),
            ),
            (format!("{secret} / HTTP/1.1"), String::new()),
            (format!("GET / {secret}"), String::new()),
            ("GET / HTTP/1.1".to_owned(), format!("Host: {secret}\r\n")),
            (
                "GET / HTTP/1.1".to_owned(),
                format!("Host: {secret}:80\r\nHost: {secret}\r\n"),
            ),
            (
                "GET /metrics HTTP/1.1".to_owned(),
                format!("Authorization: Bearer {secret}\r\n"),
            ),
            (
                "GET /metrics HTTP/1.1".to_owned(),
                format!("Authorization: Basic {secret}\r\n"),
            ),
            (
                "GET /metrics HTTP/1.1".to_owned(),
                format!("Authorization: Bearer {secret}{secret}\r\n"),
            ),
            (
                "GET /remote/v2/pipeline HTTP/1.1".to_owned(),
                format!("Authorization: Bearer {secret}\r\n"),
            ),
            (
                "GET /health HTTP/1.1".to_owned(),
                format!("X-Request-Id: {secret}\r\nCookie: a={secret}\r\n"),
            ),
            (
                "GET /health HTTP/1.1".to_owned(),
                format!("Origin: https://{secret}\r\n"),
            ),
            (
                "GET /health HTTP/1.1".to_owned(),
                format!("Referer: https://a/{secret}\r\nUser-Agent: {secret}\r\n"),
            ),
            (
                "POST /remote/pull-updates HTTP/1.1".to_owned(),
                format!("Content-Type: {secret}\r\n"),
            ),
        ] {
            let host = if headers.contains("Host: ") {
                ""
            } else {
                "Host: localhost\r\n"
            };
            send(
                &served,
                format!("{line}\r\n{host}{headers}Connection: close\r\n\r\n").as_bytes(),
            );
        }
        for sql in [
            format!("select '{secret}', ?"),
            format!("not {secret} sql"),
            format!("insert into {secret} values (?)"),
        ] {
            let body = body(&sql);
            let head = format!(
                "POST /remote/v2/pipeline HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let answer = send(&served, format!("{head}{body}").as_bytes());
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let replica = place.path(&format!("{format}.replica"));
        let url = format!("{}/remote", served.url);
        let mut query = program();
        query.args(["query", &replica, "--url", &url, "select count(*) from town"]);
        assert!(
            query
                .env("PARTIAL_SYNC_AUTH_TOKEN", secret)
                .status()
                .unwrap()
                .success()
        );
        let lines = stopped(served, log);
        assert!(lines.len() > 20, "{lines:?}");
        for line in lines {
            assert!(!line.contains("sesame") && !line.contains("c2VzYW1l"), "{line}");
        }
    }
}

#[test]
fn nothing_that_a_client_sends_makes_a_line_of_its_own() {
    let place = Place::new();
    for format in ["text", "json"] {
        let mut command = serve(&place, &["--log-requests", "--log-format", format]);
        let (served, log) = Log::of(&mut command);
        for request in [
            b"GET /a%0aERROR%20forged HTTP/1.1\r\nHost: localhost\r\n\r\n".as_slice(),
            b"GET /\x1b[31mforged HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /a\nforged HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET /a\u{202e}forged HTTP/1.1\r\nHost: localhost\r\n\r\n".as_bytes(),
            b"GET /\"\" status=200 forged HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: local\x1b[2Jforged\r\n\r\n",
            b"FORGED / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        ] {
            let closing = [
                request.strip_suffix(b"\r\n").unwrap(),
                b"Connection: close\r\n\r\n",
            ]
            .concat();
            send(&served, &closing);
        }
        for line in stopped(served, log) {
            let low = line.to_lowercase();
            assert!(!low.contains("forged") && !line.contains('\u{1b}'), "{line:?}");
            match format {
                "json" => drop(serde_json::from_str::<Value>(&line).unwrap()),
                _ => assert!(line.starts_with("20"), "{line:?}"),
            }
        }
    }
}

/// Anyone can send these, as fast as the server answers them.
#[test]
fn a_stranger_cannot_fill_the_log() {
    let place = Place::new();
    std::fs::write(place.path("tokens"), "sesame\n").unwrap();
    let tokens = place.path("tokens");
    let (served, log) = Log::of(&mut serve(
        &place,
        &["--log-requests", "--auth-token-file", &tokens],
    ));
    let began = std::time::Instant::now();
    for at in 0..40 {
        let paths = ["/remote/v2/pipeline", "/", "/health", "/nothing"];
        let one = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", paths[at % 4]);
        let last = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        send(&served, (one.repeat(24) + last).as_bytes());
    }
    let seconds = began.elapsed().as_secs() as usize + 2;
    assert_eq!(
        sql(&format!("{}/remote", served.url), "sesame", "select 1").0,
        200
    );
    let lines = stopped(served, log);
    let told: Vec<_> = lines.iter().filter(|line| line.contains("status=")).collect();
    assert!(
        told.len() <= 20 * seconds + 1,
        "{} lines in {seconds} s",
        told.len()
    );
    assert!(told.last().unwrap().contains("caller="), "{told:?}");
}

/// Was red: those for the state of the server were told as a stranger's, 20 in a second.
#[test]
fn a_server_that_lets_everybody_in_tells_of_every_request() {
    let place = Place::new();
    let (served, log) = Log::of(&mut serve(&place, &["--log-requests"]));
    for path in ["/health", "/metrics", "/v2"] {
        let one = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let last = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        send(&served, (one.repeat(50) + last).as_bytes());
    }
    let lines = stopped(served, log);
    for path in ["/health", "/metrics", "/v2"] {
        let of_path = format!("path=\"{path}\"");
        assert_eq!(
            lines.iter().filter(|line| line.contains(&of_path)).count(),
            50,
            "{path}"
        );
    }
}

#[test]
fn what_keeps_the_server_from_starting_is_json_too() {
    let place = Place::new();
    let said = run(&[
        "serve",
        &place.path("no/such/folder/a.db"),
        "--log-format",
        "json",
        "--listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(said.code, 1);
    let line: Value = serde_json::from_str(said.err.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "ERROR", "{}", said.err);
}

/// Was red: a file that could not be read again was in the log and in no metric.
#[cfg(unix)]
#[test]
fn files_that_were_read_again_are_counted() {
    let place = Place::new();
    let tokens = place.path("tokens");
    std::fs::write(&tokens, "sesame\n").unwrap();
    let (served, mut log) = Log::of(&mut serve(&place, &["--auth-token-file", &tokens]));
    signal("-HUP", served.child.id());
    log.wait_for("read again: 1 token");
    std::fs::write(&tokens, "").unwrap();
    signal("-HUP", served.child.id());
    log.wait_for("stays in force");
    let metrics = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sesame\r\nConnection: close\r\n\r\n";
    let text = send(&served, metrics);
    for result in ["ok", "failed"] {
        let line = format!("partial_sync_reloads_total{{what=\"tokens\",result=\"{result}\"}} 1\n");
        assert!(text.contains(&line), "{text}");
    }
}

/// Was red: the server waited for its request for as long as for answers that are under way.
#[test]
fn who_has_not_finished_a_handshake_does_not_keep_the_server_from_stopping() {
    let place = Place::new();
    let tls = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/tests/it/pages/tls");
    let (certificate, key) = (format!("{tls}/certificate.pem"), format!("{tls}/key.pem"));
    let (served, log) = Log::of(&mut serve(
        &place,
        &["--tls-cert", &certificate, "--tls-key", &key],
    ));
    let connect = || TcpStream::connect(served.url.trim_start_matches("https://")).unwrap();
    let silent = connect();
    // It is accepted when the next one is answered.
    let mut next = connect();
    next.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = next.read_to_end(&mut Vec::new());
    let lines = stopped(served, log);
    assert!(!lines.iter().any(|line| line.contains("cut off")), "{lines:?}");
    drop(silent);
}

/// Was red: each time took another thread for good, and with the last of them everybody waited.
#[test]
fn a_file_that_does_not_end_is_read_once_however_often_it_is_to_be_read_again() {
    let place = Place::new();
    let tokens = place.path("tokens");
    std::fs::write(&tokens, "sesame\n").unwrap();
    let (served, mut log) = Log::of(&mut serve(&place, &["--auth-token-file", &tokens]));
    std::fs::remove_file(&tokens).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&tokens).status();
    assert!(made.unwrap().success());
    let threads = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", served.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Threads:"))?;
        line.trim().parse::<usize>().ok()
    };
    let before = threads();
    for _ in 0..100 {
        signal("-HUP", served.child.id());
        let (status, _) = sql(&format!("{}/remote", served.url), "sesame", "select 1");
        assert_eq!(status, 200);
    }
    // Where the system tells.
    if let (Some(before), Some(now)) = (before, threads()) {
        assert!(now < before + 30, "{before} threads, then {now}");
    }
    for _ in 0..2 {
        std::fs::write(&tokens, "sesame\nsecond\n").unwrap();
        log.wait_for("read again: 2 tokens");
    }
}

/// A pipe that nobody reads stops neither the answers nor the end.
#[test]
fn a_log_that_nobody_reads_keeps_nobody_waiting_and_what_is_dropped_is_counted() {
    let place = Place::new();
    std::fs::write(place.path("tokens"), "sesame\n").unwrap();
    let tokens = place.path("tokens");
    let flags = [
        "--log-requests",
        "--log-format",
        "json",
        "--auth-token-file",
        &tokens,
    ];
    let (served, mut log) = Log::of(&mut serve(&place, &flags));
    let ask = |served: &Serving, requests: u64| {
        let mut socket = TcpStream::connect(served.url.trim_start_matches("http://")).unwrap();
        socket
            .set_read_timeout(Some(std::time::Duration::from_secs(60)))
            .unwrap();
        let request = b"GET /health HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sesame\r\n\r\n";
        for _ in 0..requests / 100 {
            socket.write_all(&request.repeat(100)).unwrap();
            let (mut answers, mut piece) = (0, [0; 1 << 16]);
            while answers < 100 {
                let n = socket.read(&mut piece).expect("the server answers");
                assert!(n > 0);
                // The body is `{...}`, and no header has one.
                answers += piece[..n].iter().filter(|byte| **byte == b'}').count();
            }
        }
    };
    // More than a pipe and the room for lines have.
    let requests = 6_000;
    ask(&served, requests);
    let mut told = 0;
    let dropped = loop {
        let line: Value = serde_json::from_str(&log.wait_for("{")).unwrap();
        match line["lines"].as_u64() {
            Some(dropped) => {
                assert_eq!(line["level"], "WARN");
                break dropped;
            }
            None => told += u64::from(line["message"] == "request"),
        }
    };
    assert!(dropped > 0);
    assert_eq!(told + dropped, requests, "each line is told or counted");
    // And the program ends, beside a full pipe.
    ask(&served, 1_000);
    signal("-TERM", served.child.id());
    let mut served = served;
    assert!(served.child.wait().unwrap().success());
}
