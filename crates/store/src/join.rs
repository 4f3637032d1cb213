//! Files of a database are read, made one, and that is written.

use partial_sync_core::PageSize;
use partial_sync_ltx::{LtxError, Reader};

use crate::{error::StoreError, layout::FileName, merge, pieces::Pieces, places::Places, run::HeadFile};

impl Places {
    /// Makes `output` of files that follow each other, in the database's own place.
    pub(crate) async fn join(
        &self,
        inputs: &[FileName],
        output: FileName,
        page_size: PageSize,
    ) -> Result<HeadFile, StoreError> {
        if inputs.iter().any(|name| !self.is_own(*name)) {
            self.check().await?;
        }
        let mut headers = Vec::new();
        let mut streams = Vec::new();
        for name in inputs {
            let bucket = self.at(*name);
            let header = bucket.header(*name).await?;
            if header.page_size != page_size {
                let (ids, why) = (header.ids, "its pages have another size");
                return Err(bucket.wrong_file(*name, LtxError::Position { ids, why }));
            }
            headers.push(header);
            streams.push(bucket.stream(*name).await?.1);
        }
        let header = merge::header(output.ids, &headers).ok_or_else(|| StoreError::Head {
            store: self.own().name(),
            why: format!("its files do not make {output}"),
        })?;
        let from: Vec<_> = inputs
            .iter()
            .map(|name| (self.at(*name).clone(), *name))
            .collect();
        let runtime = tokio::runtime::Handle::current();
        self.own()
            .upload(output, header, move |put| {
                let wrong = |n: usize, error| {
                    let (bucket, name) = &from[n];
                    bucket.wrong_file(*name, error)
                };
                let mut readers = Vec::new();
                for (n, stream) in streams.into_iter().enumerate() {
                    let reader = Reader::new(Pieces::new(stream, runtime.clone()));
                    readers.push(reader.map_err(|error| wrong(n, error))?);
                }
                merge::merge(&header, readers, wrong, put)
            })
            .await
    }
}
