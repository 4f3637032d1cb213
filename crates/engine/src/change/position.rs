//! How far a client's changes have come on the remote: the row of `turso_sync_last_change_id` that every pushed batch
//! writes in its own transaction. Reading it settles what became of a push whose answer was lost.
//!
//! Change ids alone do not tell who wrote the row: copies of a replica go by one client id and give the same numbers to other
//! changes. So each push draws a [`Mark`], which goes into the column `pull_gen` and is noted here before anything is sent.

use partial_sync_core::ChangeId;
use partial_sync_transport::hrana::{Batch, BatchResult, Condition, Step, Stmt, Value};

use super::{keys::Keys, sql::FAIL};

/// The tables, and what is written to that of the keys that rows got on the remote; see [`super::keys`].
pub(super) use partial_sync_transport::bookkeeping::{
    CREATE_KEYS, CREATE_LAST_CHANGE_ID as CREATE, FORGET_KEYS, NOTE_KEY,
};

/// Makes the client's row another one than any batch that is still on its way expects, and leaves the change id alone.
/// Until that moves on, the number only goes up, so no two fences are alike.
const FENCE: &str = "INSERT INTO turso_sync_last_change_id (client_id, pull_gen, change_id) VALUES (?, 1, NULL) \
     ON CONFLICT (client_id) DO UPDATE SET pull_gen = coalesce(pull_gen, 0) + 1";

/// Writes the client's row.
pub(super) const MARK: &str = "INSERT INTO turso_sync_last_change_id (client_id, pull_gen, change_id) VALUES (?, ?, ?) \
     ON CONFLICT (client_id) DO UPDATE SET pull_gen = excluded.pull_gen, change_id = excluded.change_id";

/// Succeeds only inside a batch that runs with triggers and foreign-key actions off, because it asked for that with
/// `"rows": true`. A remote that does not know the field does not know the function either.
pub(super) const ROWS: &str = "SELECT partial_sync_rows()";

/// The client's keys, as of a pull: columns tbl, old, since, new.
pub const ASK_KEYS: &str =
    "SELECT tbl, old, since, new FROM partial_sync_keys WHERE client_id = ? AND pull_gen = ?";

const ASK: &str = "SELECT pull_gen, change_id FROM turso_sync_last_change_id WHERE client_id = ?";

/// How many fences a mark outlasts, as a power of two: each adds one.
const FENCES: u32 = 24;

/// Tells the batches of one push from those of every other one. Never 0, so that what a [`fence`] makes where there was no row
/// has none; it leaves room for the fences that come after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(i64);

impl Mark {
    /// Drawn again.
    pub fn draw(random: &mut fastrand::Rng) -> Self {
        Self(random.i64(1..1 << (62 - FENCES)) << FENCES)
    }

    /// As it is written.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// As it was written.
    pub const fn of(written: i64) -> Self {
        Self(written)
    }

    /// Whether a row was written with it, and then perhaps fenced.
    fn is_in(self, pull_gen: Option<i64>) -> bool {
        pull_gen.is_some_and(|pull_gen| pull_gen >> FENCES == self.0 >> FENCES)
    }
}

/// What a replica knows of what it has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// No change after this one was ever sent.
    pub newest: Option<ChangeId>,
    /// The mark of what was sent and perhaps not confirmed; `None`: not known, since version 0.1 or another remote.
    pub mark: Option<Mark>,
}

/// What the remote has of this client: its row there, nothing where it never pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemotePosition {
    /// The [`Mark`] of the client's last push, more after a [`fence`].
    pub pull_gen: Option<i64>,
    /// Its last change there.
    pub change_id: Option<ChangeId>,
}

/// A position that a push cannot continue from, or that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// The remote lost changes that it had acknowledged.
    #[error(
        "the remote has this replica's changes up to {}, but acknowledged {acknowledged} before: it was probably restored from a backup. Changes between them are no longer on the remote. Start a new replica from it, or copy the missing rows over from this one first",
        .remote.map_or("none".to_owned(), |id| id.to_string())
    )]
    RemoteBehind {
        /// The remote's id; `None` when it knows nothing of this client.
        remote: Option<ChangeId>,
        /// The last id it acknowledged.
        acknowledged: ChangeId,
    },
    /// The remote has changes under this replica's name that it has not sent.
    #[error(
        "the remote has changes up to {remote} under this replica's name that this replica has not sent: its files were probably restored from a backup or copied. Start a new replica from the remote; rows that were changed only here must be copied over by hand"
    )]
    ReplicaBehind {
        /// The remote's id.
        remote: ChangeId,
    },
    /// The remote would not say.
    #[error("the remote could not tell how far this replica's changes have come: {0}")]
    Unreadable(String),
}

/// The step that asks for the client's row.
pub fn ask(client_id: &str) -> Step {
    let args = vec![Value::Text {
        value: client_id.to_owned(),
    }];
    let mut stmt = Stmt::new(ASK, args);
    stmt.want_rows = Some(true);
    Step {
        condition: None,
        stmt,
    }
}

/// Fails, as [`is_made_to_fail`](super::sql::is_made_to_fail) tells, unless the remote is at `position`. A row that is gone
/// is as wrong as one that says something else: the remote was restored from a backup, or is another one.
pub(super) fn expect(client_id: &str, position: RemotePosition) -> Stmt {
    let (rows, which) = match position == RemotePosition::default() {
        true => (0, ""),
        false => (1, " AND pull_gen IS ? AND change_id IS ?"),
    };
    let sql = format!(
        "SELECT CASE count(*) WHEN {rows} THEN 0 ELSE {FAIL} END FROM turso_sync_last_change_id WHERE client_id = ?{which}"
    );
    let client = Value::Text {
        value: client_id.to_owned(),
    };
    let integer = |number: Option<i64>| number.map_or(Value::Null, |value| Value::Integer { value });
    let row = [position.pull_gen, position.change_id.map(|id| id.0)].map(integer);
    let args = std::iter::once(client).chain(row.into_iter().take(2 * rows));
    Stmt {
        want_rows: Some(false),
        ..Stmt::new(sql, args.collect())
    }
}

/// The step that asks whether the remote takes rows as they came out; it succeeds then, in a batch with
/// [`Batch::rows`].
pub fn ask_rows() -> Step {
    quiet(ROWS, Vec::new(), None)
}

/// Whether the step at this index answered to [`ask_rows`] that this client may not write at all. Our server says so.
pub fn may_not_write(result: &BatchResult, step: usize) -> bool {
    let error = result.step_errors.get(step).and_then(Option::as_ref);
    error.is_some_and(|error| error.message.contains("may not write"))
}

/// The step that asks which rows got other keys since the pull of that number.
pub fn ask_keys(client_id: &str, pull_gen: i64) -> Step {
    let args = vec![
        Value::Text {
            value: client_id.to_owned(),
        },
        Value::Integer { value: pull_gen },
    ];
    Step {
        condition: None,
        stmt: Stmt::new(ASK_KEYS, args),
    }
}

/// What the step at this index answered to [`ask_keys`]; nothing where there is no such table.
pub fn read_keys(result: &BatchResult, step: usize) -> Result<Keys, PositionError> {
    let mut keys = Keys::default();
    if let Some(error) = result.step_errors.get(step).and_then(Option::as_ref) {
        return match error.message.to_ascii_lowercase().contains("no such table") {
            true => Ok(keys),
            false => Err(PositionError::Unreadable(error.message.clone())),
        };
    }
    for row in result
        .step_results
        .get(step)
        .and_then(Option::as_ref)
        .map_or(&[][..], |r| &r.rows)
    {
        let [
            Value::Text { value: table },
            Value::Integer { value: from },
            Value::Integer { value: since },
            Value::Integer { value: to },
        ] = row.as_slice()
        else {
            return Err(PositionError::Unreadable(
                "partial_sync_keys holds something else than keys".to_owned(),
            ));
        };
        keys.moved(table, *from, ChangeId(*since), *to);
    }
    Ok(keys)
}

/// What the step at this index answered.
pub fn read(result: &BatchResult, step: usize) -> Result<RemotePosition, PositionError> {
    let unreadable = |what: &str| Err(PositionError::Unreadable(what.to_owned()));
    if let Some(error) = result.step_errors.get(step).and_then(Option::as_ref) {
        return match error.message.to_ascii_lowercase().contains("no such table") {
            true => Ok(RemotePosition::default()),
            false => unreadable(&error.message),
        };
    }
    let Some(answer) = result.step_results.get(step).and_then(Option::as_ref) else {
        return unreadable("no answer to the question");
    };
    let number = |value: &Value| match value {
        Value::Null => Some(None),
        Value::Integer { value } => Some(Some(*value)),
        _ => None,
    };
    match answer.rows.as_slice() {
        [] => Ok(RemotePosition::default()),
        [row] => match row.iter().map(number).collect::<Option<Vec<_>>>().as_deref() {
            Some([pull_gen, change_id]) => Ok(RemotePosition {
                pull_gen: *pull_gen,
                change_id: change_id.map(ChangeId),
            }),
            _ => unreadable("turso_sync_last_change_id holds something else than numbers"),
        },
        _ => unreadable("turso_sync_last_change_id has several rows for one client"),
    }
}

/// The batch after which no batch lands that was sent before it. It asks for the position first.
pub fn fence(client_id: &str) -> Batch {
    let client = Value::Text {
        value: client_id.to_owned(),
    };
    let mut steps = vec![ask(client_id)];
    let after = |step| Some(Condition::Ok { step });
    // The question may fail, where there is no such table yet.
    steps.push(quiet("BEGIN IMMEDIATE", vec![], None));
    steps.push(quiet(CREATE, vec![], after(1)));
    steps.push(quiet(FENCE, vec![client], after(2)));
    steps.push(quiet("COMMIT", vec![], after(FENCED as u32 - 1)));
    let not_committed = Condition::Not {
        cond: Box::new(Condition::Ok { step: FENCED as u32 }),
    };
    let failed = Condition::And {
        conds: vec![Condition::Ok { step: 1 }, not_committed],
    };
    steps.push(quiet("ROLLBACK", vec![], Some(failed)));
    Batch {
        steps,
        ..Batch::default()
    }
}

/// The step of [`fence`] that commits it.
const FENCED: usize = 4;

/// Whether every batch up to the change `sent` is settled after the answer to [`fence`]; if not, why.
pub fn is_fenced(result: &BatchResult, sent: ChangeId) -> Result<(), String> {
    let landed = read(result, 0).is_ok_and(|position| position.change_id >= Some(sent));
    if landed || result.step_results.get(FENCED).is_some_and(Option::is_some) {
        return Ok(());
    }
    let error = result.step_errors.iter().skip(1).flatten().next();
    Err(error.map_or("no answer".to_owned(), |error| error.message.clone()))
}

fn quiet(sql: &str, args: Vec<Value>, condition: Option<Condition>) -> Step {
    let mut stmt = Stmt::new(sql, args);
    stmt.want_rows = Some(false);
    Step { condition, stmt }
}

/// The change that the next push continues after (`None`: it starts with the first), given what the remote says.
///
/// `acknowledged` is the last id that a push was told to be on the remote. One after it that was sent, with the mark that is
/// there, is that of a push whose answer was lost; any other is that of another replica which goes by this one's name, and
/// which may have given the same numbers to other changes.
pub fn resume_after(
    remote: RemotePosition,
    acknowledged: Option<ChangeId>,
    sent: Sent,
) -> Result<Option<ChangeId>, PositionError> {
    let is_own = |id| Some(id) <= sent.newest && sent.mark.is_none_or(|mark| mark.is_in(remote.pull_gen));
    match (remote.change_id, acknowledged) {
        (remote, Some(acknowledged)) if remote < Some(acknowledged) => {
            Err(PositionError::RemoteBehind { remote, acknowledged })
        }
        (Some(id), acknowledged) if Some(id) > acknowledged && !is_own(id) => {
            Err(PositionError::ReplicaBehind { remote: id })
        }
        (id, _) => Ok(id),
    }
}
