//! Counters, and their text in Prometheus' format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, prometheus_text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::history::HistorySize;

/// Counters of one server since it started.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: [Counter; 4],
    answers: Answers,
    polls: Gauge,
    pages: Counter,
    page_bytes: Counter,
    reloads: Family<Reload, Counter>,
}

/// What is read again without a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reloaded {
    /// The file of tokens.
    Tokens,
    /// The file or folder of keys.
    Keys,
    /// The TLS certificate and its key.
    Certificate,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    what: &'static str,
    result: &'static str,
}

/// How long answers took, by endpoint and status.
#[derive(Debug)]
struct Answers(Family<Answered, Histogram, fn() -> Histogram>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    endpoint: &'static str,
    status: u16,
}

impl Default for Answers {
    fn default() -> Self {
        // From half a millisecond to half a minute.
        Self(Family::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.0005, 2.0, 17))
        }))
    }
}

/// A long poll that waits, until this is dropped.
#[derive(Debug)]
pub struct Polling(Arc<Metrics>);

impl Drop for Polling {
    fn drop(&mut self) {
        self.0.polls.dec();
    }
}

/// In the extensions of an answer: it came when its long poll ended, so how long it took says nothing of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Polled;

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/pull-updates`
    Pages,
    /// `/v2`, `/v3`
    Sql,
    /// `/`, `/health`, `/ready`, `/metrics`
    Status,
    /// Anything else, and what was refused before it was known.
    Other,
}

const NAMES: [&str; 4] = ["pull-updates", "sql", "status", "other"];

/// The server, for the text.
#[derive(Debug, Default)]
pub struct ServerGauges {
    /// Interactive SQL connections.
    pub open_batons: usize,
    /// Connections of clients.
    pub connections: usize,
    /// Requests that are being answered.
    pub requests: usize,
    /// Open files and sockets.
    pub descriptors: Option<usize>,
    /// How many there may be.
    pub descriptors_allowed: Option<usize>,
    /// Threads.
    pub threads: Option<usize>,
}

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
    /// Bytes of its write-ahead log.
    pub wal: Option<u64>,
    /// How often its write-ahead log was put on the disk since it was opened.
    pub wal_syncs: u64,
    /// Bytes that its disk has left.
    pub disk_free: Option<u64>,
    /// It is followed: commits get their revisions.
    pub followed: bool,
    /// Seconds since the oldest revision that is kept was made.
    pub history_reach: u64,
    /// Pages that are still to be compared with the history.
    pub uncompared: u32,
}

impl Metrics {
    /// A request came.
    pub fn request(&self, endpoint: Endpoint) {
        self.requests[endpoint as usize].inc();
    }

    /// An answer began after so long.
    pub fn answered(&self, endpoint: Endpoint, polled: bool, status: u16, after: Duration) {
        let endpoint = match polled {
            true => "long-poll",
            false => NAMES[endpoint as usize],
        };
        let labels = Answered { endpoint, status };
        self.answers.0.get_or_create(&labels).observe(after.as_secs_f64());
    }

    /// A long poll begins to wait.
    pub fn polling(self: &Arc<Self>) -> Polling {
        self.polls.inc();
        Polling(Arc::clone(self))
    }

    /// Pages went into an answer, as so many bytes.
    pub fn sent(&self, pages: u64, bytes: u64) {
        self.pages.inc_by(pages);
        self.page_bytes.inc_by(bytes);
    }

    /// Something was read again, or could not be used and stays as it was.
    pub fn reloaded(&self, what: Reloaded, is_usable: bool) {
        let what = match what {
            Reloaded::Tokens => "tokens",
            Reloaded::Keys => "keys",
            Reloaded::Certificate => "certificate",
        };
        let result = if is_usable { "ok" } else { "failed" };
        self.reloads.get_or_create(&Reload { what, result }).inc();
    }

    /// The text.
    pub fn text(&self, server: &ServerGauges, databases: &[DatabaseGauges]) -> String {
        let mut registry = Registry::with_prefix("partial_sync");
        let requests = Family::<_, Counter>::default();
        for (name, counter) in NAMES.iter().zip(&self.requests) {
            requests
                .get_or_create(&[("endpoint", *name)])
                .inc_by(counter.get());
        }
        registry.register("requests", "Requests", requests);
        registry.register(
            "request_duration_seconds",
            "Time from the head of a request to the head of its answer",
            self.answers.0.clone(),
        );
        registry.register(
            "waiting_polls",
            "Long polls that wait for a commit",
            self.polls.clone(),
        );
        registry.register("pages_sent", "Pages sent", self.pages.clone());
        registry.register(
            "page_bytes_sent",
            "Bytes of page streams sent",
            self.page_bytes.clone(),
        );
        registry.register(
            "reloads",
            "Files that were read again without a restart",
            self.reloads.clone(),
        );
        for (name, help, value) in [
            (
                "open_batons",
                "Interactive SQL connections",
                Some(server.open_batons),
            ),
            (
                "open_connections",
                "Connections of clients",
                Some(server.connections),
            ),
            (
                "requests_under_way",
                "Requests that are being answered, waiting long polls included",
                Some(server.requests),
            ),
            (
                "open_descriptors",
                "Files and sockets that the process has open",
                server.descriptors,
            ),
            (
                "allowed_descriptors",
                "Files and sockets that it may have open",
                server.descriptors_allowed,
            ),
            ("threads", "Threads of the process", server.threads),
        ] {
            if let Some(value) = value {
                registry.register(name, help, ConstGauge::new(value as u64));
            }
        }
        let mut each = |name, help, value: fn(&DatabaseGauges) -> Option<u64>| {
            let gauges = Family::<_, Gauge<u64, AtomicU64>>::default();
            for database in databases {
                let labels = [("database", database.name.clone())];
                if let Some(value) = value(database) {
                    gauges.get_or_create(&labels).set(value);
                }
            }
            registry.register(name, help, gauges);
        };
        each("database_revision", "Number of the latest revision", |db| {
            Some(db.seq)
        });
        each("database_pages", "Size in pages", |db| Some(db.pages.into()));
        each("history_revisions", "Revisions kept", |db| {
            Some(db.history.revisions)
        });
        each("history_bytes", "Bytes of old pages kept", |db| {
            Some(db.history.bytes)
        });
        each("wal_bytes", "Bytes of the write-ahead log", |db| db.wal);
        each(
            "wal_syncs",
            "How often the write-ahead log was put on the disk since the database was opened",
            |db| Some(db.wal_syncs),
        );
        each(
            "disk_free_bytes",
            "Bytes left on the disk of the database",
            |db| db.disk_free,
        );
        each(
            "database_followed",
            "1 if commits get their revisions, 0 if that fails",
            |db| Some(db.followed.into()),
        );
        each(
            "history_reach_seconds",
            "Age of the oldest revision kept: a replica that pulled within it can continue",
            |db| Some(db.history_reach),
        );
        each(
            "history_uncompared_pages",
            "Pages that are still to be compared with the page history",
            |db| Some(db.uncompared.into()),
        );
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut out, &registry);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server in every state that has a metric.
    fn text() -> String {
        let metrics = Arc::new(Metrics::default());
        metrics.request(Endpoint::Sql);
        metrics.request(Endpoint::Sql);
        metrics.sent(3, 12_288);
        metrics.answered(Endpoint::Sql, false, 200, Duration::from_millis(3));
        metrics.answered(Endpoint::Pages, true, 200, Duration::from_secs(300));
        metrics.reloaded(Reloaded::Keys, false);
        let polling = metrics.polling();
        let databases = ["a", "quoted \"\\\n"].map(|name| DatabaseGauges {
            name: name.to_owned(),
            seq: 7,
            pages: 8,
            history: HistorySize {
                revisions: 2,
                bytes: 1 << 40,
                oldest_unix_ms: Some(1),
            },
            wal: Some(4152),
            wal_syncs: 7,
            disk_free: Some(1 << 30),
            followed: true,
            history_reach: 24,
            uncompared: 6,
        });
        let server = ServerGauges {
            open_batons: 1,
            connections: 5,
            requests: 4,
            descriptors: Some(30),
            descriptors_allowed: Some(1024),
            threads: Some(9),
        };
        let text = metrics.text(&server, &databases);
        drop(polling);
        assert_eq!(metrics.polls.get(), 0);
        text
    }

    /// The lines of `docs/server.md` that name a metric.
    fn documented() -> Vec<&'static str> {
        let page = include_str!("../../../docs/server.md");
        let names = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `partial_sync_")?.split('`').next());
        names.collect()
    }

    #[test]
    fn v16_every_metric_is_documented_and_every_documented_one_exists() {
        let text = text();
        let of = |line: &'static str| line.split('{').next().unwrap_or(line);
        let documented: Vec<_> = documented().into_iter().map(of).collect();
        let exist: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE partial_sync_")?.split(' ').next())
            .collect();
        for name in &exist {
            assert!(documented.contains(name), "docs/server.md does not have {name}");
        }
        for name in &documented {
            assert!(exist.contains(name), "there is no {name}");
        }
        assert!(exist.len() > 15);
    }

    #[test]
    fn every_series_has_its_name_help_and_type() {
        let text = text();
        // The buckets of a histogram are the library's.
        let buckets = "partial_sync_request_duration_seconds_bucket";
        let mut lines: Vec<_> = text.lines().filter(|line| !line.starts_with(buckets)).collect();
        lines.sort_unstable();
        let mut expected = vec![
            "# HELP partial_sync_requests_total Requests.",
            "# TYPE partial_sync_requests_total counter",
            r#"partial_sync_requests_total{endpoint="pull-updates"} 0"#,
            r#"partial_sync_requests_total{endpoint="sql"} 2"#,
            r#"partial_sync_requests_total{endpoint="status"} 0"#,
            r#"partial_sync_requests_total{endpoint="other"} 0"#,
            "# HELP partial_sync_request_duration_seconds Time from the head of a request to the head of its answer.",
            "# TYPE partial_sync_request_duration_seconds histogram",
            r#"partial_sync_request_duration_seconds_sum{endpoint="sql",status="200"} 0.003"#,
            r#"partial_sync_request_duration_seconds_count{endpoint="sql",status="200"} 1"#,
            r#"partial_sync_request_duration_seconds_sum{endpoint="long-poll",status="200"} 300.0"#,
            r#"partial_sync_request_duration_seconds_count{endpoint="long-poll",status="200"} 1"#,
            "# HELP partial_sync_reloads_total Files that were read again without a restart.",
            "# TYPE partial_sync_reloads_total counter",
            r#"partial_sync_reloads_total{what="keys",result="failed"} 1"#,
            "# HELP partial_sync_waiting_polls Long polls that wait for a commit.",
            "# TYPE partial_sync_waiting_polls gauge",
            "partial_sync_waiting_polls 1",
            "# HELP partial_sync_open_descriptors Files and sockets that the process has open.",
            "# TYPE partial_sync_open_descriptors gauge",
            "partial_sync_open_descriptors 30",
            "# HELP partial_sync_allowed_descriptors Files and sockets that it may have open.",
            "# TYPE partial_sync_allowed_descriptors gauge",
            "partial_sync_allowed_descriptors 1024",
            "# HELP partial_sync_threads Threads of the process.",
            "# TYPE partial_sync_threads gauge",
            "partial_sync_threads 9",
            "# HELP partial_sync_wal_bytes Bytes of the write-ahead log.",
            "# TYPE partial_sync_wal_bytes gauge",
            r#"partial_sync_wal_bytes{database="a"} 4152"#,
            r#"partial_sync_wal_bytes{database="quoted \"\\\n"} 4152"#,
            "# HELP partial_sync_wal_syncs How often the write-ahead log was put on the disk since the database was opened.",
            "# TYPE partial_sync_wal_syncs gauge",
            r#"partial_sync_wal_syncs{database="a"} 7"#,
            r#"partial_sync_wal_syncs{database="quoted \"\\\n"} 7"#,
            "# HELP partial_sync_disk_free_bytes Bytes left on the disk of the database.",
            "# TYPE partial_sync_disk_free_bytes gauge",
            r#"partial_sync_disk_free_bytes{database="a"} 1073741824"#,
            r#"partial_sync_disk_free_bytes{database="quoted \"\\\n"} 1073741824"#,
            "# HELP partial_sync_database_followed 1 if commits get their revisions, 0 if that fails.",
            "# TYPE partial_sync_database_followed gauge",
            r#"partial_sync_database_followed{database="a"} 1"#,
            r#"partial_sync_database_followed{database="quoted \"\\\n"} 1"#,
            "# HELP partial_sync_pages_sent_total Pages sent.",
            "# TYPE partial_sync_pages_sent_total counter",
            "partial_sync_pages_sent_total 3",
            "# HELP partial_sync_page_bytes_sent_total Bytes of page streams sent.",
            "# TYPE partial_sync_page_bytes_sent_total counter",
            "partial_sync_page_bytes_sent_total 12288",
            "# HELP partial_sync_open_batons Interactive SQL connections.",
            "# TYPE partial_sync_open_batons gauge",
            "partial_sync_open_batons 1",
            "# HELP partial_sync_open_connections Connections of clients.",
            "# TYPE partial_sync_open_connections gauge",
            "partial_sync_open_connections 5",
            "# HELP partial_sync_requests_under_way Requests that are being answered, waiting long polls included.",
            "# TYPE partial_sync_requests_under_way gauge",
            "partial_sync_requests_under_way 4",
            "# HELP partial_sync_database_revision Number of the latest revision.",
            "# TYPE partial_sync_database_revision gauge",
            r#"partial_sync_database_revision{database="a"} 7"#,
            r#"partial_sync_database_revision{database="quoted \"\\\n"} 7"#,
            "# HELP partial_sync_database_pages Size in pages.",
            "# TYPE partial_sync_database_pages gauge",
            r#"partial_sync_database_pages{database="a"} 8"#,
            r#"partial_sync_database_pages{database="quoted \"\\\n"} 8"#,
            "# HELP partial_sync_history_revisions Revisions kept.",
            "# TYPE partial_sync_history_revisions gauge",
            r#"partial_sync_history_revisions{database="a"} 2"#,
            r#"partial_sync_history_revisions{database="quoted \"\\\n"} 2"#,
            "# HELP partial_sync_history_bytes Bytes of old pages kept.",
            "# TYPE partial_sync_history_bytes gauge",
            r#"partial_sync_history_bytes{database="a"} 1099511627776"#,
            r#"partial_sync_history_bytes{database="quoted \"\\\n"} 1099511627776"#,
            "# HELP partial_sync_history_reach_seconds Age of the oldest revision kept: a replica that pulled within it can \
             continue.",
            "# TYPE partial_sync_history_reach_seconds gauge",
            r#"partial_sync_history_reach_seconds{database="a"} 24"#,
            r#"partial_sync_history_reach_seconds{database="quoted \"\\\n"} 24"#,
            "# HELP partial_sync_history_uncompared_pages Pages that are still to be compared with the page history.",
            "# TYPE partial_sync_history_uncompared_pages gauge",
            r#"partial_sync_history_uncompared_pages{database="a"} 6"#,
            r#"partial_sync_history_uncompared_pages{database="quoted \"\\\n"} 6"#,
        ];
        expected.sort_unstable();
        assert_eq!(lines, expected);
    }
}
