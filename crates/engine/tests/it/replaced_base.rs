//! A remote that cannot say what changed, only that everything may have.

use std::sync::Arc;

use crate::support::*;
use bytes::Bytes;
use partial_sync_transport::memory::MemoryRemote;

fn pages(conn: &rusqlite::Connection) -> Vec<Bytes> {
    let mut select = conn
        .prepare("select data from sqlite_dbpage order by pgno")
        .unwrap();
    let rows = select.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    rows.map(|data| data.unwrap().into()).collect()
}

#[test]
fn invariant_5_no_page_of_before_is_read_after_a_remote_replaced_its_base() {
    let folder = tempfile::tempdir().unwrap();
    let origin = stock(&folder.path().join("origin.db"));
    origin
        .execute_batch(
            "create table t(id integer primary key, v text);
             with recursive c(x) as (select 1 union all select x + 1 from c where x < 2000)
             insert into t select x, 'first ' || x || hex(zeroblob(50)) from c",
        )
        .unwrap();
    let remote = MemoryRemote::new();
    remote.push_revision(pages(&origin));
    remote.set_replace_base(true);
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote_with(Arc::new(remote.clone()))
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    rows(&conn, "select * from t where id in (1, 700, 1400)").unwrap();
    for script in [
        "update t set v = 'second ' || id || hex(zeroblob(60)); create index i on t(v)",
        "drop index i; delete from t where id > 300; vacuum",
    ] {
        origin.execute_batch(script).unwrap();
        remote.push_revision(pages(&origin));
        assert!(db.pull().unwrap());
        assert_eq!(contents(&conn), stock_contents(&origin), "{script}");
        assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
    }
    assert!(!db.pull().unwrap());
}
