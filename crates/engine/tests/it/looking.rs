//! Hydration, verification and the page map with its owners, on replicas of a real server.

use std::os::unix::fs::FileExt;

use partial_sync::{Database, OwnerKind, PageAt, PageMapView, PageRole};
use partial_sync_transport::{Counting, Features, MemoryRemote};

use crate::support::*;

/// Two tables (one without rowids), an index, rows long enough for overflow pages, and free pages.
const MIXED: &str = "create table town(id integer primary key, name text, country text);
    create table note(town integer, kind text, body blob, primary key(town, kind)) without rowid;
    create index by_country on town(country, name);
    create view names as select name from town;
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 20000)
    insert into town select x, 'town number ' || x, char(65 + x % 26) || char(65 + x % 7) from c;
    insert into note select id, 'long', randomblob(9000) from town where id % 2000 = 0;
    create table gone(x); insert into gone select zeroblob(3000) from town limit 40; drop table gone;";

fn partly(served: &Served, replicas: &Replicas) -> (Database, std::sync::Arc<Counting>) {
    let remote = served.counting();
    let builder = replicas.builder("a.db").remote_with(remote.clone());
    (
        builder.partial(prefix(64 * 1024, 16 * 1024)).connect().unwrap(),
        remote,
    )
}

/// Page count by name, as SQLite itself counts on the full file.
fn dbstat(served: &Served) -> Vec<(String, u32)> {
    let conn = served.sqlite();
    let mut statement = conn
        .prepare("select name, count(*) from dbstat group by name order by name")
        .unwrap();
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    rows.map(Result::unwrap).collect()
}

fn known(map: &PageMapView) -> Vec<(String, u32)> {
    let trees = map.owners.iter().filter(|o| o.root.is_some());
    let mut known: Vec<_> = trees.map(|o| (o.name.clone(), o.known())).collect();
    known.sort();
    known
}

/// Not even for the schema, whose pages need not be here.
#[test]
fn a_checkpoint_asks_the_remote_for_nothing() {
    let tables: String = (0..200)
        .map(|n| format!("create table t{n}(id integer primary key, some_column text, another_column text);"))
        .collect();
    let served = Served::new(&format!("{tables} insert into t7 values (1, 'a', 'b');"));
    let replicas = Replicas::new();
    let remote = served.counting();
    let builder = replicas.builder("a.db").remote_with(remote.clone());
    let db = builder.partial(prefix(4096, 4096)).connect().unwrap();
    served.execute("create table more(x); insert into t7 values (2, 'c', 'd');");
    db.pull().unwrap();
    remote.clear();
    db.checkpoint().unwrap();
    assert_eq!(remote.requests(), 0);
    let stats = db.stats().unwrap();
    assert!(stats.pages_present < stats.pages_total / 2, "{stats:?}");
    let conn = db.connection().unwrap();
    assert_eq!(rows(&conn, "select count(*) from t7").unwrap(), ["Integer(2)"]);
}

#[test]
fn a_hydrated_replica_asks_for_nothing_and_is_an_ordinary_file_after_a_checkpoint() {
    let served = Served::new(MIXED);
    let replicas = Replicas::new();
    let (db, remote) = partly(&served, &replicas);
    let before = db.stats().unwrap();
    assert!(before.pages_present < before.pages_total / 4, "{before:?}");
    remote.clear();
    let mut seen = vec![];
    let done = db
        .hydrate(|progress| seen.push((progress.fetched, progress.total)))
        .unwrap();
    let missing = before.pages_total - before.pages_present;
    assert_eq!((done.fetched, done.absent), (missing, 0));
    assert_eq!(
        (seen[0], *seen.last().unwrap()),
        ((0, missing), (missing, missing))
    );
    assert_eq!(remote.requests(), 1, "so few pages come in one request");
    assert!(remote.ids_delivered_twice().is_empty());

    remote.clear();
    assert_eq!(db.hydrate(|_| {}).unwrap().fetched, 0);
    let conn = db.connection().unwrap();
    let sql = "select count(*), max(name) from town";
    assert_eq!(
        rows(&conn, sql).unwrap(),
        stock_rows(&served.sqlite(), sql).unwrap()
    );
    assert_eq!(remote.requests(), 0);
    db.checkpoint().unwrap();
    drop((conn, db));
    let stock = stock(&replicas.path("a.db"));
    assert_eq!(
        stock_rows(&stock, "pragma integrity_check").unwrap(),
        [r#"Text("ok")"#]
    );
    assert_eq!(stock_contents(&stock), stock_contents(&served.sqlite()));
}

#[test]
fn hydration_goes_on_where_it_was_cut_off_and_what_came_is_kept() {
    let mut served = Served::new(MIXED);
    let replicas = Replicas::new();
    let (db, _) = partly(&served, &replicas);
    served.stop();
    let error = db.hydrate(|_| {}).unwrap_err();
    assert!(error.is_transient(), "{error}");
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, "select 1").unwrap().len(),
        1,
        "the replica stays usable"
    );
    served.start();
    assert_eq!(db.hydrate(|_| {}).unwrap().absent, 0);
}

#[test]
fn a_hydration_can_be_cancelled_and_done_again() {
    let served = Served::new(MIXED);
    let replicas = Replicas::new();
    let (db, _) = partly(&served, &replicas);
    let cancel = db.cancel_handle().unwrap();
    let mut cancelled = false;
    let result = db.hydrate(|progress| {
        if progress.fetched == 3 && !cancelled {
            cancelled = true;
            cancel.cancel();
        }
    });
    // The answer may have been read to its end before the wait noticed.
    if let Err(error) = result {
        assert!(error.is_interrupted(), "{error}");
    }
    assert_eq!(db.hydrate(|_| {}).unwrap().absent, 0);
}

#[test]
fn local_writes_survive_a_hydration_invariant_6() {
    let served = Served::new(MIXED);
    let replicas = Replicas::new();
    let (db, _) = partly(&served, &replicas);
    let conn = db.connection().unwrap();
    conn.execute_batch("update town set name = 'mine' where id in (1, 9000, 20000); insert into town values (0, 'new', 'ZZ')")
        .unwrap();
    let dirty = db.stats().unwrap().pages_dirty;
    assert!(dirty > 0);
    assert_eq!(db.hydrate(|_| {}).unwrap().absent, 0);
    db.checkpoint().unwrap();
    let sql = "select id, name from town where name in ('mine', 'new') order by id";
    assert_eq!(rows(&conn, sql).unwrap().len(), 4);
    assert_eq!(
        db.stats().unwrap().pages_dirty,
        dirty,
        "a hydration does not clean what is dirty"
    );
    drop((conn, db));
    assert_eq!(
        stock_rows(&stock(&replicas.path("a.db")), "pragma integrity_check").unwrap(),
        [r#"Text("ok")"#]
    );
}

#[test]
fn verification_compares_what_is_here_and_fetches_nothing() {
    let served = Served::new(MIXED);
    let replicas = Replicas::new();
    let (db, _) = partly(&served, &replicas);
    let stats = db.stats().unwrap();
    let verified = db.verify(|_| {}).unwrap();
    assert!(verified.is_equal());
    assert_eq!(verified.compared, stats.pages_present);
    assert_eq!(verified.absent, stats.pages_total - stats.pages_present);
    assert_eq!(db.stats().unwrap().pages_present, stats.pages_present);
}

#[test]
fn pages_that_a_pull_brought_verify_before_they_are_checkpointed() {
    let served = Served::new(MIXED);
    let replicas = Replicas::new();
    let (db, _) = partly(&served, &replicas);
    db.hydrate(|_| {}).unwrap();
    served.execute("update town set name = 'changed' where id % 100 = 0; create table later(x)");
    assert!(db.pull().unwrap());
    let verified = db.verify(|_| {}).unwrap();
    assert!(verified.is_equal(), "{verified:?}");
    assert!(verified.compared > 100);
}

#[test]
fn verification_leaves_out_local_writes_and_finds_damage() {
    let served = Served::new(MIXED);
    let replicas = Replicas::new();
    let (db, _) = partly(&served, &replicas);
    let conn = db.connection().unwrap();
    conn.execute("update town set name = 'mine' where id = 1", ())
        .unwrap();
    let dirty = db.stats().unwrap().pages_dirty;
    let verified = db.verify(|_| {}).unwrap();
    assert!(verified.is_equal(), "{verified:?}");
    assert!(verified.dirty_skipped > 0 && verified.dirty_skipped <= dirty);

    let damaged = db
        .page_map()
        .unwrap()
        .pages()
        .iter()
        .rposition(|p| p.at == PageAt::Present)
        .unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(replicas.path("a.db"))
        .unwrap();
    file.write_all_at(b"!", damaged as u64 * 4096 + 2000).unwrap();
    let verified = db.verify(|_| {}).unwrap();
    assert_eq!(
        verified.differing.iter().map(|d| d.page).collect::<Vec<_>>(),
        [damaged as u32 + 1]
    );
    assert_ne!(verified.differing[0].here, verified.differing[0].remote);
}

#[test]
fn the_owners_of_a_hydrated_replica_are_those_that_dbstat_names() {
    let served = Served::new(MIXED);
    let replicas = Replicas::new();
    let (db, remote) = partly(&served, &replicas);
    db.hydrate(|_| {}).unwrap();
    remote.clear();
    let map = db.page_map().unwrap();
    assert_eq!(known(&map), dbstat(&served));
    let free = map.owners.iter().find(|o| o.kind == OwnerKind::Freelist).unwrap();
    let in_freelist: u32 = served
        .sqlite()
        .query_row("pragma freelist_count", [], |r| r.get(0))
        .unwrap();
    assert!(in_freelist > 20);
    assert_eq!(free.known(), in_freelist);
    assert!(map.owners.iter().all(|o| o.complete), "{:?}", map.owners);
    assert_eq!(map.unowned(PageAt::Present), 0);
    assert_eq!(map.count(PageAt::Present), map.total());
    assert!(map.pages().iter().any(|p| p.role == PageRole::Overflow));
    assert_eq!(map.owners[0].kind, OwnerKind::Schema);
    assert_eq!(remote.requests(), 0);
}

#[test]
fn the_page_map_of_a_partial_replica_names_absent_children_and_fetches_nothing() {
    let served = Served::new(MIXED);
    let replicas = Replicas::new();
    let (db, remote) = partly(&served, &replicas);
    let conn = db.connection().unwrap();
    rows(&conn, "select name from town where id = 12345").unwrap();
    conn.execute_batch(
        "update town set name = 'mine' where id = 12345; insert into town values (30000, 'new', 'ZZ')",
    )
    .unwrap();
    let stats = db.stats().unwrap();
    remote.clear();
    let map = db.page_map().unwrap();
    assert_eq!(remote.requests(), 0);
    assert_eq!(map.total(), stats.pages_total);
    assert_eq!(map.count(PageAt::Dirty), stats.pages_dirty);
    let town = map.owners.iter().find(|o| o.name == "town").unwrap();
    let (_, pages) = dbstat(&served)
        .into_iter()
        .find(|(name, _)| name == "town")
        .unwrap();
    assert!(town.present > 0 && town.dirty > 0 && town.absent > 0, "{town:?}");
    assert!(!town.complete);
    assert!(
        town.known().abs_diff(pages) <= 2,
        "its root is here and names every leaf: {town:?} of {pages}"
    );
    let log = map
        .owners
        .iter()
        .find(|o| o.name == "partial_sync_changes")
        .unwrap();
    assert!(log.dirty > 0, "tables that exist only in the WAL are seen");
    for owner in &map.owners {
        let of = |at| {
            map.pages()
                .iter()
                .filter(|p| p.at == at && p.owner() == map.owners.iter().position(|o| o == owner))
                .count()
        };
        assert_eq!(of(PageAt::Absent) as u32, owner.absent, "{owner:?}");
    }
}

#[test]
fn a_damaged_page_leaves_its_tree_incomplete_and_the_rest_known() {
    let served = Served::new(MIXED);
    let replicas = Replicas::new();
    let (db, _) = partly(&served, &replicas);
    db.hydrate(|_| {}).unwrap();
    let whole = db.page_map().unwrap();
    let index = whole.owners.iter().find(|o| o.name == "by_country").unwrap();
    let root = u64::from(index.root.unwrap());
    let file = std::fs::File::options()
        .write(true)
        .open(replicas.path("a.db"))
        .unwrap();
    for seed in 0..20_u64 {
        println!("seed {seed}");
        let bytes: Vec<u8> = (0..4096_u64)
            .map(|i| (((i + 1) * (seed * 7919 + 31)) >> 3) as u8)
            .collect();
        file.write_all_at(&bytes, (root - 1) * 4096).unwrap();
        let map = db.page_map().unwrap();
        let index = map.owners.iter().find(|o| o.name == "by_country").unwrap();
        assert!(!index.complete || index.known() <= 1, "{index:?}");
        let town = map.owners.iter().find(|o| o.name == "town").unwrap();
        assert!(town.known() > 0);
        assert!(map.unowned(PageAt::Present) > 0);
    }
}

#[test]
fn a_replica_tells_which_remote_it_is_of_without_being_opened() {
    let served = Served::new(MIXED);
    let replicas = Replicas::new();
    assert_eq!(Database::remote_of(replicas.path("a.db")).unwrap(), None);
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    assert_eq!(
        Database::remote_of(replicas.path("a.db")).unwrap(),
        Some(served.url())
    );
    drop(db);
}

/// A remote in memory with the pages of a file, whose queries touch every third page.
fn in_memory(served: &Served) -> MemoryRemote {
    let bytes = std::fs::read(&served.file).unwrap();
    let remote = MemoryRemote::new();
    remote.push_revision(bytes.chunks(4096).map(bytes::Bytes::copy_from_slice).collect());
    remote.on_query(|_, pages| Ok((0..pages.len() as u32).filter(|id| id % 3 == 0).collect()));
    remote
}

fn checkpointed(script: &str) -> Served {
    let mut served = Served::new(script);
    served.stop();
    served.execute("pragma wal_checkpoint(truncate)");
    served
}

#[test]
fn hydrating_a_query_brings_the_pages_it_touches_and_none_that_is_here() {
    let served = checkpointed(MIXED);
    for features in [Features::ALL, Features::default()] {
        let remote = in_memory(&served);
        remote.set_features(features);
        let counting = std::sync::Arc::new(Counting::new(std::sync::Arc::new(remote)));
        let replicas = Replicas::new();
        let builder = replicas.builder("a.db").remote_with(counting.clone());
        let db = builder.partial(prefix(64 * 1024, 16 * 1024)).connect().unwrap();
        let before = db.stats().unwrap();
        counting.clear();
        let mut last = 0;
        let done = db
            .hydrate_query("select 1", |progress| last = progress.fetched)
            .unwrap();
        let after = db.stats().unwrap();
        assert!(done.fetched > 50);
        assert_eq!(after.pages_present - before.pages_present, done.fetched);
        assert_eq!((last, counting.requests()), (done.fetched, 1));
        assert_eq!(done.absent, after.pages_total - after.pages_present);
        if features.hydrate {
            assert_eq!(
                counting.ids_delivered().len(),
                done.fetched as usize,
                "what is here is left out"
            );
        }
        assert!(db.verify(|_| {}).unwrap().is_equal());
    }
}

#[test]
fn hydrating_at_a_revision_that_expired_is_a_typed_error_and_leaves_the_replica_usable() {
    let served = checkpointed(MIXED);
    let remote = in_memory(&served);
    let replicas = Replicas::new();
    let builder = replicas
        .builder("a.db")
        .remote_with(std::sync::Arc::new(remote.clone()));
    let db = builder.partial(prefix(64 * 1024, 16 * 1024)).connect().unwrap();
    let (base, pages) = remote.latest().unwrap();
    remote.push_revision(pages.to_vec());
    remote.expire(&base);
    for error in [
        db.hydrate(|_| {}).unwrap_err(),
        db.hydrate_query("select 1", |_| {}).unwrap_err(),
        db.verify(|_| {}).unwrap_err(),
    ] {
        assert!(error.is_revision_expired(), "{error}");
        assert!(
            error.to_string().to_lowercase().contains("pull"),
            "it says what to do: {error}"
        );
    }
    assert_eq!(rows(&db.connection().unwrap(), "select 1").unwrap().len(), 1);
    assert!(db.page_map().unwrap().count(PageAt::Present) >= 16);
}

#[test]
fn owners_are_known_for_every_page_size_with_auto_vacuum_and_in_utf_16() {
    for (size, vacuum, encoding) in [
        (512, "none", "UTF-16le"),
        (1024, "full", "UTF-8"),
        (65536, "incremental", "UTF-16be"),
    ] {
        let pragmas = format!(
            "pragma page_size = {size}; pragma auto_vacuum = {vacuum}; pragma encoding = '{encoding}';"
        );
        let served = Served::new(&(pragmas + MIXED));
        let replicas = Replicas::new();
        let builder = replicas.builder("a.db").remote(served.url());
        let db = builder.partial(prefix(1, 1)).connect().unwrap();
        assert_eq!(db.hydrate(|_| {}).unwrap().absent, 0);
        let map = db.page_map().unwrap();
        assert_eq!(map.page_size, size);
        assert_eq!(
            known(&map),
            dbstat(&served),
            "page size {size}, auto-vacuum {vacuum}"
        );
        assert_eq!(map.unowned(PageAt::Present), 0);
        let maps = map
            .pages()
            .iter()
            .filter(|p| p.role == PageRole::PointerMap)
            .count();
        assert_eq!(maps > 0, vacuum != "none");
        assert!(db.verify(|_| {}).unwrap().is_equal());
    }
}
