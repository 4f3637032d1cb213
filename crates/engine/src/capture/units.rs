//! Which of a statement's changes belong together ([`Change::unit`](crate::change::Change::unit)).
//!
//! SQLite's hook tells in which order rows change and how deep. What is nested follows from the row of the statement
//! before it, for AFTER triggers and foreign-key actions run when their row has been changed. A row that the statement did
//! not ask for at its own depth is one that a conflict clause displaced; it goes with the row that took its place. Where a
//! trigger runs before its row, or in the place of it, that order says nothing: the whole statement is one unit then.

use std::collections::HashMap;

use crate::change::ChangeKind;

/// A change, and the unit that it is in.
#[derive(Clone)]
pub(crate) struct UnitChange {
    pub kind: ChangeKind,
    pub unit: usize,
}

/// The units of one statement, found in the order of its changes.
#[derive(Clone)]
pub(crate) struct Units {
    whole: bool,
    /// Rows deleted by the statement itself make way for others.
    displaces: bool,
    current: usize,
    /// The current unit waits for the row that it is about.
    open: bool,
    /// Units that turned out to be one: the later one, and the earlier one that it is part of.
    joined: HashMap<usize, usize>,
}

impl Units {
    /// All is one unit.
    pub(crate) fn whole() -> Self {
        Self {
            whole: true,
            displaces: false,
            current: 0,
            open: true,
            joined: HashMap::new(),
        }
    }

    /// The units of a statement on tables no trigger of which runs before its row; whether it `displaces` rows that it does not
    /// delete for their own sake.
    pub(crate) fn of_statement(displaces: bool) -> Self {
        Self {
            whole: false,
            displaces,
            ..Self::whole()
        }
    }

    /// The unit of the next row, which is deleted or not.
    pub(crate) fn next(&mut self, depth: u32, is_delete: bool) -> usize {
        if self.whole || depth > 0 {
            return self.current;
        }
        if !self.open {
            self.current += 1;
        }
        self.open = self.displaces && is_delete;
        self.current
    }

    /// The unit of a row that is seen without its depth: one that the statement wrote `direct`ly, or one nested here.
    pub(crate) fn inner(&mut self, direct: bool) -> usize {
        if direct && !self.whole {
            self.current += usize::from(!self.open);
            self.open = false;
        }
        self.current
    }

    /// The two are one.
    pub(crate) fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            self.joined.insert(a.max(b), a.min(b));
        }
    }

    fn root(&self, mut unit: usize) -> usize {
        while let Some(&into) = self.joined.get(&unit) {
            unit = into;
        }
        unit
    }

    /// The changes, each with how far before it the first of its unit is.
    pub(crate) fn finish(self, changes: Vec<UnitChange>) -> impl Iterator<Item = (ChangeKind, u32)> {
        let mut first = HashMap::new();
        changes.into_iter().enumerate().map(move |(i, change)| {
            let first = *first.entry(self.root(change.unit)).or_insert(i);
            // Nobody has the memory for more.
            (change.kind, u32::try_from(i - first).unwrap_or(u32::MAX))
        })
    }
}

/// How far before each change the first of its unit is, where no units turn out to be one and they come in their order.
#[derive(Default)]
pub(crate) struct Back {
    unit: Option<usize>,
    back: u32,
}

impl Back {
    /// Of the next change, which is in this unit.
    pub(crate) fn of(&mut self, unit: usize) -> u32 {
        self.back = match self.unit == Some(unit) {
            true => self.back.saturating_add(1),
            false => 0,
        };
        self.unit = Some(unit);
        self.back
    }
}
