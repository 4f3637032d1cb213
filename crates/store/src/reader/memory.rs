//! What is kept in memory up to a number of bytes; what was used longest ago goes first.

use std::{collections::HashSet, hash::Hash};

use hashlink::LinkedHashMap;

/// Values with keys, and how many bytes each has.
pub(crate) struct Memory<K, V> {
    /// The one that was used last is at the end.
    values: LinkedHashMap<K, (V, u64)>,
    bytes: u64,
    limit: u64,
    /// These stay.
    kept: HashSet<K>,
}

impl<K: Eq + Hash + Clone, V: Clone> Memory<K, V> {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            values: LinkedHashMap::new(),
            bytes: 0,
            limit,
            kept: HashSet::new(),
        }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        self.values.to_back(key).map(|(value, _)| value.clone())
    }

    pub(crate) fn insert(&mut self, key: K, value: V, bytes: u64) {
        self.remove(&key);
        self.values.insert(key, (value, bytes));
        self.bytes += bytes;
        let mut kept = 0;
        while self.bytes > self.limit && self.values.len() > kept {
            let Some((key, (value, bytes))) = self.values.pop_front() else {
                return;
            };
            match self.kept.contains(&key) {
                true => {
                    kept += 1;
                    self.values.insert(key, (value, bytes));
                }
                false => self.bytes -= bytes,
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some((_, bytes)) = self.values.remove(key) {
            self.bytes -= bytes;
        }
    }

    pub(crate) fn remove_where(&mut self, gone: impl Fn(&K) -> bool) {
        let bytes = &mut self.bytes;
        self.values.retain(|key, (_, weight)| {
            let stays = !gone(key);
            if !stays {
                *bytes -= *weight;
            }
            stays
        });
    }

    /// From now on these stay, and no others.
    pub(crate) fn keep(&mut self, keys: HashSet<K>) {
        self.kept = keys;
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first_and_what_is_kept_stays() {
        let mut memory = Memory::new(10);
        memory.insert(1, 'a', 4);
        memory.insert(2, 'b', 4);
        assert_eq!(memory.get(&1), Some('a'));
        memory.insert(3, 'c', 4);
        assert_eq!(
            (memory.get(&2), memory.get(&1), memory.bytes()),
            (None, Some('a'), 8)
        );
        memory.insert(1, 'd', 1);
        assert_eq!((memory.get(&1), memory.bytes()), (Some('d'), 5));
        memory.keep(HashSet::from([1, 3]));
        memory.insert(4, 'e', 9);
        assert_eq!(
            (memory.get(&1), memory.get(&3), memory.get(&4)),
            (Some('d'), Some('c'), None)
        );
        memory.insert(3, 'f', 20);
        assert_eq!(
            (memory.get(&1), memory.get(&3), memory.bytes()),
            (Some('d'), Some('f'), 21)
        );
        memory.remove_where(|key| *key == 3);
        assert_eq!((memory.get(&3), memory.bytes()), (None, 1));
    }
}
