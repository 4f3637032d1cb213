//! Pages in memory up to a number of bytes, and in a [file](super::disk) if there is one, of all databases of a server together: each with
//! the states in which it is known to be the same.
//!
//! In memory those go first that nobody asked for since they came, or since they were looked at last; in the file the oldest. What is to be
//! in the file is written by a thread of its own, as far as it keeps up.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use partial_sync_core::Revision;
use roaring::RoaringBitmap;

use super::{
    disk::{self, Disk, Index, Ring, Spot, Stored},
    timeline::{ASIDE, Changed},
};
use crate::{error::ServerError, history::Seq};

/// What a page takes besides its bytes.
const AROUND: usize = 160;
/// The end of a page that has not changed since.
const OPEN: Seq = Seq(ASIDE - 1);
/// Pages that wait to be written; more are in memory only.
const WAITING: usize = 1024;
/// How often it is written down what is in the file.
const WRITE_DOWN: Duration = Duration::from_secs(30);

/// A database of this cache. Numbers are never used twice.
pub(super) type DatabaseId = u64;

/// See the module.
#[derive(Debug)]
pub(super) struct Cache {
    kept: Arc<Kept>,
    writer: Option<SyncSender<Job>>,
}

#[derive(Debug)]
struct Kept {
    most: usize,
    pages: Mutex<Pages>,
    disk: Option<Disk>,
}

#[derive(Debug)]
struct Pages {
    databases: HashMap<DatabaseId, Database>,
    /// Of those in memory, the oldest is looked at first.
    order: VecDeque<Place>,
    next_version: u64,
    next_database: DatabaseId,
    bytes: usize,
    ring: Ring<Place>,
    /// What the file had at the start, of databases that nobody has asked for yet.
    stored: HashMap<String, Stored>,
}

#[derive(Debug)]
struct Database {
    url: Arc<str>,
    /// The latest one: pages that are open are of it.
    revision: Revision,
    pages: HashMap<u32, Vec<Version>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    database: DatabaseId,
    page: u32,
    version: u64,
}

#[derive(Debug)]
struct Version {
    version: u64,
    from: Seq,
    to: Seq,
    here: Option<Bytes>,
    there: Option<Spot>,
    /// Whether it is going to be in the file.
    is_written: bool,
    is_used: bool,
}

impl Version {
    fn is_of(&self, at: Seq) -> bool {
        self.from <= at && at <= self.to
    }

    fn can_be_had(&self) -> bool {
        self.here.is_some() || self.there.is_some()
    }
}

/// What the thread has to do.
#[derive(Debug)]
enum Job {
    Write(Place, Bytes),
    /// Writes down what is in the file, says so, and ends.
    End(SyncSender<()>),
}

/// A page that is here.
#[derive(Clone, Debug)]
pub(super) enum Cached {
    Here(Bytes),
    /// In the file, if it is still there.
    There(Written),
}

/// A page in the file.
#[derive(Clone, Debug)]
pub(super) struct Written {
    place: Place,
    url: Arc<str>,
    spot: Spot,
}

impl Cache {
    /// One of at most so many bytes of memory, and of so many in a file of a folder.
    pub(super) fn open(memory: usize, folder: Option<(&Path, u64)>) -> Result<Self, ServerError> {
        let (disk, index, len) = match folder {
            Some((folder, bytes)) => {
                let (disk, index) = Disk::open(folder)?;
                (Some(disk), index, bytes)
            }
            None => (None, Index::default(), 0),
        };
        let stored = index.databases.into_iter();
        let is_on_disk = disk.is_some();
        let kept = Arc::new(Kept {
            most: memory,
            disk,
            pages: Mutex::new(Pages {
                databases: HashMap::new(),
                order: VecDeque::new(),
                next_version: 0,
                next_database: 0,
                bytes: 0,
                ring: Ring::new(len, index.head),
                stored: stored.map(|stored| (stored.url.clone(), stored)).collect(),
            }),
        });
        let writer = is_on_disk.then(|| {
            let (writer, jobs) = sync_channel(WAITING);
            let kept = Arc::clone(&kept);
            std::thread::Builder::new()
                .name("origin-cache".to_owned())
                .spawn(move || write(&kept, &jobs))
                .map(|_| writer)
        });
        let writer = writer.transpose().map_err(|source| ServerError::Io {
            operation: "written",
            path: folder.map(|(folder, _)| folder.to_owned()).unwrap_or_default(),
            source,
        })?;
        Ok(Self { kept, writer })
    }

    /// A new database, whose latest state is this.
    pub(super) fn add(&self, url: &str, revision: &Revision) -> DatabaseId {
        let mut pages = self.kept.pages.lock();
        pages.next_database += 1;
        let id = pages.next_database;
        let database = Database {
            url: url.into(),
            revision: revision.clone(),
            pages: HashMap::new(),
        };
        pages.databases.insert(id, database);
        id
    }

    /// The revision of which the file had pages at the start, of a database that was not asked for since.
    pub(super) fn stored(&self, url: &str) -> Option<Revision> {
        let pages = self.kept.pages.lock();
        Revision::new(&pages.stored.get(url)?.revision)
    }

    /// Takes the pages that the file had, those of them that count: they are of a state, and open.
    pub(super) fn adopt(&self, database: DatabaseId, at: Seq, counts: impl Fn(u32, u32) -> bool) {
        let mut pages = self.kept.pages.lock();
        let pages = &mut *pages;
        let Some(into) = pages.databases.get_mut(&database) else {
            return;
        };
        let Some(stored) = pages.stored.remove(&*into.url) else {
            return;
        };
        for (page, spot) in stored.spots().filter(|(page, spot)| counts(*page, spot.len)) {
            let version = pages.next_version;
            pages.next_version += 1;
            into.pages.entry(page).or_default().push(Version {
                version,
                from: at,
                to: OPEN,
                here: None,
                there: Some(spot),
                is_written: false,
                is_used: false,
            });
        }
        pages.restore_ring();
    }

    /// Lets go of what is here of a database.
    pub(super) fn remove(&self, database: DatabaseId) {
        let mut pages = self.kept.pages.lock();
        let Some(removed) = pages.databases.remove(&database) else {
            return;
        };
        let here = removed
            .pages
            .values()
            .flatten()
            .filter_map(|version| version.here.as_ref());
        pages.bytes -= here.map(weight).sum::<usize>();
        pages.order.retain(|place| place.database != database);
        if self.writer.is_some() {
            // It may be opened again.
            let stored = removed.stored();
            pages.stored.insert(stored.url.clone(), stored);
        }
    }

    /// What the file had of a database counts no more.
    pub(super) fn disown(&self, url: &str) {
        self.kept.pages.lock().stored.remove(url);
    }

    /// A page of a state.
    pub(super) fn get(&self, database: DatabaseId, page: u32, at: Seq) -> Option<Cached> {
        let mut pages = self.kept.pages.lock();
        let database_of = pages.databases.get_mut(&database)?;
        let versions = database_of.pages.get_mut(&page)?;
        let found = versions.iter_mut().find(|version| version.is_of(at))?;
        found.is_used = true;
        if let Some(data) = &found.here {
            return Some(Cached::Here(data.clone()));
        }
        Some(Cached::There(Written {
            place: Place {
                database,
                page,
                version: found.version,
            },
            url: Arc::clone(&database_of.url),
            spot: found.there?,
        }))
    }

    /// Reads a page of the file. Blocks.
    pub(super) fn read(&self, written: &Written) -> Option<Bytes> {
        let disk = self.kept.disk.as_ref()?;
        let read = disk.read(&written.url, written.place.page, written.spot);
        let mut pages = self.kept.pages.lock();
        match &read {
            Some(data) => pages.bring_here(written.place, data.clone(), self.kept.most),
            None => pages.forget_spot(written.place, Some(written.spot)),
        }
        read
    }

    /// Keeps a page of a state, with the first and the last one in which it is the same; `is_open`: also from there on, until it
    /// [changes](Self::close).
    pub(super) fn put(&self, database: DatabaseId, page: u32, at: Seq, span: (Seq, Seq, bool), data: Bytes) {
        let (from, to, is_open) = span;
        let mut pages = self.kept.pages.lock();
        let version = pages.next_version;
        let Some(database_of) = pages.databases.get_mut(&database) else {
            return;
        };
        let versions = database_of.pages.entry(page).or_default();
        let found = versions.iter().find(|other| other.is_of(at));
        let place = Place {
            database,
            page,
            version: found.map_or(version, |found| found.version),
        };
        if found.is_none() {
            // If there are too many, it is in memory only.
            let write = |writer: &SyncSender<Job>| writer.try_send(Job::Write(place, data.clone())).is_ok();
            versions.push(Version {
                version,
                from,
                to: if is_open { OPEN } else { to },
                here: None,
                there: None,
                is_written: self.writer.as_ref().is_some_and(write),
                is_used: false,
            });
            pages.next_version += 1;
        }
        pages.bring_here(place, data, self.kept.most);
    }

    /// There is a new latest state: pages changed after the one before.
    pub(super) fn close(&self, database: DatabaseId, changed: &Changed, after: Seq, now: &Revision) {
        let mut pages = self.kept.pages.lock();
        let Some(database) = pages.databases.get_mut(&database) else {
            return;
        };
        database.revision = now.clone();
        let pages = &mut database.pages;
        let close = |versions: &mut Vec<Version>| {
            let open = versions.iter_mut().filter(|version| version.to == OPEN);
            open.for_each(|version| version.to = after);
        };
        match changed {
            Some(changed) if changed.len() < pages.len() as u64 => {
                for page in changed {
                    pages.get_mut(&page).map(close);
                }
            }
            changed => {
                let is_changed = |page| changed.as_ref().is_none_or(|changed| changed.contains(page));
                let changed = pages.iter_mut().filter(|(page, _)| is_changed(**page));
                changed.for_each(|(_, versions)| close(versions));
            }
        }
    }

    /// The ids of the pages that are here of a state, if those of the database are not too many to say; `home` as
    /// [`Timeline::home`](super::timeline::Timeline::home).
    pub(super) fn ids(
        &self,
        database: DatabaseId,
        most: usize,
        home: impl Fn(u32) -> Seq,
    ) -> Option<RoaringBitmap> {
        let pages = self.kept.pages.lock();
        let pages = &pages.databases.get(&database)?.pages;
        let is_here = |page: u32, versions: &[Version]| {
            let at = home(page);
            let of_it = versions.iter().filter(|version| version.is_of(at));
            of_it.into_iter().any(Version::can_be_had)
        };
        let here = pages.iter().filter(|(page, versions)| is_here(**page, versions));
        (pages.len() <= most).then(|| here.map(|(page, _)| *page).collect())
    }

    /// Writes down what is in the file. Nothing is written after it. Blocks.
    pub(super) fn finish(&self) {
        if let Some(writer) = &self.writer {
            let (ended, end) = sync_channel(1);
            // An error is the end of the thread, which is what is wanted.
            if writer.send(Job::End(ended)).is_ok() {
                let _ = end.recv();
            }
        }
    }
}

/// Writes pages into the file, and now and then what is in it, until all who can ask for it are gone.
fn write(kept: &Kept, jobs: &std::sync::mpsc::Receiver<Job>) {
    let Some(disk) = &kept.disk else { return };
    let mut is_written_down = true;
    let mut at = std::time::Instant::now();
    loop {
        let job = jobs.recv_timeout(WRITE_DOWN);
        match &job {
            Ok(Job::Write(place, data)) => {
                let spot = kept.pages.lock().take_spot(*place, data);
                let written = spot.filter(|spot| {
                    let written = disk.write(*spot, data);
                    let failed =
                        written.inspect_err(|error| tracing::debug!(%error, "the cache cannot be written"));
                    failed.is_ok()
                });
                kept.pages.lock().set_spot(*place, written);
                is_written_down = false;
            }
            Ok(Job::End(_)) | Err(_) => {}
        }
        let is_last = matches!(job, Ok(Job::End(_)) | Err(RecvTimeoutError::Disconnected));
        if is_last || (at.elapsed() >= WRITE_DOWN && !is_written_down) {
            at = std::time::Instant::now();
            is_written_down = true;
            let index = kept.pages.lock().index();
            if let Err(error) = disk.write_index(index) {
                tracing::warn!(%error, "it cannot be written down what is in the cache");
            }
        }
        if let Ok(Job::End(ended)) = job {
            disk.let_go();
            // Who waits for it may have left.
            let _ = ended.send(());
            return;
        }
        if is_last {
            return;
        }
    }
}

impl Database {
    /// What the file has of its latest state.
    fn stored(&self) -> Stored {
        let mut stored = Stored {
            url: self.url.as_ref().to_owned(),
            revision: self.revision.as_str().to_owned(),
            ..Stored::default()
        };
        for (page, versions) in &self.pages {
            let open = versions.iter().filter(|version| version.to == OPEN);
            if let Some(spot) = open.filter_map(|version| version.there).next() {
                stored.put(*page, spot);
            }
        }
        stored
    }
}

impl Pages {
    fn version(&mut self, place: Place) -> Option<&mut Version> {
        let versions = self
            .databases
            .get_mut(&place.database)?
            .pages
            .get_mut(&place.page)?;
        versions
            .iter_mut()
            .find(|version| version.version == place.version)
    }

    /// Lets go of it, if it is nowhere.
    fn drop_if_gone(&mut self, place: Place) {
        let Some(database) = self.databases.get_mut(&place.database) else {
            return;
        };
        let Some(versions) = database.pages.get_mut(&place.page) else {
            return;
        };
        versions
            .retain(|version| version.version != place.version || version.can_be_had() || version.is_written);
        if versions.is_empty() {
            database.pages.remove(&place.page);
        }
    }

    fn bring_here(&mut self, place: Place, data: Bytes, most: usize) {
        let bytes = weight(&data);
        let Some(version) = self.version(place).filter(|version| version.here.is_none()) else {
            return;
        };
        version.here = Some(data);
        self.bytes += bytes;
        self.order.push_back(place);
        while self.bytes > most
            && let Some(place) = self.order.pop_front()
        {
            let Some(version) = self.version(place) else {
                continue;
            };
            if std::mem::take(&mut version.is_used) {
                self.order.push_back(place);
                continue;
            }
            if let Some(data) = version.here.take() {
                self.bytes -= weight(&data);
            }
            self.drop_if_gone(place);
        }
    }

    /// Where a page is to be written, unless nobody knows it any more.
    fn take_spot(&mut self, place: Place, data: &Bytes) -> Option<Spot> {
        self.version(place)?;
        let url = Arc::clone(&self.databases.get(&place.database)?.url);
        let len = u32::try_from(data.len()).ok()?;
        let (offset, gone) = self.ring.take(len, place)?;
        for place in gone {
            self.forget_spot(place, None);
        }
        let sum = disk::sum(&url, place.page, data);
        Some(Spot { offset, len, sum })
    }

    /// It is there now, or is not going to be.
    fn set_spot(&mut self, place: Place, spot: Option<Spot>) {
        if let Some(version) = self.version(place) {
            (version.there, version.is_written) = (spot, false);
            self.drop_if_gone(place);
        }
    }

    /// What was at a spot is not there any more.
    fn forget_spot(&mut self, place: Place, spot: Option<Spot>) {
        if let Some(version) = self.version(place)
            && (spot.is_none() || version.there == spot)
        {
            version.there = None;
            self.drop_if_gone(place);
        }
    }

    /// What is where in the file, of the databases that are open. What is not known of it is found out when it is read.
    fn restore_ring(&mut self) {
        let mut taken = Vec::new();
        for (&database, of) in &self.databases {
            for (&page, versions) in &of.pages {
                let spots = versions
                    .iter()
                    .filter_map(|version| Some((version.version, version.there?)));
                taken.extend(spots.map(|(version, spot)| {
                    let place = Place {
                        database,
                        page,
                        version,
                    };
                    (spot.offset, spot.len, place)
                }));
            }
        }
        self.ring.restore(taken);
    }

    fn index(&self) -> Index {
        let open = self.databases.values().map(Database::stored);
        let is_open = |url: &String| self.databases.values().any(|database| &*database.url == url);
        let others = self.stored.iter().filter(|(url, _)| !is_open(url));
        Index {
            head: self.ring.head(),
            databases: open.chain(others.map(|(_, stored)| stored.clone())).collect(),
            ..Index::default()
        }
    }
}

fn weight(data: &Bytes) -> usize {
    data.len() + AROUND
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str) -> Revision {
        Revision::new(name).unwrap()
    }

    fn here(cached: Option<Cached>) -> Option<u8> {
        match cached {
            Some(Cached::Here(data)) => Some(data[0]),
            _ => None,
        }
    }

    #[test]
    fn a_page_is_found_in_the_states_in_which_it_is_the_same_and_in_no_other() {
        let (cache, page) = (Cache::open(1 << 20, None).unwrap(), |n: u8| {
            Bytes::from(vec![n; 512])
        });
        let (one, two) = (cache.add("one", &revision("a")), cache.add("two", &revision("a")));
        cache.put(one, 5, Seq(4), (Seq(3), Seq(6), true), page(1));
        cache.put(one, 6, Seq(6), (Seq(3), Seq(6), true), page(2));
        cache.put(one, 5, Seq(ASIDE), (Seq(ASIDE), Seq(ASIDE), false), page(3));
        cache.close(one, &Some(RoaringBitmap::from([5, 9])), Seq(8), &revision("b"));
        cache.put(one, 5, Seq(9), (Seq(9), Seq(9), true), page(4));
        let found = |seq| here(cache.get(one, 5, Seq(seq)));
        let expected = [
            (2, None),
            (3, Some(1)),
            (8, Some(1)),
            (9, Some(4)),
            (100, Some(4)),
            (ASIDE, Some(3)),
            (ASIDE + 1, None),
        ];
        for (seq, expected) in expected {
            assert_eq!(found(seq), expected, "{seq}");
        }
        assert_eq!(here(cache.get(two, 5, Seq(9))), None);
        assert_eq!(cache.ids(one, 9, |_| Seq(4)), Some(RoaringBitmap::from([5, 6])));
        cache.close(one, &None, Seq(9), &revision("c"));
        assert_eq!(here(cache.get(one, 6, Seq(10))), None);
        cache.remove(one);
        assert_eq!((found(9), cache.kept.pages.lock().bytes), (None, 0));
    }

    #[test]
    fn what_nobody_asks_for_goes_first_and_there_is_never_more_than_allowed() {
        let cache = Cache::open(100 * (512 + AROUND), None).unwrap();
        let one = cache.add("one", &revision("a"));
        for id in 0..10_000 {
            cache.put(one, id, Seq(1), (Seq(1), Seq(1), true), Bytes::from(vec![0; 512]));
            assert!(
                cache.get(one, 0, Seq(1)).is_some(),
                "asked for all the time: {id}"
            );
        }
        let pages = cache.kept.pages.lock();
        assert_eq!((pages.bytes, pages.order.len()), (cache.kept.most, 100));
        assert_eq!(pages.databases[&one].pages.len(), 100);
    }

    /// What the file says after a restart is what the pages were at the revision that the index names, whatever was written over and over.
    #[test]
    fn of_a_file_that_is_written_round_and_round_what_is_found_is_right_also_after_a_restart() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let page = |id: u32, seq: u64| {
            Bytes::from([id.to_le_bytes(), (seq as u32).to_le_bytes()].concat().repeat(64))
        };
        let mut last: HashMap<u32, u64> = HashMap::new();
        let (mut now, mut hits) = (1, 0);
        for _ in 0..8 {
            let cache = Cache::open(20_000, Some((folder.path(), 100_000))).unwrap();
            let name = revision(&now.to_string());
            let one = cache.add("one", &name);
            if let Some(stored) = cache.stored("one") {
                assert_eq!(stored, name);
                cache.adopt(one, Seq(now), |_, _| true);
            }
            for _ in 0..2000 {
                let id = random.u32(..400);
                if random.u8(..10) == 0 {
                    let changed: RoaringBitmap = (0..random.u32(..9)).map(|_| random.u32(..400)).collect();
                    cache.close(
                        one,
                        &Some(changed.clone()),
                        Seq(now),
                        &revision(&(now + 1).to_string()),
                    );
                    now += 1;
                    last.extend(changed.iter().map(|id| (id, now)));
                    continue;
                }
                let at = last.get(&id).copied().unwrap_or(0);
                let found = match cache.get(one, id, Seq(now)) {
                    Some(Cached::Here(data)) => Some(data),
                    Some(Cached::There(written)) => {
                        let read = cache.read(&written);
                        hits += usize::from(read.is_some());
                        read
                    }
                    None => None,
                };
                match found {
                    Some(data) => assert!(data == page(id, at), "{id} at {now}"),
                    None => cache.put(one, id, Seq(now), (Seq(now), Seq(now), true), page(id, at)),
                }
            }
            match random.bool() {
                true => cache.finish(),
                // Dropped while it is open: as after a kill, with the index of before.
                false => {
                    cache.finish();
                    for id in 0..200 {
                        let data = page(id, 77);
                        let kept = &cache.kept;
                        let place = Place {
                            database: one,
                            page: id,
                            version: u64::MAX,
                        };
                        let spot = kept.pages.lock().ring.take(512, place).unwrap().0;
                        kept.disk
                            .as_ref()
                            .unwrap()
                            .write(
                                Spot {
                                    offset: spot,
                                    len: 512,
                                    sum: 0,
                                },
                                &data,
                            )
                            .unwrap();
                    }
                }
            }
        }
        assert!(hits > 100, "{hits}");
    }
}
