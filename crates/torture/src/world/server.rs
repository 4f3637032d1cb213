//! Steps of the remote: other clients' SQL, expiry, restarts; and which of the replicas' transactions have landed.

use super::{RemoteState, World};
use crate::{
    model::Stock,
    oracle::{Failure, Outcome, UNDECIDED, lab},
};

impl World {
    pub(super) fn remote(&mut self, sql: &str) -> Outcome {
        self.note_arrived()?;
        let result = self.remote.conn.execute_batch(sql);
        let housekeeping = sql.starts_with("VACUUM") || sql.starts_with("PRAGMA");
        if !housekeeping || sql.contains("user_version =") {
            let expected = self.model.run(sql);
            if result.is_ok() != expected.is_ok() {
                return Err(lab(format!("remote {sql}: {result:?}, expected {expected:?}")));
            }
        }
        self.note_revision()
    }

    /// The state that the remote is in now has a revision, and the model knows what it is.
    pub(super) fn note_revision(&mut self) -> Outcome {
        let revision = self.remote.revision().map_err(lab)?;
        let landed: Vec<usize> = self.replicas.iter().map(|replica| replica.landed).collect();
        if self.states.last().is_some_and(|last| last.revision == revision) {
            return Ok(());
        }
        let image = self.model.image().map_err(lab)?;
        self.states.push(RemoteState {
            revision,
            image,
            landed,
            expired: false,
        });
        Ok(())
    }

    pub(super) fn expire(&mut self) -> Outcome {
        self.note_arrived()?;
        if self.remote.expire().map_err(lab)? {
            let older = self.states.len() - 1;
            self.states[..older]
                .iter_mut()
                .for_each(|state| state.expired = true);
        }
        Ok(())
    }

    pub(super) fn restart(&mut self, kill: bool) -> Outcome {
        for replica in &self.replicas {
            replica.line.connect(None);
            replica.line.quiet();
        }
        self.remote.stop(kill);
        self.remote.start().map_err(lab)?;
        for replica in &self.replicas {
            replica.line.connect(self.remote.client());
        }
        self.note_revision()
    }

    /// After a push: what replica `r` has committed is on the remote, its first `least` transactions at least.
    pub(super) fn settle(&mut self, r: usize, least: usize) -> Outcome {
        let actual = self.remote.state().map_err(lab)?;
        let before = self.model.image().map_err(lab)?;
        let (from, to) = (self.replicas[r].landed, self.replicas[r].log.len());
        for landed in from..=to {
            if landed > from && !self.model.replay(&self.replicas[r].log[landed - 1]) {
                return Err(Failure::new(
                    UNDECIDED,
                    "a transaction does not do the same on the remote",
                ));
            }
            if landed >= least && self.model.state().map_err(lab)? == actual {
                self.replicas[r].landed = landed;
                return self.note_revision();
            }
        }
        let what = match least {
            0 => "the remote differs after a failed push",
            _ => "the remote differs after a push",
        };
        if least == 0 {
            self.model = Stock::from_image(&before, &self.case.pragmas).map_err(lab)?;
        }
        let expected = self.model.state().map_err(lab)?;
        Err(actual.differs(&expected, what))
    }

    /// After a pull of replica `r`, which asks the remote what became of a push that got no answer: that makes a revision, and
    /// what was sent may have landed before it.
    pub(super) fn note_settled(&mut self, r: usize) -> Outcome {
        let revision = self.remote.revision().map_err(lab)?;
        match self.states.last().is_some_and(|last| last.revision == revision) {
            true => Ok(()),
            false => self.settle(r, 0),
        }
    }

    /// What was held may have landed, of any replica.
    pub(super) fn settle_all(&mut self) -> Outcome {
        for replica in &self.replicas {
            replica.line.quiet();
        }
        self.note_arrived()
    }

    /// What replicas have sent since the last step may have landed, and made revisions that a pull under way has met.
    fn note_arrived(&mut self) -> Outcome {
        let revision = self.remote.revision().map_err(lab)?;
        if self.states.last().is_some_and(|last| last.revision == revision) {
            return Ok(());
        }
        for r in 0..self.replicas.len() {
            if self.model.state().map_err(lab)? == self.remote.state().map_err(lab)? {
                break;
            }
            let last = r + 1 == self.replicas.len();
            match self.settle(r, 0) {
                Err(failure) if last => return Err(failure),
                _ => {}
            }
        }
        self.note_revision()
    }
}
