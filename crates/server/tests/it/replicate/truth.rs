//! What a history of several servers may come to: statements that each note their number, held against plain SQLite.
//!
//! The database of the bucket has the numbers of the transactions that are in it, in their order. That list only grows; what was
//! answered is in it; and the same statements in that order make the same rows in plain SQLite. A revision names one state at every server, and no
//! state that the bucket does not have.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    path::Path,
    process::Command,
};

use bytes::Bytes;
use partial_sync_core::Revision;
use partial_sync_ltx::TxId;
use partial_sync_store::{Found, ReadOptions, Reader};
use rusqlite::Connection;

use super::support::{TestStore, assert_same, database_in, id_of};
use crate::pages::support::Answer;

pub(super) const SCHEMA: &str = "CREATE TABLE log(at INTEGER PRIMARY KEY, n INTEGER NOT NULL);
    CREATE TABLE rows(id INTEGER PRIMARY KEY, v BLOB, w INTEGER); CREATE INDEX by_w ON rows(w)";

/// See the module.
pub(super) struct Truth {
    plain: Connection,
    /// What was sent: its number is its place.
    sent: Vec<String>,
    acknowledged: BTreeSet<usize>,
    /// What is in the bucket.
    settled: Vec<usize>,
    /// A hash of the pages of each revision that was given.
    revisions: HashMap<Revision, u64>,
    /// Those, as they came.
    order: Vec<Revision>,
}

/// The numbers of the transactions that a database has, and its rows.
fn read(pages: &[Bytes]) -> (Vec<usize>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read.db");
    std::fs::write(&path, pages.concat()).unwrap();
    rows(&Connection::open(&path).unwrap())
}

fn rows(db: &Connection) -> (Vec<usize>, String) {
    let check: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    let mut log = db.prepare("SELECT n FROM log ORDER BY at").unwrap();
    let log = log.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    let log = log.map(|n| n.unwrap() as usize).collect();
    let all = "SELECT coalesce(group_concat(id || quote(v) || w), '') FROM (SELECT * FROM rows ORDER BY id)";
    (log, db.query_row(all, [], |row| row.get(0)).unwrap())
}

fn hash(pages: &[Bytes]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&pages.concat())
}

impl Truth {
    pub(super) fn new() -> Self {
        let plain = Connection::open_in_memory().unwrap();
        plain.execute_batch(SCHEMA).unwrap();
        Self {
            plain,
            sent: Vec::new(),
            acknowledged: BTreeSet::new(),
            settled: Vec::new(),
            revisions: HashMap::new(),
            order: Vec::new(),
        }
    }

    /// The next transaction, with its number.
    pub(super) fn next(&mut self, random: &mut fastrand::Rng) -> (usize, String) {
        let (n, id, w) = (self.sent.len(), random.u32(1..60), random.u32(..));
        let v = format!("zeroblob({})", random.u32(0..1500));
        let work = match random.u32(0..8) {
            0..4 => format!("INSERT OR REPLACE INTO rows VALUES ({id}, {v}, {w})"),
            4 => format!("UPDATE rows SET w = w + {n}, v = {v} WHERE id % 7 = {}", id % 7),
            5 => format!("DELETE FROM rows WHERE id BETWEEN {id} AND {}", id + 20),
            6 => format!(
                "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
                 INSERT OR REPLACE INTO rows SELECT i + {id}, {v}, {w} FROM n"
            ),
            _ => format!("UPDATE rows SET w = -w WHERE id < {id}"),
        };
        let text = format!("BEGIN IMMEDIATE; {work}; INSERT INTO log(n) VALUES ({n}); COMMIT");
        self.sent.push(text.clone());
        (n, text)
    }

    /// It was answered.
    pub(super) fn acknowledge(&mut self, n: usize) {
        self.acknowledged.insert(n);
    }

    pub(super) fn settled(&self) -> usize {
        self.settled.len()
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Reads what is in the bucket.
    pub(super) async fn look(&mut self, bucket: &TestStore, when: &str) {
        let (id, pages) = database_in(bucket, None).await;
        let (log, found) = read(&pages);
        assert!(
            log.starts_with(&self.settled),
            "{when}: {id} lacks what was in the bucket before"
        );
        for n in &log[self.settled.len()..] {
            assert!(!self.settled.contains(n), "{when}: {n} is in the bucket twice");
            self.plain.execute_batch(&self.sent[*n]).unwrap();
            self.settled.push(*n);
        }
        assert!(
            rows(&self.plain) == (log, found),
            "{when}: {id} is not what plain SQLite has"
        );
        let lost: Vec<_> = self
            .acknowledged
            .iter()
            .filter(|n| !self.settled.contains(n))
            .collect();
        assert!(
            lost.is_empty(),
            "{when}: {lost:?} were answered, and {id} lacks them"
        );
    }

    /// A server gave this state; what it was based on is in the bucket by now. Gives how many transactions it has.
    pub(super) async fn given(&mut self, answer: &Answer, bucket: &TestStore, when: &str) -> usize {
        let (revision, pages) = (&answer.revision, answer.whole());
        let seen = hash(&pages);
        let known = self.revisions.insert(revision.clone(), seen);
        assert!(
            known.is_none_or(|known| known == seen),
            "{when}: {revision} is two states"
        );
        if known.is_none() {
            self.order.push(revision.clone());
        }
        self.look(bucket, when).await;
        let (log, _) = read(&pages);
        assert!(
            self.settled.starts_with(&log),
            "{when}: {revision} was given, and the bucket has no such state"
        );
        log.len()
    }

    /// A revision that was given out: one of the last ones, or any.
    pub(super) fn some_revision(&self, random: &mut fastrand::Rng) -> Option<Revision> {
        let from = if random.bool() {
            self.order.len().saturating_sub(6)
        } else {
            0
        };
        (from < self.order.len()).then(|| self.order[random.usize(from..self.order.len())].clone())
    }

    /// What is restored from the bucket is what it has.
    pub(super) async fn restore(&mut self, bucket: &std::sync::Arc<TestStore>, folder: &Path, when: &str) {
        self.look(bucket, when).await;
        let reader = Reader::open(bucket.bucket(), ReadOptions::default())
            .await
            .unwrap();
        let last = reader.latest();
        let (id, pages) = database_in(bucket, Some(last.id.get())).await;
        let to = folder.join("restored.db");
        let Found::Kept(state) = reader.state(last.id).await.unwrap() else {
            panic!("{when}: the last state is not kept");
        };
        reader.restore(state, &to).await.unwrap();
        let restored = std::fs::read(&to).unwrap();
        std::fs::remove_file(&to).unwrap();
        if let Some(program) = std::env::var_os("LITESTREAM") {
            let of_litestream = restored_by(&program, bucket, last.id).await;
            assert!(
                restored == of_litestream,
                "{when}: Litestream restores another file"
            );
        }
        assert_eq!(id, last.id.get(), "{when}");
        let restored: Vec<_> = restored.chunks(4096).map(Bytes::copy_from_slice).collect();
        assert_same(&restored, &pages, when);
        if let Some(known) = self.order.iter().find(|known| id_of(known) == id) {
            assert!(
                self.revisions[known] == hash(&restored),
                "{when}: {known} is restored as another state"
            );
        }
    }
}

/// What Litestream itself makes of the bucket, at a transaction.
async fn restored_by(program: &OsStr, bucket: &TestStore, id: TxId) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    bucket.export(folder.path()).await;
    let to = folder.path().join("restored.db");
    let output = Command::new(program)
        .args(["restore", "-txid", &id.to_string(), "-o"])
        .arg(&to)
        .arg(format!("file://{}", folder.path().display()))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::read(to).unwrap()
}
