//! What every remote must do, as plain async functions over [`Subject`]: ours, one in memory and an independent server
//! run through the same list.
//!
//! The functions panic with a message when the remote does otherwise: they are the bodies of tests. They use two tables
//! of their own (`conformance_changes`, `conformance_values`) and nothing else of the database.

mod pages;
mod sql;

use std::{collections::BTreeMap, panic::AssertUnwindSafe, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};

use crate::{
    hrana::{Batch, BatchResult, Condition, Step, Stmt, Value},
    remote::{PagesHeader, PagesRequest, Remote, RemoteError},
};

pub use pages::*;
pub use sql::*;

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

/// One function of the suite.
pub type Check = for<'a> fn(&'a dyn Subject) -> BoxFuture<'a, ()>;

macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), |subject| $name(subject).boxed())),*]
    };
}

/// What every remote that speaks the protocol does.
pub const CORE: &[(&str, Check)] = checks![
    a_full_read_brings_every_page_once,
    a_pinned_read_after_a_change_brings_the_old_pages,
    a_selector_brings_just_its_pages,
    ids_beyond_the_end_are_left_out,
    what_changed_turns_the_old_pages_into_the_new,
    without_a_change_no_page_comes,
    a_long_poll_returns_early_on_a_change,
    a_long_poll_is_empty_when_its_time_is_up,
    a_batch_runs_in_order_on_one_connection,
    conditions_decide_which_steps_run,
    a_failed_transaction_rolls_back_whole,
    values_come_back_as_they_went,
    errors_carry_the_text_of_sqlite,
];

/// What a remote does that has the features of this project, besides [`CORE`].
pub const EXTENDED: &[(&str, Check)] = checks![
    an_unknown_revision_is_a_typed_error,
    changed_pages_that_are_not_selected_stay_away,
    required_pages_come_unchanged,
    pages_the_client_has_are_left_out,
    a_query_brings_the_pages_it_touches_once,
];

/// Runs checks one after the other; prints each name, so that a panic is seen beside it.
pub async fn run_all(subject: &dyn Subject, checks: &[(&str, Check)]) {
    for (name, check) in checks {
        eprintln!("conformance: {name}");
        check(subject).await;
    }
}

/// Runs checks one after the other and gives back those that failed, with the reason.
pub async fn outcomes(
    subject: &dyn Subject,
    checks: &[(&'static str, Check)],
) -> Vec<(&'static str, String)> {
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(panic) = AssertUnwindSafe(check(subject)).catch_unwind().await {
            let why = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
                (Some(text), _) => text.clone(),
                (_, Some(text)) => (*text).to_owned(),
                _ => "it panicked".to_owned(),
            };
            failed.push((*name, why));
        }
    }
    failed
}

/// An answer read to its end.
struct Read {
    header: PagesHeader,
    pages: BTreeMap<u32, Bytes>,
}

async fn read(remote: &dyn Remote, request: PagesRequest) -> Result<Read, RemoteError> {
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

async fn read_all(remote: &dyn Remote) -> Read {
    read(remote, PagesRequest::default())
        .await
        .expect("a full read works")
}

async fn run(remote: &dyn Remote, statements: &[&str]) -> Result<BatchResult, RemoteError> {
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

fn step(condition: Option<Condition>, sql: &str, args: Vec<Value>) -> Step {
    Step {
        condition,
        stmt: Stmt::new(sql, args),
    }
}

fn assert_no_errors(result: &BatchResult) {
    let errors: Vec<_> = result.step_errors.iter().flatten().collect();
    assert!(errors.is_empty(), "{errors:?}");
}
