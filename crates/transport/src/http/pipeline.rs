//! `POST /v2/pipeline` from the client's side: one batch, sent once.
//!
//! A remote of this project is told to close the connection after the batch; others may refuse a request that is not
//! a batch, and let it expire. It never retries after a byte may have left, unless the body's coding is refused: only the caller knows
//! whether running the batch twice is safe.

use std::{borrow::Cow, fmt, sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use super::{
    describe::{concluded, explained, timed_out},
    pace::Pace,
    requester::{RequestBody, Requester},
    status,
};
use crate::{
    hrana::{self, Batch, BatchResult, Value, read::read_list},
    remote::{Features, RemoteError, RemoteErrorKind},
    wire,
};

/// The status of a body in a coding that is not taken.
const UNSUPPORTED_MEDIA_TYPE: u16 = 415;

#[derive(Serialize)]
struct Pipeline<'a> {
    baton: Option<String>,
    requests: &'a [Request<'a>],
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Request<'a> {
    Batch { batch: &'a Batch },
    Close,
}

/// What is read of an answer, field by field: what serde makes of a tagged enum first keeps everything in it, at up to 35 times the
/// size of the JSON.
#[derive(Deserialize)]
struct PipelineAnswer<'a> {
    #[serde(borrow, deserialize_with = "first")]
    results: Option<Outcome<'a>>,
}

#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(borrow)]
    response: Option<Response<'a>>,
    error: Option<hrana::Error>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Results<'a> {
    #[serde(borrow)]
    step_results: &'a RawValue,
    #[serde(borrow)]
    step_errors: &'a RawValue,
}

/// The first of a list; nobody wants the others.
fn first<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Outcome<'de>>, D::Error> {
    struct First;
    impl<'de> Visitor<'de> for First {
        type Value = Option<Outcome<'de>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of results")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let first = list.next_element()?;
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first)
        }
    }
    d.deserialize_seq(First)
}

pub(super) async fn execute(
    requester: &Requester,
    batch: Batch,
    deadline: Option<Duration>,
) -> Result<BatchResult, RemoteError> {
    check_floats(&batch)?;
    let started = Instant::now();
    let silence = deadline.unwrap_or(requester.deadline);
    let url = requester.url.ask()?;
    let what = format!("running {} statements on {url}", batch.steps.len());
    let mut attempts = 0;
    let result = run(requester, &url, &batch, silence, &what, &mut attempts).await;
    result.map_err(|error| concluded(error, attempts, started))
}

async fn run(
    requester: &Requester,
    url: &crate::url::RemoteUrl,
    batch: &Batch,
    silence: Duration,
    what: &str,
    attempts: &mut u32,
) -> Result<BatchResult, RemoteError> {
    let requests = [Request::Batch { batch }, Request::Close];
    let known = requester.known_features(url);
    let understands_close = known != Features::default() && !known.foreign_sql;
    let pipeline = Pipeline {
        baton: None,
        requests: &requests[..if understands_close { 2 } else { 1 }],
    };
    let body = serde_json::to_vec(&pipeline)
        .map_err(|e| RemoteError::with_source(RemoteErrorKind::Client, format!("{what}: {e}"), e))?;
    let plain = Bytes::from(body);
    let mut body = requester.body_for(url, plain.clone());
    let sent = timeout(silence, async {
        loop {
            *attempts += 1;
            match requester
                .send(url, wire::PIPELINE, "application/json", body.clone())
                .await
            {
                Err(error)
                    if requester.client.was_never_sent(&error) && *attempts < requester.retry.attempts =>
                {
                    tokio::time::sleep(requester.pause(*attempts, None)).await;
                }
                Err(error) => return Err(explained(error, what)),
                // Nothing of it was run: what it says could not be read.
                Ok(response) if response.status == UNSUPPORTED_MEDIA_TYPE && body.is_packed() => {
                    requester.coding_refused.store(true, Relaxed);
                    body = RequestBody::plain(plain.clone());
                }
                Ok(response) if response.status != 200 => {
                    let decoder = requester.decoder_of(&response);
                    let (refusal, received) = status::refusal(response, decoder, what).await;
                    requester.received(received);
                    return Err(refusal.error);
                }
                Ok(response) => {
                    requester.learn_bodies(url, &response);
                    return Ok(response);
                }
            }
        }
    });
    let mut response = sent.await.map_err(|_| timed_out(what, silence))??;
    let mut decoder = requester.decoder_of(&response);
    let unreadable = |why: &str| {
        let why = format!("{what}: the answer is wrong: it is not one zstd frame, whole: {why}");
        RemoteError::new(RemoteErrorKind::Protocol, why)
    };
    let mut answer = BytesMut::new();
    let mut pace = Pace::new(silence);
    loop {
        match pace.wait(response.body.next()).await {
            None => return Err(pace.used_up(what)),
            Some(None) => break,
            Some(Some(Err(error))) => return Err(explained(error, what)),
            Some(Some(Ok(chunk))) => {
                requester.received(chunk.len());
                pace.came(chunk.len());
                decoder.push(chunk);
                while let Some(piece) = decoder.next_piece().map_err(|e| unreadable(&e.to_string()))? {
                    if answer.len() + piece.len() > requester.sql_answer_limit {
                        return Err(RemoteError::new(
                            RemoteErrorKind::Refused,
                            format!(
                                "{what}: the answer is longer than {} bytes. Ask for fewer rows at a time, or raise the \
                                 limit",
                                requester.sql_answer_limit
                            ),
                        ));
                    }
                    answer.extend_from_slice(&piece);
                }
            }
        }
    }
    if !decoder.is_at_end() {
        return Err(unreadable("it ends in the middle"));
    }
    read(&answer, batch.steps.len(), what)
}

/// The result of the batch in an answer's body.
fn read(body: &[u8], steps: usize, what: &str) -> Result<BatchResult, RemoteError> {
    let protocol = |why: String| {
        RemoteError::new(
            RemoteErrorKind::Protocol,
            format!("{what}: the answer is wrong: {why}"),
        )
    };
    let wrong = |e: serde_json::Error| protocol(e.to_string());
    let answer: PipelineAnswer<'_> = serde_json::from_slice(body).map_err(wrong)?;
    let outcome = answer
        .results
        .ok_or_else(|| protocol("it has no results".to_owned()))?;
    if let Some(error) = outcome.error {
        return Err(RemoteError::new(
            RemoteErrorKind::Refused,
            format!("{what}: {}", status::printable(&error.message)),
        ));
    }
    let response = outcome
        .response
        .ok_or_else(|| protocol("it is neither a response nor an error".to_owned()))?;
    let Some(result) = response.result.filter(|_| response.kind == "batch") else {
        return Err(protocol("it is not an answer to a batch".to_owned()));
    };
    let result: Results<'_> = serde_json::from_str(result.get()).map_err(wrong)?;
    let more = format!("it has results for more than {steps} steps");
    let mut result = BatchResult {
        step_results: read_list(result.step_results, steps, &more).map_err(wrong)?,
        step_errors: read_list(result.step_errors, steps, &more).map_err(wrong)?,
    };
    // A remote may leave out the steps at the end that did not run.
    result.step_results.resize(steps, None);
    result.step_errors.resize(steps, None);
    Ok(result)
}

/// JSON would turn a NaN or an infinity into null in silence.
fn check_floats(batch: &Batch) -> Result<(), RemoteError> {
    for (n, step) in batch.steps.iter().enumerate() {
        let named = step.stmt.named_args.iter().map(|arg| &arg.value);
        for value in step.stmt.args.iter().chain(named) {
            if let Value::Float { value } = value
                && !value.is_finite()
            {
                return Err(RemoteError::new(
                    RemoteErrorKind::Client,
                    format!(
                        "statement {} of the batch has the argument {value}, which has no form in JSON. Nothing was \
                         sent; store a finite number, NULL or a text instead",
                        n + 1
                    ),
                ));
            }
        }
    }
    Ok(())
}
