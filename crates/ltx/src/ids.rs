//! Transaction ids, and the range of them that a file holds, which is also its name.

use std::{fmt, num::NonZeroU64};

/// A transaction id: counts the commits of a database from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(NonZeroU64);

/// How many hex digits an id has in a name.
const DIGITS: usize = 16;

impl TxId {
    /// The first transaction. A file that begins with it has every page: it is a snapshot.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The id `n`; `None` for 0, which no transaction has.
    pub const fn new(n: u64) -> Option<Self> {
        match NonZeroU64::new(n) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    /// The number, from 1 up.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The id after this one, if there is one.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// An id as it is written: 16 lowercase hex digits. `None` of anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != DIGITS || !text.bytes().all(digits) {
            return None;
        }
        Self::new(u64::from_str_radix(text, 16).ok()?)
    }
}

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {}", self.0)
    }
}

/// The transactions that a file holds: all from the first to the last, of which the first is not after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TxRange {
    min: TxId,
    max: TxId,
}

impl TxRange {
    /// The transactions `min` to `max`; `None` if `min` is after `max`.
    pub fn new(min: TxId, max: TxId) -> Option<Self> {
        (min <= max).then_some(Self { min, max })
    }

    /// One transaction.
    pub const fn one(id: TxId) -> Self {
        Self { min: id, max: id }
    }

    /// The first of them.
    pub const fn min(self) -> TxId {
        self.min
    }

    /// The last of them.
    pub const fn max(self) -> TxId {
        self.max
    }

    /// Whether a file of this range is a snapshot: begins with the first transaction, and has every page.
    pub fn is_snapshot(self) -> bool {
        self.min == TxId::FIRST
    }

    /// Whether a file of this range takes a database that is at `before` (`None`: that has no transaction yet) forward:
    /// leaves no transaction out, and brings at least one.
    pub fn continues(self, before: Option<TxId>) -> bool {
        let before = before.map_or(0, TxId::get);
        self.min.get() - 1 <= before && before < self.max.get()
    }

    /// The name of a file of this range, as Litestream calls it: `<min>-<max>.ltx`.
    pub fn file_name(self) -> String {
        format!("{}-{}.ltx", self.min, self.max)
    }

    /// The range that a file's name tells; `None` of any other name.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let (min, max) = name.strip_suffix(".ltx")?.split_once('-')?;
        Self::new(TxId::parse(min)?, TxId::parse(max)?)
    }
}

impl fmt::Display for TxRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(min: u64, max: u64) -> TxRange {
        TxRange::new(TxId::new(min).unwrap(), TxId::new(max).unwrap()).unwrap()
    }

    #[test]
    fn a_name_is_two_ids_of_16_lowercase_digits_in_order() {
        assert_eq!(range(1, 255).file_name(), "0000000000000001-00000000000000ff.ltx");
        for wrong in [
            "",
            "0000000000000001-00000000000000ff",
            "0000000000000001-00000000000000FF.ltx",
            "0000000000000001-0000000000000ff.ltx",
            "0000000000000000-00000000000000ff.ltx",
            "00000000000000ff-0000000000000001.ltx",
            "+000000000000001-00000000000000ff.ltx",
            "0000000000000001-00000000000000ff.ltx.tmp",
            "00000000000000é-00000000000000ff.ltx",
        ] {
            assert_eq!(TxRange::of_file_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_continues_where_it_leaves_nothing_out_and_brings_something() {
        let at = |id| TxId::new(id);
        assert!(range(1, 1).continues(None) && range(1, 9).continues(at(5)));
        assert!(!range(2, 9).continues(None) && range(2, 9).continues(at(1)));
        assert!(
            range(4, 6).continues(at(5)) && !range(4, 6).continues(at(6)) && !range(4, 6).continues(at(2))
        );
        assert!(!range(u64::MAX, u64::MAX).continues(at(u64::MAX)));
        assert_eq!(TxId::new(u64::MAX).unwrap().next(), None);
    }

    proptest! {
        #[test]
        fn names_come_back(a in 1..=u64::MAX, b in 1..=u64::MAX) {
            let range = range(a.min(b), a.max(b));
            prop_assert_eq!(TxRange::of_file_name(&range.file_name()), Some(range));
        }

        #[test]
        fn any_text_is_a_name_or_not(text in ".{0,60}") {
            if let Some(range) = TxRange::of_file_name(&text) {
                prop_assert_eq!(range.file_name(), text);
            }
        }
    }
}
