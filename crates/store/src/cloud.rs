//! Clients of S3, GCS and Azure, over the same HTTP client and TLS as replicas use.
//!
//! The client notes the time that each answer tells (`Date`): it is the one clock that continues while this machine, or the virtual
//! machine that it is, stands still (`clock.rs`).
//!
//! What must never happen here: that an endpoint with a password in it is used, which errors would show.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use object_store::{
    ClientConfigKey, ClientOptions, ObjectStore, RetryConfig,
    client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService},
};
use partial_sync_transport::http::http_client_builder;

use crate::{
    clock::{Clock, LocalClock, Mark},
    layout::Layout,
    transfer::send,
};

/// How long a request is tried again after answers that say that the store is busy, or none.
const RETRY: Duration = Duration::from_secs(20);
type Connected = (Arc<dyn ObjectStore>, Layout, Arc<dyn Clock>);

/// A client of the bucket `bucket`, or why there is none.
pub(crate) fn connect(
    scheme: &str,
    bucket: &str,
    variables: &[(String, String)],
) -> Result<Connected, String> {
    let clock = Arc::new(StoreClock::new());
    let connector = Connector { clock: clock.clone() };
    let retry = RetryConfig {
        retry_timeout: RETRY,
        ..RetryConfig::default()
    };
    let of = |prefix: &'static str| {
        variables
            .iter()
            .filter(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
    };
    // An endpoint that is written with http:// is meant so.
    let allows_http = |prefix| {
        of(prefix).any(|(name, value)| {
            (name.contains("endpoint") || name.contains("url")) && value.starts_with("http://")
        })
    };
    let holds_secret = |value: &str| {
        let url = url::Url::parse(value);
        url.is_ok_and(|url| url.has_host() && (!url.username().is_empty() || url.password().is_some()))
    };
    for prefix in ["AWS_", "GOOGLE_", "AZURE_"] {
        if let Some((name, _)) = of(prefix).find(|(_, value)| holds_secret(value)) {
            let name = name.to_ascii_uppercase();
            return Err(format!(
                "{name} holds a user name or password, which would be shown in errors"
            ));
        }
    }
    let options = |prefix| ClientOptions::new().with_allow_http(allows_http(prefix));
    let store: Result<(Arc<dyn ObjectStore>, Layout), object_store::Error> = match scheme {
        #[cfg(feature = "s3")]
        "s3" => {
            let mut builder = object_store::aws::AmazonS3Builder::new().with_client_options(options("AWS_"));
            for (name, value) in of("AWS_") {
                if let Ok(key) = name.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            let builder = builder.with_bucket_name(bucket).with_retry(retry);
            builder
                .with_http_connector(connector)
                .build()
                .map(|store| (Arc::new(store) as _, Layout::S3))
        }
        #[cfg(feature = "gcs")]
        "gs" => {
            let mut builder =
                object_store::gcp::GoogleCloudStorageBuilder::new().with_client_options(options("GOOGLE_"));
            for (name, value) in of("GOOGLE_") {
                if let Ok(key) = name.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            let builder = builder.with_bucket_name(bucket).with_retry(retry);
            builder
                .with_http_connector(connector)
                .build()
                .map(|store| (Arc::new(store) as _, Layout::Plain))
        }
        #[cfg(feature = "azure")]
        "az" => {
            let mut builder =
                object_store::azure::MicrosoftAzureBuilder::new().with_client_options(options("AZURE_"));
            for (name, value) in of("AZURE_") {
                if let Ok(key) = name.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            let builder = builder.with_container_name(bucket).with_retry(retry);
            builder
                .with_http_connector(connector)
                .build()
                .map(|store| (Arc::new(store) as _, Layout::Plain))
        }
        _ => return Err("this program was built without a client of that store".to_owned()),
    };
    let (store, layout) = store.map_err(|error| error.to_string())?;
    Ok((store, layout, clock))
}

/// Makes the HTTP client that the stores' clients use.
#[derive(Debug)]
struct Connector {
    clock: Arc<StoreClock>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
            store: "HTTP client",
            source,
        };
        let (builder, no_tls) = http_client_builder(&[]).map_err(|error| failed(error.into()))?;
        let http_allowed = options
            .get_config_value(&ClientConfigKey::AllowHttp)
            .is_some_and(|value| value == "true");
        if let Some(why) = no_tls.filter(|_| !http_allowed) {
            return Err(failed(why.into()));
        }
        let client = builder
            .https_only(!http_allowed)
            .build()
            .map_err(|error| failed(error.into()))?;
        Ok(HttpClient::new(Service {
            client,
            clock: self.clock.clone(),
        }))
    }
}

/// An HTTP client that tells the clock what the answers say.
#[derive(Debug)]
struct Service {
    client: reqwest::Client,
    clock: Arc<StoreClock>,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = send(&self.client, request).await?;
        if let Some(date) = answer.headers().get("date").and_then(|date| date.to_str().ok()) {
            self.clock.note(date);
        }
        Ok(answer)
    }
}

/// The clocks of this machine, and the store's.
#[derive(Debug)]
struct StoreClock {
    local: LocalClock,
    /// Seconds since 1970; the latest that any answer told.
    told: AtomicU64,
}

impl StoreClock {
    fn new() -> Self {
        Self {
            local: LocalClock::new(),
            told: AtomicU64::new(0),
        }
    }

    fn note(&self, date: &str) {
        let told = httpdate::parse_http_date(date).ok();
        let told = told.and_then(|date| date.duration_since(SystemTime::UNIX_EPOCH).ok());
        if let Some(told) = told {
            self.told.fetch_max(told.as_secs(), Ordering::Relaxed);
        }
    }
}

impl Clock for StoreClock {
    fn mark(&self) -> Mark {
        Mark {
            store: Duration::from_secs(self.told.load(Ordering::Relaxed)),
            ..self.local.mark()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stores_clock_does_not_go_back() {
        let clock = StoreClock::new();
        assert_eq!(clock.mark().store, Duration::ZERO);
        clock.note("Sun, 06 Nov 1994 08:49:37 GMT");
        let first = clock.mark().store;
        assert_eq!(first.as_secs(), 784_111_777);
        clock.note("Sun, 06 Nov 1994 08:49:36 GMT");
        clock.note("yesterday");
        assert_eq!(clock.mark().store, first);
        clock.note("Mon, 07 Nov 1994 08:49:37 GMT");
        assert_eq!((clock.mark().store - first).as_secs(), 86_400);
    }
}
