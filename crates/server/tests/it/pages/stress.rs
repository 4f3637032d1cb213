//! Many readers of pinned revisions under writers that commit without a pause, in this process and in others, with
//! checkpoints and resets of the WAL in between. Every answer must be the state that its revision names.
//!
//! `STRESS_SEED` and `STRESS_COMMITS` in the environment repeat or lengthen a run.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use partial_sync_core::Revision;
use partial_sync_transport::PagesRequest;
use rusqlite::Connection;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::support::{Client, TestDb, dump, ids, insert, shell};

/// Hash of a whole state.
fn state_hash(pages: &[Bytes]) -> u64 {
    let mut hash = Xxh3::new();
    pages
        .iter()
        .for_each(|page| hash.update(&xxh3_64(page).to_le_bytes()));
    hash.digest()
}

/// What is known for certain: the states that were committed, in order, and which revision was seen to name which.
#[derive(Default)]
struct Truth {
    /// State -> the numbers of the commits that made it.
    commits: Mutex<HashMap<u64, Vec<u64>>>,
    /// Number of the last commit that has finished and is in `commits`.
    finished: AtomicU64,
    /// The hashes of the pages of each commit, to say how a wrong answer is wrong.
    pages: Mutex<Vec<Vec<u64>>>,
    revisions: Mutex<HashMap<Revision, Seen>>,
}

#[derive(Clone)]
struct Seen {
    pages: Vec<Bytes>,
}

impl Truth {
    /// Notes the latest state. The caller is the only one who can commit now.
    fn committed(&self, path: &Path) {
        let n = self.finished.load(SeqCst) + 1;
        let state = dump(path);
        self.pages
            .lock()
            .push(state.iter().map(|page| xxh3_64(page)).collect());
        self.commits.lock().entry(state_hash(&state)).or_default().push(n);
        self.finished.store(n, SeqCst);
    }

    /// Checks an answer to a request that was sent when `finished` was `after`.
    async fn check(&self, revision: &Revision, pages: Vec<Bytes>, after: u64, what: &str) {
        let seen = self
            .revisions
            .lock()
            .entry(revision.clone())
            .or_insert_with(|| Seen { pages: pages.clone() })
            .clone();
        assert!(
            seen.pages == pages,
            "{what}: {revision} named one state before and names another now"
        );
        // The commit may be in the answer before its writer had time to note it.
        let hash = state_hash(&pages);
        for _ in 0..2000 {
            let commits = self.commits.lock().get(&hash).cloned();
            match commits {
                Some(commits) if commits.iter().any(|n| *n >= after) => return,
                Some(commits) => panic!("{what}: {revision} is commit {commits:?}, older than {after}"),
                None => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        }
        panic!(
            "{what}: {revision} is a state that was never committed; {}",
            self.nearest(&pages)
        );
    }

    /// The commit that has most in common with some pages, and the pages in which it differs.
    fn nearest(&self, pages: &[Bytes]) -> String {
        let hashes: Vec<u64> = pages.iter().map(|page| xxh3_64(page)).collect();
        let differ = |commit: &Vec<u64>| -> Vec<usize> {
            (0..commit.len().max(hashes.len()))
                .filter(|n| commit.get(*n) != hashes.get(*n))
                .collect()
        };
        let commits = self.pages.lock();
        let all = commits.iter().map(differ).enumerate();
        let (n, ids) = all.min_by_key(|(_, ids)| ids.len()).expect("there was a commit");
        let same = ids.iter().map(|id| {
            let with = |n: &usize| hashes.get(*id).is_some() && commits[*n].get(*id) == hashes.get(*id);
            let with: Vec<usize> = (0..commits.len()).filter(with).map(|n| n + 1).collect();
            format!("id {id} as in commits {with:?}")
        });
        let same: Vec<String> = same.collect();
        format!(
            "commit {} of {} comes nearest, it has {} pages instead of {} and differs: {same:?}",
            n + 1,
            commits.len(),
            commits[n].len(),
            pages.len(),
        )
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn commit(db: &Connection, path: &Path, random: &mut fastrand::Rng) {
    let (id, n) = (random.i64(1..4000), random.i64(1..60));
    match random.u32(0..20) {
        0..8 => {
            let sql = "UPDATE t SET v = randomblob(?3) WHERE id BETWEEN ?1 AND ?2";
            db.execute(sql, [id, id + n, random.i64(1..900)]).unwrap();
        }
        8..12 => {
            let next: i64 = db
                .query_row("SELECT coalesce(max(id), 0) + 1 FROM t", [], |row| row.get(0))
                .unwrap();
            insert(db, next, n * 3);
        }
        12..14 => {
            db.execute("DELETE FROM t WHERE id BETWEEN ?1 AND ?2", [id, id + n * 10])
                .unwrap();
        }
        14 => db.execute_batch("VACUUM").unwrap(),
        15 => {
            let sql = "INSERT OR REPLACE INTO t VALUES (?1, zeroblob(20000)), (?2, randomblob(9000))";
            db.execute(sql, [id, id + 1]).unwrap();
        }
        16 => db
            .execute_batch("BEGIN; CREATE INDEX i ON t(v); DROP INDEX i; COMMIT")
            .unwrap(),
        _ => {
            shell(
                path,
                &format!("UPDATE t SET v = randomblob(100) WHERE id BETWEEN {id} AND {id} + {n}"),
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn invariant_4_every_answer_is_the_state_of_its_revision_under_writers_and_checkpoints() {
    let seed = setting("STRESS_SEED", fastrand::u64(..));
    let commits = setting("STRESS_COMMITS", 100);
    println!("STRESS_SEED={seed} STRESS_COMMITS={commits}");
    let db = TestDb::new();
    let writer = db.open();
    insert(&writer, 1, 1000);
    let truth = Arc::new(Truth::default());
    truth.committed(&db.path);
    let server = db.serve().await;
    let done = Arc::new(AtomicBool::new(false));

    let writing = tokio::task::spawn_blocking({
        let (truth, done, path) = (Arc::clone(&truth), Arc::clone(&done), db.path.clone());
        let mut random = fastrand::Rng::with_seed(seed);
        move || {
            for _ in 0..commits {
                commit(&writer, &path, &mut random);
                truth.committed(&path);
            }
            done.store(true, SeqCst);
        }
    });
    let checkpointing = tokio::task::spawn_blocking({
        let (done, path) = (Arc::clone(&done), db.path.clone());
        let mut random = fastrand::Rng::with_seed(seed ^ 1);
        let ours = db.open();
        ours.busy_timeout(std::time::Duration::from_millis(100)).unwrap();
        move || {
            while !done.load(SeqCst) {
                let mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][random.usize(0..4)];
                let sql = format!("PRAGMA wal_checkpoint({mode})");
                match random.bool() {
                    true => ours.query_row(&sql, [], |_| Ok(())).unwrap(),
                    false => {
                        std::process::Command::new("sqlite3")
                            .arg(&path)
                            .arg(&sql)
                            .output()
                            .unwrap();
                    }
                }
            }
        }
    });
    let mut readers = Vec::new();
    for reader in 0..6u64 {
        let (truth, done) = (Arc::clone(&truth), Arc::clone(&done));
        let client = Client::new(&server.url());
        let mut random = fastrand::Rng::with_seed(seed ^ (reader + 2));
        readers.push(tokio::spawn(async move {
            let mut answers = 0u64;
            let mut once_more = true;
            while !done.load(SeqCst) || std::mem::take(&mut once_more) {
                read_once(&client, &truth, &mut random).await;
                answers += 1;
            }
            answers
        }));
    }
    writing.await.unwrap();
    checkpointing.await.unwrap();
    let mut answers = 0;
    for reader in readers {
        answers += reader.await.unwrap();
    }
    // All revisions that were ever seen, again, now that everything has happened.
    let client = Client::new(&server.url());
    let revisions = truth.revisions.lock().clone();
    for (revision, seen) in &revisions {
        assert!(
            client.at(revision).await.unwrap().whole() == seen.pages,
            "{revision} at the end"
        );
    }
    println!("{answers} answers, {} revisions", revisions.len());
    assert!(revisions.len() > 5, "the readers saw the database change");
    server.shutdown().await;
}

async fn read_once(client: &Client, truth: &Truth, random: &mut fastrand::Rng) {
    let known: Vec<Revision> = truth.revisions.lock().keys().cloned().collect();
    let old = (!known.is_empty()).then(|| known[random.usize(0..known.len())].clone());
    let after = truth.finished.load(SeqCst);
    match (random.u32(0..4), old) {
        (1, Some(old)) => {
            truth
                .check(&old, client.at(&old).await.unwrap().whole(), 0, "pinned")
                .await
        }
        (2, Some(old)) => {
            let base = truth.revisions.lock()[&old].clone();
            let changed = client.since(&old).await.unwrap();
            let mut pages = base.pages;
            pages.resize(changed.size as usize, Bytes::new());
            for (id, data) in changed.pages {
                pages[id as usize] = data;
            }
            truth.check(&changed.revision, pages, after, "patched").await;
        }
        (3, Some(old)) => {
            let base = truth.revisions.lock()[&old].clone();
            let size = base.pages.len() as u32;
            let some: Vec<u32> = (0..8).map(|_| random.u32(0..size)).collect();
            let request = PagesRequest {
                revision: Some(old.clone()),
                select: ids(some),
                ..PagesRequest::default()
            };
            // The second time it may be an answer that was given before.
            for _ in 0..2 {
                for (id, data) in client.ask(request.clone()).await.unwrap().pages {
                    assert!(base.pages[id as usize] == data, "page id {id} at {old}");
                }
            }
        }
        _ => {
            let answer = client.latest().await;
            truth
                .check(&answer.revision.clone(), answer.whole(), after, "latest")
                .await;
        }
    }
}
