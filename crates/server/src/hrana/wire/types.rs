//! What the bodies of requests and answers have in them, in JSON and in Protobuf.

use bytes::Bytes;
use partial_sync_transport::hrana::{
    BatchResult, Col, Error, Stmt, StmtResult, Value, optional_integer_as_string,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::hrana::guard::may_write;

/// What a body is, by the endpoint that it was sent to.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    pub kind: BodyKind,
    pub encoding: Encoding,
}

/// See [`Format`].
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum BodyKind {
    Pipeline,
    Cursor,
}

/// See [`Format`].
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Encoding {
    Json,
    Protobuf,
}

/// What a body may have at most.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub requests: usize,
    pub steps: usize,
}

/// What is known of a body that was read once.
pub(crate) struct Outline {
    /// The stream to continue with; `None` = a new one.
    pub baton: Option<String>,
    /// How many requests it has.
    pub requests: usize,
    pub statements: Statements,
}

/// What is known of statements that were read and not kept.
#[derive(Clone, Copy, Default)]
pub(crate) struct Statements {
    /// Steps of the largest batch.
    pub steps: usize,
    /// Whether one of them may have to wait for another writer.
    pub may_write: bool,
}

impl Statements {
    /// What is stored under an id may be anything.
    pub(super) fn look_at(&mut self, sql: Option<&str>) {
        self.may_write = self.may_write || sql.is_none_or(may_write);
    }

    pub(super) fn add(&mut self, batch: Self) {
        self.steps = self.steps.max(batch.steps);
        self.may_write |= batch.may_write;
    }
}

/// A request or a step as it came.
pub(crate) enum Raw<'b> {
    Json(&'b RawValue),
    Protobuf(Bytes),
}

/// A body is not what its format says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("in JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("in JSON: {0}")]
    Text(#[from] std::str::Utf8Error),
    #[error("in Protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error("in Protobuf: {0}")]
    Message(&'static str),
}

/// One request of a pipeline. `S`: its batch's steps.
#[derive(Deserialize)]
#[serde(try_from = "RequestParts<S>", bound(deserialize = "S: Deserialize<'de>"))]
pub(crate) enum StreamRequest<S> {
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
pub(crate) struct SqlText {
    pub sql: Option<String>,
    /// The id it was stored under.
    pub sql_id: Option<i32>,
}

/// Statements to run one after the other; see [`hrana::Batch`](partial_sync_transport::hrana::Batch).
#[derive(Deserialize)]
pub(crate) struct Batch<S> {
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

/// The answer to one request of a pipeline.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum StreamResult {
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
pub(crate) enum StreamResponse {
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
pub(crate) struct DescribeResult {
    pub params: Vec<DescribeParam>,
    pub cols: Vec<DescribeCol>,
    pub is_explain: bool,
    pub is_readonly: bool,
}

/// A parameter, by its number.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct DescribeParam {
    /// With its prefix; `None` when it has only its number.
    pub name: Option<String>,
}

/// A column of the result.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct DescribeCol {
    pub name: String,
    pub decltype: Option<String>,
}

/// A part of the answer to a cursor.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum CursorEntry {
    StepBegin {
        step: usize,
        cols: Vec<Col>,
    },
    Row {
        row: Vec<Value>,
    },
    StepEnd {
        affected_row_count: u64,
        #[serde(with = "optional_integer_as_string")]
        last_insert_rowid: Option<i64>,
    },
    StepError {
        step: usize,
        error: Error,
    },
    Error {
        error: Error,
    },
}
