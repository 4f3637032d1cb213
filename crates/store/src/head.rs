//! `partial-sync/head.json`: who may write to the log, where level 0 begins, and which files of the other levels there are.
//!
//! It is changed by compare-and-swap only, never for a commit. Fields that are not known are kept as they are; a change that older
//! versions must not write over gets another `format`.

use std::time::Duration;

use partial_sync_core::PageSize;
use partial_sync_ltx::TxId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::StoreError,
    layout::{FileName, Level},
    run::{HeadFile, Parent, Pin, Run},
};

/// The format that is written and read.
const FORMAT: u64 = 1;
/// In how many places the files of a branch may be beside its own.
pub(crate) const MOST_PARENTS: usize = 8;

/// The head of a database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Head {
    /// Always 1.
    format: u64,
    /// A random number of this version of the head: tells whether it is the one that was written.
    #[serde(with = "crate::hex")]
    pub(crate) edit: u64,
    /// Names the history: another one begins with a branch and with a restore in place.
    pub lineage: String,
    /// Counts the writers.
    pub epoch: u64,
    /// The writer: what the files that it writes have as their node.
    #[serde(with = "crate::hex")]
    pub node: u64,
    /// Where it takes SQL, for those who only read from the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
    /// Bytes of a page of the database.
    pub page_size: u32,
    /// How long a transaction's own file is kept after it was written, at least.
    pub retention_ms: u64,
    /// What the first snapshot goes to, or went.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::hex_id")]
    pub(crate) begun: Option<TxId>,
    /// Files of level 0 are those after this transaction. What is there up to it counts for nothing. `None` until the first
    /// snapshot is there.
    #[serde(with = "crate::hex_id")]
    pub l0_floor: Option<TxId>,
    /// The files of levels 1 to 9.
    pub files: Vec<HeadFile>,
    /// Of a branch: where the files of the state are that it began with, the oldest first. The last one is the database that it is a branch
    /// of. Their names end with earlier transactions than those of files that are here, until it is detached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Parent>,
    /// Files that branches read, and that stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
    /// What a newer version of this crate has put here.
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl Head {
    /// The head of a place where nothing is, with its first writer.
    pub(crate) fn first(node: u64) -> Self {
        Self {
            format: FORMAT,
            edit: fastrand::u64(..),
            lineage: String::new(),
            epoch: 1,
            node,
            writer: None,
            page_size: PageSize::DEFAULT.bytes(),
            retention_ms: 0,
            begun: None,
            l0_floor: None,
            files: Vec::new(),
            parents: Vec::new(),
            pins: Vec::new(),
            other: Map::new(),
        }
    }

    /// That of a branch which is not there yet: its history gets a name.
    pub(crate) fn of_branch(self, parent: &Self) -> Self {
        Self {
            lineage: format!("{:016x}", fastrand::u64(1..)),
            page_size: parent.page_size,
            retention_ms: parent.retention_ms,
            ..self
        }
    }

    /// A copy to be changed and written in its place.
    pub(crate) fn edited(&self) -> Self {
        Self {
            edit: fastrand::u64(..),
            ..self.clone()
        }
    }

    /// Whether this is still the head of that writer.
    pub(crate) fn is_of(&self, epoch: u64, node: u64) -> bool {
        self.epoch == epoch && self.node == node
    }

    /// The last transaction of the first snapshot.
    pub fn begun(&self) -> Option<TxId> {
        self.begun
    }

    /// How long files of level 0 are kept.
    pub fn retention(&self) -> Duration {
        Duration::from_millis(self.retention_ms)
    }

    /// The files of levels 1 to 9 that are here, by name.
    pub fn names(&self) -> impl Iterator<Item = FileName> {
        self.files.iter().filter_map(HeadFile::name)
    }

    /// The transaction that a branch began behind.
    pub fn branched(&self) -> Option<TxId> {
        self.parents.last()?.id()
    }

    /// Bytes of a file that is named, if that is told.
    pub(crate) fn size_of(&self, name: FileName) -> Option<u64> {
        let elsewhere = self.read_from().iter().flat_map(|parent| parent.run.files());
        let mut all = self.files.iter().chain(elsewhere);
        all.find(|file| file.name() == Some(name)).map(|file| file.size)
    }

    /// Whether a branch reads a file that is here.
    pub(crate) fn is_pinned(&self, name: FileName) -> bool {
        self.pins.iter().any(|pin| pin.run.has(name))
    }

    /// The parents whose files are read: none once the files that are here make the states from the floor on.
    pub(crate) fn read_from(&self) -> &[Parent] {
        let is_base = |file: FileName| file.ids.is_snapshot() && Some(file.ids.max()) <= self.l0_floor;
        match self.names().any(is_base) {
            true => &[],
            false => &self.parents,
        }
    }

    /// The files that make the state after `id`, which is not newer than the last one: those of other places, and those that are here.
    /// `None` if the state is not kept.
    pub(crate) fn runs(&self, id: TxId) -> Option<(Vec<Parent>, Run)> {
        let chain = self.chain(id);
        let end = chain.last()?.ids.max();
        (end == id || self.l0_floor? <= end).then_some(())?;
        let (mut elsewhere, mut rest) = (Vec::new(), &chain[..]);
        for parent in self.read_from() {
            let is_there = |file: &&FileName| Some(file.ids.max()) <= parent.id();
            let (there, others) = rest.split_at(rest.iter().take_while(is_there).count());
            if !there.is_empty() {
                let (url, lineage) = (parent.url.clone(), parent.lineage.clone());
                elsewhere.push(Parent::new(url, lineage, parent.run.part(there)?));
            }
            rest = others;
        }
        let of = |name: &FileName| self.files.iter().find(|file| file.name() == Some(*name));
        let files = rest.iter().filter_map(of).cloned().collect();
        Some((elsewhere, Run::new(files, end, id)))
    }

    /// The files that make the database up to `until` at most, the oldest first: a snapshot, then each continues the one before it.
    /// They are of levels 1 to 9, or in other places. Empty if there is no snapshot.
    pub(crate) fn chain(&self, until: TxId) -> Vec<FileName> {
        let elsewhere = self.read_from().iter().flat_map(|parent| parent.run.names());
        let all: Vec<_> = self.names().chain(elsewhere).collect();
        let mut chain: Vec<FileName> = Vec::new();
        loop {
            let end = chain.last().map(|file| file.ids.max());
            let next = all
                .iter()
                .copied()
                .filter(|file| file.ids.max() <= until && file.ids.continues(end))
                .filter(|file| end.is_some() || file.level == Level::SNAPSHOTS)
                .max_by_key(|file| (file.ids.max(), file.level));
            match next {
                Some(file) => chain.push(file),
                None => return chain,
            }
        }
    }

    /// The last transaction that these files hold, without a gap from the first on.
    pub(crate) fn compacted(&self) -> Option<TxId> {
        let all = TxId::new(u64::MAX)?;
        self.chain(all).last().map(|file| file.ids.max())
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Maps with text keys and numbers always have a form in JSON.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    pub(crate) fn parse(bytes: &[u8], store: &str) -> Result<Self, StoreError> {
        let wrong = |why: String| StoreError::Head {
            store: store.to_owned(),
            why,
        };
        let value: Value = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        match value.get("format").and_then(Value::as_u64) {
            Some(FORMAT) => {}
            Some(format) if format > FORMAT => {
                let store = store.to_owned();
                return Err(StoreError::NewerHead { store, format });
            }
            _ => return Err(wrong("it has no format".to_owned())),
        }
        let head: Self = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        head.check().map_err(wrong)?;
        Ok(head)
    }

    /// The rules that the fields keep to.
    fn check(&self) -> Result<(), String> {
        PageSize::new(self.page_size).map_err(|error| error.to_string())?;
        if self.epoch == 0 || self.node == 0 || self.lineage.is_empty() {
            return Err("it names no writer or no lineage".to_owned());
        }
        for (n, file) in self.files.iter().enumerate() {
            let name = file.checked().ok_or_else(|| format!("file {n} cannot be"))?;
            if self.names().take(n).any(|other| other == name) {
                return Err(format!("{name} is in it twice"));
            }
        }
        self.pins.iter().try_for_each(|pin| pin.run.check())?;
        self.check_parents()?;
        match self.l0_floor {
            None if self.files.is_empty() => Ok(()),
            None => Err("it has files and no l0_floor".to_owned()),
            Some(floor) => match self.chain(floor).last() {
                Some(file) if file.ids.max() == floor => Ok(()),
                _ => Err(format!("its files do not hold the transactions up to {floor}")),
            },
        }
    }
}

impl Head {
    fn check_parents(&self) -> Result<(), String> {
        let Some(branched) = self.branched() else {
            return match self.parents.is_empty() {
                true => Ok(()),
                false => Err("its parent ends nowhere".to_owned()),
            };
        };
        if self.parents.len() > MOST_PARENTS {
            return Err(format!("it has more than {MOST_PARENTS} parents"));
        }
        let mut end = None;
        for parent in &self.parents {
            parent.run.check()?;
            if parent.url.is_empty() || parent.lineage.is_empty() || parent.id() < end {
                return Err("its parents are not in order".to_owned());
            }
            end = parent.id();
        }
        // So a name tells where the file is.
        if let Some(file) = self.names().find(|file| file.ids.max() <= branched) {
            return Err(format!("{file} is from before it was a branch"));
        }
        let whole = self.chain(branched).last().map(|file| file.ids.max());
        let is_whole = whole == Some(branched) || self.read_from().is_empty();
        match is_whole && Some(branched) <= self.l0_floor {
            true => Ok(()),
            false => Err(format!("its parents do not make the state after {branched}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use partial_sync_ltx::TxRange;

    use super::*;

    fn name(level: u8, min: u64, max: u64) -> FileName {
        FileName {
            level: Level::new(level).unwrap(),
            ids: TxRange::new(TxId::new(min).unwrap(), TxId::new(max).unwrap()).unwrap(),
        }
    }

    fn head(files: &[FileName], floor: u64) -> Head {
        Head {
            l0_floor: TxId::new(floor),
            files: files.iter().map(|name| HeadFile::new(*name, 500, 300)).collect(),
            lineage: "a".to_owned(),
            ..Head::first(0xfeed_0000_0000_0001)
        }
    }

    fn parse(value: &Value) -> Result<Head, StoreError> {
        Head::parse(value.to_string().as_bytes(), "memory:///a")
    }

    #[test]
    fn a_head_comes_back_with_what_a_newer_version_put_there() {
        let head = head(&[name(9, 1, 4), name(1, 5, 8)], 8);
        let mut value: Value = serde_json::from_slice(&head.to_bytes()).unwrap();
        assert_eq!(value["node"], "feed000000000001");
        assert_eq!(value["l0_floor"], "0000000000000008");
        assert_eq!(parse(&value).unwrap(), head);
        value["lease_until"] = 5.into();
        value["files"][0]["sum"] = "x".into();
        let read = parse(&value).unwrap();
        let written: Value = serde_json::from_slice(&read.to_bytes()).unwrap();
        assert_eq!(written, value);
    }

    #[test]
    fn a_head_that_contradicts_itself_is_refused() {
        let good = head(&[name(9, 1, 4), name(1, 5, 8)], 8);
        let with = |field: &str, to: Value| {
            let mut value: Value = serde_json::from_slice(&good.to_bytes()).unwrap();
            *value.pointer_mut(field).unwrap() = to;
            parse(&value)
        };
        for (field, to) in [
            ("/page_size", Value::from(1000)),
            ("/epoch", 0.into()),
            ("/node", "0000000000000000".into()),
            ("/node", "00000000000000001".into()),
            ("/node", "+000000000000001".into()),
            ("/l0_floor", "0000000000000007".into()),
            ("/l0_floor", "0000000000000009".into()),
            ("/l0_floor", "0000000000000000".into()),
            ("/files/0/min", "0000000000000002".into()),
            ("/files/0/level", 0.into()),
            ("/files/0/level", 10.into()),
            ("/files/1/min", "0000000000000006".into()),
            ("/files/1/max", "0000000000000003".into()),
            ("/files/1/tail_at", 500.into()),
            ("/files/1", serde_json::to_value(&good.files[0]).unwrap()),
            ("/format", "1".into()),
        ] {
            assert!(
                matches!(with(field, to.clone()), Err(StoreError::Head { .. })),
                "{field} {to}"
            );
        }
        assert!(matches!(
            with("/format", 2.into()),
            Err(StoreError::NewerHead { format: 2, .. })
        ));
        assert!(matches!(
            Head::parse(b"[1", "memory:///a"),
            Err(StoreError::Head { .. })
        ));
    }

    #[test]
    fn a_chain_takes_the_largest_files_that_end_in_time() {
        let head = head(
            &[
                name(9, 1, 4),
                name(9, 1, 12),
                name(1, 5, 8),
                name(1, 9, 12),
                name(2, 5, 12),
                name(1, 13, 16),
            ],
            8,
        );
        let chain = |until| head.chain(TxId::new(until).unwrap());
        assert_eq!(chain(3), []);
        assert_eq!(chain(4), [name(9, 1, 4)]);
        assert_eq!(chain(11), [name(9, 1, 4), name(1, 5, 8)]);
        assert_eq!(chain(15), [name(9, 1, 12)]);
        assert_eq!(chain(99), [name(9, 1, 12), name(1, 13, 16)]);
        assert_eq!(head.compacted(), TxId::new(16));
    }
}
