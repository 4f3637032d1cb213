//! The page history against a model that keeps every state whole.

use std::time::Duration;

use bytes::Bytes;
use partial_sync_core::{PageCount, PageNo, PageSize};
use partial_sync_server::{
    HistoryError, Retention,
    history::{Before, Change, History, Kept, RevisionRecord, Seq, SqliteHistory, page_hash},
};
use proptest::prelude::*;

/// A state, and the bytes that it made the history keep.
#[derive(Clone, Debug)]
struct State {
    pages: Vec<Bytes>,
    bytes: u64,
}

#[derive(Clone, Debug)]
enum Op {
    /// Page indexes that get a new content, and the new size.
    Commit(Vec<u8>, u8),
    /// Prune to so many per cent of what is stored.
    PruneBytes(u8),
    /// Prune what was replaced more than so many commits ago.
    PruneAge(u8),
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (prop::collection::vec(0..12u8, 0..5), 1..12u8).prop_map(|(pages, size)| Op::Commit(pages, size)),
        1 => (0..120u8).prop_map(Op::PruneBytes),
        1 => (0..12u8).prop_map(Op::PruneAge),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..40)
}

const SIZE: usize = 512;

fn no(index: usize) -> PageNo {
    PageNo::new(index as u32 + 1).unwrap()
}

fn content(random: &mut fastrand::Rng) -> Bytes {
    match random.bool() {
        true => Bytes::from((0..SIZE).map(|_| random.u8(..)).collect::<Vec<_>>()),
        false => Bytes::from(vec![random.u8(..); SIZE]),
    }
}

fn check(history: &dyn History, states: &[State], oldest_kept: usize) {
    let latest = states.len() - 1;
    let size = |at: usize| PageCount(states[at].pages.len() as u32);
    let seq = |at: usize| Seq(at as u64 + 1);
    assert_eq!(
        history.latest().unwrap(),
        RevisionRecord {
            seq: seq(latest),
            db_size: size(latest)
        }
    );
    assert!(matches!(
        history.revision(seq(latest + 1)),
        Err(HistoryError::Unknown(_))
    ));
    for at in 0..oldest_kept {
        assert!(
            matches!(history.revision(seq(at)), Err(HistoryError::Expired(_))),
            "{at}"
        );
        assert!(matches!(
            history.pages_at(seq(at), &[]),
            Err(HistoryError::Expired(_))
        ));
        assert!(matches!(
            history.changed(seq(at), seq(latest)),
            Err(HistoryError::Expired(_))
        ));
    }
    for at in oldest_kept..=latest {
        assert_eq!(history.revision(seq(at)).unwrap().db_size, size(at));
        assert!(history.lost(seq(at)).unwrap().is_empty());
        let pages: Vec<PageNo> = (0..states[at].pages.len()).map(no).collect();
        let kept = history.pages_at(seq(at), &pages).unwrap();
        for (index, kept) in kept.into_iter().enumerate() {
            let found = match kept {
                Kept::Page(page) => page,
                Kept::Unchanged => states[latest].pages[index].clone(),
                kept => panic!("{kept:?}"),
            };
            assert_eq!(found, states[at].pages[index], "page {} at {at}", index + 1);
        }
        // All of it was asked for now.
        if history.revision_at_once(seq(at)).is_some() {
            assert!(history.pages_at_once(seq(at), &pages).is_some(), "at {at}");
        }
        for later in at..=latest {
            let differ = |index: &usize| {
                (at..later).any(|n| states[n].pages.get(*index) != states[n + 1].pages.get(*index))
            };
            let wanted: Vec<u32> = (0..12).filter(differ).map(|index| index as u32 + 1).collect();
            let changed: Vec<u32> = history
                .changed(seq(at), seq(later))
                .unwrap()
                .into_iter()
                .collect();
            assert_eq!(changed, wanted, "between {at} and {later}");
        }
    }
}

/// What is told at once, page by page, is what the model has, and is not told of what was let go of.
fn check_at_once(history: &dyn History, states: &[State], oldest_kept: usize) {
    let latest = states.last().unwrap();
    for (at, state) in states.iter().enumerate() {
        let seq = Seq(at as u64 + 1);
        let Some(record) = history.revision_at_once(seq) else {
            assert_eq!(history.pages_at_once(seq, &[]), None);
            continue;
        };
        assert!(at >= oldest_kept, "{at} of {oldest_kept}");
        let db_size = PageCount(state.pages.len() as u32);
        assert_eq!(record, RevisionRecord { seq, db_size });
        for (index, page) in state.pages.iter().enumerate() {
            match history.pages_at_once(seq, &[no(index)]).as_deref() {
                None => {}
                Some([Kept::Page(kept)]) => assert_eq!(kept, page, "page {} at {at}", index + 1),
                Some([Kept::Unchanged]) => {
                    assert_eq!(&latest.pages[index], page, "page {} at {at}", index + 1);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_page_at_a_revision_is_what_it_was_whatever_was_committed_pruned_and_reopened(ops in ops(), seed: u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut history = SqliteHistory::open(&path).unwrap();
        let first = State { pages: (0..3).map(|_| content(&mut random)).collect(), bytes: 0 };
        history.begin(PageSize::new(SIZE as u32).unwrap(), PageCount(3), 0).unwrap();
        let hashes: Vec<_> = first.pages.iter().map(|page| Some(page_hash(page))).collect();
        let begun = history.comparison().unwrap().unwrap();
        prop_assert_eq!(history.compare(history.latest().unwrap(), begun, &hashes).unwrap(), None);
        let mut states = vec![first];
        let mut oldest_kept = 0;
        for op in ops {
            match op {
                Op::Commit(touched, size) => {
                    let old = states.last().unwrap().clone();
                    let mut pages = old.pages.clone();
                    pages.truncate(size.into());
                    while pages.len() < size.into() {
                        pages.push(content(&mut random));
                    }
                    for index in touched {
                        if let Some(page) = pages.get_mut(usize::from(index)) {
                            *page = content(&mut random);
                        }
                    }
                    let changes: Vec<Change> = (0..12)
                        .filter(|index| old.pages.get(*index) != pages.get(*index))
                        .map(|index| Change {
                            page: no(index),
                            before: match old.pages.get(index) {
                                None => Before::Absent,
                                Some(page) => Before::Page(page.clone()),
                            },
                            after: pages.get(index).map(|page| page_hash(page)),
                        })
                        .collect();
                    let before = history.size().unwrap().bytes;
                    let after = RevisionRecord {
                        seq: Seq(states.len() as u64),
                        db_size: PageCount(old.pages.len() as u32),
                    };
                    let stale = RevisionRecord { seq: Seq(states.len() as u64 + 1), ..after };
                    let refused = history.record(stale, after.db_size, 0, &mut std::iter::empty());
                    prop_assert!(matches!(refused, Err(HistoryError::Conflict { .. })), "{:?}", refused);
                    let nothing = changes.is_empty();
                    let time = states.len() as i64;
                    let new = history
                        .record(after, PageCount(size.into()), time, &mut changes.into_iter().map(Ok))
                        .unwrap();
                    prop_assert_eq!(new.is_none(), nothing);
                    if !nothing {
                        let bytes = history.size().unwrap().bytes - before;
                        states.push(State { pages, bytes });
                    }
                }
                Op::PruneBytes(percent) => {
                    let total: u64 = states[oldest_kept + 1..].iter().map(|state| state.bytes).sum();
                    let bytes = total * u64::from(percent) / 100;
                    let retention = Retention { age: Duration::from_secs(1 << 40), bytes };
                    while history.prune(&retention, states.len() as i64).unwrap().more {}
                    while states[oldest_kept + 1..].iter().map(|state| state.bytes).sum::<u64>() > bytes {
                        oldest_kept += 1;
                    }
                    prop_assert!(history.size().unwrap().bytes <= bytes);
                }
                Op::PruneAge(age) => {
                    let now = states.len() as i64;
                    let retention = Retention { age: Duration::from_millis(age.into()), bytes: u64::MAX };
                    while history.prune(&retention, now).unwrap().more {}
                    // State n was committed at time n, and replaced its predecessor then.
                    while oldest_kept + 1 < states.len() && (oldest_kept as i64 + 1) < now - i64::from(age) {
                        oldest_kept += 1;
                    }
                }
                Op::Reopen => history = SqliteHistory::open(&path).unwrap(),
            }
            prop_assert_eq!(history.size().unwrap().revisions, (states.len() - oldest_kept) as u64);
            check_at_once(&history, &states, oldest_kept);
            let asked = random.usize(oldest_kept..states.len());
            let pages: Vec<PageNo> = (0..states[asked].pages.len()).filter(|_| random.bool()).map(no).collect();
            history.pages_at(Seq(asked as u64 + 1), &pages).unwrap();
            check_at_once(&history, &states, oldest_kept);
        }
        check(&history, &states, oldest_kept);
    }
}
