//! When the database file of a replica may be an ordinary one, and how it becomes one.

use std::io;

use partial_sync_core::{
    PageCount, PageNo,
    header::{HEADER_LEN, Page1, VERSIONS_AT},
};

use super::{
    hidden::{ORDINARY, OrdinaryMark},
    instance::Standing,
    state::Replica,
};

impl Replica {
    /// Whether the file may become an ordinary one once what is in the WAL is in it. For guessing only.
    pub fn may_be_whole(&self) -> bool {
        self.has_all(true).unwrap_or(false)
    }

    /// Whether all pages of the database, as long as its file says that it is, are here, or, where that is enough, dirty.
    fn has_all(&self, or_dirty: bool) -> io::Result<bool> {
        let mut header = [0; HEADER_LEN];
        if self.whole || !self.map.is_present(PageNo::FIRST) {
            return Ok(false);
        }
        let read = self.main.read_at(&mut header, 0)?;
        let Ok(page_1) = Page1::of(&header[..read]) else {
            return Ok(false);
        };
        let (len, page_len) = (self.main.len()?, u64::from(self.page_size.bytes()));
        let in_file = len / page_len;
        // The file may be longer than the header says.
        let pages = match page_1.db_size() {
            Some(counted) => counted.0,
            None => u32::try_from(in_file).unwrap_or(u32::MAX),
        };
        if !len.is_multiple_of(page_len) || u64::from(pages) > in_file {
            return Ok(false);
        }
        let lock_byte = PageNo::lock_byte(self.page_size);
        Ok(self.map.has_all(PageCount(pages), lock_byte, or_dirty))
    }

    /// Makes the file an ordinary one if it can be. `note` must make durable what the file looks like until another
    /// program writes to it, before the file becomes ordinary. Whether it is one now.
    pub fn make_ordinary(&self, note: impl FnOnce(OrdinaryMark) -> io::Result<()>) -> io::Result<bool> {
        // Nobody writes to a file of the replica meanwhile.
        let mut standing = self.instance.standing.write();
        match *standing {
            Standing::Open if self.wal_bytes()? == 0 && self.has_all(false)? => {}
            now => return Ok(now == Standing::Ordinary),
        }
        self.save_claimed_map()?;
        self.main.sync()?;
        let wal = self.wal_file();
        if self.storage.exists(&wal)? {
            // That it is empty.
            self.storage.open(&wal, false)?.sync()?;
        }
        let mut header = [0; HEADER_LEN];
        let read = self.main.read_at(&mut header, 0)?;
        let page_1 = Page1::of(&header[..read]).map_err(io::Error::other)?;
        note(OrdinaryMark {
            change_counter: page_1.change_counter(),
            bytes: self.main.len()?,
        })?;
        // Whatever of this is durable when it fails, nothing is written before it was claimed.
        *standing = Standing::Ordinary;
        self.main.write_at(&ORDINARY, VERSIONS_AT as u64)?;
        self.main.sync()?;
        Ok(true)
    }
}
