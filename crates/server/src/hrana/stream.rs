//! A Hrana stream: a connection with its transaction, the SQL texts stored in it, and the requests it answers.
//!
//! Runs on blocking threads only. Every request gets an answer of its own: one that fails never stops the next, as the
//! pipeline's client has decided by conditions what depends on what.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use partial_sync_transport::hrana::{self, BatchResult, Condition, Stmt, StmtResult};

use super::{
    budget::Budget,
    connection::{Limited, SqlConnection},
    error::{code, error, read_ended},
    options::HranaOptions,
    statement,
    wire::{Batch, Raw, ReadError, StreamRequest, StreamResponse, StreamResult},
};

/// Bytes of JSON that a step takes in the answer, whatever it gives.
const STEP_OVERHEAD: usize = 100;
/// The code of a foreign key that does not hold.
const FOREIGN_KEY: &str = "SQLITE_CONSTRAINT_FOREIGNKEY";
/// Bytes of stored texts in one stream.
const STORED_BYTES: usize = 1 << 20;
/// What a stored text takes besides its bytes.
const TEXT_OVERHEAD: usize = 64;

/// The SQL texts stored in a stream.
#[derive(Default)]
pub(super) struct Texts {
    by_id: HashMap<i32, String>,
    bytes: usize,
}

impl Texts {
    /// What they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Stores one.
    pub(super) fn insert(&mut self, sql_id: i32, sql: String) -> Result<(), hrana::Error> {
        if self.by_id.contains_key(&sql_id) {
            return Err(error(
                code::SQL_ID_INVALID,
                format!("a text is stored under the id {sql_id} already: close it first, or take another id"),
            ));
        }
        let bytes = self.bytes + sql.len() + TEXT_OVERHEAD;
        if bytes > STORED_BYTES {
            return Err(error(
                code::SQL_ID_INVALID,
                format!("the texts stored in one stream may take {STORED_BYTES} bytes: close some"),
            ));
        }
        self.bytes = bytes;
        self.by_id.insert(sql_id, sql);
        Ok(())
    }

    fn remove(&mut self, sql_id: i32) {
        if let Some(text) = self.by_id.remove(&sql_id) {
            self.bytes -= text.len() + TEXT_OVERHEAD;
        }
    }
}

/// What lives from one request of a stream to the next.
pub(super) struct Stream {
    pub connection: SqlConnection,
    texts: Texts,
    closed: bool,
}

/// What bounds the requests of one body.
pub(super) struct Bounds<'o> {
    pub options: &'o HranaOptions,
    pub budget: Budget,
    /// Set when the client has gone.
    pub cancelled: Arc<AtomicBool>,
    /// When the whole body must be done.
    pub until: Instant,
}

impl Stream {
    /// A stream on this connection, with the texts that were stored in it before.
    pub(super) fn new(connection: SqlConnection, texts: Texts) -> Self {
        Self {
            connection,
            texts,
            closed: false,
        }
    }

    /// What it is made of.
    pub(super) fn into_parts(self) -> (SqlConnection, Texts) {
        (self.connection, self.texts)
    }

    /// Whether its client has closed it.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Answers one request.
    pub(super) fn answer(
        &mut self,
        request: Result<StreamRequest<Vec<Raw<'_>>>, ReadError>,
        bounds: &mut Bounds<'_>,
    ) -> StreamResult {
        if self.closed && !matches!(request, Ok(StreamRequest::Close)) {
            let closed = error(
                code::STREAM_CLOSED,
                "the stream is closed: send what follows `close` in a new one",
            );
            return Err(closed).into();
        }
        let answer = request
            .map_err(not_read)
            .and_then(|request| self.respond(request, bounds));
        answer
            .map_err(|mut failed| {
                bounds.budget.take_error(&mut failed);
                failed
            })
            .into()
    }

    fn respond(
        &mut self,
        request: StreamRequest<Vec<Raw<'_>>>,
        bounds: &mut Bounds<'_>,
    ) -> Result<StreamResponse, hrana::Error> {
        match request {
            StreamRequest::Close => {
                self.closed = true;
                Ok(StreamResponse::Close)
            }
            StreamRequest::Execute { stmt } => self
                .execute(&stmt, bounds)
                .map(|result| StreamResponse::Execute { result }),
            StreamRequest::Batch { batch } => self
                .batch(&batch, bounds)
                .map(|result| StreamResponse::Batch { result }),
            StreamRequest::Sequence(text) => {
                let sql = self.text(text.sql.as_deref(), text.sql_id)?;
                let result = statement::sequence(&self.connection, sql, || {
                    // Short ones do not look at the clock.
                    match bounds.statement_limit().is_zero() {
                        true => Err(out_of_time(bounds.options)),
                        false => self.begin(bounds),
                    }
                });
                self.finish(result, bounds)?;
                Ok(StreamResponse::Sequence)
            }
            StreamRequest::Describe(text) => {
                let sql = self.text(text.sql.as_deref(), text.sql_id)?;
                self.begin(bounds)?;
                let result = statement::describe(&self.connection, sql, &mut bounds.budget);
                self.finish(result, bounds)
                    .map(|result| StreamResponse::Describe { result })
            }
            StreamRequest::StoreSql { sql_id, sql } => {
                let stored = self.texts.insert(sql_id, sql);
                stored.map(|()| StreamResponse::StoreSql)
            }
            StreamRequest::CloseSql { sql_id } => {
                self.texts.remove(sql_id);
                Ok(StreamResponse::CloseSql)
            }
            StreamRequest::GetAutocommit => Ok(StreamResponse::GetAutocommit {
                is_autocommit: self.connection.sqlite().is_autocommit(),
            }),
        }
    }

    fn execute(&self, stmt: &Stmt, bounds: &mut Bounds<'_>) -> Result<StmtResult, hrana::Error> {
        let sql = self.text(stmt.sql.as_deref(), stmt.sql_id)?;
        self.begin(bounds)?;
        let before = bounds.budget.mark();
        let result = statement::execute(&self.connection, sql, stmt, &mut bounds.budget);
        if result.is_err() {
            // Its rows are not sent, and a ROLLBACK has to fit in any case.
            bounds.budget.back_to(before);
        }
        self.finish(result, bounds)
    }

    /// Starts the clock of a statement, if there is somebody left who wants it.
    fn begin(&self, bounds: &Bounds<'_>) -> Result<(), hrana::Error> {
        if bounds.cancelled.load(Ordering::Relaxed) {
            return Err(error("SQLITE_INTERRUPT", "the client has gone"));
        }
        self.connection.start_clock(bounds.statement_limit());
        Ok(())
    }

    /// Stops the clock, and says so when it was the clock that stopped the statement.
    fn finish<T>(&self, result: Result<T, hrana::Error>, bounds: &Bounds<'_>) -> Result<T, hrana::Error> {
        let limited = self.connection.stop_clock();
        let ended = result.is_err() && self.connection.is_read_ended();
        self.connection.leave_queue();
        if ended {
            self.connection.abandon();
            return Err(read_ended(bounds.options.wal_bytes));
        }
        result.map_err(|e| match (limited, e.code.as_deref()) {
            (Some(Limited::Time), Some("SQLITE_INTERRUPT")) => out_of_time(bounds.options),
            (Some(Limited::Memory(bytes)), Some("SQLITE_INTERRUPT")) => error(
                "SQLITE_NOMEM",
                format!(
                    "the statements of this server have more than {bytes} bytes of memory together, which ends those of \
                     clients that may only read: try again later, or read less at once"
                ),
            ),
            _ => e,
        })
    }

    fn batch(
        &self,
        batch: &Batch<Vec<Raw<'_>>>,
        bounds: &mut Bounds<'_>,
    ) -> Result<BatchResult, hrana::Error> {
        let steps = batch.steps.len();
        for (index, step) in batch.steps.iter().enumerate() {
            if let Some(condition) = step.condition().map_err(not_read)? {
                check_condition(&condition, index)?;
            }
        }
        // Before anything has run, so that a COMMIT cannot be followed by "the answer is too large".
        bounds.budget.take(steps.saturating_mul(STEP_OVERHEAD))?;
        let enforced = batch.rows && batch.foreign_keys;
        let _rows = match batch.rows {
            true => self.connection.write_rows(enforced)?,
            false => None,
        };
        // The step since which a foreign key is violated.
        let mut violated: Option<usize> = None;
        let mut result = BatchResult {
            step_results: Vec::with_capacity(steps),
            step_errors: Vec::with_capacity(steps),
        };
        for (index, step) in batch.steps.iter().enumerate() {
            let step = step.step().map_err(not_read)?;
            let wanted = step
                .condition
                .as_ref()
                .is_none_or(|condition| self.holds(condition, &result));
            let (given, failed) = match wanted.then(|| self.execute(&step.stmt, bounds)) {
                None => (None, None),
                Some(Ok(given)) => (Some(given), None),
                Some(Err(mut failed)) => {
                    bounds.budget.take_error(&mut failed);
                    (None, Some(failed))
                }
            };
            result.step_results.push(given);
            result.step_errors.push(failed.clone());
            if !enforced {
                continue;
            }
            match (failed, violated) {
                (Some(failed), Some(step)) if failed.best_code() == Some(FOREIGN_KEY) => {
                    // COMMIT was refused, which names nobody. What it was refused for is known.
                    result.step_results[step] = None;
                    result.step_errors[step].get_or_insert(failed);
                }
                _ if self.connection.violates_keys() => violated = violated.or(Some(index)),
                _ => violated = None,
            }
        }
        Ok(result)
    }

    /// Recursive, as deep as the parser let the condition be.
    fn holds(&self, condition: &Condition, so_far: &BatchResult) -> bool {
        let at = |step: &u32| usize::try_from(*step).unwrap_or(usize::MAX);
        match condition {
            Condition::Ok { step } => so_far.step_results.get(at(step)).is_some_and(Option::is_some),
            Condition::Error { step } => so_far.step_errors.get(at(step)).is_some_and(Option::is_some),
            Condition::Not { cond } => !self.holds(cond, so_far),
            Condition::And { conds } => conds.iter().all(|c| self.holds(c, so_far)),
            Condition::Or { conds } => conds.iter().any(|c| self.holds(c, so_far)),
            Condition::IsAutocommit {} => self.connection.sqlite().is_autocommit(),
        }
    }

    fn text<'t>(&'t self, sql: Option<&'t str>, sql_id: Option<i32>) -> Result<&'t str, hrana::Error> {
        match (sql, sql_id) {
            (Some(sql), None) => Ok(sql),
            (None, Some(id)) => self.texts.by_id.get(&id).map(String::as_str).ok_or_else(|| {
                error(
                    code::SQL_ID_INVALID,
                    format!("no text is stored under the id {id} in this stream"),
                )
            }),
            _ => Err(error(
                code::SQL_ID_INVALID,
                "exactly one of `sql` and `sql_id` is needed",
            )),
        }
    }
}

impl Bounds<'_> {
    /// How long the next statement may run.
    fn statement_limit(&self) -> Duration {
        self.options
            .statement_timeout
            .min(self.until.saturating_duration_since(Instant::now()))
    }
}

fn out_of_time(options: &HranaOptions) -> hrana::Error {
    error(
        "SQLITE_INTERRUPT",
        format!(
            "interrupted: a statement may run for {:?} and a request for {:?} on this server",
            options.statement_timeout, options.request_timeout
        ),
    )
}

/// What was read before cannot be read again.
fn not_read(cause: ReadError) -> hrana::Error {
    tracing::error!(%cause, "a request to the SQL endpoint is not what it was");
    error(code::INTERNAL, "the server failed to answer; its log says why")
}

/// A condition speaks of earlier steps only.
fn check_condition(condition: &Condition, index: usize) -> Result<(), hrana::Error> {
    match condition {
        Condition::Ok { step } | Condition::Error { step }
            if usize::try_from(*step).is_ok_and(|s| s < index) =>
        {
            Ok(())
        }
        Condition::Ok { step } | Condition::Error { step } => Err(error(
            code::STEP_INVALID,
            format!("the condition of step {index} refers to step {step}, which is not before it"),
        )),
        Condition::Not { cond } => check_condition(cond, index),
        Condition::And { conds } | Condition::Or { conds } => {
            conds.iter().try_for_each(|c| check_condition(c, index))
        }
        Condition::IsAutocommit {} => Ok(()),
    }
}
