//! Finishes a pull of version 0.1.0 that was cut off. That version committed twice, the remote's pages and then the local
//! changes, and kept both in `-changes` in between. Nothing here writes such a file.
//!
//! A sequence of frames: kind (1 byte), length (4 bytes, little-endian), that many bytes, their xxh3-64 (8 bytes). Kinds:
//! page (id in 4 bytes, then the page), base (JSON), keep (Roaring bitmap), log (last, first, txn, time, count as 8 bytes
//! each, then the chunk), end (the pull's id). A page or the base may come twice; the later one counts. The file is
//! complete when its last frame is an end frame and every checksum fits; anything else is a pull that never began.

use std::path::Path;

use partial_sync_core::{ChangeId, PageCount, header::Page1};
use partial_sync_vfs::{Base, Stay, Storage, StorageFile, sqlite::ValueRef};
use roaring::RoaringBitmap;
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    finish::{finish, move_base_at_open},
    intent,
};
use crate::{
    change::Value,
    error::{Error, Result},
    log::{Chunk, Log},
    open::{
        info,
        plain::{integer, open_plain},
        session::Session,
    },
    pull::putback,
};

const FRAME: u64 = 1 + 4 + 8;
/// Key of the marker that said that the local changes are committed too.
const MARKER: &str = "pull";

#[derive(Deserialize)]
struct LegacyBase {
    revision: String,
    size: u32,
}

/// A complete file.
struct Legacy {
    base: LegacyBase,
    /// Schema cookie of the first commit.
    cookie: u32,
    keep: RoaringBitmap,
    log: Vec<Chunk>,
    pull: i64,
}

/// Sees to the file at `path`, which is not an [`Intent`](intent::Intent).
pub(super) fn finish_pull(session: &Session<'_>, path: &Path) -> Result<()> {
    let Some(legacy) = load(&*session.storage, path).map_err(|e| Error::storage("read", path, e))? else {
        return intent::remove(session);
    };
    let here = integer(&session.engine_conn, "PRAGMA schema_version")? as u32;
    if here < legacy.cookie || session.info.lock().pulled == Some(legacy.cookie) {
        // Not even the pages were committed, and the log is where it was; or all of this was done.
        return intent::remove(session);
    }
    let base = Base {
        revision: info::revision(&legacy.base.revision, session.replica.name())?,
        size: PageCount(legacy.base.size),
    };
    move_base_at_open(session, &base, Stay::none(), legacy.keep)?;
    let conn = open_plain(&session.replica, session.options.timeout)?;
    let log = Log::new(&conn);
    if !legacy.log.is_empty() && log.marker(MARKER)? != Some(Value::Integer(legacy.pull)) {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        let info = session.info.lock().clone();
        let client = putback::Client {
            id: &info.client_id,
            pulls: info.pulls,
        };
        let position = putback::position(&conn, &info.client_id)?
            .change_id
            .unwrap_or(ChangeId(i64::MIN));
        let mut chunks = Vec::new();
        for chunk in &legacy.log {
            chunks.extend(chunk.clone().after(position)?);
        }
        putback::run(&conn, &chunks, client, session.options.transform.as_deref())?;
        // For a crash before the file is gone.
        log.set_marker(MARKER, Some(ValueRef::Integer(legacy.pull)))?;
        conn.execute_batch("COMMIT")?;
    }
    finish(session, &base, legacy.cookie, !legacy.log.is_empty())
}

/// Reads the file; `None` when it is incomplete.
fn load(storage: &dyn Storage, path: &Path) -> std::io::Result<Option<Legacy>> {
    let file = storage.open(path, false)?;
    let len = file.len()?;
    let (mut base, mut cookie, mut keep, mut log, mut pull) = (None, None, None, vec![], None);
    let mut at = 0;
    while at + FRAME <= len {
        let Some((kind, body)) = frame(&*file, at, len)? else {
            return Ok(None);
        };
        at += FRAME + body.len() as u64;
        match (kind, &body[..]) {
            (1, [0, 0, 0, 0, page_1 @ ..]) => {
                cookie = Page1::of(page_1).ok().map(Page1::schema_cookie);
            }
            (1, _) => {}
            (2, json) => base = serde_json::from_slice::<LegacyBase>(json).ok(),
            (3, bytes) => keep = RoaringBitmap::deserialize_from(bytes).ok(),
            (4, bytes) => log.extend(chunk(bytes)),
            (5, bytes) => pull = bytes.try_into().map(i64::from_le_bytes).ok(),
            _ => return Ok(None),
        }
    }
    Ok(match (base, cookie, keep, pull) {
        (Some(base), Some(cookie), Some(keep), Some(pull)) if at == len => Some(Legacy {
            base,
            cookie,
            keep,
            log,
            pull,
        }),
        _ => None,
    })
}

/// The frame at `at`; `None` when it is cut off or damaged.
fn frame(file: &dyn StorageFile, at: u64, len: u64) -> std::io::Result<Option<(u8, Vec<u8>)>> {
    let mut head = [0; 5];
    file.read_at(&mut head, at)?;
    let size = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if at + FRAME + size as u64 > len {
        return Ok(None);
    }
    let mut body = vec![0; size + 8];
    file.read_at(&mut body, at + 5)?;
    let sum = body.split_off(size);
    Ok((xxh3_64(&body).to_le_bytes() == sum[..]).then_some((head[0], body)))
}

fn chunk(bytes: &[u8]) -> Option<Chunk> {
    let (numbers, body) = bytes.split_at_checked(40)?;
    let number = |i: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&numbers[i * 8..i * 8 + 8]);
        i64::from_le_bytes(eight)
    };
    Some(Chunk {
        last: ChangeId(number(0)),
        first: ChangeId(number(1)),
        txn: ChangeId(number(2)),
        time: number(3),
        count: number(4) as u64,
        body: body.to_vec(),
    })
}
