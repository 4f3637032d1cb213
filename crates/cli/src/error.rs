//! Everything that can go wrong in the program, with the exit code that says so.

use std::{error::Error, io, path::PathBuf};

use partial_sync::options::{Language, in_language};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The replica could not be used.
    #[error(transparent)]
    Database(#[from] partial_sync::Error),
    /// The server could not be started.
    #[error(transparent)]
    Server(#[from] partial_sync_server::ServerError),
    /// A database in a bucket could not be used.
    #[error(transparent)]
    Store(#[from] partial_sync_store::StoreError),
    /// A bucket has no such state.
    #[error("{url} keeps no state {what}; `partial-sync log {url}` lists those that it keeps")]
    NoState {
        /// The bucket.
        url: String,
        /// As it was asked for.
        what: String,
    },
    /// A backup has one state.
    #[error("--at needs the url of a bucket: a backup has one state")]
    AtNeedsBucket,
    /// Who takes over a database has to say where.
    #[error(
        "--take-over with --from needs --public-url: the url of this server, to which the others pass SQL on"
    )]
    NeedsPublicUrl,
    /// Only a bucket is compared with a file.
    #[error("a second file is compared with a bucket only: give the url of one before it")]
    FileNeedsBucket,
    /// A file has another state than a bucket, which is printed already.
    #[error(
        "the file is not the latest state of the bucket. If commits are on their way there, compare it again; if it is a copy or was restored, it is an \
         older state, or was written to since"
    )]
    FileDiffers,
    /// A key or tokens could not be used.
    #[error(transparent)]
    Credential(#[from] partial_sync_server::auth::CredentialError),
    /// What the server does not take, with the setting that it comes from as it was written.
    #[error("{0}: {1}")]
    InSetting(String, #[source] partial_sync_server::ServerError),
    /// An address that leads nowhere.
    #[error(
        "{setting}: {address:?} is not an address of this machine: {source}; write one like 127.0.0.1:8080 or [::1]:8080"
    )]
    Address {
        /// The setting as it was written.
        setting: String,
        /// The address.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// A file that is never overwritten is there.
    #[error("{} is there already, and a key is never overwritten: give another name, or move it away", .0.display())]
    Exists(PathBuf),
    /// There is nothing to sign with.
    #[error(
        "give the key to sign with by --key FILE, or in the environment variable PARTIAL_SYNC_SIGNING_KEY; `partial-sync token \
         key` makes one"
    )]
    NoSigningKey,
    /// A new key cannot be made.
    #[error("the system has no randomness to give: try again later")]
    NoRandomness,
    /// What was to be shown is something else.
    #[error("this is not a JSON Web Token: it must have three parts of base64url, with dots between them")]
    NotToken,
    /// Where a token should be, there is something else.
    #[error("{0} must have one token and nothing else")]
    BadToken(String),
    /// A variable of the environment that says nothing.
    #[error("the environment variable {0} is empty: unset it, or give it a value")]
    EmptyVariable(&'static str),
    /// Two variables that say the same thing.
    #[error("the environment variables {0} and {1} are both set: unset one of them")]
    TwoVariables(&'static str, &'static str),
    /// A server that lets everybody in, and a variable that says whom.
    #[error(
        "--allow-unauthenticated lets everybody in, but {0} is set in the environment: unset it, or leave out the flag"
    )]
    LetsAllIn(&'static str),
    /// A token for a bucket.
    #[error(
        "{0} is for a remote (https://, http://, libsql://), and --from names a bucket, which takes its credentials from the environment"
    )]
    NoOrigin(String),
    /// What only a bucket can be.
    #[error("{0} is for a bucket, and --from names a remote, which has a writer")]
    NoBucket(String),
    /// The configuration file is wrong.
    #[error("{}{}: {problem}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: Option<usize>,
        /// What is wrong, with the key and what to do.
        problem: String,
    },
    /// The pages of a backup could not be had.
    #[error("nothing was written: {}", .0.message)]
    Backup(#[source] partial_sync_transport::RemoteError),
    /// A file that is not overwritten without being told to.
    #[error("{} is there already: give another name, or --force to replace it", .0.display())]
    BackupExists(PathBuf),
    /// A file that may be in use.
    #[error(
        "{} is not replaced, because it is not a backup, or was written to since: it may be a database that is in use. Give another name, or \
         remove it first; `partial-sync restore` puts a backup in the place of a database",
        .0.display()
    )]
    NotBackup(PathBuf),
    /// What was written is not a database.
    #[error(
        "nothing was written, because the copy is not a sound database: {0}; --no-check writes it all the same"
    )]
    BadBackup(String),
    /// A text that no server gives out.
    #[error("{0:?} is not a revision: `partial-sync admin revisions NAME` lists those that are kept")]
    NoRevision(String),
    /// A file knows no revisions.
    #[error("--revision needs the url of a server that serves the database: revisions are not in its file")]
    NeedsServer,
    /// A file to copy could not be read.
    #[error("{} cannot be read as a SQLite database: give its file, or the url of the server that serves it", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// A program was killed in the middle of a write, and only one that may write to the file can take that back.
    #[error(
        "{file} cannot be read: a program was killed while it wrote to it, and the journal beside it has to be rolled back first. Start that program \
         again, or run `sqlite3 {file} 'PRAGMA schema_version'` where the file may be written; do not remove the journal",
        file = path.display()
    )]
    HotJournal {
        /// The file.
        path: PathBuf,
    },
    /// A server could not be asked to do something.
    #[error("the server's administration could not be reached")]
    Admin(#[source] partial_sync_transport::RemoteError),
    /// It refused.
    #[error("{message} ({code})")]
    Refused {
        /// Its code.
        code: String,
        /// What it said.
        message: String,
    },
    /// What answers is something else.
    #[error(
        "what answers there, with status {status}, is not the administration of a server: give --url what `serve` printed \
         after `administration on`"
    )]
    NotAdmin {
        /// The status of HTTP.
        status: u16,
    },
    /// Nothing says who asks.
    #[error(
        "give the token for administration by --admin-token-file FILE, or in the environment variable \
         PARTIAL_SYNC_ADMIN_TOKEN or PARTIAL_SYNC_ADMIN_TOKEN_FILE"
    )]
    NoAdminToken,
    /// Something that cannot be undone.
    #[error("nothing was done: give --yes to do it without being asked")]
    NotConfirmed,
    /// There is no replica, and nothing says of what to make one.
    #[error("there is no replica at {}; give the remote with --url to make one", .0.display())]
    NoReplica(PathBuf),
    /// A file could not be read or written.
    #[error("could not {doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// stdin could not be read, stdout not be written.
    #[error(transparent)]
    Stream(#[from] io::Error),
    /// There is no such change to give up.
    #[error("the replica has no unpushed change {0}; `partial-sync changes REPLICA` lists those that it has")]
    NoChange(i64),
    /// A verification found differences, which are printed already.
    #[error(
        "the replica is not what the remote has; delete it and make it again to replace the pages that differ"
    )]
    Differs,
}

impl CliError {
    /// 1 when the command failed, 2 when it was called wrongly.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NoReplica(_)
            | Self::NoSigningKey
            | Self::NoAdminToken
            | Self::NotConfirmed
            | Self::BackupExists(_)
            | Self::NotBackup(_)
            | Self::NeedsServer
            | Self::AtNeedsBucket
            | Self::NeedsPublicUrl
            | Self::FileNeedsBucket
            | Self::Store(partial_sync_store::StoreError::Url { .. })
            | Self::EmptyVariable(_)
            | Self::TwoVariables(..)
            | Self::Config { .. }
            | Self::LetsAllIn(_)
            | Self::NoOrigin(_)
            | Self::NoBucket(_) => 2,
            _ => 1,
        }
    }

    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Stream(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The error and what caused it, each text once.
    pub(crate) fn told(&self) -> Vec<String> {
        let mut said = self.to_string();
        if let Self::Database(error) = self
            && let Some(change) = error.change()
        {
            // The engine names its own function.
            let call = format!("discard_change({change})");
            said = said.replace(&call, &format!("`partial-sync discard REPLICA {change}`"));
        }
        if matches!(self, Self::Database(_)) {
            said = in_language(&said, Language::Program);
        }
        let mut told = vec![said];
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if told.last().is_some_and(|said| !said.contains(&text)) {
                told.push(text);
            }
            cause = error.source();
        }
        told
    }
}
