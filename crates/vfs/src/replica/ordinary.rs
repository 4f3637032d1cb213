//! When the database file of a replica may be an ordinary one, and how it becomes one.

use std::io;

use partial_sync_core::{
    PageId, PageNo,
    header::{HEADER_LEN, Page1, VERSIONS_AT},
};
use roaring::RoaringBitmap;

use super::{
    hidden::{ORDINARY, OrdinaryMark},
    instance::Standing,
    state::Replica,
};

impl Replica {
    /// Whether the file may become an ordinary one once what is in the WAL is in it. For guessing only.
    pub fn may_be_whole(&self) -> bool {
        self.lacks(&(self.map.present() | self.map.dirty()))
            .is_ok_and(|lacks| lacks == Some(false))
    }

    /// Whether pages of the database, as long as its file says that it is, are not among these; `None` when the file does
    /// not have them all.
    fn lacks(&self, here: &RoaringBitmap) -> io::Result<Option<bool>> {
        let mut header = [0; HEADER_LEN];
        if self.whole || self.map.state(PageNo::FIRST).is_absent() {
            return Ok(None);
        }
        let read = self.main.read_at(&mut header, 0)?;
        let Ok(page_1) = Page1::of(&header[..read]) else {
            return Ok(None);
        };
        let (len, page_len) = (self.main.len()?, u64::from(self.page_size.bytes()));
        let in_file = len / page_len;
        // The file may be longer than the header says.
        let pages = match page_1.db_size() {
            Some(counted) => counted.0,
            None => u32::try_from(in_file).unwrap_or(u32::MAX),
        };
        if !len.is_multiple_of(page_len) || u64::from(pages) > in_file {
            return Ok(None);
        }
        let mut absent = RoaringBitmap::new();
        absent.insert_range(..pages);
        absent -= here;
        let mut absent = absent.iter().filter_map(|id| PageId(id).no());
        Ok(Some(absent.any(|page| !page.is_lock_byte_page(self.page_size))))
    }

    /// Makes the file an ordinary one if it can be. `note` must make durable what the file looks like until another
    /// program writes to it, before the file becomes ordinary. Whether it is one now.
    pub fn make_ordinary(&self, note: impl FnOnce(OrdinaryMark) -> io::Result<()>) -> io::Result<bool> {
        // Nobody writes to a file of the replica meanwhile.
        let mut standing = self.instance.standing.write();
        match *standing {
            Standing::Open if self.wal_bytes()? == 0 && self.lacks(&self.map.present())? == Some(false) => {}
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
