//! Whether the transaction that the user's SQL has begun is still there.
//!
//! After some errors (a timeout, an interrupt, `OR ROLLBACK`, a full disk, a page that could not be had) SQLite rolls a
//! transaction back by itself and is then outside of one: the statements that were meant for it would each commit alone.
//! So from then on they are refused, until the caller has ended the transaction with `ROLLBACK` (which succeeds), with
//! `COMMIT`, or with a `RELEASE` that ends it (which fail). It knows of statements that go through [`crate::Statement`] only.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use partial_sync_vfs::sqlite::{self, Conn, Stmt, codes};

use crate::{
    change::tokens::{TokenKind, tokens},
    error::{Error, Result},
};

/// A statement that begins, ends or divides a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Begin,
    Commit,
    Rollback,
    Savepoint(String),
    Release(String),
    RollbackTo(String),
}

impl Control {
    /// What this statement does to transactions, if that is what it is for.
    pub(crate) fn of(stmt: &Stmt) -> Option<Self> {
        if stmt.column_count() > 0 || stmt.is_explain() {
            return None;
        }
        let sql = stmt.sql();
        // Of these SQLite calls BEGIN IMMEDIATE and BEGIN EXCLUSIVE no readers. A letter tells most of the others apart.
        let letter = sql.trim_start().bytes().next();
        if !stmt.readonly()
            && letter.is_some_and(|letter| letter.is_ascii_alphabetic() && letter | 0x20 != b'b')
        {
            return None;
        }
        let mut tokens = tokens(&sql);
        tokens.retain(|token| token.kind != TokenKind::Semicolon);
        let first = tokens.first()?;
        let name = || tokens.last()?.name();
        match () {
            () if first.is("BEGIN") => Some(Self::Begin),
            () if first.is("COMMIT") || first.is("END") => Some(Self::Commit),
            () if first.is("SAVEPOINT") => name().map(Self::Savepoint),
            () if first.is("RELEASE") => name().map(Self::Release),
            () if first.is("ROLLBACK") => match tokens.iter().any(|token| token.is("TO")) {
                true => name().map(Self::RollbackTo),
                false => Some(Self::Rollback),
            },
            () => None,
        }
    }
}

/// What one connection knows of its transaction.
#[derive(Default)]
pub(crate) struct Transactions {
    is_lost: AtomicBool,
    /// A transaction is open that must not be committed and that nobody is in. It could not be rolled back: an interrupt lasts
    /// as long as a query of the connection is in the middle of its rows, and breaks a ROLLBACK too.
    is_left: AtomicBool,
    /// What came after a savepoint must not be committed either, and could not be undone for the same reason.
    is_left_in_part: AtomicBool,
    /// How many transactions were ended by a statement that says so.
    ended: AtomicU64,
    state: Mutex<TransactionState>,
}

#[derive(Default)]
struct TransactionState {
    /// What the statement failed with at which the transaction was lost.
    lost: Option<String>,
    /// The savepoint after which everything is to be undone before the next statement.
    left_after: Option<String>,
    /// Whether a savepoint, the first of these, began the transaction.
    by_savepoint: bool,
    savepoints: Vec<String>,
}

impl TransactionState {
    fn at(&self, name: &str) -> Option<usize> {
        self.savepoints
            .iter()
            .rposition(|savepoint| savepoint.eq_ignore_ascii_case(name))
    }

    /// Whether a release of this savepoint ends the transaction.
    fn is_outermost(&self, name: &str) -> bool {
        self.by_savepoint && self.at(name) == Some(0)
    }

    fn release(&mut self, name: &str) {
        if let Some(at) = self.at(name) {
            self.savepoints.truncate(at);
        }
    }
}

/// Whether a statement is to be run.
pub(crate) enum Admitted {
    /// It is to be run.
    Run(Before),
    /// It says what has happened already.
    Done,
}

/// How things were before a statement.
pub(crate) struct Before {
    in_transaction: bool,
    ended: u64,
}

impl Transactions {
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// Whether the transaction that is open is one that nobody is in.
    pub(crate) fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Relaxed)
    }

    /// The open transaction could not be rolled back: that is done before the next statement.
    pub(crate) fn leave(&self) {
        self.is_left.store(true, Ordering::Relaxed);
    }

    /// What came after the savepoint could not be undone: that is done before the next statement.
    pub(crate) fn leave_after(&self, savepoint: &str) {
        self.state.lock().left_after = Some(savepoint.to_owned());
        self.is_left_in_part.store(true, Ordering::Relaxed);
    }

    /// The savepoint after which everything is to be undone before this statement.
    pub(crate) fn take_left_after(&self, stmt: &Stmt) -> Option<String> {
        if !self.is_left_in_part.load(Ordering::Relaxed) || stmt.is_busy() {
            return None;
        }
        self.is_left_in_part.store(false, Ordering::Relaxed);
        self.state.lock().left_after.take()
    }

    fn roll_back_left(&self, conn: &Conn) -> Result<()> {
        if !conn.is_autocommit() && conn.execute_batch("ROLLBACK").is_err() {
            return Err(cannot_be_undone());
        }
        self.is_left.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// A statement is about to be run, from its beginning or from a row on; the connection is held.
    pub(crate) fn admit(&self, conn: &Conn, stmt: &Stmt, control: Option<&Control>) -> Result<Admitted> {
        if self.is_left() && !stmt.is_busy() {
            self.roll_back_left(conn)?;
        }
        if self.is_lost() && !stmt.is_busy() {
            return self.end_lost(control).map(|()| Admitted::Done);
        }
        let in_transaction = !conn.is_autocommit() && !self.is_left();
        if in_transaction && control == Some(&Control::Begin) && !stmt.readonly() {
            // It fails, but takes the write lock first. Where the connection has read nothing before, SQLite then takes the
            // database for one that was empty when the transaction began, and ROLLBACK TO the savepoint that began it would make
            // it that.
            conn.execute_batch("PRAGMA main.schema_version")?;
        }
        Ok(Admitted::Run(Before {
            in_transaction,
            ended: self.ended.load(Ordering::Relaxed),
        }))
    }

    /// What becomes of a statement of a transaction that is lost.
    fn end_lost(&self, control: Option<&Control>) -> Result<()> {
        let mut state = self.state.lock();
        let ends = match control {
            Some(Control::Commit | Control::Rollback) => true,
            Some(Control::Release(name)) => {
                let ends = state.is_outermost(name);
                state.release(name);
                ends
            }
            _ => false,
        };
        let lost = lost(state.lost.as_deref().unwrap_or_default(), ends);
        if ends {
            self.forget(&mut state);
        }
        match control {
            Some(Control::Rollback | Control::RollbackTo(_)) => Ok(()),
            _ => Err(lost),
        }
    }

    /// Ends a transaction that is lost, if one is.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        if state.lost.is_some() {
            self.forget(&mut state);
        }
    }

    fn forget(&self, state: &mut TransactionState) {
        *state = TransactionState::default();
        self.is_lost.store(false, Ordering::Relaxed);
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// A statement was run; the connection has been held since [`admit`](Self::admit).
    pub(crate) fn ran<T>(
        &self,
        conn: &Conn,
        before: &Before,
        control: Option<&Control>,
        outcome: &Result<T>,
    ) {
        let is_gone = before.in_transaction && (conn.is_autocommit() || self.is_left());
        if control.is_none() && !is_gone {
            return;
        }
        let mut state = self.state.lock();
        let ends = match control {
            Some(Control::Commit | Control::Rollback) => true,
            Some(Control::Release(name)) => state.is_outermost(name),
            _ => false,
        };
        if is_gone {
            if ends {
                self.forget(&mut state);
            } else if before.ended == self.ended.load(Ordering::Relaxed) {
                // Otherwise a function that it called has ended the transaction.
                state.lost = Some(outcome.as_ref().err().map(Error::to_string).unwrap_or_default());
                self.is_lost.store(true, Ordering::Relaxed);
            }
            return;
        }
        match (control, outcome) {
            (Some(Control::Begin), Ok(_)) => *state = TransactionState::default(),
            (Some(Control::Savepoint(name)), Ok(_)) => {
                if !before.in_transaction {
                    *state = TransactionState {
                        by_savepoint: true,
                        ..TransactionState::default()
                    };
                }
                state.savepoints.push(name.clone());
            }
            (Some(Control::Release(name)), Ok(_)) => state.release(name),
            (Some(Control::RollbackTo(name)), Ok(_)) => {
                if let Some(at) = state.at(name) {
                    state.savepoints.truncate(at + 1);
                }
            }
            _ => {}
        }
    }
}

/// Why a statement is refused before which something must be undone.
pub(crate) fn cannot_be_undone() -> Error {
    let message = "a statement was interrupted, and what it did cannot be undone while a query of this connection is unread: end \
                   that query, and then try again";
    sqlite::Error::new(codes::INTERRUPT, message).into()
}

fn lost(because: &str, ended: bool) -> Error {
    let then = match ended {
        true => "begin it again",
        false => "end it with ROLLBACK, then begin it again",
    };
    let because = match because {
        "" => String::new(),
        because => format!(" when a statement failed ({because})"),
    };
    let message = format!("the transaction was rolled back{because} and nothing of it is kept: {then}");
    sqlite::Error::new(codes::ABORT_ROLLBACK, message).into()
}
