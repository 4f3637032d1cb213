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
            Self::NoReplica(_) => 2,
            _ => 1,
        }
    }

    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Stream(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Prints the error and what caused it, each text once.
    pub(crate) fn report(&self) {
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
        eprintln!("error: {said}");
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !said.contains(&text) {
                eprintln!("  because: {text}");
                said = text;
            }
            cause = error.source();
        }
    }
}
