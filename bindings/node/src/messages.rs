//! What goes between the engine's threads and JavaScript: outcomes of jobs, questions, and answers.

use bytes::Bytes;
use napi::bindgen_prelude::{BigInt64Array, Uint8Array};
use napi_derive::napi;
use partial_sync::change::{Value, transform::Transform};

use crate::{codec, compiled::Batch, error::Failure, mutation::Mutation, statement::Statement};

/// What a statement did.
#[napi(object, object_from_js = false)]
pub struct Ran {
    /// Rows changed.
    pub changes: i64,
    /// Rowid of the last insert on the connection.
    pub last_insert_rowid: i64,
}

/// How a job ended.
#[napi(object, object_from_js = false)]
#[derive(Default)]
pub struct Outcome {
    /// It failed.
    pub error: Option<Failure>,
    /// Rows.
    pub batch: Option<Batch>,
    /// What a statement without rows did.
    pub ran: Option<Ran>,
    /// A prepared statement.
    pub statement: Option<Statement>,
    /// Yes or no.
    pub flag: Option<bool>,
    /// Statistics, as JSON.
    pub stats: Option<String>,
    /// How many.
    pub count: Option<u32>,
    /// What a hydration did.
    pub hydrated: Option<Hydration>,
}

/// Pages that a hydration has fetched, and those that there are to fetch or that are still absent.
#[napi(object, object_from_js = false)]
pub struct Hydration {
    /// Fetched.
    pub fetched: u32,
    /// Of a hydration under way: to fetch in all, 0 where that is not known. Of one that has ended: absent.
    pub other: u32,
}

impl Outcome {
    /// A failure.
    pub(crate) fn failed(error: impl Into<Failure>) -> Self {
        Self {
            error: Some(error.into()),
            ..Self::default()
        }
    }
}

/// Something that JavaScript is asked.
#[napi(object, object_from_js = false)]
#[derive(Default)]
pub struct Question {
    /// `url`, `token`, `fetch`, `read`, `abort`, `transform` or `hydrated`.
    pub kind: String,
    /// Whether a statement waits for the answer, which must not use the database then.
    pub for_a_statement: bool,
    /// Of `read` and `abort`: the question that began the fetch. Of `hydrated`: the number of the hydration.
    pub about: Option<u32>,
    /// Of `fetch`.
    pub request: Option<Request>,
    /// Of `transform`.
    pub mutation: Option<Mutation>,
    /// Of `hydrated`.
    pub progress: Option<Hydration>,
}

/// A request for the `fetch` function.
#[napi(object, object_from_js = false)]
pub struct Request {
    /// Absolute.
    pub url: String,
    /// `POST`.
    pub method: String,
    /// Names and values.
    pub headers: Vec<Vec<String>>,
    /// The whole body.
    pub body: Uint8Array,
}

/// JavaScript's answer.
#[napi(object, object_to_js = false)]
#[derive(Default)]
pub struct Reply {
    /// The function threw or rejected.
    pub error: Option<String>,
    /// Whether it would again.
    pub last: Option<bool>,
    /// A url or a token; of a transform, the SQL.
    pub text: Option<String>,
    /// A response's status.
    pub status: Option<u32>,
    /// A response's headers: names and values.
    pub headers: Option<Vec<Vec<String>>>,
    /// Of a transform: `keep`, `skip` or `rewrite`.
    pub decision: Option<String>,
    /// Of a transform: the values of the parameters, encoded.
    pub words: Option<BigInt64Array>,
    /// How many values.
    pub count: Option<u32>,
    /// The texts among them.
    pub texts: Option<Vec<String>>,
    /// The blobs among them.
    pub blobs: Option<Vec<Uint8Array>>,
}

/// An answer, with what must not be held as a JavaScript value taken out of it.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A text or nothing.
    Text(Option<String>),
    /// The head of a response.
    Head(u16, Vec<(String, String)>),
    /// A piece of a body; empty at its end.
    Chunk(Bytes),
    /// A decision about a change.
    Decision(Transform),
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) message: String,
    /// Whether asking again cannot help.
    pub(crate) last: bool,
}

impl From<&str> for Refused {
    fn from(message: &str) -> Self {
        Self {
            message: message.into(),
            last: false,
        }
    }
}

pub(crate) type Answered = Result<Answer, Refused>;

impl Reply {
    /// What it says.
    pub(crate) fn answered(self) -> napi::Result<Answered> {
        Ok(if let Some(message) = self.error {
            let last = self.last.unwrap_or(false);
            Err(Refused { message, last })
        } else if let Some(status) = self.status {
            let headers = self.headers.unwrap_or_default();
            let pair = |pair: Vec<String>| <[String; 2]>::try_from(pair).ok().map(|[n, v]| (n, v));
            let status = u16::try_from(status).unwrap_or(0);
            Ok(Answer::Head(
                status,
                headers.into_iter().filter_map(pair).collect(),
            ))
        } else if self.decision.is_some() {
            Ok(Answer::Decision(decision(self)?))
        } else {
            Ok(Answer::Text(self.text))
        })
    }
}

fn decision(reply: Reply) -> napi::Result<Transform> {
    Ok(match reply.decision.as_deref() {
        Some("skip") => Transform::Skip,
        Some("rewrite") => {
            let words = reply.words.as_deref().unwrap_or_default();
            let values = codec::decode(words, reply.count.unwrap_or(0), reply.texts, reply.blobs)?;
            let value = |value| match value {
                rusqlite::types::Value::Null => Value::Null,
                rusqlite::types::Value::Integer(value) => Value::Integer(value),
                rusqlite::types::Value::Real(value) => Value::Real(value),
                rusqlite::types::Value::Text(text) => Value::Text(text),
                rusqlite::types::Value::Blob(bytes) => Value::Blob(bytes),
            };
            Transform::Rewrite {
                sql: reply.text.unwrap_or_default(),
                values: values.into_iter().map(value).collect(),
            }
        }
        _ => Transform::Keep,
    })
}
