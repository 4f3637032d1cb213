//! Whether a remote that is sent a statement's own rows, and whose triggers fire for them, comes to the same as the triggers here.

use super::{
    classify::internal,
    given,
    run::{RecordedStatement, Recording},
};
use crate::{
    change::{
        Cause, ChangeKind, RowOp, Table,
        tokens::{Token, tokens},
    },
    error::Result,
};

/// What is known of it after some of the statement's changes.
pub(super) struct Repeats<'s> {
    statement: &'s RecordedStatement<'s>,
    triggers: Vec<Vec<Token<'s>>>,
    inserts: bool,
    overrides_conflicts: bool,
    /// Rows of the statement itself, and of triggers.
    own: bool,
    by_triggers: bool,
    /// A column was set to what it was.
    unchanged: bool,
    /// The triggers for a row of the statement are not those for the change that is sent.
    fires_otherwise: bool,
    /// What a trigger wrote may have displaced other rows.
    overrides: bool,
}

impl<'s> Repeats<'s> {
    /// Of a statement, with the texts of the triggers that may have run.
    pub(super) fn new(statement: &'s RecordedStatement<'s>, triggers: &'s [impl AsRef<str>]) -> Self {
        let own = tokens(statement.sql);
        Self {
            statement,
            triggers: triggers.iter().map(|sql| tokens(sql.as_ref())).collect(),
            inserts: given::is_insert(&own),
            overrides_conflicts: given::overrides_conflicts(&own),
            own: false,
            by_triggers: false,
            unchanged: false,
            fires_otherwise: false,
            overrides: false,
        }
    }

    /// The next change.
    pub(super) fn see(&mut self, recording: &mut Recording<'_>, kind: &ChangeKind) -> Result<()> {
        match kind {
            ChangeKind::Row {
                table,
                op,
                cause: Cause::Statement,
            } => {
                self.own = true;
                if let RowOp::Update { before, after } = op {
                    let set = |name: &str| self.statement.updates(&table.name, name);
                    let same = |i: usize| before[i] == after[i] && set(&table.columns[i].name);
                    self.unchanged = self.unchanged || (0..table.columns.len()).any(same);
                    self.fires_otherwise = self.fires_otherwise
                        || (self.inserts && self.fires("INSERT", table))
                        || (before == after && self.fires("UPDATE", table));
                }
            }
            ChangeKind::Row {
                table,
                op,
                cause: Cause::Trigger,
            } => {
                self.by_triggers = true;
                if self.overrides_conflicts && !self.overrides {
                    let indexes = internal(|| recording.state.schema.indexes(recording.conn, table))?;
                    let keyed = indexes.rowid_key.is_some() && !matches!(op, RowOp::Add { .. });
                    self.overrides = !matches!(op, RowOp::Delete { .. }) && (indexes.unique || keyed);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn fires(&self, event: &str, table: &Table) -> bool {
        let mut triggers = self.triggers.iter();
        triggers.any(|tokens| given::fires(tokens, event, &table.name))
    }

    /// All changes were seen.
    pub(super) fn are_repeatable(&self, recording: &Recording<'_>) -> Result<bool> {
        if !self.by_triggers {
            return Ok(true);
        }
        // Where it failed, a trigger may have run for the row that failed, which is not there.
        if self.statement.failed || !self.own || self.fires_otherwise || self.overrides {
            return Ok(false);
        }
        if recording.pragma("recursive_triggers")? == 1 {
            return Ok(false);
        }
        Ok(!self.triggers.iter().any(|tokens| {
            let pair = |a: &str, b: &str| tokens.windows(2).any(|t| t[0].is(a) && t[1].is(b));
            let ignores = tokens.windows(3).any(|t| t[0].is("RAISE") && t[2].is("IGNORE"));
            ignores || (self.unchanged && pair("UPDATE", "OF"))
        }))
    }
}
