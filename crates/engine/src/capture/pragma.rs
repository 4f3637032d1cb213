//! What setting a pragma means on a replica, for every pragma of SQLite: a test compares the table here with the list of
//! the library that is linked. A pragma that SQLite does not know does nothing, there as here.
//!
//! Reading a pragma is always plain, and so is setting one of an attached or temporary database, unless it is
//! [of the process](is_of_the_process).

use super::refusal::Refusal;

/// What happens when a pragma is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// It asks something, or concerns the connection alone.
    Plain,
    /// It is part of the database: recorded, pushed and put back, like a schema change.
    Recorded,
    /// It would break the replica, or a pull would undo it, except with these values. The text says what to do.
    Refused(&'static [&'static str], &'static str),
    /// As above, and it acts without a value.
    Never(&'static str),
}

use Setting::{Never, Plain, Recorded, Refused};

/// Every pragma of SQLite, by name.
pub(crate) const PRAGMAS: &[(&str, Setting)] = &[
    ("analysis_limit", Plain),
    ("application_id", Recorded),
    (
        "auto_vacuum",
        Refused(&[], "how free pages are kept is decided by the remote"),
    ),
    ("automatic_index", Plain),
    ("busy_timeout", Plain),
    ("cache_size", Plain),
    ("cache_spill", Plain),
    ("case_sensitive_like", Plain),
    ("cell_size_check", Plain),
    ("checkpoint_fullfsync", Plain),
    ("collation_list", Plain),
    ("compile_options", Plain),
    ("count_changes", Plain),
    ("data_version", Plain),
    ("database_list", Plain),
    (
        "default_cache_size",
        Refused(
            &[],
            "it is deprecated and would be undone by a pull; set cache_size instead",
        ),
    ),
    ("defer_foreign_keys", Plain),
    ("empty_result_callbacks", Plain),
    (
        "encoding",
        Refused(&["utf-8", "utf8"], "the encoding of text is the remote's"),
    ),
    ("foreign_key_check", Plain),
    ("foreign_key_list", Plain),
    ("foreign_keys", Plain),
    ("freelist_count", Plain),
    ("full_column_names", Plain),
    ("fullfsync", Plain),
    ("function_list", Plain),
    (
        "hard_heap_limit",
        Refused(
            &["0"],
            "SQLite crashes where it has no memory in the middle of a write that is recorded; limit the process instead",
        ),
    ),
    ("ignore_check_constraints", Plain),
    (
        "incremental_vacuum",
        Never("a pull would undo it; run it on the remote, whose free pages then leave the replica too"),
    ),
    ("index_info", Plain),
    ("index_list", Plain),
    ("index_xinfo", Plain),
    ("integrity_check", Plain),
    (
        "journal_mode",
        Refused(&["wal"], "a replica works in WAL mode only"),
    ),
    ("journal_size_limit", Plain),
    // What it does to an ALTER TABLE is recorded with that.
    ("legacy_alter_table", Plain),
    (
        "locking_mode",
        Refused(
            &["normal"],
            "a replica has several connections of its own, which would be locked out",
        ),
    ),
    ("max_page_count", Plain),
    (
        "mmap_size",
        Refused(
            &["0"],
            "absent pages are fetched when they are read, which memory-mapping would bypass",
        ),
    ),
    ("module_list", Plain),
    // The statistics that it gathers last until the next pull brings the remote's.
    ("optimize", Plain),
    ("page_count", Plain),
    ("page_size", Refused(&[], "the page size is the remote's")),
    ("pragma_list", Plain),
    ("query_only", Plain),
    ("quick_check", Plain),
    ("read_uncommitted", Plain),
    ("recursive_triggers", Plain),
    ("reverse_unordered_selects", Plain),
    (
        "schema_version",
        Refused(&[], "it would hide schema changes from other connections"),
    ),
    ("secure_delete", Plain),
    ("short_column_names", Plain),
    ("shrink_memory", Plain),
    ("soft_heap_limit", Plain),
    ("synchronous", Plain),
    ("table_info", Plain),
    ("table_list", Plain),
    ("table_xinfo", Plain),
    ("temp_store", Plain),
    ("temp_store_directory", Plain),
    ("threads", Plain),
    ("trusted_schema", Plain),
    ("user_version", Recorded),
    ("wal_autocheckpoint", Plain),
    ("wal_checkpoint", Plain),
    (
        "writable_schema",
        Refused(
            &["0", "off", "no", "false", "reset"],
            "the schema can only be changed by CREATE, ALTER and DROP, which are recorded and pushed",
        ),
    ),
];

fn setting(name: &str) -> Setting {
    PRAGMAS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map_or(Plain, |(_, setting)| *setting)
}

/// Whether setting it is a change of the database that others are to have too.
pub(crate) fn is_recorded(name: &str) -> bool {
    setting(name) == Recorded
}

/// Whether it is refused whatever database it names, because it acts on all of them.
pub(crate) fn is_of_the_process(name: &str) -> bool {
    name.eq_ignore_ascii_case("hard_heap_limit")
}

/// Why a pragma of `main` is refused with this value.
pub(crate) fn refuse(name: &str, value: Option<&str>) -> Option<Refusal> {
    let advice = match (setting(name), value) {
        (Never(advice), _) => advice,
        (Refused(allowed, advice), Some(value))
            if !allowed.iter().any(|word| value.eq_ignore_ascii_case(word)) =>
        {
            advice
        }
        _ => return None,
    };
    Some(Refusal {
        what: match value {
            Some(value) => format!("PRAGMA {name} = {value}"),
            None => format!("PRAGMA {name}"),
        },
        advice,
    })
}
