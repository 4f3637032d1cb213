//! Writes a file of any size while it is made: in parts that follow each other to the store, of which few are in memory.
//!
//! The pages come from code that waits (it reads a database, or merges other files), so it runs on a thread for that. What must
//! never happen here: that an object is completed of which a page is missing.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use object_store::buffered::BufWriter;
use partial_sync_core::PageNo;
use partial_sync_ltx::{Contents, Header, Writer};
use tokio::{io::AsyncWriteExt, sync::mpsc};

use crate::{bucket::Bucket, error::StoreError, layout::FileName, run::HeadFile};

/// The least bytes of a part; the last one may have fewer.
const PART: u64 = 8 << 20;
/// Stores allow 10,000 parts.
const PARTS: u64 = 8_000;
/// Bytes that go from one thread to the other at once.
const PIECE: usize = 256 << 10;

/// Takes the pages of a file, ascending.
pub(crate) type PutPage<'a> = dyn FnMut(PageNo, &[u8]) -> Result<(), StoreError> + 'a;

impl Bucket {
    /// Writes the file `name`, in place of one that may be there. `pages` gives its pages to the function that it is given.
    pub(crate) async fn upload(
        &self,
        name: FileName,
        header: Header,
        pages: impl FnOnce(&mut PutPage<'_>) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<HeadFile, StoreError> {
        let largest = header.commit.bytes(header.page_size);
        let part = PART.max(largest.div_ceil(PARTS).next_multiple_of(1 << 20));
        let part = usize::try_from(part).unwrap_or(usize::MAX);
        let mut output =
            BufWriter::with_capacity(self.store(), self.path(name), part).with_max_concurrency(2);
        let (sender, mut pieces) = mpsc::channel(2);
        let bucket = self.clone();
        let made = tokio::task::spawn_blocking(move || {
            let wrong = |error| bucket.wrong_file(name, error);
            let mut writer = Writer::new(Pieces::new(sender), header).map_err(wrong)?;
            pages(&mut |page, bytes| writer.page(page, bytes).map_err(wrong))?;
            writer.finish(None).map(|(_, contents)| contents).map_err(wrong)
        });
        let mut sent = Ok(());
        while let Some(piece) = pieces.recv().await {
            sent = output.put(piece).await;
            if sent.is_err() {
                break;
            }
        }
        // The other thread notices, and ends.
        drop(pieces);
        let failed = |error| self.failed(format_args!("writing {name}"), error);
        let made = made
            .await
            .unwrap_or_else(|panic| Err(StoreError::Source(panic.into())));
        let result = match (sent, made) {
            (Err(error), _) => Err(failed(error)),
            (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(contents)) => Ok(contents),
        };
        match result {
            Ok(contents) => {
                let done = output.shutdown().await;
                done.map_err(|error| {
                    failed(object_store::Error::Generic {
                        store: "upload",
                        source: error.into(),
                    })
                })?;
                Ok(head_file(name, &contents))
            }
            Err(error) => {
                // Parts that stay are removed by the store's own rule for unfinished uploads.
                let _ = output.abort().await;
                Err(error)
            }
        }
    }
}

fn head_file(name: FileName, contents: &Contents) -> HeadFile {
    HeadFile::new(name, contents.len, contents.tail_at())
}

/// Bytes on their way to the store.
#[derive(Debug)]
struct Pieces {
    to: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

impl Pieces {
    fn new(to: mpsc::Sender<Bytes>) -> Self {
        Self {
            to,
            piece: BytesMut::with_capacity(PIECE),
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        self.piece.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE));
        self.to
            .blocking_send(piece.freeze())
            .map_err(|_| io::Error::other("the upload has ended"))
    }
}
