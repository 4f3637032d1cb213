//! This engine as a client of a remote that this project did not write: `tursodb --sync-server` of the npm package
//! `turso`. Ignored unless asked for, because it needs that program: set `TURSODB` to its path
//! (`tests/interop/tursodb_path.sh` prints it) and run with `--ignored`.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use crate::support::*;
use partial_sync_transport::{
    HttpRemote, Remote, RetryPolicy,
    hrana::{Batch, Step, Stmt, Value},
};

struct Tursodb {
    remote: Arc<dyn Remote>,
    url: String,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Tursodb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tursodb {
    fn start(script: &[&str]) -> Self {
        let program = std::env::var("TURSODB").expect("TURSODB is the path of the program tursodb");
        let folder = tempfile::tempdir().unwrap();
        // It has no "any port"; one that was free a moment ago is the best there is.
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let child = Command::new(program)
            .arg(folder.path().join("remote.db"))
            .args(["--sync-server", &address])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tursodb starts");
        let url = format!("http://{address}");
        // Until it listens, connections are refused, and those are retried.
        let patient = RetryPolicy {
            attempts: 60,
            base: Duration::from_millis(50),
            cap: Duration::from_millis(500),
        };
        let remote = HttpRemote::builder(url.clone()).retry(patient).build().unwrap();
        let started = Self {
            remote: Arc::new(remote),
            url,
            child,
            _folder: folder,
        };
        for sql in script {
            started.sql(sql);
        }
        started
    }

    /// Runs one statement there; the first column of each row, as text.
    fn sql(&self, sql: &str) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let batch = Batch {
            steps: vec![Step {
                condition: None,
                stmt: Stmt::new(sql, vec![]),
            }],
            ..Batch::default()
        };
        let result = runtime.block_on(self.remote.execute(batch, None)).unwrap();
        assert!(
            result.step_errors.iter().all(Option::is_none),
            "{sql}: {:?}",
            result.step_errors
        );
        let rows = result.step_results.into_iter().flatten().flat_map(|r| r.rows);
        rows.map(|row| match &row[0] {
            Value::Integer { value } => value.to_string(),
            Value::Text { value } => value.clone(),
            other => format!("{other:?}"),
        })
        .collect()
    }
}

const SCRIPT: [&str; 4] = [
    "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, n INTEGER)",
    "CREATE INDEX tn ON t(n)",
    "INSERT INTO t SELECT value, 'row ' || hex(zeroblob(100)) || value, value % 97 FROM generate_series(1, 4000)",
    "CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT)",
];

fn one(conn: &partial_sync::Connection, sql: &str) -> String {
    let rows = rows(conn, sql).unwrap();
    rows[0]
        .trim_start_matches("Integer(")
        .trim_start_matches("Text(\"")
        .trim_end_matches(")")
        .trim_end_matches('"')
        .into()
}

#[test]
#[ignore = "needs the program tursodb"]
fn a_full_bootstrap_equals_the_remote() {
    let remote = Tursodb::start(&SCRIPT);
    let replicas = Replicas::new();
    let db = replicas
        .builder("full.db")
        .remote(remote.url.clone())
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    for sql in [
        "SELECT count(*) FROM t",
        "SELECT sum(n) FROM t",
        "SELECT max(v) FROM t WHERE n = 13",
    ] {
        assert_eq!(one(&conn, sql), remote.sql(sql)[0], "{sql}");
    }
    assert_eq!(one(&conn, "PRAGMA integrity_check"), "ok");
    let stats = db.stats().unwrap();
    assert_eq!(stats.pages_present, stats.pages_total);
}

#[test]
#[ignore = "needs the program tursodb"]
fn a_prefix_bootstrap_reads_the_rest_when_it_is_needed() {
    let remote = Tursodb::start(&SCRIPT);
    let replicas = Replicas::new();
    for prefetch in [false, true] {
        let partial = partial_sync::PartialSync {
            prefetch: Some(prefetch),
            ..prefix(32 * 1024, 16 * 1024)
        };
        let name = format!("prefix-{prefetch}.db");
        let db = replicas
            .builder(&name)
            .remote(remote.url.clone())
            .partial(partial)
            .connect()
            .unwrap();
        assert_eq!(db.stats().unwrap().pages_present, 8);
        let conn = db.connection().unwrap();
        for sql in [
            "SELECT v FROM t WHERE id = 3777",
            "SELECT count(*) FROM t WHERE n = 5",
            "SELECT sum(id) FROM t",
        ] {
            assert_eq!(one(&conn, sql), remote.sql(sql)[0], "{sql}");
        }
    }
}

#[test]
#[ignore = "needs the program tursodb"]
fn two_clients_push_and_pull() {
    let remote = Tursodb::start(&SCRIPT);
    let replicas = Replicas::new();
    let open = |name: &str| {
        replicas
            .builder(name)
            .remote(remote.url.clone())
            .partial(prefix(16 * 1024, 16 * 1024))
            .connect()
            .unwrap()
    };
    let (a, b) = (open("a.db"), open("b.db"));
    let (at_a, at_b) = (a.connection().unwrap(), b.connection().unwrap());
    at_a.execute("UPDATE t SET v = 'from a' WHERE id = 100", ())
        .unwrap();
    at_a.execute("INSERT INTO setting VALUES ('colour', 'red')", ())
        .unwrap();
    at_b.execute("UPDATE t SET n = -1 WHERE id = 100", ()).unwrap();
    at_b.execute("INSERT INTO setting VALUES ('colour', 'blue')", ())
        .unwrap();
    at_b.execute("DELETE FROM t WHERE id = 200", ()).unwrap();
    at_b.execute_batch("CREATE TABLE made_at_b (x PRIMARY KEY); INSERT INTO made_at_b VALUES (1)")
        .unwrap();
    a.push().unwrap();
    b.push().unwrap();
    assert!(a.pull().unwrap() && b.pull().unwrap());
    for sql in [
        "SELECT v FROM t WHERE id = 100",
        "SELECT n FROM t WHERE id = 100",
        "SELECT count(*) FROM t",
        "SELECT value FROM setting WHERE name = 'colour'",
        "SELECT count(*) FROM made_at_b",
    ] {
        let expected = remote.sql(sql)[0].clone();
        assert_eq!(
            [one(&at_a, sql), one(&at_b, sql)],
            [expected.clone(), expected],
            "{sql}"
        );
    }
    assert_eq!(
        one(&at_a, "SELECT value FROM setting"),
        "blue",
        "the last push wins"
    );
    assert_eq!(one(&at_a, "PRAGMA integrity_check"), "ok");
    assert!(!a.pull().unwrap());
}

#[test]
#[ignore = "needs the program tursodb"]
fn changes_that_were_not_pushed_are_put_back_on_top_of_a_pull() {
    let remote = Tursodb::start(&SCRIPT);
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote(remote.url.clone())
        .partial(prefix(16 * 1024, 16 * 1024))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute("UPDATE t SET v = 'mine' WHERE id = 10", ()).unwrap();
    remote.sql("UPDATE t SET n = 1000 WHERE id = 10");
    remote.sql("INSERT INTO t SELECT value, 'new', 3 FROM generate_series(5000, 6000)");
    assert!(db.pull().unwrap());
    assert_eq!(
        rows(&conn, "SELECT v, n FROM t WHERE id = 10").unwrap(),
        ["Text(\"mine\")|Integer(1000)"]
    );
    assert_eq!(one(&conn, "SELECT count(*) FROM t"), "5001");
    db.push().unwrap();
    assert_eq!(remote.sql("SELECT v FROM t WHERE id = 10"), ["mine"]);
}

#[test]
#[ignore = "needs the program tursodb"]
fn an_empty_remote_is_filled_from_here() {
    let remote = Tursodb::start(&[]);
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote(remote.url.clone())
        .partial(prefix(16 * 1024, 16 * 1024))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch(
        "CREATE TABLE n (x INTEGER PRIMARY KEY, y); INSERT INTO n VALUES (1, 'one'), (2, 2.5)",
    )
    .unwrap();
    db.push().unwrap();
    assert!(db.pull().unwrap());
    assert_eq!(remote.sql("SELECT count(*) FROM n"), ["2"]);
    assert_eq!(
        rows(&conn, "SELECT * FROM n").unwrap(),
        ["Integer(1)|Text(\"one\")", "Integer(2)|2.5"]
    );
}

#[test]
#[ignore = "needs the program tursodb"]
fn invariant_3_a_refused_batch_lands_not_at_all() {
    let remote = Tursodb::start(&[
        "CREATE TABLE u (id INTEGER PRIMARY KEY, mail TEXT UNIQUE)",
        "INSERT INTO u VALUES (1, 'a@x')",
    ]);
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote(remote.url.clone())
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute("INSERT INTO u VALUES (5, 'fine@x')", ()).unwrap();
    conn.execute("INSERT INTO u VALUES (6, 'taken@x')", ()).unwrap();
    remote.sql("INSERT INTO u VALUES (2, 'taken@x')");
    let error = db.push().unwrap_err();
    assert!(
        error.to_string().contains("UNIQUE constraint failed: u.mail"),
        "{error}"
    );
    assert_eq!(remote.sql("SELECT count(*) FROM u"), ["2"]);
    assert_eq!(db.stats().unwrap().cdc_operations, 2);
    remote.sql("DELETE FROM u WHERE id = 2");
    db.push().unwrap();
    assert_eq!(remote.sql("SELECT count(*) FROM u"), ["3"]);
}
