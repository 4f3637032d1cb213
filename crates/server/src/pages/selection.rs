//! Which revision a request means, and which of its pages are selected.

use std::{sync::Arc, time::Duration};

use partial_sync_core::{PageCount, Revision};
use partial_sync_transport::{PageSelector, PagesRequest};
use roaring::RoaringBitmap;
use tokio::{sync::watch, time::Instant};

use super::{reader::RevisionReader, refusal::Refusal, turns::ReadTurns};
use crate::{
    error::{HistoryError, ServerError},
    front::Waiting,
    history::{Comparison, RevisionRecord},
    ids::{ids_below, not_before},
    states::{Found, States},
};

/// Pages that a request compares by itself with the page history; more are compared in the order of the file.
const COMPARED_BY_A_REQUEST: u64 = 8192;
/// How long a request waits for more, if its long poll does not wait longer.
const COMPARING: Duration = Duration::from_secs(10);

/// The revision to answer with, and the one to compare it with.
#[derive(Debug)]
pub(super) struct Revisions {
    pub(super) at: RevisionRecord,
    pub(super) revision: Revision,
    pub(super) since: Option<RevisionRecord>,
}

/// Finds the revisions; waits for a change if the request says so and there is none.
pub(super) async fn resolve(
    states: &Arc<dyn States>,
    request: &PagesRequest,
    turns: &ReadTurns,
    longest_poll: Duration,
    mut stopping: watch::Receiver<bool>,
    waiting: Option<&Waiting<'_>>,
) -> Result<Revisions, Refusal> {
    let mut changes = waiting.map(|_| states.subscribe());
    let mut current = match &request.revision {
        // Its revision was published before anybody could hear of it, whatever has been committed or failed since.
        Some(_) => {
            states.check_open()?;
            states.latest()
        }
        None => Arc::clone(states).up_to_date().await?,
    };
    let since = match &request.since {
        Some(revision) => Some(named(states, revision, turns).await?),
        None => None,
    };
    if let Some(pinned) = &request.revision {
        let at = named(states, pinned, turns).await?;
        if since.is_some_and(|since| states.is_newer(since, at)) {
            return Err(Refusal::bad_request(
                "the client's revision is newer than the revision that was asked for",
            ));
        }
        let revision = pinned.clone();
        return Ok(Revisions { at, revision, since });
    }
    if since.is_some_and(|since| since.seq > current.at.seq) {
        // It was published meanwhile.
        current = states.latest();
    }
    if let (Some(since), Some(wait), Some(waiting), Some(changes)) =
        (since, request.long_poll, waiting, &mut changes)
    {
        let until = Instant::now() + wait.min(longest_poll);
        while current.at.seq == since.seq && !*stopping.borrow() {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { break },
                stopped = stopping.changed() => if stopped.is_err() { break },
                () = tokio::time::sleep_until(until) => break,
                () = waiting.has_to_end() => break,
            }
            states.check_open()?;
            current = states.latest();
        }
    }
    Ok(Revisions {
        at: current.at,
        revision: current.revision,
        since,
    })
}

/// The revision that a client named, if it is kept.
async fn named(
    states: &Arc<dyn States>,
    revision: &Revision,
    turns: &ReadTurns,
) -> Result<RevisionRecord, Refusal> {
    let found = match states.find_at_once(revision) {
        Found::Kept(record) => Some(record),
        Found::Unknown => None,
        Found::NotAtOnce => {
            let (kept, revision) = (Arc::clone(states), revision.clone());
            let found = turns.run(move || kept.find(&revision)).await?;
            // Before its outcome: after the end, the same numbers are other revisions.
            states.check_open()?;
            found?
        }
    };
    states.check_open()?;
    found.ok_or_else(|| {
        let text: String = revision.as_str().chars().take(100).collect();
        Refusal::unknown(format!(
            "revision {text} was never made by this server for this database: start again from the latest revision"
        ))
    })
}

/// Waits until few of the pages that the answer depends on are still to be compared with the page history, and helps.
pub(super) async fn compared(
    states: &Arc<dyn States>,
    revisions: &Revisions,
    request: &PagesRequest,
    longest_poll: Duration,
    stopping: &watch::Receiver<bool>,
) -> Result<(), Refusal> {
    let oldest = revisions.since.unwrap_or(revisions.at).seq;
    let knows_less = |comparing: &Comparison| oldest < comparing.seq;
    if !states.comparing().is_some_and(|comparing| knows_less(&comparing)) {
        return Ok(());
    }
    let mut chosen = chosen(revisions, request);
    let wait = request.long_poll.unwrap_or_default().min(longest_poll);
    let until = Instant::now() + wait.max(COMPARING);
    while let Some(comparing) = states.comparing().filter(knows_less) {
        chosen = not_before(&chosen, comparing.next);
        if chosen.len() <= COMPARED_BY_A_REQUEST {
            break;
        }
        if Instant::now() >= until || *stopping.borrow() {
            return Err(Refusal::busy(format!(
                "the server compares the database with its page history, as it may have changed while no server ran; {} of \
                 {} pages are left: try again later",
                comparing.left(),
                comparing.pages.0
            )));
        }
        Arc::clone(states).compare_some().await?;
    }
    Ok(())
}

/// The ids of the pages that a request asks about.
fn chosen(revisions: &Revisions, request: &PagesRequest) -> RoaringBitmap {
    let all = ids_below(revisions.at.db_size);
    match (&request.select, &request.query, revisions.since) {
        (PageSelector::Ids(ids), ..) => ids & &all,
        (PageSelector::All, Some(_), None) => RoaringBitmap::new(),
        (PageSelector::All, ..) => all,
    }
}

/// The ids of the pages that a request selects, within the size of the database.
pub(super) fn selected(
    reader: &RevisionReader,
    revisions: &Revisions,
    request: &PagesRequest,
) -> Result<RoaringBitmap, HistoryError> {
    let Some(since) = revisions.since else {
        return Ok(chosen(revisions, request));
    };
    let changed = match since.seq == revisions.at.seq {
        true => RoaringBitmap::new(),
        false => reader.changed_since(since, &chosen(revisions, request))?,
    };
    Ok(with_required(changed, since, revisions, request))
}

/// The same, if there are at most so many and that can be told without waiting.
pub(super) fn selected_at_once(
    reader: &RevisionReader,
    revisions: &Revisions,
    request: &PagesRequest,
    most: u64,
) -> Result<Option<RoaringBitmap>, ServerError> {
    let (all, asked) = match &request.select {
        PageSelector::Ids(ids) => (ids.len(), Some(ids)),
        PageSelector::All => (u64::from(revisions.at.db_size.0), None),
    };
    let required = request.require.as_ref().map_or(0, RoaringBitmap::len);
    let Some(since) = revisions.since else {
        return Ok((all <= most).then(|| chosen(revisions, request)));
    };
    if required > most {
        return Ok(None);
    }
    let changed = match since.seq == revisions.at.seq {
        true => RoaringBitmap::new(),
        false => match reader.changed_at_once(since)? {
            Some(changed) => changed,
            None => return Ok(None),
        },
    };
    // There are few of them, whatever the size of the database and of what is asked about.
    let size = revisions.at.db_size;
    let is_chosen = |id: &u32| *id < size.0 && asked.is_none_or(|asked| asked.contains(*id));
    let changed = changed.iter().filter(is_chosen).collect();
    let selected = with_required(changed, since, revisions, request);
    Ok((selected.len() <= most).then_some(selected))
}

/// What changed since a revision, and what is sent in any case.
fn with_required(
    changed: RoaringBitmap,
    since: RevisionRecord,
    revisions: &Revisions,
    request: &PagesRequest,
) -> RoaringBitmap {
    let mut pages = changed;
    if let Some(required) = &request.require {
        pages |= required & &ids_below(revisions.at.db_size);
    }
    // The last page of a database that has grown is always sent: a client makes its file longer by writing it.
    if let Some(last) = last_if_grown(since.db_size, revisions.at.db_size) {
        pages.insert(last);
    }
    pages
}

fn last_if_grown(before: PageCount, now: PageCount) -> Option<u32> {
    (now > before).then_some(now)?.last().map(|page| page.id().0)
}
