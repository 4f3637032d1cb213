//! Handing out rows.

use std::sync::Arc;

use pyo3::{
    prelude::*,
    types::{PyList, PyTuple},
};

use super::Cursor;
use crate::{
    columns::Columns,
    program_code,
    reader::{Converters, Reader},
    row::Row,
    row_factory::RowFactory,
    state::{Next, RunId, State},
};

/// Rows that the first piece of a `fetchall` reads without the GIL; each next piece reads four times as many.
const FIRST_PIECE: usize = 16;
const LARGEST_PIECE: usize = 1024;

impl Cursor {
    /// The next row as a tuple.
    pub(super) fn next_tuple<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.check()?;
        let core = self.owner().core()?;
        if self.state.lock().run.is_none() {
            core.check_open()?;
            return Ok(None);
        }
        let text = self.owner().text_factory(py);
        let mut state = core.lock(py)?;
        let Some((run, columns, converters)) = self.reading() else {
            return Ok(None);
        };
        if !state.is_next_known(run) {
            self.step(py, &mut state, run)?;
        }
        let reader = Reader {
            columns: &columns,
            text: &text,
            converters: converters.as_ref(),
        };
        let held = state.connection.hold();
        let tuple = match state.next(run) {
            Next::Here(statement) => reader.tuple(py, statement)?,
            Next::Kept(rows) => reader.tuple(py, rows)?,
            Next::None => {
                drop(held);
                self.end_run(py, &mut state, run);
                return Ok(None);
            }
        };
        drop(held);
        if state.advance(run) {
            self.step(py, &mut state, run)?;
        }
        Ok(Some(tuple))
    }

    /// What is being read. It stays that while this thread has the turn and no longer: another thread may close the cursor,
    /// and the number may then be of a run of another one.
    fn reading(&self) -> Option<(RunId, Arc<Columns>, Option<Converters>)> {
        let state = self.state.lock();
        let columns = state.columns.clone()?;
        Some((state.run?, columns, state.converters.clone()))
    }

    /// Steps to the next row; after an error there is none.
    fn step(&self, py: Python<'_>, state: &mut State, run: RunId) -> PyResult<()> {
        self.owner()
            .wait(py, || state.step(run))
            .inspect_err(|_| self.end_run(py, state, run))
    }

    fn end_run(&self, py: Python<'_>, state: &mut State, run: RunId) {
        self.forget_run();
        py.detach(|| state.end(run));
    }

    pub(super) fn forget_run(&self) -> Option<RunId> {
        self.state.lock().run.take()
    }

    /// The next rows as tuples.
    fn next_tuples<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let mut tuples = Vec::new();
        let mut piece = FIRST_PIECE;
        while tuples.len() < most {
            // The row that the statement stands on, or that was kept.
            match self.next_tuple(py)? {
                Some(tuple) => tuples.push(tuple),
                None => break,
            }
            let wanted = piece.min(most - tuples.len());
            piece = (piece * 4).min(LARGEST_PIECE);
            self.read_piece(py, wanted, &mut tuples)?;
        }
        Ok(tuples)
    }

    /// Reads rows without the GIL and then makes tuples of them.
    fn read_piece<'py>(
        &self,
        py: Python<'py>,
        most: usize,
        tuples: &mut Vec<Bound<'py, PyTuple>>,
    ) -> PyResult<()> {
        let text = self.owner().text_factory(py);
        let mut state = self.owner().core()?.lock(py)?;
        let state: &mut State = &mut state;
        let Some((run, columns, converters)) = self.reading() else {
            return Ok(());
        };
        self.owner()
            .wait(py, || state.read_ahead(run, most))
            .inspect_err(|_| self.end_run(py, state, run))?;
        let reader = Reader {
            columns: &columns,
            text: &text,
            converters: converters.as_ref(),
        };
        let mut rows = std::mem::take(&mut state.ahead);
        while rows.remaining() > 0 {
            match reader.tuple(py, &rows) {
                Ok(tuple) => tuples.push(tuple),
                Err(error) => {
                    // It may be asked for again, with another text factory; and the rows after it.
                    state.put_back(run, rows);
                    return Err(error);
                }
            }
            rows.advance();
        }
        state.ahead = rows;
        Ok(())
    }

    /// What the row factory makes of a tuple.
    pub(super) fn row<'py>(
        slf: &Bound<'py, Self>,
        tuple: Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let state = this.state.lock();
        match &state.factory {
            RowFactory::Tuple => Ok(tuple.into_any()),
            RowFactory::Row => {
                let columns = state.columns.clone();
                drop(state);
                let Some(columns) = columns else {
                    return Ok(tuple.into_any());
                };
                Ok(Bound::new(py, Row::of(tuple.unbind(), Some(columns), this.short_names()))?.into_any())
            }
            RowFactory::Call(callable) => {
                let callable = callable.clone_ref(py);
                drop(state);
                program_code::call(callable.bind(py), (slf, tuple))
            }
        }
    }

    pub(super) fn rows<'py>(slf: &Bound<'py, Self>, most: usize) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let tuples = slf.get().next_tuples(py, most)?;
        if matches!(slf.get().state.lock().factory, RowFactory::Tuple) {
            return PyList::new(py, tuples);
        }
        let rows = tuples
            .into_iter()
            .map(|tuple| Self::row(slf, tuple))
            .collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, rows)
    }
}
