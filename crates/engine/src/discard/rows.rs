//! Rows and what refers to them: when two are the same row, hold the same unique values, or one is the other's parent.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    capture::{cause::same_key, schema::ForeignKey},
    change::{Table, Value, keys::as_integer, sql::key_of},
};

/// All values of a row.
pub(super) type Image = Vec<Value>;
/// A row: its table, in lower case, and its key (all values where it has none).
pub(super) type RowKey = (String, Vec<Value>);

/// Rows as given-up changes would have made them, and were before. A log may have many, and many rows that refer to others.
#[derive(Default)]
pub(super) struct MadeRows {
    pub rows: Vec<(Arc<Table>, Option<Image>, Image)>,
    /// By parent table and columns that a foreign key names: what these rows would have there, and would not have had.
    by_key: HashMap<Referred, HashSet<Vec<Value>>>,
}

/// A table, in lower case, and its columns as a foreign key names them.
type Referred = (String, Vec<Option<String>>);

impl MadeRows {
    pub(super) fn push(&mut self, table: &Arc<Table>, before: Option<&Image>, after: &Image) {
        for (referred, values) in &mut self.by_key {
            values.extend(made_values(referred, table, before, after));
        }
        self.rows.push((table.clone(), before.cloned(), after.clone()));
    }

    pub(super) fn remove(&mut self, made: &RowKey) {
        self.rows.retain(|(of, _, image)| row(of, image) != *made);
        self.by_key.clear();
    }

    /// Whether a row's key refers to one of them.
    pub(super) fn has(&mut self, key: &ForeignKey, child: &[Value]) -> bool {
        let values: Option<Vec<Value>> = key
            .columns
            .iter()
            .map(|(column, _)| child.get(*column).filter(|value| !value.is_null()).map(loose))
            .collect();
        let Some(values) = values else { return false };
        let columns = key.columns.iter().map(|(_, to)| to.clone()).collect();
        let referred = (key.parent.to_ascii_lowercase(), columns);
        let rows = &self.rows;
        let known = self.by_key.entry(referred).or_insert_with_key(|referred| {
            rows.iter()
                .filter_map(|(table, before, after)| made_values(referred, table, before.as_ref(), after))
                .collect()
        });
        known.contains(&values)
    }
}

fn made_values(
    (parent, columns): &Referred,
    table: &Table,
    before: Option<&Image>,
    after: &Image,
) -> Option<Vec<Value>> {
    if !table.name.eq_ignore_ascii_case(parent) {
        return None;
    }
    let primary = table.key();
    let places: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(i, to)| referred_column(table, &primary, i, to.as_deref()))
        .collect::<Option<_>>()?;
    let values = |image: &Image| -> Option<Vec<Value>> {
        places.iter().map(|&place| image.get(place).map(loose)).collect()
    };
    let after = values(after);
    if before.is_some_and(|before| values(before) == after) {
        return None;
    }
    after
}

/// Where the column is that a foreign key refers to in its place `i`.
fn referred_column(parent: &Table, primary: &[usize], i: usize, to: Option<&str>) -> Option<usize> {
    match to {
        Some(to) => parent
            .columns
            .iter()
            .position(|c| c.name.eq_ignore_ascii_case(to)),
        None => primary.get(i).copied(),
    }
}

/// The same for all values that SQLite could take for the same key, under whatever affinity and collation.
fn loose(value: &Value) -> Value {
    let number = |number: f64| Value::Real(number + 0.0);
    match value {
        Value::Integer(n) => number(*n as f64),
        Value::Real(n) => number(*n),
        Value::Text(text) => match text.trim().parse() {
            Ok(n) => number(n),
            Err(_) => Value::Text(text.trim_end().to_ascii_lowercase()),
        },
        other => other.clone(),
    }
}

/// What a row has in each unique index, so that values which any collation takes for equal are so.
pub(super) fn unique_values<'a>(
    indexes: &'a [Vec<usize>],
    table: &'a Table,
    image: &'a [Value],
) -> impl Iterator<Item = (String, Vec<usize>, Vec<Value>)> + 'a {
    indexes.iter().filter_map(|columns| {
        let values: Option<Vec<Value>> = columns
            .iter()
            .map(|&i| match image.get(i)? {
                Value::Null => None,
                Value::Text(text) => Some(Value::Text(text.trim_end().to_lowercase())),
                other => Some(number(other)),
            })
            .collect();
        Some((table.name.to_ascii_lowercase(), columns.clone(), values?))
    })
}

/// Whether one of a child's foreign keys refers to this row.
pub(super) fn refers(keys: &[ForeignKey], child: &[Value], parent: &Table, image: &[Value]) -> bool {
    keys.iter().any(|key| {
        let primary = parent.key();
        parent.name.eq_ignore_ascii_case(&key.parent)
            && key.columns.iter().enumerate().all(|(i, (child_column, to))| {
                let place = referred_column(parent, &primary, i, to.as_deref());
                let (child, parent) = (child.get(*child_column), place.and_then(|place| image.get(place)));
                child
                    .zip(parent)
                    .is_some_and(|(child, parent)| same_key(child, parent))
            })
    })
}

pub(super) fn row(table: &Table, image: &[Value]) -> RowKey {
    let values = match key_of(table, image) {
        None => image.to_vec(),
        Some(key) => key.into_iter().map(|i| number(&image[i])).collect(),
    };
    (table.name.to_ascii_lowercase(), values)
}

/// The same number is the same value.
fn number(value: &Value) -> Value {
    match (value, as_integer(value)) {
        (Value::Real(_), Some(integer)) => Value::Integer(integer),
        _ => value.clone(),
    }
}
