//! The honest client: pages, rows that it pushes, SQL that it reads, long polls. None of its requests may fail, and what was
//! acknowledged is noted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use partial_sync_transport::PagesRequest;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    ask::{self, HONEST},
    client::{Ask, Client, Reply},
    result::Result,
};

/// What it does.
pub(crate) const KINDS: [&str; 6] = ["pages", "push", "sql", "poll", "status", "newcomer"];
/// Between two requests of one kind.
const PAUSE: Duration = Duration::from_millis(25);
/// How long a revision is read from before it is asked for again.
const PINNED: Duration = Duration::from_secs(1);
/// Of a long poll. Rows are pushed all the time.
const POLL: Duration = Duration::from_secs(5);
/// A request that is not answered for so long when the server ends counts in the times, or has failed.
const LATE: Duration = Duration::from_millis(200);
const TOO_LATE: Duration = Duration::from_secs(5);
/// Failures that are told.
const TOLD: usize = 5;

/// Rows that were acknowledged, over all starts of the server.
#[derive(Default)]
pub(crate) struct Ledger {
    pub acknowledged: Mutex<Vec<u64>>,
    next: AtomicU64,
}

/// What happened to its requests.
#[derive(Default)]
pub(crate) struct Seen {
    times: [Mutex<Vec<Duration>>; KINDS.len()],
    /// Since when a request of each kind is under way.
    asked: [Mutex<Option<Instant>>; KINDS.len()],
    failures: Mutex<Vec<String>>,
    failed: AtomicU64,
    pub again: AtomicU64,
    /// The server is being stopped: what fails from here on is not a failure.
    ending: AtomicBool,
    /// The disk is full: what cannot be written may be refused, if it is said so.
    full: bool,
    /// The first row that was acknowledged since the poll began.
    acknowledged: Mutex<Option<Instant>>,
}

impl Seen {
    /// For a server on a disk that may be full.
    pub(crate) fn on_disk(full: bool) -> Self {
        Self {
            full,
            ..Self::default()
        }
    }

    pub(crate) fn requests(&self) -> usize {
        self.times.iter().map(|times| times.lock().len()).sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(SeqCst)
    }

    /// Some of the failures.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().clone()
    }

    /// The 99th percentile of the kind that has the largest, and which kind that is.
    pub(crate) fn p99(&self) -> (Duration, &'static str) {
        let of = |(times, kind): (&Mutex<Vec<Duration>>, _)| {
            let mut times = times.lock().clone();
            times.sort_unstable();
            let at = times.len() * 99 / 100;
            (times.get(at).copied().unwrap_or_default(), kind)
        };
        self.times.iter().zip(KINDS).map(of).max().unwrap_or_default()
    }

    /// The server is about to be stopped. What it has not answered counts too.
    pub(crate) fn end(&self) {
        self.ending.store(true, SeqCst);
        for (kind, asked) in self.asked.iter().enumerate() {
            let Some(mut asked) = asked.lock().take() else {
                continue;
            };
            if KINDS[kind] == "poll" {
                asked = self.could_be_told(asked);
            }
            if asked.elapsed() > LATE {
                self.times[kind].lock().push(asked.elapsed());
            }
            if asked.elapsed() > TOO_LATE {
                self.fail(kind, asked, "it is not answered");
            }
        }
    }

    /// A request begins.
    fn ask(&self, kind: usize) -> Instant {
        let now = Instant::now();
        *self.asked[kind].lock() = Some(now);
        now
    }

    fn fail(&self, kind: usize, began: Instant, why: &str) {
        self.failed.fetch_add(1, SeqCst);
        let mut failures = self.failures.lock();
        if failures.len() < TOLD {
            let after = began.elapsed();
            failures.push(format!("{} after {after:.1?}: {why}", KINDS[kind]));
        }
    }

    fn note(&self, kind: usize, began: Instant, result: Result<()>) {
        *self.asked[kind].lock() = None;
        match result {
            Ok(()) => self.times[kind].lock().push(began.elapsed()),
            Err(_) if self.ending.load(SeqCst) => {}
            Err(error) => self.fail(kind, began, &error.to_string()),
        }
    }

    /// Since when a poll could be told of a commit: where nothing can be written it waits for as long as it has asked for.
    fn could_be_told(&self, began: Instant) -> Instant {
        match self.full {
            true => self.acknowledged.lock().unwrap_or_else(Instant::now),
            false => began,
        }
    }

    /// Whether a refusal is one of a full disk, where there is one.
    fn is_full(&self, reply: &Reply) -> bool {
        let text = reply.text();
        self.full
            && (text.contains("DISK_FULL")
                || text.contains("HISTORY_UNWRITABLE")
                || text.contains("SQLITE_FULL")
                || text.contains("SQLITE_IOERR"))
    }
}

/// Runs until what is returned is dropped.
pub(crate) fn start(addr: SocketAddr, ledger: &Arc<Ledger>, seen: &Arc<Seen>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(read_pages(addr, Arc::clone(seen)));
    tasks.spawn(push(addr, Arc::clone(ledger), Arc::clone(seen)));
    tasks.spawn(read_sql(addr, Arc::clone(seen)));
    tasks.spawn(poll(addr, Arc::clone(seen)));
    tasks.spawn(ask_status(addr, Arc::clone(seen)));
    tasks.spawn(come_new(addr, Arc::clone(seen)));
    tasks
}

async fn read_pages(addr: SocketAddr, seen: Arc<Seen>) {
    let mut client = Client::new(addr, None);
    let mut pinned = None;
    loop {
        let (from, count) = (fastrand::u32(..2000), [1, 32][fastrand::usize(..2)]);
        let at = pinned
            .clone()
            .filter(|(_, since): &(_, Instant)| since.elapsed() < PINNED);
        let is_pinned = at.is_some() && fastrand::bool();
        let revision = at.filter(|_| is_pinned).map(|(revision, _)| revision);
        let body = ask::pages(&ask::some_pages(from, count, revision));
        let began = seen.ask(0);
        let result = async {
            let reply = client
                .send(&Ask::post(HONEST, "/honest/pull-updates", body))
                .await?;
            match is_good(&reply) {
                // Old revisions are read whatever the disk is.
                Err(_) if !is_pinned && seen.is_full(&reply) => {}
                Err(error) => return Err(error),
                Ok(()) if !is_pinned => pinned = Some((ask::revision(&reply.body)?, Instant::now())),
                Ok(()) => {}
            }
            Ok(())
        };
        let result = result.await;
        rest(&seen, 0, began, result, &mut client).await;
    }
}

async fn push(addr: SocketAddr, ledger: Arc<Ledger>, seen: Arc<Seen>) {
    let mut client = Client::new(addr, None);
    loop {
        let row = ledger.next.fetch_add(1, SeqCst);
        let args = json!([{ "type": "integer", "value": row.to_string() }]);
        // Sent twice, it is there once.
        let body = ask::push(
            "INSERT OR IGNORE INTO pushed VALUES (?1, 'a row that was pushed')",
            &args,
        );
        let began = seen.ask(1);
        let result = async {
            let reply = client
                .send(&Ask::post(HONEST, "/honest/v2/pipeline", body))
                .await?;
            is_good(&reply)?;
            let answer: Value = serde_json::from_slice(&reply.body)?;
            let batch = &answer["results"][0]["response"]["result"];
            let errors = &batch["step_errors"];
            if *errors == json!([null, null, null, null]) && batch["step_results"][2].is_object() {
                ledger.acknowledged.lock().push(row);
                seen.acknowledged.lock().get_or_insert_with(Instant::now);
                return Ok(());
            }
            match seen.is_full(&reply) {
                true => Ok(()),
                false => Err(reply.start().into()),
            }
        };
        let result = result.await;
        rest(&seen, 1, began, result, &mut client).await;
    }
}

async fn read_sql(addr: SocketAddr, seen: Arc<Seen>) {
    let mut client = Client::new(addr, None);
    loop {
        let id = fastrand::u32(1..=crate::files::ROWS);
        let body = ask::statement(&format!("SELECT length(v) FROM t WHERE id = {id}"));
        let began = seen.ask(2);
        let result = async {
            let reply = client
                .send(&Ask::post(HONEST, "/honest/v2/pipeline", body))
                .await?;
            is_good(&reply)?;
            match String::from_utf8_lossy(&reply.body).contains(r#""value":"3000""#) {
                true => Ok(()),
                false => Err(reply.start().into()),
            }
        };
        let result = result.await;
        rest(&seen, 2, began, result, &mut client).await;
    }
}

async fn poll(addr: SocketAddr, seen: Arc<Seen>) {
    let mut client = Client::new(addr, None);
    let mut since = None;
    loop {
        let request = PagesRequest {
            since: since.take(),
            long_poll: Some(POLL),
            ..ask::some_pages(0, 1, None)
        };
        let began = seen.ask(3);
        *seen.acknowledged.lock() = None;
        let result = async {
            let body = ask::pages(&request);
            let reply = client
                .send(&Ask::post(HONEST, "/honest/pull-updates", body))
                .await?;
            match is_good(&reply) {
                Err(_) if seen.is_full(&reply) => {}
                Err(error) => return Err(error),
                Ok(()) => since = Some(ask::revision(&reply.body)?),
            }
            Ok(())
        };
        let mut result = result.await;
        // It waits for a row, and rows are pushed all the time: how long it took says how late it was told.
        if began.elapsed() >= POLL && !seen.full && result.is_ok() {
            result = Err("a poll was not told of any commit".into());
        }
        let began = seen.could_be_told(began);
        rest(&seen, 3, began, result, &mut client).await;
    }
}

async fn ask_status(addr: SocketAddr, seen: Arc<Seen>) {
    let mut client = Client::new(addr, None);
    loop {
        let path = ["/health", "/metrics", "/ready"][fastrand::usize(..3)];
        let began = seen.ask(4);
        let result = client.send(&Ask::get(HONEST, path)).await;
        let result = result.and_then(|reply| match path {
            // It tells of a file that is missing, or of a disk that is full.
            "/ready" if reply.status == 503 => Ok(()),
            _ => is_good(&reply),
        });
        rest(&seen, 4, began, result, &mut client).await;
        tokio::time::sleep(PAUSE * 4).await;
    }
}

/// A connection for each request.
async fn come_new(addr: SocketAddr, seen: Arc<Seen>) {
    loop {
        let mut client = Client::new(addr, None);
        let body = ask::pages(&ask::some_pages(0, 1, None));
        let began = seen.ask(5);
        let reply = client
            .send(&Ask::post(HONEST, "/honest/pull-updates", body))
            .await;
        let result = reply.and_then(|reply| match seen.is_full(&reply) {
            true => Ok(()),
            false => is_good(&reply),
        });
        rest(&seen, 5, began, result, &mut client).await;
        tokio::time::sleep(PAUSE * 2).await;
    }
}

async fn rest(seen: &Seen, kind: usize, began: Instant, result: Result<()>, client: &mut Client) {
    seen.again.fetch_add(std::mem::take(&mut client.again), SeqCst);
    seen.note(kind, began, result);
    tokio::time::sleep(PAUSE).await;
}

fn is_good(reply: &Reply) -> Result<()> {
    match reply.status {
        200 => Ok(()),
        _ => Err(reply.start().into()),
    }
}

/// How many of the rows that were acknowledged are not there.
pub(crate) async fn lost(addr: SocketAddr, ledger: &Ledger) -> Result<usize> {
    let acknowledged = ledger.acknowledged.lock().clone();
    let mut client = Client::new(addr, None);
    let mut there = std::collections::HashSet::new();
    let mut after = -1;
    loop {
        let body = ask::statement(&format!(
            "SELECT id FROM pushed WHERE id > {after} ORDER BY id LIMIT 10000"
        ));
        let reply = client
            .send(&Ask::post(HONEST, "/honest/v2/pipeline", body))
            .await?;
        is_good(&reply)?;
        let answer: Value = serde_json::from_slice(&reply.body)?;
        let rows = answer["results"][0]["response"]["result"]["rows"]
            .as_array()
            .ok_or_else(|| reply.start())?;
        if rows.is_empty() {
            return Ok(acknowledged.iter().filter(|row| !there.contains(*row)).count());
        }
        for row in rows {
            let id: i64 = row[0]["value"].as_str().ok_or("not a number")?.parse()?;
            after = after.max(id);
            there.insert(u64::try_from(id)?);
        }
    }
}
