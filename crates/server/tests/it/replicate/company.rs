//! A bucket and all who go to it: servers that write, two that have no state, replicas; and what is sent to them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use bytes::Bytes;
use partial_sync_core::Revision;
use partial_sync_server::{Mirroring, Server, ServerHandle};
use tokio::task::JoinSet;

use super::{
    place::Place,
    rivals::{ANSWER, Node, Start, Started, run, start},
    support::TestStore,
    truth::{SCHEMA, Truth},
};
use crate::pages::support::Client;

pub(super) struct Replica {
    pub at: Option<Revision>,
    pub pages: BTreeMap<u32, Bytes>,
}

pub(super) struct History {
    pub random: fastrand::Rng,
    pub folder: tempfile::TempDir,
    pub place: Arc<Place>,
    /// A way to the bucket without trouble.
    pub bucket: Arc<TestStore>,
    pub truth: Truth,
    pub nodes: Vec<Node>,
    pub readers: [(Arc<TestStore>, ServerHandle, Client); 2],
    pub replicas: [Replica; 2],
    /// All ways to the bucket that there were.
    pub stores: Vec<Arc<TestStore>>,
    /// Files that crashed servers left.
    pub left: Vec<PathBuf>,
    /// What waits for an answer.
    pub commits: JoinSet<(usize, Result<(), String>)>,
    pub starts: JoinSet<Started>,
    pub files: u32,
    pub when: String,
    /// How often something came about.
    pub seen: BTreeMap<String, u32>,
}

impl Drop for History {
    /// Nobody waits any more.
    fn drop(&mut self) {
        self.stores.iter().for_each(|store| store.end());
    }
}

impl History {
    pub(super) async fn begin(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Arc::<Place>::default();
        let path = folder.path().join("0.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(&format!("PRAGMA journal_mode = wal; {SCHEMA}"))
            .unwrap();
        drop(db);
        let first = start(Start::With(path), TestStore::to(&place), ANSWER)
            .await
            .1
            .unwrap();
        let reader = async || {
            let store = TestStore::to(&place);
            let opened = store.clone();
            let mirroring = Mirroring::in_buckets(move |_| Ok(opened.bucket()));
            let handle = Server::from_bucket(mirroring)
                .listen("127.0.0.1:0")
                .await
                .unwrap();
            let client = Client::new(&handle.url());
            (store, handle, client)
        };
        let replica = || Replica {
            at: None,
            pages: BTreeMap::new(),
        };
        Self {
            random: fastrand::Rng::with_seed(seed),
            folder,
            bucket: TestStore::to(&place),
            truth: Truth::new(),
            stores: vec![first.store.clone()],
            nodes: vec![first],
            readers: [reader().await, reader().await],
            replicas: [replica(), replica()],
            left: Vec::new(),
            commits: JoinSet::new(),
            starts: JoinSet::new(),
            files: 0,
            when: String::new(),
            seen: BTreeMap::new(),
            place,
        }
    }

    pub(super) fn new_file(&mut self) -> PathBuf {
        self.files += 1;
        self.folder.path().join(format!("{}.db", self.files))
    }

    /// One that writes, more often the newest.
    pub(super) fn some_node(&mut self) -> Option<usize> {
        let n = self.nodes.len().checked_sub(1)?;
        Some(if self.random.bool() {
            n
        } else {
            self.random.usize(0..=n)
        })
    }

    pub(super) fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        if std::env::var_os("HISTORY_TRACE").is_some() {
            println!("{}: {what}", self.when);
        }
        *self.seen.entry(what).or_default() += 1;
    }

    pub(super) fn answered(&mut self, (n, done): (usize, Result<(), String>)) {
        match &done {
            Ok(()) => self.note("acknowledged"),
            Err(code) if code.starts_with("no answer") => self.note("no answer"),
            Err(code) => self.note(code.clone()),
        }
        match done {
            Ok(()) => self.truth.acknowledge(n),
            Err(code) => assert!(
                [
                    "NOT_REPLICATED",
                    "DATABASE_TAKEN_OVER",
                    "WRITER_UNREACHABLE",
                    "NO_WRITER",
                    "SQLITE_BUSY"
                ]
                .iter()
                .any(|known| code.contains(known))
                    || code.starts_with("no answer"),
                "{}: transaction {n}: {code}",
                self.when
            ),
        }
    }

    /// Takes the answers that are there.
    pub(super) async fn answers(&mut self) {
        while let Some(done) = self.commits.try_join_next() {
            self.answered(done.unwrap());
        }
        while let Some(started) = self.starts.try_join_next() {
            self.started(started.unwrap());
        }
    }

    pub(super) fn started(&mut self, (start, node): Started) {
        let how = match start {
            Start::With(_) => "with its file",
            Start::New(_) => "with a new file",
            Start::Stateless => "without a file",
        };
        let came = if node.is_ok() { "started" } else { "did not start" };
        self.note(format!("{came} {how}"));
        match (start, node) {
            (_, Ok(node)) => self.nodes.push(node),
            // It may be tried again.
            (Start::With(path), Err(_)) => self.left.push(path),
            _ => {}
        }
    }

    pub(super) async fn commit(&mut self, client: Client, troubled: bool) {
        let (n, text) = self.truth.next(&mut self.random);
        self.note(if troubled { "commit in trouble" } else { "commit" });
        let answer = run(client, text);
        if troubled {
            self.commits.spawn(async move { (n, answer.await) });
            return;
        }
        let answer = tokio::time::timeout(ANSWER, answer).await;
        let answer = answer.unwrap_or_else(|_| panic!("{}: {n} is not answered", self.when));
        self.answered((n, answer));
    }

    /// Whether a server sleeps, to which the others may pass SQL on, or is at work beside.
    pub(super) fn is_troubled(&self) -> bool {
        self.nodes.iter().any(|node| node.store.is_held())
            || !self.starts.is_empty()
            || !self.commits.is_empty()
    }
}
