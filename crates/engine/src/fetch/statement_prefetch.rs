//! Statement prefetch: a miss carries the SQL that caused it, and a remote that can (`hydrate` in
//! `partial-sync-features`) runs it at the pinned revision and sends every page that it touches and that is not here. A cold
//! query then takes one round trip, whatever it looks up.
//!
//! Only a SELECT is sent, with its values written out; only while `prefetch` is on. What the remote refuses or is slow with is
//! fetched as without it, and not asked again. It must never make an answer wrong or a query fail: it only brings pages.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::StreamExt;
use parking_lot::Mutex;
use partial_sync_transport::{
    Features, PageSelector, PagesRequest, Remote, RemoteError, RemoteErrorKind, tokens::first,
};
use partial_sync_vfs::{Miss, PageSink};
use roaring::RoaringBitmap;
use tokio::sync::watch;

use crate::fetch::request::put;

/// How long the remote may think about a statement before the page is asked for without it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes that come along with the pages asked for, at most.
const BUDGET: usize = 16 << 20;
/// Longest SQL text that is sent.
const LONGEST: usize = 64 << 10;
/// Statements that are remembered as done or refused.
const REMEMBERED: usize = 256;

/// What is known about what a remote prefetches.
pub(crate) struct StatementPrefetch {
    /// Whether the remote can.
    able: AtomicBool,
    /// Hashes of (statement, revision) that need not be sent again.
    done: Mutex<VecDeque<u64>>,
    /// Statements that are being answered; the channel closes at the end.
    in_flight: Mutex<HashMap<u64, watch::Receiver<()>>>,
}

/// What a miss has to do with the request that names its statement.
pub(crate) enum Flight<'h> {
    /// Send the statement.
    Lead(FlightGuard<'h>),
    /// The same statement is being answered already; what this miss wants may be among it.
    Follow(watch::Receiver<()>),
}

/// The request that names a statement; it ends when this is dropped.
pub(crate) struct FlightGuard<'h> {
    prefetch: &'h StatementPrefetch,
    key: u64,
    _end: watch::Sender<()>,
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
}

impl StatementPrefetch {
    pub(crate) fn new(able: bool) -> Self {
        Self {
            able: AtomicBool::new(able),
            done: Mutex::default(),
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
        (!self.done.lock().contains(&key)).then(|| PrefetchedStatement {
            sql: sql.clone(),
            key,
        })
    }

    /// Who sends the statement: one miss at a time.
    pub(crate) fn join(&self, statement: &PrefetchedStatement) -> Flight<'_> {
        let mut in_flight = self.in_flight.lock();
        if let Some(end) = in_flight.get(&statement.key) {
            return Flight::Follow(end.clone());
        }
        let (sender, receiver) = watch::channel(());
        in_flight.insert(statement.key, receiver);
        Flight::Lead(FlightGuard {
            prefetch: self,
            key: statement.key,
            _end: sender,
        })
    }

    fn remember(&self, key: u64) {
        let mut done = self.done.lock();
        if done.len() >= REMEMBERED {
            done.pop_front();
        }
        done.push_back(key);
    }

    /// Asks for the pages of `plain` and for what the statement touches. True when every page of `plain` came.
    pub(crate) async fn fetch_with_statement(
        &self,
        remote: &dyn Remote,
        plain: &PagesRequest,
        statement: &PrefetchedStatement,
        sink: &dyn PageSink,
    ) -> Result<bool, RemoteError> {
        let PageSelector::Ids(asked) = &plain.select else {
            return Ok(false);
        };
        let mut missing: RoaringBitmap = asked.clone();
        let request = PagesRequest {
            query: Some(statement.sql.clone()),
            have: Some(sink.have()),
            ..plain.clone()
        };
        let mut answer = match tokio::time::timeout(PATIENCE, remote.pages(request)).await {
            Ok(Ok(answer)) => answer,
            // Refused, or too busy for statements: the page alone may still be had. Anything else would fail for it too.
            Ok(Err(error)) if !matches!(error.kind, RemoteErrorKind::Refused | RemoteErrorKind::Failed) => {
                return Err(error);
            }
            Ok(Err(_)) | Err(_) => {
                self.remember(statement.key);
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
                    self.remember(statement.key);
                    return Ok(missing.is_empty());
                }
            };
            put(sink, &page)?;
            if !missing.remove(page.id.0) {
                extra += page.data.len();
            }
            if extra > BUDGET && missing.is_empty() {
                return Ok(true);
            }
        }
        self.remember(statement.key);
        Ok(missing.is_empty())
    }
}

/// Whether the text begins as a query does.
fn is_select(sql: &str) -> bool {
    first(sql).is_some_and(|word| ["SELECT", "WITH", "VALUES"].iter().any(|query| word.is(query)))
}

#[cfg(test)]
mod tests {
    use super::is_select;

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
