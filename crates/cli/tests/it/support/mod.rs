//! Runs the real program, and a real server of it on loopback.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// The program with these arguments, without what the environment of the test says.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partial-sync"));
    for name in [
        "PARTIAL_SYNC_AUTH_TOKEN",
        "PARTIAL_SYNC_AUTH_TOKEN_FILE",
        "PARTIAL_SYNC_AUTH_JWT_KEY",
        "PARTIAL_SYNC_AUTH_JWT_KEY_FILE",
        "PARTIAL_SYNC_ADMIN_TOKEN",
        "PARTIAL_SYNC_ADMIN_TOKEN_FILE",
        "PARTIAL_SYNC_ORIGIN_TOKEN",
        "PARTIAL_SYNC_ORIGIN_TOKEN_FILE",
        "PARTIAL_SYNC_SIGNING_KEY",
        "PARTIAL_SYNC_CONFIG",
        "PARTIAL_SYNC_TRUSTED_PROXY",
        "RUST_LOG",
        "NO_COLOR",
        "CLICOLOR_FORCE",
    ] {
        command.env_remove(name);
    }
    command
}

/// What a run of the program said.
pub(crate) struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// stdout as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e} in {}{}", self.out, self.err))
    }

    /// The last line of stderr as JSON.
    pub(crate) fn stats(&self) -> Value {
        let line = self.err.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {}", self.err))
    }
}

/// Runs the program, whatever comes of it.
pub(crate) fn run(arguments: &[&str]) -> Said {
    Said::of(program().args(arguments).output().unwrap())
}

/// Runs the program, which must succeed.
pub(crate) fn ok(arguments: &[&str]) -> Said {
    let said = run(arguments);
    assert_eq!(said.code, 0, "{arguments:?}: {}{}", said.out, said.err);
    said
}

/// A server process; killed when dropped.
pub(crate) struct Serving {
    pub child: Child,
    pub url: String,
}

impl Serving {
    /// Starts the program with these arguments and waits until it listens.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::spawn(program().args(arguments))
    }

    /// The same for a command that becomes the program.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Self::listening(child.unwrap())
    }

    /// Waits until a process listens.
    fn listening(child: Child) -> Self {
        Self::reading(child).unwrap().0
    }

    /// The same, with what it says after that; `None` = it ended before it listened.
    pub(crate) fn try_spawn(command: &mut Command) -> Option<(Self, Lines<BufReader<ChildStdout>>)> {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Self::reading(child.unwrap())
    }

    fn reading(mut child: Child) -> Option<(Self, Lines<BufReader<ChildStdout>>)> {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next()?.unwrap();
        let url = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("it said {line:?}"));
        let this = Self {
            url: url.to_owned(),
            child,
        };
        Some((this, lines))
    }

    /// Serves a file on any free port.
    pub(crate) fn file(path: &Path) -> Self {
        Self::start(&["serve", path.to_str().unwrap(), "--listen", "127.0.0.1:0"])
    }

    /// Kills it as a power failure would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with a database of 5,000 towns, about 100 pages, and room for replicas.
pub(crate) struct Place {
    pub folder: TempDir,
    pub remote: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let remote = folder.path().join("remote.db");
        let conn = rusqlite::Connection::open(&remote).unwrap();
        conn.execute_batch(
            "create table town(id integer primary key, name text, people integer);
             with recursive c(x) as (select 1 union all select x + 1 from c where x < 5000)
             insert into town select x, 'town number ' || x, x * 7919 % 100000 from c;
             create index by_people on town(people);",
        )
        .unwrap();
        Self { folder, remote }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Makes a replica of the first pages.
    pub(crate) fn replica(&self, name: &str, url: &str) -> String {
        let path = self.path(name);
        ok(&[
            "query",
            &path,
            "--url",
            url,
            "--bootstrap-prefix",
            "16k",
            "--segment-size",
            "4k",
            "select 1",
        ]);
        path
    }

    pub(crate) fn remote_rows(&self, sql: &str) -> Vec<(i64, String)> {
        let conn = rusqlite::Connection::open(&self.remote).unwrap();
        let mut statement = conn.prepare(sql).unwrap();
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        rows.map(Result::unwrap).collect()
    }
}

/// Runs the program with a text on stdin.
pub(crate) fn with_stdin(arguments: &[&str], text: &str) -> Said {
    let mut command = program();
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    Said::of(child.wait_with_output().unwrap())
}

/// Sends a signal to a process that the test started.
pub(crate) fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// What a server process says on stderr, line by line.
pub(crate) struct Log(std::io::Lines<BufReader<std::process::ChildStderr>>);

impl Log {
    /// Starts the program with these arguments and its log.
    pub(crate) fn of(command: &mut Command) -> (Serving, Self) {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        (Serving::listening(child), Self(log))
    }

    /// What else it says until it ends.
    pub(crate) fn rest(self) -> Vec<String> {
        self.0.map(Result::unwrap).collect()
    }

    /// Waits for a line with this text.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let mut before = String::new();
        for line in self.0.by_ref() {
            let line = line.unwrap();
            if line.contains(text) {
                return line;
            }
            before += &line;
        }
        panic!("{text:?} is not in {before}");
    }
}

/// Status and body of a request for SQL, on a connection of its own.
pub(crate) fn sql(url: &str, token: &str, sql: &str) -> (u16, String) {
    use std::io::Read;

    let address = url.trim_start_matches("http://").split('/').next().unwrap();
    let path = url.trim_start_matches("http://").strip_prefix(address).unwrap();
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    let body =
        serde_json::json!({"requests": [{"type": "execute", "stmt": {"sql": sql}}, {"type": "close"}]});
    let body = body.to_string();
    let authorization = match token {
        "" => String::new(),
        token => format!("authorization: Bearer {token}\r\n"),
    };
    write!(
        socket,
        "POST {path}/v2/pipeline HTTP/1.1\r\nhost: localhost\r\n{authorization}connection: close\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}
