//! The first pull of a replica that was made without the remote ([`crate::bootstrap::empty`]): fetches what the first connect
//! would have fetched. From there on it is a pull like any other, of a remote that replaced everything.

use std::path::PathBuf;

use partial_sync_core::PageNo;
use partial_sync_transport::ApplyMode;

use crate::{
    bootstrap::{self, Plan},
    error::{Error, Result},
    pull::{Answer, DOING},
    session::Session,
    staged::{Staged, StagedBase},
};

/// UTF-8, in bytes 56 to 59 of page 1.
const UTF_8: [u8; 4] = [0, 0, 0, 1];

/// Fetches and stages.
pub(crate) fn ask(open: &Session<'_>, path: PathBuf) -> Result<Answer> {
    let page_size = open.replica.page_size().bytes();
    let begun = StagedBase {
        revision: String::new(),
        size: 0,
        page_size,
    };
    let mut staged = Staged::begin(&open.storage, path, begun)?;
    let plan = Plan::of(open.options);
    let fetched = open.wait(DOING, async {
        let mut put = |page: PageNo, data: &[u8]| {
            check(page, data, page_size)?;
            staged.put_page(page.id().0, data)
        };
        bootstrap::fetch(&*open.remote, &plan, open.options.timeout, &mut put).await
    })?;
    open.update_info(|info| {
        info.bootstrap = open.options.partial.as_ref().and_then(|p| p.bootstrap.clone());
        info.remote_hydrates = fetched.hydrates;
    })?;
    staged.set_base(StagedBase {
        revision: fetched.base.revision.as_str().to_owned(),
        size: fetched.base.size.0,
        page_size,
    })?;
    Ok(Some((fetched.base, ApplyMode::ReplaceBase, staged)))
}

/// Refuses a database that a replica which was begun without it cannot become.
pub(crate) fn check(page: PageNo, data: &[u8], page_size: u32) -> Result<()> {
    let refuse = |theirs: &str, ours: &str| {
        Err(Error::UnusableDatabase {
            why: format!(
                "it has {theirs}, and this replica was made before that could be known, with {ours}; push what was changed \
                 here, delete the replica, and connect anew with bootstrap_if_empty while the remote can be reached"
            ),
        })
    };
    if data.len() != page_size as usize {
        let theirs = format!("pages of {} bytes", data.len());
        return refuse(&theirs, &format!("pages of {page_size}"));
    }
    if page == PageNo::FIRST && data[56..60] != UTF_8 && data[56..60] != [0; 4] {
        return refuse("text in UTF-16", "text in UTF-8");
    }
    Ok(())
}
