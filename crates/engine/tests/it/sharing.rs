//! A replica opened several times in one process: all share its pages and files, and each has its own limits.

use std::{
    sync::{Arc, Barrier},
    time::Duration,
};

use crate::support::{Replicas, Served, prefix, rows};
use partial_sync::{CancelHandle, Error, PartialSync};
use partial_sync_transport::{Fault, Faulty};

const WIDE: &str = "create table t (id integer primary key, v text);
    with recursive n(i) as (values (1) union all select i + 1 from n where i < 3000)
    insert into t select i, printf('%0400d', i) from n";

#[test]
fn sixteen_connects_at_once_share_one_cold_replica() {
    let served = Served::new(WIDE);
    let replicas = Replicas::new();
    let start = Barrier::new(16);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let db = replicas
                        .builder("a.db")
                        .remote(served.url())
                        .partial(prefix(4096, 16384))
                        .connect()
                        .unwrap();
                    let conn = db.connection().unwrap();
                    let count = rows(&conn, "select count(*), sum(length(v)) from t").unwrap();
                    conn.execute("insert into t (v) values ('mine')", ()).unwrap();
                    (db, count)
                })
            })
            .collect();
        let open: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        for (db, count) in &open {
            assert!(count[0].starts_with("Integer(3"), "{count:?}");
            db.push().unwrap();
        }
        let stats: Vec<_> = open.iter().map(|(db, _)| db.stats().unwrap()).collect();
        assert!(
            stats.iter().all(|s| s.requests == stats[0].requests),
            "one remote for all"
        );
    });
    let count: i64 = served
        .sqlite()
        .query_row("select count(*) from t where v = 'mine'", [], |r| r.get(0))
        .unwrap();
    assert_eq!(count, 16);
    // All are closed: the next connect opens the files again.
    let db = replicas.builder("a.db").connect().unwrap();
    assert_eq!(
        rows(&db.connection().unwrap(), "select count(*) from t").unwrap(),
        ["Integer(3016)"]
    );
}

#[test]
fn what_all_must_share_is_refused_when_it_differs_and_names_the_option() {
    let served = Served::new(WIDE);
    let other = Served::new(WIDE);
    let replicas = Replicas::new();
    let open = || replicas.builder("a.db").remote(served.url());
    let first = open().partial(prefix(4096, 16384)).connect().unwrap();
    let refused = [
        (open().partial(prefix(4096, 32768)), "segment size"),
        (
            open().partial(PartialSync {
                prefetch: Some(true),
                ..PartialSync::default()
            }),
            "prefetch",
        ),
        (open().timeout(Duration::from_secs(7)), "timeout"),
        (open().remote_encryption("a2V5", None), "encryption"),
    ];
    for (builder, option) in refused {
        let error = builder.connect().unwrap_err();
        assert!(matches!(error, Error::OpenedOtherwise { .. }), "{error:?}");
        assert!(error.to_string().contains(option), "{error}");
    }
    let error = replicas
        .builder("a.db")
        .remote(other.url())
        .connect()
        .unwrap_err();
    assert!(matches!(error, Error::OtherRemote { .. }), "{error:?}");
    let error = replicas
        .builder("a.db")
        .remote_with(served.http())
        .connect()
        .unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error:?}");
    // Without options, or with the same ones, it joins; the later token is the one that requests use.
    let joined = replicas.builder("a.db").connect().unwrap();
    let same = open()
        .partial(prefix(8192, 16384))
        .auth_token("new")
        .connect()
        .unwrap();
    drop(first);
    assert_eq!(
        rows(&joined.connection().unwrap(), "select count(*) from t").unwrap(),
        ["Integer(3000)"]
    );
    drop(joined);
    same.pull().unwrap();
}

#[test]
fn cancelling_one_handle_leaves_the_others_alone() {
    let served = Served::new(WIDE);
    let replicas = Replicas::new();
    let faulty = Arc::new(Faulty::new(served.http()));
    let cancel = CancelHandle::new();
    let open = || {
        replicas
            .builder("a.db")
            .remote_with(faulty.clone())
            .partial(prefix(4096, 4096))
    };
    let first = open().connect().unwrap();
    let second = open().cancel_handle(cancel.clone()).connect().unwrap();
    served.execute("insert into t (v) values ('theirs')");
    faulty.fail_from(1, Fault::Hang);
    let before = faulty.requests();
    std::thread::scope(|scope| {
        let pulling = scope.spawn(|| second.pull());
        while faulty.requests() == before {
            std::thread::yield_now();
        }
        first.cancel_handle().unwrap().cancel();
        assert!(!pulling.is_finished());
        cancel.cancel();
        assert!(pulling.join().unwrap().unwrap_err().is_interrupted());
    });
    faulty.heal();
    assert!(first.pull().unwrap());
}
