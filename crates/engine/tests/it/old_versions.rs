//! Replicas that version 0.1.0 wrote open, with every change that was made in them; see `tests/fixtures/README.md`.

use std::{path::Path, sync::Arc, time::Duration};

use crate::support::*;
use futures_util::future::BoxFuture;
use partial_sync::Database;
use partial_sync_transport::{
    PageStream, PagesRequest, Remote, RemoteError, TransferStats,
    hrana::{Batch, BatchResult},
};

/// A remote at the address that the replicas were made from.
#[derive(Debug)]
struct Named(Arc<dyn Remote>);

impl Remote for Named {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        self.0.pages(request)
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        self.0.execute(batch, deadline)
    }

    fn url(&self) -> String {
        "https://towns.example".into()
    }

    fn transferred(&self) -> TransferStats {
        self.0.transferred()
    }
}

/// A served copy of a fixture's remote, and a copy of its replica.
fn fixture(name: &str) -> (Served, Replicas) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    let mut served = Served::new("");
    served.stop();
    std::fs::remove_file(&served.file).unwrap();
    for left in ["-history", "-history-wal", "-history-shm", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{left}", served.file.display()));
    }
    std::fs::copy(folder.join("remote.db"), &served.file).unwrap();
    let history = served.folder.path().join("remote.db-history");
    std::fs::copy(folder.join("remote.db-history"), history).unwrap();
    served.start();
    let replicas = Replicas::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        if name.starts_with("a.db") {
            std::fs::copy(file.path(), replicas.path(&name)).unwrap();
        }
    }
    (served, replicas)
}

fn check_what_was_changed(db: &Database) {
    let conn = db.connection().unwrap();
    let towns = "select id, name from town where id in (2, 3, 101, 102) order by id";
    assert_eq!(
        rows(&conn, towns).unwrap(),
        [
            "Integer(2)|Text(\"changed here\")",
            "Integer(101)|Text(\"new here\")",
            "Integer(102)|Text(\"also new here\")"
        ]
    );
    assert_eq!(
        rows(&conn, "select id, v, w from made order by v").unwrap(),
        [
            "Integer(1)|Text(\"first\")|Null",
            "Integer(2)|Text(\"second, changed\")|Null",
            "Integer(3)|Text(\"third\")|Integer(7)"
        ]
    );
    assert_eq!(
        rows(&conn, "select what from audit order by seq").unwrap(),
        [
            "Text(\"added 101\")",
            "Text(\"changed 2\")",
            "Text(\"added 102\")"
        ]
    );
}

#[test]
fn s1_a_replica_of_0_1_0_with_changes_that_were_not_pushed_opens_offline_and_goes_on() {
    let (served, replicas) = fixture("0.1.0");
    let db = replicas.builder("a.db").connect().unwrap();
    check_what_was_changed(&db);
    assert!(db.stats().unwrap().cdc_operations > 0);
    db.connection()
        .unwrap()
        .execute("insert into made values (4, 'by the new version', null)", ())
        .unwrap();
    db.close().unwrap();
    assert!(
        !replicas.files().contains(&"a.db-wal".to_owned()),
        "{:?}",
        replicas.files()
    );

    let db = replicas
        .builder("a.db")
        .remote_with(Arc::new(Named(served.http())))
        .connect()
        .unwrap();
    served.execute("insert into town values (201, 'new there', null)");
    db.pull().unwrap();
    check_there_and_here(&db, &served, 4);
}

fn check_there_and_here(db: &Database, served: &Served, made: usize) {
    db.push().unwrap();
    db.pull().unwrap();
    db.hydrate(|_| {}).unwrap();
    let conn = db.connection().unwrap();
    assert_same(
        &contents(&conn),
        &stock_contents(&served.sqlite()),
        "replica and remote",
    );
    assert_eq!(rows(&conn, "select * from made").unwrap().len(), made);
    assert_eq!(
        rows(&conn, "select name from town where id in (3, 201)").unwrap(),
        ["Text(\"new there\")"]
    );
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
    assert_eq!(db.stats().unwrap().cdc_operations, 0);
}

#[test]
fn s1_a_replica_of_0_1_0_that_was_killed_between_the_two_commits_of_a_pull_opens_offline_and_goes_on() {
    let (served, replicas) = fixture("0.1.0-pull");
    let db = replicas.builder("a.db").connect().unwrap();
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, "select id, v, w from made order by id").unwrap(),
        [
            "Integer(1)|Text(\"first\")|Null",
            "Integer(2)|Text(\"second, changed\")|Null",
            "Integer(3)|Text(\"third\")|Integer(7)"
        ]
    );
    drop(conn);
    db.close().unwrap();
    let db = replicas
        .builder("a.db")
        .remote_with(Arc::new(Named(served.http())))
        .connect()
        .unwrap();
    check_there_and_here(&db, &served, 3);
}
