//! Batches for the remote: whole local transactions, each batch one transaction there, with the bookkeeping that makes
//! a change arrive exactly once. This file builds batches and reads answers; it sends nothing.
//!
//! The steps of a batch, each only if the one before succeeded:
//!
//! 1. with [`Mode::Rows`], a check that the remote has switched triggers and foreign-key actions off, as the batch asks
//! 2. `BEGIN IMMEDIATE`; with [`Mode::Enforced`], foreign keys are deferred to the `COMMIT`
//! 3. `CREATE TABLE IF NOT EXISTS turso_sync_last_change_id ..`
//! 4. a check that the remote is where the batch goes on from. A request that was given up on may still be on its way;
//!    without this, it and its repetition could both land
//! 5. the changes
//! 6. where rows got other keys than here ([`keys`](super::keys)), if any did
//! 7. this client's row, with the last change id of the batch
//! 8. `COMMIT`
//!
//! and `ROLLBACK` if a transaction was begun but not committed; it may fail because SQLite has rolled back already, and
//! nothing depends on it. The question of [`position::ask`] can go before all that in the same request.

use std::{collections::BTreeSet, fmt};

use partial_sync_core::ChangeId;
use partial_sync_transport::hrana::{self, Batch, BatchResult, Condition, Step, Stmt};

use super::{
    Change, ChangeKind, Mode, RowOp, StatementKind, Value, is_advice,
    keys::{self, Keys},
    migration::Migration,
    position::{self, PositionError, RemotePosition},
    sql::{ROW_GONE, SqlError, SqlStatement, is_duplicate_column, is_row_gone, key_of, written_columns},
    statement::excerpt,
    transform::{Entries, TransformFn, statements},
};

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
            statements: 1000,
            bytes: 4 << 20,
        }
    }
}

/// What a batch is built with.
#[derive(Clone, Copy)]
pub struct PushOptions<'a> {
    /// This replica's id on the remote.
    pub client_id: &'a str,
    /// The replica's pull counter, written beside the change id.
    pub pull_gen: i64,
    /// Where the remote is; the batch lands only if that is still so.
    pub after: RemotePosition,
    /// How much goes into the batch.
    pub limits: PushLimits,
    /// Changes that the remote does not need ([`PushOutcome::Skip`]).
    pub skip: &'a BTreeSet<ChangeId>,
    /// How the changes are to be run; others than [`Mode::Triggers`] only where the remote offers them.
    pub mode: Mode,
    /// Where rows have other keys on the remote. The changes given speak of those already; it is noted there.
    pub keys: &'a Keys,
    /// What changes up to this one made of that is noted there; `None`: nothing since the last pull.
    pub noted: Option<ChangeId>,
    /// The application's callback.
    pub transform: Option<&'a TransformFn>,
    /// Ask for the remote's position first, in the same request; [`PushPlan::position`] reads the answer.
    pub ask_position: bool,
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
            .field("ask_position", &self.ask_position)
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
    steps: Vec<Purpose<'a>>,
}

#[derive(Clone, Debug)]
enum Purpose<'a> {
    Ask,
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
    /// ANALYZE. Build the batch again with this change in [`PushOptions::skip`].
    Skip(ChangeId),
    /// Nothing landed, because of an `ALTER TABLE` that the remote has perhaps had already. [`look`] asks for what
    /// [`was_made`] needs: when it was made, the change is to be skipped, otherwise it was refused.
    PerhapsMade(Box<PushRefused>, Box<Made>),
    /// Nothing landed, because the key that SQLite gave to the new row of this change belongs to another row there: find a
    /// free one, and build the batch again.
    KeyTaken(ChangeId, Box<PushRefused>),
    /// Nothing landed: the remote refused a change. It would do so again.
    Refused(Box<PushRefused>),
    /// Nothing of this batch landed, because the remote is no longer at [`PushOptions::after`]; most likely an earlier
    /// request arrived late. Ask for the position and go on from there.
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

/// A change that the remote refused. Nothing of its batch landed, and nothing left the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushRefused {
    /// The change; `None` when the remote refused only at COMMIT, which names none (a deferred foreign key).
    pub change_id: Option<ChangeId>,
    /// The changes of the batch, first and last.
    pub batch: (ChangeId, ChangeId),
    /// The table, where it is known.
    pub table: Option<String>,
    /// The row: its key, or all its values where it has none. Empty for statements.
    pub key: Vec<(String, Value)>,
    /// The statement that was refused.
    pub sql: String,
    /// The remote's message: `UNIQUE constraint failed: t.c`.
    pub message: String,
    /// The remote's code, if it sent one: `SQLITE_CONSTRAINT_UNIQUE`.
    pub code: Option<String>,
}

impl fmt::Display for PushRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.change_id, &self.table) {
            (None, _) => write!(
                f,
                "the remote refused to commit changes {} to {}",
                self.batch.0, self.batch.1
            )?,
            (Some(id), None) => write!(f, "the remote refused change {id}")?,
            (Some(id), Some(table)) => write!(f, "the remote refused change {id} of table {table:?}")?,
        }
        if !self.key.is_empty() {
            f.write_str(" (")?;
            for (n, (name, value)) in self.key.iter().enumerate() {
                write!(f, "{}{name} = {}", if n == 0 { "" } else { ", " }, Shown(value))?;
            }
            f.write_str(")")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(code) = &self.code {
            write!(f, " [{code}]")?;
        }
        f.write_str(". Nothing of this batch reached the remote and no local change is lost. ")?;
        match self.change_id {
            Some(id) if self.key.is_empty() => write!(
                f,
                "Remove what stands in its way on the remote, or give it up with discard_change({id}); then push again"
            ),
            Some(id) => write!(
                f,
                "Remove what stands in its way on the remote, rewrite or skip it with the transform callback, or give it up \
                 with discard_change({id}); then push again"
            ),
            None => f.write_str(
                "Remove what stands in their way on the remote, or give up the change that is to blame with discard_change; \
                 then push again",
            ),
        }
    }
}

impl std::error::Error for PushRefused {}

/// A value in a message: short, on one line.
struct Shown<'a>(&'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 60;
        match self.0 {
            Value::Null => f.write_str("NULL"),
            Value::Integer(value) => write!(f, "{value}"),
            Value::Real(value) => write!(f, "{value:?}"),
            Value::Text(text) => match text.char_indices().nth(LONGEST) {
                None => write!(f, "{text:?}"),
                Some((end, _)) => write!(f, "{:?}...", &text[..end]),
            },
            Value::RawText(bytes) => write!(f, "text of {} bytes that is not UTF-8", bytes.len()),
            Value::Blob(bytes) => write!(f, "a blob of {} bytes", bytes.len()),
        }
    }
}

/// A batch of as many transactions as fit, from the first on; `None` when there are none.
///
/// A change that cannot be sent ends the batch before its transaction; it is an error only when that is the first.
pub fn build<'a, T: AsRef<[Change]>>(
    transactions: &'a [T],
    options: &PushOptions<'_>,
) -> Result<Option<PushBatch<'a>>, Unsendable> {
    let mut chosen: Vec<(&'a Change, Vec<SqlStatement>)> = Vec::new();
    let (mut taken, mut count, mut bytes) = (0, 0, 0);
    for transaction in transactions.iter().map(AsRef::as_ref) {
        let written = match write_transaction(transaction, options) {
            Ok(written) => written,
            Err(error) if taken == 0 => return Err(error),
            Err(_) => break,
        };
        let all = written.iter().flat_map(|(_, statements)| statements);
        let more = all.clone().count();
        let more_bytes: usize = all.map(wire_size).sum();
        let fits = count + more <= options.limits.statements && bytes + more_bytes <= options.limits.bytes;
        if taken > 0 && !fits {
            break;
        }
        chosen.extend(written);
        taken += 1;
        count += more;
        bytes += more_bytes;
    }
    let mut changes = transactions[..taken].iter().flat_map(AsRef::as_ref);
    let Some(first) = changes.next() else {
        return Ok(None);
    };
    let last = changes.last().unwrap_or(first);
    assemble(chosen, options, taken, first.id, last.id).map(Some)
}

type Written<'a> = Vec<(&'a Change, Vec<SqlStatement>)>;

fn write_transaction<'a>(
    changes: &'a [Change],
    options: &PushOptions<'_>,
) -> Result<Written<'a>, Unsendable> {
    let entries = options
        .transform
        .map(|_| Entries::of(changes))
        .unwrap_or_default();
    changes
        .iter()
        .filter(|change| !options.skip.contains(&change.id))
        .map(
            |change| match statements(change, options.mode, options.transform.map(|f| (f, &entries))) {
                Ok(statements) => Ok((change, statements)),
                Err(source) => Err(Unsendable {
                    change_id: change.id,
                    source,
                }),
            },
        )
        .collect()
}

/// Roughly what a statement takes as JSON.
fn wire_size(statement: &SqlStatement) -> usize {
    let args: usize = statement
        .args
        .iter()
        .map(|value| match value {
            Value::Blob(bytes) => 40 + bytes.len().div_ceil(3) * 4,
            other => 40 + other.size(),
        })
        .sum();
    100 + statement.sql.len() + args
}

fn assemble<'a>(
    chosen: Written<'a>,
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
    if options.ask_position {
        steps.always(Purpose::Ask, position::ask(options.client_id, None).stmt);
    }
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
    let expected = |number: Option<i64>| number.map_or(hrana::Value::Null, integer);
    let after = [options.after.change_id.map(|id| id.0), options.after.pull_gen];
    let args = std::iter::once(client()).chain(after.map(expected)).collect();
    steps.then(Purpose::Expect, silent(position::EXPECT, args));
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
            integer(options.pull_gen),
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
            vec![client(), integer(options.pull_gen), integer(last.0)],
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

impl PushPlan<'_> {
    /// What became of the batch.
    pub fn outcome(&self, result: &BatchResult) -> PushOutcome {
        let succeeded = |i: usize| result.step_results.get(i).is_some_and(Option::is_some);
        for (i, purpose) in self.steps.iter().enumerate() {
            if matches!(purpose, Purpose::Ask) {
                continue;
            }
            if let Some(error) = result.step_errors.get(i).and_then(Option::as_ref) {
                return self.failed(purpose, error);
            }
            if matches!(purpose, Purpose::Commit) && succeeded(i) {
                return PushOutcome::Committed;
            }
        }
        PushOutcome::Unclear
    }

    /// Where the remote was before the batch, when [`PushOptions::ask_position`] was set.
    pub fn position(&self, result: &BatchResult) -> Result<RemotePosition, PositionError> {
        match self.steps.first() {
            Some(Purpose::Ask) => position::read(result, 0),
            _ => Err(PositionError::Unreadable("it was not asked".to_owned())),
        }
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
                let message = match *must_find && is_row_gone(&error.message) {
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
                    code: error.code.clone(),
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
                    code: error.code.clone(),
                }));
            }
            Purpose::Expect if error.message.to_ascii_lowercase().contains("constraint") => {
                return PushOutcome::Moved;
            }
            // ROLLBACK is looked at only when nothing before it failed and COMMIT did not succeed.
            Purpose::Rollback => return PushOutcome::Unclear,
            Purpose::Ask => "the question for the position",
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
            code: error.code.clone(),
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

/// The table and the row of a change, for messages.
pub fn subject(change: &Change) -> (Option<String>, Vec<(String, Value)>) {
    match &change.kind {
        ChangeKind::Row { table, op, .. } => {
            let image = match op {
                RowOp::Insert { after } | RowOp::Add { after } => after,
                RowOp::Update { before, .. } | RowOp::Delete { before } => before,
            };
            let columns = match image.len() == table.columns.len() {
                true => key_of(table, image).unwrap_or_else(|| written_columns(table).collect()),
                false => Vec::new(),
            };
            let key = columns
                .into_iter()
                .map(|i| (table.columns[i].name.clone(), image[i].clone()))
                .collect();
            (Some(table.name.clone()), key)
        }
        ChangeKind::Statement(statement) => match &statement.kind {
            StatementKind::VirtualTableWrite { table }
            | StatementKind::Reindex { table, .. }
            | StatementKind::AlterAddColumn { table, .. } => (Some(table.clone()), Vec::new()),
            _ => (None, Vec::new()),
        },
    }
}

/// What a change did, in a line.
pub(crate) fn what(change: &Change) -> String {
    let op = match &change.kind {
        ChangeKind::Row { op, .. } => op,
        ChangeKind::Statement(s) if s.kind == StatementKind::Sequence => {
            return format!(
                "set the counter of AUTOINCREMENT of {}",
                s.args.first().map_or(Shown(&Value::Null), Shown)
            );
        }
        ChangeKind::Statement(statement) => return excerpt(&statement.sql),
    };
    let verb = match op {
        RowOp::Insert { .. } | RowOp::Add { .. } => "insert into",
        RowOp::Update { .. } => "update",
        RowOp::Delete { .. } => "delete from",
    };
    let (table, key) = subject(change);
    let key: Vec<String> = key
        .iter()
        .map(|(name, value)| format!("{name} = {}", Shown(value)))
        .collect();
    format!("{verb} {:?} ({})", table.unwrap_or_default(), key.join(", "))
}
