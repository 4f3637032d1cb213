//! Which converter a column has: by the type that it was declared with, or by what its name says in brackets.

use pyo3::{prelude::*, types::PyDictMethods};

use crate::{
    columns::Columns,
    connection::{PARSE_COLNAMES, PARSE_DECLTYPES},
    reader::Converters,
    values::registry,
};

/// The converters of all columns; `None` when no column has one.
pub(crate) fn of(py: Python<'_>, columns: &Columns, detect: i32) -> PyResult<Option<Converters>> {
    let registered = registry(py)?.converters.bind(py);
    let mut found = Vec::with_capacity(columns.len());
    for (name, declared) in columns.names.iter().zip(&columns.types) {
        let mut converter = None;
        if detect & PARSE_COLNAMES != 0
            && let Some((_, bracketed)) = name.split_once('[')
        {
            let key = bracketed.split(']').next().unwrap_or_default().to_uppercase();
            converter = registered.get_item(key)?;
        }
        if converter.is_none()
            && detect & PARSE_DECLTYPES != 0
            && let Some(declared) = declared
        {
            let key = declared
                .split([' ', '('])
                .next()
                .unwrap_or_default()
                .to_uppercase();
            converter = registered.get_item(key)?;
        }
        found.push(converter.map(Bound::unbind));
    }
    Ok(found.iter().any(Option::is_some).then(|| found.into()))
}
