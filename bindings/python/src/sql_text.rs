//! What has to be known of a statement's text that SQLite does not tell: its first word, and whether anything follows it.

/// Skips white space, comments and semicolons.
fn skip_blank(mut sql: &str) -> &str {
    loop {
        sql = sql.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ';' || c == '\u{feff}');
        if let Some(comment) = sql.strip_prefix("--") {
            sql = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(comment) = sql.strip_prefix("/*") {
            sql = comment.split_once("*/").map_or("", |(_, rest)| rest);
        } else {
            return sql;
        }
    }
}

/// True when there is nothing but white space and comments.
pub(crate) fn is_blank(sql: &str) -> bool {
    skip_blank(sql).is_empty()
}

/// INSERT, UPDATE, DELETE and REPLACE: what an implicit transaction is begun for.
pub(crate) fn is_dml(sql: &str) -> bool {
    begins_with(sql, &["insert", "update", "delete", "replace"])
}

/// What may run in a savepoint, which can undo it: not PRAGMA, ATTACH and VACUUM.
pub(crate) fn can_be_undone(sql: &str) -> bool {
    is_dml(sql) || begins_with(sql, &["with", "create", "reindex", "alter"])
}

/// What changes the schema, so that it has to be compiled again for each run.
pub(crate) fn is_ddl(sql: &str) -> bool {
    begins_with(sql, &["create", "alter", "drop"])
}

fn begins_with(sql: &str, words: &[&str]) -> bool {
    let sql = skip_blank(sql);
    words.iter().any(|word| {
        sql.get(..word.len())
            .is_some_and(|first| first.eq_ignore_ascii_case(word))
            && !sql[word.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    })
}
