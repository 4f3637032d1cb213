//! A pull: the remote's changes in, with local changes that were not pushed on top. The next state is built aside, kept,
//! and committed once; whatever happens before the commit, the pull has not happened, and once it is there, it has.
//!
//! Where it is not known whether a push has landed, it must not land after the pull, which may give its rows other keys:
//! that is settled first ([`push::settle`]).
//!
//! 1. *Ask* ([`ask`]) what changed since the base revision, of the pages that are here. No lock is held.
//! 2. *Build* ([`next`], [`preview`]) the new state with the unpushed changes put back, in temporary files. The network,
//!    the length of the log and changes that cannot be put back are this step's matter; readers and writers continue.
//! 3. *Catch up* with what was committed locally meanwhile, until nothing is left.
//! 4. *Commit* ([`commit`]) in one SQLite transaction, after a small [`intent`] was sealed; move the base in the instant in
//!    which the commit becomes visible.
//! 5. *Finish* ([`finish`](mod@finish)): save the page map, then the info file with the new base, then remove the intent.
//!
//! After a crash, opening needs no network and runs nothing again ([`recover`]).

mod ask;
mod commit;
pub(crate) mod finish;
mod first;
mod intent;
mod legacy;
mod missing;
mod next;
mod preview;
mod putback;
mod recover;
mod staged;
mod unchanged;

use std::{sync::atomic::Ordering, time::Duration};

#[cfg(test)]
pub(crate) use self::first::not_what_it_began_as;
pub(crate) use self::recover::recover;
use self::{finish::finish_earlier, staged::OPERATION};
use crate::{
    error::{Error, Result},
    fetch::by_running::run_bootstrap_query,
    open::{info::now, session::Session},
    push,
};

/// How often a pull asks what changed, when the revision that it was told expires before it has what it needs of it.
const TRIES: usize = 3;

/// See [`crate::Database::pull`].
pub(crate) fn pull(session: &Session<'_>, long_poll: Option<Duration>) -> Result<bool> {
    let _pulling = session.lock_pulls(OPERATION)?;
    if session.unfinished.lock().is_some() {
        let _sync = session.lock_sync(OPERATION)?;
        finish_earlier(session)?;
    }
    let mut tries = 0;
    loop {
        tries += 1;
        match pull_once(session, long_poll.filter(|_| tries == 1)) {
            // Of the revision that it was going to: the one that the replica is at needs not be kept.
            Err(error) if error.is_revision_expired() && tries < TRIES => {
                tracing::info!(%error, "a pull asks again");
            }
            pulled => return pulled,
        }
    }
}

/// For the holder of the lock for pulls, when the pull before is finished.
fn pull_once(session: &Session<'_>, long_poll: Option<Duration>) -> Result<bool> {
    let url = session.checked_url()?;
    let is_first = session.info.lock().is_unpulled();
    if session.info.lock().is_unsettled() {
        let _sync = session.lock_sync(OPERATION)?;
        push::settle(session, OPERATION)?;
    }
    let arrivals = session.replica.map().note_arrivals();
    let confirmed = || session.confirmed.load(Ordering::Acquire);
    let confirmed_before = confirmed();
    let asked = match ask::ask(session, long_poll, url.as_deref()) {
        Err(Error::Remote(error)) if session.move_away(&error)? => ask::ask(session, None, url.as_deref())?,
        asked => asked?,
    };
    session.adopt(url.clone())?;
    let _sync = session.lock_sync(OPERATION)?;
    let asked = match asked {
        // The answer does not have what a push took out of the log meanwhile, nor what one may have brought without knowing,
        // nor says whether pages that were fetched during a long poll have changed.
        asked
            if push::settle(session, OPERATION)?
                || (asked.is_some() && confirmed() != confirmed_before)
                || (long_poll.is_some() && asked.as_ref().is_some_and(|asked| asked.is_late(&arrivals))) =>
        {
            drop(asked);
            ask::ask(session, None, url.as_deref())?
        }
        asked => asked,
    };
    let Some(asked) = asked else {
        // It says how fresh the replica is, not when something was new.
        session.update_info(|info| info.last_pull = Some(now()))?;
        return Ok(false);
    };
    let mut next = next::Next::of(session, asked)?;
    commit::commit(session, &mut next)?;
    drop(next);
    finish_earlier(session)?;
    if is_first {
        run_bootstrap_query(session)?;
    }
    Ok(true)
}
