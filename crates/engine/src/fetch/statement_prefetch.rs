//! Statement prefetch: a miss carries the SQL that caused it, and a remote that can (`hydrate` in
//! `partial-sync-features`) sends the page that is waited for, runs the statement at the pinned revision, and sends meanwhile every
//! page that it touches and that is not here. A cold query then takes one round trip, whatever it looks up.
//!
//! Only a SELECT is sent, with its values written out, unless `prefetch` is off. What the remote refuses or is slow with is
//! fetched as without it, and not asked again. It must never make an answer wrong or a query fail: it only brings pages.
//!
//! How much comes along has a limit that grows when the statement needs more: a program that reads the first rows of a large
//! table pays for little, and one that reads all of it takes few requests. The remote is told the limit and ends its answer there.
//! One that does not know of it is left in the middle, and what is on its way by then is lost and asked for again.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU64,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::StreamExt;
use parking_lot::Mutex;
use partial_sync_core::PageSize;
use partial_sync_transport::{
    Features, PageSelector, PagesRequest, Remote, RemoteError, RemoteErrorKind, tokens::first,
};
use partial_sync_vfs::{Miss, PageSink};
use roaring::RoaringBitmap;
use tokio::{sync::watch, time::Instant};

use crate::fetch::request::put;

/// How long the remote may think about a statement before the page is asked for without it; of all waits here, a query has time
/// left for that.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a miss waits for the next page of an answer that another miss asked for;
const STALL: Duration = Duration::from_secs(1);
/// and for its own page, while others come: it may not be among them, and what it waits for is bounded.
const FOLLOWED: Duration = Duration::from_secs(3);
/// Bytes that come along with the pages asked for, at most, the first time that a statement is sent;
const BUDGET: usize = 4 << 20;
/// and so many times more each time that it is sent again.
const GROWTH: usize = 4;
/// Longest SQL text that is sent.
const LONGEST: usize = 64 << 10;
/// Statements that are remembered as sent.
const REMEMBERED: usize = 256;

/// What is known about what a remote prefetches.
pub(crate) struct StatementPrefetch {
    /// Whether the remote can.
    able: AtomicBool,
    /// Hashes of (statement, revision) that were sent, and what may come along the next time; `None`: there is none.
    sent: Mutex<VecDeque<(u64, Option<usize>)>>,
    /// Statements that are being answered: how many pages came; the channel closes at the end. `None`: nobody waits for it.
    in_flight: Mutex<HashMap<u64, Option<watch::Receiver<usize>>>>,
}

/// What a miss has to do with the request that names its statement.
pub(crate) enum Flight<'h> {
    /// Send the statement.
    Lead(FlightGuard<'h>),
    /// The same statement is being answered already; what this miss wants may be among it.
    Follow(watch::Receiver<usize>),
    /// It is, and another miss has waited for it in vain: what it touches comes in another order there.
    Alone,
}

/// The request that names a statement; it ends when this is dropped.
pub(crate) struct FlightGuard<'h> {
    prefetch: &'h StatementPrefetch,
    key: u64,
    came: watch::Sender<usize>,
}

impl Drop for FlightGuard<'_> {
    fn drop(&mut self) {
        self.prefetch.in_flight.lock().remove(&self.key);
    }
}

/// A statement worth sending.
pub(crate) struct PrefetchedStatement {
    sql: String,
    key: u64,
    budget: usize,
}

impl StatementPrefetch {
    pub(crate) fn new(able: bool) -> Self {
        Self {
            able: AtomicBool::new(able),
            sent: Mutex::default(),
            in_flight: Mutex::default(),
        }
    }

    /// An answer said what the remote can.
    pub(crate) fn learn(&self, features: Features) {
        self.able.store(features.hydrate, Ordering::Relaxed);
    }

    /// The statement of a miss, if it is one that the remote could run and has not been sent.
    pub(crate) fn statement(&self, miss: &Miss) -> Option<PrefetchedStatement> {
        let sql = miss
            .statement
            .as_ref()
            .filter(|_| self.able.load(Ordering::Relaxed))?;
        if sql.len() > LONGEST
            || !is_select(sql)
            || sql.contains(crate::log::OWN_PREFIX)
            || sql.contains("sqlite_dbpage")
        {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (sql, miss.base.revision.as_str()).hash(&mut hasher);
        let key = hasher.finish();
        let sent = self.sent.lock().iter().find(|sent| sent.0 == key).copied();
        Some(PrefetchedStatement {
            sql: sql.clone(),
            key,
            budget: sent.map_or(Some(BUDGET), |sent| sent.1)?,
        })
    }

    /// Who sends the statement: one miss at a time.
    pub(crate) fn join(&self, statement: &PrefetchedStatement) -> Flight<'_> {
        let mut in_flight = self.in_flight.lock();
        if let Some(end) = in_flight.get(&statement.key) {
            return end.clone().map_or(Flight::Alone, Flight::Follow);
        }
        let (came, receiver) = watch::channel(0);
        in_flight.insert(statement.key, Some(receiver));
        Flight::Lead(FlightGuard {
            prefetch: self,
            key: statement.key,
            came,
        })
    }

    /// Waits for the answer to a statement, for as long as pages come, but not for ever, and `is_here` is false. False when it
    /// may still be answered, without what this miss wants.
    pub(crate) async fn follow(
        &self,
        statement: &PrefetchedStatement,
        mut came: watch::Receiver<usize>,
        deadline: Duration,
        is_here: impl Fn() -> bool,
    ) -> bool {
        let until = Instant::now() + FOLLOWED.min(deadline / 4);
        while !is_here() {
            let stalls = Instant::now() + STALL;
            match tokio::time::timeout_at(stalls.min(until), came.changed()).await {
                Ok(Ok(())) if Instant::now() < until => {}
                // It is dropped at the end.
                Ok(Err(_)) => return true,
                Err(_) if stalls <= until => {
                    self.remember(statement, None);
                    return false;
                }
                Ok(Ok(())) | Err(_) => {
                    if let Some(end) = self.in_flight.lock().get_mut(&statement.key) {
                        *end = None;
                    }
                    return false;
                }
            }
        }
        true
    }

    fn remember(&self, statement: &PrefetchedStatement, next: Option<usize>) {
        let mut sent = self.sent.lock();
        sent.retain(|sent| sent.0 != statement.key);
        if sent.len() >= REMEMBERED {
            sent.pop_front();
        }
        sent.push_back((statement.key, next));
    }

    /// Asks for the pages of `plain` and for what the statement touches. True when every page of `plain` came.
    pub(crate) async fn fetch_with_statement(
        &self,
        remote: &dyn Remote,
        plain: &PagesRequest,
        statement: &PrefetchedStatement,
        flight: &FlightGuard<'_>,
        sink: &dyn PageSink,
    ) -> Result<bool, RemoteError> {
        let PageSelector::Ids(asked) = &plain.select else {
            return Ok(false);
        };
        let mut missing: RoaringBitmap = asked.clone();
        let pages = |bytes: usize, page: PageSize| (bytes / page.as_usize()) as u64;
        let request = PagesRequest {
            query: Some(statement.sql.clone()),
            have: Some(sink.have()),
            most_along: plain
                .page_size
                .and_then(|page| NonZeroU64::new(pages(statement.budget, page))),
            ..plain.clone()
        };
        let patience = plain
            .deadline
            .map_or(PATIENCE, |deadline| PATIENCE.min(deadline / 2));
        let mut answer = match tokio::time::timeout(patience, remote.pages(request)).await {
            Ok(Ok(answer)) => answer,
            // Refused, or too busy for statements: the page alone may still be had. Anything else would fail for it too.
            Ok(Err(error)) if !matches!(error.kind, RemoteErrorKind::Refused | RemoteErrorKind::Failed) => {
                return Err(error);
            }
            Ok(Err(_)) | Err(_) => {
                self.remember(statement, None);
                return Ok(false);
            }
        };
        self.learn(answer.header.features);
        let mut extra = 0;
        while let Some(next) = answer.pages.next().await {
            let page = match next {
                Ok(page) => page,
                // Cut off: what was asked for and has not come is asked for alone; what would have come along can wait.
                Err(_) => {
                    self.remember(statement, None);
                    return Ok(missing.is_empty());
                }
            };
            put(sink, &page)?;
            flight.came.send_modify(|pages| *pages += 1);
            if !missing.remove(page.id.0) {
                extra += page.data.len();
            }
            if extra > statement.budget {
                // A remote that was not told how much, or does not know of that. What is on its way is lost.
                break;
            }
        }
        // What is asked for comes first: without it, the remote is odd.
        let all_came = missing.is_empty();
        let has_more = all_came && extra >= statement.budget;
        self.remember(
            statement,
            has_more.then(|| statement.budget.saturating_mul(GROWTH)),
        );
        Ok(all_came)
    }
}

/// Whether the text begins as a query does.
pub(crate) fn is_select(sql: &str) -> bool {
    first(sql).is_some_and(|word| ["SELECT", "WITH", "VALUES"].iter().any(|query| word.is(query)))
}

#[cfg(test)]
mod tests {
    use partial_sync_core::{Epoch, PageCount, PageNo, Revision};
    use partial_sync_vfs::{Base, Miss};

    use super::*;

    /// It waited for as long as others came, whatever its own deadline, and its query failed; then three seconds, and so did each of
    /// the next ones.
    #[tokio::test(start_paused = true)]
    async fn a_miss_that_is_not_among_what_its_statement_touches_does_not_wait_for_all_of_that() {
        for (deadline, most) in [(30_000, FOLLOWED), (1000, Duration::from_millis(250))] {
            let prefetch = StatementPrefetch::new(true);
            let page = PageNo::new(7).unwrap();
            let miss = Miss {
                wanted: page,
                pages: vec![page],
                base: Base {
                    revision: Revision::new("1").unwrap(),
                    size: PageCount(100),
                },
                epoch: Epoch(0),
                statement: Some("select 1".into()),
            };
            let statement = prefetch.statement(&miss).unwrap();
            let Flight::Lead(flight) = prefetch.join(&statement) else {
                panic!("nobody leads");
            };
            let Flight::Follow(came) = prefetch.join(&statement) else {
                panic!("two lead");
            };
            let began = Instant::now();
            let pages_come = async {
                loop {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    flight.came.send_modify(|pages| *pages += 1);
                }
            };
            let deadline = Duration::from_millis(deadline);
            tokio::select! {
                () = pages_come => {}
                () = tokio::time::sleep(deadline) => panic!("its query has failed"),
                has_ended = prefetch.follow(&statement, came, deadline, || false) => assert!(!has_ended),
            }
            assert!(began.elapsed() <= most + Duration::from_millis(100));
            // It is on its way all the same, and no other miss waits for it in vain.
            let again = prefetch.statement(&miss).unwrap();
            assert!(matches!(prefetch.join(&again), Flight::Alone));
            drop(flight);
            assert!(matches!(prefetch.join(&again), Flight::Lead(_)));
        }
    }

    #[test]
    fn only_queries_are_sent() {
        for sql in [
            "select 1",
            " -- a\n/* b */ SELECT 1",
            "With a as (select 1) select * from a",
            "values (1)",
        ] {
            assert!(is_select(sql), "{sql}");
        }
        for sql in ["", "--", "/* select", "insert into t select 1", "pragma x", "é"] {
            assert!(!is_select(sql), "{sql}");
        }
    }
}
