//! Who chose the key of a new row: the statement, or SQLite because the statement gave none.
//!
//! Read from the statement's text, token by token, because SQLite's hook does not tell. A key is chosen when it was
//! written down or bound as a value; it is given when its column is left out, is NULL, or is computed: then nobody can
//! tell by looking, and a key that is taken for a given one overwrites no row of another client.

use std::cell::RefCell;

use super::arguments::Arguments;
use crate::change::{
    StatementChange, Table, Value,
    tokens::{Token, TokenKind},
};

/// What is known of one value of the key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Null,
    Value,
    Computed,
}

/// The first `INSERT` or `REPLACE` outside of parentheses: where it begins.
fn find_insert(tokens: &[Token<'_>]) -> Option<usize> {
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate() {
        match token.text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            // REPLACE is also a function.
            _ if depth == 0
                && (token.is("INSERT") || token.is("REPLACE"))
                && tokens.get(i + 1).is_some_and(|t| t.is("INTO") || t.is("OR")) =>
            {
                return Some(i);
            }
            _ => {}
        }
    }
    None
}

/// Whether the statement is an `INSERT`.
pub(crate) fn is_insert(tokens: &[Token<'_>]) -> bool {
    find_insert(tokens).is_some()
}

/// Whether the statement is a `DELETE`.
pub(crate) fn is_delete(tokens: &[Token<'_>]) -> bool {
    let mut depth = 0usize;
    tokens.windows(2).any(|pair| {
        match pair[0].text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && pair[0].is("DELETE") && pair[1].is("FROM")
    })
}

/// Whether the statement says what is to happen on conflicts, which overrides what its triggers say.
pub(crate) fn overrides_conflicts(tokens: &[Token<'_>]) -> bool {
    let replaces = |i: usize| tokens[i].is("REPLACE") && tokens.get(i + 1).is_some_and(|t| t.is("INTO"));
    let resolves = |i: usize| {
        tokens[i].is("OR")
            && tokens
                .get(i + 1)
                .is_some_and(|t| t.is("REPLACE") || t.is("IGNORE"))
    };
    (0..tokens.len()).any(|i| replaces(i) || resolves(i))
}

/// Who gives a key to the rows that a statement itself inserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Giver {
    /// The statement writes it down.
    Statement,
    /// SQLite, or perhaps.
    Sqlite,
    /// Whoever binds these parameters, each by its text and its number; SQLite, when one of them is NULL.
    Parameters(Vec<(String, usize)>),
}

impl Giver {
    /// Whether SQLite gave, or may have given, a key, when the statement ran with these values.
    pub(crate) fn is_sqlite(&self, arguments: &Arguments) -> bool {
        let is_null =
            |(text, number): &(String, usize)| arguments.value(text, *number).is_none_or(Value::is_null);
        match self {
            Self::Statement => false,
            Self::Sqlite => true,
            Self::Parameters(parameters) => parameters.iter().any(is_null),
        }
    }
}

/// Who gives a key to the rows that this statement itself inserts into `table`, whose key is column `key`.
pub(crate) fn by_statement(tokens: &[Token<'_>], table: &Table, key: usize) -> Giver {
    let Some(start) = find_insert(tokens) else {
        return Giver::Sqlite;
    };
    let numbers = parameters(tokens);
    let bound = RefCell::new(Vec::new());
    let seen = |item: &[(usize, Token<'_>)]| match item {
        [(_, null)] if null.is("NULL") => Seen::Null,
        [(i, token)] if token.kind == TokenKind::Parameter => {
            let number = numbers.iter().find(|(at, _)| at == i);
            let number = number.map_or(0, |(_, number)| *number);
            bound.borrow_mut().push((token.text.to_owned(), number));
            Seen::Value
        }
        item if is_literal(item) => Seen::Value,
        _ => Seen::Computed,
    };
    let given = rows(tokens, start, table, key, &seen)
        .is_none_or(|rows| rows.iter().any(|seen| *seen != Seen::Value));
    match (given, bound.into_inner()) {
        (true, _) => Giver::Sqlite,
        (false, bound) if bound.is_empty() => Giver::Statement,
        (false, bound) => Giver::Parameters(bound),
    }
}

/// Whether the `INSERT`s of a trigger's program into `table` leave its key to SQLite. What the program computes for it,
/// `new.id` for example, its author has chosen. `None`: there is no such `INSERT`.
pub(crate) fn by_trigger(tokens: &[Token<'_>], table: &Table, key: usize) -> Option<bool> {
    let seen = |item: &[(usize, Token<'_>)]| match item {
        [(_, null)] if null.is("NULL") => Seen::Null,
        _ => Seen::Value,
    };
    let mut any = None;
    let begin = tokens.iter().position(|t| t.is("BEGIN"))? + 1;
    for statement in tokens[begin..].split(|t| t.kind == TokenKind::Semicolon) {
        let Some(start) = find_insert(statement) else {
            continue;
        };
        let into = statement[start..].iter().position(|t| t.is("INTO"));
        let name = into
            .and_then(|into| statement.get(start + into + 1))
            .and_then(Token::name);
        if !name.is_some_and(|name| name.eq_ignore_ascii_case(&table.name)) {
            continue;
        }
        let given = rows(statement, start, table, key, &seen)
            .is_none_or(|rows| rows.iter().any(|seen| *seen != Seen::Value));
        any = Some(any.unwrap_or(false) || given);
    }
    any
}

/// Whether a trigger is one of `table` for this event (`INSERT`, `UPDATE`, `DELETE`).
pub(crate) fn fires(tokens: &[Token<'_>], event: &str, table: &str) -> bool {
    let head = head_on(tokens, table);
    head.is_some_and(|head| head.iter().any(|t| t.is(event)))
}

/// Whether a trigger is one of `table` and does not run after its row: `BEFORE` is what SQLite takes when nothing is said.
pub(crate) fn fires_before(tokens: &[Token<'_>], table: &str) -> bool {
    let is_event = |t: &Token<'_>| ["INSERT", "UPDATE", "DELETE"].iter().any(|event| t.is(event));
    let after = |head: &[Token<'_>]| head.windows(2).any(|t| t[0].is("AFTER") && is_event(&t[1]));
    head_on(tokens, table).is_some_and(|head| !after(head))
}

/// What a trigger of `table` says before `ON`; `None` when it is one of another table.
fn head_on<'t, 's>(tokens: &'t [Token<'s>], table: &str) -> Option<&'t [Token<'s>]> {
    let begin = tokens.iter().position(|t| t.is("BEGIN")).unwrap_or(tokens.len());
    let head = &tokens[..begin];
    let on = head.iter().position(|t| t.is("ON"))?;
    let qualified = head.get(on + 2).is_some_and(|t| t.text == ".");
    let name = head
        .get(if qualified { on + 3 } else { on + 1 })
        .and_then(Token::name);
    name.is_some_and(|name| name.eq_ignore_ascii_case(table))
        .then_some(&head[..on])
}

/// Where a trigger's program copies `new.key` to: table and column, by name or by place.
pub(crate) fn copies_of_key(tokens: &[Token<'_>], key: &str) -> Vec<(String, ColumnRef)> {
    let is_key = |item: &Item<'_>| match &item[..] {
        [(_, new), (_, dot), (_, column)] => {
            let named = |name: String| name.eq_ignore_ascii_case(key) || name.eq_ignore_ascii_case("rowid");
            new.is("NEW") && dot.text == "." && column.name().is_some_and(named)
        }
        _ => false,
    };
    let mut copies = Vec::new();
    let begin = tokens
        .iter()
        .position(|t| t.is("BEGIN"))
        .map_or(tokens.len(), |i| i + 1);
    for statement in tokens[begin..].split(|t| t.kind == TokenKind::Semicolon) {
        let into = find_insert(statement).and_then(|start| {
            statement[start..]
                .iter()
                .position(|t| t.is("INTO"))
                .map(|i| start + i)
        });
        let Some(into) = into else { continue };
        let Some(table) = statement.get(into + 1).and_then(Token::name) else {
            continue;
        };
        let named = list(statement, into + 2);
        let values = match &named {
            Some((_, after)) => *after,
            None => into + 2,
        };
        if !statement.get(values).is_some_and(|t| t.is("VALUES")) {
            continue;
        }
        let Some((row, _)) = list(statement, values + 1) else {
            continue;
        };
        for (i, _) in row.iter().enumerate().filter(|(_, item)| is_key(item)) {
            let column = match &named {
                None => Some(ColumnRef::Number(i)),
                Some((columns, _)) => columns
                    .get(i)
                    .and_then(|item| item.first())
                    .and_then(|(_, t)| t.name())
                    .map(ColumnRef::Name),
            };
            copies.extend(column.map(|column| (table.clone(), column)));
        }
    }
    copies
}

/// A column, by name or by its place among those that an `INSERT` without a list of columns writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ColumnRef {
    Name(String),
    Number(usize),
}

type Item<'t> = Vec<(usize, Token<'t>)>;
/// Says what is known of an item.
type Look<'l> = &'l dyn Fn(&[(usize, Token<'_>)]) -> Seen;

/// What each row has for the key; `None` when the statement leaves the column out.
fn rows(tokens: &[Token<'_>], start: usize, table: &Table, key: usize, seen: Look<'_>) -> Option<Vec<Seen>> {
    let (place, at) = key_place(tokens, start, table, key)?;
    let mut at = at;
    let next = tokens.get(at)?;
    if next.is("DEFAULT") {
        return None;
    }
    if next.is("VALUES") {
        let mut rows = Vec::new();
        loop {
            let (row, after) = list(tokens, at + 1)?;
            rows.push(row.get(place).map_or(Seen::Computed, |item| seen(item)));
            at = after;
            if tokens.get(at).is_none_or(|t| t.text != ",") {
                return Some(rows);
            }
        }
    }
    Some(vec![Seen::Computed]).filter(|_| !next.is("SELECT") || !selects_null(&tokens[at + 1..], place))
}

/// The place of the key among the values of an `INSERT`, and what follows its list of columns; `None` when it leaves the
/// column out.
fn key_place(tokens: &[Token<'_>], start: usize, table: &Table, key: usize) -> Option<(usize, usize)> {
    let into = tokens[start..].iter().position(|t| t.is("INTO"))? + start;
    let mut at = into + 2;
    if tokens.get(at).is_some_and(|t| t.text == ".") {
        at += 2;
    }
    if tokens.get(at).is_some_and(|t| t.is("AS")) {
        at += 2;
    }
    let mut place = table
        .columns
        .iter()
        .take(key)
        .filter(|column| !column.generated)
        .count();
    if tokens.get(at).is_some_and(|t| t.text == "(") {
        let (columns, after) = list(tokens, at)?;
        at = after;
        let is_key = |item: &Item<'_>| {
            item.first().and_then(|(_, t)| t.name()).is_some_and(|name| {
                let hidden = |name: &str| table.columns.iter().any(|c| c.name.eq_ignore_ascii_case(name));
                let rowid = ["rowid", "oid", "_rowid_"]
                    .iter()
                    .any(|r| name.eq_ignore_ascii_case(r));
                name.eq_ignore_ascii_case(&table.columns[key].name) || (rowid && !hidden(&name))
            })
        };
        place = columns.iter().position(is_key)?;
    } else if table.is_virtual && table.columns[key].name == "rowid" {
        // FTS5: the rowid is hidden.
        return None;
    }
    Some((place, at))
}

/// Whether the column of a SELECT at this place is NULL, written so.
fn selects_null(tokens: &[Token<'_>], place: usize) -> bool {
    let skip = usize::from(tokens.first().is_some_and(|t| t.is("DISTINCT") || t.is("ALL")));
    let (mut depth, mut column, mut begins) = (0usize, 0, true);
    for (i, token) in tokens.iter().enumerate().skip(skip) {
        if depth == 0 && column == place && begins {
            let ends = |t: &Token<'_>| t.text == "," || t.is("AS") || t.is("FROM") || t.is("WHERE");
            return token.is("NULL") && tokens.get(i + 1).is_none_or(ends);
        }
        begins = false;
        match token.text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            "," if depth == 0 => {
                column += 1;
                begins = true;
            }
            "*" if depth == 0 => return false,
            _ if depth == 0 && token.is("FROM") => return false,
            _ => {}
        }
    }
    false
}

/// The items of a list in parentheses that opens at `at`, each with the places of its tokens, and what follows it.
fn list<'t>(tokens: &[Token<'t>], at: usize) -> Option<(Vec<Item<'t>>, usize)> {
    if tokens.get(at)?.text != "(" {
        return None;
    }
    let (mut items, mut item, mut depth) = (Vec::new(), Item::new(), 0usize);
    for (i, token) in tokens.iter().enumerate().skip(at + 1) {
        match token.text {
            ")" if depth == 0 => {
                items.push(item);
                return Some((items, i + 1));
            }
            "," if depth == 0 => {
                items.push(std::mem::take(&mut item));
                continue;
            }
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        item.push((i, *token));
    }
    None
}

/// A number, a string or a blob, with or without a sign.
fn is_literal(item: &[(usize, Token<'_>)]) -> bool {
    let value = match item {
        [(_, sign), (_, value)] if sign.text == "-" || sign.text == "+" => value,
        [(_, value)] => value,
        _ => return false,
    };
    let first = value.text.bytes().next().unwrap_or_default();
    match value.kind {
        TokenKind::Quoted => first == b'\'',
        TokenKind::Other => first.is_ascii_digit() || first == b'.' || first == b'x' || first == b'X',
        _ => false,
    }
}

/// The number of each parameter, by the place of its token, as SQLite counts.
fn parameters(tokens: &[Token<'_>]) -> Vec<(usize, usize)> {
    let (mut highest, mut names, mut found) = (0usize, Vec::<(&str, usize)>::new(), Vec::new());
    for (i, token) in tokens
        .iter()
        .enumerate()
        .filter(|(_, t)| t.kind == TokenKind::Parameter)
    {
        let number = match token.text.strip_prefix('?') {
            Some("") => highest + 1,
            Some(digits) => digits.parse().unwrap_or(0),
            None => match names.iter().find(|(name, _)| *name == token.text) {
                Some((_, number)) => *number,
                None => {
                    names.push((token.text, highest + 1));
                    highest + 1
                }
            },
        };
        highest = highest.max(number);
        found.push((i, number));
    }
    found
}

/// Whether a statement names nothing but its own table, values written down or bound, and no function: run again it does
/// the same, wherever.
pub(crate) fn is_plain_values(tokens: &[Token<'_>]) -> bool {
    let Some(start) = find_insert(tokens) else {
        return false;
    };
    if start != 0 {
        return false;
    }
    let Some(values) = tokens.iter().position(|t| t.is("VALUES")) else {
        return false;
    };
    let mut at = values + 1;
    loop {
        let Some((row, after)) = list(tokens, at) else {
            return false;
        };
        let plain = |item: &Item<'_>| match &item[..] {
            [(_, token)] if token.kind == TokenKind::Parameter || token.is("NULL") => true,
            item => is_literal(item),
        };
        if !row.iter().all(plain) {
            return false;
        }
        at = after;
        match tokens.get(at) {
            None => break,
            Some(t) if t.text == "," => at += 1,
            Some(t) => return t.kind == TokenKind::Semicolon,
        }
    }
    true
}

/// Each row that an `INSERT` of plain values ([`is_plain_values`]) writes, as a statement of its own whose first parameter is
/// the key, an integer. `None` where one has no such key.
pub(crate) fn rows_by_key(
    sql: &str,
    table: &Table,
    key: usize,
    arguments: &Arguments,
) -> Option<Vec<(String, Vec<Value>)>> {
    let tokens = &crate::change::tokens::tokens(sql)[..];
    let start = find_insert(tokens)?;
    let (place, _) = key_place(tokens, start, table, key)?;
    let numbers = parameters(tokens);
    let values = tokens.iter().position(|t| t.is("VALUES"))?;
    let head = &sql[tokens[start].start..tokens[values].end()];
    let (mut at, mut all) = (values + 1, Vec::new());
    loop {
        let (row, after) = list(tokens, at)?;
        let bound = |item: &Item<'_>| match &item[..] {
            [(i, token)] if token.kind == TokenKind::Parameter => {
                let (_, number) = numbers.iter().find(|(at, _)| at == i)?;
                Some(
                    arguments
                        .value(token.text, *number)
                        .unwrap_or(&Value::Null)
                        .clone(),
                )
            }
            _ => None,
        };
        let written = |item: &Item<'_>| match &item[..] {
            [(_, first), .., (_, last)] => &sql[first.start..last.end()],
            [(_, only)] => &sql[only.start..only.end()],
            [] => "",
        };
        let item = row.get(place)?;
        let id = bound(item).or_else(|| {
            let text = match &item[..] {
                [(_, sign), (_, number)] => format!("{}{}", sign.text, number.text),
                item => item.first()?.1.text.trim_matches('\'').to_owned(),
            };
            Some(Value::Text(text)).filter(|_| is_literal(item))
        });
        let mut args = vec![Value::Integer(crate::change::keys::as_integer(&id?)?)];
        let mut items = Vec::with_capacity(row.len());
        for (i, item) in row.iter().enumerate() {
            items.push(match bound(item) {
                _ if i == place => "?1".to_owned(),
                Some(value) => {
                    args.push(value);
                    format!("?{}", args.len())
                }
                None => written(item).to_owned(),
            });
        }
        all.push((format!("{head} ({})", items.join(", ")), args));
        match tokens.get(after) {
            Some(t) if t.text == "," => at = after + 1,
            _ => return Some(all),
        }
    }
}

/// The rowids that a statement recorded as text gives to rows of the virtual table, as far as it writes them down or binds
/// them.
pub(crate) fn written_rows(tokens: &[Token<'_>], statement: &StatementChange) -> Vec<i64> {
    let ids = || {
        let start = find_insert(tokens)?;
        let open = tokens[start..].iter().position(|t| t.text == "(")? + start;
        let (columns, after) = list(tokens, open)?;
        let named = |wanted: &str| {
            columns.iter().position(|item| {
                let name = item.first().and_then(|(_, t)| t.name());
                name.is_some_and(|name| name.eq_ignore_ascii_case(wanted))
            })
        };
        let place = ["rowid", "docid", "oid", "_rowid_"].into_iter().find_map(named)?;
        let numbers = parameters(tokens);
        let mut at = after;
        let mut ids = Vec::new();
        if !tokens.get(at)?.is("VALUES") {
            return None;
        }
        while let Some((row, after)) = list(tokens, at + 1) {
            ids.extend(row.get(place).and_then(|item| match &item[..] {
                [(i, token)] if token.kind == TokenKind::Parameter => {
                    let by_name = statement.named.iter().find(|(name, _)| name == token.text);
                    let number = numbers.iter().find(|(at, _)| at == i)?.1;
                    let by_number = number.checked_sub(1).and_then(|i| statement.args.get(i));
                    match by_name.map(|(_, value)| value).or(by_number) {
                        Some(Value::Integer(id)) => Some(*id),
                        _ => None,
                    }
                }
                item => {
                    let text: String = item.iter().map(|(_, token)| token.text).collect();
                    text.trim_matches('\'').parse().ok()
                }
            }));
            at = after;
        }
        Some(ids)
    };
    ids().unwrap_or_default()
}

/// Whether an `UPDATE` or `DELETE` does the same wherever it is run, as [`is_plain_values`].
pub(crate) fn is_plain_change(tokens: &[Token<'_>]) -> bool {
    const BEYOND: [&str; 8] = [
        "SELECT",
        "WITH",
        "MATCH",
        "RETURNING",
        "LIMIT",
        "CURRENT_TIME",
        "CURRENT_DATE",
        "CURRENT_TIMESTAMP",
    ];
    let from = tokens.iter().filter(|t| t.is("FROM")).count();
    let allowed = match tokens.first() {
        Some(first) if first.is("UPDATE") => 0,
        Some(first) if first.is("DELETE") => 1,
        _ => return false,
    };
    from == allowed
        && !tokens
            .iter()
            .any(|t| t.text == "(" || BEYOND.iter().any(|word| t.is(word)))
}

/// Whether an `INSERT` names the hidden column that has the table's name: a command to FTS5.
pub(crate) fn is_command(tokens: &[Token<'_>], table: &str) -> bool {
    let Some(start) = find_insert(tokens) else {
        return false;
    };
    let Some(open) = tokens[start..]
        .iter()
        .position(|t| t.text == "(")
        .map(|i| i + start)
    else {
        return false;
    };
    let before_values = tokens[start..open]
        .iter()
        .all(|t| !t.is("VALUES") && !t.is("SELECT") && !t.is("DEFAULT"));
    before_values
        && list(tokens, open).is_some_and(|(columns, _)| {
            columns.iter().any(|item| {
                let name = item.first().and_then(|(_, t)| t.name());
                name.is_some_and(|name| name.eq_ignore_ascii_case(table))
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Column, tokens::tokens};

    fn table() -> Table {
        Table {
            name: "t".into(),
            columns: ["a", "id", "b"]
                .map(|name| Column {
                    name: name.into(),
                    key: u16::from(name == "id"),
                    generated: false,
                })
                .to_vec(),
            without_rowid: false,
            is_virtual: false,
        }
    }

    fn given(sql: &str, values: &[Value]) -> bool {
        let arguments = Arguments {
            positional: values.to_vec(),
            named: vec![],
        };
        by_statement(&tokens(sql), &table(), 1).is_sqlite(&arguments)
    }

    #[test]
    fn a_key_is_given_when_it_is_left_out_null_or_computed() {
        for sql in [
            "insert into t(a, b) values (1, 2)",
            "INSERT INTO main.t (a) SELECT 1 FROM x",
            "insert into t default values",
            "insert into t values (1, null, 2), (1, NULL, 3)",
            "insert into t values (1, ?2, 2)",
            "insert into t select 1, null, 2 from x",
            "with x(y) as (select 1) insert into t(id) select max(y) from x",
            "insert into t(id) values ((select max(id) + 1 from t))",
            "replace into t(b) values (replace('a', 'b', 'c'))",
        ] {
            assert!(given(sql, &[]), "{sql}");
        }
    }

    #[test]
    fn a_key_is_chosen_when_it_is_a_value() {
        for sql in [
            "insert into t values (1, 2, 3)",
            "insert or replace into t as u(id) values (-7)",
            "insert into \"t\"(b, [id]) values (1, ?), (2, :x) on conflict do nothing",
            "insert into t(rowid) values (5) returning id",
            "insert into t(id) values ('7')",
        ] {
            assert!(!given(sql, &[Value::Integer(1), Value::Integer(1)]), "{sql}");
        }
        assert!(given(
            "insert into t(id) values (1), (null), (?1)",
            &[Value::Null]
        ));
    }

    #[test]
    fn rows_of_an_index_are_told_apart_by_their_keys() {
        let arguments = Arguments {
            positional: vec![Value::Integer(7), Value::Text("x".into())],
            named: vec![(":n".into(), Value::Real(8.0))],
        };
        let rows = |sql| rows_by_key(sql, &table(), 1, &arguments);
        let sql =
            "/* a */ insert or replace into main.[t] (b, id) values ('it''s', - 5), (?2, ?1), (null, :n);";
        let head = "insert or replace into main.[t] (b, id) values";
        assert_eq!(
            rows(sql).unwrap(),
            [
                (format!("{head} ('it''s', ?1)"), vec![Value::Integer(-5)]),
                (
                    format!("{head} (?2, ?1)"),
                    vec![Value::Integer(7), Value::Text("x".into())]
                ),
                (format!("{head} (null, ?1)"), vec![Value::Integer(8)]),
            ]
        );
        for sql in [
            "insert into t(b) values (1)",
            "insert into t(id) values (null)",
            "insert into t(id) values (1), ('x')",
        ] {
            assert_eq!(rows(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_trigger_chooses_what_it_computes() {
        let by = |sql| by_trigger(&tokens(sql), &table(), 1);
        assert_eq!(
            by("create trigger x after insert on u begin insert into t(a) values (new.a); end"),
            Some(true)
        );
        assert_eq!(
            by(
                "create trigger x after insert on u begin insert into v values (1); replace into t(id, a) values (new.id, 1); end"
            ),
            Some(false)
        );
        assert_eq!(by("create trigger x after insert on u begin select 1; end"), None);
        let sql = "create temp trigger x after update of a on main.t begin select 1; end";
        assert!(fires(&tokens(sql), "UPDATE", "T") && !fires(&tokens(sql), "INSERT", "t"));
        let sql = "create trigger x after insert on t begin insert into a values (1, new.id); \
                   insert into b(c, d) values (new.\"id\", new.id + 1); end";
        assert_eq!(
            copies_of_key(&tokens(sql), "ID"),
            [
                ("a".into(), ColumnRef::Number(1)),
                ("b".into(), ColumnRef::Name("c".into()))
            ]
        );
    }
}
