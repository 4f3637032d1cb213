//! The tables of a history and the statements that clients run on them.
//!
//! Every client (0 = those that write on the remote directly) writes rows of its own: `c` is its number, and keys that are
//! chosen lie in its own range. So whatever the order in which pushes land, the contents are decided: they are those that
//! plain SQLite has after the same statements. Rows that everybody updates are updated in a column of one's own.

use fastrand::Rng;

/// Keys of a client: `c * SPAN + 0..ROWS`.
const SPAN: u64 = 1000;
const ROWS: u64 = 9;

/// A kind of table: its name, what makes it, and what of it is compared.
struct Kind {
    name: &'static str,
    script: &'static str,
    /// The tables and the columns compared; tables that are not named are compared whole.
    compared: &'static [(&'static str, &'static str)],
    statement: fn(&mut Rng, u64) -> String,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "plain",
        script: "CREATE TABLE plain(id INTEGER PRIMARY KEY, c INT, n INT, v); CREATE INDEX plain_v ON plain(c, v);",
        compared: &[],
        statement: |r, c| keyed(r, c, "plain", "id, c, n, v"),
    },
    Kind {
        name: "auto",
        script: "CREATE TABLE auto(id INTEGER PRIMARY KEY, c INT, n INT, v);",
        compared: &[("auto", "c, n, v")],
        statement: |r, c| unkeyed(r, c, "auto"),
    },
    Kind {
        name: "autoinc",
        script: "CREATE TABLE autoinc(id INTEGER PRIMARY KEY AUTOINCREMENT, c INT, n INT, v);",
        compared: &[("autoinc", "c, n, v")],
        statement: |r, c| unkeyed(r, c, "autoinc"),
    },
    Kind {
        name: "txt",
        script: "CREATE TABLE txt(k TEXT PRIMARY KEY, c INT, v);",
        compared: &[],
        statement: |r, c| {
            let (n, v) = (r.u64(..ROWS), value(r));
            let key = format!("'k{c}-{n}'");
            match r.u8(..6) {
                0 => format!("UPDATE txt SET v = {v} WHERE k = {key}"),
                1 => format!("DELETE FROM txt WHERE k = {key}"),
                2 => format!(
                    "UPDATE OR REPLACE txt SET k = 'k{c}-{}' WHERE k = {key}",
                    r.u64(..ROWS)
                ),
                3 => format!(
                    "INSERT INTO txt VALUES ({key}, {c}, {v}) ON CONFLICT(k) DO UPDATE SET v = excluded.v"
                ),
                _ => format!("INSERT {}INTO txt VALUES ({key}, {c}, {v})", or(r)),
            }
        },
    },
    Kind {
        name: "comp",
        script: "CREATE TABLE comp(c INT, n INT, v, w DEFAULT 1, PRIMARY KEY(c, n));",
        compared: &[],
        statement: |r, c| pair(r, c, "comp", "c, n, v"),
    },
    Kind {
        name: "worid",
        script: "CREATE TABLE worid(n INT, c INT, v, PRIMARY KEY(c, n)) WITHOUT ROWID; CREATE INDEX worid_v ON worid(v);",
        compared: &[],
        statement: |r, c| pair(r, c, "worid", "c, n, v"),
    },
    Kind {
        name: "nokey",
        script: "CREATE TABLE nokey(c INT, n INT, v);",
        compared: &[],
        statement: |r, c| unkeyed(r, c, "nokey"),
    },
    Kind {
        name: "strictly",
        script: "CREATE TABLE strictly(id INTEGER PRIMARY KEY, c INTEGER, n INTEGER, v ANY) STRICT;",
        compared: &[],
        statement: |r, c| keyed(r, c, "strictly", "id, c, n, v"),
    },
    Kind {
        name: "gen",
        script: "CREATE TABLE gen(id INTEGER PRIMARY KEY, c INT, n INT, v, l INT GENERATED ALWAYS AS (length(v)) STORED, \
                 d AS (c * 1000 + n)); CREATE INDEX gen_l ON gen(l, d);",
        compared: &[],
        statement: |r, c| keyed(r, c, "gen", "id, c, n, v"),
    },
    Kind {
        name: "uniq",
        script: "CREATE TABLE uniq(id INTEGER PRIMARY KEY, c INT, n INT, v, u TEXT UNIQUE);",
        compared: &[],
        statement: |r, c| {
            let (id, n, v) = (c * SPAN + r.u64(..ROWS), r.u64(..4), value(r));
            match r.u8(..4) {
                0 => keyed(r, c, "uniq", "id, c, n, v"),
                1 => format!("UPDATE {}uniq SET u = 'u{c}-{n}', v = {v} WHERE id = {id}", or(r)),
                _ => format!(
                    "INSERT {}INTO uniq VALUES ({id}, {c}, {n}, {v}, 'u{c}-{n}')",
                    or(r)
                ),
            }
        },
    },
    Kind {
        name: "fts",
        script: "CREATE VIRTUAL TABLE fts USING fts5(c UNINDEXED, body);",
        compared: &[("fts", "rowid, c, body")],
        statement: |r, c| {
            let id = c * SPAN + r.u64(..ROWS);
            match r.u8(..5) {
                0 => format!("DELETE FROM fts WHERE rowid = {id}"),
                1 => format!("UPDATE fts SET body = '{}' WHERE rowid = {id}", words(r)),
                _ => format!(
                    "INSERT {}INTO fts(rowid, c, body) VALUES ({id}, {c}, '{}')",
                    if r.bool() { "OR REPLACE " } else { "" },
                    words(r)
                ),
            }
        },
    },
    Kind {
        name: "family",
        script: "CREATE TABLE parent(id INTEGER PRIMARY KEY, c INT, n INT, v); CREATE TABLE child(id INTEGER PRIMARY KEY, c INT, n INT, v, \
                 p INT REFERENCES parent(id) ON DELETE CASCADE ON UPDATE CASCADE); CREATE INDEX child_p ON child(p);",
        compared: &[],
        statement: |r, c| {
            let (id, p, v) = (c * SPAN + r.u64(..ROWS), c * SPAN + r.u64(..ROWS), value(r));
            match r.u8(..6) {
                0 => format!("DELETE FROM parent WHERE id = {p}"),
                1 => format!("UPDATE parent SET id = {id} WHERE id = {p}"),
                2 | 3 => format!("INSERT {}INTO child VALUES ({id}, {c}, 0, {v}, {p})", or(r)),
                _ => format!("INSERT {}INTO parent VALUES ({p}, {c}, 0, {v})", or(r)),
            }
        },
    },
    // A trigger whose program cascades.
    Kind {
        name: "chain",
        script: "CREATE TABLE link(id INTEGER PRIMARY KEY, c INT, n INT, v); CREATE TABLE node(id INTEGER PRIMARY KEY, c INT); \
                 CREATE TABLE leaf(id INTEGER PRIMARY KEY, c INT, p INT REFERENCES node(id) ON DELETE CASCADE); \
                 CREATE TRIGGER link_ai AFTER INSERT ON link BEGIN INSERT OR IGNORE INTO node VALUES (new.id, new.c); \
                 INSERT OR IGNORE INTO leaf VALUES (new.id * 10 + new.n, new.c, new.id); END; \
                 CREATE TRIGGER link_ad AFTER DELETE ON link BEGIN DELETE FROM node WHERE id = old.id; END;",
        compared: &[],
        statement: |r, c| match r.u8(..5) {
            0 => format!(
                "INSERT OR IGNORE INTO leaf VALUES ({}, {c}, (SELECT max(id) FROM node WHERE c = {c}))",
                c * SPAN * 10 + r.u64(..ROWS * 10)
            ),
            _ => keyed(r, c, "link", "id, c, n, v"),
        },
    },
    // Rows that triggers make, with keys that nobody chose.
    Kind {
        name: "audit",
        script: "CREATE TABLE doc(id INTEGER PRIMARY KEY, c INT, n INT, v); CREATE TABLE log(id INTEGER PRIMARY KEY, c INT, what); \
                 CREATE TRIGGER doc_ai AFTER INSERT ON doc BEGIN INSERT INTO log(c, what) VALUES (new.c, 'i' || new.id || '/' || new.n); END; \
                 CREATE TRIGGER doc_au AFTER UPDATE OF v ON doc BEGIN INSERT INTO log(c, what) VALUES (new.c, 'u' || new.id || '/' || new.n); END; \
                 CREATE TRIGGER doc_ad AFTER DELETE ON doc BEGIN INSERT INTO log(c, what) VALUES (old.c, 'd' || old.id || '/' || old.n); END;",
        compared: &[("log", "c, what")],
        statement: |r, c| match r.u8(..6) {
            0 => format!("DELETE FROM log WHERE c = {c} AND what LIKE 'i%/{}'", r.u64(..4)),
            1 => format!("UPDATE doc SET v = v WHERE c = {c} AND n < {}", r.u64(..4)),
            _ => keyed(r, c, "doc", "id, c, n, v"),
        },
    },
    Kind {
        name: "counter",
        script: "CREATE TABLE counted(id INTEGER PRIMARY KEY, c INT, n INT, v); CREATE TABLE counter(c INTEGER PRIMARY KEY, i INT, u INT, d INT); \
                 CREATE TRIGGER counted_ai AFTER INSERT ON counted BEGIN INSERT INTO counter VALUES (new.c, 1, 0, 0) \
                 ON CONFLICT(c) DO UPDATE SET i = i + 1; END; \
                 CREATE TRIGGER counted_bu BEFORE UPDATE ON counted BEGIN UPDATE counter SET u = u + 1 WHERE c = new.c; END; \
                 CREATE TRIGGER counted_ad AFTER DELETE ON counted BEGIN UPDATE counter SET d = d + 1 WHERE c = old.c; END;",
        compared: &[],
        statement: |r, c| match r.u8(..5) {
            0 => format!("UPDATE counted SET v = v WHERE c = {c}"),
            _ => keyed(r, c, "counted", "id, c, n, v"),
        },
    },
    // A table without a key whose trigger changes the row.
    Kind {
        name: "stamped",
        script: "CREATE TABLE stamped(c INT, n INT, v, seen INT DEFAULT 0); CREATE TRIGGER stamped_ai AFTER INSERT ON stamped BEGIN \
                 UPDATE stamped SET seen = seen + 1 WHERE rowid = new.rowid; END;",
        compared: &[],
        statement: |r, c| unkeyed(r, c, "stamped"),
    },
    // Conflict clauses inside a trigger program, which an outer one overrides.
    Kind {
        name: "clause",
        script: "CREATE TABLE outside(id INTEGER PRIMARY KEY, c INT, n INT, v); CREATE TABLE inside(c INT, n INT, v, UNIQUE(c, n)); \
                 CREATE TRIGGER outside_ai AFTER INSERT ON outside BEGIN INSERT INTO inside VALUES (new.c, new.n, 'i' || new.id); END; \
                 CREATE TRIGGER outside_au AFTER UPDATE ON outside BEGIN INSERT OR REPLACE INTO inside VALUES (new.c, new.n, 'u' || new.id); END;",
        compared: &[],
        statement: |r, c| match r.u8(..6) {
            0 => format!("DELETE FROM inside WHERE c = {c} AND n = {}", r.u64(..4)),
            _ => keyed(r, c, "outside", "id, c, n, v"),
        },
    },
    Kind {
        name: "veto",
        script: "CREATE TABLE vetoed(id INTEGER PRIMARY KEY, c INT, n INT, v); CREATE TABLE vetoes(c INTEGER PRIMARY KEY, n INT); \
                 CREATE TRIGGER vetoed_bi BEFORE INSERT ON vetoed WHEN new.n = 1 BEGIN \
                 INSERT INTO vetoes VALUES (new.c, 1) ON CONFLICT(c) DO UPDATE SET n = n + 1; SELECT RAISE(IGNORE); END; \
                 CREATE TRIGGER vetoed_bu BEFORE UPDATE ON vetoed WHEN new.n = 2 BEGIN SELECT RAISE(IGNORE); END;",
        compared: &[],
        statement: |r, c| keyed(r, c, "vetoed", "id, c, n, v"),
    },
    Kind {
        name: "instead",
        script: "CREATE TABLE under(id INTEGER PRIMARY KEY, c INT, n INT, v); CREATE VIEW over AS SELECT * FROM under; \
                 CREATE TRIGGER over_i INSTEAD OF INSERT ON over BEGIN INSERT OR REPLACE INTO under VALUES (new.id, new.c, new.n, new.v); END; \
                 CREATE TRIGGER over_d INSTEAD OF DELETE ON over BEGIN DELETE FROM under WHERE id = old.id; END;",
        compared: &[],
        statement: |r, c| {
            let id = c * SPAN + r.u64(..ROWS);
            match r.u8(..3) {
                0 => format!("DELETE FROM over WHERE id = {id}"),
                _ => format!(
                    "INSERT INTO over VALUES ({id}, {c}, {}, {})",
                    r.u64(..4),
                    value(r)
                ),
            }
        },
    },
    // Rows of everybody; each client has a column.
    Kind {
        name: "shared",
        script: "CREATE TABLE shared(id INTEGER PRIMARY KEY, c0, c1, c2, c3); WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 8) \
                 INSERT INTO shared SELECT i, 0, 0, 0, 0 FROM n;",
        compared: &[],
        statement: |r, c| {
            format!(
                "UPDATE shared SET c{c} = {} WHERE id {} {}",
                value(r),
                if r.bool() { "=" } else { "<" },
                r.u64(1..9)
            )
        },
    },
];

/// Names of all kinds.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.name)
}

/// The query of what is compared of a table.
pub fn compared(table: &str) -> String {
    let found = KINDS
        .iter()
        .flat_map(|kind| kind.compared)
        .find(|(name, _)| *name == table);
    format!(
        "SELECT {} FROM \"{table}\"",
        found.map_or("*", |(_, columns)| columns)
    )
}

/// Makes the tables, and the one that only the remote writes.
pub fn script(tables: &[String], filler: usize) -> String {
    let mut out = String::from("CREATE TABLE filler(id INTEGER PRIMARY KEY, v);\n");
    for name in tables {
        if let Some(kind) = KINDS.iter().find(|kind| kind.name == name) {
            out.push_str(kind.script);
            out.push('\n');
        }
    }
    if filler > 0 {
        out.push_str(&format!(
            "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {filler}) \
             INSERT INTO filler SELECT i, hex(zeroblob(40 + i * 37 % 200)) FROM n;"
        ));
    }
    out
}

/// Every table that these kinds make.
pub fn tables_of(kinds: &[String]) -> Vec<String> {
    let mut out = vec!["filler".to_owned(), "#user_version".to_owned()];
    for kind in KINDS
        .iter()
        .filter(|kind| kinds.iter().any(|name| name == kind.name))
    {
        for part in kind.script.split("CREATE ").skip(1) {
            let part = part.trim_start_matches("VIRTUAL ");
            if let Some(rest) = part.strip_prefix("TABLE ") {
                out.extend(rest.split(['(', ' ']).next().map(str::to_owned));
            }
        }
    }
    out
}

/// A statement of a client on one of these kinds.
pub fn statement(r: &mut Rng, client: u64, tables: &[String]) -> String {
    let name = &tables[r.usize(..tables.len())];
    match KINDS.iter().find(|kind| kind.name == name) {
        Some(kind) => (kind.statement)(r, client),
        None => "SELECT 1".to_owned(),
    }
}

/// Schema changes of a client, to tables of its own.
pub fn schema_change(r: &mut Rng, client: u64) -> String {
    let (name, other) = (
        format!("own{client}_{}", r.u8(..3)),
        format!("own{client}_{}", r.u8(..3)),
    );
    match r.u8(..9) {
        0 | 1 => format!("CREATE TABLE {name}(id INTEGER PRIMARY KEY, a, b TEXT)"),
        2 => format!("DROP TABLE {name}"),
        3 => format!("ALTER TABLE {name} ADD COLUMN x{}", r.u8(..2)),
        4 => format!("ALTER TABLE {name} RENAME TO {other}"),
        5 => format!("CREATE INDEX {name}_a ON {name}(a)"),
        6 => format!("DROP INDEX {name}_a"),
        7 => format!("ALTER TABLE {name} RENAME COLUMN a TO a{}", r.u8(..2)),
        _ => format!(
            "INSERT OR REPLACE INTO {name}(id, b) VALUES ({}, {})",
            r.u8(..5),
            value(r)
        ),
    }
}

/// Statements of other clients, on the remote, to the table that is theirs: growth and shrinking.
pub fn filler(r: &mut Rng) -> String {
    match r.u8(..8) {
        0 => "DELETE FROM filler WHERE id % 3 = 1".into(),
        1 => format!("DELETE FROM filler WHERE id > {}", r.u16(..60)),
        2 => format!("UPDATE filler SET v = v || 'x' WHERE id % 7 = {}", r.u8(..7)),
        3 => format!("INSERT INTO filler(v) VALUES (hex(zeroblob({})))", r.u16(..6000)),
        4 => format!(
            "INSERT INTO filler(v) SELECT hex(zeroblob({})) FROM generate_series(1, {})",
            r.u16(..200),
            r.u8(1..60)
        ),
        5 => "VACUUM".into(),
        6 => "PRAGMA incremental_vacuum".into(),
        _ => "PRAGMA wal_checkpoint(TRUNCATE)".into(),
    }
}

/// A value; now and then one of several pages.
fn value(r: &mut Rng) -> String {
    match r.u8(..12) {
        0 => "NULL".into(),
        1 => r.i32(..).to_string(),
        2 => format!("{:?}", r.f64() * 100.0),
        3 => format!("x'{:x}{:x}'", r.u8(16..), r.u8(16..)),
        4 | 5 => {
            let unit = format!("{:03}", r.u16(..1000));
            format!("replace(hex(zeroblob({})), '00', '{unit}')", r.u16(300..2500))
        }
        6 => format!("zeroblob({})", r.u16(..3000)),
        _ => format!("'t{}'", r.u16(..1000)),
    }
}

fn words(r: &mut Rng) -> String {
    const WORDS: [&str; 6] = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"];
    (0..r.usize(1..30))
        .map(|_| WORDS[r.usize(..6)])
        .collect::<Vec<_>>()
        .join(" ")
}

fn or(r: &mut Rng) -> &'static str {
    ["", "", "OR REPLACE ", "OR IGNORE ", "OR ABORT "][r.usize(..5)]
}

/// Statements on a table `(id, c, n, v)` whose key is chosen.
fn keyed(r: &mut Rng, c: u64, table: &str, columns: &str) -> String {
    let (id, n, v) = (c * SPAN + r.u64(..ROWS), r.u64(..4), value(r));
    match r.u8(..10) {
        0 => format!("DELETE FROM {table} WHERE id = {id}"),
        1 => format!("DELETE FROM {table} WHERE c = {c} AND n = {n}"),
        2 => format!("UPDATE {}{table} SET v = {v}, n = {n} WHERE id = {id}", or(r)),
        3 => format!(
            "UPDATE {}{table} SET id = {} WHERE id = {id}",
            or(r),
            c * SPAN + r.u64(..ROWS)
        ),
        4 => format!("UPDATE {table} SET v = {v} WHERE c = {c}"),
        5 => format!(
            "INSERT INTO {table}({columns}) VALUES ({id}, {c}, {n}, {v}) ON CONFLICT(id) DO UPDATE SET v = excluded.v"
        ),
        _ => format!(
            "INSERT {}INTO {table}({columns}) VALUES ({id}, {c}, {n}, {v})",
            or(r)
        ),
    }
}

/// Statements on a table `(c, n, v)` whose rows have no key, or one that nobody chooses.
fn unkeyed(r: &mut Rng, c: u64, table: &str) -> String {
    let (n, v) = (r.u64(..5), value(r));
    match r.u8(..8) {
        0 => format!("DELETE FROM {table} WHERE c = {c} AND n = {n}"),
        1 => format!("UPDATE {table} SET v = {v} WHERE c = {c} AND n = {n}"),
        2 => format!(
            "INSERT INTO {table}(c, n, v) SELECT c, n + 1, v FROM {table} WHERE c = {c} AND n < 3 LIMIT 4"
        ),
        _ => format!("INSERT INTO {table}(c, n, v) VALUES ({c}, {n}, {v})"),
    }
}

/// Statements on a table `(c, n, v)` with the key `(c, n)`.
fn pair(r: &mut Rng, c: u64, table: &str, columns: &str) -> String {
    let (n, v) = (r.u64(..ROWS), value(r));
    match r.u8(..7) {
        0 => format!("DELETE FROM {table} WHERE c = {c} AND n = {n}"),
        1 => format!(
            "UPDATE {}{table} SET n = {} WHERE c = {c} AND n = {n}",
            or(r),
            r.u64(..ROWS)
        ),
        2 => format!("UPDATE {table} SET v = {v} WHERE c = {c} AND n >= {n}"),
        3 => format!(
            "INSERT INTO {table}({columns}) VALUES ({c}, {n}, {v}) ON CONFLICT DO UPDATE SET v = excluded.v"
        ),
        _ => format!("INSERT {}INTO {table}({columns}) VALUES ({c}, {n}, {v})", or(r)),
    }
}
