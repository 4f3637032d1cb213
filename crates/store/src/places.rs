//! Where the files of a database are: here, and those that a branch reads from other places there.
//!
//! A name tells it: what ends at or before the transaction that the branch began behind is a parent's. Only reading asks here:
//! everything is written, listed and removed in a database's own place.

use partial_sync_ltx::TxId;

use crate::{bucket::Bucket, error::StoreError, head::Head, layout::FileName, run::Parent};

/// The places of the files of a database.
#[derive(Debug)]
pub(crate) struct Places {
    own: Bucket,
    /// The oldest first.
    parents: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    /// The files up to this transaction are here.
    until: TxId,
    bucket: Bucket,
    lineage: String,
}

impl Places {
    /// Those of the database whose head this is.
    pub(crate) fn of(own: &Bucket, head: &Head) -> Result<Self, StoreError> {
        let mut parents = Vec::new();
        for parent in head.read_from() {
            let bucket = own.other(&parent.url)?;
            let lineage = parent.lineage.clone();
            // Of a head that was read there is always one.
            parents.extend(parent.id().map(|until| Place {
                until,
                bucket,
                lineage,
            }));
        }
        let own = own.clone();
        Ok(Self { own, parents })
    }

    /// Whether they are those of that head.
    pub(crate) fn are_of(&self, head: &Head) -> bool {
        let of = |place: &Place, parent: &Parent| {
            (Some(place.until), &place.lineage) == (parent.id(), &parent.lineage)
        };
        let parents = head.read_from();
        self.parents.len() == parents.len()
            && self
                .parents
                .iter()
                .zip(parents)
                .all(|(place, parent)| of(place, parent))
    }

    /// One that has no parents.
    pub(crate) fn one(own: &Bucket) -> Self {
        let (own, parents) = (own.clone(), Vec::new());
        Self { own, parents }
    }

    pub(crate) fn own(&self) -> &Bucket {
        &self.own
    }

    /// Where a file is.
    pub(crate) fn at(&self, name: FileName) -> &Bucket {
        self.parent_of(name).map_or(&self.own, |parent| &parent.bucket)
    }

    /// Whether a file is in the database's own place.
    pub(crate) fn is_own(&self, name: FileName) -> bool {
        self.parent_of(name).is_none()
    }

    fn parent_of(&self, name: FileName) -> Option<&Place> {
        self.parents.iter().find(|parent| name.ids.max() <= parent.until)
    }

    /// Fails when another database is where a parent was: its files may have the same names.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        let each = self.parents.iter().map(|parent| async move {
            let why = match parent.bucket.head().await? {
                None => "there is none any more".to_owned(),
                Some((head, _)) if head.lineage != parent.lineage => {
                    format!("its lineage is {}, and was {}", head.lineage, parent.lineage)
                }
                Some(_) => return Ok(()),
            };
            Err(StoreError::Parent {
                store: self.own.name(),
                parent: parent.bucket.name(),
                why,
            })
        });
        futures_util::future::try_join_all(each).await.map(drop)
    }
}
