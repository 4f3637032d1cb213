//! `HttpRemote` and the conformance suite against a remote that this project did not write: `tursodb --sync-server`.
//!
//! Ignored unless asked for, because it needs that program: set `TURSODB` to its path and run with `--ignored`.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::TryStreamExt;
use partial_sync_transport::{
    HttpRemote, PageSelector, PagesRequest, Remote,
    conformance::{self, Subject},
    hrana::{Batch, Step, Stmt},
};

struct Tursodb {
    http: HttpRemote,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Tursodb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Subject for Tursodb {
    fn remote(&self) -> &dyn Remote {
        &self.http
    }

    fn query(&self) -> Option<String> {
        Some("SELECT * FROM t WHERE k < 10".into())
    }
}

async fn start() -> Tursodb {
    let program = std::env::var("TURSODB").expect("TURSODB is the path of the program tursodb");
    let folder = tempfile::tempdir().unwrap();
    let address = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    let mut child = Command::new(program)
        .arg(folder.path().join("remote.db"))
        .args(["--sync-server", &address])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tursodb starts");
    let stderr = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || {
        stderr
            .lines()
            .map_while(Result::ok)
            .for_each(|line| eprintln!("tursodb: {line}"))
    });
    // Until it listens, connections are refused, and those are retried.
    let retry = partial_sync_transport::RetryPolicy {
        attempts: 50,
        base: Duration::from_millis(50),
        cap: Duration::from_millis(500),
    };
    let http = HttpRemote::builder(format!("http://{address}"))
        .retry(retry)
        .build()
        .unwrap();
    let make = [
        "CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)",
        "INSERT INTO t SELECT value, 'row ' || hex(zeroblob(100)) FROM generate_series(1, 500)",
    ];
    let steps = make.iter().map(|sql| Step {
        condition: None,
        stmt: Stmt::new(*sql, vec![]),
    });
    let made = http
        .execute(
            Batch {
                steps: steps.collect(),
                ..Batch::default()
            },
            None,
        )
        .await
        .unwrap();
    assert!(made.step_errors.iter().all(Option::is_none), "{made:?}");
    Tursodb {
        http,
        child,
        _folder: folder,
    }
}

/// Where tursodb (seen with 0.6.0) does otherwise, so that a newer one that has learned it is noticed too.
const KNOWN_DIFFERENCES: [&str; 4] = [
    // The header of a pinned answer holds the size of the latest revision, so "all pages" cannot be complete.
    "a_pinned_read_after_a_change_brings_the_old_pages",
    // It does not wait: a poll is answered at once.
    "a_long_poll_returns_early_on_a_change",
    // It says neither how many rows a statement changed nor which rowid it inserted.
    "a_batch_runs_in_order_on_one_connection",
    // A base revision that it cannot read is taken for none; a pinned one for the latest, which `HttpRemote` refuses.
    "an_unknown_revision_is_a_typed_error",
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the program tursodb, see the head of the file"]
async fn an_independent_remote_passes_the_suite_but_for_what_is_known() {
    let subject = start().await;
    let mut failed = conformance::outcomes(&subject, conformance::CORE).await;
    failed.extend(conformance::outcomes(&subject, conformance::EXTENDED).await);
    for (name, why) in &failed {
        eprintln!("FAILED {name}: {why}");
    }
    let names: Vec<_> = failed.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, KNOWN_DIFFERENCES);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the program tursodb, see the head of the file"]
async fn an_independent_remote_serves_selected_pages_of_an_old_revision() {
    let subject = start().await;
    let read = async |request| {
        let answer = subject.http.pages(request).await.unwrap();
        let pages: Vec<_> = answer.pages.try_collect().await.unwrap();
        (answer.header, pages)
    };
    let (old, before) = read(PagesRequest::default()).await;
    subject.change().await;
    let pinned = PagesRequest {
        revision: Some(old.revision.clone()),
        select: PageSelector::Ids((0..old.db_size.0).collect()),
        ..PagesRequest::default()
    };
    let (again, after) = read(pinned).await;
    assert_eq!(again.revision, old.revision);
    assert_eq!(after, before);
    let (latest, _) = read(PagesRequest::default()).await;
    assert!(latest.db_size > old.db_size);
    assert_eq!(
        again.db_size, latest.db_size,
        "the difference that the list above names"
    );
}
