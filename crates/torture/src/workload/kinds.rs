//! The kinds of tables. Every kind of key, and everything that makes a row on one side come out otherwise than on the other:
//! triggers, cascades, conflict clauses, generated columns, virtual tables.

use fastrand::Rng;

use super::pieces::{ROWS, SPAN, keyed, or, pair, unkeyed, value, words};

/// A kind of table: its name, what makes it, and what of it is compared.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) script: &'static str,
    /// The tables, and what of each is compared; tables that are not named are compared whole.
    pub(super) compared: &'static [(&'static str, &'static str)],
    pub(super) statement: fn(&mut Rng, u64) -> String,
}

pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "plain",
        script: "CREATE TABLE plain(id INTEGER PRIMARY KEY, c INT, n INT, v); CREATE INDEX plain_v ON plain(c, v);",
        compared: &[],
        statement: |r, c| keyed(r, c, "plain", "id, c, n, v"),
    },
    Kind {
        name: "auto",
        script: "CREATE TABLE auto(id INTEGER PRIMARY KEY, c INT, n INT, v);",
        compared: &[("auto", "SELECT c, n, v FROM auto")],
        statement: |r, c| unkeyed(r, c, "auto"),
    },
    Kind {
        name: "autoinc",
        script: "CREATE TABLE autoinc(id INTEGER PRIMARY KEY AUTOINCREMENT, c INT, n INT, v);",
        compared: &[("autoinc", "SELECT c, n, v FROM autoinc")],
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
        compared: &[("fts", "SELECT rowid, c, body FROM fts")],
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
        compared: &[("log", "SELECT c, what FROM log")],
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
    // Rows that refer to rows whose keys nobody chose, by a column of the other type too.
    Kind {
        name: "kin",
        script: "CREATE TABLE elder(id INTEGER PRIMARY KEY, c INT, n INT, v); \
                 CREATE TABLE heir(id INTEGER PRIMARY KEY, c INT, n INT, v, p INT REFERENCES elder(id) ON DELETE CASCADE); \
                 CREATE TABLE note(id INTEGER PRIMARY KEY, c INT, n INT, p TEXT REFERENCES elder(id) ON DELETE SET NULL); \
                 CREATE INDEX heir_p ON heir(p); CREATE INDEX note_p ON note(p);",
        compared: &[
            ("elder", "SELECT c, n, v FROM elder"),
            (
                "heir",
                "SELECT h.c, h.n, h.v, p IS NULL, e.c, e.n, e.v FROM heir h LEFT JOIN elder e ON e.id = p",
            ),
            (
                "note",
                "SELECT o.c, o.n, p IS NULL, e.c, e.n, e.v FROM note o LEFT JOIN elder e ON e.id = p",
            ),
        ],
        statement: |r, c| {
            let (n, v) = (r.u64(..5), value(r));
            // Which of several has the higher key is nobody's choice either.
            let elder = format!(
                "(SELECT id FROM elder WHERE c = {c} AND n <= {n} ORDER BY n DESC, typeof(v), v LIMIT 1)"
            );
            match r.u8(..10) {
                0 => format!("DELETE FROM elder WHERE c = {c} AND n = {n}"),
                1 => format!("UPDATE elder SET v = {v} WHERE c = {c} AND n = {n}"),
                2 => format!("UPDATE heir SET p = {elder} WHERE c = {c} AND n = {n}"),
                3 => format!("DELETE FROM note WHERE c = {c} AND n = {n}"),
                4 | 5 => format!("INSERT INTO heir(c, n, v, p) VALUES ({c}, {n}, {v}, {elder})"),
                6 => format!("INSERT INTO note(c, n, p) VALUES ({c}, {n}, {elder})"),
                _ => format!("INSERT INTO elder(c, n, v) VALUES ({c}, {n}, {v})"),
            }
        },
    },
    // A full-text index that triggers keep beside the rows that it is about.
    Kind {
        name: "search",
        script: "CREATE TABLE paper(id INTEGER PRIMARY KEY, c INT, n INT, v TEXT); \
                 CREATE VIRTUAL TABLE paper_fts USING fts5(v, content='paper', content_rowid='id'); \
                 CREATE TRIGGER paper_ai AFTER INSERT ON paper BEGIN INSERT INTO paper_fts(rowid, v) VALUES (new.id, new.v); END; \
                 CREATE TRIGGER paper_ad AFTER DELETE ON paper BEGIN INSERT INTO paper_fts(paper_fts, rowid, v) VALUES ('delete', old.id, old.v); END; \
                 CREATE TRIGGER paper_au AFTER UPDATE ON paper BEGIN INSERT INTO paper_fts(paper_fts, rowid, v) VALUES ('delete', old.id, old.v); \
                 INSERT INTO paper_fts(rowid, v) VALUES (new.id, new.v); END;",
        compared: &[(
            "paper_fts",
            "SELECT 'alpha', rowid FROM paper_fts('alpha') UNION ALL SELECT 'beta', rowid FROM paper_fts('beta') \
             UNION ALL SELECT 'zeta gamma', rowid FROM paper_fts('\"zeta gamma\"')",
        )],
        statement: |r, c| {
            let (id, n, v) = (c * SPAN + r.u64(..ROWS), r.u64(..5), words(r));
            match r.u8(..8) {
                0 => format!("DELETE FROM paper WHERE id = {id}"),
                1 => format!("UPDATE paper SET v = '{v}' WHERE id = {id}"),
                2 => format!("UPDATE paper SET v = '{v}' WHERE c = {c} AND n = {n}"),
                3 => format!(
                    "UPDATE OR IGNORE paper SET id = {} WHERE id = {id}",
                    c * SPAN + r.u64(..ROWS)
                ),
                _ => format!("INSERT OR IGNORE INTO paper VALUES ({id}, {c}, {n}, '{v}')"),
            }
        },
    },
    // The same with keys that nobody chose.
    Kind {
        name: "find",
        script: "CREATE TABLE sheet(id INTEGER PRIMARY KEY, c INT, n INT, v TEXT); \
                 CREATE VIRTUAL TABLE sheet_fts USING fts5(v, content='sheet', content_rowid='id'); \
                 CREATE TRIGGER sheet_ai AFTER INSERT ON sheet BEGIN INSERT INTO sheet_fts(rowid, v) VALUES (new.id, new.v); END; \
                 CREATE TRIGGER sheet_ad AFTER DELETE ON sheet BEGIN INSERT INTO sheet_fts(sheet_fts, rowid, v) VALUES ('delete', old.id, old.v); END; \
                 CREATE TRIGGER sheet_au AFTER UPDATE ON sheet BEGIN INSERT INTO sheet_fts(sheet_fts, rowid, v) VALUES ('delete', old.id, old.v); \
                 INSERT INTO sheet_fts(rowid, v) VALUES (new.id, new.v); END;",
        compared: &[
            ("sheet", "SELECT c, n, v FROM sheet"),
            (
                "sheet_fts",
                "SELECT 'alpha', c, n FROM sheet_fts('alpha') f LEFT JOIN sheet s ON s.id = f.rowid \
                 UNION ALL SELECT 'beta', c, n FROM sheet_fts('beta') f LEFT JOIN sheet s ON s.id = f.rowid",
            ),
        ],
        statement: |r, c| {
            let (n, v) = (r.u64(..5), words(r));
            match r.u8(..6) {
                0 => format!("DELETE FROM sheet WHERE c = {c} AND n = {n}"),
                1 => format!("UPDATE sheet SET v = '{v}' WHERE c = {c} AND n = {n}"),
                _ => format!("INSERT INTO sheet(c, n, v) VALUES ({c}, {n}, '{v}')"),
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
