//! The batons: streams that wait for their next request, each under a token that nobody can guess and that is good for
//! one use; and the idle connections that the next request without a baton takes.
//!
//! The locks here are held for a few map operations, never while SQLite works or a connection closes.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use partial_sync_transport::hrana;
use partial_sync_vfs::temporary::Quota;
use rustls::crypto::SecureRandom;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::AbortHandle,
    time,
};

use super::{
    budget::AnswerBytes,
    connection::SqlConnection,
    error::{code, error, read_ended},
    options::HranaOptions,
    places::{Open, Places},
    running::{Cancel, Requests, Running},
    stream::{Stream, Texts},
    writers::Writers,
};
use crate::{
    access::{Access, CallerId, CommitListener, DatabaseHandle},
    turns::{NoTurn, Turn, Turns},
};

/// Bytes of randomness in a baton.
const TOKEN_BYTES: usize = 24;

/// Large bodies that are read at the same time: reading takes a processor and the memory of a statement.
const BODIES_READ_AT_ONCE: usize = 4;

/// How long closing connections may take.
const LAST_CLOSES: Duration = Duration::from_secs(1);

/// How often is looked whether a transaction that waits keeps the log from being emptied.
pub(super) const LOOK_AT_READERS: Duration = Duration::from_millis(250);

/// Bytes of the texts that are stored in all streams that wait.
const TEXTS: usize = 16 << 20;

/// From so many queues on, those of databases without connections are forgotten.
const MANY_QUEUES: usize = 256;

/// What a stream and an idle connection belong to.
#[derive(Clone)]
pub(super) struct Owner {
    /// Of one opening of a database: the same path may lead to another file after it.
    pub path: Arc<PathBuf>,
    pub access: Access,
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.path, &other.path) && self.access == other.access
    }
}

/// All streams of a server that wait.
pub(super) struct Streams {
    options: HranaOptions,
    random: &'static dyn SecureRandom,
    parked: Mutex<HashMap<String, Parked>>,
    /// The one given back last is at the end.
    idle: Mutex<VecDeque<(Owner, SqlConnection)>>,
    /// For who only reads, and for who may have to wait for another writer.
    turns: (Turns, Turns),
    places: Arc<Places>,
    /// A large body is read while one of these is held.
    reading: Arc<Semaphore>,
    answers: Arc<AnswerBytes>,
    /// Temporary files of everybody, and those of who may only read.
    temporary: (Quota, Quota),
    requests: Arc<Requests>,
    /// Who writes next, for each database.
    writers: Mutex<HashMap<Arc<PathBuf>, Arc<Writers>>>,
    count: watch::Sender<usize>,
    /// Orders the parked streams by age.
    clock: AtomicU64,
}

/// A stream between two requests.
struct Parked {
    stream: Waiting,
    owner: Owner,
    caller: CallerId,
    parked_at: u64,
    expiry: AbortHandle,
}

/// What is kept of a stream while it waits: its connection only when there is something in it.
pub(super) struct Waiting {
    pub connection: Option<SqlConnection>,
    pub texts: Texts,
    /// Its open transaction.
    pub open: Option<Open>,
    /// Its transaction was ended: see [`read_ended`].
    pub read_ended: bool,
}

/// The right to run one request.
pub(super) struct Lease {
    pub waiting: Option<Waiting>,
    pub running: Running,
    /// Given back when the request is done.
    pub turn: Option<Turn>,
}

/// Why a request cannot run at all.
pub(super) enum Unavailable {
    /// The baton is not valid (400).
    Baton(hrana::Error),
    /// There is no room (503).
    Busy(hrana::Error),
}

impl Streams {
    pub(super) fn new(options: HranaOptions) -> Self {
        let turns = || Turns::new(options.concurrent_requests, options.caller_requests);
        Self {
            random: rustls::crypto::ring::default_provider().secure_random,
            parked: Mutex::default(),
            idle: Mutex::default(),
            turns: (turns(), turns()),
            places: Places::new(options.batons, options.caller_batons),
            reading: Arc::new(Semaphore::new(BODIES_READ_AT_ONCE)),
            answers: AnswerBytes::new(options.all_answer_bytes),
            temporary: quotas(options.temporary_bytes),
            requests: Arc::default(),
            writers: Mutex::default(),
            count: watch::Sender::new(0),
            clock: AtomicU64::new(0),
            options,
        }
    }

    pub(super) fn options(&self) -> &HranaOptions {
        &self.options
    }

    /// What all answers together may take.
    pub(super) fn answers(&self) -> Arc<AnswerBytes> {
        self.answers.clone()
    }

    /// The turn to read a large body; `None` never comes.
    pub(super) async fn reading_turn(&self) -> Option<OwnedSemaphorePermit> {
        self.reading.clone().acquire_owned().await.ok()
    }

    /// What the temporary files of an owner's statements count in.
    pub(super) fn temporary(&self, owner: &Owner) -> &Quota {
        match owner.access {
            Access::ReadOnly => &self.temporary.1,
            Access::Full => &self.temporary.0,
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// Takes the stream of a baton, or makes room for a new one, for a request that may write or does not.
    pub(super) async fn lease(
        &self,
        owner: &Owner,
        caller: CallerId,
        (baton, may_write): (Option<&str>, bool),
        cancel: &Arc<Cancel>,
    ) -> Result<Lease, Unavailable> {
        // Others may wait for the COMMIT of a client that writes; it waits for nobody. Its transaction has a place instead.
        let has_place = owner.access == Access::Full && baton.is_some_and(|token| self.is_open(token));
        let turn = match (has_place, owner.access, may_write) {
            (true, ..) => None,
            (_, Access::Full, true) => Some(self.turn(&self.turns.1, caller).await?),
            _ => Some(self.turn(&self.turns.0, caller).await?),
        };
        let Some(running) = self.requests.begin(&owner.path, caller, cancel) else {
            return Err(Unavailable::Busy(error(
                code::SERVER_BUSY,
                "the server is stopping: try again later",
            )));
        };
        let waiting = match baton {
            Some(token) => Some(self.take(owner, token).map_err(Unavailable::Baton)?),
            None => None,
        };
        Ok(Lease {
            waiting,
            running,
            turn,
        })
    }

    /// Whether a transaction waits under a baton.
    pub(super) fn is_open(&self, token: &str) -> bool {
        let parked = self.parked.lock();
        parked.get(token).is_some_and(|p| p.stream.open.is_some())
    }

    async fn turn(&self, turns: &Turns, caller: CallerId) -> Result<Turn, Unavailable> {
        let whose = match turns.take(caller, self.options.statement_timeout).await {
            Ok(turn) => return Ok(turn),
            Err(NoTurn::Caller(most)) => {
                format!("{most} requests of this caller are running, which is its share")
            }
            Err(NoTurn::Server(most)) => format!("{most} requests are running"),
        };
        Err(Unavailable::Busy(error(
            code::SERVER_BUSY,
            format!("{whose}, and none of them ended in time: try again later"),
        )))
    }

    fn take(&self, owner: &Owner, token: &str) -> Result<Waiting, hrana::Error> {
        let mut parked = self.parked.lock();
        if parked.get(token).is_some_and(|p| p.owner != *owner) {
            return Err(error(
                code::STREAM_ACCESS,
                "this baton was given for another database, or with a token of other rights",
            ));
        }
        let found = parked.remove(token);
        self.count_waiting(&parked);
        drop(parked);
        match found {
            Some(found) if found.stream.read_ended => {
                found.expiry.abort();
                return Err(read_ended(self.options.wal_bytes));
            }
            Some(found) if self.time_left(&found.stream) != Some(Duration::ZERO) => {
                found.expiry.abort();
                return Ok(found.stream);
            }
            Some(found) => {
                found.expiry.abort();
                tokio::task::spawn_blocking(move || drop(found.stream));
            }
            None => {}
        }
        Err(error(
            code::STREAM_EXPIRED,
            format!(
                "this baton is not valid: its stream was closed, was not used for {:?}, or continues under a \
                 newer baton. A transaction that was open in it has been rolled back (at the latest after {:?}): \
                 start it again",
                self.options.baton_idle, self.options.transaction_timeout
            ),
        ))
    }

    /// How long the transaction of a stream may still be open; `None` without one.
    fn time_left(&self, stream: &Waiting) -> Option<Duration> {
        let limit = self.options.transaction_timeout;
        let open = stream.open.as_ref();
        open.map(|open| limit.saturating_sub(open.since.elapsed()))
    }

    /// A connection for a new request: an idle one, or one opened now. Blocks.
    pub(super) fn connect(
        &self,
        database: &DatabaseHandle,
        owner: &Owner,
    ) -> Result<SqlConnection, hrana::Error> {
        let idle = {
            let mut idle = self.idle.lock();
            let newest = idle.iter().rposition(|(of, _)| of == owner);
            newest.and_then(|at| idle.remove(at))
        };
        match idle {
            Some((_, connection)) => Ok(connection),
            None => SqlConnection::open(
                database,
                owner.access == Access::ReadOnly,
                &self.options,
                self.writers_of(&owner.path),
            ),
        }
    }

    /// The queue of a database.
    fn writers_of(&self, path: &Arc<PathBuf>) -> Arc<Writers> {
        let mut writers = self.writers.lock();
        if writers.len() > MANY_QUEUES {
            // Every connection has one of its database's.
            writers.retain(|_, queue| Arc::strong_count(queue) > 1);
        }
        writers.entry(path.clone()).or_default().clone()
    }

    /// Keeps a connection for the next request when it is as good as new; closes it otherwise. Blocks.
    pub(super) fn give_back(&self, owner: &Owner, connection: SqlConnection) {
        if !connection.is_pristine() {
            return;
        }
        let mut idle = self.idle.lock();
        idle.push_back((owner.clone(), connection));
        let oldest = (idle.len() > self.options.idle_connections).then(|| idle.pop_front());
        drop(idle);
        // Closed without the lock.
        drop(oldest);
    }

    /// A place for a transaction that has begun now and is to be kept.
    pub(super) fn place(&self, caller: CallerId) -> Result<Open, hrana::Error> {
        self.places.take(caller)
    }

    /// What has to be kept of a stream until its next request, with its transaction if one is open. Blocks.
    pub(super) fn fold(&self, owner: &Owner, stream: Stream, open: Option<Open>) -> Waiting {
        let (connection, texts) = stream.into_parts();
        if connection.is_read_ended() {
            return Waiting {
                connection: None,
                texts,
                open: None,
                read_ended: true,
            };
        }
        let connection = if connection.is_pristine() {
            self.give_back(owner, connection);
            None
        } else {
            Some(connection)
        };
        Waiting {
            connection,
            texts,
            open,
            read_ended: false,
        }
    }

    /// A new token.
    pub(super) fn token(&self) -> Result<String, hrana::Error> {
        let mut bytes = [0; TOKEN_BYTES];
        self.random
            .fill(&mut bytes)
            .map_err(|_| error(code::INTERNAL, "the system has no randomness to give"))?;
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Lets a stream wait for its next request, but not for ever.
    pub(super) fn park(
        self: &Arc<Self>,
        token: String,
        owner: Owner,
        caller: CallerId,
        log: Arc<dyn CommitListener>,
        stream: Waiting,
    ) {
        let mut parked = self.parked.lock();
        let expiry = {
            let streams = Arc::downgrade(self);
            let token = token.clone();
            let left = self.time_left(&stream).unwrap_or(Duration::MAX);
            let expires = time::Instant::now() + self.options.baton_idle.min(left);
            let in_transaction = stream.connection.as_ref().filter(|_| stream.open.is_some());
            let mut reader = in_transaction.map(SqlConnection::brake);
            tokio::spawn(async move {
                while let Some(brake) = &reader {
                    let look = time::Instant::now() + LOOK_AT_READERS;
                    if look >= expires {
                        break;
                    }
                    time::sleep_until(look).await;
                    let Some(streams) = streams.upgrade() else { return };
                    if brake.end_old_read(&*log, &streams.options) {
                        streams.end_read(&token).await;
                        reader = None;
                    }
                }
                time::sleep_until(expires).await;
                if let Some(streams) = streams.upgrade() {
                    let expired = streams.parked.lock().remove(&token);
                    streams.dispose(expired.map(|p| p.stream)).await;
                }
            })
            .abort_handle()
        };
        let mut evicted = Vec::new();
        if parked.len() >= self.options.batons {
            let idle = |stream: &Waiting| usize::from(stream.open.is_none());
            evicted.extend(take_oldest_of_most(&mut parked, idle));
        }
        let of_others = |parked: &HashMap<String, Parked>| -> usize {
            parked.values().map(|p| p.stream.texts.bytes()).sum()
        };
        let room = TEXTS.saturating_sub(stream.texts.bytes());
        while of_others(&parked) > room {
            evicted.extend(take_oldest_of_most(&mut parked, |stream| stream.texts.bytes()));
        }
        parked.insert(
            token,
            Parked {
                stream,
                owner,
                caller,
                parked_at: self.clock.fetch_add(1, Ordering::Relaxed),
                expiry,
            },
        );
        self.count_waiting(&parked);
        drop(parked);
        for gone in evicted {
            gone.expiry.abort();
            tokio::task::spawn_blocking(move || drop(gone.stream));
        }
    }

    /// Ends the transaction of a stream that waits, whose client is told when it comes back.
    async fn end_read(&self, token: &str) {
        let ended = self.parked.lock().get_mut(token).map(|p| {
            p.stream.read_ended = true;
            Waiting {
                connection: p.stream.connection.take(),
                texts: Texts::default(),
                open: p.stream.open.take(),
                read_ended: true,
            }
        });
        self.dispose(ended).await;
    }

    fn count_waiting(&self, parked: &HashMap<String, Parked>) {
        let waiting = parked.values().filter(|p| !p.stream.read_ended);
        self.count.send_replace(waiting.count());
    }

    /// Closes what waits, rolling back. When it is done, the locks of the transactions are free.
    async fn dispose(&self, streams: impl IntoIterator<Item = Waiting>) {
        let streams: Vec<_> = streams.into_iter().collect();
        let closed = tokio::task::spawn_blocking(move || drop(streams)).await;
        if let Err(cause) = closed {
            tracing::error!(%cause, "closing a connection failed");
        }
        self.count_waiting(&self.parked.lock());
    }

    /// Interrupts what runs, rolls back and closes everything. Ends in time whatever runs: what cannot be interrupted is left
    /// to its thread.
    pub(super) async fn shut_down(&self) {
        self.requests.stop();
        self.requests.end(|_, _| true).await;
        self.close_where(|_| true, |_| true).await;
    }

    /// Whether a client may come back to a connection of this opening of a database.
    pub(super) fn is_using(&self, path: &Arc<PathBuf>) -> bool {
        let parked = self.parked.lock();
        parked
            .values()
            .any(|p| p.stream.connection.is_some() && Arc::ptr_eq(&p.owner.path, path))
    }

    /// Rolls back and closes the connection that has waited for longest, of the caller who has the most.
    pub(super) async fn end_oldest_of_most(&self) -> bool {
        let open = |stream: &Waiting| usize::from(stream.connection.is_some());
        let oldest = take_oldest_of_most(&mut self.parked.lock(), open);
        let Some(oldest) = oldest else { return false };
        oldest.expiry.abort();
        self.dispose([oldest.stream]).await;
        true
    }

    /// Interrupts what runs in one opening of a database, rolls back and closes everything.
    pub(super) async fn close_of(&self, path: &Arc<PathBuf>) {
        self.requests.end(|of, _| Arc::ptr_eq(of, path)).await;
        let of_path = |owner: &Owner| Arc::ptr_eq(&owner.path, path);
        self.close_where(|parked| of_path(&parked.owner), of_path).await;
    }

    /// Interrupts what runs for these callers, rolls back and closes what waits for them.
    pub(super) async fn end_of(&self, callers: &[CallerId]) {
        self.requests.end(|_, of| callers.contains(&of)).await;
        self.close_where(|parked| callers.contains(&parked.caller), |_| false)
            .await;
    }

    /// Of the streams that wait, and of the connections that wait for anybody.
    async fn close_where(&self, belongs: impl Fn(&Parked) -> bool, is_of: impl Fn(&Owner) -> bool) {
        let parked: Vec<_> = self
            .parked
            .lock()
            .extract_if(|_, p| belongs(p))
            .map(|(_, p)| p)
            .collect();
        let idle: Vec<_> = {
            let mut idle = self.idle.lock();
            let (gone, kept) = std::mem::take(&mut *idle)
                .into_iter()
                .partition::<VecDeque<_>, _>(|(owner, _)| is_of(owner));
            *idle = kept;
            gone.into()
        };
        let idle = idle.into_iter().map(|(_, connection)| Waiting {
            connection: Some(connection),
            texts: Texts::default(),
            open: None,
            read_ended: false,
        });
        let parked = parked.into_iter().map(|p| {
            p.expiry.abort();
            p.stream
        });
        let closed = self.dispose(parked.chain(idle).collect::<Vec<_>>());
        if time::timeout(LAST_CLOSES, closed).await.is_err() {
            tracing::warn!("connections that take long to close are left to be closed");
        }
    }
}

/// Takes the oldest stream that weighs something, of the caller whose streams weigh most together.
fn take_oldest_of_most(
    parked: &mut HashMap<String, Parked>,
    weight: impl Fn(&Waiting) -> usize,
) -> Option<Parked> {
    let mut weights = HashMap::<CallerId, usize>::new();
    for p in parked.values() {
        *weights.entry(p.caller).or_default() += weight(&p.stream);
    }
    let heavy = parked.iter().filter(|(_, p)| weight(&p.stream) > 0);
    let oldest = heavy.min_by_key(|(_, p)| (Reverse(weights[&p.caller]), p.parked_at));
    let token = oldest.map(|(token, _)| token.clone())?;
    parked.remove(&token)
}

/// For everybody, and for who may only read.
fn quotas(bytes: u64) -> (Quota, Quota) {
    let all = Quota::new(bytes, bytes);
    let readers = all.with_limits(bytes / 4, bytes / 2);
    (all, readers)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl CommitListener for Nobody {
        fn committed(
            &self,
        ) -> futures_util::future::BoxFuture<'static, Result<(), crate::access::NotCommitted>> {
            Box::pin(std::future::ready(Ok(())))
        }
    }

    /// Was red: every request with a baton of a client that may write ran at once, so that batons without a transaction were a
    /// way around the number of requests that run.
    #[tokio::test]
    async fn v1_a_baton_is_a_turn_only_for_who_may_write_and_has_a_transaction() {
        let streams = Arc::new(Streams::new(HranaOptions {
            concurrent_requests: 1,
            statement_timeout: Duration::from_millis(1),
            ..HranaOptions::default()
        }));
        let path = Arc::default();
        let owner = |access| Owner {
            path: Arc::clone(&path),
            access,
        };
        let caller = CallerId::ANYONE;
        let park = |token: &str, access, open| {
            let stream = Waiting {
                connection: None,
                texts: Texts::default(),
                open,
                read_ended: false,
            };
            streams.park(token.to_owned(), owner(access), caller, Arc::new(Nobody), stream);
        };
        let place = || streams.place(caller).ok();
        park("open", Access::Full, place());
        park("idle", Access::Full, None);
        park("reader", Access::ReadOnly, place());
        let lease = async |access, baton, writes| {
            let cancel = Arc::default();
            streams
                .lease(&owner(access), caller, (baton, writes), &cancel)
                .await
        };
        let held = [
            lease(Access::Full, None, true).await,
            lease(Access::Full, None, false).await,
        ];
        assert!(held.iter().all(Result::is_ok), "reads have turns of their own");
        for (token, access, waits) in [
            ("open", Access::Full, false),
            ("idle", Access::Full, true),
            ("reader", Access::ReadOnly, true),
            ("unknown", Access::Full, true),
        ] {
            let refused = lease(access, Some(token), false).await.err();
            assert_eq!(matches!(refused, Some(Unavailable::Busy(_))), waits, "{token}");
        }
        drop(held);
        for (token, access) in [("idle", Access::Full), ("reader", Access::ReadOnly)] {
            assert!(lease(access, Some(token), true).await.is_ok());
        }
    }
    /// Was red: 256 streams with a megabyte each, of a client that may only read, and none of it was counted.
    #[tokio::test]
    async fn v2_texts_that_are_stored_in_streams_have_a_budget_together() {
        const EACH: usize = 1_000_000;
        let streams = Arc::new(Streams::new(HranaOptions::default()));
        let owner = Owner {
            path: Arc::default(),
            access: Access::ReadOnly,
        };
        let park = |token: String, caller, open| {
            let mut texts = Texts::default();
            assert!(texts.insert(1, "x".repeat(EACH)).is_ok());
            let stream = Waiting {
                connection: None,
                texts,
                open,
                read_ended: false,
            };
            streams.park(token, owner.clone(), caller, Arc::new(Nobody), stream);
        };
        let (hog, honest) = (CallerId::of_token("hog"), CallerId::of_token("honest"));
        park("honest".to_owned(), honest, None);
        for n in 0..100 {
            // A transaction keeps no text.
            let open = (n % 2 == 0).then(|| streams.place(hog).ok()).flatten();
            park(n.to_string(), hog, open);
        }
        let parked = streams.parked.lock();
        assert!(
            parked.len() * EACH <= TEXTS && parked.len() > TEXTS / EACH - 2,
            "{}",
            parked.len()
        );
        assert!(parked.contains_key("honest") && parked.contains_key("99"));
    }
}
