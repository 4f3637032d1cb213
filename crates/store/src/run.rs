//! Files of a log as heads name them: one of them, several that follow each other, and who needs those.
//!
//! A run is what a branch reads from one place. It is the same in the head of the branch, which reads it, and in that of the database it is
//! in, which keeps it: nobody has to find out from another head which files are meant, so these may change.

use partial_sync_ltx::{TxId, TxRange};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::layout::{FileName, Level};

/// The most files of level 0 in a run: a branch asks for each of them when it is opened.
pub(crate) const MOST_COMMITS: u64 = 1024;

/// A file of levels 1 to 9.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadFile {
    /// Its level.
    pub level: u8,
    /// Its first transaction.
    #[serde(with = "crate::hex_id")]
    min: Option<TxId>,
    /// Its last transaction.
    #[serde(with = "crate::hex_id")]
    max: Option<TxId>,
    /// Bytes.
    pub size: u64,
    /// Where its last frame ends: from there on a reader needs it first.
    pub tail_at: u64,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Files that follow each other up to a transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The last transaction.
    #[serde(with = "crate::hex_id")]
    pub(crate) id: Option<TxId>,
    /// From behind this one on they are files of level 0.
    #[serde(with = "crate::hex_id")]
    l0_floor: Option<TxId>,
    /// Those of levels 1 to 9, the oldest first.
    files: Vec<HeadFile>,
}

/// A place whose files make the state that a branch begins with, or a part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    /// The place.
    pub url: String,
    /// The lineage of the database that is there.
    pub lineage: String,
    /// Its files.
    #[serde(flatten)]
    pub(crate) run: Run,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Files that stay because a branch reads them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// The place of the branch.
    pub name: String,
    /// Its lineage: another branch at that place has another one.
    pub lineage: String,
    /// The files.
    #[serde(flatten)]
    pub(crate) run: Run,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl HeadFile {
    /// A file.
    pub(crate) fn new(name: FileName, size: u64, tail_at: u64) -> Self {
        Self {
            level: name.level.get(),
            min: Some(name.ids.min()),
            max: Some(name.ids.max()),
            size,
            tail_at,
            other: Map::new(),
        }
    }

    /// Which file it is; of a head that was read there is always one.
    pub fn name(&self) -> Option<FileName> {
        Some(FileName {
            level: Level::new(self.level)?,
            ids: TxRange::new(self.min?, self.max?)?,
        })
    }

    /// Its name, if it keeps to the rules of levels 1 to 9.
    pub(crate) fn checked(&self) -> Option<FileName> {
        self.name()
            .filter(|name| name.level != Level::COMMITS)
            .filter(|name| name.level != Level::SNAPSHOTS || name.ids.is_snapshot())
            .filter(|_| self.tail_at < self.size)
    }
}

impl Run {
    /// `files`, and behind them, or else behind `after`, those of level 0 up to `id`.
    pub(crate) fn new(files: Vec<HeadFile>, after: TxId, id: TxId) -> Self {
        let end = files.last().and_then(HeadFile::name).map(|file| file.ids.max());
        Self {
            id: Some(id),
            l0_floor: end.or(Some(after)),
            files,
        }
    }

    /// The part of it that `names` are, of which the first is its first one.
    pub(crate) fn part(&self, names: &[FileName]) -> Option<Self> {
        let is_in = |file: &&HeadFile| file.name().is_some_and(|name| names.contains(&name));
        let files = self.files.iter().filter(is_in).cloned().collect();
        Some(Self::new(files, self.l0_floor?, names.last()?.ids.max()))
    }

    /// The files of levels 1 to 9.
    pub(crate) fn files(&self) -> &[HeadFile] {
        &self.files
    }

    /// How many files of level 0 it has.
    fn commits(&self) -> u64 {
        let ends = self.id.zip(self.l0_floor);
        ends.map_or(0, |(id, floor)| id.get().saturating_sub(floor.get()))
    }

    /// All its files, the oldest first.
    pub(crate) fn names(&self) -> impl Iterator<Item = FileName> {
        let files = self.files.iter().filter_map(HeadFile::name);
        let floor = self.l0_floor.map_or(0, TxId::get);
        let commits = (1..=self.commits()).filter_map(move |n| TxId::new(floor.checked_add(n)?));
        files.chain(commits.map(FileName::commit))
    }

    /// Whether a file is one of them.
    pub(crate) fn has(&self, name: FileName) -> bool {
        match name.level == Level::COMMITS {
            true => self.l0_floor < Some(name.ids.min()) && Some(name.ids.max()) <= self.id,
            false => self.files.iter().any(|file| file.name() == Some(name)),
        }
    }

    /// The rules that it keeps to.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (Some(id), Some(floor)) = (self.id, self.l0_floor) else {
            return Err("a run of files ends nowhere".to_owned());
        };
        let mut end = None;
        for (n, file) in self.files.iter().enumerate() {
            let continues = |name: &FileName| n == 0 || name.ids.continues(end);
            let name = file.checked().filter(continues);
            let name = name.ok_or_else(|| format!("file {n} of the run up to {id} cannot be"))?;
            end = Some(name.ids.max());
        }
        match end.is_none_or(|end| end == floor) && floor <= id && self.commits() <= MOST_COMMITS {
            true => Ok(()),
            false => Err(format!("the run up to {id} cannot begin behind {floor}")),
        }
    }
}

impl Parent {
    pub(crate) fn new(url: String, lineage: String, run: Run) -> Self {
        let other = Map::new();
        Self {
            url,
            lineage,
            run,
            other,
        }
    }

    /// The last transaction of its files.
    pub fn id(&self) -> Option<TxId> {
        self.run.id
    }
}

impl Pin {
    pub(crate) fn new(name: String, lineage: String, run: Run) -> Self {
        let other = Map::new();
        Self {
            name,
            lineage,
            run,
            other,
        }
    }

    /// The transaction whose state the branch begins with, or the last one that is its own database's of an older state.
    pub fn id(&self) -> Option<TxId> {
        self.run.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::StoreError, head::Head};

    fn file(level: u8, min: u64, max: u64) -> HeadFile {
        let ids = TxRange::new(TxId::new(min).unwrap(), TxId::new(max).unwrap()).unwrap();
        let level = Level::new(level).unwrap();
        HeadFile::new(FileName { level, ids }, 500, 300)
    }

    fn parse(value: &Value) -> Result<Head, StoreError> {
        Head::parse(value.to_string().as_bytes(), "memory:///a")
    }

    #[test]
    fn a_branch_whose_parents_do_not_make_its_state_is_refused() {
        let mut head = Head::first(7);
        head.lineage = "a".to_owned();
        head.files = vec![file(9, 1, 4), file(1, 5, 8)];
        head.l0_floor = TxId::new(8);
        let (elsewhere, own) = head.runs(TxId::new(10).unwrap()).unwrap();
        assert_eq!((elsewhere.len(), own.names().count()), (0, 4));
        head.l0_floor = TxId::new(10);
        head.files = vec![file(1, 11, 20)];
        head.parents = vec![Parent::new("s3://a/b".to_owned(), "a".to_owned(), own.clone())];
        head.pins = vec![Pin::new("s3://a/c".to_owned(), "b".to_owned(), own)];
        let value: Value = serde_json::from_slice(&head.to_bytes()).unwrap();
        assert_eq!(parse(&value).unwrap(), head);
        assert_eq!(value["parents"][0]["id"], "000000000000000a");
        assert_eq!(head.chain(TxId::new(20).unwrap()).len(), 5);
        for (field, to) in [
            ("/parents/0/id", "0000000000000007".into()),
            ("/parents/0/id", "000000000000000b".into()),
            // Nobody asks for as many files.
            ("/parents/0/id", "ffffffffffffffff".into()),
            ("/pins/0/id", "ffffffffffffffff".into()),
            ("/pins/0/l0_floor", "0000000000000000".into()),
            ("/parents/0/l0_floor", "0000000000000009".into()),
            ("/parents/0/files", Value::Array(Vec::new())),
            ("/parents/0/files/1/min", "0000000000000006".into()),
            ("/parents/0/url", "".into()),
            ("/files/0", serde_json::to_value(file(1, 5, 10)).unwrap()),
            ("/l0_floor", "0000000000000008".into()),
        ] {
            let mut value = value.clone();
            *value.pointer_mut(field).unwrap() = to;
            let refused = parse(&value);
            assert!(
                matches!(refused, Err(StoreError::Head { .. })),
                "{field}: {refused:?}"
            );
        }
    }
}
