//! The page history of a file that nobody watched for a while, against a model that keeps every state whole: few contents, so
//! that pages come to be again what they were.

use bytes::Bytes;
use partial_sync_core::{PageCount, PageNo, PageSize};
use partial_sync_server::{
    HistoryError, Retention,
    history::{Before, Change, History, Kept, RevisionRecord, Seq, SqliteHistory, page_hash},
};
use proptest::prelude::*;

const SIZE: usize = 512;
const MOST: usize = 9;

/// The content of each page.
type Pages = Vec<u8>;

#[derive(Clone, Debug)]
struct Edit {
    pages: Vec<(u8, u8)>,
    size: u8,
}

#[derive(Clone, Debug)]
enum Op {
    /// Somebody commits while the server looks.
    Commit(Edit),
    /// So many pages are compared.
    Compare(u8),
    /// The server ends, somebody commits, and it starts again.
    Unseen(Edit),
    /// It starts again where it stood.
    Again,
    /// Pre-images of so many bytes are kept.
    Prune(u8),
}

fn edits() -> impl Strategy<Value = Edit> {
    (
        prop::collection::vec((0..MOST as u8, 0..3u8), 0..4),
        1..=MOST as u8,
    )
        .prop_map(|(pages, size)| Edit { pages, size })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => edits().prop_map(Op::Commit),
        4 => (1..5u8).prop_map(Op::Compare),
        2 => edits().prop_map(Op::Unseen),
        1 => Just(Op::Again),
        1 => (0..200u8).prop_map(Op::Prune),
    ];
    prop::collection::vec(op, 1..40)
}

fn no(index: usize) -> PageNo {
    PageNo::new(index as u32 + 1).unwrap()
}

fn bytes(content: u8) -> Bytes {
    Bytes::from(vec![content; SIZE])
}

fn hash(content: u8) -> u64 {
    page_hash(&bytes(content))
}

fn edited(pages: &Pages, edit: &Edit) -> Pages {
    let mut pages = pages.clone();
    pages.resize(edit.size.into(), 0);
    for (index, content) in &edit.pages {
        if let Some(page) = pages.get_mut(usize::from(*index)) {
            *page = *content;
        }
    }
    pages
}

/// A revision that was given out.
struct State {
    seq: Seq,
    pages: Pages,
    unseen: bool,
    /// It is in a gap.
    gone: bool,
}

struct World {
    history: SqliteHistory,
    states: Vec<State>,
    /// Everything was compared before the server ended, each time.
    finished: bool,
    pruned: bool,
}

impl World {
    fn latest(&self) -> RevisionRecord {
        let state = self.states.last().unwrap();
        RevisionRecord {
            seq: state.seq,
            db_size: PageCount(state.pages.len() as u32),
        }
    }

    /// The page at a state as a reader finds it.
    fn look(&self, at: &State, kept: Kept, index: usize) -> Option<u8> {
        let now = self.states.last().unwrap().pages.get(index).copied();
        match kept {
            Kept::Page(page) => Some(page[0]),
            Kept::Unchanged => Some(now.unwrap_or_else(|| panic!("page {index} of {} is not there", at.seq))),
            Kept::UnchangedIf(known) => now.filter(|now| hash(*now) == known),
            Kept::Lost => None,
        }
    }

    /// What the state of a page at `at` has to be: `None` = lost.
    fn expected(&self, at: usize, index: usize) -> Option<u8> {
        let page = |n: usize| self.states[n].pages.get(index);
        let changed = (at + 1..self.states.len()).find(|n| page(n - 1) != page(*n));
        match changed {
            Some(n) if self.states[n].unseen => None,
            _ => page(at).copied(),
        }
    }

    fn check(&self) {
        assert_eq!(self.history.latest().unwrap(), self.latest());
        let comparing = self.history.comparison().unwrap();
        let last = self.states.len() - 1;
        let mut kept_revisions = 0;
        for (at, state) in self.states.iter().enumerate() {
            let pages: Vec<_> = (0..state.pages.len()).map(no).collect();
            let kept = match self.history.pages_at(state.seq, &pages) {
                Ok(kept) => kept,
                Err(HistoryError::Expired(_)) => {
                    assert!(
                        state.gone || (self.pruned && at < last),
                        "{} has expired",
                        state.seq
                    );
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            assert!(!state.gone, "{} is in a gap", state.seq);
            kept_revisions += 1;
            let lost = self.history.lost(state.seq).unwrap();
            let found: Vec<_> = kept
                .iter()
                .enumerate()
                .map(|(index, kept)| self.look(state, kept.clone(), index))
                .collect();
            for (index, found) in found.iter().enumerate() {
                let name = format!("page {} at {} of {last}", index + 1, at);
                assert!(
                    found.is_none_or(|found| found == state.pages[index]),
                    "{name}: {kept:?}"
                );
                if self.finished {
                    assert_eq!(*found, self.expected(at, index), "{name}: {:?}", kept[index]);
                }
                // A page without a hash is lost too, before it is compared.
                let told = lost.contains(index as u32 + 1);
                assert!(
                    told == (kept[index] == Kept::Lost) || !told && !self.finished,
                    "{name}"
                );
                if comparing.is_none() {
                    assert!(!matches!(kept[index], Kept::UnchangedIf(_)), "{name}");
                }
            }
            for until in &self.states[at..] {
                if self.history.revision(until.seq).is_err() {
                    continue;
                }
                let mut changed = self.history.changed(state.seq, until.seq).unwrap();
                if comparing.is_some_and(|it| state.seq < it.seq && it.seq <= until.seq) {
                    let first = comparing.unwrap().next.get() as usize - 1;
                    let looked = (first..MOST).filter(|index| found.get(*index).is_none_or(Option::is_none));
                    changed.extend(looked.map(|index| index as u32 + 1));
                }
                for index in 0..until.pages.len() {
                    let differs = state.pages.get(index) != until.pages.get(index);
                    assert!(
                        !differs || changed.contains(index as u32 + 1),
                        "page {} differs between {} and {}",
                        index + 1,
                        state.seq,
                        until.seq
                    );
                }
            }
        }
        assert_eq!(self.history.size().unwrap().revisions, kept_revisions);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Was red while hashes that were made before a comparison were taken for those of revisions that began with it.
    #[test]
    fn v20_a_revision_is_never_wrong_whatever_is_compared_when_and_however_often_it_starts(ops in ops()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let history = SqliteHistory::open(&path).unwrap();
        let first = vec![0, 1, 2, 0];
        history.begin(PageSize::new(SIZE as u32).unwrap(), PageCount(4), 0).unwrap();
        let states = vec![State { seq: Seq::FIRST, pages: first, unseen: false, gone: false }];
        let mut world = World { history, states, finished: true, pruned: false };
        for op in ops {
            let latest = world.latest();
            let old = world.states.last().unwrap().pages.clone();
            match op {
                Op::Commit(edit) => {
                    let pages = edited(&old, &edit);
                    let changes = (0..MOST).filter(|index| old.get(*index) != pages.get(*index)).map(|index| {
                        Ok(Change {
                            page: no(index),
                            before: old.get(index).map_or(Before::Absent, |content| Before::Page(bytes(*content))),
                            after: pages.get(index).map(|content| hash(*content)),
                        })
                    });
                    let size = PageCount(pages.len() as u32);
                    let new = world.history.record(latest, size, 0, &mut changes.collect::<Vec<_>>().into_iter());
                    if let Some(new) = new.unwrap() {
                        world.states.push(State { seq: new.seq, pages, unseen: false, gone: false });
                    }
                }
                Op::Compare(pages) => {
                    if let Some(at) = world.history.comparison().unwrap() {
                        let first = at.next.get() as usize - 1;
                        let hashes = (first..first + usize::from(pages)).map(|index| old.get(index).map(|it| hash(*it)));
                        let left = world.history.compare(latest, at, &hashes.collect::<Vec<_>>()).unwrap();
                        prop_assert_eq!(left, world.history.comparison().unwrap());
                    }
                }
                Op::Unseen(edit) => {
                    let unfinished = world.history.comparison().unwrap();
                    world.history = SqliteHistory::open(&path).unwrap();
                    world.history.leap();
                    let pages = edited(&old, &edit);
                    if let Some(unfinished) = unfinished {
                        world.finished = false;
                        let since = |state: &&mut State| unfinished.seq != Seq::FIRST && state.seq >= unfinished.seq;
                        world.states.iter_mut().filter(since).for_each(|state| state.gone = true);
                    }
                    let size = PageCount(pages.len() as u32);
                    let new = world.history.resume(latest, None, size, 0).unwrap();
                    world.states.push(State { seq: new.seq, pages, unseen: true, gone: false });
                }
                Op::Again => {
                    world.history = SqliteHistory::open(&path).unwrap();
                    world.history.leap();
                }
                Op::Prune(bytes) => {
                    let retention = Retention { bytes: bytes.into(), ..Retention::default() };
                    while world.history.prune(&retention, 0).unwrap().more {}
                    world.pruned = true;
                }
            }
            world.check();
        }
    }
}
