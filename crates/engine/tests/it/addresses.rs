//! Where a replica's remote is: it knows that itself, and can follow its database to another address.

use std::sync::Arc;

use partial_sync::{Builder, Database, Error};
use partial_sync_server::{Server, access::Access, auth::StaticToken};
use partial_sync_transport::{Counting, Fault, Faulty, RemoteErrorKind};

use crate::support::{Replicas, Served, contents, prefix, rows, stock_contents, stock_rows};

const TABLE: &str = "create table t (id integer primary key, v text);
    with recursive n(i) as (values (1) union all select i + 1 from n where i < 500)
    insert into t select i, printf('%0400d', i) from n";

fn partial(builder: Builder) -> Builder {
    builder.partial(prefix(8192, 4096))
}

#[test]
fn s3_a_replica_that_is_opened_without_a_url_uses_the_one_it_knows() {
    let mut served = Served::new(TABLE);
    let replicas = Replicas::new();
    drop(
        partial(replicas.builder("a.db").remote(served.url()))
            .connect()
            .unwrap(),
    );

    // Opening asks for nothing: the remote is gone.
    served.stop();
    let db = replicas.builder("a.db").connect().unwrap();
    assert_eq!(db.stats().unwrap().requests, 0);
    assert_eq!(
        rows(&db.connection().unwrap(), "select count(*) from sqlite_schema").unwrap(),
        ["Integer(1)"]
    );
    drop(db);
    served.start();

    let db = replicas.builder("a.db").connect().unwrap();
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, "select count(*) from t").unwrap(),
        ["Integer(500)"],
        "pages are fetched"
    );
    conn.execute_batch("insert into t values (1000, 'mine')").unwrap();
    served.execute("insert into t values (2000, 'theirs')");
    db.push().unwrap();
    assert!(db.pull().unwrap());
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
    // A second handle with the url, and one without, join it.
    assert!(
        replicas
            .builder("a.db")
            .remote(served.url())
            .connect()
            .unwrap()
            .is_replica()
    );
    assert!(replicas.builder("a.db").connect().unwrap().is_replica());
}

#[test]
fn s3_the_token_that_is_given_without_a_url_is_used() {
    let mut served = Served::new(TABLE);
    served.stop();
    let server = Server::builder(&served.file)
        .authenticator(StaticToken::new("s3cret", Access::Full))
        .start_blocking("127.0.0.1:0")
        .unwrap();
    let url = format!("http://{}", server.addr());
    let replicas = Replicas::new();
    drop(
        partial(replicas.builder("a.db").remote(url).auth_token("s3cret"))
            .connect()
            .unwrap(),
    );
    let db = replicas.builder("a.db").connect().unwrap();
    assert!(db.pull().unwrap_err().is_unauthorized());
    drop(db);
    let db = replicas.builder("a.db").auth_token("s3cret").connect().unwrap();
    assert!(!db.pull().unwrap());
    drop(db);
    server.shutdown_blocking();
}

/// A database that was copied to another server, where it has gone on: with rows that were here and rows that were not, and
/// fewer pages or more.
fn moved(from: &Served, script: &str) -> Served {
    let to = Served::new("create table placeholder (x)");
    let mut to = to;
    to.stop();
    let copy = to.file.with_file_name("moved.db");
    from.sqlite()
        .execute("vacuum into ?", [copy.to_str().unwrap()])
        .unwrap();
    to.file = copy;
    to.start();
    to.execute(script);
    to
}

#[test]
fn s3_a_replica_follows_its_database_to_a_new_url_with_everything_that_was_not_pushed() {
    for script in [
        "update t set v = 'there' where id in (1, 499); insert into t select id + 5000, v from t",
        "delete from t where id > 100; vacuum",
        "",
    ] {
        let old = Served::new(TABLE);
        let replicas = Replicas::new();
        let db = partial(replicas.builder("a.db").remote(old.url()))
            .connect()
            .unwrap();
        let conn = db.connection().unwrap();
        // One change is pushed, at the old url; one is not.
        conn.execute_batch("insert into t values (1000, 'pushed')")
            .unwrap();
        db.push().unwrap();
        conn.execute_batch("insert into t values (1001, 'not pushed'); update t set v = 'mine' where id = 2")
            .unwrap();
        drop((conn, db));
        let new = moved(&old, script);

        // The guard stays.
        let error = replicas.builder("a.db").remote(new.url()).connect().unwrap_err();
        assert!(matches!(error, Error::OtherRemote { .. }), "{error:?}");
        assert!(error.to_string().contains("accept_new_url"), "{error}");

        let open = || replicas.builder("a.db").remote(new.url()).accept_new_url(true);
        let db = open().connect().unwrap();
        assert_eq!(db.stats().unwrap().requests, 0, "opening asks for nothing");
        let conn = db.connection().unwrap();
        assert_eq!(
            rows(&conn, "select v from t where id = 1001").unwrap().len(),
            1,
            "what is here is here"
        );
        // What is not here is of the other remote: nothing is mixed.
        let error = rows(&conn, "select v from t where id = 300").unwrap_err();
        assert_eq!(
            error.remote().unwrap().kind,
            RemoteErrorKind::RevisionUnknown,
            "{error}"
        );
        assert!(error.to_string().contains("after a pull"), "{error}");
        assert!(db.hydrate(|_| {}).is_err());

        assert!(db.pull().unwrap());
        assert_eq!(
            rows(&conn, "select id, v from t where id in (2, 1000, 1001)").unwrap(),
            [
                "Integer(2)|Text(\"mine\")",
                "Integer(1000)|Text(\"pushed\")",
                "Integer(1001)|Text(\"not pushed\")"
            ]
            .into_iter()
            .filter(|row| !script.starts_with("delete") || !row.contains("1000"))
            .collect::<Vec<_>>()
        );
        db.push().unwrap();
        db.pull().unwrap();
        db.hydrate(|_| {}).unwrap();
        assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
        assert_eq!(contents(&conn), stock_contents(&new.sqlite()));
        drop((conn, db));

        // From now on it is the replica's url, and the old one is another one's.
        let db = replicas.builder("a.db").connect().unwrap();
        assert!(!db.pull().unwrap());
        drop(db);
        let error = replicas.builder("a.db").remote(old.url()).connect().unwrap_err();
        assert!(matches!(error, Error::OtherRemote { .. }), "{error:?}");
    }
}

#[test]
fn s3_a_push_before_the_first_pull_at_the_new_url_works_and_mixes_nothing() {
    let old = Served::new(TABLE);
    let replicas = Replicas::new();
    let db = partial(replicas.builder("a.db").remote(old.url()))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch("insert into t values (1000, 'pushed')")
        .unwrap();
    db.push().unwrap();
    conn.execute_batch("insert into t values (1001, 'not pushed')")
        .unwrap();
    drop((conn, db));
    // A backup of before the push: it knows nothing of this client.
    let new = moved(
        &old,
        "drop table turso_sync_last_change_id; delete from t where id > 490",
    );
    let open = || {
        replicas
            .builder("a.db")
            .remote(new.url())
            .accept_new_url(true)
            .connect()
            .unwrap()
    };
    let db = open();
    db.push().unwrap();
    assert_eq!(
        stock_rows(&new.sqlite(), "select id from t where id > 490").unwrap(),
        ["Integer(1001)"]
    );
    drop(db);
    // The replica belongs to the new url, and its base still does not: also for anyone who opens it next, without a word.
    let db = replicas.builder("a.db").connect().unwrap();
    let conn = db.connection().unwrap();
    let error = rows(&conn, "select v from t where id = 300").unwrap_err();
    assert_eq!(
        error.remote().unwrap().kind,
        RemoteErrorKind::RevisionUnknown,
        "{error}"
    );
    assert!(db.pull().unwrap());
    db.hydrate(|_| {}).unwrap();
    assert_eq!(contents(&conn), stock_contents(&new.sqlite()));
}

#[test]
fn s3_a_move_that_fails_changes_nothing_and_the_old_url_still_works() {
    let old = Served::new(TABLE);
    let replicas = Replicas::new();
    let db = partial(replicas.builder("a.db").remote(old.url()))
        .connect()
        .unwrap();
    db.connection()
        .unwrap()
        .execute_batch("insert into t values (1001, 'mine')")
        .unwrap();
    drop(db);
    // Nobody is there, or a database that this replica cannot become.
    let large_pages = Served::new(&format!("pragma page_size = 8192; {TABLE}"));
    for url in ["http://127.0.0.1:1".to_owned(), large_pages.url()] {
        let db = replicas
            .builder("a.db")
            .remote(url)
            .accept_new_url(true)
            .connect()
            .unwrap();
        let error = db.pull().unwrap_err();
        assert!(
            error.remote().is_some() || matches!(error, Error::UnusableDatabase { .. }),
            "{error:?}"
        );
        drop(db);
    }
    let db = replicas.builder("a.db").connect().unwrap();
    db.pull().unwrap();
    db.push().unwrap();
    db.hydrate(|_| {}).unwrap();
    assert_eq!(contents(&db.connection().unwrap()), stock_contents(&old.sqlite()));
}

/// The database at the same url was replaced by a copy that does not know the replica's revision.
#[test]
fn s3_an_unknown_revision_at_the_same_url_is_an_error_until_it_is_accepted() {
    let served = Served::new(TABLE);
    let replicas = Replicas::new();
    let remote = Arc::new(Faulty::new(Arc::new(Counting::new(served.http()))));
    let open = |accept| -> Database {
        partial(replicas.builder("a.db").remote_with(remote.clone()))
            .accept_new_url(accept)
            .connect()
            .unwrap()
    };
    let db = open(false);
    let conn = db.connection().unwrap();
    conn.execute_batch("insert into t values (1001, 'mine')").unwrap();
    served.execute("update t set v = 'there' where id < 10");
    remote.fail_nth(1, Fault::Fail(RemoteErrorKind::RevisionUnknown));
    let error = db.pull().unwrap_err();
    assert_eq!(error.remote().unwrap().kind, RemoteErrorKind::RevisionUnknown);
    drop((conn, db));
    let db = open(true);
    remote.fail_nth(1, Fault::Fail(RemoteErrorKind::RevisionUnknown));
    assert!(db.pull().unwrap());
    db.push().unwrap();
    db.pull().unwrap();
    db.hydrate(|_| {}).unwrap();
    assert_eq!(
        contents(&db.connection().unwrap()),
        stock_contents(&served.sqlite())
    );
}

#[test]
fn s3_an_open_replica_is_not_moved_by_another_handle() {
    let old = Served::new(TABLE);
    let new = moved(&old, "");
    let replicas = Replicas::new();
    let db = partial(replicas.builder("a.db").remote(old.url()))
        .connect()
        .unwrap();
    let error = replicas
        .builder("a.db")
        .remote(new.url())
        .accept_new_url(true)
        .connect()
        .unwrap_err();
    assert!(
        matches!(error, Error::OpenedOtherwise { option: "url", .. }),
        "{error:?}"
    );
    assert!(!db.pull().unwrap());
}
