//! Crashes: what is left of a replica's disk is opened and held against every state that it may be in.

use std::{path::PathBuf, sync::Arc};

use partial_sync::Database;
use partial_sync_transport::Remote as RemoteTrait;
use partial_sync_vfs::crash::CrashStorage;

use super::{
    Outcome, World, lab,
    open::{guarded, refused},
};
use crate::{
    faults::Line,
    model::{self, Ask as _},
    oracle::{self, Excuses, Failure, is_allowed},
};

/// The remains of a crash.
struct Remains {
    disk: CrashStorage,
    path: PathBuf,
    line: Line,
    remote: Arc<dyn RemoteTrait>,
    /// What was going on, for a person.
    when: String,
}

impl World {
    /// Kills a replica: what survived is opened, checked, and the history goes on with it.
    pub(super) fn crash_now(&mut self, r: usize, before: usize) -> Outcome {
        let replica = &mut self.replicas[r];
        let Some(disk) = replica.disk.clone() else {
            return Ok(());
        };
        let survives = replica
            .crash
            .take()
            .unwrap_or(partial_sync_vfs::crash::Survives::Written);
        disk.stop_now();
        replica.forks.clear();
        guarded(|| replica.close())?;
        replica.line.set(crate::steps::Net::Well);
        replica.line.quiet();
        let disk = disk.after_crash(survives, &replica.path);
        replica.disk = Some(disk.clone());
        if !replica.was_made {
            // Nothing that could have been lost was there.
            replica.made = false;
            replica.is_known = false;
            return Ok(());
        }
        let when = replica.disk.as_ref().map(CrashStorage::tail).unwrap_or_default();
        let remains = Remains {
            disk,
            path: replica.path.clone(),
            line: replica.line.clone(),
            remote: replica.remote.clone(),
            when,
        };
        // What the remote has was durable here first.
        let least = before.max(self.replicas[r].landed.min(self.replicas[r].log.len()));
        let (database, upto) = self.check(r, least, &remains)?;
        let replica = &mut self.replicas[r];
        let maybe = replica.maybe.take();
        match upto {
            Some(upto) => replica.log.truncate(upto),
            None => replica.log.extend(maybe),
        }
        replica.handles.push(database);
        replica.base = None;
        let stats = self.replicas[r].handles[0]
            .stats()
            .map_err(|e| refused("stats after a crash", &e))?;
        let base = self.state_of(stats.revision.as_deref())?;
        let (view, state) = self.expected(r, base, self.replicas[r].log.len(), None)?;
        let replica = &mut self.replicas[r];
        (replica.base, replica.view) = (base, view);
        replica.show(state);
        Ok(())
    }

    /// Checks the images that were kept during the last step.
    pub(super) fn check_forks(&mut self, r: usize, before: usize) -> Outcome {
        let forks = std::mem::take(&mut self.replicas[r].forks);
        let Some(disk) = self.replicas[r].disk.clone() else {
            return Ok(());
        };
        let images = disk.take_images();
        let with_image = |(at, survives)| Some((images.iter().find(|image| image.at == at)?, survives));
        for (image, survives) in forks.into_iter().filter_map(with_image) {
            // What landed was here before it left: an image without it is of a time when it had not left.
            if !self.replicas[r].was_made || self.replicas[r].landed > before {
                continue;
            }
            self.forks += 1;
            let path = self.folder.path().join(format!("fork{}.db", self.forks));
            let line = Line::default();
            line.connect(self.remote.client());
            let remote = self
                .remote
                .through(Arc::new(line.clone()), self.replicas[r].timeout, 0)
                .map_err(lab)?;
            let remains = Remains {
                disk: CrashStorage::from_image(image, survives, &path),
                path,
                line,
                remote,
                when: format!("before {}, {survives:?}", image.operation),
            };
            let (database, _) = self.check(r, before, &remains)?;
            drop(database);
            remains.line.quiet();
        }
        Ok(())
    }

    /// Opens remains. Gives the database, and how many of the transactions it has; `None` = all, and the one that was being
    /// committed.
    fn check(&mut self, r: usize, before: usize, remains: &Remains) -> Outcome<(Database, Option<usize>)> {
        self.counts.crash_points += 1;
        let requests = remains.line.requests();
        let builder = self.replicas[r]
            .builder(&remains.path, remains.remote.clone())
            .storage(Arc::new(remains.disk.clone()));
        let said = |failure: Failure| Failure {
            detail: format!("{} ({})", failure.detail, remains.when),
            ..failure
        };
        let database = guarded(|| builder.connect())?.map_err(|e| said(refused("open after a crash", &e)))?;
        if remains.line.requests() != requests {
            oracle::unless_ignored(said(Failure::new("an open after a crash asked the network", "")))?;
        }
        let first = self.compare(r, before, &database).map_err(said)?;
        guarded(|| database.pull())?.map_err(|e| said(refused("pull after a crash", &e)))?;
        let second = self.compare(r, before, &database).map_err(said)?;
        let conn = database.connection().map_err(|e| refused("connection", &e))?;
        let ok = guarded(|| conn.rows("PRAGMA integrity_check"))?
            .map_err(|e| said(refused("integrity_check after a crash", &e)))?;
        if ok != ["'ok'"] {
            return Err(said(Failure::new("integrity_check after a crash", ok.join(", "))));
        }
        drop(conn);
        match (first, second) {
            (None, Some(upto)) => Ok((database, upto)),
            (Some(upto), _) => Ok((database, upto)),
            (None, None) => Err(said(Failure::new("nothing can be read after a crash", ""))),
        }
    }

    /// Which of the states that it may be in a database is in; `None` = it cannot be read, for a good reason.
    fn compare(&self, r: usize, before: usize, database: &Database) -> Outcome<Option<Option<usize>>> {
        let stats = guarded(|| database.stats())?.map_err(|e| refused("stats after a crash", &e))?;
        let base = self.state_of(stats.revision.as_deref())?;
        let conn = database.connection().map_err(|e| refused("connection", &e))?;
        let actual = match guarded(|| model::state(&conn))? {
            Ok(actual) => actual,
            Err(e) => {
                let expired = base.is_some_and(|base| self.states[base].expired);
                return match is_allowed(
                    &e,
                    Excuses {
                        expired,
                        ..Excuses::default()
                    },
                ) {
                    true => Ok(None),
                    false => Err(refused("read after a crash", &e)),
                };
            }
        };
        let replica = &self.replicas[r];
        let len = replica.log.len();
        if let Some(maybe) = &replica.maybe
            && self.expected(r, base, len, Some(maybe))?.1 == actual
        {
            return Ok(Some(None));
        }
        for upto in (before..=len).rev() {
            if self.expected(r, base, upto, None)?.1 == actual {
                return Ok(Some(Some(upto)));
            }
        }
        let expected = self.expected(r, base, len, None)?.1;
        Err(actual.differs(&expected, "contents after a crash"))
    }
}
