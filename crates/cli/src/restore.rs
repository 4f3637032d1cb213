//! `restore`: puts a backup in the place of a database.

use std::io::{self, Write};

use serde_json::json;

use crate::{arguments::Restore, confirm::confirm, error::CliError, units::counted};

pub(crate) fn run(arguments: &Restore) -> Result<(), CliError> {
    let path = &arguments.database;
    if path.symlink_metadata().is_ok() && !arguments.yes {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let what = format!(
            "replace {} and all its revisions: what was written after the backup is gone, and replicas have to be made again",
            path.display()
        );
        confirm(&what, &name)?;
    }
    let restored = partial_sync_server::restore(&arguments.backup, path, arguments.timeout)?;
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
