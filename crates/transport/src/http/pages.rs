//! `POST /pull-updates` from the client's side: one request becomes a checked stream of pages.
//!
//! A stream that ends without an error was complete and kept every rule of the protocol. What breaks on the way is asked
//! for again at the same revision where it is known what is still missing; a rule that is broken is never forgiven.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use partial_sync_core::{InvalidPageSize, PageId, PageNo, PageSize, Revision, header::stated_page_size};
use prost::Message;
use roaring::RoaringBitmap;
use tokio::time::{Instant, sleep, timeout};

use super::{
    describe::{concluded, describe, explained, name_pages, shortened, timed_out},
    pace::Pace,
    requester::{RequestBody, Requester},
    status::{self, Refusal},
};
use crate::{
    remote::{
        Features, PageSelector, PageStream, PagesHeader, PagesRequest, RemoteError, RemoteErrorKind,
        RemotePage,
    },
    url::RemoteUrl,
    wire::{self, BodyDecoder, FrameDecoder, PageEncoding, PullUpdatesHeader, PullUpdatesRequest, Unpacker},
};

/// Asks, and resolves when the header has arrived.
pub(super) async fn open_stream(
    requester: Arc<Requester>,
    request: PagesRequest,
) -> Result<PageStream, RemoteError> {
    let opened = open(&requester, &request).await?;
    let header = opened.header.clone();
    let reader = AnswerReader::new(requester, request, opened);
    let pages = stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(page)) => Some((Ok(page), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(PageStream {
        header,
        pages: pages.boxed(),
    })
}

/// An answer whose header has been read and checked.
struct OpenAnswer {
    header: PagesHeader,
    encoding: PageEncoding,
    frames: FrameDecoder,
    end_is_marked: bool,
    body: BoxStream<'static, Result<Bytes, RemoteError>>,
    what: String,
}

/// One request with its retries, within its deadline.
async fn open(requester: &Requester, request: &PagesRequest) -> Result<OpenAnswer, RemoteError> {
    let started = Instant::now();
    let limit = silence(requester, request).saturating_add(request.long_poll.unwrap_or_default());
    let mut attempts = 0;
    loop {
        let url = requester.url.ask()?;
        let what = describe(request, &url);
        attempts += 1;
        let left = limit.saturating_sub(started.elapsed());
        let refusal = match timeout(left, attempt(requester, &url, request, &what)).await {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(refusal)) => refusal,
            Err(_) => return Err(concluded(timed_out(&what, limit), attempts, started)),
        };
        let pause = requester.pause(attempts, refusal.retry_after);
        let too_late = started.elapsed().saturating_add(pause) >= limit;
        if !refusal.may_retry || attempts >= requester.retry.attempts || too_late {
            return Err(concluded(refusal.error, attempts, started));
        }
        tracing::debug!(attempts, ?pause, error = %refusal.error, "trying again");
        sleep(pause).await;
    }
}

/// Sends the request once and reads the answer's header.
async fn attempt(
    requester: &Requester,
    url: &RemoteUrl,
    request: &PagesRequest,
    what: &str,
) -> Result<OpenAnswer, Refusal> {
    let known = requester.known_features(url);
    let encoding = match requester.compression {
        false => PageEncoding::Raw,
        // It knows no blocks.
        true if known.zstd && !known.zstd_blocks => PageEncoding::Zstd,
        true => PageEncoding::ZstdBlocks,
    };
    let body = PullUpdatesRequest::new(request, encoding).encode_to_vec();
    let broken = |error: RemoteError| Refusal {
        may_retry: error.is_transient(),
        retry_after: None,
        error: explained(error, what),
    };
    let no_remote = |why: &str| Refusal {
        may_retry: false,
        retry_after: None,
        error: RemoteError::new(
            RemoteErrorKind::Protocol,
            format!("{what}: {url} is not a partial sync remote: {why}. Check the url"),
        ),
    };
    let response = requester
        .send(url, wire::PULL_UPDATES, wire::PROTOBUF, RequestBody::plain(body))
        .await
        .map_err(broken)?;
    if response.status != 200 {
        let (refusal, received) = status::refusal(response, BodyDecoder::new(false), what).await;
        requester.received(received);
        return Err(refusal);
    }
    if let Some(kind) = response.header("content-type") {
        let kind = kind
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        if kind.starts_with("text/") || kind == "application/json" {
            return Err(no_remote(&format!(
                "it answers with {}",
                status::printable(&kind)
            )));
        }
    }
    let features = response
        .header(wire::FEATURES_HEADER)
        .map(Features::from_header)
        .unwrap_or_default();
    let mut frames = FrameDecoder::new();
    let end_is_marked = response.end_is_marked;
    let mut body = response.body;
    let limit = match request.list {
        true => wire::HEADER_LIMIT + wire::BITMAP_LIMIT,
        false => wire::HEADER_LIMIT,
    };
    let frame = loop {
        match frames.next(limit) {
            Ok(Some(frame)) => break frame,
            Ok(None) => {}
            Err(error) => return Err(no_remote(&error.to_string())),
        }
        match body.next().await {
            Some(Ok(chunk)) => {
                requester.received(chunk.len());
                frames.push(&chunk);
            }
            Some(Err(error)) => return Err(broken(error)),
            None => return Err(no_remote("its answer ends before the header does")),
        }
    };
    let header = PullUpdatesHeader::decode(frame).map_err(|e| no_remote(&e.to_string()))?;
    let (revision, db_size, mode, encoding) = header.check().map_err(|e| no_remote(&e.to_string()))?;
    let listed = match request.list {
        true => header.named().map_err(|e| no_remote(&e.to_string()))?,
        false => None,
    };
    requester.learn_features(url, features);
    if let Some(asked) = request
        .revision
        .as_ref()
        .filter(|asked| !is_same(asked, &revision))
    {
        // A remote that cannot read a revision may take it for the latest; its pages would belong to another state.
        return Err(Refusal {
            may_retry: false,
            retry_after: None,
            error: RemoteError::new(
                RemoteErrorKind::RevisionUnknown,
                format!(
                    "{what}: the remote answers with revision {} instead of {}. It does not know the revision asked \
                     for: check the url, or make a new replica",
                    shortened(revision.as_str()),
                    shortened(asked.as_str())
                ),
            ),
        });
    }
    Ok(OpenAnswer {
        header: PagesHeader {
            revision,
            db_size,
            mode,
            features,
            listed,
        },
        encoding,
        frames,
        end_is_marked,
        body,
        what: what.to_owned(),
    })
}

/// Reads and checks the pages of an answer.
struct AnswerReader {
    requester: Arc<Requester>,
    request: PagesRequest,
    answer: OpenAnswer,
    /// Ids that the answer may not leave out; `None` = the remote alone knows.
    must: Option<RoaringBitmap>,
    seen: RoaringBitmap,
    page_size: Option<PageSize>,
    unpacker: Unpacker,
    /// Pages of a message that came, for the next ones who ask.
    unpacked: VecDeque<(u64, Bytes)>,
    /// Times the stream broke since the last page.
    breaks: u32,
    started: Instant,
    /// Of the whole answer, the taking up again of a stream that broke included.
    pace: Pace,
    complete: bool,
}

impl AnswerReader {
    fn new(requester: Arc<Requester>, request: PagesRequest, answer: OpenAnswer) -> Self {
        Self {
            pace: Pace::new(silence(&requester, &request)),
            must: must_answer(&request, &answer.header),
            page_size: request.page_size,
            requester,
            request,
            answer,
            seen: RoaringBitmap::new(),
            unpacker: Unpacker::default(),
            unpacked: VecDeque::new(),
            breaks: 0,
            started: Instant::now(),
            complete: false,
        }
    }

    async fn next(&mut self) -> Result<Option<RemotePage>, RemoteError> {
        loop {
            if let Some((id, data)) = self.unpacked.pop_front() {
                let page = self.accept(id, data)?;
                self.breaks = 0;
                return Ok(Some(page));
            }
            if self.complete {
                return Ok(None);
            }
            let encoding = self.answer.encoding;
            match self.answer.frames.next(Unpacker::limit(encoding)) {
                Ok(Some(frame)) => {
                    let pages = self.unpacker.unpack(frame, encoding);
                    self.unpacked = pages.map_err(|e| self.wrong(&e.to_string()))?.into();
                    continue;
                }
                Ok(None) => {}
                Err(error) => return Err(self.wrong(&error.to_string())),
            }
            match self.pace.wait(self.answer.body.next()).await {
                Some(Some(Ok(chunk))) => {
                    self.requester.received(chunk.len());
                    self.pace.came(chunk.len());
                    self.answer.frames.push(&chunk);
                }
                Some(Some(Err(error))) => self.resume(explained(error, &self.answer.what)).await?,
                Some(None) if self.answer.frames.is_at_boundary() => {
                    self.check_complete()?;
                    self.complete = true;
                }
                Some(None) => self.resume(self.wrong("it ends in the middle of a page")).await?,
                None => return Err(self.pace.used_up(&self.answer.what)),
            }
        }
    }

    /// Checks one page.
    fn accept(&mut self, page_id: u64, data: Bytes) -> Result<RemotePage, RemoteError> {
        let db_size = self.answer.header.db_size;
        let id = u32::try_from(page_id)
            .ok()
            .filter(|id| *id < db_size.0)
            .ok_or_else(|| {
                self.wrong(&format!(
                    "it holds page id {page_id}, and the database has {db_size} pages"
                ))
            })?;
        if !self.may_be_sent(id) {
            return Err(self.wrong(&format!("it holds page id {id}, which nobody asked for")));
        }
        if !self.seen.insert(id) {
            return Err(self.wrong(&format!("it holds page id {id} twice")));
        }
        self.check_size(id, &data)?;
        Ok(RemotePage { id: PageId(id), data })
    }

    fn may_be_sent(&self, id: u32) -> bool {
        match &self.request.select {
            _ if self.answer.header.listed.is_some() => false,
            PageSelector::Ids(ids) if self.request.since.is_none() && self.request.query.is_none() => {
                ids.contains(id)
            }
            _ => true,
        }
    }

    fn check_size(&mut self, id: u32, data: &[u8]) -> Result<(), RemoteError> {
        let size = u32::try_from(data.len())
            .ok()
            .and_then(|n| PageSize::new(n).ok())
            .ok_or_else(|| {
                self.wrong(&format!(
                    "page id {id} has {} bytes, which is not a SQLite page size",
                    data.len()
                ))
            })?;
        let expected = *self.page_size.get_or_insert(size);
        if size != expected {
            return Err(self.wrong(&format!(
                "page id {id} has {size} bytes where {expected} were expected; is this the same database?"
            )));
        }
        if id == 0
            && let Some(stated) = stated_page_size(data)
        {
            let stored: u64 = match stated {
                Ok(size) => size.bytes().into(),
                Err(InvalidPageSize(bytes)) => bytes,
            };
            if stored != u64::from(size.bytes()) {
                return Err(self.wrong(&format!(
                    "page 1 says that pages have {stored} bytes, and it has {size} itself"
                )));
            }
        }
        Ok(())
    }

    fn check_complete(&self) -> Result<(), RemoteError> {
        match self.missing() {
            Some(missing) if !missing.is_empty() => Err(self.wrong(&format!(
                "it ends without {} that were asked for",
                name_pages(&missing)
            ))),
            None if !self.answer.end_is_marked => Err(self.wrong(
                "neither its length nor its end is marked, so it cannot be told from one that was cut. A proxy on the \
                 way may have changed it",
            )),
            _ => Ok(()),
        }
    }

    /// What has not come yet and must; `None` when only the remote knows.
    fn missing(&self) -> Option<RoaringBitmap> {
        let mut missing = self.must.as_ref()? - &self.seen;
        if let Some(size) = self.page_size {
            // The page of SQLite's locks holds nothing; a remote may or may not send it.
            missing.remove(PageNo::lock_byte(size).id().0);
        }
        Some(missing)
    }

    /// The stream broke: asks for the rest at the same revision, or gives the error back.
    async fn resume(&mut self, error: RemoteError) -> Result<(), RemoteError> {
        self.breaks += 1;
        let rest = match self.missing() {
            Some(rest) if self.request.query.is_none() && self.breaks < self.requester.retry.attempts => rest,
            _ => return Err(concluded(error, self.breaks, self.started)),
        };
        if rest.is_empty() {
            self.complete = true;
            return Ok(());
        }
        tracing::debug!(missing = rest.len(), %error, "the page stream broke, asking for the rest");
        let pause = self.requester.pause(self.breaks, None);
        let request = PagesRequest {
            revision: Some(self.answer.header.revision.clone()),
            select: PageSelector::Ids(rest),
            page_size: self.page_size,
            deadline: self.request.deadline,
            ..PagesRequest::default()
        };
        // Within the budget of the whole: a stream that breaks after every page must not begin a new one each time.
        let requester = &self.requester;
        let again = self.pace.wait(async {
            sleep(pause).await;
            open(requester, &request).await
        });
        let Some(answer) = again.await else {
            return Err(self.pace.used_up(&self.answer.what));
        };
        let answer = answer?;
        // Some remotes state the latest size in a pinned answer: what the first header said stays.
        self.answer = OpenAnswer {
            header: self.answer.header.clone(),
            ..answer
        };
        Ok(())
    }

    fn wrong(&self, why: &str) -> RemoteError {
        RemoteError::new(
            RemoteErrorKind::Protocol,
            format!("{}: the answer breaks the protocol: {why}", self.answer.what),
        )
    }
}

/// Ids that an answer to this request may not leave out. With `since`, unchanged pages are rightly left out; with a
/// query, only a remote that hydrates promises the selected pages too.
fn must_answer(request: &PagesRequest, header: &PagesHeader) -> Option<RoaringBitmap> {
    if request.since.is_some() || header.listed.is_some() {
        return None;
    }
    let mut must = match &request.select {
        PageSelector::Ids(ids) if request.query.is_none() || header.features.hydrate => ids.clone(),
        PageSelector::All if request.query.is_none() => {
            let mut all = RoaringBitmap::new();
            all.insert_range(..header.db_size.0);
            all
        }
        _ => return None,
    };
    must.remove_range(header.db_size.0..);
    if let Some(have) = &request.have {
        must -= have;
    }
    Some(must)
}

/// Whether two revisions are one; some are JSON, which may be laid out differently.
fn is_same(a: &Revision, b: &Revision) -> bool {
    let json = |r: &Revision| serde_json::from_str::<serde_json::Value>(r.as_str()).ok();
    a == b || json(a).is_some_and(|a| Some(a) == json(b))
}

fn silence(requester: &Requester, request: &PagesRequest) -> Duration {
    request.deadline.unwrap_or(requester.deadline)
}
