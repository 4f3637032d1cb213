//! The values of a statement that is recorded as text.

use partial_sync_vfs::sqlite::Stmt;

use crate::change::Value;

/// The statement's values, kept because a statement recorded as text is recorded with them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arguments {
    pub positional: Vec<Value>,
    pub named: Vec<(String, Value)>,
}

impl Arguments {
    /// Every parameter of a statement, NULL.
    pub(crate) fn of(stmt: &Stmt) -> Self {
        let mut arguments = Self::default();
        for index in 1..=stmt.parameter_count() {
            match stmt.parameter_name(index) {
                Some(name) if !name.starts_with('?') => arguments.named.push((name, Value::Null)),
                _ => arguments.positional.resize(index, Value::Null),
            }
        }
        arguments
    }

    /// Parameter `index` (from 1) of the statement was bound.
    pub(crate) fn set(&mut self, stmt: &Stmt, index: usize, value: Value) {
        let name = stmt.parameter_name(index).filter(|name| !name.starts_with('?'));
        let slot = match name {
            Some(name) => self
                .named
                .iter_mut()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| value),
            None => self.positional.get_mut(index - 1),
        };
        if let Some(slot) = slot {
            *slot = value;
        }
    }

    /// The value of a parameter, by its text or its number.
    pub(crate) fn value(&self, text: &str, number: usize) -> Option<&Value> {
        let by_name = self.named.iter().find(|(name, _)| name == text);
        let by_number = number.checked_sub(1).and_then(|i| self.positional.get(i));
        by_name.map(|(_, value)| value).or(by_number)
    }
}
