//! One HTTP request of the SQL endpoint, from its body to its answer: find the stream, run on a blocking thread, tell
//! the page history of a commit, and let the stream wait under a new baton.
//!
//! The work is a task of its own: when the client goes away, what it asked for is interrupted and rolled back, but a
//! commit that has happened is still told to the page history.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use parking_lot::Mutex;
use partial_sync_transport::hrana;
use rusqlite::InterruptHandle;
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::spawn_blocking;

use super::{
    cursor::cursor_body,
    error::{code, error},
    statement::Budget,
    stream::{Bounds, Stream},
    streams::{Lease, Owner, Streams, Unavailable, Waiting},
    wire::{CursorRequest, PipelineAnswer, PipelineRequest, StreamRequest, StreamResult},
};
use crate::access::{Caller, DatabaseHandle};

/// A body above this is parsed on a blocking thread.
const PARSE_IN_PLACE: usize = 64 << 10;

/// Answers one request.
pub(super) async fn answer(
    streams: Arc<Streams>,
    database: DatabaseHandle,
    caller: Caller,
    request: Request<Bytes>,
) -> Response {
    let cancel = Arc::new(Cancel::default());
    let gone = CancelOnDrop(cancel.clone());
    let task = tokio::spawn(async move {
        match route(streams, database, caller, request, cancel).await {
            Ok(response) => response,
            Err(refused) => refused.response(),
        }
    });
    let response = task.await.unwrap_or_else(|cause| {
        tracing::error!(%cause, "a request to the SQL endpoint failed");
        Refused::internal().response()
    });
    drop(gone);
    response
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
        json(self.status, body.unwrap_or_default())
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

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn route(
    streams: Arc<Streams>,
    database: DatabaseHandle,
    caller: Caller,
    request: Request<Bytes>,
    cancel: Arc<Cancel>,
) -> Result<Response, Refused> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let owner = Owner {
        path: database.path.clone(),
        access: caller.access,
    };
    let run = Run {
        streams,
        database,
        owner,
        cancel,
    };
    match (request.method(), path.as_str()) {
        // How a client asks which version the server speaks.
        (&Method::GET | &Method::HEAD, "/v2" | "/v3") => Ok(Response::new(Body::empty())),
        (&Method::POST, "/v2/pipeline" | "/v3/pipeline") => {
            let PipelineRequest { baton, requests } = parse(request.into_body()).await?;
            run.pipeline(baton, requests).await
        }
        (&Method::POST, "/v3/cursor") => {
            let CursorRequest { baton, batch } = parse(request.into_body()).await?;
            run.cursor(baton, StreamRequest::Batch { batch }).await
        }
        (_, "/v2" | "/v3" | "/v2/pipeline" | "/v3/pipeline" | "/v3/cursor") => Err(Refused::new(
            StatusCode::METHOD_NOT_ALLOWED,
            error(
                code::BAD_REQUEST,
                "wrong method: POST /v2/pipeline, /v3/pipeline and /v3/cursor; GET /v2 and /v3",
            ),
        )),
        _ => Err(Refused::new(
            StatusCode::NOT_FOUND,
            error(
                code::NOT_FOUND,
                format!(
                    "there is nothing at {path}: SQL over HTTP in JSON is at /v2/pipeline and /v3/pipeline"
                ),
            ),
        )),
    }
}

async fn parse<T: DeserializeOwned + Send + 'static>(body: Bytes) -> Result<T, Refused> {
    let parsed = if body.len() <= PARSE_IN_PLACE {
        serde_json::from_slice(&body)
    } else {
        spawn_blocking(move || serde_json::from_slice(&body))
            .await
            .map_err(|_| Refused::internal())?
    };
    parsed.map_err(|cause| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            error(
                code::BAD_REQUEST,
                format!("the body is not a Hrana request in JSON: {cause}"),
            ),
        )
    })
}

/// One request whose body is understood.
struct Run {
    streams: Arc<Streams>,
    database: DatabaseHandle,
    owner: Owner,
    cancel: Arc<Cancel>,
}

/// What a blocking thread hands back.
struct Done {
    body: Vec<u8>,
    parked: Option<(String, Waiting)>,
    committed: bool,
}

impl Run {
    async fn pipeline(
        self,
        baton: Option<String>,
        requests: Vec<StreamRequest>,
    ) -> Result<Response, Refused> {
        let most = self.streams.options().pipeline_requests;
        if requests.len() > most {
            return Err(Refused::new(
                StatusCode::BAD_REQUEST,
                error(
                    code::BATCH_TOO_LARGE,
                    format!(
                        "the pipeline has {} requests, and this server takes at most {most}",
                        requests.len()
                    ),
                ),
            ));
        }
        self.run(baton, requests, |baton, results| {
            serde_json::to_vec(&PipelineAnswer {
                baton,
                base_url: None,
                results,
            })
        })
        .await
    }

    async fn cursor(self, baton: Option<String>, batch: StreamRequest) -> Result<Response, Refused> {
        self.run(baton, vec![batch], cursor_body).await
    }

    /// Runs the requests on a blocking thread; `render` makes the body from the next baton and the results.
    async fn run(
        self,
        baton: Option<String>,
        requests: Vec<StreamRequest>,
        render: fn(Option<String>, Vec<StreamResult>) -> serde_json::Result<Vec<u8>>,
    ) -> Result<Response, Refused> {
        let Lease { waiting, _turn } = self.streams.lease(&self.owner, baton.as_deref()).await?;
        let next = self
            .streams
            .token()
            .map_err(|e| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, e))?;
        let (streams, owner) = (self.streams.clone(), self.owner.clone());
        let listener = self.database.listener.clone();
        let done = spawn_blocking(move || self.work(waiting, requests, next, render)).await;
        let done = done.map_err(|cause| {
            tracing::error!(%cause, "a blocking thread of the SQL endpoint failed");
            Refused::internal()
        })?;
        let done = done?;
        if done.committed {
            listener.committed().await;
        }
        if let Some((token, waiting)) = done.parked {
            streams.park(token, owner, waiting);
        }
        Ok(json(StatusCode::OK, done.body))
    }

    /// Blocks.
    fn work(
        self,
        waiting: Option<Waiting>,
        requests: Vec<StreamRequest>,
        next: String,
        render: fn(Option<String>, Vec<StreamResult>) -> serde_json::Result<Vec<u8>>,
    ) -> Result<Done, Refused> {
        let (connection, texts, open_since) = match waiting {
            Some(waiting) => (waiting.connection, waiting.texts, waiting.open_since),
            None => Default::default(),
        };
        let connection = match connection {
            Some(connection) => connection,
            None => self
                .streams
                .connect(&self.database, &self.owner)
                .map_err(|e| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, e))?,
        };
        let mut stream = Stream::new(connection, texts);
        let commits = stream.connection.commits();
        let options = self.streams.options();
        let mut bounds = Bounds {
            options,
            budget: Budget::new(options.answer_bytes),
            cancelled: self.cancel.flag.clone(),
            until: Instant::now() + options.request_timeout,
        };
        stream.connection.watch(Some(self.cancel.flag.clone()));
        self.cancel.arm(stream.connection.interrupt_handle());
        let results = requests
            .into_iter()
            .map(|request| stream.answer(request, &mut bounds))
            .collect();
        self.cancel.disarm();
        stream.connection.watch(None);

        let committed = stream.connection.commits() != commits;
        let keep = !stream.is_closed();
        let parked = if self.cancel.flag.load(Ordering::Relaxed) {
            None
        } else if keep {
            Some((next.clone(), self.streams.fold(&self.owner, stream, open_since)))
        } else {
            self.streams.give_back(&self.owner, stream.into_parts().0);
            None
        };
        let body = render(keep.then_some(next), results).map_err(|cause| {
            tracing::error!(%cause, "an answer of the SQL endpoint cannot be written as JSON");
            Refused::internal()
        })?;
        Ok(Done {
            body,
            parked,
            committed,
        })
    }
}

/// Stops the work of a request whose client has gone.
#[derive(Default)]
struct Cancel {
    flag: Arc<AtomicBool>,
    handle: Mutex<Option<InterruptHandle>>,
}

impl Cancel {
    fn arm(&self, handle: InterruptHandle) {
        *self.handle.lock() = Some(handle);
    }

    /// From here on the connection may work for somebody else.
    fn disarm(&self) {
        *self.handle.lock() = None;
    }

    fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
        if let Some(handle) = &*self.handle.lock() {
            handle.interrupt();
        }
    }
}

struct CancelOnDrop(Arc<Cancel>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
