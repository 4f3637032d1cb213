//! Requests of clients: for pages, and of SQL over HTTP.

use bytes::Bytes;
use partial_sync_core::Revision;
use partial_sync_transport::{
    PageSelector, PagesRequest,
    wire::{PageEncoding, PullUpdatesHeader, PullUpdatesRequest},
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::result::Result;

/// Who may write, and is honest.
pub(crate) const HONEST: &str = "honest-token-0000000000000000000001";
/// Who may write, and is not.
pub(crate) const FOE: &str = "foe-token-00000000000000000000000001";
/// Those who may only read.
pub(crate) const READERS: [&str; 3] = [
    "reader-token-0000000000000000000001",
    "reader-token-0000000000000000000002",
    "reader-token-0000000000000000000003",
];

/// The file of tokens.
pub(crate) fn token_file() -> String {
    let readers = READERS.iter().map(|token| format!("read-only {token}\n"));
    format!(
        "full {HONEST} honest\nfull {FOE} foe\n{}",
        readers.collect::<String>()
    )
}

/// The body of a request for pages.
pub(crate) fn pages(request: &PagesRequest) -> Bytes {
    PullUpdatesRequest::new(request, PageEncoding::Raw)
        .encode_to_vec()
        .into()
}

/// A request for so many pages from one on.
pub(crate) fn some_pages(from: u32, count: u32, revision: Option<Revision>) -> PagesRequest {
    PagesRequest {
        select: PageSelector::Ids((from..from + count).collect()),
        revision,
        ..PagesRequest::default()
    }
}

/// A request for the pages that a query reads.
pub(crate) fn selector(sql: String) -> PagesRequest {
    PagesRequest {
        select: PageSelector::Ids(roaring::RoaringBitmap::new()),
        query: Some(sql),
        ..PagesRequest::default()
    }
}

/// The revision of an answer.
pub(crate) fn revision(answer: &Bytes) -> Result<Revision> {
    let header = PullUpdatesHeader::decode_length_delimited(&mut answer.clone())?;
    Ok(header.check()?.0)
}

/// The body of a pipeline.
pub(crate) fn pipeline(baton: Option<&str>, requests: &Value) -> Bytes {
    json!({ "baton": baton, "requests": requests }).to_string().into()
}

/// One statement in a pipeline that closes its stream.
pub(crate) fn statement(sql: &str) -> Bytes {
    pipeline(None, &json!([execute(sql), { "type": "close" }]))
}

/// One statement of a pipeline.
pub(crate) fn execute(sql: &str) -> Value {
    json!({ "type": "execute", "stmt": { "sql": sql } })
}

/// A transaction of one statement, as a replica pushes it.
pub(crate) fn push(sql: &str, args: &Value) -> Bytes {
    let after = |step: u32| json!({ "type": "ok", "step": step });
    let steps = json!([
        { "stmt": { "sql": "BEGIN IMMEDIATE" } },
        { "condition": after(0), "stmt": { "sql": sql, "args": args } },
        { "condition": after(1), "stmt": { "sql": "COMMIT" } },
        { "condition": { "type": "not", "cond": after(2) }, "stmt": { "sql": "ROLLBACK" } },
    ]);
    let batch = json!({ "type": "batch", "batch": { "steps": steps } });
    pipeline(None, &json!([batch, { "type": "close" }]))
}
