//! Changes and the SQL that is made of them.

use partial_sync::{
    change::{Change, ChangeKind, Mode, StatementChange, StatementKind, Value, codec, sql::to_sql},
    fuzzing,
};
use partial_sync_core::ChangeId;

use crate::input::Input;

/// Changes that are read come back when they are written again, take memory in proportion, and have SQL or a typed error;
/// the SQL has as many arguments as parameters.
pub(crate) fn change_codec(data: &[u8]) {
    // Whatever the first byte is, it says one of the versions: a wrong one hides all the rest from a mutator.
    let mut bytes = data.to_vec();
    if let Some(version) = bytes.first_mut() {
        *version = version.wrapping_add(2) % 3 + 1;
    }
    let Ok(changes) = codec::decode(&bytes) else {
        return;
    };
    let written = codec::encode(&changes).expect("what was decoded can be encoded");
    let again = codec::decode(&written).expect("encoded here");
    assert_eq!(again, changes);
    assert_eq!(
        codec::encode(&again).expect("as before"),
        written,
        "one log has one form"
    );
    for change in &changes {
        let Ok(statements) = to_sql(change, Mode::Rows) else {
            continue;
        };
        for statement in statements {
            let parameters = fuzzing::tokens(&statement.sql)
                .into_iter()
                .filter(|token| token.is_parameter)
                .count();
            assert_eq!(parameters, statement.args.len(), "{}", statement.sql);
            assert!(statement.args.iter().all(fits_json), "{:?}", statement.args);
        }
    }
}

/// The arguments that may be sent as they are.
fn fits_json(value: &Value) -> bool {
    match value {
        Value::Null | Value::Integer(_) | Value::Blob(_) => true,
        Value::Real(real) => real.is_finite(),
        Value::Text(text) => !text.contains('\0'),
        Value::RawText(_) => false,
    }
}

/// Tokens lie one after the other on character boundaries, and between them is nothing but white space and comments.
pub(crate) fn tokens(data: &[u8]) {
    let Ok(sql) = std::str::from_utf8(data) else {
        return;
    };
    let tokens = fuzzing::tokens(sql);
    let mut at = 0;
    for token in &tokens {
        assert!(token.start >= at && token.end > token.start);
        assert!(sql.is_char_boundary(token.start) && sql.is_char_boundary(token.end));
        assert!(
            fuzzing::tokens(&sql[at..token.start]).is_empty(),
            "a token was left out"
        );
        at = token.end;
    }
    // Read alone, a text up to the end of a token has the same tokens up to there.
    if let Some(last) = tokens.last() {
        assert_eq!(fuzzing::tokens(&sql[..last.end]), tokens);
    }
    fuzzing::classify(sql);
}

thread_local! {
    /// SQLite, to say what it makes of a text. Nothing is run.
    static SQLITE: rusqlite::Connection = {
        let conn = rusqlite::Connection::open_in_memory().expect("memory");
        conn.execute_batch("CREATE TABLE t(a, b); CREATE TABLE u(a PRIMARY KEY, b) WITHOUT ROWID")
            .expect("good SQL");
        conn
    };
}

/// Number of parameters, when SQLite takes the text as one statement.
fn prepared(sql: &str) -> Option<usize> {
    SQLITE.with(|conn| {
        let mut batch = rusqlite::Batch::new(conn, sql);
        let first = rusqlite::fallible_iterator::FallibleIterator::next(&mut batch).ok()??;
        Some(first.parameter_count())
    })
}

/// A statement that is rewritten means the same: SQLite still takes it when it took it before, its parameters have
/// values, and rewriting it again changes nothing.
pub(crate) fn statement(data: &[u8]) {
    let mut input = Input(data);
    let (which, args) = (input.byte(), input.byte());
    let Ok(sql) = std::str::from_utf8(input.rest()) else {
        return;
    };
    use StatementKind::*;
    let table = || "t".to_owned();
    let kinds = [
        CreateTable,
        CreateIndex,
        CreateTrigger,
        CreateView,
        DropTable,
        DropIndex,
        DropTrigger,
        DropView,
        AlterAddColumn {
            table: table(),
            column: "c".to_owned(),
        },
        AlterOther,
        VirtualTableWrite { table: table() },
    ];
    let kind = kinds[usize::from(which) % kinds.len()].clone();
    let values = [
        Value::Integer(7),
        Value::Text("a\0b".to_owned()),
        Value::Real(f64::INFINITY),
        Value::RawText(vec![0xff, 0]),
        Value::Null,
        Value::Blob(vec![1, 2]),
    ];
    let change = |sql: &str, args: Vec<Value>| Change {
        id: ChangeId(1),
        time: 0,
        back: 0,
        kind: ChangeKind::Statement(StatementChange {
            sql: sql.to_owned(),
            args,
            named: vec![(":a".to_owned(), Value::Integer(3))],
            kind: kind.clone(),
        }),
    };
    let bound = values
        .iter()
        .cycle()
        .skip(usize::from(args))
        .take(3)
        .cloned()
        .collect();
    let Ok(statements) = to_sql(&change(sql, bound), Mode::Triggers) else {
        return;
    };
    for rewritten in &statements {
        assert!(rewritten.args.iter().all(fits_json));
        let took_before = prepared(sql).is_some();
        match prepared(&rewritten.sql) {
            Some(parameters) => assert_eq!(parameters, rewritten.args.len(), "{}", rewritten.sql),
            None => assert!(
                !took_before || has_guard(&kind),
                "{sql:?} became {:?}",
                rewritten.sql
            ),
        }
        // A text that SQLite does not take may be cut into other words once something in it was replaced.
        if !took_before {
            continue;
        }
        let again = to_sql(&change(&rewritten.sql, rewritten.args.clone()), Mode::Triggers)
            .expect("it was rewritten before");
        assert_eq!(again.first().map(|s| &s.sql), Some(&rewritten.sql), "{sql:?}");
        assert_eq!(again.first().map(|s| &s.args), Some(&rewritten.args), "{sql:?}");
    }
}

/// With `IF NOT EXISTS` put in, a text can name what SQLite refuses otherwise; what matters is the other way round.
fn has_guard(kind: &StatementKind) -> bool {
    !matches!(
        kind,
        StatementKind::AlterAddColumn { .. }
            | StatementKind::AlterOther
            | StatementKind::VirtualTableWrite { .. }
            | StatementKind::Reindex { .. }
    )
}
