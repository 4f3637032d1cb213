//! The application's own functions: `url`, `authToken`, `fetch` and `transform`, asked by way of the mailbox. `lib/callbacks.js`
//! is the other side.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use napi::bindgen_prelude::Uint8Array;
use parking_lot::Mutex;
use partial_sync::change::transform::{Transform, TransformFn};
use partial_sync_transport::{
    AuthToken, HttpClient, RemoteError, RemoteErrorKind, UrlSource,
    http::{HttpRequest, HttpResponse},
};

use crate::{
    mailbox::Mailbox,
    messages::{Answer, Answered, Question, Refused, Request},
};

fn question(kind: &str) -> Question {
    Question {
        kind: kind.into(),
        ..Question::default()
    }
}

/// Asks for the url. On JavaScript's own thread, where it cannot be asked, the last answer stands.
pub(crate) fn url_function(mailbox: &Arc<Mailbox>) -> UrlSource {
    let mailbox = mailbox.clone();
    let last = Mutex::new(None);
    UrlSource::try_function(move || {
        if mailbox.is_own_thread() {
            return Ok(last.lock().clone());
        }
        let ask = || mailbox.ask_blocking(question("url"));
        // On a thread of the engine's runtime the other tasks continue meanwhile.
        let answer = match tokio::runtime::Handle::try_current() {
            Ok(_) => tokio::task::block_in_place(ask),
            Err(_) => ask(),
        };
        let url = match answer {
            Ok(Answer::Text(url)) => Ok(url),
            Ok(_) => Err("it gave no text".into()),
            Err(refused) => Err(refused.message.into()),
        };
        last.lock().clone_from(url.as_ref().unwrap_or(&None));
        url
    })
}

/// Asks for the token.
pub(crate) fn token_function(mailbox: &Arc<Mailbox>) -> AuthToken {
    let mailbox = mailbox.clone();
    AuthToken::function(move || {
        let mailbox = mailbox.clone();
        async move {
            match Asked::new(&mailbox, question("token")).await {
                Ok(Answer::Text(token)) => Ok(token),
                Ok(_) => Err("it gave no text".into()),
                Err(refused) => Err(refused.message.into()),
            }
        }
    })
}

/// Sends requests through JavaScript.
pub(crate) fn fetch_function(mailbox: &Arc<Mailbox>) -> Arc<dyn HttpClient> {
    Arc::new(JsFetch(mailbox.clone()))
}

/// Asks about a change on a worker thread, which waits for what JavaScript decides.
pub(crate) fn transform_function(mailbox: &Arc<Mailbox>) -> Arc<TransformFn> {
    let mailbox = mailbox.clone();
    Arc::new(move |mutation| {
        let question = Question {
            mutation: Some(mutation.into()),
            ..question("transform")
        };
        match mailbox.ask_blocking(question) {
            Ok(Answer::Decision(decision)) => decision,
            Ok(_) => Transform::Fail("the transform function decided nothing".into()),
            Err(refused) => Transform::Fail(refused.message),
        }
    })
}

struct JsFetch(Arc<Mailbox>);

impl fmt::Debug for JsFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JsFetch")
    }
}

impl HttpClient for JsFetch {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, RemoteError>> {
        async move {
            let asked = Question {
                kind: "fetch".into(),
                request: Some(Request {
                    url: request.url,
                    method: request.method.into(),
                    headers: request.headers.into_iter().map(|(n, v)| vec![n, v]).collect(),
                    body: Uint8Array::from(request.body.to_vec()),
                }),
                ..Question::default()
            };
            let mut asked = Asked::new(&self.0, asked);
            let transfer = Transfer {
                mailbox: self.0.clone(),
                id: asked.id,
                ended: false,
            };
            match (&mut asked).await {
                Ok(Answer::Head(status, headers)) => Ok(HttpResponse {
                    status,
                    headers,
                    // A `fetch` whose body is cut short rejects the read.
                    end_is_marked: true,
                    body: stream::unfold(transfer, Transfer::next).boxed(),
                }),
                Ok(_) => Err(failed(&"it gave no response".into())),
                Err(refused) => Err(failed(&refused)),
            }
        }
        .boxed()
    }
}

fn failed(refused: &Refused) -> RemoteError {
    let kind = match refused.last {
        true => RemoteErrorKind::Client,
        false => RemoteErrorKind::Unreachable,
    };
    RemoteError::new(kind, format!("the fetch function failed: {}", refused.message))
}

/// A body that is being read. Dropping it before its end aborts the request.
struct Transfer {
    mailbox: Arc<Mailbox>,
    id: u32,
    ended: bool,
}

impl Transfer {
    async fn next(mut self) -> Option<(Result<Bytes, RemoteError>, Self)> {
        if self.ended {
            return None;
        }
        let read = Question {
            about: Some(self.id),
            ..question("read")
        };
        let answer = Asked::new(&self.mailbox, read).await;
        match answer {
            Ok(Answer::Chunk(chunk)) if chunk.is_empty() => {
                self.ended = true;
                None
            }
            Ok(Answer::Chunk(chunk)) => Some((Ok(chunk), self)),
            other => {
                self.ended = true;
                let refused = other.err().unwrap_or_else(|| "it gave no bytes".into());
                Some((Err(failed(&refused)), self))
            }
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if !self.ended {
            self.mailbox.tell(Question {
                about: Some(self.id),
                ..question("abort")
            });
        }
    }
}

/// A question that is forgotten when nobody waits for its answer any more.
struct Asked<'m> {
    mailbox: &'m Mailbox,
    id: u32,
    answer: tokio::sync::oneshot::Receiver<Answered>,
}

impl<'m> Asked<'m> {
    fn new(mailbox: &'m Mailbox, question: Question) -> Self {
        let (id, answer) = mailbox.ask(question);
        Self { mailbox, id, answer }
    }
}

impl Future for Asked<'_> {
    type Output = Answered;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        self.answer
            .poll_unpin(cx)
            .map(|answer| answer.unwrap_or_else(|_| Err("the database was closed".into())))
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.mailbox.forget(self.id);
    }
}
