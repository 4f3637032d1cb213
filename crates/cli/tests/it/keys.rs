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
    reload(&mut log, "1 key (a secret without an id)");
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
