//! Random histories of a database in a bucket: servers that write to it take it from each other, sleep in the middle of a request,
//! lose answers and their network, crash, come back, and what they had put arrives late; it is compacted and collected; replicas pull through
//! two servers that have no state. What must come of it: `truth.rs`.
//!
//! `HISTORY_SEED=7 HISTORY_COUNT=100 cargo test -p partial-sync-server --test it random_histories -- --nocapture` makes others, `HISTORY_TRACE=1`
//! shows their steps. Steps follow from the seed; what servers do at the same time does not.

use std::{collections::BTreeMap, time::Duration};

use partial_sync_store::StoreError;
use partial_sync_transport::PagesRequest;

use super::{
    company::History,
    rivals::{ANSWER, Start, keep, start},
    support::{TestStore, Weather, copy_of},
};
use crate::pages::support::Refused;

/// The longest wait for a server that sleeps.
const SHORT: Duration = Duration::from_millis(150);

impl History {
    /// A server begins to write: with what a crashed one left, or from the bucket.
    async fn begin_to_write(&mut self) {
        let how = match self.random.u32(0..4) {
            0 if !self.left.is_empty() => {
                let n = self.random.usize(0..self.left.len());
                Start::With(self.left.swap_remove(n))
            }
            0 | 1 => Start::New(self.new_file()),
            _ => Start::Stateless,
        };
        self.begin_with(how).await;
    }

    async fn begin_with(&mut self, how: Start) {
        let store = TestStore::to(&self.place);
        self.stores.push(store.clone());
        let patience = if self.random.bool() { SHORT } else { ANSWER };
        self.note(format!("start {how:?}").split('(').next().unwrap_or_default());
        let (at, is_with) = (self.random.usize(0..24), matches!(how, Start::With(_)));
        let alone = !self.is_troubled();
        let calm = match self.random.u32(0..4) {
            0 => {
                store.cut_after(at);
                false
            }
            1 => {
                store.pause_after(at);
                self.starts.spawn(start(how, store.clone(), patience));
                // The log may be another one when it wakes up.
                let asleep = tokio::time::timeout(SHORT, store.until_waiting(1)).await;
                if asleep.is_ok() && self.random.bool() {
                    self.keep().await;
                }
                return;
            }
            2 => {
                store.conflict(self.random.usize(1..3));
                true
            }
            _ => true,
        };
        let started = tokio::time::timeout(ANSWER, start(how, store.clone(), patience)).await;
        let started = started.unwrap_or_else(|_| panic!("{}: it does not start", self.when));
        if calm
            && alone
            && !is_with
            && let Err(error) = &started.1
        {
            panic!("{}: {error}", self.when);
        }
        if !calm && self.random.bool() {
            store.mend();
        }
        self.started(started);
    }

    /// A writer ends, at any request; its disk may be left.
    async fn crash(&mut self) {
        let Some(n) = self.some_node() else { return };
        let troubled = self.is_troubled();
        let node = self.nodes.swap_remove(n);
        node.store.cut_after(self.random.usize(0..4));
        if self.random.bool() {
            self.commit(node.client.clone(), troubled).await;
        }
        node.store.end();
        let left = node.file.as_ref().map(|file| {
            let to = self.new_file();
            copy_of(file, &to);
            to
        });
        drop(node);
        self.note("crash");
        let when = self.when.clone();
        self.truth.restore(&self.bucket, self.folder.path(), &when).await;
        // More often than not its machine comes back.
        if let Some(file) = left {
            match self.random.u32(0..3) {
                0 => self.left.push(file),
                _ => self.begin_with(Start::With(file)).await,
            }
        }
    }

    /// Another writer comes that has no SQL, and keeps the log in order.
    async fn keep(&mut self) {
        let (node, commits) = (self.random.u64(1..), self.random.u32(0..24));
        let place = self.place.clone();
        let later = self.random.bool().then_some(&*place);
        match keep(self.bucket.bucket(), node, commits, later).await {
            Ok(()) if later.is_some() => self.note("collection"),
            Ok(()) => self.note("compaction"),
            // By one that wakes up, or that was asked for the first time.
            Err(StoreError::Fenced { .. }) if self.is_troubled() => self.note("fenced"),
            Err(error) => panic!("{}: {error}", self.when),
        }
    }

    fn weather(&mut self) {
        let Some(n) = self.some_node() else { return };
        let store = &self.nodes[n].store;
        let weather = self.random.u32(0..9);
        match weather {
            0 => store.set(Weather::Denied),
            1 => store.set(Weather::Lost),
            2 => store.set(Weather::Late),
            3 | 4 => store.set(Weather::Held),
            5 | 6 => store.set(Weather::Paused),
            7 => store.conflict(self.random.usize(1..3)),
            _ => store.pause_after(self.random.usize(0..6)),
        }
        self.note(format!("weather {weather}"));
    }

    fn may_be_refused(&mut self, refused: &Refused) {
        self.note(format!("refused with {}", refused.status));
        let known = match refused.status {
            410 => self.seen.contains_key("collection"),
            503 => true,
            _ => false,
        };
        assert!(known, "{}: {} {}", self.when, refused.code, refused.message);
    }

    async fn ask(&mut self) {
        let when = self.when.clone();
        self.note("question");
        let revision = self
            .truth
            .some_revision(&mut self.random)
            .filter(|_| self.random.bool());
        let before = self.truth.settled();
        let of_writer = match self.random.bool() {
            true => self.some_node(),
            false => None,
        };
        let client = match of_writer {
            Some(n) => self.nodes[n].client.clone(),
            None => self.readers[self.random.usize(0..2)].2.clone(),
        };
        let wait = of_writer.map_or(ANSWER, |n| match self.nodes[n].store.is_held() {
            true => SHORT,
            false => ANSWER,
        });
        let request = PagesRequest {
            revision: revision.clone(),
            ..PagesRequest::default()
        };
        match tokio::time::timeout(wait, client.ask_any(request)).await {
            Err(_) => assert!(wait == SHORT, "{when}: no answer"),
            Ok(Err(refused)) => self.may_be_refused(&refused),
            Ok(Ok(answer)) => {
                let has = self.truth.given(&answer, &self.bucket, &when).await;
                let is_old = of_writer.is_some() || revision.is_some();
                assert!(
                    is_old || has >= before,
                    "{when}: {} is not the latest",
                    answer.revision
                );
            }
        }
    }

    async fn pull(&mut self, n: usize) {
        let when = self.when.clone();
        self.note("pull");
        let client = self.readers[self.random.usize(0..2)].2.clone();
        let since = self.replicas[n].at.clone();
        let request = PagesRequest {
            since: since.clone(),
            ..PagesRequest::default()
        };
        let answer = tokio::time::timeout(ANSWER, client.ask_any(request)).await;
        let mut answer = match answer.unwrap_or_else(|_| panic!("{when}: no answer")) {
            Ok(answer) => answer,
            Err(refused) => {
                self.may_be_refused(&refused);
                if refused.status == 410 {
                    self.replicas[n].at = None;
                }
                return;
            }
        };
        let replica = &mut self.replicas[n];
        if since.is_none() {
            replica.pages.clear();
        }
        replica.pages.append(&mut answer.pages);
        replica.pages.retain(|page, _| *page < answer.size);
        answer.pages = replica.pages.clone();
        replica.at = Some(answer.revision.clone());
        self.truth.given(&answer, &self.bucket, &when).await;
    }

    async fn step(&mut self) {
        match self.random.u32(0..32) {
            0..14 => {
                let Some(n) = self.some_node() else {
                    return self.begin_to_write().await;
                };
                let client = match self.random.u32(0..5) {
                    0 => self.readers[self.random.usize(0..2)].2.clone(),
                    _ => self.nodes[n].client.clone(),
                };
                // One that does not write passes it on, perhaps to one that sleeps.
                let troubled = self.is_troubled();
                self.commit(client, troubled).await;
            }
            14..17 => self.weather(),
            17 => self.nodes.iter().for_each(|node| node.store.mend()),
            18..20 => {
                if let Some(n) = self.some_node() {
                    self.nodes[n].store.mend();
                }
            }
            20..22 if self.nodes.len() + self.starts.len() < 4 => self.begin_to_write().await,
            22 | 23 => self.crash().await,
            24 => {
                self.keep().await;
                self.begin_to_write().await;
            }
            25 => {
                let n = self.random.usize(0..self.stores.len());
                if self.stores[n].let_late_arrive().await > 0 {
                    self.note("arrived late");
                }
            }
            26..29 => {
                let n = self.random.usize(0..2);
                self.pull(n).await;
            }
            _ => self.ask().await,
        }
    }

    /// Everything is in order again: all who sleep wake up, what is late arrives, and all agree.
    async fn end(mut self) -> BTreeMap<String, u32> {
        self.when.push_str(", at the end");
        self.random.shuffle(&mut self.stores);
        for store in &self.stores {
            store.mend();
        }
        while let Ok(Some(started)) = tokio::time::timeout(ANSWER, self.starts.join_next()).await {
            self.started(started.unwrap());
        }
        while let Ok(Some(done)) = tokio::time::timeout(ANSWER, self.commits.join_next()).await {
            self.answered(done.unwrap());
        }
        let mut arrived = 0;
        for store in &self.stores {
            arrived += store.let_late_arrive().await;
        }
        self.note(if arrived > 0 {
            "arrived late at the end"
        } else {
            "nothing late at the end"
        });
        let when = self.when.clone();
        self.truth.look(&self.bucket, &when).await;
        let last = start(Start::Stateless, TestStore::to(&self.place), ANSWER)
            .await
            .1
            .unwrap();
        let before = self.truth.acknowledged();
        self.commit(last.client.clone(), false).await;
        assert_eq!(self.truth.acknowledged(), before + 1, "{when}");
        self.truth.look(&self.bucket, &when).await;
        let latest = last.client.latest().await;
        for n in 0..2 {
            // One whose revision was collected starts over.
            self.pull(n).await;
            if self.replicas[n].at.is_none() {
                self.pull(n).await;
            }
            assert_eq!(self.replicas[n].at, Some(latest.revision.clone()), "{when}");
            let pages = self.replicas[n].pages.values();
            assert!(pages.eq(latest.pages.values()), "{when}: replica {n} differs");
        }
        self.truth.restore(&self.bucket, self.folder.path(), &when).await;
        for node in self.nodes.drain(..).chain([last]) {
            node.handle.shutdown().await;
        }
        std::mem::take(&mut self.seen)
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories_of_rival_servers_lose_nothing_that_was_answered_and_no_revision_is_two_states() {
    let (seed, count) = (setting("HISTORY_SEED", 1), setting("HISTORY_COUNT", 12));
    let mut seen = BTreeMap::<String, u32>::new();
    for seed in seed..seed + count {
        println!("seed {seed}");
        let mut history = History::begin(seed).await;
        for step in 0..60 {
            history.when = format!("seed {seed}, step {step}");
            history.step().await;
            history.answers().await;
            let when = history.when.clone();
            history.truth.look(&history.bucket, &when).await;
        }
        for (what, n) in history.end().await {
            *seen.entry(what).or_default() += n;
        }
    }
    println!("{seen:#?}");
    // Each history has some of it.
    for what in ["acknowledged", "crash", "collection", "pull", "question"] {
        assert!(
            seen.get(what).is_some_and(|n| u64::from(*n) * 4 >= count),
            "{what}: {seen:?}"
        );
    }
}
