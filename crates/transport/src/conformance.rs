//! What every remote must do, as plain async functions over [`Subject`]: ours, one in memory and an independent server
//! run through the same list.
//!
//! The functions panic with a message when the remote does otherwise: they are the bodies of tests. They use two tables
//! of their own (`conformance_changes`, `conformance_values`) and nothing else of the database.

mod pages;
mod sql;
mod subject;

use std::panic::AssertUnwindSafe;

use futures_util::{FutureExt, future::BoxFuture};

pub use pages::*;
pub use sql::*;
pub use subject::Subject;

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
    the_pages_of_an_answer_are_listed_instead_of_sent,
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
