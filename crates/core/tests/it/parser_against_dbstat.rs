//! The header and B-tree parser held against SQLite's own `dbstat` virtual table, page by page, on real databases.

use std::collections::BTreeMap;

use partial_sync_core::{
    PageNo, PageSize,
    btree::{BTreePage, PageKind, next_overflow_page},
    header::DatabaseHeader,
};
use rusqlite::Connection;

const KINDS_OF_TABLES: &str = "
    CREATE TABLE plain(id INTEGER PRIMARY KEY, a TEXT, b BLOB);
    CREATE INDEX plain_a ON plain(a, b);
    CREATE TABLE negative(id INTEGER PRIMARY KEY, a TEXT);
    CREATE TABLE keyed(a TEXT, b INTEGER, c TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE TABLE blobs(id INTEGER PRIMARY KEY, data BLOB);
    CREATE INDEX blobs_data ON blobs(data);
    CREATE TABLE empty(x);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
    INSERT INTO plain SELECT i * 7, 'row ' || (i * 7919 % 3000), zeroblob(i % 50) FROM n;
    INSERT INTO negative SELECT -id * 1000000007, a FROM plain;
    INSERT INTO keyed SELECT a, id, hex(b) FROM plain;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120)
    INSERT INTO blobs SELECT i, CAST(i AS TEXT) || zeroblob(i * i * 17) FROM n;
    DELETE FROM plain WHERE id % 5 = 0;
    DELETE FROM keyed WHERE b % 3 = 0;
    UPDATE negative SET a = a || ' and some more' WHERE id % 2 = 0;
    DELETE FROM blobs WHERE id % 4 = 0;";

#[derive(Debug, PartialEq)]
struct Stat {
    kind: String,
    cells: u32,
    payload: u64,
    unused: u64,
    max_payload: u64,
}

fn database(page_size: u32, vacuum: &str) -> Connection {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(&format!(
        "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {vacuum}"
    ))
    .unwrap();
    db.execute_batch(KINDS_OF_TABLES).unwrap();
    db
}

/// The whole file, read through the `sqlite_dbpage` virtual table.
fn bytes_of(db: &Connection) -> Vec<u8> {
    let mut statement = db
        .prepare("SELECT data FROM sqlite_dbpage ORDER BY pgno")
        .unwrap();
    let pages = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    pages.flat_map(Result::unwrap).collect()
}

fn dbstat(db: &Connection) -> BTreeMap<u32, Stat> {
    let mut statement = db
        .prepare("SELECT pageno, pagetype, ncell, payload, unused, mx_payload FROM dbstat")
        .unwrap();
    let rows = statement.query_map([], |row| {
        let stat = Stat {
            kind: row.get(1)?,
            cells: row.get(2)?,
            payload: row.get::<_, i64>(3)? as u64,
            // On an empty page of 65536 bytes dbstat takes the stored content start, 0, at its word.
            unused: row.get::<_, i64>(4).map(|n| if n < 0 { n + 65536 } else { n })? as u64,
            max_payload: row.get::<_, i64>(5)? as u64,
        };
        Ok((row.get(0)?, stat))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Walks every B-tree of the database from the roots in its schema, with nothing but the parser.
fn walk(db: &Connection, file: &[u8]) -> BTreeMap<u32, Stat> {
    let header = DatabaseHeader::parse(file).unwrap();
    let (size, usable) = (header.page_size, header.usable_size());
    let page_bytes = |page: PageNo| &file[page.offset(size) as usize..][..size.as_usize()];
    let mut statement = db
        .prepare("SELECT 1 UNION SELECT rootpage FROM sqlite_schema WHERE rootpage")
        .unwrap();
    let roots = statement.query_map([], |row| row.get::<_, u32>(0)).unwrap();
    let mut todo: Vec<PageNo> = roots.map(|root| PageNo::new(root.unwrap()).unwrap()).collect();
    let mut stats = BTreeMap::new();
    while let Some(page) = todo.pop() {
        let parsed = BTreePage::parse(page, page_bytes(page), usable).unwrap();
        todo.extend(parsed.children().map(Result::unwrap));
        let cells: Vec<_> = parsed.cells().map(Result::unwrap).collect();
        let left: Vec<_> = cells
            .iter()
            .filter_map(|c| c.left_child)
            .chain(parsed.right_most_child())
            .collect();
        assert_eq!(left, parsed.children().map(Result::unwrap).collect::<Vec<_>>());
        let rowids: Vec<_> = cells.iter().filter_map(|cell| cell.rowid).collect();
        assert!(
            rowids.is_sorted_by(|a, b| a < b),
            "rowids of {page:?} go up: {rowids:?}"
        );
        let is_table = matches!(parsed.kind(), PageKind::InteriorTable | PageKind::LeafTable);
        assert_eq!(rowids.len(), if is_table { cells.len() } else { 0 });
        let payloads: Vec<_> = cells.iter().filter_map(|cell| cell.payload).collect();
        for payload in &payloads {
            let (mut next, mut left) = (payload.overflow, payload.len as u64 - payload.local.len() as u64);
            let mut pages = 0;
            while let Some(page) = next {
                pages += 1;
                let here = left.min(u64::from(usable) - 4);
                left -= here;
                let stat = Stat {
                    kind: "overflow".into(),
                    cells: 0,
                    payload: here,
                    unused: u64::from(usable) - 4 - here,
                    max_payload: 0,
                };
                assert!(stats.insert(page.get(), stat).is_none(), "{page:?} twice");
                next = next_overflow_page(page_bytes(page));
            }
            assert_eq!((left, pages), (0, payload.overflow_pages(usable)));
        }
        let stat = Stat {
            kind: if parsed.kind().is_interior() {
                "internal".into()
            } else {
                "leaf".into()
            },
            cells: u32::from(parsed.cell_count()),
            payload: payloads.iter().map(|p| p.local.len() as u64).sum(),
            unused: u64::from(parsed.unused().unwrap()),
            max_payload: payloads.iter().map(|p| u64::from(p.len)).max().unwrap_or(0),
        };
        assert!(stats.insert(page.get(), stat).is_none(), "{page:?} twice");
    }
    stats
}

fn compare(page_size: u32, vacuum: &str) {
    let db = database(page_size, vacuum);
    let file = bytes_of(&db);
    let header = DatabaseHeader::parse(&file).unwrap();
    assert_eq!(header.page_size, PageSize::new(page_size).unwrap());
    assert_eq!(
        header.db_size().unwrap().bytes(header.page_size),
        file.len() as u64
    );
    let cookie: u32 = db
        .query_row("PRAGMA schema_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(header.schema_cookie, cookie);
    assert_eq!(header.largest_root != 0, vacuum != "NONE");
    let (expected, actual) = (dbstat(&db), walk(&db, &file));
    for (page, stat) in &expected {
        assert_eq!(
            Some(stat),
            actual.get(page),
            "page {page} of a database with {page_size}-byte pages"
        );
    }
    assert_eq!(expected.len(), actual.len());
    for kind in ["internal", "leaf", "overflow"] {
        assert!(
            expected.values().any(|stat| stat.kind == kind),
            "no {kind} page to test"
        );
    }
}

#[test]
fn pages_of_512_bytes_read_as_dbstat_reads_them() {
    compare(512, "NONE");
}

#[test]
fn pages_of_4096_bytes_read_as_dbstat_reads_them() {
    compare(4096, "NONE");
}

#[test]
fn pages_of_65536_bytes_read_as_dbstat_reads_them() {
    compare(65536, "NONE");
}

#[test]
fn pages_of_a_database_with_pointer_maps_read_as_dbstat_reads_them() {
    compare(1024, "FULL");
}
