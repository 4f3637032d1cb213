//! The world of one history: the remote, the replicas and the model, and what each step does to all three.
//!
//! Steps that do not apply (a read on a replica that is closed) do nothing, so that a history stays meaningful when steps are
//! taken out of it.

mod company;
mod crash;
mod discard;
mod end;
mod open;
mod server;
mod sql;
mod sync;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use partial_sync_vfs::crash::{CrashStorage, Trouble as DiskTrouble};
use tempfile::TempDir;

use crate::{
    faults::Line,
    model::Stock,
    oracle::{Failure, Outcome, lab},
    remote::Remote,
    replica::Replica,
    report::Counts,
    steps::{Case, Line as CaseLine, Net, Step},
    workload,
};

/// No step may take longer, also on a machine that has other things to do.
const LONGEST: Duration = Duration::from_secs(90);

/// A committed state of the remote.
pub struct RemoteState {
    /// Its revision.
    pub revision: String,
    /// The model's database.
    pub image: Arc<[u8]>,
    /// How many transactions of each replica are in it.
    pub landed: Vec<usize>,
    /// Whether the remote has let go of it.
    pub expired: bool,
}

/// See the module.
pub struct World {
    pub(crate) case: Case,
    pub(crate) folder: TempDir,
    pub(crate) remote: Remote,
    /// What the remote should hold.
    pub(crate) model: Stock,
    pub(crate) states: Vec<RemoteState>,
    /// How many of them there were when the step began.
    pub(crate) had_states: usize,
    pub(crate) replicas: Vec<Replica>,
    /// What was done so far.
    pub counts: Counts,
    forks: usize,
}

fn folder() -> std::io::Result<TempDir> {
    let memory = PathBuf::from("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("torture-");
    match memory.is_dir() {
        true => builder.tempdir_in(memory),
        false => builder.tempdir(),
    }
}

impl World {
    /// The world before the first step.
    pub fn new(case: &Case) -> Outcome<Self> {
        let folder = folder().map_err(lab)?;
        let remote = Remote::new(folder.path(), case).map_err(lab)?;
        let model = Stock::new(&workload::script(&case.tables, case.filler), &case.pragmas).map_err(lab)?;
        let mut this = Self {
            case: case.clone(),
            folder,
            remote,
            model,
            states: vec![],
            had_states: 0,
            replicas: vec![],
            counts: Counts::default(),
            forks: 0,
        };
        for (n, spec) in case.replicas.iter().enumerate() {
            let line = Line::default();
            line.connect(this.remote.client());
            let path = this.folder.path().join(format!("r{n}.db"));
            this.replicas.push(Replica {
                spec: spec.clone(),
                client: n as u64 + 1,
                disk: (!spec.real_files).then(|| CrashStorage::new(&path)),
                path,
                remote: this
                    .remote
                    .through(
                        Arc::new(line.clone()),
                        Duration::from_millis(case.timeout),
                        n as u64,
                    )
                    .map_err(lab)?,
                line,
                timeout: Duration::from_millis(case.timeout),
                handles: vec![],
                slots: Default::default(),
                made: false,
                cancel: Default::default(),
                crash: None,
                forks: vec![],
                log: vec![],
                maybe: None,
                is_known: false,
                is_pulling: false,
                was_made: false,
                shown: vec![],
                landed: 0,
                base: None,
                view: Stock::new("", &case.pragmas).map_err(lab)?,
                committed: Arc::default(),
            });
        }
        this.note_revision()?;
        Ok(this)
    }

    /// Runs one line.
    pub fn line(&mut self, line: &CaseLine) -> Outcome {
        let began = Instant::now();
        let replica = replica_of(&line.step).filter(|r| *r < self.replicas.len());
        let before: Vec<usize> = self.replicas.iter().map(|r| r.log.len()).collect();
        for replica in &mut self.replicas {
            replica.was_made = replica.made;
            replica.maybe = None;
        }
        self.had_states = self.states.len();
        self.with_company(line)?;
        for (r, &before) in before.iter().enumerate() {
            let stopped = self.replicas[r]
                .disk
                .as_ref()
                .is_some_and(CrashStorage::has_stopped);
            // What a crash and a fork are about is a step that does something here.
            let concerned =
                replica == Some(r) && !matches!(line.step, Step::Crash(..) | Step::Fork(..) | Step::Net(..));
            let asked = concerned && self.replicas[r].crash.is_some();
            if concerned || stopped {
                self.check_forks(r, before)?;
            }
            if stopped || asked {
                self.crash_now(r, before)?;
            }
        }
        if began.elapsed() > LONGEST {
            return Err(Failure::new(
                "a step took too long",
                format!("{:?}", began.elapsed()),
            ));
        }
        Ok(())
    }

    /// Runs one step.
    pub fn step(&mut self, step: &Step) -> Outcome {
        let ok = |r: &usize| *r < self.replicas.len();
        if replica_of(step).is_some_and(|r| !ok(&r)) {
            return Ok(());
        }
        self.counts.step(step);
        match step {
            Step::Open(r) => self.open(*r),
            Step::Close(r) => self.close(*r),
            Step::Sql(r, c, sql) => self.sql(*r, *c, sql),
            Step::Attach(r, c, other, sql) => self.attach(*r, *c, *other, sql),
            Step::Begin(r, c, immediate) => self.begin(*r, *c, *immediate),
            Step::Commit(r, c) => self.end(*r, *c, true),
            Step::Rollback(r, c) => self.end(*r, *c, false),
            Step::Read(r, c, table) => self.read(*r, *c, table),
            Step::Remote(sql) => self.remote(sql),
            Step::Pull(r, poll) => self.pull(*r, *poll),
            Step::Push(r) => self.push(*r),
            Step::Hydrate(r) => self.hydrate(*r),
            Step::Discard(r, keep, dependents) => self.discard(*r, *keep, *dependents),
            Step::Stats(r) => self.stats(*r),
            Step::Checkpoint(r) => self.checkpoint(*r),
            Step::Cancel(r) => {
                self.replicas[*r].cancel.cancel();
                Ok(())
            }
            Step::Expire => self.expire(),
            Step::Restart(kill) => self.restart(*kill),
            Step::Net(r, net) => {
                self.replicas[*r].line.set(*net);
                match net {
                    Net::Release => self.settle_all(),
                    _ => Ok(()),
                }
            }
            Step::Crash(r, n, survives) => {
                if let Some(disk) = &self.replicas[*r].disk {
                    disk.trouble(Some(DiskTrouble::Stop(disk.operations() + n)));
                    self.replicas[*r].crash = Some(*survives);
                }
                Ok(())
            }
            Step::Fork(r, n, survives) => {
                if let Some(disk) = &self.replicas[*r].disk {
                    disk.film();
                    self.replicas[*r].forks.push((*n, *survives));
                }
                Ok(())
            }
        }
    }

    /// A step whose replica's requests are watched, with company on other threads.
    fn with_company(&mut self, line: &CaseLine) -> Outcome {
        let replica = replica_of(&line.step)
            .filter(|r| *r < self.replicas.len() && !self.replicas[*r].handles.is_empty());
        match (replica, &line.step) {
            (Some(r), Step::Pull(..) | Step::Push(_) | Step::Hydrate(_))
                if !line.meanwhile.is_empty() || !line.beside.is_empty() =>
            {
                self.company(r, line)
            }
            _ => self.step(&line.step),
        }
    }
}

fn replica_of(step: &Step) -> Option<usize> {
    match step {
        Step::Open(r)
        | Step::Close(r)
        | Step::Sql(r, ..)
        | Step::Attach(r, ..)
        | Step::Begin(r, ..)
        | Step::Commit(r, _)
        | Step::Rollback(r, _)
        | Step::Read(r, ..)
        | Step::Pull(r, _)
        | Step::Push(r)
        | Step::Hydrate(r)
        | Step::Discard(r, ..)
        | Step::Stats(r)
        | Step::Checkpoint(r)
        | Step::Cancel(r)
        | Step::Net(r, _)
        | Step::Crash(r, ..)
        | Step::Fork(r, ..) => Some(*r),
        Step::Remote(_) | Step::Expire | Step::Restart(_) => None,
    }
}
