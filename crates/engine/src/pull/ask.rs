//! The question of a pull: what changed since the base, of the pages that are here. The answer is staged. No lock is held
//! meanwhile, so a long poll keeps nobody waiting.

use std::time::Duration;

use partial_sync_core::PageCount;
use partial_sync_transport::{ApplyMode, PageSelector, PagesRequest, RemoteErrorKind};
use partial_sync_vfs::Base;

use super::{
    first,
    staged::{Asked, OPERATION, Staged},
};
use crate::{
    error::{Error, Result},
    open::session::Session,
};

/// Asks the remote at `url` and stages. `None`: nothing changed.
pub(crate) fn ask(
    session: &Session<'_>,
    long_poll: Option<Duration>,
    url: Option<&str>,
) -> Result<Option<Asked>> {
    let old = session.replica.base();
    let is_unpulled = session.info.lock().is_unpulled();
    let asked = match is_unpulled {
        true => first::ask(session)?,
        false => ask_what_changed(session, &old, long_poll, session.base_is_elsewhere(url))?,
    };
    match asked {
        Some(asked) if asked.base.size == PageCount::ZERO => match old.size {
            PageCount::ZERO => Ok(None),
            _ => Err(Error::UnusableDatabase {
                why: "the remote's database has become empty; delete the replica and connect again".into(),
            }),
        },
        asked => Ok(asked),
    }
}

/// `moved`: the base is a revision of another remote.
fn ask_what_changed(
    session: &Session<'_>,
    old: &Base,
    long_poll: Option<Duration>,
    moved: bool,
) -> Result<Option<Asked>> {
    let replica = &session.replica;
    let rebuild = session.info.lock().rebuild;
    let present = replica.map().present();
    let mut dirty = replica.map().dirty();
    dirty.insert(0);
    let selected = &present | &dirty;
    let request = PagesRequest {
        since: Some(old.revision.clone()),
        long_poll: long_poll.filter(|_| !rebuild),
        select: PageSelector::Ids(selected.clone()),
        require: Some(dirty),
        page_size: Some(replica.page_size()),
        deadline: Some(session.options.timeout),
        ..PagesRequest::default()
    };
    session.wait(OPERATION, async {
        // Another remote's word for what changed would not be about this base, even if it knows a revision of that name.
        let asked = match moved {
            true => None,
            false => Some(session.remote.pages(request.clone()).await),
        };
        let mut answer = match asked {
            Some(Err(error)) if error.kind != RemoteErrorKind::RevisionExpired => return Err(error.into()),
            Some(Ok(answer)) => answer,
            // It cannot say what changed: every page that is here counts as changed.
            _ => {
                let latest = PagesRequest {
                    since: None,
                    long_poll: None,
                    require: None,
                    ..request
                };
                let mut answer = session.remote.pages(latest).await?;
                answer.header.mode = ApplyMode::ReplaceBase;
                answer
            }
        };
        let header = answer.header.clone();
        if header.revision == old.revision && !rebuild && !moved {
            return Ok(None);
        }
        let staged = Staged::begin(session)?;
        while let Some(page) = futures_util::StreamExt::next(&mut answer.pages).await {
            let page = page?;
            // The last page comes along when the database grew; anything else that was not asked for is not wanted.
            if selected.contains(page.id.0) || page.id.0 + 1 == header.db_size.0 {
                if moved {
                    first::check(page.id, &page.data, replica.page_size().bytes())?;
                }
                staged.put(page.id, &page.data)?;
            }
        }
        Ok(Some(Asked {
            base: Base {
                revision: header.revision,
                size: header.db_size,
            },
            mode: header.mode,
            present,
            staged,
        }))
    })
}
