//! Crashes: what is left of a replica's disk is opened and held against every state that it may be in.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    path::PathBuf,
    sync::Arc,
};

use partial_sync::Database;
use partial_sync_transport::Remote as RemoteTrait;
use partial_sync_vfs::crash::{CrashStorage, Remains, Survives};

use super::World;
use crate::{
    faults::Line,
    model::{self, Ask as _, State},
    oracle::{self, Excuses, Failure, Outcome, guarded, is_allowed, lab, refused},
};

/// What a crash may leave, whatever else it leaves.
const OUTCOMES: [Survives; 4] = [
    Survives::Written,
    Survives::Synced,
    Survives::SyncedAndSome(1),
    Survives::SyncedAndSome(2),
];

/// A replica that is found after a crash.
struct Found {
    disk: CrashStorage,
    path: PathBuf,
    line: Line,
    remote: Arc<dyn RemoteTrait>,
    /// What was going on, for a person.
    when: String,
}

/// What was checked after a step.
#[derive(Default)]
struct Checked {
    remains: HashSet<Remains>,
    /// What is shown on a base with so many transactions; `None` = all, and the one that was being committed.
    states: HashMap<(Option<usize>, Option<usize>), State>,
}

impl World {
    /// Kills a replica: what survived is opened, checked, and the history continues with it.
    pub(super) fn crash_now(&mut self, r: usize, before: usize) -> Outcome {
        let replica = &mut self.replicas[r];
        let Some(disk) = replica.disk.clone() else {
            return Ok(());
        };
        let survives = replica.crash.take().unwrap_or(Survives::Written);
        disk.stop_now();
        replica.forks.clear();
        guarded(|| replica.close())?;
        replica.line.set(crate::steps::Net::Well);
        replica.line.quiet();
        let remains = disk.remains(survives);
        let others = OUTCOMES.map(|outcome| disk.remains(outcome));
        let when = disk.tail();
        let disk = CrashStorage::from_remains(&remains, &replica.path);
        replica.disk = Some(disk.clone());
        if !replica.was_made {
            // Nothing that could have been lost was there.
            replica.made = false;
            replica.is_known = false;
            return Ok(());
        }
        let found = Found {
            disk,
            path: replica.path.clone(),
            line: replica.line.clone(),
            remote: replica.remote.clone(),
            when,
        };
        // What the remote has was durable here first.
        let least = before.max(self.replicas[r].landed.min(self.replicas[r].log.len()));
        let mut checked = Checked::default();
        checked.remains.insert(remains);
        for (other, survives) in others.into_iter().zip(OUTCOMES) {
            let when = format!("{survives:?}, {}", found.when);
            self.check_remains(r, least, other, &mut checked, when)?;
        }
        let (database, upto) = self.check(r, least, &found, &mut checked)?;
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

    /// Checks what crashes during the last step would have left.
    pub(super) fn check_forks(&mut self, r: usize, before: usize) -> Outcome {
        let forks = std::mem::take(&mut self.replicas[r].forks);
        let film = self.replicas[r].disk.as_ref().and_then(CrashStorage::take_film);
        let Some(film) = film.filter(|film| !film.is_empty()) else {
            return Ok(());
        };
        // What landed was here, and noted as sent, before it left: an image without that is of a time when it had not left,
        // and beside a remote that has it, a backup.
        if !self.replicas[r].was_made || self.states.len() > self.had_states {
            return Ok(());
        }
        let mut checked = Checked::default();
        for (nth, survives) in forks {
            // A step with fewer operations is counted through again.
            let at = nth.saturating_sub(1) as usize % film.len();
            let when = format!("before {}, {survives:?}", film.operation(at));
            self.check_remains(r, before, film.crash(at, survives), &mut checked, when)?;
        }
        Ok(())
    }

    /// Opens a copy of what a crash may have left, unless just these files were checked already.
    fn check_remains(
        &mut self,
        r: usize,
        before: usize,
        remains: Remains,
        checked: &mut Checked,
        when: String,
    ) -> Outcome {
        if checked.remains.contains(&remains) {
            return Ok(());
        }
        self.forks += 1;
        let path = self.folder.path().join(format!("fork{}.db", self.forks));
        let line = Line::default();
        line.connect(self.remote.client());
        let remote = self
            .remote
            .through(Arc::new(line.clone()), self.replicas[r].timeout, 0)
            .map_err(lab)?;
        let found = Found {
            disk: CrashStorage::from_remains(&remains, &path),
            path,
            line,
            remote,
            when,
        };
        checked.remains.insert(remains);
        let (database, _) = self.check(r, before, &found, checked)?;
        drop(database);
        found.line.quiet();
        Ok(())
    }

    /// Opens what was found. Gives the database, and how many of the transactions it has; `None` = all, and the one that was being
    /// committed.
    fn check(
        &mut self,
        r: usize,
        before: usize,
        found: &Found,
        checked: &mut Checked,
    ) -> Outcome<(Database, Option<usize>)> {
        self.counts.crash_points += 1;
        let requests = found.line.requests();
        let builder = self.replicas[r]
            .builder(&found.path, found.remote.clone())
            .storage(Arc::new(found.disk.clone()));
        let said = |failure: Failure| Failure {
            detail: format!("{} ({})", failure.detail, found.when),
            ..failure
        };
        let database = guarded(|| builder.connect())?.map_err(|e| said(refused("open after a crash", &e)))?;
        if found.line.requests() != requests {
            oracle::unless_ignored(said(Failure::new("an open after a crash asked the network", "")))?;
        }
        let first = self.compare(r, before, &database, checked).map_err(said)?;
        guarded(|| database.pull())?.map_err(|e| said(refused("pull after a crash", &e)))?;
        self.note_settled(r)?;
        let second = self.compare(r, before, &database, checked).map_err(said)?;
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
    fn compare(
        &self,
        r: usize,
        before: usize,
        database: &Database,
        checked: &mut Checked,
    ) -> Outcome<Option<Option<usize>>> {
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
        let len = self.replicas[r].log.len();
        let maybe = self.replicas[r].maybe.as_ref();
        let all = maybe.map(|_| None).into_iter();
        for upto in all.chain((before..=len).rev().map(Some)) {
            let state = match checked.states.entry((base, upto)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let more = maybe.filter(|_| upto.is_none());
                    unknown.insert(self.expected(r, base, upto.unwrap_or(len), more)?.1)
                }
            };
            if *state == actual {
                return Ok(Some(upto));
            }
        }
        let expected = self.expected(r, base, len, None)?.1;
        Err(actual.differs(&expected, "contents after a crash"))
    }
}
