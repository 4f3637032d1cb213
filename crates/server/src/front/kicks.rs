//! The requests for pages that are under way, so that they can be ended: those for one database, or of one caller.
//! (SQL ends its own, because it knows whether a statement has committed.)

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::activity::Activity;
use crate::access::CallerId;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Kicks {
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    by_number: HashMap<u64, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    caller: CallerId,
    database: Arc<str>,
    connection: Option<Arc<Activity>>,
    end: oneshot::Sender<()>,
}

impl Kicks {
    /// One more, until what is returned is dropped.
    pub(crate) fn enter(
        self: &Arc<Self>,
        caller: CallerId,
        database: Arc<str>,
        connection: Option<Arc<Activity>>,
    ) -> Kickable {
        let (end, ended) = oneshot::channel();
        let mut under_way = self.under_way.lock();
        let number = under_way.next;
        under_way.next += 1;
        let entry = Entry {
            caller,
            database,
            connection,
            end,
        };
        under_way.by_number.insert(number, entry);
        Kickable {
            kicks: Arc::clone(self),
            number,
            ended,
        }
    }

    /// Ends those of these callers and databases, and their connections unless others may have requests on them. Says how many there were.
    pub(crate) fn kick(&self, belongs: impl Fn(CallerId, &Arc<str>) -> bool) -> usize {
        let ended: Vec<_> = {
            let mut under_way = self.under_way.lock();
            let of_these = under_way
                .by_number
                .extract_if(|_, it| belongs(it.caller, &it.database));
            of_these.map(|(_, entry)| entry).collect()
        };
        let count = ended.len();
        for entry in ended {
            // It may have ended by itself. Before the connection is told, which would end a long poll as if nothing had happened.
            let _ = entry.end.send(());
            if let Some(connection) = entry.connection {
                connection.close_unless_shared();
            }
        }
        count
    }
}

/// A request that can be ended.
#[derive(Debug)]
pub(crate) struct Kickable {
    kicks: Arc<Kicks>,
    number: u64,
    ended: oneshot::Receiver<()>,
}

impl Kickable {
    /// Waits until it has to end.
    pub(crate) async fn ended(&mut self) {
        if (&mut self.ended).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Its answer, which breaks off when it has to end.
    pub(crate) fn watch(self, answer: Response) -> Response {
        // What is there already is not worth it.
        match answer.body().size_hint().exact() {
            Some(_) => answer,
            None => answer.map(|body| Body::new(Breakable { body, kickable: self })),
        }
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        self.kicks.under_way.lock().by_number.remove(&self.number);
    }
}

struct Breakable {
    body: Body,
    kickable: Kickable,
}

impl HttpBody for Breakable {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(Ok(())) = Pin::new(&mut self.kickable.ended).poll(cx) {
            return Poll::Ready(Some(Err(axum::Error::new(
                "it was ended by the server's administrator",
            ))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
