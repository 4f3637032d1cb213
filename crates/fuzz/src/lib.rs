//! The bodies of the fuzz targets: each takes any bytes and panics when something is wrong with what was made of them.
//!
//! `fuzz/` runs them under libFuzzer with coverage ([`scripts/fuzz`](../../../scripts/fuzz)); `tests/corpus.rs` runs the
//! same functions over the committed corpora without any of that. A target says more than "no panic": what is decoded
//! and encoded again is the same, what one side builds the other accepts, and nothing is left behind. It must not depend
//! on anything but its input: no clock, no random number, no state of the run before.
#![forbid(unsafe_code)]

mod access;
mod client;
mod files;
mod pages;
pub mod seeds;
mod server;
mod sql;
mod wire;

/// A target: its name, which is also that of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("wire_frames", wire::frames),
    ("wire_request", wire::request),
    ("bitmap", wire::bitmap),
    ("page_stream", client::page_stream),
    ("zstd_page", client::zstd_page),
    ("hrana_answer", client::hrana_answer),
    ("hrana_values", wire::hrana_values),
    ("pull_endpoint", server::pull_endpoint),
    ("hrana_endpoint", server::hrana_endpoint),
    ("sql_guard", server::sql_guard),
    ("btree_page", pages::btree_page),
    ("schema_walk", pages::schema_walk),
    ("saved_page_map", files::saved_page_map),
    ("info_file", files::info_file),
    ("replica_files", files::replica_files),
    ("change_codec", sql::change_codec),
    ("sql_tokens", sql::tokens),
    ("statement", sql::statement),
    ("jwt", access::jwt),
    ("remote_url", access::remote_url),
];

/// The body of the target with this name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, body)| *body)
}

/// The bytes of the database that a script makes.
fn database(script: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("made.db");
    let conn = rusqlite::Connection::open(&path).expect("a new file");
    conn.execute_batch(script).expect("good SQL");
    drop(conn);
    std::fs::read(path).expect("it was just made")
}

/// Takes numbers and pieces off the front of an input; what is missing is zero or empty.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// At most `len` bytes.
    fn take(&mut self, len: usize) -> &'a [u8] {
        let len = len.min(self.0.len());
        self.0.split_off(..len).unwrap_or_default()
    }

    fn rest(self) -> &'a [u8] {
        self.0
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
