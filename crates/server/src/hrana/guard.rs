//! What SQL from the network may not do, decided by SQLite's authorizer while a statement is prepared: reach other
//! files, leave WAL mode, write the schema or raw pages, weaken durability, or change what all connections share.
//!
//! Pragmas are allowed by name; one that is not listed here is refused. Never decide by looking at the SQL text.

use rusqlite::hooks::{AuthAction, AuthContext};

/// What the guard thinks of one action of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Fine.
    Allow,
    /// Fine, but it leaves something behind in the connection, which must not be handed to somebody else afterwards.
    AllowAndTaint,
    /// Not allowed; the text says why, and what to do.
    Refuse(String),
}

use Verdict::{Allow, AllowAndTaint, Refuse};

/// Judges one action. `busy_timeout_ms` is the longest wait for a lock that a client may ask for.
pub(super) fn judge(context: &AuthContext<'_>, read_only: bool, busy_timeout_ms: u64) -> Verdict {
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
    "database_list",
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
    fn a_reader_cannot_lift_query_only() {
        assert!(matches!(
            judge_pragma("query_only", Some("0"), true, 5000),
            Refuse(_)
        ));
        assert_eq!(judge_pragma("query_only", None, true, 5000), Allow);
    }
}
