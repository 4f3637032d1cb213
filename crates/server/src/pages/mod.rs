//! `POST /pull-updates`: which pages of which revision a request means, and the stream of them.
//!
//! Reads go through [`RevisionReader`], which holds nothing between two reads: an answer may take as long as its client
//! likes without keeping the WAL from being reset. Nothing here writes, and no request holds more than a few hundred
//! KiB of pages.

mod at_once;
mod given;
mod in_flight;
mod query;
mod reader;
mod refusal;
mod selection;
mod sqlite_query;
mod stream;
mod touched;
mod turns;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use partial_sync_core::{PageId, PageNo};
use partial_sync_transport::{
    ApplyMode, Features, PageSelector, PagesRequest,
    wire::{FEATURES_HEADER, PROTOBUF, PageEncoding, PullUpdatesHeader, PullUpdatesRequest, encode_frame},
};
use partial_sync_vfs::{sqlite::memory, temporary::Quota};
use prost::Message;
use roaring::RoaringBitmap;
use tokio::sync::watch;

use crate::{
    access::{Access, Caller, CallerId},
    front::{UnderWay, counted},
    metrics::{Metrics, Polled},
    states::{Statement, States},
    turns::{NoTurn, Turn, Turns},
};
use given::Asked;
pub use given::Given;
pub use in_flight::InFlight;
pub use query::{QueryError, QueryLimits, QueryRunner};
pub use reader::RevisionReader;
pub use refusal::Refusal;
use selection::Revisions;
pub use sqlite_query::SnapshotQueries;
pub use touched::Touched;
use touched::{Coming, Running};
pub use turns::ReadTurns;

/// How long a statement of which the pages come along waits for its turn.
const ALONG: Duration = Duration::from_secs(2);

/// What the endpoint needs besides the database.
#[derive(Clone)]
pub struct PagesEndpoint {
    /// Runs query selectors.
    pub queries: Arc<dyn QueryRunner>,
    /// How much a query selector may cost.
    pub query_limits: QueryLimits,
    /// A query selector runs while it holds one of these: each keeps a thread busy.
    pub query_turns: Arc<Turns>,
    /// What the temporary files of query selectors count in.
    pub temporary: Quota,
    /// What answers have of memory.
    pub in_flight: InFlight,
    /// Everything else that blocks.
    pub read_turns: ReadTurns,
    /// Small answers.
    pub given: Arc<Given>,
    /// The longest long poll.
    pub longest_poll: Duration,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Becomes `true` when the server stops: long polls then answer at once.
    pub stopping: watch::Receiver<bool>,
}

impl PagesEndpoint {
    async fn query_turn(&self, caller: CallerId, patience: Duration) -> Result<Turn, Refusal> {
        let turn = self.query_turns.take(caller, patience).await;
        turn.map_err(|none| {
            let whose = match none {
                NoTurn::Caller(most) => {
                    format!("{most} query selectors of this caller are running, which is its share")
                }
                NoTurn::Server(most) => format!("{most} query selectors are running"),
            };
            Refusal::busy(format!("{whose}: try again later, or ask without one"))
        })
    }

    /// Answers one request.
    pub(crate) async fn answer(
        &self,
        states: &Arc<dyn States>,
        caller: Caller,
        body: Bytes,
        under_way: &UnderWay,
    ) -> Result<Response, Refusal> {
        let wire = PullUpdatesRequest::decode(body)
            .map_err(|e| Refusal::bad_request(format!("the body is not a pull-updates request: {e}")))?;
        let encoding = wire.page_encoding();
        let request = wire
            .to_request()
            .map_err(|e| Refusal::bad_request(e.to_string()))?;
        let names_a_revision = request.since.is_some() || request.revision.is_some();
        let answer = self.pages(states, caller, request, encoding, under_way).await;
        answer.map_err(|refusal| match states.check_open() {
            Ok(()) => refusal,
            // What is there now is asked by the next request.
            Err(_) => Refusal::replaced(names_a_revision),
        })
    }

    async fn pages(
        &self,
        states: &Arc<dyn States>,
        caller: Caller,
        request: PagesRequest,
        encoding: PageEncoding,
        under_way: &UnderWay,
    ) -> Result<Response, Refusal> {
        let polls = request.long_poll.is_some() && request.since.is_some();
        let waiting = polls.then(|| under_way.wait()).transpose();
        let waiting = waiting.map_err(|_| Refusal::too_many_polls())?;
        let polling = polls.then(|| self.metrics.polling());
        let (turns, stopping) = (&self.read_turns, self.stopping.clone());
        let revisions = selection::resolve(
            states,
            &request,
            turns,
            self.longest_poll,
            stopping,
            waiting.as_ref(),
        );
        let revisions = revisions.await?;
        drop((polling, waiting));
        selection::compared(states, &revisions, &request, self.longest_poll, &self.stopping).await?;
        let features = features(&**states, caller.access);
        let reader = RevisionReader::new(Arc::clone(states), revisions.at);
        let header = PullUpdatesHeader::new(
            &revisions.revision,
            revisions.at.db_size,
            ApplyMode::Incremental,
            encoding,
        );
        if let Some(body) = self.at_once(&reader, &revisions, &request, &header, encoding)? {
            return Ok(respond(body, features, polls));
        }
        let (sql, coming) = match comes_along(&request) {
            true => (None, request.query.clone()),
            false => (request.query.clone(), None),
        };
        let turn = match sql {
            Some(_) => Some(self.query_turn(caller.id, self.query_limits.time).await?),
            None => None,
        };
        let (queries, in_flight, first) = (self.clone(), self.in_flight.clone(), reader.clone());
        let query = |sql: &String| Arc::new(Statement::new(sql.clone(), request.most_along));
        let (sql, coming) = (sql.as_ref().map(query), coming.as_ref().map(query));
        let (comes_along, along_of) = (coming.is_some(), coming.clone());
        let begun = self.read_turns.run(move || -> Result<_, Refusal> {
            let mut selected = selection::selected(&first, &revisions, &request)?;
            let mut along = RoaringBitmap::new();
            if let Some(query) = &sql {
                let touched = Arc::default();
                queries.run_query(&first, query, &touched)?;
                along = touched.all() - &selected;
            }
            drop(turn);
            let have = not_wanted(&request).cloned().unwrap_or_default();
            selected -= &have;
            along -= &have;
            let touched = Touched::but(&selected | have, request.most_along);
            let touched = comes_along.then(|| Arc::new(touched));
            let coming = touched.clone().map(Coming).zip(along_of);
            let mut header = header;
            if request.list {
                header = header.listing(&(std::mem::take(&mut selected) | std::mem::take(&mut along)));
            }
            first.check_none_lost(&selected)?;
            first.check_none_lost(&along)?;
            let ids = [selected, along];
            let is_far = first.states().are_far();
            let batches = stream::Batches::new(first, encoding, ids, coming, in_flight);
            let begin = move |batches: stream::Batches| batches.begin(&header, encoding);
            Ok(match is_far {
                false => (Ok(begin(batches)?), touched),
                true => (Err((batches, begin)), touched),
            })
        });
        let (batches, touched) = begun.await??;
        let batches = match batches {
            Ok(begun) => begun,
            Err((mut batches, begin)) => {
                batches.draw_near().await?;
                self.read_turns.run(move || begin(batches)).await??
            }
        };
        if let (Some(query), Some(touched)) = (coming, touched) {
            tokio::spawn(
                self.clone()
                    .run_meanwhile(reader, caller.id, query, Running(touched)),
            );
        }
        let body = batches.into_body(self.read_turns.clone(), Arc::clone(&self.metrics));
        Ok(respond(body, features, polls))
    }

    /// Notes which pages a query touches. Blocks.
    fn run_query(
        &self,
        reader: &RevisionReader,
        query: &Arc<Statement>,
        touched: &Arc<Touched>,
    ) -> Result<(), QueryError> {
        let (_counted, _guest) = (self.temporary.enter(), memory::as_guest());
        let reader = reader.of_query(query);
        self.queries.run(&reader, &query.sql, &self.query_limits, touched)
    }

    /// The same while its pages are sent. Where it fails, or has no turn soon, fewer pages come along.
    async fn run_meanwhile(
        self,
        reader: RevisionReader,
        caller: CallerId,
        query: Arc<Statement>,
        running: Running,
    ) {
        let patience = self.query_limits.time.min(ALONG);
        let turn = tokio::select! {
            turn = self.query_turn(caller, patience) => turn,
            () = running.0.stopped() => return,
        };
        let ran = match turn {
            Err(refusal) => Err(refusal),
            Ok(turn) => {
                let read_turns = self.read_turns.clone();
                let ran = read_turns.run(move || {
                    let (_turn, running) = (turn, running);
                    self.run_query(&reader, &query, &running.0)
                });
                ran.await.map_err(Refusal::from).and_then(|ran| Ok(ran?))
            }
        };
        if let Err(refusal) = ran {
            tracing::debug!(?refusal, "what a statement touches does not come along");
        }
    }

    /// The whole answer, if it can be had without waiting.
    fn at_once(
        &self,
        reader: &RevisionReader,
        revisions: &Revisions,
        request: &PagesRequest,
        header: &PullUpdatesHeader,
        encoding: PageEncoding,
    ) -> Result<Option<Body>, Refusal> {
        let states = reader.states();
        let most = match request.list && request.since.is_some() {
            // None of them is sent, and few changed lately.
            true => u64::MAX,
            false => at_once::most_pages(states.page_size(), self.in_flight.piece()),
        };
        if request.query.is_some() || (encoding != PageEncoding::Raw && !request.list) {
            return Ok(None);
        }
        let Some(mut ids) = selection::selected_at_once(reader, revisions, request, most)? else {
            return Ok(None);
        };
        if let Some(have) = not_wanted(request) {
            ids -= have;
        }
        if request.list {
            let mut bytes = BytesMut::new();
            encode_frame(&header.clone().listing(&ids), &mut bytes);
            self.metrics.sent(0, bytes.len() as u64);
            let held = self.in_flight.hold(bytes.len());
            return Ok(Some(Body::from(counted(bytes.freeze(), held))));
        }
        let pages: Vec<PageNo> = ids.iter().filter_map(|id| PageId(id).no()).collect();
        let count = pages.len() as u64;
        let asked = Asked {
            namespace: states.namespace(),
            revision: revisions.revision.clone(),
            pages,
        };
        let bytes = match self.given.find(&asked) {
            Some(bytes) => {
                states.check_open()?;
                bytes
            }
            None => {
                let Some(bytes) = at_once::answer(reader, header, &asked.pages)? else {
                    return Ok(None);
                };
                self.given.keep(asked, &bytes);
                bytes
            }
        };
        self.metrics.sent(count, bytes.len() as u64);
        let held = self.in_flight.hold(bytes.len());
        // In one piece: it is small, and each piece is a call of the system.
        Ok(Some(Body::from(counted(bytes, held))))
    }
}

/// Whether pages are selected that the client waits for, and what the query touches only comes along: it is sent while the query
/// runs.
fn comes_along(request: &PagesRequest) -> bool {
    matches!(request.select, PageSelector::Ids(_)) && request.since.is_none() && !request.list
}

/// Pages that the client has, where it has not said since which revision.
fn not_wanted(request: &PagesRequest) -> Option<&RoaringBitmap> {
    request.have.as_ref().filter(|_| request.since.is_none())
}

/// What this server can do for somebody, as its answers say it.
pub(crate) fn features(states: &dyn States, access: Access) -> HeaderValue {
    static ALL: LazyLock<[[HeaderValue; 2]; 2]> = LazyLock::new(|| {
        [false, true].map(|foreign_sql| {
            [false, true].map(|writes| {
                let features = Features {
                    writes,
                    foreign_sql,
                    ..Features::ALL
                };
                HeaderValue::try_from(features.to_header()).expect("names of features are letters and commas")
            })
        })
    });
    let writes = access == Access::Full && states.is_writable();
    ALL[usize::from(states.has_foreign_sql())][usize::from(writes)].clone()
}

fn respond(body: Body, features: HeaderValue, polled: bool) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(PROTOBUF)),
        (HeaderName::from_static(FEATURES_HEADER), features),
    ];
    let mut answer = (StatusCode::OK, headers, body).into_response();
    if polled {
        answer.extensions_mut().insert(Polled);
    }
    answer
}
