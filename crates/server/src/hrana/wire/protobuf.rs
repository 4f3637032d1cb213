//! Bodies in Protobuf: `/v3-protobuf/pipeline` and `/v3-protobuf/cursor`.
//!
//! A message of two bytes becomes a structure of fifty or more: what repeats is counted, which takes no memory, before it
//! is read, and is read one by one.
//!
//! Schema: <https://github.com/tursodatabase/libsql/blob/main/docs/HRANA_3_SPEC.md>, "Protobuf schema".

use bytes::Bytes;
use partial_sync_transport::hrana::{self, MOST_ARGUMENTS};
use prost::{Message, Oneof};

use super::types::{Batch, BodyKind, Limits, Outline, Raw, ReadError, SqlText, Statements, StreamRequest};

/// Bytes of a condition: it is read whole.
const CONDITION_BYTES: usize = 64 << 10;

#[derive(Message)]
struct PipelineBody {
    #[prost(string, optional, tag = "1")]
    baton: Option<String>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    requests: Vec<Bytes>,
}

/// The same message, counted.
#[derive(Message)]
struct PipelineCount {
    #[prost(message, repeated, tag = "2")]
    requests: Vec<()>,
}

#[derive(Message)]
struct CursorBody {
    #[prost(string, optional, tag = "1")]
    baton: Option<String>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    batch: Option<Bytes>,
}

#[derive(Message)]
struct Request {
    #[prost(oneof = "RequestKind", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    request: Option<RequestKind>,
}

#[derive(Oneof)]
enum RequestKind {
    #[prost(message, tag = "1")]
    Close(()),
    #[prost(message, tag = "2")]
    Execute(Execute),
    #[prost(message, tag = "3")]
    Batch(BatchRequest),
    #[prost(message, tag = "4")]
    Sequence(Text),
    #[prost(message, tag = "5")]
    Describe(Text),
    #[prost(message, tag = "6")]
    StoreSql(StoreSql),
    #[prost(message, tag = "7")]
    CloseSql(CloseSql),
    #[prost(message, tag = "8")]
    GetAutocommit(()),
}

#[derive(Message)]
struct Execute {
    #[prost(bytes = "bytes", optional, tag = "1")]
    stmt: Option<Bytes>,
}

#[derive(Message)]
struct BatchRequest {
    #[prost(bytes = "bytes", optional, tag = "1")]
    batch: Option<Bytes>,
}

#[derive(Message)]
struct Text {
    #[prost(string, optional, tag = "1")]
    sql: Option<String>,
    #[prost(int32, optional, tag = "2")]
    sql_id: Option<i32>,
}

#[derive(Message)]
struct StoreSql {
    #[prost(int32, tag = "1")]
    sql_id: i32,
    #[prost(string, tag = "2")]
    sql: String,
}

#[derive(Message)]
struct CloseSql {
    #[prost(int32, tag = "1")]
    sql_id: i32,
}

#[derive(Message)]
struct Steps {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    steps: Vec<Bytes>,
}

/// The same message, counted.
#[derive(Message)]
struct StepCount {
    #[prost(message, repeated, tag = "1")]
    steps: Vec<()>,
}

#[derive(Message)]
struct Step {
    #[prost(bytes = "bytes", optional, tag = "1")]
    condition: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    stmt: Option<Bytes>,
}

#[derive(Message)]
struct Stmt {
    #[prost(string, optional, tag = "1")]
    sql: Option<String>,
    #[prost(int32, optional, tag = "2")]
    sql_id: Option<i32>,
    #[prost(message, repeated, tag = "3")]
    args: Vec<Value>,
    #[prost(message, repeated, tag = "4")]
    named_args: Vec<NamedArg>,
    #[prost(bool, optional, tag = "5")]
    want_rows: Option<bool>,
}

/// The same message, counted.
#[derive(Message)]
struct ArgumentCount {
    #[prost(message, repeated, tag = "3")]
    args: Vec<()>,
    #[prost(message, repeated, tag = "4")]
    named_args: Vec<()>,
}

#[derive(Message)]
struct NamedArg {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

/// A SQL value.
#[derive(PartialEq, Message)]
pub(super) struct Value {
    #[prost(oneof = "ValueKind", tags = "1, 2, 3, 4, 5")]
    pub value: Option<ValueKind>,
}

/// See [`Value`].
#[derive(PartialEq, Oneof)]
pub(super) enum ValueKind {
    #[prost(message, tag = "1")]
    Null(()),
    #[prost(sint64, tag = "2")]
    Integer(i64),
    #[prost(double, tag = "3")]
    Float(f64),
    #[prost(string, tag = "4")]
    Text(String),
    #[prost(bytes = "vec", tag = "5")]
    Blob(Vec<u8>),
}

#[derive(Message)]
struct Condition {
    #[prost(oneof = "ConditionKind", tags = "1, 2, 3, 4, 5, 6")]
    cond: Option<ConditionKind>,
}

#[derive(Oneof)]
enum ConditionKind {
    #[prost(uint32, tag = "1")]
    StepOk(u32),
    #[prost(uint32, tag = "2")]
    StepError(u32),
    #[prost(message, boxed, tag = "3")]
    Not(Box<Condition>),
    #[prost(message, tag = "4")]
    And(Conditions),
    #[prost(message, tag = "5")]
    Or(Conditions),
    #[prost(message, tag = "6")]
    IsAutocommit(()),
}

#[derive(Message)]
struct Conditions {
    #[prost(message, repeated, tag = "1")]
    conds: Vec<Condition>,
}

/// Reads a whole body and keeps nothing of it but its baton. What has too many parts is not read further.
pub(super) fn outline(bytes: &Bytes, kind: BodyKind, most: Limits) -> Result<Outline, ReadError> {
    let (baton, requests) = match kind {
        BodyKind::Pipeline => {
            let requests = PipelineCount::decode(bytes.clone())?.requests.len();
            if requests > most.requests {
                return Ok(Outline {
                    baton: None,
                    requests,
                    statements: Statements::default(),
                });
            }
            let body = PipelineBody::decode(bytes.clone())?;
            (body.baton, body.requests)
        }
        BodyKind::Cursor => {
            let body = CursorBody::decode(bytes.clone())?;
            let batch = body.batch.ok_or(ReadError::Message("the body has no `batch`"))?;
            return Ok(Outline {
                baton: body.baton,
                requests: 1,
                statements: outline_batch(&batch, most)?,
            });
        }
    };
    let mut statements = Statements::default();
    for bytes in &requests {
        match Request::decode(bytes.clone())?.request {
            Some(RequestKind::Batch(batch)) => statements.add(outline_batch(&batch.given()?, most)?),
            Some(RequestKind::Execute(execute)) => {
                statements.look_at(stmt(&execute.given()?)?.sql.as_deref());
            }
            // Only its first statement could be told.
            Some(RequestKind::Sequence(_)) => statements.may_write = true,
            Some(_) => {}
            None => return Err(NO_TYPE),
        }
    }
    Ok(Outline {
        baton,
        requests: requests.len(),
        statements,
    })
}

const NO_TYPE: ReadError = ReadError::Message("a request is of no type that is known");

/// Reads a batch and keeps nothing.
fn outline_batch(bytes: &Bytes, most: Limits) -> Result<Statements, ReadError> {
    let mut statements = Statements {
        steps: StepCount::decode(bytes.clone())?.steps.len(),
        may_write: false,
    };
    if statements.steps <= most.steps {
        for bytes in Steps::decode(bytes.clone())?.steps {
            statements.look_at(step(&bytes)?.stmt.sql.as_deref());
        }
    }
    Ok(statements)
}

/// The requests of a body, each to be read with [`request`].
pub(super) fn requests(bytes: &Bytes, kind: BodyKind) -> Result<Vec<Raw<'static>>, ReadError> {
    let raw = |bytes: Vec<Bytes>| bytes.into_iter().map(Raw::Protobuf).collect();
    Ok(match kind {
        BodyKind::Pipeline => raw(PipelineBody::decode(bytes.clone())?.requests),
        BodyKind::Cursor => raw(CursorBody::decode(bytes.clone())?.batch.into_iter().collect()),
    })
}

/// Reads one of the requests.
pub(super) fn request(bytes: Bytes, kind: BodyKind) -> Result<StreamRequest<Vec<Raw<'static>>>, ReadError> {
    if kind == BodyKind::Cursor {
        return Ok(StreamRequest::Batch { batch: batch(bytes)? });
    }
    let text = |text: Text| SqlText {
        sql: text.sql,
        sql_id: text.sql_id,
    };
    Ok(match Request::decode(bytes)?.request.ok_or(NO_TYPE)? {
        RequestKind::Close(()) => StreamRequest::Close,
        RequestKind::Execute(execute) => StreamRequest::Execute {
            stmt: stmt(&execute.given()?)?,
        },
        RequestKind::Batch(request) => StreamRequest::Batch {
            batch: batch(request.given()?)?,
        },
        RequestKind::Sequence(sql) => StreamRequest::Sequence(text(sql)),
        RequestKind::Describe(sql) => StreamRequest::Describe(text(sql)),
        RequestKind::StoreSql(StoreSql { sql_id, sql }) => StreamRequest::StoreSql { sql_id, sql },
        RequestKind::CloseSql(CloseSql { sql_id }) => StreamRequest::CloseSql { sql_id },
        RequestKind::GetAutocommit(()) => StreamRequest::GetAutocommit,
    })
}

fn batch(bytes: Bytes) -> Result<Batch<Vec<Raw<'static>>>, ReadError> {
    let steps = Steps::decode(bytes)?.steps;
    Ok(Batch {
        steps: steps.into_iter().map(Raw::Protobuf).collect(),
        rows: false,
        foreign_keys: false,
    })
}

/// Reads a step of a batch.
pub(super) fn step(bytes: &Bytes) -> Result<hrana::Step, ReadError> {
    let step = Step::decode(bytes.clone())?;
    Ok(hrana::Step {
        condition: step.condition.map(read_condition).transpose()?,
        stmt: stmt(&step.stmt.ok_or(ReadError::Message("a step has no `stmt`"))?)?,
    })
}

/// Reads when a step of a batch is to run.
pub(super) fn condition(bytes: &Bytes) -> Result<Option<hrana::Condition>, ReadError> {
    Step::decode(bytes.clone())?
        .condition
        .map(read_condition)
        .transpose()
}

fn read_condition(bytes: Bytes) -> Result<hrana::Condition, ReadError> {
    if bytes.len() > CONDITION_BYTES {
        return Err(ReadError::Message("a condition has more than 65536 bytes"));
    }
    hrana::Condition::try_from(Condition::decode(bytes)?)
}

fn stmt(bytes: &Bytes) -> Result<hrana::Stmt, ReadError> {
    let count = ArgumentCount::decode(bytes.clone())?;
    if count.args.len().max(count.named_args.len()) > MOST_ARGUMENTS {
        return Err(ReadError::Message("a statement takes at most 32766 arguments"));
    }
    let stmt = Stmt::decode(bytes.clone())?;
    let value = |value: Value| hrana::Value::try_from(value);
    let named = |arg: NamedArg| {
        Ok::<_, ReadError>(hrana::NamedArg {
            name: arg.name,
            value: value(arg.value.unwrap_or_default())?,
        })
    };
    Ok(hrana::Stmt {
        sql: stmt.sql,
        sql_id: stmt.sql_id,
        args: stmt.args.into_iter().map(value).collect::<Result<_, _>>()?,
        named_args: stmt.named_args.into_iter().map(named).collect::<Result<_, _>>()?,
        want_rows: stmt.want_rows,
    })
}

impl Execute {
    fn given(self) -> Result<Bytes, ReadError> {
        self.stmt
            .ok_or(ReadError::Message("a request to execute has no `stmt`"))
    }
}

impl BatchRequest {
    fn given(self) -> Result<Bytes, ReadError> {
        self.batch
            .ok_or(ReadError::Message("a request for a batch has no `batch`"))
    }
}

impl TryFrom<Value> for hrana::Value {
    type Error = ReadError;

    fn try_from(value: Value) -> Result<Self, ReadError> {
        Ok(
            match value
                .value
                .ok_or(ReadError::Message("a value is of no type that is known"))?
            {
                ValueKind::Null(()) => Self::Null,
                ValueKind::Integer(value) => Self::Integer { value },
                ValueKind::Float(value) => Self::Float { value },
                ValueKind::Text(value) => Self::Text { value },
                ValueKind::Blob(base64) => Self::Blob { base64 },
            },
        )
    }
}

impl TryFrom<Condition> for hrana::Condition {
    type Error = ReadError;

    /// Recursive, as deep as the decoder let the condition be.
    fn try_from(condition: Condition) -> Result<Self, ReadError> {
        let all = |list: Conditions| {
            list.conds
                .into_iter()
                .map(Self::try_from)
                .collect::<Result<Vec<_>, _>>()
        };
        let kind = condition.cond;
        Ok(
            match kind.ok_or(ReadError::Message("a condition is of no type that is known"))? {
                ConditionKind::StepOk(step) => Self::Ok { step },
                ConditionKind::StepError(step) => Self::Error { step },
                ConditionKind::Not(cond) => Self::Not {
                    cond: Box::new((*cond).try_into()?),
                },
                ConditionKind::And(conds) => Self::And { conds: all(conds)? },
                ConditionKind::Or(conds) => Self::Or { conds: all(conds)? },
                ConditionKind::IsAutocommit(()) => Self::IsAutocommit {},
            },
        )
    }
}
