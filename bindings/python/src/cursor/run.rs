//! Running statements.

use pyo3::{
    prelude::*,
    types::{PyIterator, PyString},
};

use super::Cursor;
use crate::{
    connection::Connection,
    errors::ProgrammingError,
    program_code, signals,
    state::{Executed, RunId, State, is_schema_error},
    values::bind_all,
};

impl Cursor {
    /// Runs a statement with parameters, after what this cursor ran before has ended.
    pub(crate) fn run(
        &self,
        py: Python<'_>,
        sql: &Bound<'_, PyString>,
        given: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.check()?;
        let owner = self.owner();
        let core = owner.core()?;
        let text = sql.to_str()?;
        let mut state = core.lock(py)?;
        if let Some(run) = self.forget() {
            let state: &mut State = &mut state;
            py.detach(|| state.end(run));
        }
        let executed = self.execute_on(py, &mut state, text, given)?;
        drop(state);
        self.take_over(py, executed)
    }

    fn execute_on(
        &self,
        py: Python<'_>,
        state: &mut State,
        sql: &str,
        given: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Executed>> {
        let owner = self.owner();
        let mut again = true;
        loop {
            let Some(mut prepared) = state.prepare(py, sql).map_err(|e| owner.explain(py, e))? else {
                return Ok(None);
            };
            let begun = owner.begin(py, state, &prepared);
            let ready = begun
                .and_then(|()| bind_all(&mut prepared, given))
                .and_then(|()| match owner.tracer(py) {
                    Some(tracer) => {
                        let sql = prepared.statement.expanded_sql();
                        Connection::trace(py, &tracer, sql.as_deref().unwrap_or(&prepared.sql))
                    }
                    None => Ok(()),
                });
            if let Err(error) = ready {
                state.give_back(prepared);
                return Err(error);
            }
            match py.detach(|| state.execute(prepared)) {
                Ok(executed) => {
                    let Some(raised) = signals::take_raised() else {
                        return Ok(Some(executed));
                    };
                    if let Some(run) = executed.run {
                        py.detach(|| state.end(run));
                    }
                    return Err(raised);
                }
                // A statement from the cache may have been prepared for a schema that is gone.
                Err(error) if again && is_schema_error(&error) => again = false,
                Err(error) => return Err(owner.raise(py, error)),
            }
        }
    }

    /// Forgets the last result, and says what is to be ended.
    pub(super) fn forget(&self) -> Option<RunId> {
        let mut state = self.state.lock();
        let before = (state.columns.take(), state.converters.take());
        state.changed = -1;
        let run = state.run.take();
        drop(state);
        // What this frees may be code of the program.
        drop(before);
        run
    }

    fn take_over(&self, py: Python<'_>, executed: Option<Executed>) -> PyResult<()> {
        let Some(executed) = executed else { return Ok(()) };
        let converters = match self.owner().detect_types() {
            0 => None,
            detect => crate::converters::of(py, &executed.columns, detect)?,
        };
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.converters, converters);
        let run_before = std::mem::replace(&mut state.run, executed.run);
        state.columns = Some(executed.columns);
        state.changed = executed.changed;
        state.last_rowid = Some(executed.last_rowid);
        drop(state);
        drop(before);
        if let Some(run) = run_before {
            self.owner().core()?.end(run);
        }
        Ok(())
    }

    pub(super) fn run_many(
        &self,
        py: Python<'_>,
        sql: &Bound<'_, PyString>,
        all: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.check()?;
        let owner = self.owner();
        let core = owner.core()?;
        let text = sql.to_str()?;
        if let Some(run) = self.forget() {
            core.end(run);
        }
        let mut all: Bound<'_, PyIterator> = all.try_iter()?;
        let is_dml = {
            let mut state = core.lock(py)?;
            let Some(prepared) = state.prepare(py, text).map_err(|e| owner.explain(py, e))? else {
                return Ok(());
            };
            let (is_dml, reads) = (prepared.is_dml, prepared.reads);
            let begun = owner.begin(py, &mut state, &prepared);
            state.give_back(prepared);
            begun?;
            if reads {
                return Err(ProgrammingError::new_err(
                    "executemany() can only execute DML statements.",
                ));
            }
            is_dml
        };
        let mut changed = 0;
        let began = core.interrupts();
        // The iterator may use the connection, so it is not held while the iterator runs.
        while let Some(given) = program_code::next(&mut all) {
            let given = given?;
            let mut state = core.lock(py)?;
            state.interrupts_before = began;
            state
                .check_interrupted()
                .map_err(|error| owner.raise(py, error))?;
            let Some(executed) = self.execute_on(py, &mut state, text, Some(&given))? else {
                continue;
            };
            changed += executed.changed.max(0);
            if let Some(run) = executed.run {
                let state: &mut State = &mut state;
                py.detach(|| state.end(run));
            }
        }
        if is_dml {
            self.state.lock().changed = changed;
        }
        Ok(())
    }

    pub(super) fn run_script(&self, py: Python<'_>, sql: &str) -> PyResult<()> {
        self.check()?;
        let owner = self.owner();
        if owner.is_legacy() {
            owner.commit(py)?;
        }
        let tracer = owner.tracer(py);
        let mut state = owner.core()?.lock(py)?;
        let state: &mut State = &mut state;
        let Some(tracer) = tracer else {
            return owner.wait(py, || state.script(sql));
        };
        let mut rest = sql;
        loop {
            let (statement, tail) = owner.wait(py, || state.prepare_next(rest))?;
            if let Some(prepared) = statement {
                Connection::trace(
                    py,
                    &tracer,
                    &prepared.statement.expanded_sql().unwrap_or_default(),
                )?;
                owner.wait(py, || state.run_next(prepared))?;
            }
            rest = &rest[tail..];
            if rest.is_empty() {
                return Ok(());
            }
        }
    }
}
