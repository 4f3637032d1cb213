//! Page streams over real HTTP that are cut, wrong, or resumed.

use std::{sync::Arc, time::Duration};

use crate::loopback::{Framing, Loopback, Reply, Seen, reply};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use partial_sync_core::{PageCount, PageSize, Revision};
use partial_sync_transport::{
    ApplyMode, Features, HttpRemote, MemoryRemote, PageSelector, PagesRequest, Remote, RemoteError,
    RemoteErrorKind, RemotePage, RetryPolicy,
    wire::{self, PageData, PageEncoding, PullUpdatesHeader, PullUpdatesRequest},
};
use prost::Message;

const SIZE: usize = 512;

/// A page filled with a number; page 1 states the page size.
fn page(id: u8, size: usize) -> Bytes {
    let mut bytes = vec![id; size];
    if id == 0 {
        bytes[16..18].copy_from_slice(&u16::to_be_bytes(if size == 65536 { 1 } else { size as u16 }));
    }
    bytes.into()
}

fn header(db_size: u32, encoding: PageEncoding) -> PullUpdatesHeader {
    let revision = Revision::new("7").unwrap();
    PullUpdatesHeader::new(&revision, PageCount(db_size), ApplyMode::Incremental, encoding)
}

fn answer(header: &PullUpdatesHeader, pages: &[(u64, Bytes)]) -> Bytes {
    let mut body = BytesMut::new();
    wire::encode_frame(header, &mut body);
    for (page_id, encoded_page) in pages {
        let page = PageData {
            page_id: *page_id,
            encoded_page: encoded_page.clone(),
        };
        wire::encode_frame(&page, &mut body);
    }
    body.into()
}

/// An answer whose pages come in these blocks.
fn blocks(db_size: u32, blocks: &[&[(u64, Bytes)]]) -> Bytes {
    let mut body = BytesMut::new();
    wire::encode_frame(&header(db_size, PageEncoding::ZstdBlocks), &mut body);
    for pages in blocks {
        let bytes: Vec<&[u8]> = pages.iter().map(|(_, page)| &page[..]).collect();
        let block = wire::PageBlock {
            page_ids: pages.iter().map(|(id, _)| *id).collect(),
            pages: zstd::bulk::compress(&bytes.concat(), 1).unwrap().into(),
        };
        wire::encode_frame(&block, &mut body);
    }
    body.into()
}

fn two_pages() -> Bytes {
    answer(
        &header(2, PageEncoding::Raw),
        &[(0, page(0, SIZE)), (1, page(1, SIZE))],
    )
}

fn at_once(attempts: u32) -> RetryPolicy {
    RetryPolicy {
        attempts,
        base: Duration::ZERO,
        cap: Duration::ZERO,
    }
}

fn remote(server: &Loopback, retry: RetryPolicy) -> HttpRemote {
    let builder = HttpRemote::builder(server.url.as_str()).retry(retry);
    builder.deadline(Duration::from_secs(10)).build().unwrap()
}

async fn read(remote: &dyn Remote, request: PagesRequest) -> Result<Vec<RemotePage>, RemoteError> {
    remote.pages(request).await?.pages.try_collect().await
}

fn cut(at: usize, framing: Framing) -> Reply {
    Reply {
        framing,
        send: Some(at),
        ..reply(200, two_pages())
    }
}

/// Bytes that the body takes on the wire.
fn wire_length(framing: Framing) -> usize {
    let body = two_pages().len();
    match framing {
        Framing::Chunked => {
            let chunks = body.div_ceil(100);
            let last = body - (chunks - 1) * 100;
            body + (chunks - 1) * "64\r\n\r\n".len() + format!("{last:x}\r\n\r\n").len() + "0\r\n\r\n".len()
        }
        _ => body,
    }
}

#[tokio::test]
async fn invariant_5_a_stream_cut_at_any_byte_is_a_typed_error_and_never_a_success() {
    for framing in [Framing::Length, Framing::Chunked, Framing::UntilClose] {
        let server = Loopback::scripted(move |n| cut(n, framing)).await;
        let remote = remote(&server, RetryPolicy::none());
        for n in 0..wire_length(framing) {
            let error = read(&remote, PagesRequest::default())
                .await
                .expect_err(&format!("cut after {n} bytes, {framing:?}"));
            let kinds = [RemoteErrorKind::Unreachable, RemoteErrorKind::Protocol];
            assert!(
                kinds.contains(&error.kind),
                "cut after {n} bytes, {framing:?}: {error}"
            );
            assert!(error.message.contains("asking http://127.0.0.1"), "{error}");
        }
        let whole = read(&remote, PagesRequest::default()).await.unwrap();
        assert_eq!(whole.len(), 2);
        assert_eq!(
            server.seen().len(),
            wire_length(framing) + 1,
            "nothing was retried"
        );
    }
}

/// What a list of pages may be, and what a client that asked for one, or for none, makes of it.
#[tokio::test]
async fn invariant_5_a_list_of_pages_is_whole_and_nothing_else() {
    let listing = header(3, PageEncoding::Raw).listing(&[1, 2, 3, 9].into_iter().collect());
    let wrong = PullUpdatesHeader {
        listed: Bytes::from_static(b"no bitmap"),
        ..listing.clone()
    };
    let page = [(1, page(1, SIZE))];
    let bodies = [
        answer(&listing, &[]),
        answer(&wrong, &[]),
        answer(&listing, &page),
        answer(&header(3, PageEncoding::Raw), &page),
    ];
    let cut = bodies[0].len();
    let server = Loopback::scripted(move |n| match bodies.get(n) {
        Some(body) => reply(200, body.clone()),
        None => Reply {
            framing: Framing::Chunked,
            send: Some(n - bodies.len()),
            ..reply(200, bodies[0].clone())
        },
    })
    .await;
    let remote = remote(&server, RetryPolicy::none());
    let list = || PagesRequest {
        since: Revision::new("6"),
        list: true,
        ..PagesRequest::default()
    };
    let good = remote.pages(list()).await.unwrap();
    assert_eq!(
        good.header.listed,
        Some([1, 2].into_iter().collect()),
        "those that the database has"
    );
    assert!(good.pages.try_collect::<Vec<_>>().await.unwrap().is_empty());
    let error = remote.pages(list()).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Protocol, "{error}");
    let error = read(&remote, list()).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Protocol, "{error}");
    assert!(error.message.contains("nobody asked for"), "{error}");
    // A remote that does not know lists.
    let other = remote.pages(list()).await.unwrap();
    assert_eq!(other.header.listed, None);
    for at in 0..cut {
        let error = read(&remote, list()).await.expect_err("it was cut");
        let kinds = [RemoteErrorKind::Unreachable, RemoteErrorKind::Protocol];
        assert!(kinds.contains(&error.kind), "cut after {at} bytes: {error}");
    }
}

/// A list may be longer than the header of pages.
#[tokio::test]
async fn a_list_is_as_long_as_a_bitmap_may_be() {
    let ids = (0..8 << 20).step_by(2).collect();
    let listing = header(8 << 20, PageEncoding::Raw).listing(&ids);
    assert!(listing.listed.len() > 2 * wire::HEADER_LIMIT);
    let body = answer(&listing, &[]);
    let server = Loopback::scripted(move |_| reply(200, body.clone())).await;
    let remote = remote(&server, RetryPolicy::none());
    let list = PagesRequest {
        since: Revision::new("6"),
        list: true,
        ..PagesRequest::default()
    };
    assert_eq!(remote.pages(list).await.unwrap().header.listed, Some(ids));
    let pages = PagesRequest {
        since: Revision::new("6"),
        ..PagesRequest::default()
    };
    let error = remote.pages(pages).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Protocol, "{error}");
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_is_taken_up_again_where_it_broke() {
    let memory = MemoryRemote::new();
    memory.set_features(Features::default());
    memory.push_revision(vec![page(0, SIZE), page(1, SIZE), page(2, SIZE)]);
    let whole = crate::loopback::serve(&memory, crate::loopback::Seen::default())
        .await
        .body;
    for at in (0..whole.len()).step_by(7) {
        let served = memory.clone();
        let server = Loopback::start(Arc::new(move |n, seen| {
            let memory = served.clone();
            Box::pin(async move {
                let all = crate::loopback::serve(&memory, seen).await;
                Reply {
                    send: (n == 0).then_some(at),
                    ..all
                }
            })
        }))
        .await;
        let remote = remote(&server, at_once(3));
        let pages = read(&remote, PagesRequest::default()).await.unwrap();
        assert!(pages.iter().map(|p| p.id.0).eq(0..3), "cut after {at} bytes");
        let seen = server.seen();
        assert_eq!(seen.len(), 2, "cut after {at} bytes");
        let second = PullUpdatesRequest::decode(seen[1].body.clone()).unwrap();
        if second.server_revision.is_empty() {
            assert!(
                at < 40,
                "only a request without its header may be asked for again"
            );
        } else {
            let asked = second.to_request().unwrap();
            assert_eq!(asked.revision, memory.latest().map(|(revision, _)| revision));
            let PageSelector::Ids(ids) = asked.select else {
                panic!("all pages asked again")
            };
            assert_eq!(ids.max(), Some(2));
            assert_eq!(
                ids.len() < 3,
                at >= 530,
                "pages that came are not asked for again: {ids:?} at {at}"
            );
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_again_and_again_is_given_up() {
    let server = Loopback::scripted(|_| cut(600, Framing::Length)).await;
    let answer_without_progress = read(&remote(&server, at_once(3)), PagesRequest::default()).await;
    // The second answer brings page 0 again, which was not asked for.
    assert_eq!(
        answer_without_progress.unwrap_err().kind,
        RemoteErrorKind::Protocol
    );

    let server = Loopback::scripted(|_| cut(30, Framing::Length)).await;
    let error = read(&remote(&server, at_once(3)), PagesRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Unreachable);
    assert_eq!(server.seen().len(), 3);
    assert!(error.message.contains("3 attempts"), "{error}");
}

#[tokio::test]
async fn a_stream_is_not_resumed_at_another_revision_nor_when_the_rest_is_unknown() {
    let server = Loopback::scripted(|n| {
        let mut other = header(2, PageEncoding::Raw);
        other.server_revision = "8".into();
        match n {
            0 => cut(600, Framing::Length),
            _ => reply(200, answer(&other, &[(1, page(1, SIZE))])),
        }
    })
    .await;
    let error = read(&remote(&server, at_once(3)), PagesRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::RevisionUnknown);

    for (since, query) in [(Revision::new("6"), None), (None, Some("SELECT 1".to_owned()))] {
        let server = Loopback::scripted(|_| cut(600, Framing::Length)).await;
        let request = PagesRequest {
            since,
            query,
            ..PagesRequest::default()
        };
        let error = read(&remote(&server, at_once(3)), request).await.unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::Unreachable);
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn invariant_5_every_rule_of_the_protocol_is_checked() {
    let raw = || header(4, PageEncoding::Raw);
    let zipped = |bytes: &[u8]| Bytes::from(zstd::bulk::compress(bytes, 1).unwrap());
    let mut two_encodings = raw();
    two_encodings.zstd_encoding = Some(wire::ZstdEncoding::default());
    let mut too_long = answer(&raw(), &[]).to_vec();
    too_long.extend([0xff, 0xff, 0xff, 0xff, 0x7f]);
    let lying_page_1 = {
        let mut bytes = page(0, SIZE).to_vec();
        bytes[16] = 0x10;
        Bytes::from(bytes)
    };
    let ids = |ids: &[u32]| PagesRequest {
        select: PageSelector::Ids(ids.iter().copied().collect()),
        ..PagesRequest::default()
    };
    let sized = |bytes: u32| PagesRequest {
        page_size: Some(PageSize::new(bytes).unwrap()),
        ..ids(&[1])
    };
    let cases: Vec<(&str, PagesRequest, Bytes)> = vec![
        (
            "holds page id 4, and",
            ids(&[1]),
            answer(&raw(), &[(4, page(1, SIZE))]),
        ),
        (
            "holds page id 18446744073709551615",
            ids(&[1]),
            answer(&raw(), &[(u64::MAX, page(1, SIZE))]),
        ),
        (
            "twice",
            ids(&[1, 2]),
            answer(&raw(), &[(1, page(1, SIZE)), (1, page(1, SIZE))]),
        ),
        (
            "nobody asked for",
            ids(&[1]),
            answer(&raw(), &[(1, page(1, SIZE)), (2, page(2, SIZE))]),
        ),
        (
            "without page id 2",
            ids(&[1, 2, 9]),
            answer(&raw(), &[(1, page(1, SIZE))]),
        ),
        (
            "without 3 pages (ids 1, 2, 3)",
            PagesRequest::default(),
            answer(&raw(), &[(0, page(0, SIZE))]),
        ),
        (
            "not a SQLite page size",
            ids(&[1]),
            answer(&raw(), &[(1, page(1, 500))]),
        ),
        (
            "not a SQLite page size",
            ids(&[1]),
            answer(&raw(), &[(1, Bytes::new())]),
        ),
        (
            "not a SQLite page size",
            ids(&[0]),
            answer(&raw(), &[(0, Bytes::from_static(b"x"))]),
        ),
        (
            "1024 bytes where 512",
            ids(&[1, 2]),
            answer(&raw(), &[(1, page(1, 512)), (2, page(2, 1024))]),
        ),
        (
            "512 bytes where 4096",
            sized(4096),
            answer(&raw(), &[(1, page(1, 512))]),
        ),
        (
            "page 1 says that pages have 4096",
            ids(&[0]),
            answer(&raw(), &[(0, lying_page_1)]),
        ),
        ("two page encodings", ids(&[1]), answer(&two_encodings, &[])),
        (
            "cannot be decompressed",
            ids(&[1]),
            answer(&header(4, PageEncoding::Zstd), &[(1, page(1, SIZE))]),
        ),
        (
            "cannot be decompressed",
            ids(&[1]),
            answer(&header(4, PageEncoding::Zstd), &[(1, zipped(&vec![0; 1 << 24]))]),
        ),
        (
            "a block of pages is wrong: it has no pages",
            ids(&[1]),
            blocks(4, &[&[(1, page(1, SIZE))], &[]]),
        ),
        (
            "not of one size",
            ids(&[1, 2]),
            blocks(4, &[&[(1, page(1, 1000)), (2, page(2, 1001))]]),
        ),
        (
            "page id 3, which nobody asked for",
            ids(&[1]),
            blocks(4, &[&[(1, page(1, SIZE)), (3, page(3, SIZE))]]),
        ),
        (
            "page id 9, and the database has 4",
            PagesRequest::default(),
            blocks(4, &[&[(9, page(9, SIZE))]]),
        ),
        (
            "page id 1 twice",
            ids(&[1, 2]),
            blocks(
                4,
                &[&[(1, page(1, SIZE)), (2, page(2, SIZE)), (1, page(1, SIZE))]],
            ),
        ),
        (
            "512 bytes where 4096",
            sized(4096),
            blocks(4, &[&[(1, page(1, 512))]]),
        ),
        (
            "ends without page id 2",
            ids(&[1, 2]),
            blocks(4, &[&[(1, page(1, SIZE))]]),
        ),
        ("was announced", ids(&[1]), too_long.into()),
        (
            "is not a partial sync remote",
            ids(&[1]),
            Bytes::from_static(b"<!doctype html><title>hello</title>"),
        ),
        ("is not a partial sync remote", ids(&[1]), Bytes::new()),
        (
            "is not a partial sync remote",
            ids(&[1]),
            Bytes::from_static(&[0xff; 64]),
        ),
        (
            "is not a partial sync remote",
            ids(&[1]),
            answer(&PullUpdatesHeader::default(), &[]),
        ),
    ];
    for (text, request, body) in cases {
        let server = Loopback::scripted(move |_| reply(200, body.clone())).await;
        let error = read(&remote(&server, at_once(3)), request).await.expect_err(text);
        assert_eq!(error.kind, RemoteErrorKind::Protocol, "{error}");
        assert!(error.message.contains(text), "{text:?} is not in {error}");
        assert_eq!(server.seen().len(), 1, "a broken rule is not forgiven: {text}");
    }
}

#[tokio::test]
async fn what_the_protocol_allows_is_accepted() {
    let raw = || header(4, PageEncoding::Raw);
    let ids = |ids: &[u32]| PagesRequest {
        select: PageSelector::Ids(ids.iter().copied().collect()),
        ..PagesRequest::default()
    };
    let since = PagesRequest {
        since: Revision::new("6"),
        ..ids(&[1, 2])
    };
    let query = PagesRequest {
        query: Some("SELECT 1".into()),
        ..ids(&[1])
    };
    let have = PagesRequest {
        have: Some([1].into_iter().collect()),
        ..ids(&[1, 2])
    };
    let large: Vec<_> = (0..4).map(|id| (u64::from(id), page(id, 65536))).collect();
    let zipped = zstd::bulk::compress(&page(1, 65536), 1).unwrap().into();
    let cases: Vec<(&str, PagesRequest, Bytes, usize)> = vec![
        (
            "ids beyond the end",
            ids(&[3, 4, 5]),
            answer(&raw(), &[(3, page(3, SIZE))]),
            1,
        ),
        ("unchanged pages stay away", since, answer(&raw(), &[]), 0),
        (
            "a query brings more",
            query,
            answer(&raw(), &[(3, page(3, SIZE))]),
            1,
        ),
        (
            "pages that the client has",
            have.clone(),
            answer(&raw(), &[(2, page(2, SIZE))]),
            1,
        ),
        (
            "sent nevertheless",
            have,
            answer(&raw(), &[(2, page(2, SIZE)), (1, page(1, SIZE))]),
            2,
        ),
        (
            "the largest pages",
            PagesRequest::default(),
            answer(&raw(), &large),
            4,
        ),
        (
            "compressed",
            ids(&[1]),
            answer(&header(4, PageEncoding::Zstd), &[(1, zipped)]),
            1,
        ),
        (
            "an empty database",
            PagesRequest::default(),
            answer(&header(0, PageEncoding::Raw), &[]),
            0,
        ),
    ];
    for (what, request, body, pages) in cases {
        let server = Loopback::scripted(move |_| reply(200, body.clone())).await;
        let read = read(&remote(&server, RetryPolicy::none()), request).await;
        assert_eq!(read.expect(what).len(), pages, "{what}");
    }
}

#[tokio::test]
async fn invariant_5_an_answer_at_another_revision_than_the_one_asked_for_is_refused() {
    for (asked, answered, same) in [
        ("7", "7", true),
        (r#"{"g": 1, "f": 2}"#, r#"{"f":2,"g":1}"#, true),
        ("7", "8", false),
        (r#"{"g":1}"#, r#"{"g":2}"#, false),
    ] {
        let mut header = header(0, PageEncoding::Raw);
        header.server_revision = answered.into();
        let server = Loopback::scripted(move |_| reply(200, answer(&header, &[]))).await;
        let request = PagesRequest {
            revision: Revision::new(asked),
            ..PagesRequest::default()
        };
        match read(&remote(&server, at_once(3)), request).await {
            Ok(_) => assert!(same, "{asked} is not {answered}"),
            Err(error) => assert!(!same && error.kind == RemoteErrorKind::RevisionUnknown, "{error}"),
        }
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn invariant_5_a_cut_answer_to_what_changed_is_never_taken_for_a_short_one() {
    let whole = answer(
        &header(2, PageEncoding::Raw),
        &[(0, page(0, SIZE)), (1, page(1, SIZE))],
    );
    let first_page_only = answer(&header(2, PageEncoding::Raw), &[(0, page(0, SIZE))]).len();
    let request = PagesRequest {
        since: Revision::new("6"),
        ..PagesRequest::default()
    };
    for framing in [Framing::Length, Framing::Chunked, Framing::UntilClose] {
        let cut = Reply {
            framing,
            send: Some(first_page_only),
            ..reply(200, whole.clone())
        };
        let server = Loopback::scripted(move |_| cut.clone()).await;
        let error = read(&remote(&server, RetryPolicy::none()), request.clone()).await;
        error.expect_err(&format!("{framing:?}"));
    }
}

#[tokio::test]
async fn blocks_of_pages_that_are_cut_anywhere_are_taken_up_again() {
    let pages: Vec<(u64, Bytes)> = (0..9).map(|id| (u64::from(id), page(id, SIZE))).collect();
    let whole = blocks(9, &[&pages[..1], &pages[1..5], &pages[5..]]);
    // Every place between the header and the end, with some steps.
    for cut in (whole.len() / 4..whole.len()).step_by(7) {
        let (first, rest) = (whole.clone(), pages.clone());
        let answers = move |n, request: Seen| {
            if n == 0 {
                return Reply {
                    send: Some(cut),
                    ..reply(200, first.clone())
                };
            }
            let asked = PullUpdatesRequest::decode(request.body).unwrap();
            let PageSelector::Ids(ids) = asked.to_request().unwrap().select else {
                panic!("everything was asked for again")
            };
            let left = rest.iter().filter(|(id, _)| ids.contains(*id as u32));
            reply(200, blocks(9, &[&left.cloned().collect::<Vec<_>>()]))
        };
        let answers = Arc::new(answers);
        let server = Loopback::start(Arc::new(move |n, request| {
            Box::pin(std::future::ready(answers(n, request)))
        }))
        .await;
        let got = read(&remote(&server, at_once(3)), PagesRequest::default()).await;
        let got: Vec<_> = got.unwrap().into_iter().map(|page| page.data).collect();
        assert_eq!(
            got,
            pages.iter().map(|(_, page)| page.clone()).collect::<Vec<_>>()
        );
    }
}
