//! What the first connect fetches, of a remote of which nothing is known yet: everything, the start of the file, what a query
//! touches, or page 1, all of one revision. The first connect puts it into the database file ([`crate::open::bootstrap`]);
//! the first pull of a replica that was made without the remote, into the pull's file.

use std::time::Duration;

use futures_util::StreamExt;
use partial_sync_core::{PageCount, PageNo, PageSize, admit::admit, header::Page1};
use partial_sync_transport::{Features, PageSelector, PagesRequest, Remote, RemoteError, RemoteErrorKind};
use partial_sync_vfs::Base;
use roaring::RoaringBitmap;

use crate::{
    error::{Error, Result},
    fetch::request::pinned_ids,
    open::options::{Bootstrap, Builder},
};

/// Most pages of the first request, when the size of the database is not known: 256 MiB of 4096 bytes each. The rest is
/// asked for when it is.
const MOST_AT_FIRST: u32 = 1 << 16;

/// What to fetch.
pub(crate) enum InitialPages {
    /// Everything, in requests of about so many bytes (`None` = one request).
    Everything { chunk: Option<u64> },
    /// See [`Bootstrap`]; `None` = page 1.
    Partial(Option<Bootstrap>),
}

impl InitialPages {
    pub(crate) fn of(options: &Builder) -> Self {
        match &options.partial {
            None => Self::Everything {
                chunk: options.pull_threshold,
            },
            Some(partial) => Self::Partial(partial.bootstrap.clone()),
        }
    }
}

/// What a fetch brought, besides the pages.
pub(crate) struct Fetched {
    pub base: Base,
    /// `None` when the remote's database is empty.
    pub page_size: Option<PageSize>,
    pub features: Features,
}

/// Takes a page; page 1 says "WAL mode" already.
pub(crate) type Put<'a> = &'a mut (dyn FnMut(PageNo, &[u8]) -> Result<()> + Send);

/// Takes what a fetch brings.
pub(crate) trait Receiver: Send {
    /// The revision and the page size are known: before the first page, once.
    fn begin(&mut self, base: &Base, page_size: PageSize) -> Result<()>;
    /// A page; page 1 says "WAL mode" already.
    fn page(&mut self, page: PageNo, data: &[u8]) -> Result<()>;
    /// An answer has come whole.
    fn answered(&mut self) -> Result<()>;
}

/// Pages alone.
struct PagesOnly<'a>(Put<'a>);

impl Receiver for PagesOnly<'_> {
    fn begin(&mut self, _: &Base, _: PageSize) -> Result<()> {
        Ok(())
    }

    fn page(&mut self, page: PageNo, data: &[u8]) -> Result<()> {
        (self.0)(page, data)
    }

    fn answered(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What a first connect that was cut off has left: pages of one revision.
pub(crate) struct PartialDownload {
    pub base: Base,
    pub page_size: PageSize,
    /// 0-based ids.
    pub present: RoaringBitmap,
}

/// Fetches what `wanted` says, all of one revision.
pub(crate) async fn fetch_initial(
    remote: &dyn Remote,
    wanted: &InitialPages,
    deadline: Duration,
    put: Put<'_>,
) -> Result<Fetched> {
    fetch_initial_into(remote, wanted, deadline, None, &mut PagesOnly(put)).await
}

/// The same, perhaps continuing where a fetch was cut off.
pub(crate) async fn fetch_initial_into(
    remote: &dyn Remote,
    wanted: &InitialPages,
    deadline: Duration,
    resumed: Option<PartialDownload>,
    receiver: &mut dyn Receiver,
) -> Result<Fetched> {
    let mut fetching = InitialFetch {
        receiver,
        came: RoaringBitmap::new(),
        page_size: None,
        wanted_bytes: None,
        features: Features::default(),
    };
    if let Some(resumed) = resumed {
        fetching.came = resumed.present;
        fetching.page_size = Some(resumed.page_size);
        fetching.complete(remote, wanted, &resumed.base, deadline).await?;
        return Ok(Fetched {
            base: resumed.base,
            page_size: fetching.page_size,
            features: fetching.features,
        });
    }
    let guess = u64::from(PageSize::DEFAULT.bytes());
    let mut request = PagesRequest {
        deadline: Some(deadline),
        ..PagesRequest::default()
    };
    match wanted {
        InitialPages::Everything { chunk: None } => {}
        InitialPages::Everything { chunk: Some(bytes) } => request.select = first_ids(bytes / guess),
        InitialPages::Partial(None) => request.select = first_ids(1),
        InitialPages::Partial(Some(Bootstrap::Prefix { length })) => {
            // The page size is not known yet; 4096 is what nearly every database has.
            request.select = first_ids(length / guess);
            fetching.wanted_bytes = Some(*length);
        }
        // It is run here, when the replica is there.
        InitialPages::Partial(Some(Bootstrap::Query { .. })) if !remote.runs_sql() => {
            request.select = first_ids(1);
        }
        InitialPages::Partial(Some(Bootstrap::Query { query })) => request.query = Some(query.clone()),
    }
    let is_query = request.query.is_some();
    let base = fetching
        .run_request(remote, request)
        .await
        .map_err(|error| match error {
            Error::Remote(e) if is_query && e.kind == RemoteErrorKind::Refused => {
                Error::BootstrapQuery { message: e.message }
            }
            other => other,
        })?;
    fetching.complete(remote, wanted, &base, deadline).await?;
    Ok(Fetched {
        base,
        page_size: fetching.page_size,
        features: fetching.features,
    })
}

fn first_ids(pages: u64) -> PageSelector {
    let pages = u32::try_from(pages).unwrap_or(u32::MAX).clamp(1, MOST_AT_FIRST);
    PageSelector::Ids((0..pages).collect())
}

struct InitialFetch<'a> {
    receiver: &'a mut dyn Receiver,
    /// 0-based ids of the pages that came.
    came: RoaringBitmap,
    page_size: Option<PageSize>,
    /// Stop after so many bytes from the file's start, once the page size is known.
    wanted_bytes: Option<u64>,
    features: Features,
}

impl InitialFetch<'_> {
    async fn run_request(&mut self, remote: &dyn Remote, request: PagesRequest) -> Result<Base> {
        let mut answer = remote.pages(request).await?;
        self.features = answer.header.features;
        let base = Base {
            revision: answer.header.revision.clone(),
            size: answer.header.db_size,
        };
        while let Some(page) = answer.pages.next().await {
            let page = page?;
            let Some(number) = page.id.no() else { continue };
            let size = match self.page_size {
                Some(size) => size,
                None => {
                    let size = PageSize::new(page.data.len() as u32).map_err(|e| unusable(e.to_string()))?;
                    self.receiver.begin(&base, size)?;
                    *self.page_size.insert(size)
                }
            };
            if let Some(bytes) = self.wanted_bytes
                && number != PageNo::FIRST
                && number.offset(size) + u64::from(size.bytes()) > bytes
            {
                // Larger pages than guessed: the rest was asked for by mistake.
                continue;
            }
            self.put(number, &page.data, size)?;
        }
        self.receiver.answered()?;
        Ok(base)
    }

    fn put(&mut self, page: PageNo, data: &[u8], size: PageSize) -> Result<()> {
        let admitted = admit(page, data, size).map_err(|e| unusable(e.to_string()))?;
        let Some(data) = admitted else { return Ok(()) };
        if page == PageNo::FIRST && Page1::of(&data).is_err() {
            return Err(unusable(
                "its first page has no SQLite header; is it encrypted, or no database?".into(),
            ));
        }
        self.receiver.page(page, &data)?;
        self.came.insert(page.id().0);
        Ok(())
    }

    /// Fetches what the first answer could not hold, all at the first answer's revision.
    async fn complete(
        &mut self,
        remote: &dyn Remote,
        wanted: &InitialPages,
        base: &Base,
        deadline: Duration,
    ) -> Result<()> {
        if base.size == PageCount::ZERO {
            return Ok(());
        }
        if self.page_size.is_none() {
            // A query that touched nothing.
            self.run_request(
                remote,
                PagesRequest {
                    revision: Some(base.revision.clone()),
                    ..page_1(deadline)
                },
            )
            .await?;
        }
        let Some(page_size) = self.page_size else {
            return Err(Error::Remote(RemoteError::new(
                RemoteErrorKind::Protocol,
                format!(
                    "{} said that its database has {} pages but sent none",
                    remote.url(),
                    base.size
                ),
            )));
        };
        let pages = |bytes| u32::try_from(bytes / u64::from(page_size.bytes())).unwrap_or(u32::MAX);
        let (last, chunk) = match wanted {
            InitialPages::Everything { chunk } => (base.size.0, chunk.map_or(u32::MAX, pages)),
            InitialPages::Partial(Some(Bootstrap::Prefix { length })) => {
                (pages(*length).clamp(1, base.size.0), u32::MAX)
            }
            InitialPages::Partial(_) => (1, u32::MAX),
        };
        // As runs: there are as many as the remote says, whether it has them or not.
        let mut missing = RoaringBitmap::new();
        missing.insert_range(..last);
        missing -= &self.came;
        missing.remove(PageNo::lock_byte(page_size).id().0);
        while !missing.is_empty() {
            let mut ids = std::mem::take(&mut missing);
            if let Some(next) = ids.select(chunk.max(1)) {
                missing = ids.clone();
                missing.remove_range(..next);
                ids.remove_range(next..);
            }
            self.run_request(remote, pinned_ids(base, ids, page_size, deadline))
                .await?;
        }
        if !self.came.contains(0) {
            return Err(unusable("the remote did not send its first page".into()));
        }
        Ok(())
    }
}

fn page_1(deadline: Duration) -> PagesRequest {
    PagesRequest {
        select: PageSelector::Ids(RoaringBitmap::from_iter([0])),
        deadline: Some(deadline),
        ..PagesRequest::default()
    }
}

fn unusable(why: String) -> Error {
    Error::UnusableDatabase { why }
}
