//! Pulls, pushes, hydration, statistics and checkpoints.

use std::time::Duration;

use partial_sync::{Database, Error};

use super::World;
use crate::{
    oracle::{Excuses, Failure, Outcome, guarded, is_allowed, refused},
    steps::Step,
};

/// How long a long poll waits.
const POLL: Duration = Duration::from_millis(20);

/// What was so before a call, and what happened to it.
pub(super) struct Before {
    pub(super) faults: u64,
    pub(super) latest: usize,
    /// How many transactions of the replica's there were.
    pub(super) committed: usize,
    /// The caller cancelled it.
    pub(super) cancelled: bool,
    /// A request was kept waiting.
    pub(super) slow: bool,
}

/// Makes the call of a step.
pub(super) fn call(database: &Database, step: &Step) -> Result<(), Error> {
    match step {
        Step::Pull(_, false) => database.pull().map(drop),
        Step::Pull(_, true) => database.pull_waiting(POLL).map(drop),
        Step::Push(_) => database.push(),
        _ => database.hydrate(|_| {}).map(drop),
    }
}

impl World {
    pub(super) fn before(&self, r: usize) -> Before {
        Before {
            faults: self.replicas[r].line.faults(),
            latest: self.states.len() - 1,
            committed: self.replicas[r].log.len(),
            cancelled: false,
            slow: false,
        }
    }

    /// Whether a call that needs the write lock would have to wait for it until it gives up.
    pub(super) fn can_sync(&self, r: usize) -> bool {
        let replica = &self.replicas[r];
        !replica.handles.is_empty() && !replica.is_written() && !replica.has_stopped()
    }

    fn sync(&mut self, r: usize, step: &Step) -> Outcome {
        if !self.can_sync(r) {
            return Ok(());
        }
        let before = self.before(r);
        let result = guarded(|| call(&self.replicas[r].handles[0], step))?;
        self.replicas[r].line.quiet();
        self.synced(r, step, &before, result)
    }

    pub(super) fn pull(&mut self, r: usize, poll: bool) -> Outcome {
        self.sync(r, &Step::Pull(r, poll))
    }

    pub(super) fn push(&mut self, r: usize) -> Outcome {
        self.sync(r, &Step::Push(r))
    }

    pub(super) fn hydrate(&mut self, r: usize) -> Outcome {
        self.sync(r, &Step::Hydrate(r))
    }

    /// Judges what a call came to.
    pub(super) fn synced(
        &mut self,
        r: usize,
        step: &Step,
        before: &Before,
        result: Result<(), Error>,
    ) -> Outcome {
        let replica = &self.replicas[r];
        let stopped = replica.has_stopped();
        let line = before.slow || replica.line.faults() != before.faults;
        let expired = matches!(step, Step::Hydrate(_) | Step::Push(_))
            && replica.base.is_some_and(|base| self.states[base].expired);
        let excuses = Excuses {
            line,
            expired,
            cancelled: before.cancelled,
            ..Excuses::default()
        };
        let failed = result.is_err();
        if let Err(error) = &result
            && !stopped
            && !is_allowed(error, excuses)
            && !(matches!(step, Step::Hydrate(_) | Step::Push(_))
                && matches!(error, Error::NotPulledYet { .. }))
        {
            let what = step.to_string();
            return Err(refused(what.split(' ').next().unwrap_or_default(), error));
        }
        if matches!(step, Step::Push(_)) {
            self.settle(r, if failed { 0 } else { before.committed })?;
        }
        if matches!(step, Step::Pull(..)) {
            self.note_settled(r)?;
        }
        if stopped {
            return Ok(());
        }
        self.rebase(r)?;
        let base = self.replicas[r].base;
        if matches!(step, Step::Pull(..)) && !failed && base.is_none_or(|base| base < before.latest) {
            return Err(Failure::new(
                "a pull did not bring the latest state",
                format!("{base:?} of {}", before.latest),
            ));
        }
        Ok(())
    }

    pub(super) fn stats(&mut self, r: usize) -> Outcome {
        let replica = &self.replicas[r];
        let Some(database) = replica.handles.last() else {
            return Ok(());
        };
        match guarded(|| database.stats())? {
            Err(error) if !replica.has_stopped() => Err(refused("stats", &error)),
            _ => Ok(()),
        }
    }

    pub(super) fn checkpoint(&mut self, r: usize) -> Outcome {
        let replica = &self.replicas[r];
        if replica.handles.is_empty() || replica.is_written() {
            return Ok(());
        }
        let faults = replica.line.faults();
        let database = &replica.handles[0];
        // Emptying the WAL waits for readers, half a second each time.
        let result = match replica.has_transactions() {
            true => guarded(|| {
                database
                    .connection()?
                    .execute_batch("PRAGMA wal_checkpoint(PASSIVE)")
            })?,
            false => guarded(|| database.checkpoint())?,
        };
        let excuses = Excuses {
            line: replica.line.faults() != faults,
            busy: replica.is_pulling,
            ..Excuses::default()
        };
        match result {
            Err(error) if !replica.has_stopped() && !is_allowed(&error, excuses) => {
                Err(refused("checkpoint", &error))
            }
            _ => Ok(()),
        }
    }
}
