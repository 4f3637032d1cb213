//! `backup`: writes one state of a database into a file, while others write to the database.
//!
//! Of a server, it is a revision, whose pages come one after the other through the protocol that replicas use; of a file, what
//! one read transaction sees. The file is complete, checked and on the disk before it has its name, and needs nothing beside it.

use std::{
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt;
use partial_sync_server::NewFile;
use partial_sync_transport::{HttpRemote, PagesRequest, Remote as _};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use crate::{arguments::Backup, error::CliError, hydrate::bar, secret, units::counted};

/// After so many bytes they are put on the disk, so that the system has few of them in memory.
const SYNC_EVERY: u64 = 64 << 20;
/// What is beside a database that is in use, and not beside a backup.
const IN_USE: [&str; 8] = [
    "-wal",
    "-shm",
    "-journal",
    "-history",
    "-lock",
    "-info",
    "-pages",
    "-replica-wal",
];
/// Where the header says which journal the database has, twice, and where, how many bytes of a page SQLite does not use.
const JOURNAL_MODE: usize = 18;
const RESERVED: usize = 20;

pub(crate) fn run(arguments: &Backup) -> Result<(), CliError> {
    let output = &arguments.output;
    if output.symlink_metadata().is_ok() {
        if !arguments.force {
            return Err(CliError::BackupExists(output.clone()));
        }
        let beside = |suffix: &&str| {
            let mut name = output.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name).exists()
        };
        let is_source = output.canonicalize().ok() == Path::new(&arguments.source).canonicalize().ok();
        if is_source || IN_USE.iter().any(beside) {
            return Err(CliError::IsDatabase(output.clone()));
        }
    }
    let written = match arguments.source.contains("://") {
        true => of_server(arguments)?,
        false => of_file(arguments)?,
    };
    let Written {
        file,
        revision,
        pages,
        ..
    } = written;
    if !arguments.no_check {
        check(file.path())?;
    }
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
    fn begin(output: &Path, mode: Option<Permissions>) -> Result<Self, CliError> {
        let file = NewFile::beside(output).map_err(cannot("write", output))?;
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
                stand_alone(&mut alone);
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

/// A database in WAL mode makes a WAL when it is looked at, which some folders do not allow. (Bytes that SQLite does not use
/// may be the page's checksum.)
fn stand_alone(first: &mut [u8]) {
    if let Some([2, 2, 0]) = first.get(JOURNAL_MODE..=RESERVED) {
        first[JOURNAL_MODE..RESERVED].fill(1);
    }
}

fn of_server(arguments: &Backup) -> Result<Written, CliError> {
    let mut remote = HttpRemote::builder(arguments.source.as_str()).deadline(arguments.timeout);
    let token = secret::token_of(
        arguments.auth_token.as_deref(),
        arguments.auth_token_file.as_deref(),
    )?;
    if let Some(token) = token {
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
        let mut written = Written::begin(&arguments.output, None)?;
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
    runtime.block_on(async {
        tokio::select! {
            copied = copied => copied,
            // What is written goes with it.
            _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
        }
    })
}

/// Through SQLite, as any other program reads it: whether it is being served makes no difference.
fn of_file(arguments: &Backup) -> Result<Written, CliError> {
    let path = Path::new(&arguments.source);
    if arguments.revision.is_some() {
        return Err(CliError::NeedsServer);
    }
    let mode = path.metadata().ok().map(|meta| meta.permissions());
    let failed = |source: rusqlite::Error| CliError::Source {
        path: path.to_owned(),
        source,
    };
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(failed)?;
    db.busy_timeout(arguments.timeout).map_err(failed)?;
    let mut written = Written::begin(&arguments.output, mode)?;
    // One statement is one read transaction.
    let mut pages = db
        .prepare("SELECT pgno, data FROM sqlite_dbpage ORDER BY pgno")
        .map_err(failed)?;
    let mut rows = pages.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let number: u32 = row.get(0).map_err(failed)?;
        let page = row
            .get_ref(1)
            .and_then(|page| Ok(page.as_blob()?))
            .map_err(failed)?;
        written
            .page(u64::from(number) - 1, page)
            .map_err(cannot("write", &arguments.output))?;
    }
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
