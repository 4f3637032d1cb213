//! The messages, byte by byte.

use prost::Message;
use roaring::RoaringBitmap;

use super::*;

#[test]
fn an_empty_request_has_an_empty_body() {
    let wire = PullUpdatesRequest::new(&PagesRequest::default(), PageEncoding::Raw);
    assert_eq!(wire.encode_to_vec(), b"");
    assert_eq!(PullUpdatesRequest::decode(&b""[..]).unwrap(), wire);
}

#[test]
fn a_request_survives_the_wire_with_every_field() {
    let request = PagesRequest {
        revision: Revision::new("7"),
        since: Revision::new(r#"{"g":1}"#),
        long_poll: Some(Duration::from_millis(1500)),
        select: PageSelector::Ids((4..8).collect()),
        have: Some([1, 70_000].into_iter().collect()),
        query: Some("SELECT 1".into()),
        most_along: NonZeroU64::new(u64::MAX),
        require: Some(RoaringBitmap::new()),
        list: true,
        page_size: None,
        deadline: None,
    };
    let bytes = PullUpdatesRequest::new(&request, PageEncoding::Zstd).encode_to_vec();
    let wire = PullUpdatesRequest::decode(&bytes[..]).unwrap();
    assert_eq!(wire.page_encoding(), PageEncoding::Zstd);
    let back = wire.to_request().unwrap();
    assert_eq!(back.revision, request.revision);
    assert_eq!(back.since, request.since);
    assert_eq!(back.long_poll, request.long_poll);
    assert_eq!(back.select, request.select);
    assert_eq!(back.have, request.have);
    assert_eq!(back.query, request.query);
    assert_eq!(back.require, request.require);
    assert!(back.list);
    assert_eq!(back.most_along, request.most_along);
}

#[test]
fn the_fields_have_the_numbers_of_the_protocol() {
    let wire = PullUpdatesRequest {
        encoding: 1,
        server_revision: "a".into(),
        client_revision: "b".into(),
        long_poll_timeout_ms: 3,
        server_pages_selector: Bytes::from_static(b"c"),
        client_pages: Bytes::from_static(b"d"),
        server_query_selector: "e".into(),
        stream_kind: 1,
        require: Bytes::from_static(b"f"),
        list: true,
        takes_blocks: true,
        most_along: 300,
    };
    assert_eq!(
        wire.encode_to_vec(),
        b"\x08\x01\x12\x01a\x1a\x01b\x20\x03\x2a\x01c\x32\x01d\x3a\x01e\x40\x01\x4a\x01f\x50\x01\xc8\x3e\x01\xd0\x3e\xac\x02"
    );
    let page = PageData {
        page_id: 0,
        encoded_page: Bytes::from_static(b"p"),
    };
    assert_eq!(page.encode_to_vec(), b"\x12\x01p");
    let header = PullUpdatesHeader::new(
        &Revision::new("9").unwrap(),
        PageCount(300),
        ApplyMode::ReplaceBase,
        PageEncoding::Raw,
    );
    assert_eq!(
        header.encode_to_vec(),
        b"\x0a\x019\x10\xac\x02\x1a\x00\x30\x01\x40\x01"
    );
    let listing = PullUpdatesHeader {
        listed: Bytes::from_static(b"g"),
        ..PullUpdatesHeader::default()
    };
    assert_eq!(listing.encode_to_vec(), b"\x82\x01\x01g");
    let blocks = PullUpdatesHeader {
        blocks: true,
        ..PullUpdatesHeader::default()
    };
    assert_eq!(blocks.encode_to_vec(), b"\xc8\x3e\x01");
    let block = PageBlock {
        page_ids: vec![0, 300],
        pages: Bytes::from_static(b"p"),
    };
    assert_eq!(block.encode_to_vec(), b"\x0a\x03\x00\xac\x02\x12\x01p");
}

#[test]
fn pages_are_named_in_a_header_within_the_database_and_a_limit() {
    let header = |pages| {
        let revision = Revision::new("9").unwrap();
        PullUpdatesHeader::new(
            &revision,
            PageCount(pages),
            ApplyMode::Incremental,
            PageEncoding::Raw,
        )
    };
    assert_eq!(
        header(9).named().unwrap(),
        None,
        "it names none and may send some"
    );
    let none = header(9).listing(&RoaringBitmap::new());
    assert_eq!(none.named().unwrap(), Some(RoaringBitmap::new()));
    let some = header(9).listing(&[3, 8, 9, 70_000].into_iter().collect());
    assert_eq!(some.named().unwrap(), Some([3, 8].into_iter().collect()));
    // Every second page of more than a bitmap may hold: all of them, and those fit.
    let pages = (BITMAP_LIMIT as u32 + 65536) * 8;
    let many: RoaringBitmap = (0..pages).step_by(2).collect();
    let listing = header(pages).listing(&many);
    assert!(listing.listed.len() < 1 << 20, "{} bytes", listing.listed.len());
    let named = listing.named().unwrap().unwrap();
    assert_eq!(named.len(), u64::from(pages));
    let wrong = PullUpdatesHeader {
        listed: Bytes::from_static(b"no bitmap"),
        ..header(9)
    };
    assert!(matches!(wrong.named(), Err(WireError::Bitmap(_))));
}

#[test]
fn a_header_that_contradicts_itself_is_refused() {
    let good = PullUpdatesHeader::new(
        &Revision::new("9").unwrap(),
        PageCount(3),
        ApplyMode::Incremental,
        PageEncoding::Zstd,
    );
    assert_eq!(good.check().unwrap().3, PageEncoding::Zstd);
    let blocks = PullUpdatesHeader {
        blocks: true,
        ..good.clone()
    };
    assert_eq!(blocks.check().unwrap().3, PageEncoding::ZstdBlocks);
    let broken: [fn(&mut PullUpdatesHeader); 9] = [
        |h| h.server_revision.clear(),
        |h| h.db_size = u64::from(u32::MAX),
        |h| h.zstd_encoding = None,
        |h| h.raw_encoding = Some(RawEncoding {}),
        |h| {
            h.raw_encoding = Some(RawEncoding {});
            h.zstd_encoding = None;
            h.blocks = true;
        },
        |h| h.zstd_encoding.as_mut().unwrap().pages_dict.push(1),
        |h| h.stream_kind = 1,
        |h| h.protocol = 2,
        |h| h.apply_mode = 2,
    ];
    for (n, break_it) in broken.iter().enumerate() {
        let mut header = good.clone();
        break_it(&mut header);
        assert!(header.check().is_err(), "case {n}");
    }
}

#[test]
fn features_survive_their_header_and_unknown_ones_are_skipped() {
    assert_eq!(
        Features::ALL.to_header(),
        "hydrate, zstd, require, list, zstd-bodies, zstd-blocks, writes"
    );
    assert_eq!(Features::from_header(&Features::ALL.to_header()), Features::ALL);
    assert_eq!(
        Features::from_header("teleport ,zstd"),
        Features {
            zstd: true,
            ..Features::default()
        }
    );
    let foreign_sql = Features {
        foreign_sql: true,
        ..Features::ALL
    };
    assert_eq!(Features::from_header(&foreign_sql.to_header()), foreign_sql);
    assert_eq!(Features::default().to_header(), "");
}
