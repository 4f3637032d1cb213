//! The tables that belong to this project, in a replica and on a remote. Clients and servers agree on them, so a user's
//! statement may neither change nor replace them: one lost row here makes a client push everything again, or nothing.

/// Holds, per client, the last change that the remote has. Its shape is shared with other clients of the protocol.
pub const LAST_CHANGE_ID: &str = "turso_sync_last_change_id";

/// Makes [`LAST_CHANGE_ID`].
pub const CREATE_LAST_CHANGE_ID: &str = "CREATE TABLE IF NOT EXISTS turso_sync_last_change_id \
     (client_id TEXT PRIMARY KEY, pull_gen INTEGER, change_id INTEGER)";

/// Every table whose name starts like this is a replica's own.
pub const OWN_PREFIX: &str = "partial_sync_";

/// Holds, per client, which of its new rows got other keys on the remote than it knows.
pub const KEYS: &str = "partial_sync_keys";

/// Makes [`KEYS`].
pub const CREATE_KEYS: &str = "CREATE TABLE IF NOT EXISTS partial_sync_keys \
     (client_id TEXT, pull_gen INTEGER, tbl TEXT, old INTEGER, since INTEGER, new INTEGER, \
     PRIMARY KEY (client_id, tbl, old, since))";

/// Forgets what [`KEYS`] holds of a client.
pub const FORGET_KEYS: &str = "DELETE FROM partial_sync_keys WHERE client_id = ?";

/// Notes a key in [`KEYS`].
pub const NOTE_KEY: &str =
    "INSERT INTO partial_sync_keys (client_id, pull_gen, tbl, old, since, new) VALUES (?, ?, ?, ?, ?, ?)";

/// The tables that exist today. A statement that names one of them, in whatever place, means it.
pub const OWN_TABLES: [&str; 4] = [LAST_CHANGE_ID, "partial_sync_changes", "partial_sync_state", KEYS];

/// Whether a table, view, index or trigger of this name would be one of this project's.
///
/// ```
/// use partial_sync_transport::bookkeeping::is_own;
///
/// assert!(is_own("Partial_Sync_Changes") && is_own("turso_sync_last_change_id"));
/// assert!(!is_own("turso_sync_last_change_id_2") && !is_own("partial"));
/// ```
pub fn is_own(name: &str) -> bool {
    name.eq_ignore_ascii_case(LAST_CHANGE_ID)
        || name
            .get(..OWN_PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX))
}
