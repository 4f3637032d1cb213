//! Good inputs to begin with, made by the code that writes such things.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use partial_sync::change::{
    Cause, Change, ChangeKind, Column, RowOp, StatementChange, StatementKind, Table, Value, codec,
};
use partial_sync_core::{ChangeId, PageCount, PageMap, PageNo, PageSize, Revision, saved_map};
use partial_sync_ltx::{Checksum, Header, PreApply, TxId, TxRange, Writer};
use partial_sync_transport::{
    ApplyMode, PageSelector, PagesRequest,
    hrana::{self, Batch, Condition, NamedArg, Step, Stmt},
    wire::{self, PageEncoding, PullUpdatesHeader, PullUpdatesRequest},
};
use prost::Message;
use roaring::RoaringBitmap;

const ENCODINGS: [PageEncoding; 3] = [PageEncoding::Raw, PageEncoding::Zstd, PageEncoding::ZstdBlocks];

/// The seeds of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "wire_frames" => ENCODINGS.map(|e| after(&[9], answer(e))).to_vec(),
        "wire_request" => requests(),
        "bitmap" => bitmaps(),
        "page_stream" => ENCODINGS
            .into_iter()
            .flat_map(|e| [32, 33, 34, 49, 36].map(|flags| after(&[flags, 40, 3], answer(e))))
            .chain([after(
                &[64, 1, 1],
                br#"{"code":"REVISION_EXPIRED","message":"gone"}"#,
            )])
            .collect(),
        "zstd_page" => [512, 4096, 1000].map(|len| zstd(&page(len))).to_vec(),
        "hrana_answer" => plain_and_packed(texts(&[
            (
                1,
                r#"{"baton":null,"base_url":null,"results":[{"type":"ok","response":{"type":"batch","result":{"step_results":[{"cols":[{"name":"a","decltype":"TEXT"}],"rows":[[{"type":"text","value":"x"},{"type":"integer","value":"7"},{"type":"null"},{"type":"float","value":1.5},{"type":"blob","base64":"AAE"}]],"affected_row_count":1,"last_insert_rowid":"7"}],"step_errors":[null]}}},{"type":"ok","response":{"type":"close"}}]}"#,
            ),
            (
                2,
                r#"{"results":[{"type":"ok","response":{"type":"batch","result":{"step_results":[null,null],"step_errors":[{"message":"no such table: t","code":"SQLITE_ERROR"},null]}}}]}"#,
            ),
            (
                1,
                r#"{"results":[{"type":"error","error":{"message":"refused","code":null}}]}"#,
            ),
            (129, r#"{"code":"BAD_REQUEST","message":"no"}"#),
        ])),
        "hrana_values" => hrana_values(),
        "ltx_file" => ltx_files(),
        "pull_endpoint" => requests()
            .into_iter()
            .flat_map(|body| [0, 1, 2, 3].map(|pinned| after(&[pinned], body.clone())))
            .collect(),
        "hrana_endpoint" => texts(&[
            (
                1,
                r#"{"baton":null,"requests":[{"type":"execute","stmt":{"sql":"INSERT INTO notes VALUES (?, :b)","args":[{"type":"integer","value":"9"}],"named_args":[{"name":"b","value":{"type":"text","value":"x"}}],"want_rows":true}},{"type":"close"}]}"#,
            ),
            (
                0,
                r#"{"requests":[{"type":"batch","batch":{"steps":[{"stmt":{"sql":"BEGIN"}},{"condition":{"type":"ok","step":0},"stmt":{"sql":"SELECT * FROM notes"}},{"condition":{"type":"not","cond":{"type":"is_autocommit"}},"stmt":{"sql":"ROLLBACK"}}]}},{"type":"close"}]}"#,
            ),
            (
                1,
                r#"{"requests":[{"type":"store_sql","sql_id":1,"sql":"SELECT ?1"},{"type":"describe","sql_id":1},{"type":"sequence","sql":"CREATE TABLE x(a); DROP TABLE x"},{"type":"get_autocommit"},{"type":"close_sql","sql_id":1},{"type":"close"}]}"#,
            ),
            (
                3,
                r#"{"batch":{"steps":[{"stmt":{"sql":"SELECT id, body FROM notes"}},{"condition":{"type":"and","conds":[{"type":"error","step":0}]},"stmt":{"sql":"SELECT 1"}}]}}"#,
            ),
        ]),
        "sql_guard" => STATEMENTS
            .iter()
            .chain(FORBIDDEN)
            .flat_map(|sql| [after(&[0], *sql), after(&[1], *sql)])
            .collect(),
        "btree_page" => database()
            .chunks(512)
            .map(|page| after(&[u8::from(!page.starts_with(b"SQLite")), 0], page))
            .collect(),
        "schema_walk" => vec![after(&[0, 0], database()), after(&[0b1010, 0], database())],
        "saved_page_map" => bitmaps()
            .into_iter()
            .filter_map(|bytes| wire::decode_bitmap(&bytes).ok())
            .flat_map(|present| {
                let dirty = present.iter().take(2).collect();
                let chunks = PageMap::from_sets(&present, &dirty).all_chunks();
                let (bytes, _) = saved_map::whole(&chunks, PageSize::DEFAULT, PageCount(300));
                let record = &bytes[8192 + 4..bytes.len() - 8];
                [after(&[2], record), after(&[0], &bytes)]
            })
            .chain([after(&[1], &OLD_PAGE_MAP[..OLD_PAGE_MAP.len() - 8])])
            .collect(),
        "info_file" => vec![
            INFO.as_bytes().to_vec(),
            INFO.replace("\"prefix\",\"length\":4096", "\"query\",\"query\":\"SELECT 1\"")
                .into_bytes(),
        ],
        "replica_files" => edits(),
        "change_codec" => changes()
            .chunks(2)
            .map(|some| codec::encode(some).expect("good changes"))
            .chain(OLDER_CHANGES.iter().map(|bytes| bytes.to_vec()))
            .collect(),
        "sql_tokens" => STATEMENTS
            .iter()
            .chain(FORBIDDEN)
            .map(|sql| sql.as_bytes().to_vec())
            .collect(),
        "statement" => STATEMENTS
            .iter()
            .enumerate()
            .map(|(n, sql)| after(&[n as u8, n as u8], *sql))
            .collect(),
        "jwt" => texts(&[
            (0, "Bearer eyJhbGciOiJIUzI1NiJ9.e30.AAAA"),
            (
                0,
                "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n",
            ),
            (1, "{\"alg\":\"none\"}\n{\"a\":\"rw\"}"),
            (
                2,
                r#"{"exp":2000000,"nbf":1,"a":"ro","id":"db","p":{"rw":{"ns":["db"]},"ro":{"ns":["x"]}}}"#,
            ),
        ]),
        "remote_url" => [
            "libsql://db.example/p?authToken=x&tls=0",
            "https://[::1]:8080/a/b/?c=d#e",
            "turso://u:p@h",
            "HTTP://h",
        ]
        .map(|url| url.as_bytes().to_vec())
        .to_vec(),
        _ => vec![],
    }
}

fn after(head: &[u8], body: impl AsRef<[u8]>) -> Vec<u8> {
    [head, body.as_ref()].concat()
}

fn texts(texts: &[(u8, &str)]) -> Vec<Vec<u8>> {
    texts.iter().map(|(flags, text)| after(&[*flags], text)).collect()
}

/// After flags of which one says that the rest is a zstd frame.
fn plain_and_packed(plain: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    const PACKED: u8 = 64;
    let packed: Vec<_> = plain
        .iter()
        .map(|seed| after(&[seed[0] | PACKED], zstd(&seed[1..])))
        .collect();
    [plain, packed].concat()
}

fn page(len: usize) -> Vec<u8> {
    let mut page = vec![7; len];
    page[16..18].copy_from_slice(&(len as u16).to_be_bytes());
    page
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).expect("memory")
}

fn answer(encoding: PageEncoding) -> Vec<u8> {
    let revision = Revision::new("7").expect("not empty");
    let header = PullUpdatesHeader::new(&revision, PageCount(3), ApplyMode::Incremental, encoding);
    let mut body = BytesMut::new();
    wire::encode_frame(&header, &mut body);
    let pages: Vec<_> = (0..3).map(|id| (id, Bytes::from(page(512)))).collect();
    wire::Packer::new(encoding)
        .pack(&pages, &mut body)
        .expect("memory");
    body.to_vec()
}

fn requests() -> Vec<Vec<u8>> {
    let ids: RoaringBitmap = [0, 2, 3].into_iter().collect();
    let request = PagesRequest::default;
    [
        request(),
        PagesRequest {
            select: PageSelector::Ids(ids.clone()),
            have: Some((1..3).collect()),
            ..request()
        },
        PagesRequest {
            since: Revision::new("0123456789abcdef-1"),
            long_poll: Some(std::time::Duration::from_millis(3)),
            require: Some(ids.clone()),
            ..request()
        },
        PagesRequest {
            revision: Revision::new("0123456789abcdef-1"),
            select: PageSelector::Ids(ids),
            query: Some("SELECT body FROM notes WHERE id = 2".to_owned()),
            ..request()
        },
    ]
    .iter()
    .zip(ENCODINGS.into_iter().cycle())
    .map(|(request, encoding)| PullUpdatesRequest::new(request, encoding).encode_to_vec())
    .collect()
}

fn bitmaps() -> Vec<Vec<u8>> {
    let sets: [RoaringBitmap; 4] = [
        RoaringBitmap::new(),
        [0, 1, 5, 70_000].into_iter().collect(),
        (0..100_000).collect(),
        (0..9000).map(|n| n * 2).collect(),
    ];
    sets.iter().map(|set| wire::encode_bitmap(set).to_vec()).collect()
}

fn hrana_values() -> Vec<Vec<u8>> {
    let values = vec![
        hrana::Value::Null,
        hrana::Value::Integer { value: -7 },
        hrana::Value::Float { value: 1.5e300 },
        hrana::Value::Text {
            value: "a\u{0}ä".to_owned(),
        },
        hrana::Value::Blob { base64: vec![0, 255] },
    ];
    let condition = Condition::And {
        conds: vec![
            Condition::Ok { step: 0 },
            Condition::Not {
                cond: Box::new(Condition::IsAutocommit {}),
            },
            Condition::Or {
                conds: vec![Condition::Error { step: 1 }],
            },
        ],
    };
    let stmt = Stmt {
        named_args: vec![NamedArg {
            name: ":a".to_owned(),
            value: values[1].clone(),
        }],
        ..Stmt::new("SELECT ?", values.clone())
    };
    let batch = Batch {
        steps: vec![Step {
            condition: Some(condition.clone()),
            stmt,
        }],
        ..Batch::default()
    };
    let json = |value: &dyn erased::Json| value.bytes();
    let mut seeds: Vec<_> = values.iter().map(|value| json(value)).collect();
    seeds.extend([json(&condition), json(&batch)]);
    seeds
}

/// Anything that serde can write.
mod erased {
    pub(super) trait Json {
        fn bytes(&self) -> Vec<u8>;
    }

    impl<T: serde::Serialize> Json for T {
        fn bytes(&self) -> Vec<u8> {
            serde_json::to_vec(self).expect("it has string keys")
        }
    }
}

fn database() -> Vec<u8> {
    crate::input::database(
        "PRAGMA page_size = 512; PRAGMA auto_vacuum = incremental; CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT);
         CREATE INDEX n ON notes(body); CREATE TABLE w(a PRIMARY KEY, b) WITHOUT ROWID;
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 40)
         INSERT INTO notes SELECT i, printf('note %d', i * 7919) FROM n;
         INSERT INTO w VALUES ('x', printf('%.1500c', 'y')); INSERT INTO w VALUES ('z', printf('%.1500c', 'y'));
         DELETE FROM w WHERE a = 'x';",
    )
}

fn changes() -> Vec<Change> {
    let column = |name: &str, key| Column {
        name: name.to_owned(),
        key,
        generated: false,
    };
    let table = Arc::new(Table {
        name: "no\"tes".to_owned(),
        columns: vec![column("id", 1), column("body", 0)],
        without_rowid: false,
        is_virtual: false,
    });
    let plain = Arc::new(Table {
        name: "plain".to_owned(),
        columns: vec![
            column("a", 0),
            Column {
                generated: true,
                ..column("b", 0)
            },
        ],
        without_rowid: false,
        is_virtual: false,
    });
    let row = |table: &Arc<Table>, op, cause| ChangeKind::Row {
        table: Arc::clone(table),
        op,
        cause,
    };
    let one = || vec![Value::Integer(1), Value::Text("a".to_owned())];
    let two = || vec![Value::Real(f64::INFINITY), Value::RawText(vec![0xff])];
    let kinds = vec![
        row(&table, RowOp::Insert { after: one() }, Cause::Statement),
        row(
            &table,
            RowOp::Update {
                before: one(),
                after: two(),
            },
            Cause::ForeignKey,
        ),
        row(&plain, RowOp::Delete { before: two() }, Cause::Trigger),
        row(
            &plain,
            RowOp::Update {
                before: vec![Value::Null, Value::Null],
                after: one(),
            },
            Cause::Statement,
        ),
        ChangeKind::Statement(StatementChange {
            sql: "INSERT INTO f VALUES (?, :a)".to_owned(),
            args: vec![Value::Blob(vec![1])],
            named: vec![(":a".to_owned(), Value::Integer(3))],
            kind: StatementKind::VirtualTableWrite {
                table: "f".to_owned(),
            },
        }),
        ChangeKind::Statement(StatementChange {
            sql: "CREATE TABLE x(a)".to_owned(),
            args: vec![],
            named: vec![],
            kind: StatementKind::CreateTable,
        }),
        row(&table, RowOp::Add { after: one() }, Cause::StatementByValues),
        ChangeKind::Statement(StatementChange {
            sql: "INSERT INTO f(rowid) SELECT id FROM t WHERE id = ?".to_owned(),
            args: vec![Value::Integer(1)],
            named: vec![],
            kind: StatementKind::Reindex {
                table: "f".to_owned(),
                content: "t".to_owned(),
                by_trigger: true,
            },
        }),
        row(&plain, RowOp::Delete { before: one() }, Cause::ForeignKeyByValues),
        ChangeKind::Statement(StatementChange {
            sql: String::new(),
            args: vec![Value::Text("t".to_owned()), Value::Integer(7)],
            named: vec![],
            kind: StatementKind::Sequence,
        }),
    ];
    let change = |(n, kind)| Change {
        id: ChangeId(n),
        time: 1_700_000_000,
        back: (n as u32 - 1) % 3,
        kind,
    };
    (1..).zip(kinds).map(change).collect()
}

/// A page map as version 1 of the format had it; nothing writes that any more.
const OLD_PAGE_MAP: &[u8] = include_bytes!("../../core/tests/fixtures/page_map.v1");

/// Two changes of a row as versions 1 and 2 of the format had them; nothing writes those any more.
const OLDER_CHANGES: [&[u8]; 2] = [
    b"\x01\x01\x06no\"tes\x02\x02id\x01\0\x04body\0\0\0\x02\x02\x80\xc4\x9f\xd5\x0c\0\0\0\x02\x01\x02\x03\x01a\0\x04\x80\xc4\x9f\xd5\x0c\0\0\x01\x02\x01\x02\x03\x01a\x02\x02\0\0\0\0\0\0\xf0\x7f\x04\x01\xff\x02",
    b"\x02\0\x01\x06no\"tes\x02\x02id\x01\0\x04body\0\0\0\0\x02\x02\x80\xc4\x9f\xd5\x0c\0\0\0\x02\x01\x02\x03\x01a\0\x04\x80\xc4\x9f\xd5\x0c\0\0\x01\x02\x01\x02\x03\x01a\x02\x02\0\0\0\0\0\0\xf0\x7f\x04\x01\xff\x02",
];

/// Edits of the files of a replica: the database, its WAL, its info, its page map, its changes.
fn edits() -> Vec<Vec<u8>> {
    let edit = |file: u8, how: u8, at: u16, piece: &[u8]| {
        let mut edit = vec![file, how];
        edit.extend(at.to_le_bytes());
        edit.push(piece.len() as u8);
        edit.extend(piece);
        edit
    };
    vec![
        vec![],
        edit(0, 1, 512, b""),
        edit(1, 1, 40, b""),
        edit(3, 0, 28, b";0"),
        // Its pages are here but for the last, and the first two are dirty.
        edit(
            3,
            5,
            0,
            &[0, 0, 0, 0, 1, 0, 0, 0, 3, 3, 1, 0, 0, 0, 5, 0, 1, 0, 0, 0, 1, 0],
        ),
        [edit(3, 2, 0, &OLD_PAGE_MAP[..200]), edit(3, 6, 0, b"")].concat(),
        edit(2, 0, 20, b"true"),
        // A pull in progress: a base, what to keep, the end.
        [
            edit(2, 4, 0, br#"{"revision":"m1","size":7,"page_size":512}"#),
            edit(4, 4, 0, b""),
        ]
        .concat(),
        edit(0, 0, 100, &[13, 0, 0, 0, 1]),
        edit(4, 2, 0, b"\x02\x2a\0\0\0"),
    ]
}

const INFO: &str = r#"{"format":1,"ready":true,"client_id":"c-1","remote_url":"http://h","page_size":4096,"base_revision":"7","base_size":12,"bootstrap":{"kind":"prefix","length":4096},"segment_size":131072,"prefetch":true,"remote_hydrates":true,"acknowledged":3,"change_floor":5,"pulls":1,"wal_mark":{"salts":[1,2],"bytes":4152},"created":1700000000,"last_pull":1700000001,"last_push":null}"#;

/// One of each kind in the order of `StatementKind`, then others.
const STATEMENTS: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS main.[x y](a INTEGER PRIMARY KEY, b TEXT DEFAULT 'it''s; -- no', c AS (a + 1)) STRICT;",
    "create unique index \"i\" on t(a, b) where a > 3",
    "CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET b = new.a; SELECT RAISE(IGNORE); END;",
    "/* c */ CREATE VIEW `v` AS SELECT a, count(*) FROM t GROUP BY 1 -- end",
    "DROP TABLE t",
    "DROP INDEX IF EXISTS i;;",
    "drop trigger main.r",
    "DROP VIEW v",
    "ALTER TABLE t ADD COLUMN c INT DEFAULT 3",
    "ALTER TABLE t RENAME COLUMN a TO c",
    "INSERT INTO t VALUES (?, ?3, :a), (@b, $c::d(e), x'00ff') ON CONFLICT DO NOTHING",
    "CREATE TEMP TABLE z(a)",
    "CREATE VIRTUAL TABLE f USING fts5(a, b)",
    "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n LIMIT 9) SELECT 1.5e3, -7, i FROM n",
];

const FORBIDDEN: &[&str] = &[
    "ATTACH 'other.db' AS o; CREATE TABLE o.t(a)",
    "VACUUM INTO 'copy.db'",
    "PRAGMA journal_mode = delete",
    "PRAGMA writable_schema = 1; DELETE FROM sqlite_schema",
    "PRAGMA synchronous = off; PRAGMA user_version = 7; PRAGMA wal_checkpoint(truncate)",
    "SELECT load_extension('x'); SELECT writefile('a', 'b')",
    "UPDATE sqlite_dbpage SET data = zeroblob(512) WHERE pgno = 1",
    "SELECT * FROM pragma_database_list; DETACH main; PRAGMA locking_mode = exclusive",
];

/// A snapshot, deltas with and without checksums of the database, one without pages, one of the largest pages, and two whose
/// frames do not say their size.
fn ltx_files() -> Vec<Vec<u8>> {
    let file = |page_size, ids: (u64, u64), pre_apply, pages: &[u32], after| {
        let ids = TxId::new(ids.0).zip(TxId::new(ids.1));
        let header = Header {
            page_size: PageSize::new(page_size).expect("a page size"),
            commit: PageCount(3),
            ids: ids
                .and_then(|(min, max)| TxRange::new(min, max))
                .expect("a range"),
            timestamp: 1_700_000_000_000,
            pre_apply,
            wal: None,
            node: 1,
        };
        let mut writer = Writer::new(Vec::new(), header).expect("a good header");
        for page in pages {
            let mut bytes = page_bytes(page_size as usize, *page as u8);
            bytes[..4].copy_from_slice(&page.to_be_bytes());
            writer
                .page(PageNo::new(*page).expect("a page"), &bytes)
                .expect("pages in order");
        }
        writer.finish(after).expect("a good file").0
    };
    let sum = Checksum::of_page(PageNo::FIRST, b"a page");
    vec![
        file(512, (1, 2), PreApply::Nothing, &[1, 2, 3], None),
        file(512, (3, 3), PreApply::Untracked, &[2], None),
        file(1024, (3, 9), PreApply::Of(sum), &[1, 3], Some(sum)),
        file(4096, (4, 4), PreApply::Untracked, &[], None),
        file(65536, (5, 5), PreApply::Untracked, &[3], None),
        include_bytes!("../../ltx/tests/fixtures/legacy_before.ltx").to_vec(),
        include_bytes!("../../ltx/tests/fixtures/legacy_after.ltx").to_vec(),
    ]
}

fn page_bytes(len: usize, salt: u8) -> Vec<u8> {
    (0..len)
        .map(|n| if n % 64 < 8 { n as u8 ^ salt } else { 0 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changes_are_of_every_version_of_their_format() {
        let mut versions = vec![];
        for seed in of("change_codec") {
            let changes = codec::decode(&seed).expect("good changes");
            assert!(!changes.is_empty());
            versions.push(seed[0]);
        }
        versions.dedup();
        assert_eq!(versions, [3, 1, 2]);
        assert!(changes().iter().any(|change| change.unit() != change.id));
    }
}
