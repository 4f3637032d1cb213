//! The bodies of `POST /v2/pipeline`, `/v3/pipeline` and `/v3/cursor`, around the values, statements and results that
//! `partial-sync-transport` defines.
//!
//! A body is read twice. [`outline`] reads all of it and keeps nothing: a body that is wrong somewhere runs nowhere, and costs
//! no memory before its turn. Then [`Body::requests`] finds where its requests are, and each request and step is read when it
//! is run. What a client can make this hold is its body, 16 bytes for each request or step, and one statement.
//!
//! Format: <https://github.com/tursodatabase/libsql/blob/main/docs/HRANA_3_SPEC.md>, "Hrana over HTTP". Unknown fields
//! are ignored, an unknown type of request is an error of the whole body.

use std::fmt;

use bytes::Bytes;
use partial_sync_transport::hrana::{BatchResult, Col, Condition, Error, Step, Stmt, StmtResult, Value};
use serde::{
    Deserialize, Serialize,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// A body that [`outline`] has found to be well-formed.
pub(super) struct Body {
    bytes: Bytes,
    kind: BodyKind,
}

/// Which endpoint a body was sent to.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum BodyKind {
    Pipeline,
    Cursor,
}

/// What is known of a body that was read once.
pub(super) struct Outline {
    pub body: Body,
    /// The stream to continue with; `None` = a new one.
    pub baton: Option<String>,
    /// How many requests it has.
    pub requests: usize,
    /// How many steps its largest batch has.
    pub steps: usize,
}

#[derive(Deserialize)]
struct PipelineBody<R> {
    #[serde(default)]
    baton: Option<String>,
    requests: R,
}

#[derive(Deserialize)]
struct CursorBody<B> {
    #[serde(default)]
    baton: Option<String>,
    batch: B,
}

/// Reads a whole body and keeps nothing of it but its baton.
pub(super) fn outline(bytes: Bytes, kind: BodyKind) -> serde_json::Result<Outline> {
    let (baton, requests, steps) = match kind {
        BodyKind::Pipeline => {
            let body: PipelineBody<RequestCount> = serde_json::from_slice(&bytes)?;
            (body.baton, body.requests.requests, body.requests.steps)
        }
        BodyKind::Cursor => {
            let body: CursorBody<Batch<StepCount>> = serde_json::from_slice(&bytes)?;
            (body.baton, 1, body.batch.steps.0)
        }
    };
    Ok(Outline {
        body: Body { bytes, kind },
        baton,
        requests,
        steps,
    })
}

impl Body {
    /// The requests, each to be read with [`request`].
    pub(super) fn requests(&self) -> serde_json::Result<Vec<&RawValue>> {
        match self.kind {
            BodyKind::Pipeline => {
                let body: PipelineBody<Vec<&RawValue>> = serde_json::from_slice(&self.bytes)?;
                Ok(body.requests)
            }
            BodyKind::Cursor => {
                let body: CursorBody<&RawValue> = serde_json::from_slice(&self.bytes)?;
                Ok(vec![body.batch])
            }
        }
    }

    /// Reads one of the requests.
    pub(super) fn request<'b>(
        &self,
        raw: &'b RawValue,
    ) -> serde_json::Result<StreamRequest<Vec<&'b RawValue>>> {
        match self.kind {
            BodyKind::Pipeline => serde_json::from_str(raw.get()),
            BodyKind::Cursor => serde_json::from_str(raw.get()).map(|batch| StreamRequest::Batch { batch }),
        }
    }
}

/// One request of a pipeline. `S`: its batch's steps.
#[derive(Deserialize)]
#[serde(try_from = "RequestParts<S>", bound(deserialize = "S: Deserialize<'de>"))]
pub(super) enum StreamRequest<S> {
    Close,
    Execute { stmt: Stmt },
    Batch { batch: Batch<S> },
    Sequence(SqlText),
    Describe(SqlText),
    StoreSql { sql_id: i32, sql: String },
    CloseSql { sql_id: i32 },
    GetAutocommit,
}

/// A text, given or stored before.
pub(super) struct SqlText {
    pub sql: Option<String>,
    /// The id it was stored under.
    pub sql_id: Option<i32>,
}

/// Statements to run one after the other; see [`hrana::Batch`](partial_sync_transport::hrana::Batch).
#[derive(Deserialize)]
pub(super) struct Batch<S> {
    pub steps: S,
    #[serde(default)]
    pub rows: bool,
    #[serde(default)]
    pub foreign_keys: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RequestKind {
    Close,
    Execute,
    Batch,
    Sequence,
    Describe,
    StoreSql,
    CloseSql,
    GetAutocommit,
}

/// The fields of all types of requests, in any order.
#[derive(Deserialize)]
struct RequestParts<S> {
    #[serde(rename = "type")]
    kind: RequestKind,
    stmt: Option<Stmt>,
    batch: Option<Batch<S>>,
    sql: Option<String>,
    sql_id: Option<i32>,
}

impl<S> TryFrom<RequestParts<S>> for StreamRequest<S> {
    type Error = &'static str;

    fn try_from(parts: RequestParts<S>) -> Result<Self, Self::Error> {
        let RequestParts {
            kind,
            stmt,
            batch,
            sql,
            sql_id,
        } = parts;
        let id = sql_id.ok_or("a request has no `sql_id`");
        Ok(match kind {
            RequestKind::Close => Self::Close,
            RequestKind::Execute => Self::Execute {
                stmt: stmt.ok_or("a request to execute has no `stmt`")?,
            },
            RequestKind::Batch => Self::Batch {
                batch: batch.ok_or("a request for a batch has no `batch`")?,
            },
            RequestKind::Sequence => Self::Sequence(SqlText { sql, sql_id }),
            RequestKind::Describe => Self::Describe(SqlText { sql, sql_id }),
            RequestKind::StoreSql => Self::StoreSql {
                sql_id: id?,
                sql: sql.ok_or("a request to store a text has no `sql`")?,
            },
            RequestKind::CloseSql => Self::CloseSql { sql_id: id? },
            RequestKind::GetAutocommit => Self::GetAutocommit,
        })
    }
}

/// Reads a step of a batch.
pub(super) fn step(raw: &RawValue) -> serde_json::Result<Step> {
    serde_json::from_str(raw.get())
}

/// Reads when a step of a batch is to run.
pub(super) fn condition(raw: &RawValue) -> serde_json::Result<Option<Condition>> {
    #[derive(Deserialize)]
    struct Conditional {
        #[serde(default)]
        condition: Option<Condition>,
    }
    serde_json::from_str(raw.get()).map(|step: Conditional| step.condition)
}

/// Requests that were read and not kept.
#[derive(Default)]
struct RequestCount {
    requests: usize,
    /// In the largest batch.
    steps: usize,
}

/// Steps that were read and not kept.
struct StepCount(usize);

impl<'de> Deserialize<'de> for RequestCount {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Requests;
        impl<'de> Visitor<'de> for Requests {
            type Value = RequestCount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of requests")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RequestCount, A::Error> {
                let mut count = RequestCount::default();
                while let Some(request) = list.next_element::<StreamRequest<StepCount>>()? {
                    count.requests += 1;
                    if let StreamRequest::Batch { batch } = request {
                        count.steps = count.steps.max(batch.steps.0);
                    }
                }
                Ok(count)
            }
        }
        d.deserialize_seq(Requests)
    }
}

impl<'de> Deserialize<'de> for StepCount {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Steps;
        impl<'de> Visitor<'de> for Steps {
            type Value = StepCount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of steps")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<StepCount, A::Error> {
                let mut steps = 0;
                while list.next_element::<Step>()?.is_some() {
                    steps += 1;
                }
                Ok(StepCount(steps))
            }
        }
        d.deserialize_seq(Steps)
    }
}

/// Body of a pipeline answer.
#[derive(Debug, Serialize)]
pub(super) struct PipelineAnswer {
    pub baton: Option<String>,
    pub base_url: Option<String>,
    pub results: Vec<StreamResult>,
}

/// The answer to one request of a pipeline.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum StreamResult {
    Ok { response: StreamResponse },
    Error { error: Error },
}

impl From<Result<StreamResponse, Error>> for StreamResult {
    fn from(result: Result<StreamResponse, Error>) -> Self {
        match result {
            Ok(response) => StreamResult::Ok { response },
            Err(error) => StreamResult::Error { error },
        }
    }
}

/// What a request that succeeded gave.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum StreamResponse {
    Close,
    Execute { result: StmtResult },
    Batch { result: BatchResult },
    Sequence,
    Describe { result: DescribeResult },
    StoreSql,
    CloseSql,
    GetAutocommit { is_autocommit: bool },
}

/// What a statement takes and gives.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct DescribeResult {
    pub params: Vec<DescribeParam>,
    pub cols: Vec<DescribeCol>,
    pub is_explain: bool,
    pub is_readonly: bool,
}

/// A parameter, by its number.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct DescribeParam {
    /// With its prefix; `None` when it has only its number.
    pub name: Option<String>,
}

/// A column of the result.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct DescribeCol {
    pub name: String,
    pub decltype: Option<String>,
}

/// First line of a cursor answer.
#[derive(Debug, Serialize)]
pub(super) struct CursorAnswer {
    pub baton: Option<String>,
    pub base_url: Option<String>,
}

/// One of the other lines of a cursor answer.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum CursorEntry<'a> {
    StepBegin {
        step: usize,
        cols: &'a [Col],
    },
    Row {
        row: &'a [Value],
    },
    StepEnd {
        affected_row_count: u64,
        last_insert_rowid: Option<String>,
    },
    StepError {
        step: usize,
        error: &'a Error,
    },
    Error {
        error: &'a Error,
    },
}
