//! A bucket as the remote of a replica: pages come from the log, without a server. It runs no SQL, and takes no changes.
//!
//! Nothing is asked of the bucket, nor of the environment, before something is asked here. A revision is `<generation>-<id>`, as servers
//! of the bucket name it.
//!
//! What must never happen here: that a page of one history is given as that of another, that a revision is answered with the latest
//! one in its place, or that a wait has no end.

use std::{fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use object_store::Error as ObjectError;
use partial_sync_core::{PageId, PageNo, Revision};
use partial_sync_ltx::TxId;
use partial_sync_transport::{
    ApplyMode, Features, PageSelector, PageStream, PagesHeader, PagesRequest, Remote, RemoteError,
    RemoteErrorKind, RemotePage, TransferStats,
    hrana::{Batch, BatchResult},
    http::DEFAULT_DEADLINE,
};
use roaring::RoaringBitmap;
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    bucket::Bucket,
    counted::Counts,
    error::StoreError,
    reader::{Found, ReadOptions, Reader, State},
    url,
};

/// How often is looked for a commit that is waited for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest wait for one.
const LONGEST_POLL: Duration = Duration::from_secs(24 * 3600);
/// Bytes a second of which an answer has to come.
const SLOWEST: u64 = 4 << 10;
/// Bytes of pages that are in memory at once for an answer.
const AT_ONCE: usize = 4 << 20;

/// What it can do.
const FEATURES: Features = Features {
    hydrate: false,
    require: true,
    zstd: false,
    list: true,
    zstd_bodies: false,
    zstd_blocks: false,
    writes: false,
    foreign_sql: false,
};

/// See the module.
pub struct BucketRemote {
    url: String,
    open: Box<dyn Fn() -> Result<Bucket, StoreError> + Send + Sync>,
    reader: tokio::sync::Mutex<Option<Reader>>,
    counts: Arc<Counts>,
}

impl fmt::Debug for BucketRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BucketRemote").field(&self.url).finish()
    }
}

impl BucketRemote {
    /// The database at a url, with what its store needs taken from the environment when it is first asked for something.
    pub fn at(url: impl Into<String>) -> Self {
        let url = url.into();
        let shown = url::shown(&url);
        Self::new(shown, move || url::open_existing(&url))
    }

    /// The database at a place that is found when it is first asked for something. `url` names it, without secrets.
    pub fn new(
        url: impl Into<String>,
        open: impl Fn() -> Result<Bucket, StoreError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            url: url.into(),
            open: Box::new(open),
            reader: tokio::sync::Mutex::default(),
            counts: Arc::default(),
        }
    }

    /// The reader, and whether it was opened just now. What is there after the end of a history is another database.
    async fn reader(&self) -> Result<(Reader, bool), StoreError> {
        let mut reader = self.reader.lock().await;
        if let Some(open) = reader.as_ref().filter(|reader| reader.check_open().is_ok()) {
            return Ok((open.clone(), false));
        }
        *reader = None;
        let bucket = (self.open)()?.counted(&self.counts);
        let opened = Reader::open(bucket, ReadOptions::default()).await?;
        *reader = Some(opened.clone());
        Ok((opened, true))
    }

    async fn answer(&self, request: PagesRequest) -> Result<PageStream, RemoteError> {
        // Where pages are selected, what a query touches may come along, or not.
        if request.query.is_some() && request.select == PageSelector::All {
            return Err(self.runs_no_sql(None));
        }
        let waits = Waits {
            url: self.url.clone(),
            counts: self.counts.clone(),
            deadline: request.deadline.unwrap_or(DEFAULT_DEADLINE),
        };
        let (reader, is_new) = waits.within(self.reader()).await?;
        if let Some(size) = request.page_size.filter(|size| *size != reader.page_size()) {
            let theirs = reader.page_size();
            let message = format!("{} has pages of {theirs} bytes, and had {size}", self.url);
            return Err(RemoteError::new(RemoteErrorKind::Protocol, message));
        }
        let mut at = match &request.revision {
            Some(pinned) => waits.within(named(&reader, pinned)).await?,
            None if is_new => reader.latest(),
            None => waits.within(reader.advance()).await?,
        };
        let since = match &request.since {
            Some(since) => Some(waits.within(named(&reader, since)).await?),
            None => None,
        };
        if let (Some(since), Some(wait), None) = (since, request.long_poll, &request.revision) {
            let until = Instant::now() + wait.min(LONGEST_POLL);
            while at.id == since.id && Instant::now() < until {
                sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
                at = waits.within(reader.advance()).await?;
            }
        }
        let ids = waits.within(selected(&reader, &request, since, at)).await?;
        let header = PagesHeader {
            revision: revision(&reader, at.id),
            db_size: at.size,
            mode: ApplyMode::Incremental,
            features: FEATURES,
            listed: request.list.then(|| ids.clone()),
        };
        let ids = if request.list { RoaringBitmap::new() } else { ids };
        let at_once = (AT_ONCE / reader.page_size().as_usize()).max(1);
        let pages = stream::try_unfold(ids.into_iter(), move |mut ids| {
            let (waits, reader) = (waits.clone(), reader.clone());
            async move {
                let next = ids.by_ref().take(at_once);
                let next: Vec<PageNo> = next.filter_map(|id| PageId(id).no()).collect();
                if next.is_empty() {
                    return Ok(None);
                }
                let read = waits.within(reader.pages(at, &next)).await?;
                let pages = next.into_iter().zip(read);
                let pages = pages.map(|(page, data)| Ok(RemotePage { id: page.id(), data }));
                Ok::<_, RemoteError>(Some((stream::iter(pages), ids)))
            }
        });
        Ok(PageStream {
            header,
            pages: pages.try_flatten().boxed(),
        })
    }

    fn runs_no_sql(&self, writer: Option<String>) -> RemoteError {
        let server = match writer {
            Some(writer) => format!("the server that writes it, which it says is {writer}"),
            None => "a server of this database".to_owned(),
        };
        RemoteError::new(
            RemoteErrorKind::Refused,
            format!(
                "{} is a bucket, which runs no SQL: for a push, and for a pull after a push that got no answer, open the replica with \
                 the url of {server}. Nothing is lost: what was changed here is kept, and pulls put it back on top",
                self.url
            ),
        )
    }
}

impl Remote for BucketRemote {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        self.answer(request).boxed()
    }

    fn execute(
        &self,
        _batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        async move {
            let open = timeout(deadline.unwrap_or(DEFAULT_DEADLINE), self.reader()).await;
            let writer = open.ok().and_then(|open| open.ok()?.0.writer());
            Err(self.runs_no_sql(writer))
        }
        .boxed()
    }

    fn runs_sql(&self) -> bool {
        false
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    fn transferred(&self) -> TransferStats {
        TransferStats {
            requests: self.counts.requests(),
            bytes_sent: 0,
            bytes_received: self.counts.bytes(),
        }
    }
}

fn revision(reader: &Reader, id: TxId) -> Revision {
    let text = format!("{:016x}-{}", reader.generation(), id.get());
    Revision::new(text).expect("the text is neither empty nor long")
}

/// Why there is no answer.
enum Refused {
    /// The revision is not one of this history.
    Unknown(Revision),
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The state that a revision names, if it is kept.
async fn named(reader: &Reader, named: &Revision) -> Result<State, Refused> {
    let id = named
        .as_str()
        .rsplit_once('-')
        .and_then(|(_, id)| id.parse().ok());
    let id = id.and_then(TxId::new);
    let Some(id) = id.filter(|id| revision(reader, *id) == *named) else {
        return Err(Refused::Unknown(named.clone()));
    };
    if id > reader.latest().id {
        // Somebody else has seen it.
        reader.advance().await?;
    }
    match reader.state(id).await? {
        Found::Kept(state) => Ok(state),
        Found::Gone => Err(Refused::Store(reader.gone(id))),
        Found::Unknown => Err(Refused::Unknown(named.clone())),
    }
}

/// The ids of the pages that a request selects.
async fn selected(
    reader: &Reader,
    request: &PagesRequest,
    since: Option<State>,
    at: State,
) -> Result<RoaringBitmap, StoreError> {
    let mut ids = match &request.select {
        PageSelector::All => (0..at.size.0).collect(),
        PageSelector::Ids(ids) => within_size(ids, at),
    };
    let Some(since) = since else { return Ok(ids) };
    match since.id == at.id {
        true => ids.clear(),
        false => ids &= reader.changed(since, at).await?,
    }
    if let Some(required) = &request.require {
        ids |= within_size(required, at);
    }
    // A client makes its file longer by writing the last page.
    if at.size > since.size {
        ids.extend(at.size.last().map(|page| page.id().0));
    }
    Ok(ids)
}

fn within_size(ids: &RoaringBitmap, at: State) -> RoaringBitmap {
    let mut ids = ids.clone();
    ids.remove_range(at.size.0..);
    ids
}

/// Waits for what a bucket answers.
#[derive(Clone)]
struct Waits {
    url: String,
    counts: Arc<Counts>,
    deadline: Duration,
}

impl Waits {
    /// Waits for as long as something comes, and not too slowly.
    async fn within<T, E: Into<Refused>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, RemoteError> {
        let mut work = pin!(work);
        loop {
            let before = self.counts.bytes();
            if let Ok(done) = timeout(self.deadline, &mut work).await {
                return done.map_err(|error| self.failed(error.into()));
            }
            let came = self.counts.bytes() - before;
            if came == 0 || came < SLOWEST.saturating_mul(self.deadline.as_secs()) {
                let message = format!(
                    "{}: nothing, or too little, came within {:.1} s. Check the network, and what the environment says of its store; or \
                     allow more time",
                    self.url,
                    self.deadline.as_secs_f64()
                );
                return Err(RemoteError::new(RemoteErrorKind::TimedOut, message));
            }
        }
    }

    fn failed(&self, refused: Refused) -> RemoteError {
        use RemoteErrorKind as Kind;
        let error = match refused {
            Refused::Store(error) => error,
            Refused::Unknown(revision) => {
                let text: String = revision.as_str().chars().take(100).collect();
                let message = format!(
                    "revision {text} is not one of the database in {}: it is another one, or another history of it",
                    self.url
                );
                return RemoteError::new(Kind::RevisionUnknown, message);
            }
        };
        let kind = match error.root() {
            StoreError::Url { .. } => Kind::InvalidUrl,
            StoreError::NoDatabase { .. } => Kind::NotFound,
            StoreError::Gone { .. } => Kind::RevisionExpired,
            StoreError::OtherHistory { .. } => Kind::RevisionUnknown,
            StoreError::Request { source, .. } => match source {
                ObjectError::PermissionDenied { .. } | ObjectError::Unauthenticated { .. } => {
                    Kind::Unauthorized
                }
                _ => Kind::Unreachable,
            },
            StoreError::Head { .. }
            | StoreError::NewerHead { .. }
            | StoreError::File { .. }
            | StoreError::NoPage { .. }
            | StoreError::Parent { .. }
            | StoreError::TooLarge { .. } => Kind::Protocol,
            _ => Kind::Failed,
        };
        RemoteError::with_source(kind, error.to_string(), error)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_take_as_long_as_it_needs_if_enough_of_it_comes() {
        let waits = Waits {
            url: "memory:///app".to_owned(),
            counts: Arc::default(),
            deadline: Duration::from_secs(10),
        };
        for (bytes_a_second, is_enough) in [(SLOWEST + 1, true), (SLOWEST / 2, false), (0, false)] {
            let counts = waits.counts.clone();
            let work = async move {
                for _ in 0..100 {
                    sleep(Duration::from_secs(1)).await;
                    counts.came(bytes_a_second);
                }
                Ok::<_, StoreError>(())
            };
            let begun = Instant::now();
            match waits.within(work).await {
                Ok(()) => assert!(is_enough),
                Err(error) => {
                    assert!(!is_enough && error.kind == RemoteErrorKind::TimedOut, "{error}");
                    assert!(begun.elapsed() <= waits.deadline);
                }
            }
        }
        // A wait of no time ends.
        let counts = waits.counts.clone();
        let waits = Waits {
            deadline: Duration::ZERO,
            ..waits
        };
        let endless = async move {
            counts.came(1);
            std::future::pending::<Result<(), StoreError>>().await
        };
        assert!(waits.within(endless).await.is_err());
    }
}
