//! Why something could not be done with a bucket, and what to do about it.

use std::{path::PathBuf, sync::Arc};

use object_store::Error as ObjectError;
use partial_sync_core::PageNo;
use partial_sync_ltx::{LtxError, TxId};

/// An error of this crate. `store` is the url of the database's place, without secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A url that names no place for a database.
    #[error("{url:?} cannot be used as the place of a database: {why}")]
    Url {
        /// As given, without secrets.
        url: String,
        /// What is wrong, and what it should look like.
        why: String,
    },
    /// A request was not answered as it should.
    #[error("{store}: {what} failed: {source}")]
    Request {
        /// Where.
        store: String,
        /// What was asked for.
        what: String,
        /// What the store said.
        source: ObjectError,
    },
    /// An object that should be there is not.
    #[error("{store}: {what} is not there; it was removed, or another program writes into this place")]
    Missing {
        /// Where.
        store: String,
        /// The object.
        what: String,
    },
    /// Conditional writes do not hold, so that two writers would destroy each other's transactions.
    #[error(
        "{store} cannot keep a database: {what}. Use a store with conditional writes (If-None-Match and If-Match of PUT), and \
         switch them on where they are an option"
    )]
    Unsafe {
        /// Where.
        store: String,
        /// What did not hold.
        what: &'static str,
    },
    /// `head.json` is not what this crate writes.
    #[error(
        "{store}: partial-sync/head.json is wrong: {why}. Restore it from a backup or a version of the object"
    )]
    Head {
        /// Where.
        store: String,
        /// What is wrong.
        why: String,
    },
    /// `head.json` was written by a newer version.
    #[error("{store}: partial-sync/head.json has format {format}, this version knows 1: use a newer version")]
    NewerHead {
        /// Where.
        store: String,
        /// Its format.
        format: u64,
    },
    /// A file of the log is damaged or is not what its name says.
    #[error("{store}: {what}: {source}")]
    File {
        /// Where.
        store: String,
        /// The file.
        what: String,
        /// What is wrong with it.
        source: LtxError,
    },
    /// A state that is not kept any more: it was compacted into a later one, and its own file was removed.
    #[error("{store}: the state after transaction {id} is not kept any more; take a later one")]
    Gone {
        /// Where.
        store: String,
        /// The last transaction of the state.
        id: TxId,
    },
    /// What is there now is not a continuation of what was read before.
    #[error(
        "{store}: this is not the history that was read before: {why}. Revisions of it are void; open the database again"
    )]
    OtherHistory {
        /// Where.
        store: String,
        /// What shows it.
        why: String,
    },
    /// A branch whose files are partly those of a database that is not there any more.
    #[error(
        "{store} is a branch of the database in {parent}, and that is not there any more: {why}. Restore what was there"
    )]
    Parent {
        /// The branch.
        store: String,
        /// What it is a branch of.
        parent: String,
        /// What is there.
        why: String,
    },
    /// A branch that cannot be made.
    #[error("{store} cannot have a branch in {branch}: {why}")]
    Branch {
        /// Of what.
        store: String,
        /// Where.
        branch: String,
        /// Why, and what to do.
        why: String,
    },
    /// A head that others changed each time.
    #[error("{store}: partial-sync/head.json was changed by others again and again; try again")]
    Busy {
        /// Where.
        store: String,
    },
    /// A page that no file of the log has.
    #[error(
        "{store}: page {page} is in no file that makes the state after transaction {id}: verify the database"
    )]
    NoPage {
        /// Where.
        store: String,
        /// The page.
        page: PageNo,
        /// The last transaction of the state.
        id: TxId,
    },
    /// An object was replaced while it was read.
    #[error("{store}: {what} was replaced while it was read; try again")]
    Replaced {
        /// Where.
        store: String,
        /// The object.
        what: String,
    },
    /// An object is larger than what is read of it.
    #[error("{store}: {what} has {size} bytes, at most {limit} are read")]
    TooLarge {
        /// Where.
        store: String,
        /// The object, or the part of it.
        what: String,
        /// Its bytes.
        size: u64,
        /// The most.
        limit: u64,
    },
    /// A file that is not overwritten.
    #[error("{} is there already: give another name, or move it away", .0.display())]
    Exists(PathBuf),
    /// A file of this machine could not be written.
    #[error("{} cannot be written: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A request that several waited for failed.
    #[error(transparent)]
    Shared(Arc<StoreError>),
    /// There is no database.
    #[error("{store}: there is no database of partial-sync here; begin one")]
    NoDatabase {
        /// Where.
        store: String,
    },
    /// There is something already where a database should begin.
    #[error(
        "{store}: {what} is here already. Choose an empty place, or say that what is here is to be taken over"
    )]
    NotEmpty {
        /// Where.
        store: String,
        /// What is there.
        what: String,
    },
    /// The database belongs to another writer.
    #[error(
        "{store}: the database is written by another server{}. Stop that one, and say that the database is to be taken over",
        url.as_ref().map_or_else(String::new, |url| format!(", {url}"))
    )]
    Foreign {
        /// Where.
        store: String,
        /// The other's url, if it told one.
        url: Option<String>,
    },
    /// Another writer has taken the database over. What this one wrote since is not in the log.
    #[error("{store}: another server has taken the database over, this one must not write to it any more")]
    Fenced {
        /// Where.
        store: String,
    },
    /// It is not known whether a transaction is in the log.
    #[error("{store}: transaction {id} may be committed or not: {source}. Settle it before the next one")]
    Unsettled {
        /// Where.
        store: String,
        /// The transaction.
        id: TxId,
        /// Why it is not known.
        source: Box<StoreError>,
    },
    /// An earlier transaction is not settled yet.
    #[error("{store}: transaction {id} is not settled yet")]
    NotSettled {
        /// Where.
        store: String,
        /// The transaction.
        id: TxId,
    },
    /// There are no more ids.
    #[error("{store}: the transaction ids are used up")]
    IdsUsedUp {
        /// Where.
        store: String,
    },
    /// What reads the database for a snapshot failed.
    #[error("the database cannot be read for a snapshot: {0}")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// The error itself, of one that several got.
    pub fn root(&self) -> &Self {
        match self {
            Self::Shared(error) => error.root(),
            error => error,
        }
    }

    /// Whether an object was not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.root(), Self::Missing { .. })
    }
}
