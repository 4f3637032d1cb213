//! Gives every committed state that it sees a revision: takes a snapshot of the latest state while it still holds the
//! one before, stores what the pages between them were, and then publishes the new one.
//!
//! One step at a time; readers never wait for it. A step that fails changes nothing and can be tried again. It must
//! never publish a revision that is not durable in the history, and in the log of a database that has one, and never let go of
//! the old snapshot before that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use partial_sync_core::{PageNo, Revision};
use tokio::sync::watch;

use super::{
    comparing::compare_some,
    log::{AttachLog, File, RevisionLog},
    snapshot::Snapshot,
    source::{FileStamp, SourceFiles},
};
use crate::{
    clock::Clock,
    error::{HistoryError, ServerError},
    history::{Before, Change, Comparison, Generation, History, Position, RevisionRecord, Seq, page_hash},
    states::Latest,
};

/// Frames of the WAL from which it is worth moving them into the main file: SQLite's own default.
const CHECKPOINT_FRAMES: u32 = 1000;
/// Frames of the WAL from which writers are made to wait for that, or it would grow for ever under a busy writer.
const INSISTENT_FRAMES: u32 = 8000;
/// How often is looked whether the WAL has been emptied.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(10);
/// Without commits for so long, the WAL is moved too, so that others can reset it while this server holds a snapshot.
const QUIET: Duration = Duration::from_millis(250);
/// A file that changed less than this ago could change again without a new time stamp.
const TIMESTAMP_GRAIN: Duration = Duration::from_millis(20);

/// The latest known state, and its revision.
#[derive(Debug)]
pub struct Current {
    /// The revision's number.
    pub seq: Seq,
    /// The life of the history that it belongs to.
    pub generation: Generation,
    /// The state.
    pub snapshot: Arc<Snapshot>,
    latest: Latest,
}

impl Current {
    fn new(generation: Generation, seq: Seq, snapshot: Arc<Snapshot>) -> Self {
        let db_size = snapshot.db_size();
        Self {
            seq,
            generation,
            snapshot,
            latest: Latest {
                at: RevisionRecord { seq, db_size },
                revision: generation.revision(seq),
            },
        }
    }

    /// The revision as clients see it.
    pub fn revision(&self) -> Revision {
        self.latest.revision.clone()
    }

    fn record(&self) -> RevisionRecord {
        self.latest.at
    }

    pub(super) fn latest(&self) -> &Latest {
        &self.latest
    }

    /// The number of a revision that a client names, if it was made by this life of the history.
    pub(super) fn seq_of(&self, revision: &Revision) -> Option<Seq> {
        let seq = self.generation.parse(revision);
        seq.filter(|seq| *seq <= self.seq)
    }
}

/// Whether commits get their revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FollowerState {
    /// Yes.
    Following,
    /// The last try failed; revisions that were made before can be read.
    Failing(&'static str),
    /// The database was taken away.
    Ended,
}

/// See the module.
#[derive(Debug)]
pub struct Follower {
    current: RwLock<Arc<Current>>,
    /// After `current`, for those who wait.
    published: watch::Sender<Latest>,
    /// What the history has after `current`, and the log may not have yet; by who has the turn.
    unshipped: Mutex<Option<Arc<Current>>>,
    log: Option<Arc<dyn RevisionLog>>,
    history: Arc<dyn History>,
    files: Arc<SourceFiles>,
    clock: Clock,
    stepping: Arc<tokio::sync::Mutex<()>>,
    failing: Mutex<Option<&'static str>>,
    /// Steps that were begun, and the number of the last one that was done.
    begun: AtomicU64,
    done: AtomicU64,
    /// Bytes that were in the WAL when waiting for room in it was in vain; 0: it was not.
    no_room_at: AtomicU64,
    making_room: tokio::sync::Mutex<()>,
    last_commit: Mutex<Instant>,
    /// As the history has it, or as it had it a moment ago.
    comparing: Mutex<Option<Comparison>>,
    /// However many want to compare, a commit waits for one step of it.
    comparer: tokio::sync::Mutex<()>,
}

impl Follower {
    /// Takes up a history where it was left; blocks, for as long as a step of [`Follower::compare`] takes. If the file may have
    /// changed since, its state is a new revision, and what it changed is found out by comparing. A history that is new, or
    /// of another page size, begins with revision 1.
    pub fn open(
        files: Arc<SourceFiles>,
        history: Arc<dyn History>,
        clock: Clock,
    ) -> Result<Self, ServerError> {
        Self::open_with(files, history, clock, None)
    }

    /// The same; with a log, that says which revision the state is, and nothing is left to compare.
    pub(crate) fn open_with(
        files: Arc<SourceFiles>,
        history: Arc<dyn History>,
        clock: Clock,
        attach: Option<&dyn AttachLog>,
    ) -> Result<Self, ServerError> {
        let snapshot = Arc::new(Snapshot::take(&files, None)?);
        // A server that was killed had not waited for the disk with its last commits.
        files.sync().map_err(|e| files.io("synced", e))?;
        let known = history
            .generation()?
            .filter(|(_, size)| *size == snapshot.page_size());
        let now = unix_ms(&clock);
        let stands_still = known.is_some() && stands_still(&files, &*history, &snapshot)?;
        let (log, generation, seq, resumed) = match (attach, known) {
            (Some(attach), _) => {
                let attached = attach.attach(&File {
                    snapshot: &snapshot,
                    history: &*history,
                    stands_still,
                    unix_ms: now,
                })?;
                (Some(attached.log), attached.generation, attached.seq, true)
            }
            (None, None) => {
                let generation = history.begin(snapshot.page_size(), snapshot.db_size(), now)?;
                (None, generation, Seq::FIRST, true)
            }
            (None, Some((generation, _))) => {
                history.leap();
                let latest = history.latest()?;
                match stands_still {
                    true => (None, generation, latest.seq, false),
                    false => {
                        let resumed = history.resume(latest, None, snapshot.db_size(), now)?;
                        (None, generation, resumed.seq, true)
                    }
                }
            }
        };
        let comparing = history.comparison()?;
        let current = Current::new(generation, seq, snapshot);
        let this = Self {
            published: watch::Sender::new(current.latest().clone()),
            current: RwLock::new(Arc::new(current)),
            unshipped: Mutex::default(),
            log,
            history,
            files,
            clock,
            stepping: Arc::default(),
            failing: Mutex::default(),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            no_room_at: AtomicU64::new(0),
            making_room: tokio::sync::Mutex::default(),
            last_commit: Mutex::new(Instant::now()),
            comparing: Mutex::new(comparing),
            comparer: tokio::sync::Mutex::default(),
        };
        let comparing = this.compare_step()?;
        if comparing {
            tracing::info!(path = %this.files.path().display(), "comparing every page with the page history");
        }
        if resumed && (comparing || this.log.is_some()) {
            // Killed now, it can go on from where it is.
            this.save_position()?;
        }
        Ok(this)
    }

    /// The latest state that has a revision. Hold it for as short as possible: it keeps the WAL from being reset.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read())
    }

    /// Wakes up whenever there is a new [`Follower::current`].
    pub fn subscribe(&self) -> watch::Receiver<Latest> {
        self.published.subscribe()
    }

    /// Whether somebody waits for a new state.
    pub fn has_waiters(&self) -> bool {
        self.published.receiver_count() > 0
    }

    /// The old pages.
    pub fn history(&self) -> &Arc<dyn History> {
        &self.history
    }

    /// Where the revisions go before they are published, if they go anywhere.
    pub(crate) fn log(&self) -> Option<&Arc<dyn RevisionLog>> {
        self.log.as_ref()
    }

    /// Whether what the history has is not known to be in the log.
    pub(crate) fn is_unshipped(&self) -> bool {
        self.unshipped.lock().is_some()
    }

    /// The files.
    pub fn files(&self) -> &Arc<SourceFiles> {
        &self.files
    }

    /// Ends it for good: from here on nothing is recorded or read, and everybody who waits is woken and finds out.
    pub async fn end(self: &Arc<Self>) {
        let turn = Arc::clone(&self.stepping).lock_owned().await;
        let this = Arc::clone(self);
        let ended = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            this.set_ended();
        });
        // It fails only if the runtime is going down.
        let _ = ended.await;
    }

    fn set_ended(&self) {
        self.files.end();
        self.published.send_modify(|_| {});
    }

    /// How it stands.
    pub fn state(&self) -> FollowerState {
        match (self.check_open(), *self.failing.lock()) {
            (Err(_), _) => FollowerState::Ended,
            (_, Some(why)) => FollowerState::Failing(why),
            _ => FollowerState::Following,
        }
    }

    /// Fails after [`Follower::end`]. What was read from the history before this succeeds is of this life of it.
    pub fn check_open(&self) -> Result<(), ServerError> {
        self.files.check_open()
    }

    /// A state that is not older than any commit that had finished when this was called.
    ///
    /// With a log nobody waits longer than its patience; what was begun continues.
    pub async fn refresh(self: &Arc<Self>) -> Result<Arc<Current>, ServerError> {
        match &self.log {
            Some(log) => tokio::time::timeout(log.patience(), self.refreshed())
                .await
                .unwrap_or(Err(ServerError::LogTooSlow)),
            None => self.refreshed().await,
        }
    }

    async fn refreshed(self: &Arc<Self>) -> Result<Arc<Current>, ServerError> {
        self.check_open()?;
        if let Some(current) = self.unmoved()? {
            return Ok(current);
        }
        let asked = self.begun.load(SeqCst);
        let turn = Arc::clone(&self.stepping).lock_owned().await;
        // Somebody else has made a whole step while this waited for its turn. There may be later commits: they are not asked for, and
        // of many who commit at the same time one makes the step.
        if self.done.load(SeqCst) > asked {
            self.check_open()?;
            return Ok(self.current());
        }
        self.blocking_in(turn, Self::step).await
    }

    /// Keeps the WAL short. To be called now and then, and soon again if it says `true`.
    pub async fn tend(self: &Arc<Self>) -> Result<bool, ServerError> {
        let quiet = self.last_commit.lock().elapsed() >= QUIET;
        let current = self.current();
        if current.snapshot.is_main_only() || self.files.read_only() {
            return Ok(false);
        }
        let frames = current.snapshot.header().max_frame();
        drop(current);
        if frames < CHECKPOINT_FRAMES && !quiet {
            return Ok(false);
        }
        self.blocking(move |this| {
            this.files.checkpoint()?;
            let current = this.step()?;
            if current.snapshot.is_main_only() {
                if quiet {
                    this.save_position()?;
                }
            } else if current.snapshot.header().max_frame() >= INSISTENT_FRAMES {
                drop(current);
                let done = this.files.with_writers_waiting(|| {
                    this.step()?;
                    this.files.checkpoint()?;
                    this.step()
                })?;
                done.transpose()?;
            }
            Ok(!this.current().snapshot.is_main_only())
        })
        .await
    }

    /// Waits until at most so many bytes of commits are in the WAL and not in the main file; so long at most. Where that was in vain,
    /// because of somebody whom this server cannot end, it waits again when there are twice as many.
    pub async fn wait_for_room(self: &Arc<Self>, most: u64, patience: Duration) {
        let bytes = self.files.wal_bytes();
        if (1..self.no_room_at.load(SeqCst)).contains(&bytes) {
            // It was emptied since.
            self.no_room_at.store(0, SeqCst);
        }
        if bytes <= most.max(self.no_room_at.load(SeqCst).saturating_mul(2)) {
            return;
        }
        let until = Instant::now() + patience;
        while self.files.wal_bytes() > most {
            // One of those who wait does it.
            if let Ok(_turn) = self.making_room.try_lock() {
                let emptied = self.blocking(|this| {
                    this.renew()?;
                    if !this.files.read_only() {
                        this.files.checkpoint()?;
                    }
                    this.step()
                });
                // A step may be under way that takes longer.
                let left = until.saturating_duration_since(Instant::now());
                if let Ok(Err(error)) = tokio::time::timeout(left, emptied).await {
                    tracing::debug!(%error, "the WAL is not emptied");
                }
            }
            if self.check_open().is_err() {
                return;
            }
            if Instant::now() >= until {
                let bytes = self.files.wal_bytes().max(bytes);
                self.no_room_at.fetch_max(bytes, SeqCst);
                tracing::warn!(
                    bytes,
                    "the WAL was not emptied in time: somebody, probably another program, still reads what was before it"
                );
                return;
            }
            tokio::time::sleep(LOOK_FOR_ROOM).await;
        }
    }

    /// How far the comparison of the pages with the history is; `None` = they have all been compared. What is read from the
    /// history after this knows at least as much.
    pub fn comparing(&self) -> Option<Comparison> {
        *self.comparing.lock()
    }

    /// Compares a few more pages with the history, after which it is called again if this says `true`. Whoever needs them
    /// compared may call it too.
    pub async fn compare(self: &Arc<Self>) -> Result<bool, ServerError> {
        if self.comparing().is_none() {
            return Ok(false);
        }
        let _turn = self.comparer.lock().await;
        self.blocking(Self::compare_step).await
    }

    /// Sees the last commits and stores where the database stands, so that the next start need not compare pages.
    pub async fn stop(self: &Arc<Self>) -> Result<(), ServerError> {
        self.blocking(|this| {
            this.files.check_in_place()?;
            this.step()?;
            if !this.files.read_only() {
                this.files.checkpoint()?;
                this.step()?;
            }
            this.save_position()
        })
        .await
    }

    /// The current state, if the database is still in it.
    fn unmoved(&self) -> Result<Option<Arc<Current>>, ServerError> {
        let current = self.current();
        let still = self.files.header()? == Some(current.snapshot.header());
        Ok(still.then_some(current))
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, ServerError> + Send + 'static,
    ) -> Result<T, ServerError> {
        let turn = Arc::clone(&self.stepping).lock_owned().await;
        self.blocking_in(turn, work).await
    }

    async fn blocking_in<T: Send + 'static>(
        self: &Arc<Self>,
        turn: tokio::sync::OwnedMutexGuard<()>,
        work: impl FnOnce(&Self) -> Result<T, ServerError> + Send + 'static,
    ) -> Result<T, ServerError> {
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            // Moved in here: the turn ends with the work, even if nobody waits for it any more.
            let _turn = turn;
            this.check_open()?;
            let done = work(&this);
            *this.failing.lock() = done.as_ref().err().map(|error| match error {
                ServerError::History(error) if error.is_unwritable() => "its page history cannot be written",
                ServerError::History(_) => "its page history cannot be used",
                _ if this.log.as_ref().is_some_and(|log| log.is_fenced()) => {
                    "another server has taken it over"
                }
                error if error.is_of_log() => "its commits do not get into the bucket",
                _ => "it cannot be read",
            });
            // Somebody else has given out the next revisions: what there is now has to be taken up from the start.
            if let Err(ServerError::History(HistoryError::Conflict { .. })) = &done {
                this.set_ended();
            }
            done
        });
        done.await.map_err(|_| ServerError::Stopping)?
    }

    /// One step, by anyone who has the turn.
    fn step(&self) -> Result<Arc<Current>, ServerError> {
        let number = self.begun.fetch_add(1, SeqCst) + 1;
        let current = self.step_from(self.current())?;
        self.done.store(number, SeqCst);
        Ok(current)
    }

    /// Takes the last snapshot again. Where many read, SQLite has one share the mark of an older one in the WAL, and what comes after
    /// that mark stays there for as long as anybody shares it.
    fn renew(&self) -> Result<(), ServerError> {
        let before = self.step()?;
        let next = Snapshot::take(&self.files, Some(&before.snapshot))?;
        if next.header() == before.snapshot.header() {
            let again = Arc::new(Current::new(before.generation, before.seq, Arc::new(next)));
            // It is the same revision: nobody has waited for it.
            *self.current.write() = again;
        }
        Ok(())
    }

    fn step_from(&self, before: Arc<Current>) -> Result<Arc<Current>, ServerError> {
        let before = self.ship(before)?;
        let next = Arc::new(Snapshot::take(&self.files, Some(&before.snapshot))?);
        let moved = next.header() != before.snapshot.header();
        if !moved && next.is_main_only() == before.snapshot.is_main_only() {
            return Ok(before);
        }
        let mut seq = before.seq;
        if moved {
            // What a revision shows is never lost to a power cut. Those who commit over SQL wait for this instead of the disk, many
            // of them for the same one.
            self.files.sync().map_err(|e| self.files.io("synced", e))?;
            let mut changes = changes_between(&before.snapshot, &next);
            let now = unix_ms(&self.clock);
            if let Some(new) = self
                .history
                .record(before.record(), next.db_size(), now, &mut changes)?
            {
                seq = new.seq;
                *self.last_commit.lock() = Instant::now();
            }
        }
        let current = Arc::new(Current::new(before.generation, seq, next));
        if self.log.is_some() && seq != before.seq {
            *self.unshipped.lock() = Some(current);
            return self.ship(before);
        }
        Ok(self.publish(current))
    }

    fn publish(&self, current: Arc<Current>) -> Arc<Current> {
        if current.snapshot.is_main_only() {
            self.files.all_is_in_main(current.record());
        }
        *self.current.write() = Arc::clone(&current);
        self.published.send_replace(current.latest().clone());
        current
    }

    /// Publishes what the history has after `before`, the latest state that is published, once the log has it too.
    fn ship(&self, before: Arc<Current>) -> Result<Arc<Current>, ServerError> {
        let Some(log) = &self.log else {
            return Ok(before);
        };
        let unshipped = self.unshipped.lock().clone();
        let Some(next) = unshipped else {
            return Ok(before);
        };
        {
            let snapshot = &next.snapshot;
            let mut pages = changed_pages(&before.snapshot, snapshot).filter_map(|page| match page {
                Ok((_, _, None)) => None,
                Ok((page, _, Some(new))) => Some(Ok((page, new))),
                Err(error) => Some(Err(error)),
            });
            log.ship(next.seq, snapshot.db_size(), unix_ms(&self.clock), &mut pages)?;
        }
        *self.unshipped.lock() = None;
        Ok(self.publish(next))
    }

    /// Compares a few pages; by anyone who has the turn.
    fn compare_step(&self) -> Result<bool, ServerError> {
        let Some(at) = self.comparing() else {
            return Ok(false);
        };
        let current = self.current();
        let left = compare_some(&*self.history, &current.snapshot, current.record(), at)?;
        *self.comparing.lock() = left;
        if left.is_none() {
            tracing::debug!(path = %self.files.path().display(), "every page was compared with the page history");
        }
        Ok(left.is_some())
    }

    fn save_position(&self) -> Result<(), ServerError> {
        let current = self.current();
        if !current.snapshot.is_main_only() {
            return Ok(());
        }
        // The snapshot keeps the main file as it is while its time stamp grows old enough to be trusted.
        let stamp = self.files.stamp()?;
        let changed = Duration::from_nanos(u64::try_from(stamp.changed).unwrap_or(0));
        let age = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        std::thread::sleep(TIMESTAMP_GRAIN.saturating_sub(age.saturating_sub(changed)));
        Ok(self.history.set_position(current.seq, &position_of(stamp))?)
    }
}

/// Two equal positions of snapshots that read the main file only mean equal contents.
fn position_of(stamp: FileStamp) -> Position {
    format!("{stamp:?}").into_bytes()
}

fn unix_ms(clock: &Clock) -> i64 {
    let since = clock
        .now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Whether the file is certainly as the latest revision has it.
fn stands_still(
    files: &SourceFiles,
    history: &dyn History,
    snapshot: &Snapshot,
) -> Result<bool, ServerError> {
    let latest = history.latest()?;
    Ok(match history.position()? {
        Some((seq, position)) => {
            seq == latest.seq
                && snapshot.is_main_only()
                && position == position_of(files.stamp()?)
                && latest.db_size == snapshot.db_size()
        }
        None => false,
    })
}

/// What changed from one snapshot to the next, both held; pages that were written with what they had are left out.
fn changes_between<'a>(
    before: &'a Snapshot,
    next: &'a Snapshot,
) -> impl Iterator<Item = Result<Change, HistoryError>> + 'a {
    changed_pages(before, next).map(|changed| {
        let (page, old, new) = changed?;
        Ok(Change {
            page,
            before: old.map_or(Before::Absent, Before::Page),
            after: new.map(|new| page_hash(&new)),
        })
    })
}

/// The same as pages: what they were, if that is here, and what they are.
fn changed_pages<'a>(
    before: &'a Snapshot,
    next: &'a Snapshot,
) -> impl Iterator<Item = Result<(PageNo, Option<Bytes>, Option<Bytes>), ServerError>> + 'a {
    let pages = next.pages_changed_after(before);
    pages.into_iter().filter_map(PageNo::new).filter_map(move |page| {
        let old = match before.db_size().contains(page) {
            true => before.read_here(page),
            false => Ok(None),
        };
        let new = match next.db_size().contains(page) {
            true => next.read(page).map(Some),
            false => Ok(None),
        };
        match (old, new) {
            (Ok(old), Ok(new)) => (old != new).then_some(Ok((page, old, new))),
            (Err(e), _) | (_, Err(e)) => Some(Err(e)),
        }
    })
}
