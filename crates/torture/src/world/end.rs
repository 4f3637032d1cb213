//! The end of a history: all is well again, everybody pushes and pulls, and then replicas, remote and model are equal.

use super::World;
use crate::{
    model::{self, Ask as _},
    oracle::{Failure, Outcome, guarded, lab, refused},
    steps::Net,
};

impl World {
    /// Ends the history.
    pub fn end_all(&mut self) -> Outcome {
        for r in 0..self.replicas.len() {
            let replica = &mut self.replicas[r];
            replica.crash = None;
            replica.forks.clear();
            if let Some(disk) = &replica.disk {
                disk.trouble(None);
                disk.take_film();
            }
            if replica.is_written() {
                replica.view.run("ROLLBACK").map_err(lab)?;
            }
            let replica = &mut self.replicas[r];
            guarded(|| replica.slots.clear())?;
            replica.line.set(Net::Well);
            replica.line.set(Net::Release);
        }
        self.settle_all()?;
        for r in 0..self.replicas.len() {
            if self.replicas[r].handles.is_empty() {
                self.open(r)?;
            }
            if self.replicas[r].base.is_none() {
                self.pull(r, false)?;
            }
        }
        // Once more where a push has said that a pull has to come first.
        for _ in 0..2 {
            for r in 0..self.replicas.len() {
                self.push(r)?;
            }
            for r in 0..self.replicas.len() {
                self.pull(r, false)?;
            }
            if self
                .replicas
                .iter()
                .all(|replica| replica.landed == replica.log.len())
            {
                break;
            }
        }
        self.compare_all()?;
        for r in 0..self.replicas.len() {
            self.close(r)?;
        }
        Ok(())
    }

    fn compare_all(&self) -> Outcome {
        let expected = self.model.state().map_err(lab)?;
        let there = self.remote.state().map_err(lab)?;
        if there != expected {
            return Err(there.differs(&expected, "the remote differs at the end"));
        }
        let orphans = self
            .remote
            .conn
            .rows("PRAGMA foreign_key_check")
            .map_err(lab)?
            .len();
        for replica in &self.replicas {
            let conn = replica.handles[0]
                .connection()
                .map_err(|e| refused("connection", &e))?;
            let here = guarded(|| model::state(&conn))?.map_err(|e| refused("read at the end", &e))?;
            if here != expected {
                return Err(here.differs(&expected, "a replica differs at the end"));
            }
            let ok = guarded(|| conn.rows("PRAGMA integrity_check"))?
                .map_err(|e| refused("integrity_check", &e))?;
            if ok != ["'ok'"] {
                return Err(Failure::new("integrity_check at the end", ok.join(", ")));
            }
            let broken = guarded(|| conn.rows("PRAGMA foreign_key_check"))?
                .map_err(|e| refused("foreign_key_check", &e))?;
            if broken.len() > orphans {
                return Err(Failure::new("foreign_key_check at the end", broken.join(", ")));
            }
        }
        Ok(())
    }
}
