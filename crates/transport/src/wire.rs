//! The bytes of `POST /pull-updates`, for both sides: protobuf messages, their framing, page bitmaps and header names.
//!
//! Everything here is pure: bytes in, values out. Nothing trusts a length that it has read, nothing allocates more than
//! a small multiple of the bytes that really arrived, and nothing panics whatever they are.

mod bitmap;
mod body;
mod error;
mod framing;
mod pages;

use std::{num::NonZeroU64, time::Duration};

use bytes::Bytes;
use partial_sync_core::{PageCount, Revision};
use roaring::RoaringBitmap;

use crate::remote::{ApplyMode, Features, PageSelector, PagesRequest};

pub use bitmap::{BITMAP_LIMIT, decode_bitmap, encode_bitmap};
pub use body::{BODY_WINDOW_LOG, BodyDecoder, WORTH_PACKING, pack_body};
pub use error::WireError;
pub use framing::{FrameDecoder, HEADER_LIMIT, PAGE_LIMIT, encode_frame, encode_page_head};
pub use pages::{BLOCK, BLOCK_LIMIT, Packer, PageBlock, PageData, PageEncoding, Unpacker};

/// Path of the pages endpoint, appended to the remote's base url.
pub const PULL_UPDATES: &str = "pull-updates";
/// Path of the SQL endpoint, appended to the remote's base url.
pub const PIPELINE: &str = "v2/pipeline";
/// Media type of [`PullUpdatesRequest`] and of its answer.
pub const PROTOBUF: &str = "application/protobuf";
/// Answer header that lists [`Features`], separated by commas.
pub const FEATURES_HEADER: &str = "partial-sync-features";
/// The `Content-Encoding` of a compressed body: one zstd frame. Of a request, for a remote with [`Features::zstd_bodies`]; of an
/// answer, for a client whose `Accept-Encoding` has it.
pub const ZSTD_CODING: &str = "zstd";
/// Request header with the key of a database that is encrypted on the remote.
pub const ENCRYPTION_KEY_HEADER: &str = "x-turso-encryption-key";
/// Request header with the cipher of a database that is encrypted on the remote.
pub const ENCRYPTION_CIPHER_HEADER: &str = "x-turso-encryption-cipher";
/// The longest revision in bytes: a replica keeps it, in six times as many at worst.
pub const REVISION_LIMIT: usize = 16 << 10;
/// `code` in the JSON body of a 410: the revision is no longer kept.
pub const REVISION_EXPIRED: &str = "REVISION_EXPIRED";
/// `code` in the JSON body of a 400: the remote never made that revision.
pub const REVISION_UNKNOWN: &str = "REVISION_UNKNOWN";

/// What a stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum StreamKind {
    /// Pages.
    Pages = 0,
    /// A logical log, which this project does not speak.
    MvccLogicalLog = 1,
}

/// [`ApplyMode`] on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum WireApplyMode {
    /// See [`ApplyMode::Incremental`].
    Incremental = 0,
    /// See [`ApplyMode::ReplaceBase`].
    ReplaceBase = 1,
}

/// What the remote's storage speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum WireProtocol {
    /// Not said: pages.
    Unspecified = 0,
    /// Pages.
    Pages = 1,
    /// A logical log, which this project does not speak.
    MvccLogical = 2,
}

/// The request: one bare message, without a length before it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PullUpdatesRequest {
    /// How pages should come.
    #[prost(enumeration = "PageEncoding", tag = "1")]
    pub encoding: i32,
    /// The revision wanted; empty = latest.
    #[prost(string, tag = "2")]
    pub server_revision: String,
    /// The revision the client has; set = "what changed since".
    #[prost(string, tag = "3")]
    pub client_revision: String,
    /// How long to wait for a change, in milliseconds.
    #[prost(uint32, tag = "4")]
    pub long_poll_timeout_ms: u32,
    /// Roaring bitmap of page ids; empty = all.
    #[prost(bytes = "bytes", tag = "5")]
    pub server_pages_selector: Bytes,
    /// Roaring bitmap of the pages that the client has; empty = not said.
    #[prost(bytes = "bytes", tag = "6")]
    pub client_pages: Bytes,
    /// SQL; answer the pages that it touches.
    #[prost(string, tag = "7")]
    pub server_query_selector: String,
    /// What the stream should hold.
    #[prost(enumeration = "StreamKind", tag = "8")]
    pub stream_kind: i32,
    /// Roaring bitmap of pages to send even if unchanged; empty = none.
    #[prost(bytes = "bytes", tag = "9")]
    pub require: Bytes,
    /// Name the pages in the header instead of sending them.
    #[prost(bool, tag = "10")]
    pub list: bool,
    /// Pages may come as [`PageBlock`]s. Every remote is told; most do not know it.
    #[prost(bool, tag = "1001")]
    pub takes_blocks: bool,
    /// Pages that come along for the query, at most; 0 = not said. Every remote is told; most do not know it.
    #[prost(uint64, tag = "1002")]
    pub most_along: u64,
}

impl PullUpdatesRequest {
    /// A request in wire form. `long_poll` is cut at `u32::MAX` milliseconds.
    pub fn new(request: &PagesRequest, encoding: PageEncoding) -> Self {
        let text = |r: &Option<Revision>| r.as_ref().map(|r| r.as_str().to_owned()).unwrap_or_default();
        let bitmap = |b: &Option<_>| b.as_ref().map(encode_bitmap).unwrap_or_default();
        Self {
            encoding: match encoding {
                // What every remote understands.
                PageEncoding::ZstdBlocks => PageEncoding::Raw as i32,
                encoding => encoding as i32,
            },
            takes_blocks: encoding == PageEncoding::ZstdBlocks,
            most_along: request.most_along.map_or(0, NonZeroU64::get),
            server_revision: text(&request.revision),
            client_revision: text(&request.since),
            long_poll_timeout_ms: request
                .long_poll
                .map_or(0, |d| u32::try_from(d.as_millis()).unwrap_or(u32::MAX)),
            server_pages_selector: match &request.select {
                PageSelector::All => Bytes::new(),
                PageSelector::Ids(ids) => encode_bitmap(ids),
            },
            client_pages: bitmap(&request.have),
            server_query_selector: request.query.clone().unwrap_or_default(),
            stream_kind: StreamKind::Pages as i32,
            require: bitmap(&request.require),
            list: request.list,
        }
    }

    /// The request that a client meant, its bitmaps decoded; `page_size` and `deadline` are the client's own business
    /// and stay `None`. An empty query is not a query.
    pub fn to_request(&self) -> Result<PagesRequest, WireError> {
        if self.stream_kind != StreamKind::Pages as i32 {
            return Err(WireError::Unsupported("a stream of something else than pages"));
        }
        let bitmap = |bytes: &Bytes| -> Result<Option<_>, WireError> {
            (!bytes.is_empty()).then(|| decode_bitmap(bytes)).transpose()
        };
        Ok(PagesRequest {
            revision: Revision::new(&self.server_revision),
            since: Revision::new(&self.client_revision),
            long_poll: (self.long_poll_timeout_ms > 0)
                .then(|| Duration::from_millis(u64::from(self.long_poll_timeout_ms))),
            select: bitmap(&self.server_pages_selector)?.map_or(PageSelector::All, PageSelector::Ids),
            have: bitmap(&self.client_pages)?,
            query: (!self.server_query_selector.is_empty()).then(|| self.server_query_selector.clone()),
            require: bitmap(&self.require)?,
            list: self.list,
            most_along: NonZeroU64::new(self.most_along),
            page_size: None,
            deadline: None,
        })
    }

    /// The encoding asked for; an unknown one is read as [`PageEncoding::Raw`], which every client understands.
    pub fn page_encoding(&self) -> PageEncoding {
        match (self.takes_blocks, PageEncoding::try_from(self.encoding)) {
            (true, _) => PageEncoding::ZstdBlocks,
            (false, Ok(PageEncoding::Zstd)) => PageEncoding::Zstd,
            (false, _) => PageEncoding::Raw,
        }
    }
}

/// Marks a stream of pages as they are.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct RawEncoding {}

/// Marks a stream of compressed pages.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ZstdEncoding {
    /// The level used; informative.
    #[prost(int32, tag = "1")]
    pub level: i32,
    /// Pages that make up a dictionary; this project uses none and refuses one.
    #[prost(uint32, repeated, tag = "2")]
    pub pages_dict: Vec<u32>,
}

/// The first message of an answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PullUpdatesHeader {
    /// The revision that the pages belong to.
    #[prost(string, tag = "1")]
    pub server_revision: String,
    /// Size of the database in pages at that revision.
    #[prost(uint64, tag = "2")]
    pub db_size: u64,
    /// Present = pages come as they are.
    #[prost(message, optional, tag = "3")]
    pub raw_encoding: Option<RawEncoding>,
    /// Present = pages come compressed.
    #[prost(message, optional, tag = "4")]
    pub zstd_encoding: Option<ZstdEncoding>,
    /// What the stream holds.
    #[prost(enumeration = "StreamKind", tag = "5")]
    pub stream_kind: i32,
    /// How the pages are to be understood.
    #[prost(enumeration = "WireApplyMode", tag = "6")]
    pub apply_mode: i32,
    /// What the remote's storage speaks.
    #[prost(enumeration = "WireProtocol", tag = "8")]
    pub protocol: i32,
    /// Roaring bitmap of the pages that are named instead of sent; empty = they are sent.
    #[prost(bytes = "bytes", tag = "16")]
    pub listed: Bytes,
    /// With `zstd_encoding`: pages come as [`PageBlock`]s.
    #[prost(bool, tag = "1001")]
    pub blocks: bool,
}

impl PullUpdatesHeader {
    /// The header of a stream of pages.
    pub fn new(revision: &Revision, db_size: PageCount, mode: ApplyMode, encoding: PageEncoding) -> Self {
        Self {
            server_revision: revision.as_str().to_owned(),
            db_size: u64::from(db_size.0),
            raw_encoding: (encoding == PageEncoding::Raw).then_some(RawEncoding {}),
            blocks: encoding == PageEncoding::ZstdBlocks,
            zstd_encoding: (encoding != PageEncoding::Raw).then(|| ZstdEncoding {
                level: 1,
                pages_dict: Vec::new(),
            }),
            stream_kind: StreamKind::Pages as i32,
            apply_mode: match mode {
                ApplyMode::Incremental => WireApplyMode::Incremental,
                ApplyMode::ReplaceBase => WireApplyMode::ReplaceBase,
            } as i32,
            protocol: WireProtocol::Pages as i32,
            listed: Bytes::new(),
        }
    }

    /// The header of an answer that names these pages, all of the database where that is shorter than a client reads.
    pub fn listing(mut self, ids: &RoaringBitmap) -> Self {
        self.listed = encode_bitmap(ids);
        if self.listed.len() > BITMAP_LIMIT {
            let mut all = RoaringBitmap::new();
            all.insert_range(..u32::try_from(self.db_size).unwrap_or(u32::MAX));
            self.listed = encode_bitmap(&all);
        }
        self
    }

    /// The pages of the database that are named instead of sent.
    pub fn named(&self) -> Result<Option<RoaringBitmap>, WireError> {
        if self.listed.is_empty() {
            return Ok(None);
        }
        let mut ids = decode_bitmap(&self.listed)?;
        ids.remove_range(u32::try_from(self.db_size).unwrap_or(u32::MAX)..);
        Ok(Some(ids))
    }

    /// Checks the header: a revision of at most [`REVISION_LIMIT`], a size that a SQLite database can have, exactly one encoding, pages.
    pub fn check(&self) -> Result<(Revision, PageCount, ApplyMode, PageEncoding), WireError> {
        let revision =
            Revision::new(&self.server_revision).ok_or(WireError::BadHeader("it names no revision"))?;
        if self.server_revision.len() > REVISION_LIMIT {
            return Err(WireError::BadHeader("its revision is longer than 16 KiB"));
        }
        let db_size = u32::try_from(self.db_size)
            .ok()
            .filter(|n| *n < u32::MAX)
            .map(PageCount)
            .ok_or(WireError::BadHeader("its database is larger than SQLite allows"))?;
        let encoding = match (&self.raw_encoding, &self.zstd_encoding) {
            (Some(_), None) if self.blocks => {
                return Err(WireError::BadHeader("it has blocks of pages as they are"));
            }
            (Some(_), None) => PageEncoding::Raw,
            (None, Some(zstd)) if zstd.pages_dict.is_empty() => match self.blocks {
                true => PageEncoding::ZstdBlocks,
                false => PageEncoding::Zstd,
            },
            (None, Some(_)) => return Err(WireError::Unsupported("pages compressed with a dictionary")),
            (None, None) => return Err(WireError::BadHeader("it names no page encoding")),
            (Some(_), Some(_)) => return Err(WireError::BadHeader("it names two page encodings")),
        };
        if self.stream_kind != StreamKind::Pages as i32 {
            return Err(WireError::Unsupported("a stream of something else than pages"));
        }
        if !matches!(
            WireProtocol::try_from(self.protocol),
            Ok(WireProtocol::Unspecified | WireProtocol::Pages)
        ) {
            return Err(WireError::Unsupported(
                "a remote whose storage is not a page store",
            ));
        }
        let mode = match WireApplyMode::try_from(self.apply_mode) {
            Ok(WireApplyMode::Incremental) => ApplyMode::Incremental,
            Ok(WireApplyMode::ReplaceBase) => ApplyMode::ReplaceBase,
            Err(_) => return Err(WireError::Unsupported("an unknown apply mode")),
        };
        Ok((revision, db_size, mode, encoding))
    }
}

impl Features {
    /// Everything that this project adds to the protocol.
    pub const ALL: Features = Features {
        hydrate: true,
        require: true,
        zstd: true,
        list: true,
        zstd_bodies: true,
        zstd_blocks: true,
        writes: true,
        foreign_sql: false,
    };

    /// Reads the value of the header [`FEATURES_HEADER`]. Unknown words are of a newer remote and are skipped.
    pub fn from_header(value: &str) -> Self {
        let mut features = Self::default();
        for word in value.split(',').map(str::trim) {
            match word {
                "hydrate" => features.hydrate = true,
                "require" => features.require = true,
                "zstd" => features.zstd = true,
                "list" => features.list = true,
                "zstd-bodies" => features.zstd_bodies = true,
                "zstd-blocks" => features.zstd_blocks = true,
                "writes" => features.writes = true,
                "foreign-sql" => features.foreign_sql = true,
                _ => {}
            }
        }
        features
    }

    /// The value of the header [`FEATURES_HEADER`]; of [`Features::ALL`] `hydrate, zstd, require, list, zstd-bodies, zstd-blocks, writes`.
    pub fn to_header(self) -> String {
        let words = [
            (self.hydrate, "hydrate"),
            (self.zstd, "zstd"),
            (self.require, "require"),
            (self.list, "list"),
            (self.zstd_bodies, "zstd-bodies"),
            (self.zstd_blocks, "zstd-blocks"),
            (self.writes, "writes"),
            (self.foreign_sql, "foreign-sql"),
        ];
        let said: Vec<_> = words
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, word)| *word)
            .collect();
        said.join(", ")
    }
}

#[cfg(test)]
mod tests;
