//! Statements recorded as text: where `IF [NOT] EXISTS` goes, and what becomes of parameters.

use super::super::sql::SqlError;
use super::*;
use StatementKind::*;

fn statement(sql: &str, kind: StatementKind) -> Result<Vec<SqlStatement>, SqlError> {
    with(sql, &[], &[], kind)
}

fn with(
    sql: &str,
    args: &[Value],
    named: &[(&str, Value)],
    kind: StatementKind,
) -> Result<Vec<SqlStatement>, SqlError> {
    let change = Change {
        id: ChangeId(1),
        time: 0,
        back: 0,
        kind: ChangeKind::Statement(StatementChange {
            sql: sql.to_owned(),
            args: args.to_vec(),
            named: named.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect(),
            kind,
        }),
    };
    to_sql(&change, Mode::Triggers)
}

fn write(sql: &str, args: &[Value], named: &[(&str, Value)]) -> (String, Vec<Value>) {
    let mut all = with(sql, args, named, VirtualTableWrite { table: "f".into() }).unwrap();
    assert_eq!(all.len(), 1);
    let one = all.remove(0);
    (one.sql, one.args)
}

#[test]
fn if_not_exists_goes_behind_the_thing_created() {
    for (sql, kind, expected) in [
        (
            "CREATE TABLE t(a)",
            CreateTable,
            "CREATE TABLE IF NOT EXISTS t(a)",
        ),
        (
            "create/**/table\"t\"(a);",
            CreateTable,
            "create/**/table IF NOT EXISTS\"t\"(a)",
        ),
        (
            "CREATE TABLE if NOT exists t(a)",
            CreateTable,
            "CREATE TABLE if NOT exists t(a)",
        ),
        (
            "-- CREATE TABLE x\n/* ; */ CREATE TABLE [t;] (a DEFAULT ';') ; -- end;",
            CreateTable,
            "CREATE TABLE IF NOT EXISTS [t;] (a DEFAULT ';')",
        ),
        (
            "CREATE TABLE main.t AS SELECT 1",
            CreateTable,
            "CREATE TABLE IF NOT EXISTS main.t AS SELECT 1",
        ),
        (
            "CREATE VIRTUAL TABLE f USING fts5(a, tokenize = \"unicode61 tokenchars ';'\")",
            CreateTable,
            "CREATE VIRTUAL TABLE IF NOT EXISTS f USING fts5(a, tokenize = \"unicode61 tokenchars ';'\")",
        ),
        (
            "CREATE UNIQUE INDEX i ON t(a)",
            CreateIndex,
            "CREATE UNIQUE INDEX IF NOT EXISTS i ON t(a)",
        ),
        (
            "CREATE INDEX 'i' ON t(a)",
            CreateIndex,
            "CREATE INDEX IF NOT EXISTS 'i' ON t(a)",
        ),
        (
            "CREATE VIEW v AS SELECT 'CREATE TABLE'",
            CreateView,
            "CREATE VIEW IF NOT EXISTS v AS SELECT 'CREATE TABLE'",
        ),
        (
            "CREATE TRIGGER r AFTER INSERT ON t BEGIN DELETE FROM u; SELECT 1; END ;",
            CreateTrigger,
            "CREATE TRIGGER IF NOT EXISTS r AFTER INSERT ON t BEGIN DELETE FROM u; SELECT 1; END",
        ),
        (
            "\u{feff}CREATE TABLE t(a)\0;garbage",
            CreateTable,
            "CREATE TABLE IF NOT EXISTS t(a)",
        ),
    ] {
        let statements = statement(sql, kind).unwrap();
        assert_eq!(statements.len(), 1, "{sql}");
        assert_eq!(statements[0].sql, expected);
    }
}

#[test]
fn if_exists_goes_behind_the_thing_dropped() {
    for (sql, kind, expected) in [
        ("DROP TABLE t;", DropTable, "DROP TABLE IF EXISTS t"),
        ("DROP TABLE IF EXISTS t", DropTable, "DROP TABLE IF EXISTS t"),
        (
            "drop -- x\n index \"i\"",
            DropIndex,
            "drop -- x\n index IF EXISTS \"i\"",
        ),
        (
            "DROP TRIGGER main.r",
            DropTrigger,
            "DROP TRIGGER IF EXISTS main.r",
        ),
        ("DROP VIEW v", DropView, "DROP VIEW IF EXISTS v"),
    ] {
        assert_eq!(statement(sql, kind).unwrap()[0].sql, expected);
    }
}

#[test]
fn what_exists_on_one_connection_only_has_no_sql() {
    for (sql, kind) in [
        ("CREATE TEMP TABLE t(a)", CreateTable),
        ("CREATE TEMPORARY VIEW v AS SELECT 1", CreateView),
        ("CREATE TABLE temp.t(a)", CreateTable),
        ("CREATE TABLE IF NOT EXISTS \"TEMP\".t(a)", CreateTable),
        (
            "CREATE TEMP TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END",
            CreateTrigger,
        ),
        ("DROP TABLE temp.t", DropTable),
    ] {
        assert_eq!(statement(sql, kind).unwrap(), [], "{sql}");
    }
    // Tables that are merely called so.
    assert_eq!(statement("CREATE TABLE temp(a)", CreateTable).unwrap().len(), 1);
}

#[test]
fn creating_and_dropping_run_twice() {
    let conn = database("");
    let run = |sql, kind| apply_one(&conn, &statement(sql, kind).unwrap()[0]).unwrap();
    for _ in 0..2 {
        run("CREATE TABLE t(a)", CreateTable);
        run("CREATE VIRTUAL TABLE f USING fts5(a)", CreateTable);
        run("CREATE UNIQUE INDEX i ON t(a)", CreateIndex);
        run("CREATE VIEW v AS SELECT * FROM t", CreateView);
        run(
            "CREATE TRIGGER r AFTER INSERT ON t BEGIN DELETE FROM t; END;",
            CreateTrigger,
        );
        let column = "b".to_owned();
        let table = "t".to_owned();
        run("ALTER TABLE t ADD b", AlterAddColumn { table, column });
    }
    for _ in 0..2 {
        run("DROP TRIGGER r", DropTrigger);
        run("DROP VIEW v", DropView);
        run("DROP INDEX i", DropIndex);
        run("DROP TABLE f", DropTable);
        run("DROP TABLE t", DropTable);
    }
}

#[test]
fn adding_a_column_may_be_skipped_and_other_alterations_are_verbatim() {
    let table = "t".to_owned();
    let column = "b".to_owned();
    let add = statement("ALTER TABLE t ADD COLUMN b;", AlterAddColumn { table, column }).unwrap();
    assert_eq!(add[0].sql, "ALTER TABLE t ADD COLUMN b");
    assert!(add[0].skip_if_duplicate_column);
    let rename = statement(" ALTER TABLE t RENAME TO \"u;\" ", AlterOther).unwrap();
    assert_eq!(rename[0].sql, "ALTER TABLE t RENAME TO \"u;\"");
    assert!(!rename[0].skip_if_duplicate_column);
}

#[test]
fn parameters_become_plain_question_marks_in_the_order_of_the_text() {
    assert_eq!(
        write("INSERT INTO f VALUES (?, ?)", &[int(1), int(2)], &[]),
        ("INSERT INTO f VALUES (?, ?)".into(), vec![int(1), int(2)])
    );
    // ?3 is followed by ?4; :a is ?5 and stays so.
    assert_eq!(
        write(
            "INSERT INTO f VALUES (?3, ?, :a, ?1, :a, '?', \":b\")",
            &[int(1), int(2), int(3), int(4)],
            &[(":a", text("named"))]
        ),
        (
            "INSERT INTO f VALUES (?, ?, ?, ?, ?, '?', \":b\")".into(),
            vec![int(3), int(4), text("named"), int(1), text("named")]
        )
    );
    // Named ones count among the numbers, and may be given by number.
    assert_eq!(
        write(
            "INSERT INTO f VALUES (@a, ?, $b::c(d))",
            &[int(1), int(2), int(3)],
            &[]
        )
        .1,
        [int(1), int(2), int(3)]
    );
    // What was not bound is NULL.
    assert_eq!(
        write("INSERT INTO f VALUES (?, :x)", &[], &[]).1,
        [Value::Null, Value::Null]
    );
}

#[test]
fn a_digit_behind_a_parameter_does_not_become_its_number() {
    let (sql, args) = write("SELECT $a(b)9", &[int(1)], &[]);
    assert_eq!((sql.as_str(), args), ("SELECT ? 9", vec![int(1)]));
    assert_eq!(write(&sql, &[int(1)], &[]).0, sql);
}

#[test]
fn values_that_json_cannot_carry_are_written_into_the_text() {
    let (sql, args) = write(
        "SELECT:a,1-:b,:c,?4",
        &[],
        &[
            (":a", Value::Real(f64::INFINITY)),
            (":b", Value::Real(f64::NEG_INFINITY)),
            (":c", text("\0")),
        ],
    );
    assert_eq!(sql, "SELECT(9e999),1-(-9e999),(replace(?, char(1), char(0))),?");
    assert_eq!(args, [text("\u{1}"), Value::Null]);
    let row: (f64, f64) = database("")
        .query_row(&sql, rusqlite::params_from_iter(&args), |r| {
            Ok((r.get(0)?, r.get(1)?))
        })
        .unwrap();
    assert_eq!(row, (f64::INFINITY, f64::INFINITY));
    let nan = with(
        "SELECT ?",
        &[Value::Real(f64::NAN)],
        &[],
        VirtualTableWrite { table: "f".into() },
    );
    assert!(matches!(nan, Err(SqlError::NotANumber { .. })));
}

#[test]
fn texts_that_are_not_what_they_were_recorded_as_are_refused() {
    for (sql, kind) in [
        ("", CreateTable),
        (" ; -- nothing", CreateTable),
        ("CREATE", CreateTable),
        ("CREATE VIEW v AS SELECT 1", CreateTable),
        ("DROP TABLE t", CreateTable),
        ("SELECT 1", AlterOther),
        ("CREATE INDEX", DropIndex),
    ] {
        assert!(
            matches!(statement(sql, kind), Err(SqlError::NotAStatement { .. })),
            "{sql}"
        );
    }
    for sql in ["DROP TABLE t; DROP TABLE u", "CREATE TABLE t(a);;SELECT 1"] {
        let kind = if sql.starts_with('D') {
            DropTable
        } else {
            CreateTable
        };
        assert!(matches!(
            statement(sql, kind),
            Err(SqlError::SeveralStatements { .. })
        ));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        failure_persistence: None, ..proptest::prelude::ProptestConfig::default()
    })]

    #[test]
    fn invariant_11_any_text_is_edited_or_refused(
        sql in "(CREATE TABLE |DROP |INSERT )?[-a-z?:@$#'\"`\\[\\];/* \u{0}\u{feff}ö0-9.()\n]{0,40}",
    ) {
        for kind in [CreateTable, CreateTrigger, DropIndex, AlterOther, VirtualTableWrite { table: "f".into() }] {
            let _ = statement(&sql, kind);
        }
    }

    /// The text that is sent has the same parameters as SQLite sees in the text recorded.
    #[test]
    fn parameters_are_those_that_sqlite_finds(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "?", "?2", "?7", ":a", ":a", "@b", "$c", "$d::e(f)", "'?'", "1 AS \"?x\"", "1 AS [:a]", "1 AS `$c`", "x'3f'", "1e5",
                "/* ? */", "-- ?\n", "'it''s ?'",
            ]),
            1..8,
        ),
    ) {
        let sql = format!("SELECT {}", parts.iter().map(|p| format!("{p} ")).collect::<Vec<_>>().join(", 0, "));
        let conn = database("");
        if let Ok(prepared) = conn.prepare(&sql) {
            let args: Vec<Value> = (1..=prepared.parameter_count() as i64).map(int).collect();
            let original = values(&conn, &sql, &args);
            let (sent, sent_args) = write(&sql, &args, &[]);
            proptest::prop_assert_eq!(original, values(&conn, &sent, &sent_args));
        }
    }
}

fn values(conn: &Connection, sql: &str, args: &[Value]) -> Vec<Value> {
    let mut statement = conn.prepare(sql).unwrap();
    let width = statement.column_count();
    statement
        .query_row(params_from_iter(args), |row| {
            Ok((0..width).map(|i| row.get_ref(i).unwrap().into()).collect())
        })
        .unwrap()
}
