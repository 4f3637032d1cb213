//! A replica under a scheduler that tries interleavings (`shuttle`): single flight, fetches beside checkpoints. Every lock,
//! every operation on the page map and the middle of every read and write of the file is a point where another thread may
//! continue. No thread may wait for ever, which the scheduler notices; every reader gets the page of its own revision, whole.
//! `SCHEDULES` says how many schedules each test tries.

use std::{
    any::Any,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use partial_sync_core::{Epoch, PageCount, PageMap, PageNo, PageSize, Revision, SegmentSize};
use shuttle::thread;

use super::{Absent, NextBase, Replica, ReplicaConfig, Stay};
use crate::{
    error::ReadError,
    locks::{FIRST_READ_SLOT, HeldSlots},
    memory::MemoryStorage,
    source::{Base, Miss, PageSink, PageSource},
    storage::{Storage, StorageFile},
};

const SIZE: usize = 512;

fn explore(body: impl Fn() + Send + Sync + Clone + 'static) {
    let schedules = std::env::var("SCHEDULES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1000_usize);
    shuttle::check_random(body.clone(), schedules.div_ceil(2));
    shuttle::check_pct(body, schedules.div_ceil(2), 3);
}

fn page(n: u32) -> PageNo {
    PageNo::new(n).expect("not 0")
}

fn base(revision: u8) -> Base {
    Base {
        revision: Revision::new(format!("{revision}")).expect("not empty"),
        size: PageCount(4),
    }
}

/// A page of a revision; page 1 would be patched, so tests leave it alone.
fn content(revision: &str, page: PageNo) -> Vec<u8> {
    let revision: u8 = revision.parse().expect("a number");
    vec![revision * 16 + page.get() as u8; SIZE]
}

/// Files whose reads and writes another thread can get into.
struct Halves(MemoryStorage);

struct HalfFile(Arc<dyn StorageFile>);

impl StorageFile for HalfFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let half = buf.len() / 2;
        let read = self.0.read_at(&mut buf[..half], offset)?;
        thread::yield_now();
        Ok(read + self.0.read_at(&mut buf[half..], offset + half as u64)?)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let half = data.len() / 2;
        self.0.write_at(&data[..half], offset)?;
        thread::yield_now();
        self.0.write_at(&data[half..], offset + half as u64)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

impl Storage for Halves {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(HalfFile(self.0.open(path, create)?)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.0.sync_folder(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.0.lock(path)
    }
}

/// How a fetch goes.
#[derive(Clone, Copy, PartialEq)]
enum Fetch {
    Sends,
    /// The first one fails before it has sent a page.
    FailsOnce,
    /// Every one sends its first page and is then dropped.
    Breaks,
}

/// Answers on a thread of its own, and counts how often each page was asked for.
struct Remote {
    how: Fetch,
    fetches: AtomicUsize,
    asked: [AtomicUsize; 5],
}

impl PageSource for Remote {
    fn fetch(&self, miss: Miss, sink: Box<dyn PageSink>) {
        let n = self.fetches.fetch_add(1, Ordering::SeqCst);
        for page in &miss.pages {
            self.asked[page.get() as usize].fetch_add(1, Ordering::SeqCst);
        }
        let how = self.how;
        thread::spawn(move || {
            if how == Fetch::FailsOnce && n == 0 {
                return sink.finish(Err(Arc::new(ReadError::Abandoned)));
            }
            for &page in &miss.pages {
                match sink.page(page, &content(miss.base.revision.as_str(), page)) {
                    Err(ReadError::Closed) => return,
                    sent => sent.expect("it has the right size"),
                }
                if how == Fetch::Breaks {
                    return;
                }
            }
            sink.finish(Ok(()));
        });
    }
}

fn replica(how: Fetch) -> (Arc<Replica>, Arc<Remote>) {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    let path = format!("/interleavings/{}.db", NAMES.fetch_add(1, Ordering::SeqCst));
    let source = Arc::new(Remote {
        how,
        fetches: AtomicUsize::new(0),
        asked: Default::default(),
    });
    let config = ReplicaConfig {
        storage: Arc::new(Halves(MemoryStorage::default())),
        path: path.into(),
        page_size: PageSize::new(SIZE as u32).expect("a page size"),
        base: base(1),
        map: PageMap::new(),
        source: source.clone(),
        // Pages 1 and 2 come together, and 3 and 4.
        segment: SegmentSize::new(2 * SIZE as u64).expect("a segment size"),
        prefetch: false,
        wait: Duration::from_secs(3600),
        temporary: false,
    };
    (Replica::register(config).expect("its name is new"), source)
}

/// What a reader of an epoch gets; an error is the remote's.
fn read(replica: &Replica, epoch: Epoch, page: PageNo) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; SIZE];
    let offset = page.offset(replica.page_size());
    replica
        .read(epoch, Absent::Fetch, &mut bytes, offset)
        .map(|read| {
            assert_eq!(read, SIZE);
            bytes
        })
}

fn spawn_reader(replica: &Arc<Replica>, n: u32) -> thread::JoinHandle<Result<Vec<u8>, ReadError>> {
    let replica = replica.clone();
    thread::spawn(move || read(&replica, replica.epoch(), page(n)))
}

#[test]
fn readers_that_miss_the_same_pages_share_one_fetch_and_all_get_them() {
    explore(|| {
        let (replica, remote) = replica(Fetch::Sends);
        let readers = [3, 4, 3].map(|n| (n, spawn_reader(&replica, n)));
        for (n, reader) in readers {
            assert_eq!(reader.join().unwrap().unwrap(), content("1", page(n)));
        }
        for asked in &remote.asked {
            assert!(asked.load(Ordering::SeqCst) <= 1, "a page was asked for twice");
        }
        assert!(replica.settle(Duration::from_secs(3600), || false));
        assert!(replica.flights.lock().is_empty());
    });
}

#[test]
fn a_reader_that_joined_a_fetch_that_failed_fetches_for_itself_and_none_waits_for_ever() {
    explore(|| {
        let (replica, _) = replica(Fetch::FailsOnce);
        let readers = [3, 4].map(|n| (n, spawn_reader(&replica, n)));
        let failed = readers
            .into_iter()
            .map(|(n, reader)| match reader.join().unwrap() {
                Ok(bytes) => {
                    assert_eq!(bytes, content("1", page(n)));
                    0
                }
                Err(ReadError::Source { .. }) => 1,
                Err(other) => panic!("{other}"),
            })
            .sum::<u32>();
        assert_eq!(
            failed, 1,
            "who began the fetch that failed is told, and nobody else"
        );
        assert!(replica.settle(Duration::from_secs(3600), || false));
        assert!(replica.flights.lock().is_empty());
    });
}

#[test]
fn a_fetch_that_is_dropped_half_way_leaves_nobody_waiting() {
    explore(|| {
        let (replica, _) = replica(Fetch::Breaks);
        let readers = [3, 4, 4].map(|n| (n, spawn_reader(&replica, n)));
        for (n, reader) in readers {
            match reader.join().unwrap() {
                Ok(bytes) => assert_eq!(bytes, content("1", page(n))),
                Err(error) => assert!(matches!(error, ReadError::Source { .. }), "{error}"),
            }
        }
        assert!(replica.settle(Duration::from_secs(3600), || false));
        assert!(replica.flights.lock().is_empty());
    });
}

#[test]
fn invariant_6_a_fetch_never_overwrites_what_a_checkpoint_wrote() {
    explore(|| {
        let (replica, _) = replica(Fetch::Sends);
        let local = content("9", page(3));
        let reader = spawn_reader(&replica, 3);
        let neighbour = spawn_reader(&replica, 4);
        replica
            .write_main(&local, page(3).offset(replica.page_size()))
            .expect("memory");
        let got = reader.join().unwrap().unwrap();
        assert!(
            got == local || got == content("1", page(3)),
            "a page of two writes"
        );
        assert_eq!(neighbour.join().unwrap().unwrap(), content("1", page(4)));
        assert!(replica.settle(Duration::from_secs(3600), || false));
        assert_eq!(read(&replica, replica.epoch(), page(3)).unwrap(), local);
        assert_eq!(replica.map().present_count(), PageCount(2));
    });
}

#[test]
fn begun_fetches_and_readers_ask_for_each_page_once() {
    explore(|| {
        let (replica, remote) = replica(Fetch::Sends);
        let hydrating = {
            let (replica, remote) = (replica.clone(), remote.clone());
            thread::spawn(move || {
                let (base, pages, sink) = replica.begin_fetch([2, 3, 4].map(page)).expect("it is open");
                if !pages.is_empty() {
                    let wanted = pages[0];
                    let epoch = replica.epoch();
                    let miss = Miss {
                        wanted,
                        pages,
                        base,
                        epoch,
                        statement: None,
                    };
                    remote.fetch(miss, sink);
                }
            })
        };
        let readers = [3, 4].map(|n| (n, spawn_reader(&replica, n)));
        hydrating.join().unwrap();
        for (n, reader) in readers {
            assert_eq!(reader.join().unwrap().unwrap(), content("1", page(n)));
        }
        assert!(replica.settle(Duration::from_secs(3600), || false));
        for asked in &remote.asked {
            assert!(asked.load(Ordering::SeqCst) <= 1, "a page was asked for twice");
        }
    });
}

#[test]
fn c3_after_close_a_fetch_that_is_late_writes_nothing_and_its_reader_does_not_wait() {
    explore(|| {
        let (replica, _) = replica(Fetch::Sends);
        let reader = spawn_reader(&replica, 3);
        let closing = {
            let replica = replica.clone();
            thread::spawn(move || {
                replica.close();
                // Whatever of the file is there now stays as it is.
                contents(&replica)
            })
        };
        match reader.join().unwrap() {
            Ok(bytes) => assert_eq!(bytes, content("1", page(3))),
            Err(error) => assert!(
                matches!(error, ReadError::Source { .. } | ReadError::Closed),
                "{error}"
            ),
        }
        let closed = closing.join().unwrap();
        assert!(replica.settle(Duration::from_secs(3600), || false));
        assert_eq!(contents(&replica), closed);
    });
}

fn contents(replica: &Replica) -> Vec<u8> {
    let mut bytes = vec![0; 4 * SIZE];
    let read = replica.main.read_at(&mut bytes, 0).expect("memory");
    bytes.truncate(read);
    bytes
}

/// A pull that moves the replica to a revision of which the pages that are here differ, but for `keep` (numbers).
fn pull(replica: &Replica, revision: u8, keep: &[u32], succeeds: bool) {
    let keep = Stay::Only(keep.iter().map(|n| n - 1).collect());
    pull_but(replica, revision, keep, succeeds);
}

/// The same, where this is known of the pages of the two revisions.
fn pull_but(replica: &Replica, revision: u8, stay: Stay, succeeds: bool) {
    let next = NextBase {
        base: base(revision),
        stay,
        committed: Default::default(),
        dirty: Default::default(),
        end: base(revision).size,
    };
    let before = replica.epoch();
    let commit = || {
        thread::yield_now();
        succeeds.then_some(()).ok_or(())
    };
    assert_eq!(replica.move_base(&next, commit).is_ok(), succeeds);
    assert_eq!(replica.epoch() == before, !succeeds);
}

/// A read transaction that reads some pages, each of them twice, and gets those of one revision.
fn spawn_transaction(
    replica: &Arc<Replica>,
    slot: usize,
    pages: &'static [u32],
) -> thread::JoinHandle<String> {
    let replica = replica.clone();
    thread::spawn(move || {
        let mut held = HeldSlots::default();
        let began = replica
            .begin_snapshot(&mut held, FIRST_READ_SLOT + slot)
            .expect("it waits");
        assert!(began, "nobody takes read marks exclusively here");
        let epoch = held.epoch;
        let revision = replica
            .base_of(epoch)
            .expect("the base of a reader stays")
            .revision
            .as_str()
            .to_owned();
        for &n in pages.iter().chain(pages) {
            let got = read(&replica, epoch, page(n)).expect("the remote keeps every revision");
            assert_eq!(
                got,
                content(&revision, page(n)),
                "page {n} at revision {revision}"
            );
        }
        replica.end_snapshot(&mut held, FIRST_READ_SLOT + slot);
        revision
    })
}

/// What must hold when nobody reads any more.
fn check_quiet(replica: &Replica, revision: u8) {
    assert!(replica.settle(Duration::from_secs(3600), || false));
    assert!(replica.flights.lock().is_empty());
    assert!(!replica.map().has_retired(), "retired pages that nobody can read");
    let epoch = replica.epoch();
    assert!(replica.private_pages.lock().keys().all(|(of, _)| *of == epoch));
    assert_eq!(replica.base(), base(revision));
    for n in [3, 4] {
        assert!(!replica.map().is_retired(page(n)));
        let got = read(replica, epoch, page(n)).unwrap();
        assert_eq!(got, content(&revision.to_string(), page(n)));
    }
    assert!(replica.settle(Duration::from_secs(3600), || false));
    assert_eq!(
        u64::from(replica.map().present_count().0),
        replica.map().present().len()
    );
}

#[test]
fn invariant_4_c1_m1_a_transaction_sees_one_revision_while_a_pull_moves_the_base() {
    explore(|| {
        let (replica, _) = replica(Fetch::Sends);
        // Pages 3 and 4 are here, the others are not.
        read(&replica, Epoch(0), page(3)).unwrap();
        let readers = [
            spawn_transaction(&replica, 0, &[3, 2]),
            spawn_transaction(&replica, 1, &[4]),
        ];
        pull(&replica, 2, &[], true);
        for reader in readers {
            let revision = reader.join().unwrap();
            assert!(["1", "2"].contains(&revision.as_str()));
        }
        check_quiet(&replica, 2);
    });
}

#[test]
fn a_fetch_that_a_pull_overtakes_reaches_its_reader_and_nobody_else() {
    explore(|| {
        let (replica, _) = replica(Fetch::Sends);
        let readers = [
            spawn_transaction(&replica, 0, &[3]),
            spawn_transaction(&replica, 1, &[3, 4]),
        ];
        pull(&replica, 2, &[], true);
        let late = spawn_transaction(&replica, 2, &[3]);
        assert_eq!(late.join().unwrap(), "2");
        for reader in readers {
            reader.join().unwrap();
        }
        check_quiet(&replica, 2);
    });
}

/// What changed is known before the pages of some of it come, at the old revision: they are not taken for the new ones.
#[test]
fn invariant_4_pages_that_come_while_a_list_is_pulled_are_not_of_the_new_revision() {
    explore(|| {
        let (replica, _) = replica(Fetch::Sends);
        let readers = [
            spawn_transaction(&replica, 0, &[3]),
            spawn_transaction(&replica, 1, &[3, 4]),
        ];
        let changed = || Stay::AllBut((0..4).collect());
        pull_but(&replica, 2, changed(), true);
        let late = spawn_transaction(&replica, 2, &[4]);
        pull_but(&replica, 3, changed(), true);
        assert!(["2", "3"].contains(&late.join().unwrap().as_str()));
        for reader in readers {
            reader.join().unwrap();
        }
        check_quiet(&replica, 3);
    });
}

#[test]
fn two_pulls_in_a_row_leave_every_reader_its_revision() {
    explore(|| {
        let (replica, _) = replica(Fetch::Sends);
        read(&replica, Epoch(0), page(3)).unwrap();
        let first = spawn_transaction(&replica, 0, &[3]);
        let second = spawn_transaction(&replica, 1, &[4, 3]);
        pull(&replica, 2, &[], true);
        pull(&replica, 3, &[], true);
        first.join().unwrap();
        second.join().unwrap();
        check_quiet(&replica, 3);
    });
}

#[test]
fn a_pull_that_cannot_commit_moves_nothing_and_opens_the_gate() {
    explore(|| {
        let (replica, _) = replica(Fetch::Sends);
        let reader = spawn_transaction(&replica, 0, &[3]);
        pull(&replica, 2, &[], false);
        assert_eq!(reader.join().unwrap(), "1");
        check_quiet(&replica, 1);
    });
}
