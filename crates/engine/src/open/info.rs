//! What a replica knows of itself: the `-info` file. JSON, replaced as a whole, small; the base revision moves when it
//! is written and not before.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use partial_sync_core::{PageCount, Revision};
use partial_sync_transport::Features;
use partial_sync_vfs::{Base, OrdinaryMark, Replica, Storage, WalMark, read_whole, write_whole};
use serde::{Deserialize, Serialize};

use crate::{
    change::position::Mark,
    error::{Error, Result},
    open::options::Bootstrap,
};

/// The format that this version writes.
const FORMAT: u32 = 2;
/// What version 0.1.0 wrote: the files were otherwise then, see [`crate::open::files`].
const FORMAT_0_1: u32 = 1;
/// Shown as the revision of a replica that was never pulled; no remote is ever asked for it.
const NO_REVISION: &str = "none yet";
/// Larger than any info file.
const LIMIT: u64 = 1 << 20;

/// Contents of the `-info` file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Info {
    pub format: u32,
    /// False until the bootstrap is complete; a replica that is not is started over at the next open.
    pub ready: bool,
    /// Names this replica on the remote, in `turso_sync_last_change_id`.
    pub client_id: String,
    /// Empty until a remote answered, when the replica was made while sync was paused.
    pub remote_url: String,
    /// The base is of another remote than `remote_url`: pages that are not here cannot be had before a pull has replaced it.
    #[serde(default)]
    pub moved: bool,
    pub page_size: u32,
    /// Empty while nothing was fetched from the remote: the first connect was told not to, or sync was paused.
    pub base_revision: String,
    /// Pages of the remote database at the base revision.
    pub base_size: u32,
    /// How it was bootstrapped; `None` = everything.
    pub bootstrap: Option<Bootstrap>,
    pub segment_size: u64,
    /// [`PartialSync::prefetch`](super::options::PartialSync::prefetch). Version 0.1 did not know that it may be `None`.
    pub prefetch: Option<bool>,
    /// Whether the remote said at the bootstrap that it sends along what a statement will touch.
    #[serde(default)]
    pub remote_hydrates: bool,
    /// Whether the remote said last that it lists what changed.
    #[serde(default)]
    pub remote_lists: bool,
    /// Whether the remote said last that it takes changes from this replica.
    #[serde(default)]
    pub remote_takes_changes: bool,
    /// The last local change that the remote confirmed.
    pub acknowledged: i64,
    /// No change after this one was ever sent, so that a remote which has one has it from somebody else. Version 0.1 did not
    /// say.
    #[serde(default = "unknown")]
    pub sent: i64,
    /// With which [`Mark`] they were sent, those of the last push. Version 0.1 had none.
    #[serde(default)]
    pub mark: Option<i64>,
    /// The mark that the remote's row of this replica has beside `acknowledged`, where no keys are noted there; `None`: not known.
    #[serde(default)]
    pub landed: Option<i64>,
    /// A batch with changes up to `sent` may still land: what became of it is not known.
    #[serde(default)]
    pub in_doubt: bool,
    /// No change id up to this one is given again.
    #[serde(rename = "change_floor")]
    pub highest_used_id: i64,
    /// A change was discarded, so that the pages here are not what the remote and the log make: the next pull builds them
    /// again, also without news.
    #[serde(default)]
    pub rebuild: bool,
    /// Whether there may be a change log. While not, a pull need not look, for which the schema would have to be here.
    #[serde(default = "yes")]
    pub has_log: bool,
    /// Schema cookie of a pull's commit after which, and before it was noted here, the change log was begun.
    #[serde(default)]
    pub log_since: Option<u32>,
    /// Schema cookie of the commit of the last pull that is noted here.
    #[serde(default)]
    pub pulled: Option<u32>,
    /// How many pulls brought something.
    pub pulls: u64,
    /// WAL frames up to here are accounted for in the page map.
    pub wal_mark: Option<SavedWalMark>,
    pub created: i64,
    pub last_pull: Option<i64>,
    pub last_push: Option<i64>,
    /// What the database file looks like if it is an ordinary one; see [`OrdinaryMark`].
    #[serde(default)]
    pub ordinary: Option<SavedOrdinaryMark>,
}

/// [`OrdinaryMark`] as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedOrdinaryMark {
    pub change_counter: u32,
    pub bytes: u64,
    /// Local changes in it that were not pushed.
    pub unpushed: u64,
}

impl SavedOrdinaryMark {
    pub(crate) fn is(&self, mark: OrdinaryMark) -> bool {
        (self.change_counter, self.bytes) == (mark.change_counter, mark.bytes)
    }
}

/// What is not said of replicas of version 0.1.0.
fn yes() -> bool {
    true
}

/// No change has a higher number.
fn unknown() -> i64 {
    i64::MAX
}

/// [`WalMark`] as it is written.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SavedWalMark {
    pub salts: [u32; 2],
    pub bytes: u64,
}

impl From<WalMark> for SavedWalMark {
    fn from(mark: WalMark) -> Self {
        Self {
            salts: mark.salts,
            bytes: mark.bytes,
        }
    }
}

impl From<SavedWalMark> for WalMark {
    fn from(mark: SavedWalMark) -> Self {
        Self {
            salts: mark.salts,
            bytes: mark.bytes,
        }
    }
}

impl Info {
    pub(crate) fn new(remote_url: String) -> Self {
        Self {
            format: FORMAT,
            ready: false,
            client_id: String::new(),
            remote_url,
            moved: false,
            page_size: 0,
            base_revision: String::new(),
            base_size: 0,
            bootstrap: None,
            segment_size: 0,
            prefetch: None,
            remote_hydrates: false,
            remote_lists: false,
            remote_takes_changes: false,
            acknowledged: 0,
            sent: 0,
            mark: None,
            landed: None,
            in_doubt: false,
            highest_used_id: 0,
            rebuild: false,
            has_log: false,
            log_since: None,
            pulled: None,
            pulls: 0,
            wal_mark: None,
            created: now(),
            last_pull: None,
            last_push: None,
            ordinary: None,
        }
    }

    /// Reads the file of the replica at `path`; `None` when there is none.
    pub(crate) fn load(storage: &dyn Storage, path: &Path) -> Result<Option<Self>> {
        let file = Replica::info_path(path);
        let damaged = |why| Error::not_a_replica(path, why);
        let Some(bytes) = read_whole(storage, &file, LIMIT).map_err(|e| Error::storage("read", &file, e))?
        else {
            return Ok(None);
        };
        let info: Self = serde_json::from_slice(&bytes)
            .map_err(|e| damaged(format!("{} cannot be read: {e}", file.display())))?;
        if ![FORMAT, FORMAT_0_1].contains(&info.format) {
            return Err(damaged(format!(
                "it was made by another version (format {}, this one knows {FORMAT_0_1} and {FORMAT})",
                info.format
            )));
        }
        Ok(Some(info))
    }

    /// Whether the files are as version 0.1.0 left them.
    pub(crate) fn is_of_0_1(&self) -> bool {
        self.format == FORMAT_0_1
    }

    /// The files are as this version leaves them.
    pub(crate) fn is_converted(&mut self) {
        self.format = FORMAT;
    }

    /// Whether the remote's database was never fetched, not even a part of it.
    pub(crate) fn is_unpulled(&self) -> bool {
        self.base_revision.is_empty()
    }

    /// Whether this url is another one than the replica's, as far as both are known.
    pub(crate) fn is_elsewhere(&self, url: Option<&str>) -> bool {
        let plain = |url: &str| url.trim_end_matches('/').to_owned();
        url.is_some_and(|url| !self.remote_url.is_empty() && plain(url) != plain(&self.remote_url))
    }

    /// Refuses the url of another remote than the replica's, as far as both are known.
    pub(crate) fn check_url(&self, url: Option<&str>, path: &Path) -> Result<()> {
        match url.filter(|_| self.is_elsewhere(url)) {
            Some(url) => Err(Error::OtherRemote {
                path: path.to_owned(),
                replica: self.remote_url.clone(),
                asked: url.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Whether the base is of another remote than the one at this url, so that the two must not be mixed.
    pub(crate) fn base_is_elsewhere(&self, url: Option<&str>) -> bool {
        !self.is_unpulled() && (self.moved || self.is_elsewhere(url))
    }

    /// The remote at `url` is this replica's from now on. Of another one than before it is not known what it has of the
    /// base, nor of what was pushed; ids stay used.
    pub(crate) fn adopt(&mut self, url: String) {
        if self.is_elsewhere(Some(&url)) {
            self.move_away();
        }
        self.remote_url = url;
    }

    /// The remote is another copy of the database than the base is of.
    pub(crate) fn move_away(&mut self) {
        self.moved = !self.is_unpulled();
        self.highest_used_id = self.highest_used_id.max(self.acknowledged);
        self.acknowledged = 0;
        self.in_doubt = false;
        // It may be as it was before the last push.
        self.mark = None;
        self.landed = None;
    }

    /// Changes up to `newest`, which is the newest of all, are about to be sent with this mark. Nothing that was sent with
    /// another one may be in doubt.
    pub(crate) fn sends(&mut self, newest: i64, mark: Mark) {
        self.mark = Some(mark.get());
        self.sent = if self.sent == unknown() {
            newest
        } else {
            self.sent.max(newest)
        };
        self.in_doubt = true;
    }

    /// Whether a batch may still be on its way to the remote.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.in_doubt && self.sent > self.acknowledged
    }

    /// What absent pages belong to. A replica that was never pulled has no absent pages: its base has no pages at all.
    pub(crate) fn base(&self, path: &Path) -> Result<Base> {
        let text = match self.base_revision.as_str() {
            "" if self.base_size == 0 => NO_REVISION,
            text => text,
        };
        Ok(Base {
            revision: revision(text, path)?,
            size: PageCount(self.base_size),
        })
    }

    /// What an answer says that the remote can do, as far as it is of use to who opens the replica next.
    pub(crate) fn note_features(&mut self, features: Features) {
        self.remote_hydrates = features.hydrate;
        self.remote_lists = features.list;
        self.remote_takes_changes = features.writes;
    }

    pub(crate) fn save(&self, storage: &dyn Storage, path: &Path) -> Result<()> {
        let file = Replica::info_path(path);
        let bytes = serde_json::to_vec_pretty(self)
            .expect("an Info has string keys and no floats: it is always JSON");
        write_whole(storage, &file, &bytes).map_err(|e| Error::storage("write", &file, e))
    }
}

/// A revision that was read from a file, checked.
pub(crate) fn revision(text: &str, path: &Path) -> Result<Revision> {
    Revision::new(text)
        .ok_or_else(|| Error::not_a_replica(path, "its info file names no base revision".into()))
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64)
}
