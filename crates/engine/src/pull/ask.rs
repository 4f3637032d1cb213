//! The question of a pull: what changed since the base, of the pages that are here. The answer is staged. No lock is held
//! meanwhile, so a long poll keeps nobody waiting.
//!
//! Where it takes few bytes to say which pages are here, that is one request. Otherwise, and where the remote can
//! ([`Features::list`](partial_sync_transport::Features::list)), it says first what changed, and a second request, pinned to the
//! revision of the first answer, brings those pages that are here.

use std::time::Duration;

use futures_util::StreamExt;
use partial_sync_core::PageCount;
use partial_sync_transport::{ApplyMode, Features, PageSelector, PagesRequest, RemoteErrorKind};
use partial_sync_vfs::{Base, Stay};
use roaring::RoaringBitmap;

use super::{
    first,
    missing::stage_missing,
    staged::{Asked, OPERATION, Staged},
};
use crate::{
    error::{Error, Result},
    open::session::Session,
};

/// So many pages take 16 KiB to say.
const SOME_PAGES: u32 = 1 << 13;

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
    let map = session.replica.map();
    let (rebuild, lists) = {
        let info = session.info.lock();
        (info.rebuild, info.remote_lists)
    };
    let mut question = Question {
        session,
        old,
        long_poll: long_poll.filter(|_| !rebuild),
        rebuild,
    };
    // Another remote's word for what changed would not be about this base, even if it knows a revision of that name.
    let mut since = (!moved).then_some(&old.revision);
    let present = match map.present_if_few(session.options.longest_question) {
        Some(few) => few,
        None if moved || !lists => map.present(),
        None => {
            match question.list()? {
                Listed::Asked(asked) => return Ok(asked),
                Listed::Expired => since = None,
                Listed::NotTold => {}
            }
            // The list has waited.
            question.long_poll = None;
            map.present()
        }
    };
    question.among(present, since.is_some(), moved)
}

/// What a remote that was asked for a list says.
enum Listed {
    /// What changed; its pages are staged.
    Asked(Option<Asked>),
    /// The base is no longer kept.
    Expired,
    /// It does not list, or not this.
    NotTold,
}

struct Question<'q> {
    session: &'q Session<'q>,
    old: &'q Base,
    long_poll: Option<Duration>,
    /// Whether the pages that are dirty are wanted also without news.
    rebuild: bool,
}

impl Question<'_> {
    fn request(&self) -> PagesRequest {
        PagesRequest {
            since: Some(self.old.revision.clone()),
            long_poll: self.long_poll,
            page_size: Some(self.session.replica.page_size()),
            deadline: Some(self.session.options.timeout),
            ..PagesRequest::default()
        }
    }

    fn learn(&self, features: Features) -> Result<()> {
        self.session.update_info_if(
            |info| (info.remote_lists, info.remote_takes_changes) != (features.list, features.writes),
            |info| info.note_features(features),
        )
    }

    /// Which pages changed; and then those that are here.
    fn list(&self) -> Result<Listed> {
        let (session, map) = (self.session, self.session.replica.map());
        let request = PagesRequest {
            list: true,
            ..self.request()
        };
        let answer = session.wait(OPERATION, async { Ok(session.remote.pages(request).await) })?;
        let mut answer = match answer {
            Err(error) if error.kind == RemoteErrorKind::RevisionExpired => return Ok(Listed::Expired),
            // A server that was started after a kill may know of some pages, and of all of them only much later.
            Err(error) if error.kind == RemoteErrorKind::Failed && map.present_count().0 <= SOME_PAGES => {
                tracing::info!(%error, "a pull asks about the pages that are here");
                return Ok(Listed::NotTold);
            }
            answer => answer?,
        };
        self.learn(answer.header.features)?;
        let header = &answer.header;
        if header.revision == self.old.revision && !self.rebuild {
            return Ok(Listed::Asked(None));
        }
        let base = Base {
            revision: header.revision.clone(),
            size: header.db_size,
        };
        let Some(mut changed) = header
            .listed
            .clone()
            .filter(|_| header.mode == ApplyMode::Incremental)
        else {
            return Ok(Listed::NotTold);
        };
        // To its end: an answer that was cut is none.
        session.wait(OPERATION, async {
            while let Some(page) = answer.pages.next().await {
                page?;
            }
            Ok(())
        })?;
        // Whatever is here of pages that one of the two does not have was not from there.
        changed.insert_range(self.old.size.min(base.size).0..base.size.0);
        // After the answer: a page that comes now and is not among them is what it was.
        let mut wanted = map.present_among(&changed) | map.dirty();
        wanted.insert(0);
        if base.size > self.old.size {
            // Writing it makes the database longer.
            wanted.insert(base.size.0.saturating_sub(1));
        }
        let staged = Staged::begin(session)?;
        stage_missing(session, &base, &staged, &wanted)?;
        Ok(Listed::Asked(Some(Asked {
            base,
            stay: Stay::AllBut(changed),
            about: None,
            staged,
        })))
    }

    /// Which of these pages, which are here, changed. `knows`: the remote may be able to tell.
    fn among(&self, present: RoaringBitmap, knows: bool, moved: bool) -> Result<Option<Asked>> {
        let (session, replica) = (self.session, &self.session.replica);
        let mut dirty = replica.map().dirty();
        dirty.insert(0);
        let selected = &present | &dirty;
        let request = PagesRequest {
            select: PageSelector::Ids(selected.clone()),
            require: Some(dirty),
            ..self.request()
        };
        let (asked, features) = session.wait(OPERATION, async {
            let asked = match knows {
                false => None,
                true => Some(session.remote.pages(request.clone()).await),
            };
            let mut answer = match asked {
                Some(Err(error)) if error.kind != RemoteErrorKind::RevisionExpired => {
                    return Err(error.into());
                }
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
            if header.revision == self.old.revision && !self.rebuild && !moved {
                return Ok((None, header.features));
            }
            let staged = Staged::begin(session)?;
            while let Some(page) = answer.pages.next().await {
                let page = page?;
                // The last page comes along when the database grew; anything else that was not asked for is not wanted.
                if selected.contains(page.id.0) || page.id.0 + 1 == header.db_size.0 {
                    if moved {
                        first::check(page.id, &page.data, replica.page_size().bytes())?;
                    }
                    staged.put(page.id, &page.data)?;
                }
            }
            let (stay, about) = match header.mode {
                ApplyMode::Incremental => (Stay::Only(&present - staged.ids()), Some(present)),
                ApplyMode::ReplaceBase => (Stay::none(), None),
            };
            let asked = Asked {
                base: Base {
                    revision: header.revision,
                    size: header.db_size,
                },
                stay,
                about,
                staged,
            };
            Ok((Some(asked), header.features))
        })?;
        self.learn(features)?;
        Ok(asked)
    }
}
