//! Answers of a remote as the client reads them, through the real `HttpRemote` with a made-up HTTP client under it.

use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use partial_sync_core::{PageCount, PageSize, Revision};
use partial_sync_transport::{
    ApplyMode, HttpClient, HttpRemote, PageSelector, PagesRequest, Remote, RemoteError, RetryPolicy,
    hrana::{Batch, Step, Stmt},
    http::{HttpRequest, HttpResponse},
    wire::{self, PageData, PageEncoding, PullUpdatesHeader},
};
use tokio::runtime::{Builder, Runtime};

use crate::input::Input;

pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime without threads can be made")
});

/// Answers every request with the same bytes.
struct Canned {
    status: u16,
    headers: Vec<(String, String)>,
    chunks: Vec<Bytes>,
    end_is_marked: bool,
}

impl fmt::Debug for Canned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Canned")
    }
}

impl HttpClient for Canned {
    fn keeps_codings(&self) -> bool {
        true
    }

    fn send(&self, _request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, RemoteError>> {
        let chunks: Vec<_> = self.chunks.iter().cloned().map(Ok).collect();
        let response = HttpResponse {
            status: self.status,
            headers: self.headers.clone(),
            end_is_marked: self.end_is_marked,
            body: stream::iter(chunks).boxed(),
        };
        std::future::ready(Ok(response)).boxed()
    }
}

fn remote(canned: Canned) -> HttpRemote {
    HttpRemote::builder("http://fuzz.invalid")
        .client(Arc::new(canned))
        .retry(RetryPolicy {
            attempts: 2,
            base: Duration::ZERO,
            cap: Duration::ZERO,
        })
        .seed(1)
        .build()
        .expect("the url is good")
}

/// What a client accepts as pages keeps every rule of the protocol, whatever the bytes and however they are cut.
pub(crate) fn page_stream(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let step = usize::from(input.byte()) * 16 + 1;
    let selected = u32::from(input.byte());
    let body = input.rest();
    let request = PagesRequest {
        select: match flags & 1 {
            0 => PageSelector::All,
            _ => PageSelector::Ids((0..selected).collect()),
        },
        since: (flags & 2 != 0).then(|| Revision::new("6")).flatten(),
        revision: (flags & 4 != 0).then(|| Revision::new("7")).flatten(),
        list: flags & 128 != 0,
        page_size: (flags & 8 != 0).then_some(PageSize::DEFAULT),
        ..PagesRequest::default()
    };
    let canned = Canned {
        status: if flags & 64 != 0 { 410 } else { 200 },
        headers: match flags & 16 {
            0 => vec![],
            _ => vec![(
                wire::FEATURES_HEADER.to_owned(),
                "hydrate, zstd, require, list, zstd-bodies, zstd-blocks, writes".to_owned(),
            )],
        },
        chunks: body.chunks(step).map(Bytes::copy_from_slice).collect(),
        end_is_marked: flags & 32 != 0,
    };
    read_pages(canned, request);
}

/// Reads a stream to its end and checks what was let through; the pages, if it ended well.
fn read_pages(canned: Canned, request: PagesRequest) -> Option<Vec<(u32, Bytes)>> {
    let remote = remote(canned);
    RUNTIME.block_on(async {
        let mut answer = match remote.pages(request.clone()).await {
            Ok(answer) => answer,
            Err(error) => {
                check_error(&error);
                return None;
            }
        };
        let header = answer.header.clone();
        let mut seen = roaring::RoaringBitmap::new();
        let mut pages = Vec::new();
        let mut size = request.page_size.map(PageSize::as_usize);
        while let Some(next) = answer.pages.next().await {
            let page = match next {
                Ok(page) => page,
                Err(error) => {
                    check_error(&error);
                    return None;
                }
            };
            assert!(
                page.id.0 < header.db_size.0,
                "a page beyond the end was let through"
            );
            assert!(seen.insert(page.id.0), "a page was let through twice");
            assert_eq!(*size.get_or_insert(page.data.len()), page.data.len());
            assert!(PageSize::new(page.data.len() as u32).is_ok());
            if let (PageSelector::Ids(ids), None) = (&request.select, &request.since) {
                assert!(
                    ids.contains(page.id.0),
                    "a page that nobody asked for was let through"
                );
            }
            pages.push((page.id.0, page.data));
        }
        if let Some(listed) = &header.listed {
            assert!(request.list && pages.is_empty());
            assert!(listed.max().is_none_or(|id| id < header.db_size.0));
        } else if request.since.is_none()
            && let Some(size) = size
        {
            let mut must = match &request.select {
                PageSelector::Ids(ids) => ids.clone(),
                PageSelector::All => (0..header.db_size.0).collect(),
            };
            must.remove_range(header.db_size.0..);
            must.remove((1 << 30) / size as u32);
            assert!(
                must.is_subset(&seen),
                "a stream without all of its pages was taken for complete"
            );
        }
        Some(pages)
    })
}

fn check_error(error: &RemoteError) {
    let text = error.to_string();
    assert!(!text.is_empty());
    assert!(text.len() < 4000, "an error of {} bytes", text.len());
}

/// A zstd frame in a good answer gives exactly what zstd says, or an error; it never grows beyond the largest page.
pub(crate) fn zstd_page(data: &[u8]) {
    let revision = Revision::new("7").expect("not empty");
    let header = PullUpdatesHeader::new(
        &revision,
        PageCount(9),
        ApplyMode::Incremental,
        PageEncoding::Zstd,
    );
    let mut body = BytesMut::new();
    wire::encode_frame(&header, &mut body);
    let page = PageData {
        page_id: 3,
        encoded_page: Bytes::copy_from_slice(data),
    };
    wire::encode_frame(&page, &mut body);
    let request = PagesRequest {
        select: PageSelector::Ids([3].into_iter().collect()),
        ..PagesRequest::default()
    };
    let canned = Canned {
        status: 200,
        headers: vec![],
        chunks: vec![body.freeze()],
        end_is_marked: true,
    };
    let expected = zstd::bulk::decompress(data, 65536)
        .ok()
        .filter(|page| PageSize::new(page.len() as u32).is_ok());
    if data.len() <= wire::PAGE_LIMIT - 64 {
        let got = read_pages(canned, request).and_then(|pages| pages.into_iter().next());
        assert_eq!(got.map(|(_, page)| page.to_vec()), expected);
    }
}

/// The answer to a batch has a place for every step, or is an error; it may come as a zstd frame, whatever that stands for.
pub(crate) fn hrana_answer(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let steps = usize::from(flags & 3);
    let body = input.rest();
    let canned = Canned {
        status: if flags & 128 != 0 { 400 } else { 200 },
        headers: match flags & 64 {
            0 => vec![],
            _ => vec![("content-encoding".to_owned(), wire::ZSTD_CODING.to_owned())],
        },
        chunks: body.chunks(97).map(Bytes::copy_from_slice).collect(),
        end_is_marked: true,
    };
    let step = Step {
        condition: None,
        stmt: Stmt::new("SELECT 1", vec![]),
    };
    let batch = Batch {
        steps: vec![step; steps],
        ..Batch::default()
    };
    match RUNTIME.block_on(remote(canned).execute(batch, None)) {
        Ok(result) => {
            assert_eq!(result.step_results.len(), steps);
            assert_eq!(result.step_errors.len(), steps);
        }
        Err(error) => check_error(&error),
    }
}
