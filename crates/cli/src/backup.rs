//! `backup`: writes one state of a database into a file, while others write to the database.
//!
//! Of a server, it is a revision, whose pages come one after the other through the protocol that replicas use; of a file, what
//! one read transaction sees. The file is complete, checked and on the disk before it has its name, and needs nothing beside it.

use std::{
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::exit,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::TryStreamExt;
use partial_sync_core::{PageSize, header::empty_page_1};
use partial_sync_server::{
    NewFile,
    backup_file::{is_backup, seal},
};
use partial_sync_transport::{HttpRemote, PagesRequest, Remote as _};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use crate::{
    arguments::Backup, error::CliError, file_pages, hydrate::bar, interrupt, secret, units::counted,
};

/// After so many bytes they are put on the disk, so that the system has few of them in memory.
const SYNC_EVERY: u64 = 64 << 20;
pub(crate) fn run(arguments: &Backup) -> Result<(), CliError> {
    let output = &arguments.output;
    check_output(arguments)?;
    let temporary = Temporary::default();
    temporary.goes_when_ended()?;
    let mut written = match arguments.source.contains("://") {
        true => of_server(arguments, &temporary)?,
        false => of_file(arguments, &temporary)?,
    };
    if written.pages == 0 {
        // SQLite takes an empty file for an empty database; a backup is one for everybody.
        let page = empty_page_1(PageSize::DEFAULT);
        written.page(0, &page).map_err(cannot("write", output))?;
    }
    let Written {
        file,
        revision,
        pages,
        ..
    } = written;
    if !arguments.no_check {
        check(file.path())?;
    }
    // Somebody may have begun to use it.
    check_output(arguments)?;
    file.finish(output, arguments.force)
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => CliError::BackupExists(output.clone()),
            _ => cannot("write", output)(source),
        })?;
    let mut out = io::stdout().lock();
    match (arguments.json, revision) {
        (true, revision) => writeln!(out, "{}", json!({ "pages": pages, "revision": revision }))?,
        (false, Some(revision)) => writeln!(out, "{} of revision {revision}", counted(pages, "page"))?,
        (false, None) => writeln!(out, "{}", counted(pages, "page"))?,
    }
    Ok(())
}

/// Nothing is replaced but a backup, and that only if this is wanted.
fn check_output(arguments: &Backup) -> Result<(), CliError> {
    let output = &arguments.output;
    if output.symlink_metadata().is_err() {
        return Ok(());
    }
    if !arguments.force {
        return Err(CliError::BackupExists(output.clone()));
    }
    let is_source = output.canonicalize().ok() == Path::new(&arguments.source).canonicalize().ok();
    match !is_source && is_backup(output).map_err(cannot("read", output))? {
        true => Ok(()),
        false => Err(CliError::NotBackup(output.clone())),
    }
}

/// Where the backup is until it has its name.
#[derive(Clone, Default)]
struct Temporary(Arc<Mutex<Option<PathBuf>>>);

impl Temporary {
    fn place(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes it when the program is told to end, whatever is being waited for.
    fn goes_when_ended(&self) -> io::Result<()> {
        let this = self.clone();
        interrupt::on_end(move |code| {
            // None is made from here on. One that has its name by now is a backup.
            let place = this.place();
            let is_gone = place
                .as_ref()
                .is_none_or(|path| std::fs::remove_file(path).is_ok());
            let what = if is_gone { "; nothing was written" } else { "" };
            eprintln!("error: interrupted{what}");
            exit(code)
        })
    }
}

/// A backup without its name.
struct Written {
    file: NewFile,
    revision: Option<String>,
    pages: u64,
    bytes: u64,
    synced: u64,
}

impl Written {
    /// With the mode of the database, or readable by its owner only.
    fn begin(output: &Path, mode: Option<Permissions>, temporary: &Temporary) -> Result<Self, CliError> {
        let file = {
            let mut place = temporary.place();
            let file = NewFile::beside(output).map_err(cannot("write", output))?;
            *place = Some(file.path().to_owned());
            file
        };
        let mode = mode.unwrap_or_else(|| Permissions::from_mode(0o600));
        file.file()
            .set_permissions(mode)
            .map_err(cannot("write", output))?;
        Ok(Self {
            file,
            revision: None,
            pages: 0,
            bytes: 0,
            synced: 0,
        })
    }

    /// Writes a page, whose number counts from 0.
    fn page(&mut self, number: u64, page: &[u8]) -> io::Result<()> {
        let mut alone;
        let page = match number {
            0 => {
                alone = page.to_vec();
                seal(&mut alone);
                &alone
            }
            _ => page,
        };
        self.file.write_at(page, number * page.len() as u64)?;
        self.pages += 1;
        self.bytes += page.len() as u64;
        if self.bytes - self.synced >= SYNC_EVERY {
            self.file.file().sync_data()?;
            self.synced = self.bytes;
        }
        Ok(())
    }
}

fn of_server(arguments: &Backup, temporary: &Temporary) -> Result<Written, CliError> {
    let mut remote = HttpRemote::builder(arguments.source.as_str()).deadline(arguments.timeout);
    if let Some(token) = secret::token(&arguments.bearer)? {
        remote = remote.auth_token(token);
    }
    let remote = remote.build().map_err(CliError::Backup)?;
    let revision = arguments.revision.as_deref().map(|text| {
        partial_sync_core::Revision::new(text).ok_or_else(|| CliError::NoRevision(text.to_owned()))
    });
    let request = PagesRequest {
        revision: revision.transpose()?,
        ..PagesRequest::default()
    };
    let copied = async {
        let mut answer = remote.pages(request).await.map_err(CliError::Backup)?;
        let mut written = Written::begin(&arguments.output, None, temporary)?;
        written.revision = Some(answer.header.revision.as_str().to_owned());
        let bar = bar(true);
        bar.set_length(answer.header.db_size.0.into());
        while let Some(page) = answer.pages.try_next().await.map_err(CliError::Backup)? {
            let at = u64::from(page.id.0);
            written
                .page(at, &page.data)
                .map_err(cannot("write", &arguments.output))?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        match written.pages == u64::from(answer.header.db_size.0) {
            true => Ok(written),
            false => Err(CliError::BadBackup("the server left out pages".to_owned())),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(copied)
}

fn of_file(arguments: &Backup, temporary: &Temporary) -> Result<Written, CliError> {
    let path = Path::new(&arguments.source);
    if arguments.revision.is_some() {
        return Err(CliError::NeedsServer);
    }
    let mode = path.metadata().ok().map(|meta| meta.permissions());
    let mut written = Written::begin(&arguments.output, mode, temporary)?;
    file_pages::read(path, arguments.timeout, |number, page| {
        written
            .page(u64::from(number) - 1, page)
            .map_err(cannot("write", &arguments.output))
    })?;
    Ok(written)
}

/// Reads every page.
fn check(path: &Path) -> Result<(), CliError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let found = Connection::open_with_flags(path, flags)
        .and_then(|db| db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)));
    match found {
        Ok(found) if found == "ok" => Ok(()),
        Ok(found) => Err(CliError::BadBackup(found)),
        Err(error) => Err(CliError::BadBackup(error.to_string())),
    }
}

fn cannot(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::File {
        doing,
        path: path.clone(),
        source,
    }
}
