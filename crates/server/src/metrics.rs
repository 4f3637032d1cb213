//! Counters, and their text in Prometheus' format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::prometheus_text::encode,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

use crate::history::HistorySize;

/// Counters of one server since it started.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: [Counter; 4],
    pages: Counter,
    page_bytes: Counter,
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

/// The server, for the text.
#[derive(Debug, Default)]
pub struct ServerGauges {
    /// Interactive SQL connections.
    pub open_batons: usize,
    /// Connections of clients.
    pub connections: usize,
    /// Requests that are being answered.
    pub requests: usize,
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
}

impl Metrics {
    /// A request came.
    pub fn request(&self, endpoint: Endpoint) {
        self.requests[endpoint as usize].inc();
    }

    /// Pages went into an answer, as so many bytes.
    pub fn sent(&self, pages: u64, bytes: u64) {
        self.pages.inc_by(pages);
        self.page_bytes.inc_by(bytes);
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
        registry.register("pages_sent", "Pages sent", self.pages.clone());
        registry.register(
            "page_bytes_sent",
            "Bytes of page streams sent",
            self.page_bytes.clone(),
        );
        for (name, help, value) in [
            ("open_batons", "Interactive SQL connections", server.open_batons),
            ("open_connections", "Connections of clients", server.connections),
            (
                "requests_under_way",
                "Requests that are being answered, waiting long polls included",
                server.requests,
            ),
        ] {
            registry.register(name, help, ConstGauge::new(value as u64));
        }
        let mut each = |name, help, value: fn(&DatabaseGauges) -> u64| {
            let gauges = Family::<_, Gauge<u64, AtomicU64>>::default();
            for database in databases {
                let labels = [("database", database.name.clone())];
                gauges.get_or_create(&labels).set(value(database));
            }
            registry.register(name, help, gauges);
        };
        each("database_revision", "Number of the latest revision", |db| db.seq);
        each("database_pages", "Size in pages", |db| db.pages.into());
        each("history_revisions", "Revisions kept", |db| db.history.revisions);
        each("history_bytes", "Bytes of old pages kept", |db| db.history.bytes);
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut out, &registry);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_its_name_help_and_type() {
        let metrics = Metrics::default();
        metrics.request(Endpoint::Sql);
        metrics.request(Endpoint::Sql);
        metrics.sent(3, 12_288);
        let databases = ["a", "quoted \"\\\n"].map(|name| DatabaseGauges {
            name: name.to_owned(),
            seq: 7,
            pages: 8,
            history: HistorySize {
                revisions: 2,
                bytes: 1 << 40,
            },
        });
        let server = ServerGauges {
            open_batons: 1,
            connections: 5,
            requests: 4,
        };
        let text = metrics.text(&server, &databases);
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        let mut expected = vec![
            "# HELP partial_sync_requests_total Requests.",
            "# TYPE partial_sync_requests_total counter",
            r#"partial_sync_requests_total{endpoint="pull-updates"} 0"#,
            r#"partial_sync_requests_total{endpoint="sql"} 2"#,
            r#"partial_sync_requests_total{endpoint="status"} 0"#,
            r#"partial_sync_requests_total{endpoint="other"} 0"#,
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
        ];
        expected.sort_unstable();
        assert_eq!(lines, expected);
    }
}
