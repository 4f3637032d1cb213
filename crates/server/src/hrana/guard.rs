//! What SQL from the network may not do, decided by SQLite's authorizer while a statement is prepared: reach other
//! files, leave WAL mode, write the schema or raw pages, weaken durability, change what all connections share, or touch
//! the tables of this project.
//!
//! Pragmas are allowed by name; one that is not listed here is refused. The SQL text is looked at for what the authorizer
//! does not tell: whether a schema change names one of this project's tables, and whether a statement that makes or writes
//! one is, word for word, the one that clients agree on. Anyone who could give such a table another shape, or empty it, would
//! stop every client's pushes and pulls.
//!
//! `turso_sync_last_change_id` says how far each client has pushed. Clients make it and write their own row of it in
//! ordinary SQL, and nothing else may happen to it: a row at a time, no deletes, no triggers, no other shape.
//! `partial_sync_keys` is written by three statements, in a batch with `rows`.

use partial_sync_transport::{
    bookkeeping::{
        CREATE_KEYS, CREATE_LAST_CHANGE_ID, FORGET_KEYS, KEYS, LAST_CHANGE_ID, NOTE_KEY, OWN_TABLES, is_own,
    },
    tokens::{TokenKind, first, same_words, tokens},
};
use rusqlite::hooks::{AuthAction, AuthContext};

/// What the guard thinks of one action of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Fine.
    Allow,
    /// Fine, but it leaves something behind in the connection, which must not be handed to somebody else afterwards.
    AllowAndTaint,
    /// A schema change: fine, unless [`judge_text`] knows better.
    Look,
    /// A write to a client's row of [`LAST_CHANGE_ID`]: fine, if it changes no more than one.
    OneRow,
    /// Not allowed; the text says why, and what to do.
    Refuse(String),
}

use Verdict::{Allow, AllowAndTaint, Look, OneRow, Refuse};

/// Judges one action. `busy_timeout_ms` is the longest wait for a lock that a client may ask for.
pub(super) fn judge(context: &AuthContext<'_>, read_only: bool, busy_timeout_ms: u64) -> Verdict {
    if let Some(verdict) = judge_own(context) {
        return verdict;
    }
    match context.action {
        AuthAction::Pragma {
            pragma_name,
            pragma_value,
        } => judge_pragma(pragma_name, pragma_value, read_only, busy_timeout_ms),
        // VACUUM attaches a nameless temporary database; anything with a name is a file.
        AuthAction::Attach { filename: "" } => AllowAndTaint,
        AuthAction::Attach { .. } => Refuse(
            "ATTACH and VACUUM INTO are not allowed here: SQL over HTTP reaches this database only"
                .to_owned(),
        ),
        AuthAction::Detach { .. } => {
            Refuse("DETACH is not allowed here: SQL over HTTP reaches this database only".to_owned())
        }
        AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("load_extension") => {
            Refuse("load_extension() is not allowed here: the server decides what it loads".to_owned())
        }
        // An ATTACH whose file name is an expression has no name that could be judged.
        AuthAction::Unknown { code, .. } => Refuse(format!(
            "this statement is not allowed here: it asks for an action (number {code}) that the server does not \
             know; ATTACH is not allowed at all"
        )),
        AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. } => AllowAndTaint,
        _ => Allow,
    }
}

/// Judges what an action does to the tables of this project; `None` when it does nothing to them.
fn judge_own(context: &AuthContext<'_>) -> Option<Verdict> {
    let database = match context.action {
        // Here SQLite gives the name of a column to be dropped in the place of the database's.
        AuthAction::AlterTable { database_name, .. } => Some(database_name),
        _ => context.database_name,
    };
    let in_main = database.is_none_or(|name| name.eq_ignore_ascii_case("main"));
    let (names, allowed) = match context.action {
        AuthAction::CreateTempTrigger { table_name, .. } => ([table_name, ""], None),
        _ if !in_main => return None,
        AuthAction::Insert { table_name } => ([table_name, ""], Some(OneRow)),
        AuthAction::Update {
            table_name,
            column_name,
        } => {
            let counts = ["pull_gen", "change_id"]
                .iter()
                .any(|c| column_name.eq_ignore_ascii_case(c));
            ([table_name, ""], counts.then_some(OneRow))
        }
        AuthAction::CreateTable { table_name } => ([table_name, ""], Some(Look)),
        // The index of its key.
        AuthAction::CreateIndex {
            index_name,
            table_name,
        } if index_name.starts_with("sqlite_autoindex_") => ([table_name, ""], Some(Look)),
        AuthAction::Delete { table_name }
        | AuthAction::DropTable { table_name }
        | AuthAction::CreateVtable { table_name, .. }
        | AuthAction::DropVtable { table_name, .. }
        | AuthAction::AlterTable { table_name, .. } => ([table_name, ""], None),
        AuthAction::CreateIndex {
            index_name,
            table_name,
        }
        | AuthAction::DropIndex {
            index_name,
            table_name,
        } => ([index_name, table_name], None),
        AuthAction::CreateTrigger {
            trigger_name,
            table_name,
        }
        | AuthAction::DropTrigger {
            trigger_name,
            table_name,
        } => ([trigger_name, table_name], None),
        AuthAction::CreateView { view_name } | AuthAction::DropView { view_name } => ([view_name, ""], None),
        _ => return None,
    };
    let Some(own) = names.into_iter().find(|name| is_own(name)) else {
        let changes_schema = matches!(
            context.action,
            AuthAction::CreateTable { .. }
                | AuthAction::CreateVtable { .. }
                | AuthAction::CreateIndex { .. }
                | AuthAction::CreateTrigger { .. }
                | AuthAction::CreateView { .. }
                | AuthAction::AlterTable { .. }
        );
        return changes_schema.then_some(Look);
    };
    // A trigger's program is not a client.
    let directly = context.accessor.is_none() && own.eq_ignore_ascii_case(LAST_CHANGE_ID);
    Some(allowed.filter(|_| directly).unwrap_or_else(|| refuse_own(own)))
}

/// Whether an action makes or writes the table in which a push notes which keys its new rows got. Allowed only in a batch
/// with `rows`, which is how a replica pushes, and only if [`judge_keys`] finds nothing.
pub(super) fn writes_keys(context: &AuthContext<'_>) -> bool {
    let table = match context.action {
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::CreateTable { table_name } => table_name,
        AuthAction::CreateIndex {
            index_name,
            table_name,
        } if index_name.starts_with("sqlite_autoindex_") => table_name,
        _ => return false,
    };
    context.accessor.is_none() && table.eq_ignore_ascii_case(KEYS)
}

fn refuse_own(name: &str) -> Verdict {
    Refuse(match name.eq_ignore_ascii_case(LAST_CHANGE_ID) {
        true => format!(
            "changing {name} is not allowed here: it says how far each client has pushed, and a client writes its own row only"
        ),
        false => {
            format!("changing {name} is not allowed here: such names belong to replicas; use another name")
        }
    })
}

/// Judges the text of a statement that [`writes_keys`]. Why it is refused, if it is.
pub(super) fn judge_keys(sql: &str) -> Option<String> {
    let known = [CREATE_KEYS, FORGET_KEYS, NOTE_KEY];
    match known.iter().any(|known| same_words(sql, known)) {
        true => None,
        false => Some(format!(
            "this statement on {KEYS} is not allowed here: replicas make it, and write their own rows of it, in one way only"
        )),
    }
}

/// Whether a text may have to wait for another writer, as far as its words tell: for fair turns, not for rights.
pub(super) fn may_write(sql: &str) -> bool {
    const NEVER: [&str; 8] = [
        "SELECT",
        "VALUES",
        "EXPLAIN",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT",
        "RELEASE",
    ];
    const LOOKED_THROUGH: usize = 64 << 10;
    let Some(word) = first(sql) else { return false };
    if word.is("BEGIN") {
        let kind = first(&sql[word.end()..]);
        return kind.is_some_and(|kind| kind.is("IMMEDIATE") || kind.is("EXCLUSIVE"));
    }
    if word.is("WITH") && sql.len() <= LOOKED_THROUGH {
        let writes = ["INSERT", "REPLACE", "UPDATE", "DELETE"];
        return tokens(sql)
            .iter()
            .any(|token| writes.iter().any(|word| token.is(word)));
    }
    !NEVER.iter().any(|never| word.is(never))
}

/// What `PRAGMA database_list` is answered with: the database has a name, and its path is nobody's business. In any other
/// form it is refused.
pub(super) fn without_path(sql: &str) -> &str {
    match same_words(sql, "PRAGMA database_list") || same_words(sql, "PRAGMA main.database_list") {
        true => "SELECT 0 AS seq, 'main' AS name, '' AS file",
        false => sql,
    }
}

/// Judges the text of a schema change. Why it is refused, if it is.
pub(super) fn judge_text(sql: &str) -> Option<String> {
    let without_guard = CREATE_LAST_CHANGE_ID.replace("IF NOT EXISTS ", "");
    if [CREATE_LAST_CHANGE_ID, &without_guard]
        .iter()
        .any(|known| same_words(sql, known))
    {
        return None;
    }
    let own = names_own(sql)?;
    match refuse_own(&own) {
        Refuse(why) => Some(why),
        _ => None,
    }
}

/// A name of this project's in the text of a schema change. Every name counts, whatever it names there, and so does a
/// string, which SQLite takes for a name in many places; what is quoted inside of one is found by its letters.
fn names_own(sql: &str) -> Option<String> {
    let tokens = tokens(sql);
    let mut names = tokens.iter().filter_map(|token| token.name());
    if let Some(own) = names.find(|name| is_own(name)) {
        return Some(own);
    }
    for quoted in tokens.iter().filter(|token| token.kind == TokenKind::Quoted) {
        let text = quoted.text.to_ascii_lowercase();
        if let Some(own) = OWN_TABLES.into_iter().find(|own| text.contains(own)) {
            return Some(own.to_owned());
        }
    }
    // The tables behind a virtual table are named after it.
    let is_virtual = tokens.get(1).is_some_and(|token| token.is("VIRTUAL"));
    let using = tokens.iter().position(|token| token.is("USING"));
    let name = using
        .filter(|_| is_virtual)
        .and_then(|using| tokens.get(using.checked_sub(1)?)?.name())?;
    is_own(&format!("{name}_")).then_some(name)
}

fn judge_pragma(name: &str, value: Option<&str>, read_only: bool, busy_timeout_ms: u64) -> Verdict {
    let name = name.to_ascii_lowercase();
    let Some(value) = value else {
        return match name.as_str() {
            "wal_checkpoint" => Refuse(
                "PRAGMA wal_checkpoint is not allowed here: the server checkpoints when no replica needs the log"
                    .to_owned(),
            ),
            "incremental_vacuum" | "optimize" | "shrink_memory" => Allow,
            name if READABLE.contains(&name) || SETTABLE.contains(&name) || QUESTIONS.contains(&name) => Allow,
            _ => unknown_pragma(&name),
        };
    };
    let one_of = |allowed: &[&str]| allowed.iter().any(|a| a.eq_ignore_ascii_case(value));
    match name.as_str() {
        name if QUESTIONS.contains(&name) => Allow,
        name if SETTABLE.contains(&name) => AllowAndTaint,
        "optimize" | "incremental_vacuum" => Allow,
        "journal_mode" if one_of(&["wal"]) => Allow,
        "journal_mode" => Refuse(format!(
            "PRAGMA journal_mode={value} is not allowed here: a database that is served stays in WAL mode"
        )),
        "synchronous" if one_of(&["1", "2", "3", "normal", "full", "extra"]) => AllowAndTaint,
        // In memory, a statement that sorts could take all there is within its time.
        "temp_store" if one_of(&["0", "1", "default", "file"]) => AllowAndTaint,
        "locking_mode" if one_of(&["normal"]) => Allow,
        "busy_timeout" if value.parse::<u64>().is_ok_and(|ms| ms <= busy_timeout_ms) => AllowAndTaint,
        "busy_timeout" => Refuse(format!(
            "PRAGMA busy_timeout={value} is not allowed here: at most {busy_timeout_ms}"
        )),
        "query_only" if !read_only => AllowAndTaint,
        "query_only" => Refuse("this token is read-only: PRAGMA query_only cannot change that".to_owned()),
        name if READABLE.contains(&name) => Refuse(format!(
            "PRAGMA {name}={value} is not allowed here: the server decides; it can be read, not set"
        )),
        _ => unknown_pragma(&name),
    }
}

fn unknown_pragma(name: &str) -> Verdict {
    Refuse(format!(
        "PRAGMA {name} is not allowed in SQL over HTTP: run it where the database file is"
    ))
}

/// Pragmas that a client may read, but not set.
const READABLE: &[&str] = &[
    "auto_vacuum",
    "busy_timeout",
    "cache_size",
    "data_version",
    "encoding",
    "freelist_count",
    "journal_mode",
    "journal_size_limit",
    "locking_mode",
    "max_page_count",
    "mmap_size",
    "page_count",
    "page_size",
    "query_only",
    "schema_version",
    "synchronous",
    "temp_store",
    "wal_autocheckpoint",
    "writable_schema",
];

/// Pragmas that a client may set: they concern its own connection, or are ordinary transactional content.
const SETTABLE: &[&str] = &[
    "analysis_limit",
    "application_id",
    "automatic_index",
    "case_sensitive_like",
    "cell_size_check",
    "checkpoint_fullfsync",
    "count_changes",
    "defer_foreign_keys",
    "empty_result_callbacks",
    "foreign_keys",
    "full_column_names",
    "fullfsync",
    "ignore_check_constraints",
    "legacy_alter_table",
    "recursive_triggers",
    "reverse_unordered_selects",
    "secure_delete",
    "short_column_names",
    "trusted_schema",
    "user_version",
];

/// Pragmas that answer a question, whose value is what they are asked about.
const QUESTIONS: &[&str] = &[
    "collation_list",
    "compile_options",
    "foreign_key_check",
    "foreign_key_list",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "module_list",
    "pragma_list",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn pragma(name: &str, value: Option<&str>) -> Verdict {
        judge_pragma(name, value, false, 5000)
    }

    #[test]
    fn leaving_wal_mode_is_refused_and_staying_in_it_is_not() {
        assert_eq!(pragma("journal_mode", None), Allow);
        assert_eq!(pragma("JOURNAL_MODE", Some("WAL")), Allow);
        for mode in ["delete", "OFF", "memory", "truncate", "persist"] {
            assert!(matches!(pragma("Journal_Mode", Some(mode)), Refuse(_)), "{mode}");
        }
    }

    #[test]
    fn what_all_connections_share_can_be_read_and_not_set() {
        for name in [
            "wal_autocheckpoint",
            "writable_schema",
            "schema_version",
            "cache_size",
            "mmap_size",
        ] {
            assert_eq!(pragma(name, None), Allow, "{name}");
            assert!(matches!(pragma(name, Some("1")), Refuse(_)), "{name}");
        }
    }

    #[test]
    fn an_unlisted_pragma_is_refused() {
        for name in [
            "temp_store_directory",
            "hard_heap_limit",
            "key",
            "no_such_pragma",
            "wal_checkpoint",
        ] {
            assert!(matches!(pragma(name, None), Refuse(_)), "{name}");
            assert!(matches!(pragma(name, Some("1")), Refuse(_)), "{name}");
        }
    }

    #[test]
    fn durability_cannot_be_switched_off() {
        assert!(matches!(pragma("synchronous", Some("OFF")), Refuse(_)));
        assert!(matches!(pragma("synchronous", Some("0")), Refuse(_)));
        assert_eq!(pragma("synchronous", Some("NORMAL")), AllowAndTaint);
    }

    #[test]
    fn a_setting_of_the_connection_taints_it() {
        assert_eq!(pragma("foreign_keys", Some("on")), AllowAndTaint);
        assert_eq!(pragma("foreign_keys", None), Allow);
        assert_eq!(pragma("busy_timeout", Some("100")), AllowAndTaint);
        assert!(matches!(pragma("busy_timeout", Some("999999999")), Refuse(_)));
    }

    #[test]
    fn s2_only_the_one_shape_of_the_table_is_made() {
        for sql in [
            CREATE_LAST_CHANGE_ID,
            "create table turso_sync_last_change_id(client_id text primary key,pull_gen integer,change_id integer);",
            "CREATE TABLE t(a)",
            "ALTER TABLE t RENAME TO u",
            "CREATE TABLE my_partial_sync_keys(a)",
            "CREATE TABLE t(a) -- unlike turso_sync_last_change_id",
        ] {
            assert_eq!(judge_text(sql), None, "{sql}");
        }
        for sql in [
            "CREATE TABLE turso_sync_last_change_id(a)",
            "CREATE TABLE turso_sync_last_change_id AS SELECT 1",
            "ALTER TABLE t RENAME TO \"Turso_Sync_Last_Change_Id\"",
            "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM [turso_sync_last_change_id]; END",
            "CREATE VIEW v AS SELECT * FROM partial_sync_changes",
            "CREATE TABLE turso_sync_last_change_id(\"client_id TEXT\" PRIMARY KEY, pull_gen INTEGER, change_id INTEGER)",
            "CREATE TABLE turso_sync_last_change_id(client_id TEXT PRIMARY KEY, pull_gen INTEGER, change_id INTEGER) STRICT",
            "CREATE TABLE turso_sync_last_change_id(client_id TEXT PRIMARYKEY, pull_gen INTEGER, change_id INTEGER)",
            "ALTER TABLE t RENAME TO partial_sync_x",
            "ALTER TABLE t RENAME TO 'PARTIAL_SYNC_KEYS'",
            "ALTER TABLE t RENAME TO `partial_sync_keys`",
            "CREATE TABLE partial_sync_keys(x)",
            "CREATE VIRTUAL TABLE partial_sync USING fts5(x)",
            "CREATE VIRTUAL TABLE IF NOT EXISTS main.[Partial_Sync] USING fts5(x)",
            "CREATE VIRTUAL TABLE f USING fts5(x, content='\"partial_sync_keys\"')",
            "CREATE TRIGGER x AFTER INSERT ON t BEGIN UPDATE main.\"TURSO_SYNC_last_change_id\" SET change_id = 0; END",
        ] {
            assert!(judge_text(sql).is_some(), "{sql}");
        }
    }

    #[test]
    fn s2_the_table_of_keys_is_written_in_one_way_only() {
        for sql in [
            CREATE_KEYS,
            FORGET_KEYS,
            NOTE_KEY,
            &format!(" {} ;", FORGET_KEYS.to_lowercase()),
        ] {
            assert_eq!(judge_keys(sql), None, "{sql}");
        }
        for sql in [
            "CREATE TABLE partial_sync_keys(x)",
            "DELETE FROM partial_sync_keys",
            "DELETE FROM partial_sync_keys WHERE client_id = ? OR 1",
            "DELETE FROM partial_sync_keys WHERE client_id = client_id",
            "DELETE FROM partial_sync_keys WHERE \"client_id\" = ?",
            "INSERT INTO partial_sync_keys VALUES (1, 2, 3, 4, 5, 6)",
            &NOTE_KEY.replace("INSERT", "INSERT OR REPLACE"),
            &CREATE_KEYS.replace("old INTEGER", "old TEXT"),
            &CREATE_KEYS.replace("tbl TEXT", "\"tbl TEXT\""),
            &format!("{CREATE_KEYS} WITHOUT ROWID"),
            &format!("EXPLAIN {FORGET_KEYS}"),
        ] {
            assert!(judge_keys(sql).is_some(), "{sql}");
        }
    }

    #[test]
    fn v14_what_may_have_to_wait_for_a_writer_is_told_by_its_words() {
        for sql in [
            "",
            " -- nothing",
            "select 1",
            "/* a */ VALUES (1)",
            "BEGIN",
            "begin deferred",
            "COMMIT",
            "end",
            "ROLLBACK TO a",
            "WITH a AS (SELECT 'insert') SELECT * FROM a",
            "EXPLAIN INSERT INTO t VALUES (1)",
        ] {
            assert!(!may_write(sql), "{sql}");
        }
        for sql in [
            "INSERT INTO t VALUES (1)",
            ";delete from t",
            "BEGIN IMMEDIATE",
            "begin /* */ exclusive",
            "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
            "CREATE TABLE t(a)",
            "PRAGMA user_version = 1",
            "nonsense",
        ] {
            assert!(may_write(sql), "{sql}");
        }
        assert!(may_write(&format!(
            "WITH a AS (SELECT 1){} SELECT 1",
            " ".repeat(70_000)
        )));
    }

    #[test]
    fn a_reader_cannot_lift_query_only() {
        assert!(matches!(
            judge_pragma("query_only", Some("0"), true, 5000),
            Refuse(_)
        ));
        assert_eq!(judge_pragma("query_only", None, true, 5000), Allow);
    }
}
