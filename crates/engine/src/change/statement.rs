//! Statements that are recorded as text: made safe to run again, and their values made safe to send.
//!
//! The text is edited token by token and otherwise kept as the user wrote it. It never changes what a statement means:
//! `IF [NOT] EXISTS` is put where the grammar wants it, and each parameter becomes a plain `?` or a literal.

use super::{
    Mode, StatementChange, StatementKind, Value,
    tokens::{Token, TokenKind, tokens},
    written::{MAX_PARAMETERS, SqlError, SqlStatement, excerpt, written},
};

/// The SQL of a statement change; none for what exists on one connection only (`CREATE TEMP ..`).
pub(super) fn to_sql(change: &StatementChange, mode: Mode) -> Result<Vec<SqlStatement>, SqlError> {
    use StatementKind::*;
    let (head, guard) = match &change.kind {
        CreateTable => (["CREATE", "TABLE"], " IF NOT EXISTS"),
        CreateIndex => (["CREATE", "INDEX"], " IF NOT EXISTS"),
        CreateTrigger => (["CREATE", "TRIGGER"], " IF NOT EXISTS"),
        CreateView => (["CREATE", "VIEW"], " IF NOT EXISTS"),
        DropTable => (["DROP", "TABLE"], " IF EXISTS"),
        DropIndex => (["DROP", "INDEX"], " IF EXISTS"),
        DropTrigger => (["DROP", "TRIGGER"], " IF EXISTS"),
        DropView => (["DROP", "VIEW"], " IF EXISTS"),
        AlterAddColumn { .. } | AlterOther | AlterLegacy => (["ALTER", "TABLE"], ""),
        Reindex { by_trigger: true, .. } if mode == Mode::Triggers => return Ok(Vec::new()),
        VirtualTableWrite { .. } | Reindex { .. } => {
            return Ok(vec![plain(&change.sql, &change.args, &change.named)?]);
        }
        Pragma => return Ok(vec![starting_with("PRAGMA", &change.sql)?]),
        Analyze => return Ok(vec![starting_with("ANALYZE", &change.sql)?]),
        Sequence => return sequence(&change.args),
    };
    let mut text = Text::new(&change.sql, matches!(change.kind, CreateTrigger))?;
    let Some(noun) = text.head(head)? else {
        return Ok(Vec::new());
    };
    if !guard.is_empty() && !text.tokens.get(noun + 1).is_some_and(|t| t.is("IF")) {
        let end = text.tokens[noun].end();
        text.edits.push((end, end, guard.to_owned()));
    }
    let mut statement = text.finish(&change.args, &change.named)?;
    statement.skip_if_duplicate_column = matches!(change.kind, AlterAddColumn { .. });
    if change.kind == AlterLegacy {
        let set = |value| plain(&format!("PRAGMA legacy_alter_table = {value}"), &[], &[]);
        return Ok(vec![set("ON")?, statement, set("OFF")?]);
    }
    Ok(vec![statement])
}

/// A statement without parameters that must begin with this word.
fn starting_with(word: &'static str, sql: &str) -> Result<SqlStatement, SqlError> {
    let text = Text::new(sql, false)?;
    match text.tokens[0].is(word) {
        true => text.finish(&[], &[]),
        false => Err(SqlError::NotAStatement {
            expected: word,
            sql: excerpt(sql),
        }),
    }
}

/// `sqlite_sequence` has no key, but a row per table.
fn sequence(args: &[Value]) -> Result<Vec<SqlStatement>, SqlError> {
    let Some(name) = args.first() else {
        return Err(SqlError::NotAStatement {
            expected: "a change of sqlite_sequence",
            sql: String::new(),
        });
    };
    let delete = "DELETE FROM sqlite_sequence WHERE name IS ?";
    let mut all = vec![plain(delete, std::slice::from_ref(name), &[])?];
    if args.len() > 1 {
        all.push(plain(
            "INSERT INTO sqlite_sequence(name, seq) VALUES (?, ?)",
            args,
            &[],
        )?);
    }
    Ok(all)
}

/// A statement as it is, but for its parameters.
pub(super) fn plain(sql: &str, args: &[Value], named: &[(String, Value)]) -> Result<SqlStatement, SqlError> {
    Text::new(sql, false)?.finish(args, named)
}

struct Text<'a> {
    sql: &'a str,
    tokens: Vec<Token<'a>>,
    /// Start, end and replacement; in order, not overlapping.
    edits: Vec<(usize, usize, String)>,
}

impl<'a> Text<'a> {
    /// Cuts off comments, white space and semicolons around one statement. Only a trigger has semicolons inside.
    fn new(sql: &'a str, is_trigger: bool) -> Result<Self, SqlError> {
        let mut tokens = tokens(sql);
        while tokens.last().is_some_and(|t| t.kind == TokenKind::Semicolon) {
            tokens.pop();
        }
        let leading = tokens
            .iter()
            .take_while(|t| t.kind == TokenKind::Semicolon)
            .count();
        tokens.drain(..leading);
        if tokens.is_empty() {
            return Err(SqlError::NotAStatement {
                expected: "a statement",
                sql: excerpt(sql),
            });
        }
        if !is_trigger && tokens.iter().any(|t| t.kind == TokenKind::Semicolon) {
            return Err(SqlError::SeveralStatements { sql: excerpt(sql) });
        }
        Ok(Self {
            sql,
            tokens,
            edits: Vec::new(),
        })
    }

    /// Index of the token that says what is created, dropped or altered; `None` when it is a temporary thing.
    fn head(&self, head: [&'static str; 2]) -> Result<Option<usize>, SqlError> {
        let not_this = || SqlError::NotAStatement {
            expected: match head {
                ["CREATE", "TABLE"] => "CREATE TABLE",
                ["CREATE", "INDEX"] => "CREATE INDEX",
                ["CREATE", "TRIGGER"] => "CREATE TRIGGER",
                ["CREATE", _] => "CREATE VIEW",
                ["DROP", "TABLE"] => "DROP TABLE",
                ["DROP", "INDEX"] => "DROP INDEX",
                ["DROP", "TRIGGER"] => "DROP TRIGGER",
                ["DROP", _] => "DROP VIEW",
                _ => "ALTER TABLE",
            },
            sql: excerpt(self.sql),
        };
        if !self.tokens[0].is(head[0]) {
            return Err(not_this());
        }
        let qualifiers = self.tokens[1..]
            .iter()
            .take_while(|t| ["TEMP", "TEMPORARY", "UNIQUE", "VIRTUAL"].iter().any(|q| t.is(q)))
            .count();
        let noun = 1 + qualifiers;
        if !self.tokens.get(noun).is_some_and(|t| t.is(head[1])) {
            return Err(not_this());
        }
        let temporary = self.tokens[1..noun]
            .iter()
            .any(|t| t.is("TEMP") || t.is("TEMPORARY"));
        let name = noun
            + 1
            + self.tokens[noun + 1..]
                .iter()
                .take(3)
                .take_while(|t| ["IF", "NOT", "EXISTS"].iter().any(|k| t.is(k)))
                .count();
        let in_temp = self.tokens.get(name + 1).is_some_and(|dot| dot.text == ".")
            && self.tokens[name]
                .name()
                .is_some_and(|schema| schema.eq_ignore_ascii_case("temp"));
        Ok((!temporary && !in_temp).then_some(noun))
    }

    /// Replaces the parameters and applies the edits.
    ///
    /// SQLite numbers parameters so: `?` is one more than the highest number so far, `?N` is N, and a name is that name's
    /// number, or a new one like `?`.
    fn finish(mut self, args: &[Value], named: &[(String, Value)]) -> Result<SqlStatement, SqlError> {
        let mut highest = 0usize;
        let mut names: Vec<(&str, usize)> = Vec::new();
        let mut sent = Vec::new();
        for token in self.tokens.iter().filter(|t| t.kind == TokenKind::Parameter) {
            let number = match token.text.strip_prefix('?') {
                Some("") => highest + 1,
                // A number that SQLite would have refused has no value.
                Some(digits) => digits.parse().unwrap_or(usize::MAX),
                None => match names.iter().find(|(name, _)| *name == token.text) {
                    Some((_, number)) => *number,
                    None => {
                        names.push((token.text, highest + 1));
                        highest + 1
                    }
                },
            };
            if number <= MAX_PARAMETERS {
                highest = highest.max(number);
            }
            let by_name = named.iter().find(|(name, _)| name == token.text);
            let by_number = number.checked_sub(1).and_then(|i| args.get(i));
            // What was not bound is NULL.
            let value = by_name.map(|(_, v)| v).or(by_number).unwrap_or(&Value::Null);
            let (sql, arg) = written(value).ok_or_else(|| SqlError::NotANumber {
                place: format!("parameter {} of {}", token.text, excerpt(self.sql)),
            })?;
            sent.extend(arg);
            // `$a(b)7` ends in a parenthesis: a bare `?` would take the digit for its number.
            let number_follows = self.sql[token.end()..].starts_with(|c: char| c.is_ascii_digit());
            let replacement = match &*sql {
                "?" if number_follows => "? ".to_owned(),
                "?" => "?".to_owned(),
                // In parentheses, so that it can stand beside a word or a minus.
                literal => format!("({literal})"),
            };
            self.edits.push((token.start, token.end(), replacement));
        }
        if sent.len() > MAX_PARAMETERS {
            return Err(SqlError::TooManyParameters {
                table: excerpt(self.sql),
                count: sent.len(),
            });
        }
        let (mut at, end) = match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => (first.start, last.end()),
            _ => (0, 0),
        };
        let mut sql = String::with_capacity(end - at + 16);
        for (from, to, replacement) in &self.edits {
            sql.push_str(&self.sql[at..*from]);
            sql.push_str(replacement);
            at = *to;
        }
        sql.push_str(&self.sql[at..end]);
        Ok(SqlStatement {
            sql,
            args: sent,
            skip_if_duplicate_column: false,
            must_find: false,
        })
    }
}
