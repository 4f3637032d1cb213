//! The bodies of `POST /v2/pipeline`, `/v3/pipeline` and `/v3/cursor`, around the values, statements and results that
//! `partial-sync-transport` defines.
//!
//! Format: <https://github.com/tursodatabase/libsql/blob/main/docs/HRANA_3_SPEC.md>, "Hrana over HTTP". Unknown fields
//! are ignored, an unknown type of request is an error of the whole body.

use partial_sync_transport::hrana::{Batch, BatchResult, Col, Error, Stmt, StmtResult, Value};
use serde::{Deserialize, Serialize};

/// Body of a pipeline request.
#[derive(Debug, Deserialize)]
pub(super) struct PipelineRequest {
    /// The stream to continue with; absent = a new one.
    #[serde(default)]
    pub baton: Option<String>,
    /// What to do, in order.
    pub requests: Vec<StreamRequest>,
}

/// Body of a cursor request.
#[derive(Debug, Deserialize)]
pub(super) struct CursorRequest {
    /// The stream to continue with; absent = a new one.
    #[serde(default)]
    pub baton: Option<String>,
    /// What to do.
    pub batch: Batch,
}

/// A text, given or stored before.
#[derive(Debug, Deserialize)]
pub(super) struct SqlText {
    /// The text.
    #[serde(default)]
    pub sql: Option<String>,
    /// The id it was stored under.
    #[serde(default)]
    pub sql_id: Option<i32>,
}

/// One request of a pipeline.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum StreamRequest {
    Close {},
    Execute { stmt: Stmt },
    Batch { batch: Batch },
    Sequence(SqlText),
    Describe(SqlText),
    StoreSql { sql_id: i32, sql: String },
    CloseSql { sql_id: i32 },
    GetAutocommit {},
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
