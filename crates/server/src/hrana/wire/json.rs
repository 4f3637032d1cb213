//! Bodies and answers in JSON.

use std::fmt;

use partial_sync_transport::hrana::{Condition, Step, Value};
use serde::{
    Deserialize, Serialize,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::types::{
    Batch, BodyKind, CursorEntry, Outline, Raw, ReadError, Statements, StreamRequest, StreamResponse,
    StreamResult,
};

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
pub(super) fn outline(bytes: &[u8], kind: BodyKind) -> Result<Outline, ReadError> {
    // Fields that are passed over are not looked at, but a request is read as a text.
    let text = std::str::from_utf8(bytes)?;
    let (baton, requests, statements) = match kind {
        BodyKind::Pipeline => {
            let body: PipelineBody<RequestCount> = serde_json::from_str(text)?;
            (body.baton, body.requests.requests, body.requests.statements)
        }
        BodyKind::Cursor => {
            let body: CursorBody<Batch<StepCount>> = serde_json::from_str(text)?;
            (body.baton, 1, body.batch.steps.0)
        }
    };
    Ok(Outline {
        baton,
        requests,
        statements,
    })
}

/// The requests of a body, each to be read with [`request`].
pub(super) fn requests(bytes: &[u8], kind: BodyKind) -> Result<Vec<Raw<'_>>, ReadError> {
    Ok(match kind {
        BodyKind::Pipeline => {
            let body: PipelineBody<Vec<&RawValue>> = serde_json::from_slice(bytes)?;
            body.requests.into_iter().map(Raw::Json).collect()
        }
        BodyKind::Cursor => {
            let body: CursorBody<&RawValue> = serde_json::from_slice(bytes)?;
            vec![Raw::Json(body.batch)]
        }
    })
}

/// Reads one of the requests.
pub(super) fn request(raw: &RawValue, kind: BodyKind) -> Result<StreamRequest<Vec<Raw<'_>>>, ReadError> {
    Ok(match kind {
        BodyKind::Pipeline => serde_json::from_str(raw.get())?,
        BodyKind::Cursor => StreamRequest::Batch {
            batch: serde_json::from_str(raw.get())?,
        },
    })
}

impl<'de: 'b, 'b> Deserialize<'de> for Raw<'b> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(d).map(Raw::Json)
    }
}

/// Reads when a step of a batch is to run.
pub(super) fn condition(raw: &RawValue) -> Result<Option<Condition>, ReadError> {
    #[derive(Deserialize)]
    struct Conditional {
        #[serde(default)]
        condition: Option<Condition>,
    }
    let step: Conditional = serde_json::from_str(raw.get())?;
    Ok(step.condition)
}

/// Requests that were read and not kept.
#[derive(Default)]
struct RequestCount {
    requests: usize,
    statements: Statements,
}

/// Steps that were read and not kept.
struct StepCount(Statements);

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
                    match request {
                        StreamRequest::Batch { batch } => count.statements.add(batch.steps.0),
                        StreamRequest::Execute { stmt } => count.statements.look_at(stmt.sql.as_deref()),
                        // Only its first statement could be told.
                        StreamRequest::Sequence(_) => count.statements.may_write = true,
                        _ => {}
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
                let mut statements = Statements::default();
                while let Some(step) = list.next_element::<Step>()? {
                    statements.steps += 1;
                    statements.look_at(step.stmt.sql.as_deref());
                }
                Ok(StepCount(statements))
            }
        }
        d.deserialize_seq(Steps)
    }
}

#[derive(Serialize)]
struct PipelineAnswer {
    baton: Option<String>,
    base_url: Option<String>,
    results: Vec<StreamResult>,
}

/// The body of a pipeline answer.
pub(super) fn pipeline_body(
    baton: Option<String>,
    mut results: Vec<StreamResult>,
) -> serde_json::Result<Vec<u8>> {
    for result in &mut results {
        let StreamResult::Ok { response } = result else {
            continue;
        };
        match response {
            StreamResponse::Execute { result } => result.rows.iter_mut().for_each(make_finite),
            StreamResponse::Batch { result } => {
                let results = result.step_results.iter_mut().flatten();
                results.flat_map(|result| &mut result.rows).for_each(make_finite);
            }
            _ => {}
        }
    }
    serde_json::to_vec(&PipelineAnswer {
        baton,
        base_url: None,
        results,
    })
}

#[derive(Serialize)]
struct CursorAnswer {
    baton: Option<String>,
    base_url: Option<String>,
}

/// First line of a cursor answer.
pub(super) fn cursor_begin(baton: Option<String>, body: &mut Vec<u8>) -> serde_json::Result<()> {
    let begin = CursorAnswer {
        baton,
        base_url: None,
    };
    line(&begin, body)
}

/// Next line of a cursor answer.
pub(super) fn cursor_entry(mut entry: CursorEntry, body: &mut Vec<u8>) -> serde_json::Result<()> {
    if let CursorEntry::Row { row } = &mut entry {
        make_finite(row);
    }
    line(&entry, body)
}

fn line(value: &impl Serialize, body: &mut Vec<u8>) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *body, value)?;
    body.push(b'\n');
    Ok(())
}

/// JSON has no other numbers. The protocol's other servers say null.
fn make_finite(row: &mut Vec<Value>) {
    for value in row {
        if matches!(value, Value::Float { value } if !value.is_finite()) {
            *value = Value::Null;
        }
    }
}
