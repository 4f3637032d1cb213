//! The state that a pull is going to commit: the remote's new revision with the unpushed local changes on top, built aside
//! while readers and writers of the replica continue. Whatever needs the network, takes long or can fail happens here.

use std::sync::Arc;

use partial_sync_core::{ChangeId, PageCount, PageId, PageNo};
use partial_sync_vfs::{Base, Stay, sqlite::Conn};
use roaring::RoaringBitmap;

use super::{
    missing::stage_missing,
    preview::Preview,
    staged::{Asked, Staged},
    unchanged::Unchanged,
};
use crate::{
    change::position::resume_after,
    error::{Error, Result},
    log::Log,
    open::{
        plain::{DbpageReader, open_plain},
        session::Session,
    },
    pull::putback,
    runtime::Interrupting,
};

/// The local changes that are being put back.
struct PutBackProgress<'s> {
    /// Reads the replica's log.
    log: Conn,
    /// Writes to the preview, and knows which rows got other keys there.
    writer: putback::PutBack<'s>,
    preview: Preview,
    /// The last change that was read from the log.
    newest: ChangeId,
    /// The last change of this client that the new revision has.
    position: Option<ChangeId>,
    /// Whether a change was put back, and so is in the new log.
    any: bool,
    _broken_by_cancel: Interrupting,
}

/// See the module.
pub(super) struct Next<'s> {
    session: &'s Session<'s>,
    pub(super) base: Base,
    /// Pages that are what they were in it, unless they were written here.
    stay: Stay,
    pub(super) staged: Arc<Staged>,
    unchanged: Arc<Unchanged>,
    /// `None`: no local change was seen so far.
    put_back: Option<PutBackProgress<'s>>,
}

impl<'s> Next<'s> {
    pub(super) fn of(session: &'s Session<'s>, asked: Asked) -> Result<Self> {
        let unchanged = Unchanged::of(session, &asked)?;
        Ok(Self {
            session,
            base: asked.base,
            stay: asked.stay,
            staged: Arc::new(asked.staged),
            unchanged: Arc::new(unchanged),
            put_back: None,
        })
    }

    /// Puts back what was committed locally since the last time, and stages what it overwrote. `old_size` is the size of the
    /// replica's database.
    pub(super) fn catch_up(&mut self, old_size: PageCount) -> Result<()> {
        if let Some(newest) = self.newest_in_log()? {
            if self.put_back.is_none() {
                self.put_back = Some(self.begin_put_back(newest)?);
            }
            if let Some(put_back) = &mut self.put_back {
                put_back.run()?;
            }
        }
        stage_missing(self.session, &self.base, &self.staged, &self.unknown(old_size)?)
    }

    /// Whether anything was committed locally that [`catch_up`](Self::catch_up) has not seen. For the holder of the
    /// replica's write lock.
    pub(super) fn is_behind(&self, old_size: PageCount) -> Result<bool> {
        let seen = self.put_back.as_ref().map(|p| p.newest);
        Ok(!self.unknown(old_size)?.is_empty() || self.newest_in_log()? > seen)
    }

    /// The newest change in the replica's log. One without a log is not looked at: its schema need not be here.
    fn newest_in_log(&self) -> Result<Option<ChangeId>> {
        match &self.put_back {
            // The log may have been emptied and dropped, never this one: only pulls and pushes do that.
            Some(put_back) => Ok(Log::new(&put_back.log).last()?),
            None if self.session.may_have_log() => {
                let conn = open_plain(&self.session.replica, self.session.options.timeout)?;
                Ok(Log::new(&conn).last()?)
            }
            None => Ok(None),
        }
    }

    /// Pages that were written locally, or that make the database longer, and of which the new revision's copy is not known.
    /// Its last page is not always the new revision's: what was put back may have shrunk or grown the database.
    fn unknown(&self, old_size: PageCount) -> Result<RoaringBitmap> {
        let mut ids = self.session.replica.map().dirty();
        ids.insert(0);
        let last = self.size()?.0.saturating_sub(1);
        if last >= old_size.0 && !self.written().contains(last) {
            ids.insert(last);
        }
        ids.remove_range(self.base.size.0..);
        let ids = ids - self.staged.ids();
        Ok(ids.iter().filter(|&id| !self.unchanged.has(PageId(id))).collect())
    }

    fn begin_put_back(&self, newest: ChangeId) -> Result<PutBackProgress<'s>> {
        let session = self.session;
        let preview = Preview::open(session, &self.base, &self.staged, &self.unchanged)?;
        let broken_by_cancel = session.interrupts(preview.conn());
        let info = session.info.lock().clone();
        let position = resume_after(
            putback::position(preview.conn(), &info.client_id)?,
            (info.acknowledged > 0).then_some(ChangeId(info.acknowledged)),
            session.sent(Some(newest)),
        )?;
        let client = putback::Client {
            id: &info.client_id,
            pulls: info.pulls,
        };
        let transform = session.options.transform.as_deref();
        let first = position.unwrap_or(ChangeId(i64::MIN));
        let log = open_plain(&session.replica, session.options.timeout)?;
        let all = log.clone();
        let summary = move || Ok(Log::new(&all).summary_after(first)?);
        Ok(PutBackProgress {
            log,
            writer: putback::PutBack::new(preview.conn(), client, Box::new(summary), transform)?,
            newest: first,
            preview,
            position,
            any: false,
            _broken_by_cancel: broken_by_cancel,
        })
    }

    /// How far the remote has this replica's changes; `None`: that was not asked, or it has none.
    pub(super) fn position(&self) -> Option<ChangeId> {
        self.put_back.as_ref()?.position
    }

    /// Whether there are local changes that the new revision does not have.
    pub(super) fn has_log(&self) -> bool {
        self.put_back.as_ref().is_some_and(|p| p.any)
    }

    /// How many pages the database will have.
    pub(super) fn size(&self) -> Result<PageCount> {
        match &self.put_back {
            Some(put_back) if put_back.any => put_back.preview.size(),
            _ => Ok(self.base.size),
        }
    }

    /// 0-based ids of the pages whose content differs from the new revision's.
    pub(super) fn written(&self) -> RoaringBitmap {
        match &self.put_back {
            Some(put_back) if put_back.any => put_back.preview.written(),
            _ => RoaringBitmap::new(),
        }
    }

    /// 0-based ids of the pages that must go through the WAL, in the commit: of those there is a copy here that the new
    /// state replaces, in the WAL or in the main file, where an open reader may need it; or they are needed to read the
    /// change log, which must never take the network. Other staged pages can be stored like fetched ones afterwards. For
    /// the holder of the replica's write lock; `old_size` is the size of the database before.
    pub(super) fn through_wal(&self, old_size: PageCount) -> Result<RoaringBitmap> {
        let map = self.session.replica.map();
        let (size, staged) = (self.size()?, self.staged.ids());
        let mut ids = map.present_among(&staged) | map.dirty() | self.written();
        if let Some(put_back) = self.put_back.as_ref().filter(|p| p.any) {
            ids |= put_back.preview.read() & &staged;
        }
        ids.insert(0);
        if size > old_size {
            // Writing the last page makes the database longer.
            ids.insert(size.0 - 1);
        }
        ids.remove_range(size.0..);
        let page_size = self.session.replica.page_size();
        Ok(ids
            .iter()
            .filter(|&id| PageId(id).no().is_some_and(|p| !p.is_lock_byte_page(page_size)))
            .collect())
    }

    /// Which pages stay when the base moves: they are as they were, there and here. A page beyond the end that the new state
    /// has does not, where it was written here or came with the answer: it is not committed. For the holder of the replica's
    /// write lock.
    pub(super) fn stay(&self) -> Stay {
        self.stay.without(&self.session.replica.map().dirty())
    }

    /// Reads pages of the new state.
    pub(super) fn pages(&self) -> Result<NextPages<'_>> {
        Ok(NextPages {
            staged: &self.staged,
            unchanged: &self.unchanged,
            written: self.written(),
            preview: match &self.put_back {
                Some(put_back) if put_back.any => Some(put_back.preview.reader()?),
                _ => None,
            },
            end: self.base.size,
            page_size: self.session.replica.page_size().as_usize(),
        })
    }
}

impl PutBackProgress<'_> {
    /// Runs what is in the log after `newest`, as one transaction of the preview, and keeps it in the preview's log.
    fn run(&mut self) -> Result<()> {
        let mut chunks = Log::new(&self.log).chunks_after(self.newest)?;
        let conn = self.preview.conn();
        self.writer.log_grew();
        conn.execute_batch("BEGIN IMMEDIATE")?;
        while let Some(chunk) = chunks.next()? {
            let last = chunk.last;
            if let Some(chunk) = chunk.after(self.newest)? {
                self.writer.chunk(&chunk)?;
                self.any = true;
            }
            self.newest = last;
        }
        Ok(conn.execute_batch("COMMIT")?)
    }
}

/// See [`Next::pages`].
pub(super) struct NextPages<'n> {
    staged: &'n Staged,
    unchanged: &'n Unchanged,
    written: RoaringBitmap,
    preview: Option<DbpageReader>,
    end: PageCount,
    page_size: usize,
}

impl NextPages<'_> {
    pub(super) fn read(&mut self, page: PageNo) -> Result<Vec<u8>> {
        let id = page.id();
        if let Some(preview) = self.preview.as_mut().filter(|_| self.written.contains(id.0))
            && let Some(bytes) = preview.read(page)?
        {
            return Ok(bytes.to_vec());
        }
        if let Some(bytes) = self.staged.read(id)? {
            return Ok(bytes);
        }
        if let Some(bytes) = self.unchanged.read(id)? {
            return Ok(bytes);
        }
        if !self.end.contains(page) {
            // A free page of a database that grew locally: it has no content.
            return Ok(vec![0; self.page_size]);
        }
        Err(Error::Damaged {
            what: "the pull",
            why: format!("page {page} of the new state is missing; this is a defect, please report it"),
        })
    }
}
