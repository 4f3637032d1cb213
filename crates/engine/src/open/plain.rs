//! The engine's own connections to a replica, which record nothing, and what is read through them: numbers and whole pages.

use std::time::Duration;

use partial_sync_core::PageNo;
use partial_sync_vfs::{
    Replica, VFS_NAME,
    sqlite::{Conn, OpenOptions, Step, Stmt, ValueRef},
};

use crate::{
    error::{Error, Result},
    sql::shared_connection::load_extras,
};

/// A connection to the replica without capture, whose commits are durable when they return (SQLite's default). Reads nothing
/// yet: not even the schema need be here.
pub(crate) fn open_plain(replica: &Replica, busy_timeout: Duration) -> Result<Conn> {
    let conn = connect(replica, busy_timeout)?;
    conn.execute_batch("PRAGMA foreign_keys=OFF")?;
    load_extras(&conn)?;
    Ok(conn)
}

/// A connection to the replica that asks the network for nothing: it overwrites pages, or reads those that are here.
pub(crate) fn open_without_fetching(replica: &Replica, busy_timeout: Duration) -> Result<Conn> {
    let conn = connect(replica, busy_timeout)?;
    conn.never_fetch()?;
    Ok(conn)
}

fn connect(replica: &Replica, busy_timeout: Duration) -> Result<Conn> {
    let options = OpenOptions {
        vfs: Some(VFS_NAME.into()),
        create: false,
        busy_timeout,
        ..OpenOptions::default()
    };
    Ok(Conn::open(replica.name(), &options)?)
}

/// The number that a statement answers.
pub(crate) fn integer(conn: &Conn, sql: &str) -> Result<i64> {
    let mut stmt = conn.prepare_one(sql)?;
    match (stmt.step()?, stmt.value(0)?) {
        (Step::Row, ValueRef::Integer(n)) => Ok(n),
        (_, other) => Err(Error::Damaged {
            what: "the database",
            why: format!("{sql} answered {other:?}"),
        }),
    }
}

/// Reads pages as a connection sees them, the WAL included, through the virtual table `sqlite_dbpage`. An absent page is
/// fetched; ask the page map first where that must not be.
pub(crate) struct DbpageReader {
    read: Stmt,
}

impl DbpageReader {
    pub(crate) fn new(conn: &Conn) -> Result<Self> {
        Ok(Self {
            read: conn.prepare_one("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?,
        })
    }

    /// The page's bytes; `None` beyond the end of the database as the connection sees it.
    pub(crate) fn read(&mut self, page: PageNo) -> Result<Option<&[u8]>> {
        self.read.reset()?;
        self.read.bind(1, ValueRef::Integer(i64::from(page.get())))?;
        match self.read.step()? {
            Step::Done => Ok(None),
            Step::Row => match self.read.value(0)? {
                ValueRef::Blob(bytes) => Ok(Some(bytes)),
                _ => Ok(None),
            },
        }
    }
}
