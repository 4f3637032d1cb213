//! `restore`: puts a backup in the place of a database. A state of a bucket is made a backup first.

use std::io::{self, Write};

use serde_json::json;

use crate::{
    arguments::Restore,
    bucket::{self, Fetched},
    confirm::confirm,
    error::CliError,
    units::counted,
};

pub(crate) fn run(arguments: &Restore) -> Result<(), CliError> {
    let path = &arguments.database;
    let url = bucket::url(&arguments.backup);
    if url.is_none() && arguments.at.is_some() {
        return Err(CliError::AtNeedsBucket);
    }
    if path.symlink_metadata().is_ok() && !arguments.yes {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let what = format!(
            "replace {} and all its revisions: what was written after the backup is gone, and replicas have to be made again",
            path.display()
        );
        confirm(&what, &name)?;
    }
    let fetched = url
        .map(|url| bucket::fetch(url, arguments.at.as_ref(), path))
        .transpose()?;
    let backup = fetched.as_ref().map_or(&*arguments.backup, Fetched::path);
    let restored = partial_sync_server::restore(backup, path, arguments.timeout)?;
    if restored.others {
        eprintln!(
            "warning: another program has the old {} open: what it writes from now on is lost; let it open the file again",
            path.display()
        );
    }
    let mut out = io::stdout().lock();
    if arguments.json {
        let told = json!({ "pages": restored.pages, "served": restored.served, "others": restored.others });
        writeln!(out, "{told}")?;
    } else {
        let served = if restored.served {
            ", and the server serves it"
        } else {
            ""
        };
        writeln!(out, "restored {}{served}", counted(restored.pages, "page"))?;
    }
    Ok(())
}
