//! How a replica is given back: its connections are closed, the page map is saved, and where every page is present the file
//! becomes an ordinary one for other programs.

use std::time::Duration;

use partial_sync_vfs::OrdinaryMark;

use crate::{
    error::{Error, Result},
    log::Log,
    open::{info::SavedOrdinaryMark, replica::OpenReplica},
};

/// How long closing waits for what is still there.
pub(crate) const CLOSE_WAIT: Duration = Duration::from_secs(5);

impl OpenReplica {
    /// How many local changes were not pushed, if the file may become an ordinary one; else nobody asks.
    pub(crate) fn unpushed(&self) -> Option<u64> {
        if !self.may_have_log() {
            return self.replica.may_be_whole().then_some(0);
        }
        let count = || Log::new(&self.engine_conn).count();
        match self
            .replica
            .may_be_whole()
            .then(|| self.engine_conn.without_waiting(u32::MAX, count))
        {
            Some(Ok((Ok(unpushed), _))) => Some(unpushed),
            _ => None,
        }
    }

    /// Makes the database file an ordinary one for other programs, if every page of it is here and the WAL is empty.
    pub(crate) fn make_ordinary(&self, unpushed: Option<u64>) -> Result<()> {
        let Some(unpushed) = unpushed else { return Ok(()) };
        let note = |mark: OrdinaryMark| {
            let mark = SavedOrdinaryMark {
                change_counter: mark.change_counter,
                bytes: mark.bytes,
                unpushed,
            };
            self.update_info(|info| info.ordinary = Some(mark))
                .map_err(std::io::Error::other)
        };
        self.replica
            .make_ordinary(note)
            .map_err(|e| Error::storage("finish", self.replica.name(), e))?;
        Ok(())
    }

    /// Closes every file: the last connection checkpoints, what a pull left behind is waited for, the page map is saved.
    /// Whatever is still there after that can do nothing to the files any more. The caller drops the lock and the place
    /// by dropping this.
    pub(crate) fn give_back(&mut self) -> Result<()> {
        // The engine's own connection last: it checkpoints.
        drop(self.reader.0.take());
        if self.engine_conn.0.is_none() {
            return Ok(());
        }
        let unpushed = self.unpushed();
        self.engine_conn.0 = None;
        let left = self.replica.wait_until_unused(CLOSE_WAIT);
        let path = self.replica.name();
        let saved = self
            .replica
            .save_map()
            .map_err(|e| Error::storage("save the page map of", path, e))
            .and_then(|()| match left {
                0 => self.make_ordinary(unpushed),
                _ => Ok(()),
            });
        self.replica.close();
        saved?;
        match left {
            0 => Ok(()),
            _ => Err(Error::LeftOpen {
                path: path.to_owned(),
                what: "a pull that was given up",
            }),
        }
    }
}

impl Drop for OpenReplica {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            tracing::warn!(%error, "a replica could not be closed as it should; pages fetched lately may be fetched again");
        }
    }
}
