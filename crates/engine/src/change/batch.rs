//! The steps of a batch for the remote: one transaction there, with the bookkeeping that makes a change arrive exactly once.
//!
//! The steps of a batch, each only if the one before succeeded:
//!
//! 1. with [`Mode::Rows`], a check that the remote has switched triggers and foreign-key actions off, as the batch asks
//! 2. `BEGIN IMMEDIATE`; with [`Mode::Enforced`], foreign keys are deferred to the `COMMIT`
//! 3. `CREATE TABLE IF NOT EXISTS turso_sync_last_change_id ..`
//! 4. a check that the remote is where the batch continues from, which may not have been asked before. A request that was
//!    given up on may still be on its way; without this, it and its repetition could both land
//! 5. the changes
//! 6. where rows got other keys than here ([`keys`](super::keys)), if any did
//! 7. this client's row, with the last change id of the batch
//! 8. `COMMIT`
//!
//! and `ROLLBACK` if a transaction was begun but not committed; it may fail because SQLite has rolled back already, and
//! nothing depends on it.

use std::{collections::BTreeSet, fmt};

use partial_sync_core::ChangeId;
use partial_sync_transport::hrana::{self, Batch, Condition, Step, Stmt};

use super::{
    Change, Mode, Value,
    keys::{self, Keys},
    outcome::{Purpose, PushPlan},
    position::{self, Mark, RemotePosition},
    transform::TransformFn,
    written::{SqlError, SqlStatement},
};
use crate::options::PUSH_OPERATIONS_THRESHOLD;

/// How much goes into one batch. A local transaction is never split: one that is larger goes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushLimits {
    /// Statements of changes.
    pub statements: usize,
    /// Bytes of SQL and values, roughly as they take on the wire.
    pub bytes: usize,
}

impl Default for PushLimits {
    fn default() -> Self {
        Self {
            statements: PUSH_OPERATIONS_THRESHOLD.default_number() as usize,
            bytes: 4 << 20,
        }
    }
}

/// What a batch is built with.
#[derive(Clone, Copy)]
pub struct PushOptions<'a> {
    /// This replica's id on the remote.
    pub client_id: &'a str,
    /// Tells the batches of this push from all others; written beside the change id.
    pub mark: Mark,
    /// How many pulls the replica has had: of which one the keys that rows got are noted.
    pub pulls: i64,
    /// Where the remote is; the batch lands only if that is still so.
    pub after: RemotePosition,
    /// How much goes into the batch.
    pub limits: PushLimits,
    /// Changes that the remote does not need ([`PushOutcome::Skip`](super::outcome::PushOutcome::Skip)).
    pub skip: &'a BTreeSet<ChangeId>,
    /// How the changes are to be run; others than [`Mode::Triggers`] only where the remote offers them.
    pub mode: Mode,
    /// Where rows have other keys on the remote. The changes given speak of those already; it is noted there.
    pub keys: &'a Keys,
    /// What changes up to this one made of that is noted there; `None`: nothing since the last pull.
    pub noted: Option<ChangeId>,
    /// The application's callback.
    pub transform: Option<&'a TransformFn>,
}

impl fmt::Debug for PushOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushOptions")
            .field("client_id", &self.client_id)
            .field("after", &self.after)
            .field("limits", &self.limits)
            .field("skip", &self.skip)
            .field("mode", &self.mode)
            .field("keys", &self.keys)
            .field("noted", &self.noted)
            .finish_non_exhaustive()
    }
}

/// A change that cannot be sent; found before anything is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("change {change_id} cannot be sent: {source}")]
pub struct Unsendable {
    /// The change.
    pub change_id: ChangeId,
    /// Why.
    #[source]
    pub source: SqlError,
}

/// A batch and what is needed to understand its answer.
#[derive(Debug)]
pub struct PushBatch<'a> {
    /// What to send, as one request.
    pub batch: Batch,
    /// How to read the answer.
    pub plan: PushPlan<'a>,
}

/// Changes, each with its SQL.
pub(super) type Statements<'a> = Vec<(&'a Change, Vec<SqlStatement>)>;

/// The batch of these changes.
pub(super) fn assemble<'a>(
    chosen: Statements<'a>,
    options: &PushOptions<'_>,
    transactions: usize,
    first: ChangeId,
    last: ChangeId,
) -> Result<PushBatch<'a>, Unsendable> {
    let client = || hrana::Value::Text {
        value: options.client_id.to_owned(),
    };
    let integer = |value| hrana::Value::Integer { value };
    let mut steps = Steps::default();
    let begin = match options.mode {
        Mode::Rows | Mode::Enforced => {
            steps.always(Purpose::Rows, silent(position::ROWS, vec![]));
            steps.then(Purpose::Begin, silent("BEGIN IMMEDIATE", vec![]))
        }
        Mode::Triggers => steps.always(Purpose::Begin, silent("BEGIN IMMEDIATE", vec![])),
    };
    if options.mode == Mode::Enforced {
        // A row and what it refers to may come in any order.
        steps.then(Purpose::Defer, silent("PRAGMA defer_foreign_keys = ON", vec![]));
    }
    steps.then(Purpose::CreateTable, silent(position::CREATE, vec![]));
    steps.then(
        Purpose::Expect,
        position::expect(options.client_id, options.after),
    );
    for (change, statements) in chosen {
        for statement in statements {
            let args = statement
                .args
                .into_iter()
                .map(wire_value)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|source| Unsendable {
                    change_id: change.id,
                    source,
                })?;
            let stmt = silent(&statement.sql, args);
            let purpose = Purpose::Change {
                change,
                sql: statement.sql,
                skip_if_duplicate_column: statement.skip_if_duplicate_column,
                must_find: statement.must_find,
            };
            steps.then(purpose, stmt);
        }
    }
    // Each once, with the batch that makes its row: what is noted there stays noted.
    let is_new = |moved: &keys::Moved| options.noted < Some(moved.since) && moved.since <= last;
    let new: Vec<_> = options
        .keys
        .iter()
        .filter(|(_, _, moved)| is_new(moved))
        .collect();
    if !new.is_empty() && options.noted.is_none() {
        steps.then(Purpose::Keys, silent(position::CREATE_KEYS, vec![]));
        // Those of earlier pulls.
        steps.then(Purpose::Keys, silent(position::FORGET_KEYS, vec![client()]));
    }
    let notes_keys = !new.is_empty();
    for (table, from, moved) in new {
        let table = hrana::Value::Text {
            value: table.to_owned(),
        };
        let args = vec![
            client(),
            integer(options.pulls),
            table,
            integer(from),
            integer(moved.since.0),
            integer(moved.to),
        ];
        steps.then(Purpose::Keys, silent(position::NOTE_KEY, args));
    }
    steps.then(
        Purpose::Mark,
        silent(
            position::MARK,
            vec![client(), integer(options.mark.get()), integer(last.0)],
        ),
    );
    let commit = steps.then(Purpose::Commit, silent("COMMIT", vec![]));
    let begun_but_not_committed = Condition::And {
        conds: vec![
            Condition::Ok { step: begin },
            Condition::Not {
                cond: Box::new(Condition::Ok { step: commit }),
            },
        ],
    };
    steps.push(
        Purpose::Rollback,
        Some(begun_but_not_committed),
        silent("ROLLBACK", vec![]),
    );
    Ok(PushBatch {
        batch: Batch {
            steps: steps.steps,
            rows: options.mode.is_rows(),
            foreign_keys: options.mode == Mode::Enforced,
        },
        plan: PushPlan {
            transactions,
            first,
            last,
            notes_keys,
            steps: steps.purposes,
        },
    })
}

#[derive(Default)]
struct Steps<'a> {
    steps: Vec<Step>,
    purposes: Vec<Purpose<'a>>,
}

impl<'a> Steps<'a> {
    fn push(&mut self, purpose: Purpose<'a>, condition: Option<Condition>, stmt: Stmt) -> u32 {
        self.steps.push(Step { condition, stmt });
        self.purposes.push(purpose);
        (self.steps.len() - 1) as u32
    }

    fn always(&mut self, purpose: Purpose<'a>, stmt: Stmt) -> u32 {
        self.push(purpose, None, stmt)
    }

    /// A step that runs if the one before it succeeded.
    fn then(&mut self, purpose: Purpose<'a>, stmt: Stmt) -> u32 {
        let condition = (self.steps.len() as u32)
            .checked_sub(1)
            .map(|step| Condition::Ok { step });
        self.push(purpose, condition, stmt)
    }
}

fn silent(sql: &str, args: Vec<hrana::Value>) -> Stmt {
    let mut stmt = Stmt::new(sql, args);
    stmt.want_rows = Some(false);
    stmt
}

/// An argument of a [`SqlStatement`] as it is sent; everything else has been written into the SQL before.
pub fn wire_value(value: Value) -> Result<hrana::Value, SqlError> {
    match value {
        Value::Null => Ok(hrana::Value::Null),
        Value::Integer(value) => Ok(hrana::Value::Integer { value }),
        Value::Real(value) if value.is_finite() => Ok(hrana::Value::Float { value }),
        Value::Real(_) => Err(SqlError::NotInJson("an infinite float")),
        Value::RawText(_) => Err(SqlError::NotInJson("text that is not UTF-8")),
        Value::Text(value) => Ok(hrana::Value::Text { value }),
        Value::Blob(base64) => Ok(hrana::Value::Blob { base64 }),
    }
}
