//! The WAL and the rollback journal of a database, as SQLite has them open: what must happen before one of them is changed,
//! and errors that name the file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::ReadError,
    registry::{InUse, Side},
    replica::Replica,
    sqlite::context,
    storage::StorageFile,
};

pub(crate) struct SideHandle {
    replica: Arc<Replica>,
    file: Arc<dyn StorageFile>,
    path: PathBuf,
    side: Side,
    _in_use: InUse,
}

impl SideHandle {
    /// For [`crate::shim`].
    pub(crate) fn open(
        path: &Path,
        replica: Arc<Replica>,
        side: Side,
        create: bool,
        in_use: InUse,
    ) -> Result<Self, ReadError> {
        let path = side.file(&replica, path);
        let file = replica.while_open(|| {
            let opened = replica.storage().open(&path, create);
            opened.map_err(ReadError::io("open", &path))
        })?;
        Ok(Self {
            replica,
            file,
            path,
            side,
            _in_use: in_use,
        })
    }

    fn failed(&self, operation: &'static str) -> impl Fn(io::Error) -> ReadError {
        ReadError::io(operation, &self.path)
    }

    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, ReadError> {
        if self.replica.is_closed() {
            return Err(ReadError::Closed);
        }
        let read = self.file.read_at(buf, offset).map_err(self.failed("read"))?;
        if read < buf.len() && self.side == Side::Wal {
            // SQLite reads no more of a WAL than it has; it has no words for this.
            let (path, end) = (self.path.clone(), offset + buf.len() as u64);
            context::set_last_error(Arc::new(ReadError::CutOff { path, end }));
        }
        Ok(read)
    }

    pub(crate) fn write(&self, data: &[u8], offset: u64) -> Result<(), ReadError> {
        self.replica.writing(|| {
            if self.side == Side::Wal {
                self.replica.note_wal_write(data, offset)?;
            }
            self.file.write_at(data, offset).map_err(self.failed("write"))
        })
    }

    pub(crate) fn truncate(&self, size: u64) -> Result<(), ReadError> {
        self.replica.while_open(|| {
            if self.side == Side::Wal {
                self.replica.before_wal_goes()?;
            }
            self.file.set_len(size).map_err(self.failed("truncate"))
        })
    }

    pub(crate) fn sync(&self) -> Result<(), ReadError> {
        self.replica.while_open(|| {
            match self.side {
                Side::Wal => self.replica.sync_wal_file(&*self.file),
                Side::Main | Side::Journal => self.file.sync(),
            }
            .map_err(self.failed("sync"))
        })
    }

    pub(crate) fn len(&self) -> Result<u64, ReadError> {
        self.file.len().map_err(self.failed("measure"))
    }
}
