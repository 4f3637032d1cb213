//! The requests for pages that are under way, so that they can be ended: those for one database, or of one caller.
//! (SQL ends its own, because it knows whether a statement has committed.)

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{body::HttpBody as _, response::Response};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{activity::Activity, through::through};
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
    pub(crate) fn watch(mut self, answer: Response) -> Response {
        // What is there already is not worth it.
        if answer.body().size_hint().exact().is_some() {
            return answer;
        }
        answer.map(|body| {
            through(body, move |body, cx| match self.poll_ended(cx) {
                true => Poll::Ready(Some(Err(axum::Error::new(
                    "it was ended by the server's administrator",
                )))),
                false => body.poll_frame(cx),
            })
        })
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> bool {
        matches!(Pin::new(&mut self.ended).poll(cx), Poll::Ready(Ok(())))
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        self.kicks.under_way.lock().by_number.remove(&self.number);
    }
}
