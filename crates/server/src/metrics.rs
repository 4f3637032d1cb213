//! Counters, and their text in Prometheus' format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::history::HistorySize;

/// Counters of one server since it started.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: [AtomicU64; 4],
    pages: AtomicU64,
    page_bytes: AtomicU64,
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/pull-updates`
    Pages,
    /// `/v2`, `/v3`
    Sql,
    /// `/`, `/health`, `/metrics`
    Status,
    /// Anything else, and what was refused before it was known.
    Other,
}

const NAMES: [&str; 4] = ["pull-updates", "sql", "status", "other"];

/// One database, for the text.
#[derive(Debug)]
pub struct DatabaseGauges {
    /// Its name.
    pub name: String,
    /// Its latest revision.
    pub seq: u64,
    /// Its size.
    pub pages: u32,
    /// Its history.
    pub history: HistorySize,
}

impl Metrics {
    /// A request came.
    pub fn request(&self, endpoint: Endpoint) {
        self.requests[endpoint as usize].fetch_add(1, Relaxed);
    }

    /// Pages went into an answer, as so many bytes.
    pub fn sent(&self, pages: u64, bytes: u64) {
        self.pages.fetch_add(pages, Relaxed);
        self.page_bytes.fetch_add(bytes, Relaxed);
    }

    /// The text.
    pub fn text(&self, databases: &[DatabaseGauges], open_batons: usize) -> String {
        let mut out = String::new();
        let mut series = |name: &str, kind: &str, help: &str, values: Vec<(String, u64)>| {
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "# HELP partial_sync_{name} {help}\n# TYPE partial_sync_{name} {kind}"
            );
            for (labels, value) in values {
                let _ = writeln!(out, "partial_sync_{name}{labels} {value}");
            }
        };
        let requests = NAMES.iter().zip(&self.requests);
        let requests = requests.map(|(name, n)| (format!("{{endpoint=\"{name}\"}}"), n.load(Relaxed)));
        series("requests_total", "counter", "Requests.", requests.collect());
        let alone = |value: u64| vec![(String::new(), value)];
        series(
            "pages_sent_total",
            "counter",
            "Pages sent.",
            alone(self.pages.load(Relaxed)),
        );
        series(
            "page_bytes_sent_total",
            "counter",
            "Bytes of page streams sent.",
            alone(self.page_bytes.load(Relaxed)),
        );
        series(
            "open_batons",
            "gauge",
            "Interactive SQL connections.",
            alone(open_batons as u64),
        );
        let each = |value: fn(&DatabaseGauges) -> u64| {
            let one = |db: &DatabaseGauges| (format!("{{database=\"{}\"}}", escape(&db.name)), value(db));
            databases.iter().map(one).collect::<Vec<_>>()
        };
        series(
            "database_revision",
            "gauge",
            "Number of the latest revision.",
            each(|db| db.seq),
        );
        series(
            "database_pages",
            "gauge",
            "Size in pages.",
            each(|db| u64::from(db.pages)),
        );
        series(
            "history_revisions",
            "gauge",
            "Revisions kept.",
            each(|db| db.history.revisions),
        );
        series(
            "history_bytes",
            "gauge",
            "Bytes of old pages kept.",
            each(|db| db.history.bytes),
        );
        out
    }
}

fn escape(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
