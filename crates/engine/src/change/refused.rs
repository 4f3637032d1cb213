//! What is said of a change that the remote refused, and of any change in a line.

use std::fmt;

use partial_sync_core::ChangeId;

use super::{
    Change, ChangeKind, RowOp, StatementKind, Value,
    sql::{key_of, written_columns},
    written::excerpt,
};

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

impl PushRefused {
    /// Whether a constraint of the remote's was in the way. Remotes that send no code say it in their message.
    pub fn is_constraint(&self) -> bool {
        match &self.code {
            Some(code) if code.starts_with("SQLITE_") => code.starts_with("SQLITE_CONSTRAINT"),
            _ => self.message.contains("constraint failed"),
        }
    }
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
