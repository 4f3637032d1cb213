//! Opening and closing replicas, and what a replica is based on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::World;
use crate::{
    model::{State, Stock, Transaction},
    oracle::{self, Excuses, Failure, Outcome, UNDECIDED, guarded, is_allowed, lab, refused},
    replica::{Slot, Txn},
};

impl World {
    pub(super) fn open(&mut self, r: usize) -> Outcome {
        let replica = &mut self.replicas[r];
        if replica.handles.len() > usize::from(replica.spec.real_files) || replica.has_stopped() {
            return Ok(());
        }
        let (requests, faults) = (replica.line.requests(), replica.line.faults());
        let mut builder = replica
            .builder(&replica.path, replica.remote.clone())
            .cancel_handle(replica.cancel.clone());
        if let Some(disk) = &replica.disk {
            builder = builder.storage(Arc::new(disk.clone()));
        }
        let opened = guarded(|| builder.connect())?;
        match opened {
            Ok(database) => {
                if replica.made && replica.line.requests() != requests {
                    oracle::unless_ignored(Failure::new(
                        "an open asked the network",
                        format!("replica {r}"),
                    ))?;
                }
                replica.made = true;
                replica.handles.push(database);
                self.rebase(r).map(drop)
            }
            Err(_) if replica.has_stopped() => Ok(()),
            Err(error) => {
                let line = !replica.made && replica.line.faults() != faults;
                match is_allowed(
                    &error,
                    Excuses {
                        line,
                        ..Excuses::default()
                    },
                ) {
                    true => Ok(()),
                    false => Err(refused("open", &error)),
                }
            }
        }
    }

    pub(super) fn close(&mut self, r: usize) -> Outcome {
        let replica = &mut self.replicas[r];
        if replica.handles.is_empty() {
            return Ok(());
        }
        guarded(|| replica.close())?;
        if !replica.line.quiet() {
            return Err(Failure::new("a request does not end", format!("replica {r}")));
        }
        let end = Instant::now() + Duration::from_millis(300);
        while let Some(disk) = replica.disk.as_ref().filter(|disk| disk.open_files() > 0) {
            if Instant::now() > end {
                let detail = format!("{} files of replica {r}", disk.open_files());
                return oracle::unless_ignored(Failure::new("files are open after the close", detail));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// A connection, made when it is not there. `None` = the replica is closed or its disk has stopped.
    pub(super) fn slot(&mut self, r: usize, c: usize) -> Outcome<Option<&mut Slot>> {
        let replica = &mut self.replicas[r];
        if replica.handles.is_empty() || replica.has_stopped() {
            return Ok(None);
        }
        if !replica.slots.contains_key(&c) {
            let handle = &replica.handles[c % replica.handles.len()];
            let pragmas: String = self
                .case
                .pragmas
                .iter()
                .map(|pragma| format!("PRAGMA {pragma};"))
                .collect();
            let faults = replica.line.faults();
            let made = guarded(|| {
                let conn = handle.connection()?;
                conn.execute_batch("PRAGMA synchronous = full")?;
                conn.execute_batch(&pragmas)?;
                Ok(conn)
            })?;
            match made {
                Ok(conn) => drop(replica.slots.insert(c, Slot { conn, txn: Txn::None })),
                Err(_) if replica.has_stopped() => return Ok(None),
                // These pragmas read the schema.
                Err(error) => {
                    let excuses = Excuses {
                        line: replica.line.faults() != faults,
                        expired: replica.base.is_some_and(|base| self.states[base].expired),
                        ..Excuses::default()
                    };
                    return match is_allowed(&error, excuses) {
                        true => Ok(None),
                        false => Err(refused("connection", &error)),
                    };
                }
            }
        }
        Ok(replica.slots.get_mut(&c))
    }

    /// Learns which state of the remote a replica is based on, and what it must show if that is another than before.
    /// `true` = it is.
    pub(super) fn rebase(&mut self, r: usize) -> Outcome<bool> {
        let replica = &self.replicas[r];
        let stats = match guarded(|| replica.handles[0].stats())? {
            Ok(stats) => stats,
            Err(_) if replica.has_stopped() => return Ok(false),
            Err(error) => return Err(refused("stats", &error)),
        };
        if self.state_of(stats.revision.as_deref()).is_err() {
            // A pull that settled an earlier push may have moved it already, and continue.
            self.note_settled(r)?;
        }
        let base = self.state_of(stats.revision.as_deref())?;
        let replica = &self.replicas[r];
        if base == replica.base && replica.is_known {
            return Ok(false);
        }
        let (view, state) = self.expected(r, base, replica.log.len(), None)?;
        let replica = &mut self.replicas[r];
        replica.is_known = true;
        replica.base = base;
        replica.view = view;
        replica.show(state);
        Ok(true)
    }

    pub(super) fn state_of(&self, revision: Option<&str>) -> Outcome<Option<usize>> {
        let Some(revision) = revision else { return Ok(None) };
        match self.states.iter().rposition(|state| state.revision == revision) {
            Some(base) => Ok(Some(base)),
            None => Err(Failure::new("a revision that the remote never had", revision)),
        }
    }

    /// What a replica shows on this base with so many of its transactions, and perhaps one more.
    pub(super) fn expected(
        &self,
        r: usize,
        base: Option<usize>,
        upto: usize,
        more: Option<&Transaction>,
    ) -> Outcome<(Stock, State)> {
        let (view, landed) = match base.map(|base| &self.states[base]) {
            Some(state) => (
                Stock::from_image(&state.image, &self.case.pragmas),
                state.landed[r],
            ),
            None => (Stock::new("", &self.case.pragmas), 0),
        };
        let view = view.map_err(lab)?;
        for transaction in self.replicas[r].log[landed.min(upto)..upto].iter().chain(more) {
            if !view.replay(transaction) {
                return Err(Failure::new(
                    UNDECIDED,
                    format!("{transaction:?} does not do the same on another base"),
                ));
            }
        }
        let state = view.state().map_err(lab)?;
        Ok((view, state))
    }
}
