//! The remote under test, and what the checks ask of it.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};

use crate::{
    hrana::{Batch, BatchResult, Condition, Step, Stmt, Value},
    remote::{PagesHeader, PagesRequest, Remote, RemoteError},
};

/// A remote under test, with a database of at least 5 pages that nobody else changes meanwhile.
pub trait Subject: Send + Sync {
    /// The remote.
    fn remote(&self) -> &dyn Remote;

    /// Commits something that changes at least one page and not all of them. The default does it with SQL.
    fn change(&self) -> BoxFuture<'_, ()> {
        async move {
            let answer = run(
                self.remote(),
                &[
                    "CREATE TABLE IF NOT EXISTS conformance_changes (n INTEGER PRIMARY KEY, t TEXT)",
                    "INSERT INTO conformance_changes (t) VALUES ('changed')",
                ],
            );
            assert_no_errors(&answer.await.expect("the change is made"));
        }
        .boxed()
    }

    /// A SELECT that touches at least one page; `None` = do not test query selectors.
    fn query(&self) -> Option<String> {
        None
    }
}

/// An answer read to its end.
pub(super) struct Read {
    pub(super) header: PagesHeader,
    pub(super) pages: BTreeMap<u32, Bytes>,
}

pub(super) async fn read(remote: &dyn Remote, request: PagesRequest) -> Result<Read, RemoteError> {
    let answer = remote.pages(request).await?;
    let pages: Vec<_> = answer.pages.try_collect().await?;
    let count = pages.len();
    let pages: BTreeMap<_, _> = pages.into_iter().map(|page| (page.id.0, page.data)).collect();
    assert_eq!(pages.len(), count, "no page comes twice");
    if let Some(beyond) = pages.keys().find(|id| **id >= answer.header.db_size.0) {
        panic!("page id {beyond} lies beyond the {} pages", answer.header.db_size);
    }
    Ok(Read {
        header: answer.header,
        pages,
    })
}

pub(super) async fn read_all(remote: &dyn Remote) -> Read {
    read(remote, PagesRequest::default())
        .await
        .expect("a full read works")
}

pub(super) async fn run(remote: &dyn Remote, statements: &[&str]) -> Result<BatchResult, RemoteError> {
    let steps = statements.iter().map(|sql| step(None, sql, vec![])).collect();
    remote
        .execute(
            Batch {
                steps,
                ..Batch::default()
            },
            Some(Duration::from_secs(10)),
        )
        .await
}

pub(super) fn step(condition: Option<Condition>, sql: &str, args: Vec<Value>) -> Step {
    Step {
        condition,
        stmt: Stmt::new(sql, args),
    }
}

pub(super) fn assert_no_errors(result: &BatchResult) {
    let errors: Vec<_> = result.step_errors.iter().flatten().collect();
    assert!(errors.is_empty(), "{errors:?}");
}
