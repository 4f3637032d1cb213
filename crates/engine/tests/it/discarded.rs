//! Changes that are given up, and what the remote may know of them.

use std::sync::Arc;

use crate::support::*;
use partial_sync_core::ChangeId;
use partial_sync_transport::{Fault, Faulty, RemoteErrorKind};

/// Was red: the newest change had landed, its answer was lost, and it was discarded; the remote then knew of a change that
/// the log did not, and the replica was said to be restored from a backup.
#[test]
fn sync_goes_on_after_the_newest_change_landed_unheard_and_was_discarded() {
    for pulled_first in [false, true] {
        goes_on(pulled_first);
    }
}

fn goes_on(pulled_first: bool) {
    let served = Served::new("create table t(id integer primary key, v text)");
    let replicas = Replicas::new();
    let faulty = Arc::new(Faulty::new(served.http()));
    let db = replicas
        .builder("a.db")
        .remote_with(faulty.clone())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute("insert into t values (1, 'a')", ()).unwrap();
    conn.execute("insert into t values (2, 'b')", ()).unwrap();
    // The question how far the remote is, the batch, the question again.
    faulty.fail_nth(2, Fault::LoseAnswer);
    faulty.fail_nth(3, Fault::Fail(RemoteErrorKind::Unreachable));
    db.push().unwrap_err();
    faulty.heal();
    assert!(db.discard_change(ChangeId(2)).unwrap());
    if pulled_first {
        db.pull().unwrap();
    }
    db.push().unwrap();
    conn.execute("insert into t values (3, 'c')", ()).unwrap();
    db.push().unwrap();
    let there = stock_rows(&served.sqlite(), "select id from t order by id").unwrap();
    assert_eq!(there, ["Integer(1)", "Integer(2)", "Integer(3)"]);
}
