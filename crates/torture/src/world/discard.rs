//! Giving up local changes. What is given up is the end of the log, so that what must be shown afterwards is known.

use partial_sync::{ChangeId, Database, Error};

use super::World;
use crate::{
    model,
    oracle::{Failure, Outcome, guarded, refused},
    steps::Net,
};

/// Gives up every change from the first transaction after `keep` on. `false` = there is none.
fn give_up(database: &Database, keep: usize, dependents: bool) -> Result<bool, Error> {
    let listed = |from: ChangeId| {
        let changes = database.local_changes(ChangeId(0), usize::MAX)?;
        Ok::<_, Error>(
            changes
                .into_iter()
                .filter(move |change| change.transaction >= from),
        )
    };
    let mut transactions: Vec<ChangeId> = listed(ChangeId(0))?.map(|change| change.transaction).collect();
    transactions.dedup();
    let Some(&from) = transactions.get(keep) else {
        return Ok(false);
    };
    if dependents && let Some(first) = listed(from)?.next() {
        database.discard_change_with_dependents(first.id)?;
    }
    // The newest first: nothing depends on it.
    for change in listed(from)?.collect::<Vec<_>>().into_iter().rev() {
        database.discard_change(change.id)?;
    }
    Ok(true)
}

impl World {
    pub(super) fn discard(&mut self, r: usize, keep: usize, dependents: bool) -> Outcome {
        let replica = &mut self.replicas[r];
        if replica.crash.is_some() || replica.has_transactions() || replica.base.is_none() {
            return Ok(());
        }
        // A push that is still on its way may land.
        replica.line.set(Net::Well);
        replica.line.set(Net::Release);
        self.settle_all()?;
        if !self.can_sync(r) {
            return Ok(());
        }
        // A crash in the middle leaves what depends on how far it came.
        self.replicas[r].forks.clear();
        let database = self.replicas[r].handles[0].clone();
        let given_up =
            guarded(|| give_up(&database, keep, dependents))?.map_err(|e| refused("discard", &e))?;
        guarded(|| database.pull())?.map_err(|e| refused("pull after a discard", &e))?;
        self.note_settled(r)?;
        if !given_up {
            return self.rebase(r).map(drop);
        }
        let stats = guarded(|| database.stats())?.map_err(|e| refused("stats", &e))?;
        let base = self.state_of(stats.revision.as_deref())?;
        let conn = database.connection().map_err(|e| refused("connection", &e))?;
        let actual = guarded(|| model::state(&conn))?.map_err(|e| refused("read after a discard", &e))?;
        drop(conn);
        let (landed, len) = (self.replicas[r].landed, self.replicas[r].log.len());
        for upto in (landed..len.max(landed + 1)).rev() {
            let (view, state) = self.expected(r, base, upto, None)?;
            if state == actual {
                let replica = &mut self.replicas[r];
                replica.log.truncate(upto);
                (replica.base, replica.view) = (base, view);
                replica.show(state);
                return Ok(());
            }
        }
        let (_, expected) = self.expected(r, base, landed, None)?;
        let failure: Failure = actual.differs(&expected, "contents after a discard");
        Err(failure)
    }
}
