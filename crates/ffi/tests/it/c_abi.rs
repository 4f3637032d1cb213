//! Compiles `tests/c/main.c` and `examples/c/quickstart.c` with the system's C compiler against the static library, and
//! runs them against real servers; the former under valgrind too, where that is installed. What the C programs check is
//! written in them.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::silent::Silent;
use partial_sync_server::{Server, ServerHandle, access::Access, auth::StaticToken};
use tempfile::TempDir;

const SCRIPT: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);
    CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE names(id INTEGER PRIMARY KEY, name TEXT UNIQUE);
    INSERT INTO users VALUES (7, 'Augusta');
    WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 5000)
    INSERT INTO t SELECT x, printf('%0100d', x) FROM c;";

/// The program that checks everything.
const MAIN: &[&str] = &[
    "tests/c/main.c",
    "tests/c/support.c",
    "tests/c/callbacks.c",
    "tests/c/hostile.c",
];

/// A folder with a database, which is served, and room for replicas and programs.
struct World {
    folder: TempDir,
    server: Option<ServerHandle>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("remote.db");
        rusqlite::Connection::open(&file)
            .unwrap()
            .execute_batch(SCRIPT)
            .unwrap();
        let server = Server::builder(&file).start_blocking("127.0.0.1:0").unwrap();
        Self {
            folder,
            server: Some(server),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self) -> &ServerHandle {
        self.server.as_ref().unwrap()
    }

    fn url(&self) -> String {
        format!("http://{}", self.server().addr())
    }

    fn sqlite(&self) -> rusqlite::Connection {
        let conn = rusqlite::Connection::open(self.path("remote.db")).unwrap();
        conn.busy_timeout(Duration::from_secs(10)).unwrap();
        conn
    }

    /// Compiles a C program with every warning an error.
    fn compile(&self, name: &str, sources: &[&str]) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = self.path(name);
        let output = Command::new(env::var_os("CC").unwrap_or("cc".into()))
            .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"])
            .args(["-D_GNU_SOURCE", "-rdynamic"])
            .arg("-I")
            .arg(root.join("include"))
            .arg("-o")
            .arg(&program)
            .args(sources.iter().map(|source| root.join(source)))
            .arg(library())
            .args(["-lpthread", "-ldl", "-lm"])
            .output()
            .expect("this test needs a C compiler called cc, or one named by CC");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        program
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_blocking();
        }
    }
}

/// The static library that Cargo built together with this test, beside it.
fn library() -> PathBuf {
    let test = env::current_exe().unwrap();
    let library = test.parent().unwrap().join("libpartial_sync_ffi.a");
    assert!(library.exists(), "{} is not there", library.display());
    library
}

/// Runs `main.c` and does what it asks for.
fn converse(world: &World, mut command: Command) {
    let silent = Silent::in_front_of(world.server().addr());
    let guarded_file = world.path("guarded-remote.db");
    rusqlite::Connection::open(&guarded_file)
        .unwrap()
        .execute_batch(SCRIPT)
        .unwrap();
    let guarded = Server::builder(&guarded_file)
        .authenticator(StaticToken::new("right".to_owned(), Access::Full))
        .start_blocking("127.0.0.1:0")
        .unwrap();
    // Bound and closed: nobody listens there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = world.path("replicas");
    std::fs::create_dir(&folder).unwrap();
    let mut child: Child = command
        .arg(world.url())
        .arg(format!("http://{}", silent.addr()))
        .arg(format!("http://{nobody}"))
        .arg(format!("http://{}", guarded.addr()))
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answers = child.stdin.take().unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        match line.unwrap().as_str() {
            "hang" => silent.hang(),
            "answer" => silent.answer(),
            "wait for a request" => silent.wait_for_a_request(),
            "take the name" => {
                let sql = "INSERT INTO names VALUES (1, 'taken')";
                world.sqlite().execute_batch(sql).unwrap();
            }
            other => panic!("the program asks for {other:?}"),
        }
        writeln!(answers, "done").unwrap();
    }
    let status = child.wait().unwrap();
    guarded.shutdown_blocking();
    assert!(status.success(), "{status}: what failed is on stderr");
}

#[test]
fn a_c_program_opens_reads_writes_syncs_fails_and_interrupts() {
    let world = World::new();
    let program = world.compile("main", MAIN);
    converse(&world, Command::new(program));
}

#[test]
fn the_watchdog_ends_a_wait_with_the_stacks_of_all_threads() {
    let world = World::new();
    let program = world.compile("main", MAIN);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = Command::new(program)
        .arg(format!("http://{}", silent.local_addr().unwrap()))
        .env("WATCHDOG_SECONDS", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("nothing has happened for 1 seconds"), "{said}");
    if cfg!(target_os = "linux") {
        assert!(said.contains("partial_sync_open"), "{said}");
    }
}

#[test]
fn valgrind_finds_no_bad_access_and_no_leak() {
    if Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        println!("SKIPPED: valgrind is not installed");
        return;
    }
    let world = World::new();
    let program = world.compile("main", MAIN);
    let mut command = Command::new("valgrind");
    command
        .env("UNDER_VALGRIND", "1")
        .args(["--quiet", "--error-exitcode=9", "--leak-check=full"])
        .args(["--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"])
        .arg(program);
    converse(&world, command);
}

#[test]
fn the_quickstart_prints_the_row_and_pushes_its_change() {
    let world = World::new();
    let program = world.compile("quickstart", &["../../examples/c/quickstart.c"]);
    let output = Command::new(&program)
        .arg(world.url())
        .arg(world.path("app.db"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.starts_with("7: Augusta\n"), "{printed}");
    let name: String = world
        .sqlite()
        .query_row("SELECT name FROM users WHERE id = 7", [], |row| row.get(0))
        .unwrap();
    assert_eq!(name, "Ada");
}

#[test]
fn a_cpp_compiler_takes_the_header() {
    let compiler = env::var_os("CXX").unwrap_or("c++".into());
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/partial_sync.h");
    let output = Command::new(&compiler)
        .args([
            "-std=c++11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fsyntax-only",
            "-x",
            "c++",
        ])
        .arg(header)
        .output();
    match output {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(_) => println!("SKIPPED: there is no C++ compiler"),
    }
}
