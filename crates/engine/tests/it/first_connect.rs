//! First connects that are cut off: killed, cancelled, without power or network in the middle.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use partial_sync::{Bootstrap, Builder, Database, PartialSync};
use partial_sync_transport::{
    Fault, Faulty, HttpClient, RemoteError, RemoteErrorKind,
    http::{HttpRequest, HttpResponse, ReqwestClient},
};

use partial_sync_vfs::crash::{CrashStorage, Survives, Trouble};

use crate::support::{Replicas, Served, contents, rows, stock_contents, until};

/// Some 24 MiB.
const LARGE: &str = "create table t (id integer primary key, v blob);
    with recursive n(i) as (values (1) union all select i + 1 from n where i < 6000)
    insert into t select i, randomblob(3900) from n";
/// 30 pages or so.
const SMALL: &str = "create table t (id integer primary key, v text);
    with recursive n(i) as (values (1) union all select i + 1 from n where i < 250)
    insert into t select i, printf('%0400d', i) from n";
const MIB: u64 = 1 << 20;
const CHILD: &str = "PARTIAL_SYNC_FIRST_CONNECT_CHILD";

fn equal(db: &Database, served: &Served) {
    let conn = db.connection().unwrap();
    db.hydrate(|_| {}).unwrap();
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
    assert!(contents(&conn) == stock_contents(&served.sqlite()));
}

/// Slow enough to be killed in the middle, and says how far it is.
#[derive(Debug)]
struct Telling(ReqwestClient);

impl HttpClient for Telling {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, RemoteError>> {
        async move {
            let mut response = self.0.send(request).await?;
            let mut sum = 0;
            response.body = response
                .body
                .then(move |chunk| {
                    sum += chunk.as_ref().map_or(0, |bytes| bytes.len());
                    let now = sum;
                    async move {
                        println!("\nreceived {now}");
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        chunk
                    }
                })
                .boxed();
            Ok(response)
        }
        .boxed()
    }
}

fn prefix_of(length: u64) -> PartialSync {
    PartialSync {
        bootstrap: Some(Bootstrap::prefix(length)),
        ..PartialSync::default()
    }
}

/// What the killed process does: the test below runs this one in a process of its own.
#[test]
fn child_that_is_killed_while_it_connects() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let [path, url, length] = task.split('|').collect::<Vec<_>>()[..] else {
        panic!("{task}")
    };
    let builder = Database::builder(path)
        .remote(url)
        .http_client(Arc::new(Telling(ReqwestClient::new().unwrap())));
    let db = match length.parse().unwrap() {
        0 => builder.connect(),
        length => builder.partial(prefix_of(length)).connect(),
    };
    db.unwrap();
    println!("\nconnected");
}

/// Runs it until it has received so many bytes, and kills it.
fn killed_after(bytes: u64, task: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "first_connect::child_that_is_killed_while_it_connects",
            "--nocapture",
        ])
        .env(CHILD, task)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let far_enough = BufReader::new(child.stdout.take().unwrap()).lines().any(|line| {
        let line = line.unwrap();
        assert_ne!(line, "connected", "it was to be killed before");
        line.strip_prefix("received ")
            .is_some_and(|sum| sum.parse::<u64>().unwrap() > bytes)
    });
    assert!(far_enough);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// It began again at 0.
#[test]
fn s5_a_first_download_that_was_killed_goes_on_where_it_was() {
    let served = Served::new(LARGE);
    let size = std::fs::metadata(&served.file).unwrap().len();
    assert!(size > 23 * MIB);
    for (name, length) in [("all.db", 0), ("prefix.db", 20 * MIB)] {
        let replicas = Replicas::new();
        let path = replicas.path(name);
        let whole = if length == 0 { size } else { length };
        killed_after(18 * MIB, &format!("{}|{}|{length}", path.display(), served.url()));
        // What happened on the remote meanwhile comes with the next pull.
        served.execute("insert into t values (100000 + random() % 1000, 'later')");
        let open = |builder: Builder| match length {
            0 => builder,
            length => builder.partial(prefix_of(length)),
        };
        let db = open(replicas.builder(name).remote(served.url()))
            .connect()
            .unwrap();
        let stats = db.stats().unwrap();
        // 18 MiB were here, of which the last 8 may not have been saved.
        assert!(
            stats.network_received_bytes < whole - 9 * MIB,
            "{} bytes of {whole} again",
            stats.network_received_bytes
        );
        assert_eq!(stats.requests, 1);
        assert!(db.pull().unwrap());
        equal(&db, &served);
    }
}

/// A disk that could not read the page map for a moment made it begin again at 0.
#[test]
fn s5_a_page_map_that_cannot_be_read_now_is_read_later() {
    let served = Served::new(SMALL);
    let folder = Replicas::new();
    let path = folder.path("a.db");
    let storage = CrashStorage::new(&path);
    let remote = Arc::new(Faulty::new(served.http()));
    let connect = || {
        Database::builder(&path)
            .storage(Arc::new(storage.clone()))
            .remote_with(remote.clone())
            .pull_bytes_threshold(16 * 1024)
            .connect()
    };
    remote.fail_from(5, Fault::Fail(RemoteErrorKind::Unreachable));
    connect().unwrap_err();
    remote.heal();
    let failing = storage.clone();
    storage.before("sync -pages", move || {
        let at = failing.operations() + 1;
        failing.trouble(Some(Trouble::Fail(at, at + 1, std::io::ErrorKind::StorageFull)));
    });
    let before = remote.requests();
    let error = connect().unwrap_err();
    assert!(matches!(error, partial_sync::Error::Storage { .. }), "{error}");
    assert_eq!(remote.requests(), before, "nothing was asked");
    storage.trouble(None);
    equal(&connect().unwrap(), &served);
}

#[test]
fn s5_without_a_url_it_goes_on_with_the_one_it_began_with() {
    let served = Served::new(LARGE);
    let replicas = Replicas::new();
    killed_after(
        10 * MIB,
        &format!("{}|{}|0", replicas.path("a.db").display(), served.url()),
    );
    let db = replicas.builder("a.db").connect().unwrap();
    assert!(db.stats().unwrap().network_received_bytes < 17 * MIB);
    equal(&db, &served);
}

/// Every file operation of a download in chunks, with each of the ways in which what was written survives.
#[test]
fn s5_a_download_that_stops_at_any_file_operation_goes_on_and_ends_right() {
    let served = Served::new(SMALL);
    let folder = Replicas::new();
    for survives in [Survives::Written, Survives::Synced, Survives::SyncedAndSome(1)] {
        let mut went_on = 0;
        for n in 1.. {
            let path = folder.path("a.db");
            let storage = CrashStorage::new(&path);
            storage.trouble(Some(Trouble::Stop(n)));
            let counting = served.counting();
            let open = |storage: &CrashStorage, path| {
                Database::builder(path)
                    .storage(Arc::new(storage.clone()))
                    .remote_with(counting.clone())
                    .pull_bytes_threshold(16 * 1024)
                    .connect()
            };
            if open(&storage, path).is_ok() && !storage.has_stopped() {
                break;
            }
            let first = counting.ids_delivered().len();
            counting.clear();
            let again = folder.path("b.db");
            let after = storage.after_crash(survives, &again);
            let db =
                open(&after, again).unwrap_or_else(|e| panic!("{n} {survives:?}: {e}; {}", storage.tail()));
            let second = counting.ids_delivered().len();
            let total = db.stats().unwrap().pages_total as usize;
            // What is not fetched again went on; what was not saved is at most one chunk of four pages.
            if second < total {
                went_on += 1;
                assert!(
                    second + first <= total + 4,
                    "{n} {survives:?}: {first} and {second} of {total}"
                );
            }
            equal(&db, &served);
        }
        assert!(went_on > 10, "{survives:?}: {went_on}");
    }
}

#[test]
fn s5_it_begins_again_where_the_revision_is_gone_or_the_remote_is_another_one() {
    let served = Served::new(SMALL);
    let other = Served::new("create table other (x); insert into other values ('only there')");
    let replicas = Replicas::new();
    for case in 0..4 {
        let name = format!("{case}.db");
        let remote = Arc::new(Faulty::new(served.http()));
        let open = || {
            replicas
                .builder(&name)
                .remote_with(remote.clone())
                .pull_bytes_threshold(16 * 1024)
        };
        // The network goes after some chunks: what came is kept.
        remote.fail_from(5, Fault::Fail(RemoteErrorKind::Unreachable));
        let error = open().connect().unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert!(replicas.path(&format!("{name}-pages")).exists());
        remote.heal();
        let db = match case {
            0 => {
                remote.fail_nth(1, Fault::Fail(RemoteErrorKind::RevisionExpired));
                open().connect().unwrap()
            }
            1 => {
                remote.fail_nth(1, Fault::Fail(RemoteErrorKind::RevisionUnknown));
                open().connect().unwrap()
            }
            2 => {
                let db = replicas.builder(&name).remote(other.url()).connect().unwrap();
                equal(&db, &other);
                continue;
            }
            // Another plan: what is here is here, the rest stays away.
            _ => open().partial(prefix_of(4096)).connect().unwrap(),
        };
        equal(&db, &served);
    }
}

#[test]
fn s5_a_download_that_is_cancelled_leaves_nothing_also_when_it_was_going_on() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let remote = Arc::new(Faulty::new(served.http()));
    let open = || {
        replicas
            .builder("a.db")
            .remote_with(remote.clone())
            .pull_bytes_threshold(16 * 1024)
    };
    remote.fail_from(5, Fault::Fail(RemoteErrorKind::Unreachable));
    open().connect().unwrap_err();
    assert!(!replicas.files().is_empty());
    remote.heal();
    remote.fail_from(3, Fault::Hang);
    let cancel = partial_sync::CancelHandle::new();
    let before = remote.requests();
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| open().cancel_handle(cancel.clone()).connect());
        while remote.requests() < before + 3 && !connecting.is_finished() {
            std::thread::yield_now();
        }
        cancel.cancel();
        assert!(connecting.join().unwrap().unwrap_err().is_interrupted());
    });
    assert!(replicas.files().is_empty(), "{:?}", replicas.files());
    remote.heal();
    equal(&open().connect().unwrap(), &served);
}

/// A cancel that came after the pages, while the schema was being read, left the files.
#[test]
fn l_a_connect_does_not_read_the_schema_and_the_first_statement_that_does_can_be_broken() {
    // A schema of many pages, of which the prefix has only the first.
    let script: String = (0..400)
        .map(|n| format!("create table table_with_a_long_name_{n} (a, b, c, d, e, f);"))
        .collect();
    let served = Served::new(&script);
    let replicas = Replicas::new();
    let faulty = Arc::new(Faulty::new(served.http()));
    faulty.fail_from(2, Fault::Hang);
    let db = replicas
        .builder("a.db")
        .remote_with(faulty.clone())
        .partial(prefix_of(4096))
        .connect()
        .unwrap();
    assert_eq!(faulty.requests(), 1);
    let conn = db.connection().unwrap();
    let handle = conn.interrupt_handle();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| rows(&conn, "select count(*) from sqlite_schema"));
        until("it asks for the schema", || faulty.requests() > 1);
        handle.interrupt();
        assert!(reading.join().unwrap().unwrap_err().is_interrupted());
    });
    faulty.heal();
    drop((conn, db));
    let db = replicas.builder("a.db").remote(served.url()).connect().unwrap();
    equal(&db, &served);
}

/// It asked for 2^32 pages by name.
#[test]
fn l_a_prefix_of_any_length_is_the_database_at_most() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    for (n, length) in [u64::MAX, 1 << 44, (1 << 44) + 1, 1 << 32, 0, 1]
        .into_iter()
        .enumerate()
    {
        let began = Instant::now();
        let counting = served.counting();
        let db = replicas
            .builder(&format!("{n}.db"))
            .remote_with(counting.clone())
            .partial(prefix_of(length))
            .connect()
            .unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{length}: {:?}",
            began.elapsed()
        );
        let stats = db.stats().unwrap();
        match length {
            0 | 1 => assert_eq!(stats.pages_present, 1),
            _ => assert_eq!(stats.pages_present, stats.pages_total, "{length}"),
        }
        assert!(counting.requests() <= 2, "{length}");
        equal(&db, &served);
    }
    // And so do chunks.
    let db = replicas
        .builder("chunks.db")
        .remote(served.url())
        .pull_bytes_threshold(u64::MAX)
        .connect()
        .unwrap();
    equal(&db, &served);
}
