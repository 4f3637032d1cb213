//! What the text of a statement says that it writes, makes, alters or drops.

use crate::{
    capture::given,
    change::{
        StatementChange, StatementKind, Value,
        keys::as_integer,
        migration::Migration,
        tokens::{Token, tokens},
    },
};

/// What a statement that is recorded as text writes in its virtual table.
pub(super) enum Writes {
    Rows(Vec<i64>),
    /// It cannot be told which rows.
    Any,
    /// Whatever there is, so that it does not matter what is there before.
    All,
    /// How the table is kept.
    None,
}

pub(super) fn writes(statement: &StatementChange) -> Option<(String, Writes)> {
    let (table, writes) = match &statement.kind {
        // Those of a trigger follow the rows of the content.
        StatementKind::Reindex { by_trigger: true, .. } => return None,
        StatementKind::Reindex { table, .. } => {
            let row = statement.args.first().and_then(as_integer);
            (table, row.map_or(Writes::Any, |row| Writes::Rows(vec![row])))
        }
        StatementKind::VirtualTableWrite { table } => {
            let all = tokens(&statement.sql);
            let rows = given::written_rows(&all, statement);
            let says = |word: &str| {
                let bound = statement
                    .args
                    .iter()
                    .chain(statement.named.iter().map(|(_, value)| value));
                all.iter()
                    .any(|token| token.text.trim_matches('\'').eq_ignore_ascii_case(word))
                    || bound
                        .into_iter()
                        .any(|value| matches!(value, Value::Text(text) if text.eq_ignore_ascii_case(word)))
            };
            let writes = match given::is_command(&all, table) {
                _ if !rows.is_empty() => Writes::Rows(rows),
                false => row_of_where(&all, statement).map_or(Writes::Any, |row| Writes::Rows(vec![row])),
                true if says("rebuild") || says("delete-all") => Writes::All,
                true => Writes::None,
            };
            (table, writes)
        }
        _ => return None,
    };
    Some((table.to_ascii_lowercase(), writes))
}

/// The row of a `DELETE` whose only condition is its number.
fn row_of_where(all: &[Token<'_>], statement: &StatementChange) -> Option<i64> {
    let at = all.iter().position(|token| token.is("WHERE"))?;
    let end = all.len() - all.iter().rev().take_while(|token| token.text == ";").count();
    let [name, equals, value] = all.get(at + 1..end)? else {
        return None;
    };
    let name = name.name()?.to_ascii_lowercase();
    let is_row = ["rowid", "docid", "oid", "_rowid_"].contains(&&*name) && equals.text == "=";
    if !is_row || !all[0].is("DELETE") {
        return None;
    }
    match (&statement.args[..], &statement.named[..]) {
        ([], []) => value.text.parse().ok(),
        ([value], []) | ([], [(_, value)]) => as_integer(value),
        _ => None,
    }
}

/// What a schema change makes, alters or drops: tables and views, and indexes and triggers.
pub(super) fn objects(statement: &StatementChange) -> (Vec<String>, Vec<String>) {
    use StatementKind::*;
    let all = tokens(&statement.sql);
    let renamed = match Migration::of(&all) {
        Some(Migration::RenameTable { to, .. }) => Some(to.to_ascii_lowercase()),
        _ => None,
    };
    const BEFORE: [&str; 13] = [
        "CREATE",
        "DROP",
        "ALTER",
        "TEMP",
        "TEMPORARY",
        "UNIQUE",
        "VIRTUAL",
        "TABLE",
        "INDEX",
        "TRIGGER",
        "VIEW",
        "IF",
        "NOT",
    ];
    let start = all
        .iter()
        .position(|t| !BEFORE.iter().any(|word| t.is(word)) && !t.is("EXISTS"))
        .unwrap_or(all.len());
    let name = match &all[start..] {
        [_, dot, name, ..] if dot.text == "." => name.name(),
        [name, ..] => name.name(),
        [] => None,
    };
    let named = name.map(|name| name.to_ascii_lowercase()).into_iter();
    match &statement.kind {
        CreateTable
        | CreateView
        | DropTable
        | DropView
        | AlterOther
        | AlterLegacy
        | AlterAddColumn { .. } => (named.chain(renamed).collect(), vec![]),
        CreateIndex | CreateTrigger | DropIndex | DropTrigger => (vec![], named.collect()),
        _ => (vec![], vec![]),
    }
}
