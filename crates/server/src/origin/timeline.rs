//! The states of a database that an origin has told of, and what changed between them.
//!
//! The main ones follow each other as the origin said, each with what changed since the one before. Beside them are those that clients
//! named and nobody here had heard of: all that is known of such a one is that it is older than the latest, and what changed from it to
//! a main one once that was asked. Numbers are this process's, and never used twice. Both have limits: the oldest is forgotten, and is
//! found again, with another number, by asking the origin.

use std::collections::{BTreeMap, HashMap, VecDeque};

use partial_sync_core::{PageCount, Revision};
use roaring::RoaringBitmap;

use crate::history::{RevisionRecord, Seq};

/// The numbers of states beside the main ones begin here.
pub(super) const ASIDE: u64 = 1 << 62;
/// States that are known at a time, and bytes of what changed between them.
const MAIN: usize = 4096;
const BESIDE: usize = 1024;
const BYTES: usize = 8 << 20;
/// How far it is looked in which other states a page is the same.
const SPAN: u64 = 256;

/// Ids of pages that differ between two states, or may; `None` = any.
pub(super) type Changed = Option<RoaringBitmap>;

#[derive(Debug)]
struct Main {
    revision: Revision,
    size: PageCount,
    /// Since the one before.
    changed: Changed,
}

#[derive(Debug)]
struct Beside {
    revision: Revision,
    size: PageCount,
    /// What changed from it to a main one.
    then: Option<(Seq, Changed)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Timeline {
    /// The number of the oldest main one.
    first: u64,
    main: VecDeque<Main>,
    beside: BTreeMap<Seq, Beside>,
    next_beside: u64,
    by_revision: HashMap<Revision, Seq>,
    bytes: usize,
}

impl Timeline {
    /// One that begins with a state.
    pub(super) fn new(revision: Revision, size: PageCount) -> Self {
        Self {
            bytes: weight(&revision, &None),
            first: Seq::FIRST.0,
            by_revision: HashMap::from([(revision.clone(), Seq::FIRST)]),
            main: VecDeque::from([Main {
                revision,
                size,
                changed: None,
            }]),
            beside: BTreeMap::new(),
            next_beside: ASIDE,
        }
    }

    /// The latest state.
    pub(super) fn latest(&self) -> (RevisionRecord, &Revision) {
        let last = self.main.back().expect("the latest one is never forgotten");
        let at = RevisionRecord {
            seq: Seq(self.first + self.main.len() as u64 - 1),
            db_size: last.size,
        };
        (at, &last.revision)
    }

    /// The state of a revision, if it is known.
    pub(super) fn find(&self, revision: &Revision) -> Option<RevisionRecord> {
        let seq = *self.by_revision.get(revision)?;
        let (_, db_size) = self.state(seq)?;
        Some(RevisionRecord { seq, db_size })
    }

    /// The revision of a state, if it is not forgotten.
    pub(super) fn revision(&self, seq: Seq) -> Option<&Revision> {
        self.state(seq).map(|(revision, _)| revision)
    }

    fn state(&self, seq: Seq) -> Option<(&Revision, PageCount)> {
        match seq.0 < ASIDE {
            true => self.at(seq.0).map(|main| (&main.revision, main.size)),
            false => self
                .beside
                .get(&seq)
                .map(|beside| (&beside.revision, beside.size)),
        }
    }

    fn at(&self, seq: u64) -> Option<&Main> {
        self.main.get(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }

    /// A state that follows the latest one.
    pub(super) fn append(&mut self, revision: Revision, size: PageCount, changed: Changed) -> RevisionRecord {
        let (latest, _) = self.latest();
        let changed = between(latest.db_size, size, changed);
        self.bytes += weight(&revision, &changed);
        let at = RevisionRecord {
            seq: latest.seq.next(),
            db_size: size,
        };
        self.by_revision.insert(revision.clone(), at.seq);
        self.main.push_back(Main {
            revision,
            size,
            changed,
        });
        self.forget();
        at
    }

    /// A state that was not known and is older than the latest.
    pub(super) fn put_beside(&mut self, revision: Revision, size: PageCount) -> RevisionRecord {
        let seq = Seq(self.next_beside);
        self.next_beside += 1;
        self.by_revision.insert(revision.clone(), seq);
        self.bytes += weight(&revision, &None);
        let then = None;
        self.beside.insert(seq, Beside { revision, size, then });
        self.forget();
        RevisionRecord { seq, db_size: size }
    }

    /// What changed from a state beside the main ones to one of these.
    pub(super) fn join(&mut self, beside: Seq, main: RevisionRecord, changed: Changed) {
        if self.at(main.seq.0).is_none() {
            return;
        }
        if let Some(state) = self.beside.get_mut(&beside)
            && state.then.is_none()
        {
            let changed = between(state.size, main.db_size, changed);
            self.bytes += changed.as_ref().map_or(0, RoaringBitmap::serialized_size);
            state.then = Some((main.seq, changed));
        }
        self.forget();
    }

    /// What differs between two states, whichever is older; `None` = that is not known here.
    pub(super) fn changed(&self, one: Seq, other: Seq) -> Option<Changed> {
        if one == other {
            return Some(Some(RoaringBitmap::new()));
        }
        let (mut all, mut ends) = (RoaringBitmap::new(), [one.0, other.0]);
        for end in &mut ends {
            if *end < ASIDE {
                self.at(*end)?;
                continue;
            }
            let (main, changed) = self.beside.get(&Seq(*end))?.then.as_ref()?;
            let Some(changed) = changed else {
                return Some(None);
            };
            all |= changed;
            *end = main.0;
        }
        let [one, other] = ends;
        for seq in one.min(other) + 1..=one.max(other) {
            let Some(changed) = &self.at(seq)?.changed else {
                return Some(None);
            };
            all |= changed;
        }
        Some(Some(all))
    }

    /// A state in which a page is the same, a main one if that is known.
    pub(super) fn home(&self, seq: Seq, page: u32) -> Seq {
        let beside = self.beside.get(&seq).and_then(|beside| beside.then.as_ref());
        match beside {
            Some((main, Some(changed))) if !changed.contains(page) => *main,
            _ => seq,
        }
    }

    /// The first and the last of the states around one in which a page is the same, as far as that was looked for; and whether the last
    /// is the latest one.
    pub(super) fn span(&self, seq: Seq, page: u32) -> (Seq, Seq, bool) {
        let differs = |seq: u64| {
            let changed = self.at(seq).map(|main| &main.changed);
            !matches!(changed, Some(Some(changed)) if !changed.contains(page))
        };
        let (latest, _) = self.latest();
        if self.at(seq.0).is_none() {
            return (seq, seq, false);
        }
        let (mut from, mut to) = (seq.0, seq.0);
        while from > self.first && seq.0 - from < SPAN && !differs(from) {
            from -= 1;
        }
        while to < latest.seq.0 && to - seq.0 < SPAN && !differs(to + 1) {
            to += 1;
        }
        (Seq(from), Seq(to), to == latest.seq.0)
    }

    fn forget(&mut self) {
        let first = self.first;
        while self.main.len() > 1
            && (self.main.len() > MAIN || self.bytes > BYTES)
            && let Some(oldest) = self.main.pop_front()
        {
            self.bytes -= weight(&oldest.revision, &oldest.changed);
            self.unname(&oldest.revision, Seq(self.first));
            self.first += 1;
        }
        if self.first > first {
            let is_lost = |state: &Beside| matches!(&state.then, Some((main, _)) if main.0 < self.first);
            let lost = self.beside.iter().filter(|(_, state)| is_lost(state));
            let lost: Vec<Seq> = lost.map(|(seq, _)| *seq).collect();
            lost.into_iter().for_each(|seq| self.drop_beside(seq));
        }
        while self.beside.len() > BESIDE
            && let Some((oldest, _)) = self.beside.first_key_value()
        {
            self.drop_beside(*oldest);
        }
    }

    fn drop_beside(&mut self, seq: Seq) {
        if let Some(state) = self.beside.remove(&seq) {
            let changed = state.then.and_then(|(_, changed)| changed);
            self.bytes -= weight(&state.revision, &changed);
            self.unname(&state.revision, seq);
        }
    }

    fn unname(&mut self, revision: &Revision, seq: Seq) {
        if self.by_revision.get(revision) == Some(&seq) {
            self.by_revision.remove(revision);
        }
    }
}

/// What changed between states of two sizes: also the pages that only one of them has, whatever was said.
fn between(one: PageCount, other: PageCount, changed: Changed) -> Changed {
    let mut changed = changed?;
    changed.insert_range(one.0.min(other.0)..one.0.max(other.0));
    changed.optimize();
    Some(changed)
}

fn weight(revision: &Revision, changed: &Changed) -> usize {
    const AROUND: usize = 256;
    AROUND + revision.as_str().len() + changed.as_ref().map_or(0, RoaringBitmap::serialized_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: impl std::fmt::Display) -> Revision {
        Revision::new(name.to_string()).unwrap()
    }

    fn ids(ids: impl IntoIterator<Item = u32>) -> Changed {
        Some(ids.into_iter().collect())
    }

    /// A history of which everything is known, and a timeline that was told of it: what it says covers what differs, and a page is the same
    /// wherever it says so.
    #[test]
    fn of_a_random_history_all_that_differs_is_said_and_a_page_is_the_same_where_it_is_said_to_be() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            // Contents of pages by number of the state, and of which the timeline knows.
            let mut truth: Vec<Vec<u32>> = vec![vec![0; random.usize(1..12)]];
            let mut timeline = Timeline::new(revision(0), PageCount(truth[0].len() as u32));
            let mut known = HashMap::from([(Seq::FIRST, 0)]);
            let mut told = 0;
            for n in 1..random.usize(2..40) {
                let mut pages = truth[n - 1].clone();
                for _ in 0..random.usize(0..4) {
                    let page = random.usize(..pages.len());
                    pages[page] = random.u32(..3) * 1000 + n as u32 * random.u32(0..2);
                }
                pages.resize(random.usize(1..12), 7);
                truth.push(pages);
                let size = |n: usize| PageCount(truth[n].len() as u32);
                let differ = |one: usize, other: usize| {
                    let listed = (0..truth[other].len())
                        .filter(|page| truth[one].get(*page) != truth[other].get(*page));
                    ids(listed.map(|page| page as u32))
                };
                match random.u8(..6) {
                    0 | 1 => {
                        let changed = differ(told, n).filter(|_| random.u8(..8) > 0);
                        known.insert(timeline.append(revision(n), size(n), changed).seq, n);
                        told = n;
                    }
                    2 => {
                        let old = random.usize(..=told);
                        if timeline.find(&revision(old)).is_none() {
                            let beside = timeline.put_beside(revision(old), size(old));
                            known.insert(beside.seq, old);
                            if random.bool() {
                                let (latest, _) = timeline.latest();
                                timeline.join(beside.seq, latest, differ(old, told));
                            }
                        }
                    }
                    _ => {}
                }
            }
            for (&one, &a) in &known {
                for (&other, &b) in &known {
                    let Some(Some(changed)) = timeline.changed(one, other) else {
                        continue;
                    };
                    for page in 0..12 {
                        let is_same = truth[a].get(page) == truth[b].get(page);
                        assert!(is_same || changed.contains(page as u32), "{a} {b} {page}");
                    }
                }
                for page in 0..truth[a].len() as u32 {
                    let home = timeline.home(one, page);
                    let (from, to, _) = timeline.span(home, page);
                    for same in from.0..=to.0 {
                        let b = known[&Seq(same)];
                        assert_eq!(
                            truth[b].get(page as usize),
                            truth[a].get(page as usize),
                            "{a} {b} {page}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn however_many_states_there_are_the_oldest_are_forgotten_and_the_latest_never() {
        let mut timeline = Timeline::new(revision(0), PageCount(10));
        let early = timeline.put_beside(revision("early"), PageCount(10));
        let (first, _) = timeline.latest();
        timeline.join(early.seq, first, ids([1]));
        assert_eq!(timeline.changed(early.seq, first.seq), Some(ids([1])));
        for n in 1..3 * MAIN {
            timeline.append(revision(n), PageCount(10), ids([n as u32 % 10]));
            timeline.put_beside(revision(format_args!("beside {n}")), PageCount(1));
        }
        assert_eq!((timeline.main.len(), timeline.beside.len()), (MAIN, BESIDE));
        assert_eq!(timeline.by_revision.len(), MAIN + BESIDE);
        let gone = [revision(0), revision("early"), revision("beside 1")];
        assert!(gone.iter().all(|gone| timeline.find(gone).is_none()));
        assert_eq!(timeline.changed(early.seq, timeline.latest().0.seq), None);
        let many: RoaringBitmap = (0..u32::MAX).step_by(100_000).collect();
        for n in 0..120 {
            timeline.append(
                revision(format_args!("large {n}")),
                PageCount(u32::MAX),
                Some(many.clone()),
            );
        }
        assert!(
            timeline.bytes <= BYTES && !timeline.main.is_empty(),
            "{}",
            timeline.bytes
        );
        let main = timeline
            .main
            .iter()
            .map(|main| weight(&main.revision, &main.changed));
        let beside = timeline
            .beside
            .values()
            .map(|state| weight(&state.revision, &None));
        assert_eq!(timeline.bytes, main.sum::<usize>() + beside.sum::<usize>());
    }
}
