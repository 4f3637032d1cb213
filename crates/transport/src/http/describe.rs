//! What a request asks for and how it ended, in words for messages; never with a secret in them.

use std::time::Duration;

use roaring::RoaringBitmap;
use tokio::time::Instant;

use super::status::printable;
use crate::{
    remote::{PageSelector, PagesRequest, RemoteError, RemoteErrorKind},
    url::RemoteUrl,
};

/// `asking https://db.io for 3 pages (ids 4, 5, 9) at revision 12`
pub(super) fn describe(request: &PagesRequest, url: &RemoteUrl) -> String {
    let list = if request.list { "the numbers of " } else { "" };
    let mut text = format!("asking {url} for {list}");
    text += &match (&request.select, &request.query) {
        (PageSelector::Ids(ids), None) => name_pages(ids),
        (PageSelector::Ids(ids), Some(_)) => format!("{} and those of a query", name_pages(ids)),
        (PageSelector::All, Some(_)) => "the pages of a query".to_owned(),
        (PageSelector::All, None) => "all pages".to_owned(),
    };
    if let Some(since) = &request.since {
        text += &format!(" changed since revision {}", shortened(since.as_str()));
    }
    if let Some(revision) = &request.revision {
        text += &format!(" at revision {}", shortened(revision.as_str()));
    }
    text
}

/// `3 pages (ids 4, 5, 9)`
pub(super) fn name_pages(ids: &RoaringBitmap) -> String {
    let first: Vec<_> = ids.iter().take(4).map(|id| id.to_string()).collect();
    let first = first.join(", ");
    match ids.len() {
        0 => "no pages".to_owned(),
        1 => format!("page id {first}"),
        n @ 2..=4 => format!("{n} pages (ids {first})"),
        n => format!("{n} pages (ids {first}, ... {})", ids.max().unwrap_or_default()),
    }
}

/// A foreign text on one line and not too long to print.
pub(super) fn shortened(text: &str) -> String {
    let text = printable(text);
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Names the request in an error of the connection, and says what to do.
pub(super) fn explained(error: RemoteError, what: &str) -> RemoteError {
    let remedy = match error.kind {
        RemoteErrorKind::Unreachable => {
            ". Check the network and the url; the same call works again when the remote can be reached"
        }
        _ => "",
    };
    RemoteError {
        message: format!("{what}: {}{remedy}", error.message),
        ..error
    }
}

/// Says how hard was tried.
pub(super) fn concluded(error: RemoteError, attempts: u32, started: Instant) -> RemoteError {
    let plural = if attempts == 1 { "" } else { "s" };
    RemoteError {
        message: format!(
            "{} ({attempts} attempt{plural} in {:.1} s)",
            error.message,
            started.elapsed().as_secs_f64()
        ),
        ..error
    }
}

pub(super) fn timed_out(what: &str, limit: Duration) -> RemoteError {
    RemoteError::new(
        RemoteErrorKind::TimedOut,
        format!(
            "{what}: nothing came within {:.1} s. Check the network, or allow more time with the deadline",
            limit.as_secs_f64()
        ),
    )
}
