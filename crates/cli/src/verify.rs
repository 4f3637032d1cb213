//! `verify`: says which pages of a replica differ from the remote's, and whether a bucket is whole.

use std::io::{self, Write};

use crate::{
    arguments::Verify,
    bucket, compare,
    error::CliError,
    hydrate, interrupt, replica,
    units::{LISTED, counted},
};

pub(crate) fn run(arguments: Verify) -> Result<(), CliError> {
    let Verify { on, file } = arguments;
    match (bucket::url(&on.replica), &file) {
        (Some(url), None) => return bucket::verify(url, on.json),
        (Some(url), Some(file)) => return compare::run(url, file, on.remote.timeout, on.json),
        (None, Some(_)) => return Err(CliError::FileNeedsBucket),
        (None, None) => {}
    }
    let database = replica::open(&on)?;
    let cancel = database.cancel_handle()?;
    interrupt::on_ctrl_c(move || cancel.cancel());
    let bar = hydrate::bar(true);
    let result = database.verify(|at| {
        bar.set_length(at.total.into());
        bar.set_position(at.compared.into());
    });
    bar.finish_and_clear();
    let verified = result?;
    let mut out = io::stdout().lock();
    if on.json {
        serde_json::to_writer(&mut out, &verified).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        let page = |n: u32| counted(n.into(), "page");
        writeln!(
            out,
            "compared {} with revision {}",
            page(verified.compared),
            verified.revision
        )?;
        if verified.dirty_skipped > 0 {
            writeln!(out, "left out {} written locally", page(verified.dirty_skipped))?;
        }
        if verified.absent > 0 {
            writeln!(out, "{} not here", page(verified.absent))?;
        }
        for different in verified.differing.iter().take(LISTED) {
            let (page, here, remote) = (different.page, &different.here, &different.remote);
            writeln!(out, "page {page} differs: {here} here, {remote} on the remote")?;
        }
        if verified.differing.len() > LISTED {
            writeln!(out, "... and {} more", verified.differing.len() - LISTED)?;
        }
        if verified.is_equal() {
            writeln!(out, "equal")?;
        }
    }
    if verified.is_equal() {
        Ok(())
    } else {
        Err(CliError::Differs)
    }
}
