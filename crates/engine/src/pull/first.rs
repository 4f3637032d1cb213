//! The first pull of a replica that was made without the remote ([`crate::open::bootstrap::empty`]): fetches what the first connect
//! would have fetched. From there on it is a pull like any other, of a remote that replaced everything.

use partial_sync_core::{PageId, PageNo, header::Page1};
use partial_sync_vfs::Stay;

use super::staged::{Asked, OPERATION, Staged};
use crate::{
    error::{Error, Result},
    fetch::initial::{InitialPages, fetch_initial},
    open::session::Session,
};

/// As page 1 says it; 0 says that there is no text yet.
const UTF_8: u32 = 1;

/// Fetches and stages.
pub(crate) fn ask(session: &Session<'_>) -> Result<Option<Asked>> {
    let page_size = session.replica.page_size();
    let staged = Staged::begin(session)?;
    let wanted = InitialPages::of(session.options);
    let fetched = session.wait(OPERATION, async {
        let mut put = |page: PageNo, data: &[u8]| {
            check(page.id(), data, page_size.bytes())?;
            staged.put(page.id(), data)
        };
        fetch_initial(&*session.remote, &wanted, session.options.timeout, &mut put).await
    })?;
    session.update_info(|info| {
        info.bootstrap = session.options.partial.as_ref().and_then(|p| p.bootstrap.clone());
        info.note_features(fetched.features);
    })?;
    Ok(Some(Asked {
        base: fetched.base,
        stay: Stay::none(),
        about: None,
        staged,
    }))
}

/// What the remote's database has, and what a replica has that was made without it.
pub(crate) fn not_what_it_began_as(theirs: &str, ours: &str) -> Error {
    Error::UnusableDatabase {
        why: format!(
            "it has {theirs}, and this replica was made before that could be known, with {ours}; push what was changed \
             locally, delete the replica, and connect again with bootstrap_if_empty while the remote can be reached"
        ),
    }
}

/// Refuses a database that a replica which was begun without it cannot become.
pub(super) fn check(page: PageId, data: &[u8], page_size: u32) -> Result<()> {
    let refuse = |theirs: &str, ours: &str| Err(not_what_it_began_as(theirs, ours));
    if data.len() != page_size as usize {
        let theirs = format!("pages of {} bytes", data.len());
        return refuse(&theirs, &format!("pages of {page_size}"));
    }
    if page.0 != 0 {
        return Ok(());
    }
    match Page1::of(data).map(Page1::text_encoding) {
        Ok(0 | UTF_8) => Ok(()),
        Ok(_) => refuse("text in UTF-16", "text in UTF-8"),
        Err(error) => Err(Error::UnusableDatabase {
            why: error.to_string(),
        }),
    }
}
