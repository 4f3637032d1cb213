//! What became of a batch, as its answer tells: which change is to blame, and whether to skip it, to ask or to try again.

use partial_sync_core::ChangeId;
use partial_sync_transport::hrana::{self, Batch, BatchResult, Step, Stmt};

use super::{
    Change, is_advice, keys,
    migration::Migration,
    refused::{PushRefused, subject},
    sql::{ROW_GONE, is_duplicate_column, is_made_to_fail},
};

/// What each step of a batch was for.
#[derive(Clone, Debug)]
pub struct PushPlan<'a> {
    /// How many of the transactions given are in the batch, from the first; at least one.
    pub transactions: usize,
    /// The first change in the batch.
    pub first: ChangeId,
    /// The last change in the batch: what is acknowledged when it has landed.
    pub last: ChangeId,
    /// Whether the keys of rows that it makes are noted with it.
    pub notes_keys: bool,
    pub(super) steps: Vec<Purpose<'a>>,
}

#[derive(Clone, Debug)]
pub(super) enum Purpose<'a> {
    Rows,
    Begin,
    Defer,
    CreateTable,
    Expect,
    Change {
        change: &'a Change,
        sql: String,
        skip_if_duplicate_column: bool,
        must_find: bool,
    },
    Keys,
    Mark,
    Commit,
    Rollback,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// It landed whole.
    Committed,
    /// Nothing landed, because of a change that the remote does not need: a column to add is there already, or it cannot
    /// ANALYZE. Build the batch again with this change in [`PushOptions::skip`](super::batch::PushOptions::skip).
    Skip(ChangeId),
    /// Nothing landed, because of an `ALTER TABLE` that the remote has perhaps had already. [`look`] asks for what
    /// [`was_made`] needs: when it was made, the change is to be skipped, otherwise it was refused.
    PerhapsMade(Box<PushRefused>, Box<Made>),
    /// Nothing landed, because the key that SQLite gave to the new row of this change belongs to another row there: find a
    /// free one, and build the batch again.
    KeyTaken(ChangeId, Box<PushRefused>),
    /// Nothing landed: the remote refused a change. It would do so again.
    Refused(Box<PushRefused>),
    /// Nothing of this batch landed, because the remote is no longer at [`PushOptions::after`](super::batch::PushOptions::after); most likely an earlier
    /// request arrived late. Ask for the position and continue from there.
    Moved,
    /// Nothing landed, and no change is to blame: the remote is busy, read-only, full ...
    Failed {
        /// What failed: `BEGIN IMMEDIATE`, ...
        what: &'static str,
        /// The remote's message.
        message: String,
        /// Its code, if it sent one.
        code: Option<String>,
    },
    /// The answer does not tell. Ask for the position.
    Unclear,
}

impl PushOutcome {
    /// Whether the remote was only busy, so that sending the same batch again may help.
    pub fn is_busy(&self) -> bool {
        let Self::Failed { message, code, .. } = self else {
            return false;
        };
        code.as_deref()
            .is_some_and(|code| code.starts_with("SQLITE_BUSY"))
            || message.to_ascii_lowercase().contains("database is locked")
    }

    /// Whether the remote takes nothing from this client.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Failed { message, .. } if message.to_ascii_lowercase().contains("readonly database"))
    }
}

/// An `ALTER TABLE` that may have been made on the remote by somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The change.
    pub change_id: ChangeId,
    migration: Migration,
}

/// Asks the remote for the tables that tell whether a migration was made.
pub fn look(made: &Made) -> Batch {
    let steps = made.migration.tables().into_iter().map(|table| Step {
        condition: None,
        stmt: Stmt {
            want_rows: Some(true),
            ..Stmt::new(Migration::question(table), vec![])
        },
    });
    Batch {
        steps: steps.collect(),
        ..Batch::default()
    }
}

/// Whether the answer to [`look`] says that it was made.
pub fn was_made(made: &Made, answer: &BatchResult) -> bool {
    let columns: Option<Vec<Vec<String>>> = (0..made.migration.tables().len())
        .map(|step| {
            let answer = answer.step_results.get(step)?.as_ref()?;
            answer
                .rows
                .iter()
                .map(|row| match row.get(1) {
                    Some(hrana::Value::Text { value }) => Some(value.clone()),
                    _ => None,
                })
                .collect()
        })
        .collect();
    columns.is_some_and(|columns| made.migration.is_made(&columns))
}

impl PushPlan<'_> {
    /// What became of the batch.
    pub fn outcome(&self, result: &BatchResult) -> PushOutcome {
        let succeeded = |i: usize| result.step_results.get(i).is_some_and(Option::is_some);
        for (i, purpose) in self.steps.iter().enumerate() {
            if let Some(error) = result.step_errors.get(i).and_then(Option::as_ref) {
                return self.failed(purpose, error);
            }
            if matches!(purpose, Purpose::Commit) && succeeded(i) {
                return PushOutcome::Committed;
            }
        }
        PushOutcome::Unclear
    }

    fn failed(&self, purpose: &Purpose<'_>, error: &hrana::Error) -> PushOutcome {
        let what = match purpose {
            Purpose::Change {
                change,
                skip_if_duplicate_column: true,
                ..
            } if is_duplicate_column(&error.message) => return PushOutcome::Skip(change.id),
            Purpose::Change { change, .. } if is_advice(change) => return PushOutcome::Skip(change.id),
            Purpose::Change { .. } if is_the_remotes_state(error) => "a change",
            Purpose::Change {
                change,
                sql,
                must_find,
                ..
            } => {
                let (table, key) = subject(change);
                let message = match *must_find && is_made_to_fail(&error.message) {
                    true => ROW_GONE.to_owned(),
                    false => error.message.clone(),
                };
                let refused = Box::new(PushRefused {
                    change_id: Some(change.id),
                    batch: (self.first, self.last),
                    table,
                    key,
                    sql: sql.clone(),
                    message,
                    code: error.best_code().map(str::to_owned),
                });
                return match Migration::of_change(change) {
                    _ if is_key_taken(change, &error.message) => PushOutcome::KeyTaken(change.id, refused),
                    Some(migration) if migration.may_explain(&error.message) => {
                        let change_id = change.id;
                        PushOutcome::PerhapsMade(refused, Box::new(Made { change_id, migration }))
                    }
                    _ => PushOutcome::Refused(refused),
                };
            }
            Purpose::Commit if error.message.to_ascii_lowercase().contains("constraint") => {
                return PushOutcome::Refused(Box::new(PushRefused {
                    change_id: None,
                    batch: (self.first, self.last),
                    table: None,
                    key: Vec::new(),
                    sql: "COMMIT".to_owned(),
                    message: error.message.clone(),
                    code: error.best_code().map(str::to_owned),
                }));
            }
            Purpose::Expect if is_made_to_fail(&error.message) => return PushOutcome::Moved,
            // ROLLBACK is looked at only when nothing before it failed and COMMIT did not succeed.
            Purpose::Rollback => return PushOutcome::Unclear,
            Purpose::Rows => "switching triggers and foreign-key actions off",
            Purpose::Keys => "noting the keys of new rows",
            Purpose::Begin => "BEGIN IMMEDIATE",
            Purpose::Defer => "deferring foreign keys",
            Purpose::CreateTable => "creating turso_sync_last_change_id",
            Purpose::Expect => "checking turso_sync_last_change_id",
            Purpose::Mark => "writing turso_sync_last_change_id",
            Purpose::Commit => "COMMIT",
        };
        PushOutcome::Failed {
            what,
            message: error.message.clone(),
            code: error.best_code().map(str::to_owned),
        }
    }
}

/// Whether a new row was refused because its key, which SQLite gave it, is another row's. Of a full-text table "constraint
/// failed" is all that is said.
pub fn is_key_taken(change: &Change, message: &str) -> bool {
    const UNIQUE: &str = "unique constraint failed: ";
    let Some((table, key, _)) = keys::added(change) else {
        return false;
    };
    let message = message.trim_end().to_ascii_lowercase();
    let column = format!("{}.{}", table.name, table.columns[key].name).to_ascii_lowercase();
    // As SQLite says it, and with the number that a server may put after it: "t.id (19)".
    [Some(&*message), without_code(&message)]
        .into_iter()
        .flatten()
        .any(|message| match message.find(UNIQUE) {
            Some(at) => message[at + UNIQUE.len()..] == column,
            None => table.is_virtual && message.ends_with("constraint failed"),
        })
}

/// The message without a number in parentheses at its end, if it has one.
fn without_code(message: &str) -> Option<&str> {
    let (message, code) = message.strip_suffix(')')?.rsplit_once(" (")?;
    (!code.is_empty() && code.bytes().all(|b| b.is_ascii_digit())).then_some(message)
}

/// Whether an error speaks of the remote as a whole, so that no change is to blame for it.
fn is_the_remotes_state(error: &hrana::Error) -> bool {
    const CODES: [&str; 9] = [
        "SQLITE_BUSY",
        "SQLITE_LOCKED",
        "SQLITE_READONLY",
        "SQLITE_FULL",
        "SQLITE_IOERR",
        "SQLITE_NOMEM",
        "SQLITE_INTERRUPT",
        "SQLITE_CORRUPT",
        "BLOCKED",
    ];
    const MESSAGES: [&str; 7] = [
        "database is locked",
        "database table is locked",
        "readonly database",
        "disk is full",
        "disk i/o error",
        "out of memory",
        "interrupted",
    ];
    let message = error.message.to_ascii_lowercase();
    error
        .code
        .as_deref()
        .is_some_and(|code| CODES.iter().any(|known| code.starts_with(known)))
        || MESSAGES.iter().any(|known| message.contains(known))
}
