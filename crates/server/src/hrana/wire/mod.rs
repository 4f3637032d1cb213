//! The bodies of `POST /v2/pipeline`, `/v3/pipeline` and `/v3/cursor`, and of the latter two under `/v3-protobuf`, around the
//! values, statements and results that `partial-sync-transport` defines.
//!
//! A body is read twice. [`outline`] reads all of it and keeps nothing: a body that is wrong somewhere runs nowhere, and costs
//! no memory before its turn. Then [`Body::requests`] finds where its requests are, and each request and step is read when it
//! is run. What a client can make this hold is its body, 40 bytes for each request or step, and one statement.
//!
//! Format: <https://github.com/tursodatabase/libsql/blob/main/docs/HRANA_3_SPEC.md>, "Hrana over HTTP". Unknown fields
//! are ignored, an unknown type of request is an error of the whole body.

mod json;
mod protobuf;
mod protobuf_answer;
mod types;

use bytes::Bytes;
use partial_sync_transport::hrana::{Condition, Step};
use types::CursorEntry;
pub(super) use types::{
    Batch, BodyKind, DescribeCol, DescribeParam, DescribeResult, Encoding, Format, Limits, Outline, Raw,
    ReadError, StreamRequest, StreamResponse, StreamResult,
};

/// A body that [`outline`] has found to be well-formed.
pub(super) struct Body {
    bytes: Bytes,
    format: Format,
}

/// Reads a whole body and keeps nothing of it but its baton. One that has more than it may is perhaps not read to its end.
pub(super) fn outline(bytes: Bytes, format: Format, most: Limits) -> Result<(Body, Outline), ReadError> {
    let outline = match format.encoding {
        Encoding::Json => json::outline(&bytes, format.kind)?,
        Encoding::Protobuf => protobuf::outline(&bytes, format.kind, most)?,
    };
    Ok((Body { bytes, format }, outline))
}

impl Body {
    /// The requests, each to be read with [`Body::request`].
    pub(super) fn requests(&self) -> Result<Vec<Raw<'_>>, ReadError> {
        match self.format.encoding {
            Encoding::Json => json::requests(&self.bytes, self.format.kind),
            Encoding::Protobuf => protobuf::requests(&self.bytes, self.format.kind),
        }
    }

    /// Reads one of the requests.
    pub(super) fn request<'b>(&self, raw: Raw<'b>) -> Result<StreamRequest<Vec<Raw<'b>>>, ReadError> {
        match raw {
            Raw::Json(raw) => json::request(raw, self.format.kind),
            Raw::Protobuf(bytes) => protobuf::request(bytes, self.format.kind),
        }
    }
}

impl Raw<'_> {
    /// Reads a step of a batch.
    pub(super) fn step(&self) -> Result<Step, ReadError> {
        match self {
            Raw::Json(raw) => Ok(serde_json::from_str(raw.get())?),
            Raw::Protobuf(bytes) => protobuf::step(bytes),
        }
    }

    /// Reads when a step of a batch is to run.
    pub(super) fn condition(&self) -> Result<Option<Condition>, ReadError> {
        match self {
            Raw::Json(raw) => json::condition(raw),
            Raw::Protobuf(bytes) => protobuf::condition(bytes),
        }
    }
}

impl Format {
    /// The body of an answer: the next baton and the results.
    pub(super) fn answer(
        self,
        baton: Option<String>,
        results: Vec<StreamResult>,
    ) -> serde_json::Result<Vec<u8>> {
        match (self.encoding, self.kind) {
            (Encoding::Json, BodyKind::Pipeline) => json::pipeline_body(baton, results),
            (Encoding::Protobuf, BodyKind::Pipeline) => Ok(protobuf_answer::pipeline_body(baton, results)),
            (encoding, BodyKind::Cursor) => cursor_body(encoding, baton, results),
        }
    }

    /// The media type of an answer.
    pub(super) fn content_type(self) -> &'static str {
        match self.encoding {
            Encoding::Json => "application/json",
            Encoding::Protobuf => "application/x-protobuf",
        }
    }
}

/// The answer to a cursor: the same information as a batch result, entry by entry, one JSON object a line or one message
/// after its length.
///
/// The batch has run to its end when the first entry is written: this saves no memory here, and is bounded like every other
/// answer.
fn cursor_body(
    encoding: Encoding,
    baton: Option<String>,
    results: Vec<StreamResult>,
) -> serde_json::Result<Vec<u8>> {
    let mut body = Vec::new();
    match encoding {
        Encoding::Json => json::cursor_begin(baton, &mut body)?,
        Encoding::Protobuf => protobuf_answer::cursor_begin(baton, &mut body),
    }
    cursor_entries(results, |entry| match encoding {
        Encoding::Json => json::cursor_entry(entry, &mut body),
        Encoding::Protobuf => {
            protobuf_answer::cursor_entry(entry, &mut body);
            Ok(())
        }
    })?;
    Ok(body)
}

fn cursor_entries<E>(
    results: Vec<StreamResult>,
    mut write: impl FnMut(CursorEntry) -> Result<(), E>,
) -> Result<(), E> {
    for result in results {
        let batch = match result {
            StreamResult::Ok {
                response: StreamResponse::Batch { result },
            } => result,
            StreamResult::Ok { .. } => continue,
            StreamResult::Error { error } => {
                write(CursorEntry::Error { error })?;
                continue;
            }
        };
        let steps = batch.step_results.into_iter().zip(batch.step_errors);
        for (step, (given, failed)) in steps.enumerate() {
            if let Some(given) = given {
                write(CursorEntry::StepBegin {
                    step,
                    cols: given.cols,
                })?;
                for row in given.rows {
                    write(CursorEntry::Row { row })?;
                }
                write(CursorEntry::StepEnd {
                    affected_row_count: given.affected_row_count,
                    last_insert_rowid: given.last_insert_rowid,
                })?;
            }
            if let Some(error) = failed {
                write(CursorEntry::StepError { step, error })?;
            }
        }
    }
    Ok(())
}
