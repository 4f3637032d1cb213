//! Answers in Protobuf; see [`protobuf`](super::protobuf) for the schema.

use std::collections::BTreeMap;

use partial_sync_transport::hrana;
use prost::{Message, Oneof};

use super::{
    protobuf::{Value, ValueKind},
    types::{CursorEntry, DescribeResult, StreamResponse, StreamResult},
};

#[derive(PartialEq, Message)]
struct PipelineAnswer {
    #[prost(string, optional, tag = "1")]
    baton: Option<String>,
    #[prost(message, repeated, tag = "3")]
    results: Vec<RequestResult>,
}

#[derive(PartialEq, Message)]
struct CursorAnswer {
    #[prost(string, optional, tag = "1")]
    baton: Option<String>,
}

#[derive(PartialEq, Message)]
struct RequestResult {
    #[prost(oneof = "Outcome", tags = "1, 2")]
    result: Option<Outcome>,
}

#[derive(PartialEq, Oneof)]
enum Outcome {
    #[prost(message, tag = "1")]
    Ok(Response),
    #[prost(message, tag = "2")]
    Error(Error),
}

#[derive(PartialEq, Message)]
struct Response {
    #[prost(oneof = "ResponseKind", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    response: Option<ResponseKind>,
}

#[derive(PartialEq, Oneof)]
enum ResponseKind {
    #[prost(message, tag = "1")]
    Close(()),
    #[prost(message, tag = "2")]
    Execute(Execute),
    #[prost(message, tag = "3")]
    Batch(Batch),
    #[prost(message, tag = "4")]
    Sequence(()),
    #[prost(message, tag = "5")]
    Describe(Describe),
    #[prost(message, tag = "6")]
    StoreSql(()),
    #[prost(message, tag = "7")]
    CloseSql(()),
    #[prost(message, tag = "8")]
    GetAutocommit(Autocommit),
}

#[derive(PartialEq, Message)]
struct Execute {
    #[prost(message, optional, tag = "1")]
    result: Option<StmtResult>,
}

#[derive(PartialEq, Message)]
struct Batch {
    #[prost(message, optional, tag = "1")]
    result: Option<BatchResult>,
}

#[derive(PartialEq, Message)]
struct Describe {
    #[prost(message, optional, tag = "1")]
    result: Option<Description>,
}

#[derive(PartialEq, Message)]
struct Autocommit {
    #[prost(bool, tag = "1")]
    is_autocommit: bool,
}

#[derive(PartialEq, Message)]
struct Error {
    #[prost(string, tag = "1")]
    message: String,
    #[prost(string, optional, tag = "2")]
    code: Option<String>,
}

#[derive(PartialEq, Message)]
struct StmtResult {
    #[prost(message, repeated, tag = "1")]
    cols: Vec<Col>,
    #[prost(message, repeated, tag = "2")]
    rows: Vec<Row>,
    #[prost(uint64, tag = "3")]
    affected_row_count: u64,
    #[prost(sint64, optional, tag = "4")]
    last_insert_rowid: Option<i64>,
}

#[derive(PartialEq, Message)]
struct Col {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    decltype: Option<String>,
}

#[derive(PartialEq, Message)]
struct Row {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Value>,
}

#[derive(PartialEq, Message)]
struct BatchResult {
    #[prost(btree_map = "uint32, message", tag = "1")]
    step_results: BTreeMap<u32, StmtResult>,
    #[prost(btree_map = "uint32, message", tag = "2")]
    step_errors: BTreeMap<u32, Error>,
}

#[derive(PartialEq, Message)]
struct Description {
    #[prost(message, repeated, tag = "1")]
    params: Vec<Param>,
    #[prost(message, repeated, tag = "2")]
    cols: Vec<DescribedCol>,
    #[prost(bool, tag = "3")]
    is_explain: bool,
    #[prost(bool, tag = "4")]
    is_readonly: bool,
}

#[derive(PartialEq, Message)]
struct Param {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
}

#[derive(PartialEq, Message)]
struct DescribedCol {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, optional, tag = "2")]
    decltype: Option<String>,
}

#[derive(PartialEq, Message)]
struct Entry {
    #[prost(oneof = "EntryKind", tags = "1, 2, 3, 4, 5")]
    entry: Option<EntryKind>,
}

#[derive(PartialEq, Oneof)]
enum EntryKind {
    #[prost(message, tag = "1")]
    StepBegin(StepBegin),
    #[prost(message, tag = "2")]
    StepEnd(StepEnd),
    #[prost(message, tag = "3")]
    StepError(StepError),
    #[prost(message, tag = "4")]
    Row(Row),
    #[prost(message, tag = "5")]
    Error(Error),
}

#[derive(PartialEq, Message)]
struct StepBegin {
    #[prost(uint32, tag = "1")]
    step: u32,
    #[prost(message, repeated, tag = "2")]
    cols: Vec<Col>,
}

#[derive(PartialEq, Message)]
struct StepEnd {
    #[prost(uint64, tag = "1")]
    affected_row_count: u64,
    #[prost(sint64, optional, tag = "2")]
    last_insert_rowid: Option<i64>,
}

#[derive(PartialEq, Message)]
struct StepError {
    #[prost(uint32, tag = "1")]
    step: u32,
    #[prost(message, optional, tag = "2")]
    error: Option<Error>,
}

/// The body of a pipeline answer.
pub(super) fn pipeline_body(baton: Option<String>, results: Vec<StreamResult>) -> Vec<u8> {
    let results = results.into_iter().map(RequestResult::from).collect();
    PipelineAnswer { baton, results }.encode_to_vec()
}

/// The beginning of a cursor answer.
pub(super) fn cursor_begin(baton: Option<String>, body: &mut Vec<u8>) {
    CursorAnswer { baton }
        .encode_length_delimited(body)
        .expect("a vector grows");
}

/// The next entry of a cursor answer.
pub(super) fn cursor_entry(entry: CursorEntry, body: &mut Vec<u8>) {
    Entry::from(entry)
        .encode_length_delimited(body)
        .expect("a vector grows");
}

/// A step's number. There are far fewer.
fn number(step: usize) -> u32 {
    u32::try_from(step).unwrap_or(u32::MAX)
}

impl From<StreamResult> for RequestResult {
    fn from(result: StreamResult) -> Self {
        let outcome = match result {
            StreamResult::Ok { response } => Outcome::Ok(response.into()),
            StreamResult::Error { error } => Outcome::Error(error.into()),
        };
        Self {
            result: Some(outcome),
        }
    }
}

impl From<StreamResponse> for Response {
    fn from(response: StreamResponse) -> Self {
        let kind = match response {
            StreamResponse::Close => ResponseKind::Close(()),
            StreamResponse::Execute { result } => ResponseKind::Execute(Execute {
                result: Some(result.into()),
            }),
            StreamResponse::Batch { result } => ResponseKind::Batch(Batch {
                result: Some(result.into()),
            }),
            StreamResponse::Sequence => ResponseKind::Sequence(()),
            StreamResponse::Describe { result } => ResponseKind::Describe(Describe {
                result: Some(result.into()),
            }),
            StreamResponse::StoreSql => ResponseKind::StoreSql(()),
            StreamResponse::CloseSql => ResponseKind::CloseSql(()),
            StreamResponse::GetAutocommit { is_autocommit } => {
                ResponseKind::GetAutocommit(Autocommit { is_autocommit })
            }
        };
        Self { response: Some(kind) }
    }
}

impl From<hrana::Error> for Error {
    fn from(error: hrana::Error) -> Self {
        Self {
            message: error.message,
            code: error.code,
        }
    }
}

impl From<hrana::StmtResult> for StmtResult {
    fn from(result: hrana::StmtResult) -> Self {
        Self {
            cols: result.cols.into_iter().map(Col::from).collect(),
            rows: result.rows.into_iter().map(Row::from).collect(),
            affected_row_count: result.affected_row_count,
            last_insert_rowid: result.last_insert_rowid,
        }
    }
}

impl From<hrana::Col> for Col {
    fn from(col: hrana::Col) -> Self {
        Self {
            name: col.name,
            decltype: col.decltype,
        }
    }
}

impl From<Vec<hrana::Value>> for Row {
    fn from(row: Vec<hrana::Value>) -> Self {
        let value = |value| {
            let kind = match value {
                hrana::Value::Null => ValueKind::Null(()),
                hrana::Value::Integer { value } => ValueKind::Integer(value),
                hrana::Value::Float { value } => ValueKind::Float(value),
                hrana::Value::Text { value } => ValueKind::Text(value),
                hrana::Value::Blob { base64 } => ValueKind::Blob(base64),
            };
            Value { value: Some(kind) }
        };
        Self {
            values: row.into_iter().map(value).collect(),
        }
    }
}

impl From<hrana::BatchResult> for BatchResult {
    fn from(result: hrana::BatchResult) -> Self {
        Self {
            step_results: by_step(result.step_results),
            step_errors: by_step(result.step_errors),
        }
    }
}

/// What is there, by its number.
fn by_step<T, M: From<T>>(steps: Vec<Option<T>>) -> BTreeMap<u32, M> {
    let numbered = steps.into_iter().enumerate();
    numbered
        .filter_map(|(step, of)| Some((number(step), of?.into())))
        .collect()
}

impl From<DescribeResult> for Description {
    fn from(described: DescribeResult) -> Self {
        let params = described.params.into_iter();
        let cols = described.cols.into_iter();
        Self {
            params: params.map(|param| Param { name: param.name }).collect(),
            cols: cols
                .map(|col| DescribedCol {
                    name: col.name,
                    decltype: col.decltype,
                })
                .collect(),
            is_explain: described.is_explain,
            is_readonly: described.is_readonly,
        }
    }
}

impl From<CursorEntry> for Entry {
    fn from(entry: CursorEntry) -> Self {
        let kind = match entry {
            CursorEntry::StepBegin { step, cols } => EntryKind::StepBegin(StepBegin {
                step: number(step),
                cols: cols.into_iter().map(Col::from).collect(),
            }),
            CursorEntry::Row { row } => EntryKind::Row(row.into()),
            CursorEntry::StepEnd {
                affected_row_count,
                last_insert_rowid,
            } => EntryKind::StepEnd(StepEnd {
                affected_row_count,
                last_insert_rowid,
            }),
            CursorEntry::StepError { step, error } => EntryKind::StepError(StepError {
                step: number(step),
                error: Some(error.into()),
            }),
            CursorEntry::Error { error } => EntryKind::Error(error.into()),
        };
        Self { entry: Some(kind) }
    }
}
