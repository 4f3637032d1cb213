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
mod input;
mod ltx;
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
    ("ltx_file", ltx::ltx_file),
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
