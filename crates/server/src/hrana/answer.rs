//! One HTTP request of the SQL endpoint, from its body to its answer: find the stream, run on a blocking thread, tell
//! the page history of a commit, and let the stream wait under a new baton.
//!
//! The work is a task of its own: when the client goes away, what it asked for is interrupted and rolled back, but a
//! commit that has happened is still told to the page history.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use partial_sync_transport::{hrana, wire::ZSTD_CODING};
use partial_sync_vfs::sqlite::memory;
use serde::Serialize;
use tokio::{task::spawn_blocking, time};

use super::{
    budget::{self, Budget, Held},
    error::{bucket_is_away, code, error, not_committed, stands},
    running::{Cancel, CancelOnDrop, Running},
    stream::{Bounds, Stream},
    streams::{LOOK_AT_READERS, Lease, Owner, Streams, Unavailable, Waiting},
    wire::{self, BodyKind, Encoding, Format, Limits, Outline},
};
use crate::{
    access::{Access, Caller, CallerId, DatabaseHandle},
    front::takes_zstd,
};

/// A body above this is read on a blocking thread.
const READ_IN_PLACE: usize = 64 << 10;

/// How often is looked whether a statement runs longer than it may: it looks itself, but not inside of one instruction.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How long a new transaction waits for the WAL to be emptied, once the reads that were in the way have been ended.
const ROOM: Duration = Duration::from_secs(1);
/// Those that may write do not wait until there is so many times as much: old reads are ended before, and no others begin, so that those
/// who read make no push wait.
const ROOM_TO_WRITE: u64 = 2;
/// Nothing is written any more where there is so many times as much, and none of it gets into the bucket.
const MOST_WAITING: u64 = 8;

/// Answers one request. Until it runs, a client that goes away leaves nothing of it behind.
pub(super) async fn answer(
    streams: Arc<Streams>,
    database: DatabaseHandle,
    caller: Caller,
    request: Request<Bytes>,
) -> Response {
    let answered = async {
        let Some(format) = route(&request)? else {
            return Ok(Response::new(Body::empty()));
        };
        let owner = Owner {
            path: database.path.clone(),
            access: caller.access,
        };
        let takes_zstd = takes_zstd(request.headers());
        let (body, outline) = outline(&streams, request.into_body(), format).await?;
        let asks = (outline.baton.as_deref(), outline.statements.may_write);
        let cancel = Arc::new(Cancel::default());
        // Who is in a transaction is waited for, and needs a turn to end it: who waits has none.
        if !asks.0.is_some_and(|baton| streams.is_open(baton)) {
            let options = streams.options();
            let patience = options.read_grace + LOOK_AT_READERS + WATCH_EVERY + ROOM;
            let may_write = caller.access == Access::Full && asks.1;
            let waiting = options.wal_bytes.saturating_mul(MOST_WAITING);
            if may_write && database.listener.waits_for_bucket() && database.listener.wal_bytes() > waiting {
                return Err(Refused::open(bucket_is_away()));
            }
            let times = if may_write { ROOM_TO_WRITE } else { 1 };
            let most = options.wal_bytes.saturating_mul(times);
            database.listener.room(most, patience).await;
        }
        let lease = streams.lease(&owner, caller.id, asks, &cancel).await?;
        let _gone = CancelOnDrop(cancel.clone());
        let run = Run {
            caller: caller.id,
            streams,
            database,
            owner,
            cancel,
            takes_zstd,
        };
        let ran = tokio::spawn(run.run(lease, body, format)).await;
        ran.unwrap_or_else(|cause| {
            tracing::error!(%cause, "a request to the SQL endpoint failed");
            Err(Refused::internal())
        })
    };
    answered.await.unwrap_or_else(Refused::response)
}

/// A request that gets no results, but an HTTP status.
struct Refused {
    status: StatusCode,
    error: hrana::Error,
}

impl Refused {
    fn new(status: StatusCode, error: hrana::Error) -> Self {
        Self { status, error }
    }

    fn open(error: hrana::Error) -> Self {
        let status = match error.code.as_deref() {
            Some(code::DATABASE_REPLACED | code::DATABASE_TAKEN_OVER | code::NOT_REPLICATED) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error)
    }

    fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            error(code::INTERNAL, "the server failed to answer; its log says why"),
        )
    }

    fn response(self) -> Response {
        /// `message` and `code` for Hrana clients, `error` as every other answer of the server has it.
        #[derive(Serialize)]
        struct ErrorBody {
            error: String,
            message: String,
            code: Option<String>,
        }
        let body = serde_json::to_vec(&ErrorBody {
            error: self.error.message.clone(),
            message: self.error.message,
            code: self.error.code,
        });
        answer_of(
            self.status,
            "application/json",
            Body::from(body.unwrap_or_default()),
        )
    }
}

impl From<Unavailable> for Refused {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Baton(error) => Self::new(StatusCode::BAD_REQUEST, error),
            Unavailable::Busy(error) => Self::new(StatusCode::SERVICE_UNAVAILABLE, error),
        }
    }
}

fn answer_of(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// In which form a request is and is answered; `None` = it asks which version the server speaks.
fn route(request: &Request<Bytes>) -> Result<Option<Format>, Refused> {
    let path = request.uri().path();
    let Some(format) = endpoint(path) else {
        let message = format!(
            "there is nothing at {path}: SQL over HTTP is at /v2/pipeline, /v3/pipeline and /v3-protobuf/pipeline"
        );
        return Err(Refused::new(
            StatusCode::NOT_FOUND,
            error(code::NOT_FOUND, message),
        ));
    };
    match (request.method(), format) {
        (&Method::GET | &Method::HEAD, None) | (&Method::POST, Some(_)) => Ok(format),
        _ => Err(Refused::new(
            StatusCode::METHOD_NOT_ALLOWED,
            error(
                code::BAD_REQUEST,
                "wrong method: POST to pipeline and cursor, GET /v2, /v3 and /v3-protobuf",
            ),
        )),
    }
}

/// What the bodies at a path are like, if SQL is answered there; those that only tell the version have none.
pub(super) fn endpoint(path: &str) -> Option<Option<Format>> {
    let format = |encoding, kind| Some(Some(Format { kind, encoding }));
    match path.trim_end_matches('/') {
        "/v2" | "/v3" | "/v3-protobuf" => Some(None),
        "/v2/pipeline" | "/v3/pipeline" => format(Encoding::Json, BodyKind::Pipeline),
        "/v3/cursor" => format(Encoding::Json, BodyKind::Cursor),
        "/v3-protobuf/pipeline" => format(Encoding::Protobuf, BodyKind::Pipeline),
        "/v3-protobuf/cursor" => format(Encoding::Protobuf, BodyKind::Cursor),
        _ => None,
    }
}

/// Reads a body, without keeping what is in it.
async fn outline(streams: &Streams, bytes: Bytes, format: Format) -> Result<(wire::Body, Outline), Refused> {
    let options = streams.options();
    let most = Limits {
        requests: options.pipeline_requests,
        steps: options.batch_steps,
    };
    let read = if bytes.len() <= READ_IN_PLACE {
        wire::outline(bytes, format, most)
    } else {
        let turn = streams.reading_turn().await;
        let read = spawn_blocking(move || {
            let _turn = turn;
            wire::outline(bytes, format, most)
        });
        read.await.map_err(|_| Refused::internal())?
    };
    let (body, outline) = read.map_err(|cause| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            error(
                code::BAD_REQUEST,
                format!("the body is not a Hrana request {cause}"),
            ),
        )
    })?;
    check_counts(&outline, most)?;
    Ok((body, outline))
}

fn check_counts(outline: &Outline, most: Limits) -> Result<(), Refused> {
    let refused = |what: String, limit: usize| {
        let message = format!("{what}, and this server takes at most {limit}: send it in parts");
        Err(Refused::new(
            StatusCode::BAD_REQUEST,
            error(code::BATCH_TOO_LARGE, message),
        ))
    };
    match *outline {
        Outline { requests, .. } if requests > most.requests => {
            refused(format!("the pipeline has {requests} requests"), most.requests)
        }
        Outline { statements, .. } if statements.steps > most.steps => {
            refused(format!("a batch has {} steps", statements.steps), most.steps)
        }
        _ => Ok(()),
    }
}

/// One request.
struct Run {
    streams: Arc<Streams>,
    database: DatabaseHandle,
    owner: Owner,
    caller: CallerId,
    cancel: Arc<Cancel>,
    /// The client takes a compressed answer.
    takes_zstd: bool,
}

/// What a blocking thread hands back.
struct Done {
    body: Vec<u8>,
    /// The body is one zstd frame.
    is_packed: bool,
    held: Held,
    parked: Option<(String, Waiting)>,
    committed: bool,
    /// Until the stream is parked: then it is found there.
    running: Running,
}

impl Run {
    /// Runs the requests of a body on a blocking thread.
    async fn run(self, lease: Lease, body: wire::Body, format: Format) -> Result<Response, Refused> {
        let Lease {
            waiting,
            running,
            turn,
        } = lease;
        let next = self
            .streams
            .token()
            .map_err(|e| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, e))?;
        let (streams, owner, caller) = (self.streams.clone(), self.owner.clone(), self.caller);
        let listener = self.database.listener.clone();
        let cancel = self.cancel.clone();
        let mut work = spawn_blocking(move || self.work(waiting, running, &body, next, format));
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                () = time::sleep(WATCH_EVERY) => cancel.end_what_is_late(&*listener, streams.options()),
            }
        };
        let done = done.map_err(|cause| {
            tracing::error!(%cause, "a blocking thread of the SQL endpoint failed");
            Refused::internal()
        })?;
        let done = done?;
        // The work is done: who waits for the disk or a bucket keeps nobody from working.
        drop(turn);
        if done.committed {
            listener.committed().await.map_err(|cause| {
                tracing::error!(%cause, "a commit may not be there for good");
                Refused::open(not_committed(&cause))
            })?;
        }
        if let Some((token, waiting)) = done.parked {
            streams.park(token, owner, caller, listener, waiting);
        }
        drop(done.running);
        let body = budget::body(done.body, done.held);
        let mut answer = answer_of(StatusCode::OK, format.content_type(), body);
        let headers = answer.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_name(header::ACCEPT_ENCODING));
        if done.is_packed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(ZSTD_CODING));
        }
        Ok(answer)
    }

    /// Blocks.
    fn work(
        self,
        waiting: Option<Waiting>,
        running: Running,
        body: &wire::Body,
        next: String,
        format: Format,
    ) -> Result<Done, Refused> {
        let requests = body.requests().map_err(|_| Refused::internal())?;
        let (connection, texts, mut open) = match waiting {
            Some(waiting) => (waiting.connection, waiting.texts, waiting.open),
            None => Default::default(),
        };
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let connected = self.streams.connect(&self.database, &self.owner);
                connected.map_err(|cause| match stands(&*self.database.listener) {
                    Ok(()) => Refused::open(cause),
                    // Whatever SQLite said of what is not there any more.
                    Err(gone) => Refused::open(gone),
                })?
            }
        };
        let mut stream = Stream::new(connection, texts);
        let commits = stream.connection.commits();
        let _counted = self.streams.temporary(&self.owner).enter();
        let options = self.streams.options();
        let mut bounds = Bounds {
            options,
            budget: Budget::new(options.answer_bytes, self.streams.answers(), self.owner.access),
            cancelled: self.cancel.flag().clone(),
            until: Instant::now() + options.request_timeout,
        };
        stream.connection.watch(Some(self.cancel.flag().clone()));
        self.cancel.arm(stream.connection.brake());
        let guest = (self.owner.access == Access::ReadOnly).then(memory::as_guest);
        let mut results = Vec::with_capacity(requests.len());
        // The request that began the transaction that is open.
        let mut began = 0;
        // Of a transaction that has ended: it is what this request runs in.
        let mut place = None;
        for request in requests {
            if stream.connection.sqlite().is_autocommit() {
                began = results.len();
                place = open.take().or(place);
            }
            results.push(stream.answer(body.request(request), &mut bounds));
        }
        drop(guest);
        self.cancel.disarm();
        stream.connection.watch(None);
        if let Err(gone) = stands(&*self.database.listener) {
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, gone));
        }

        drop(place);
        let committed = stream.connection.commits() != commits;
        let mut keep = !stream.is_closed();
        if stream.connection.sqlite().is_autocommit() {
            open = None;
        } else if keep && open.is_none() {
            match self.streams.place(self.caller) {
                Ok(place) => open = Some(place),
                Err(full) => {
                    // The connection is closed, which rolls back.
                    keep = false;
                    results[began..].fill_with(|| Err(full.clone()).into());
                }
            }
        }
        let parked = if self.cancel.is_cancelled() {
            None
        } else if keep {
            Some((next.clone(), self.streams.fold(&self.owner, stream, open)))
        } else {
            self.streams.give_back(&self.owner, stream.into_parts().0);
            None
        };
        let body = format.answer(keep.then_some(next), results).map_err(|cause| {
            tracing::error!(%cause, "an answer of the SQL endpoint cannot be written as JSON");
            Refused::internal()
        })?;
        let mut held = bounds.budget.into_held();
        let packed = self.takes_zstd.then(|| held.pack(&body)).flatten();
        Ok(Done {
            is_packed: packed.is_some(),
            body: packed.unwrap_or(body),
            held,
            parked,
            committed,
            running,
        })
    }
}
