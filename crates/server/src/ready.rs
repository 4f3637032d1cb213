//! Whether the server can answer in full, for `GET /ready`. (`GET /health` says no more than that it is alive.)

use std::path::Path;

use serde::Serialize;

use crate::{
    database::Database,
    databases::Databases,
    error::ServerError,
    follow::{FollowerState, Place},
    system::disk_free,
};

const FILE_MISSING: (&str, &str) = ("FILE_MISSING", "its file was moved or removed");

/// What keeps a database from being served in full.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    /// Its name; told only to those who may know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    pub code: &'static str,
    pub message: &'static str,
}

impl Problem {
    /// That of a server of a bucket.
    pub(crate) fn of_bucket() -> Self {
        Self {
            database: None,
            code: "BUCKET_UNREADABLE",
            message: "the bucket that it serves cannot be read: the server's log says why",
        }
    }

    /// That of a server in front of another remote.
    pub(crate) fn of_origin() -> Self {
        Self {
            database: None,
            code: "ORIGIN_UNREACHABLE",
            message: "the remote that it serves cannot be asked: the server's log says why",
        }
    }

    /// Names of databases are for those who are known only.
    pub(crate) fn told(&self, known: bool) -> Self {
        Self {
            database: self.database.clone().filter(|_| known),
            ..*self
        }
    }
}

/// A database that is served while its pages are compared with its page history.
#[derive(Debug, Serialize)]
pub(crate) struct Comparing {
    pub database: String,
    pub compared: u32,
    pub pages: u32,
}

/// How the databases are.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub problems: Vec<Problem>,
    pub comparing: Vec<Comparing>,
}

/// That of files.
pub(crate) async fn report(databases: &Databases, reserve: u64) -> Report {
    Report {
        problems: problems(databases, reserve).await,
        comparing: comparing(databases),
    }
}

/// The ones that are open.
fn comparing(databases: &Databases) -> Vec<Comparing> {
    let open = databases.opened();
    let comparing = open.iter().filter_map(|database| {
        let comparing = database.follower().comparing()?;
        Some(Comparing {
            database: database.handle().name.to_string(),
            compared: comparing.pages.0 - comparing.left(),
            pages: comparing.pages.0,
        })
    });
    comparing.collect()
}

/// The problems of all databases that are open, and of the one of a server of one. `reserve` = bytes that a disk must have left.
async fn problems(databases: &Databases, reserve: u64) -> Vec<Problem> {
    let mut open = databases.opened();
    if databases.is_single() && open.is_empty() {
        // It is open as long as it can be.
        match databases.get("").await {
            Ok(database) => open.extend(database),
            Err(error) => return vec![unopened(&error)],
        }
    }
    let look = move || {
        open.iter()
            .flat_map(|database| problems_of(database, reserve))
            .collect()
    };
    // A look that panicked is reported by the thread it was on; the server is not ready then either.
    tokio::task::spawn_blocking(look).await.unwrap_or_else(|_| {
        vec![Problem {
            database: None,
            code: "UNKNOWN",
            message: "how the databases are could not be found out",
        }]
    })
}

fn unopened(error: &ServerError) -> Problem {
    let (code, message) = match error {
        ServerError::Missing { .. } => FILE_MISSING,
        // Anyone may ask this, as often as he likes.
        _ => (
            "NOT_OPENED",
            "it cannot be opened: the server's log says why when somebody uses it",
        ),
    };
    Problem {
        database: None,
        code,
        message,
    }
}

fn problems_of(database: &Database, reserve: u64) -> Vec<Problem> {
    let files = database.follower().files();
    let folder = files.path().parent().unwrap_or(Path::new("."));
    let failing = match database.follower().state() {
        // It is opened again by the next request, if its file is there.
        FollowerState::Following | FollowerState::Ended => None,
        FollowerState::Failing(why) => Some(("NOT_FOLLOWED", why)),
    };
    let missing = matches!(files.place(), Place::Missing { .. });
    let full = disk_free(folder).filter(|free| *free < reserve);
    [
        failing,
        missing.then_some(FILE_MISSING),
        files.is_immutable().then_some((
            "NO_SQL",
            "it is in WAL mode and nothing can be written beside it: its pages are served, and SQL is refused",
        )),
        full.map(|_| {
            (
                "DISK_FULL",
                "the disk that it and its page history are on is nearly full",
            )
        }),
    ]
    .into_iter()
    .flatten()
    .map(|(code, message)| Problem {
        database: Some(database.handle().name.to_string()),
        code,
        message,
    })
    .collect()
}
