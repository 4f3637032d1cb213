//! The seam under [`HttpRemote`](super::HttpRemote): who really sends an HTTP request.
//!
//! The default is [`ReqwestClient`]; a language binding can plug in its own fetch. A client sends what it is told, once:
//! no retries, no redirects, no deadlines of its own; those belong to `HttpRemote` alone.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use reqwest::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use crate::remote::{RemoteError, RemoteErrorKind};

/// Setting up a connection that takes longer is given up, so that the default deadline leaves room for another try.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that is gone without a word (a laptop that slept, a NAT that forgot) is noticed after about this long.
const DEAD_PEER: Duration = Duration::from_secs(10);
/// Connections idle for longer are not used again.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// A request. `Debug` leaves out headers' values and the body, which hold secrets and data.
#[derive(Clone)]
pub struct HttpRequest {
    /// `POST`.
    pub method: &'static str,
    /// Absolute url.
    pub url: String,
    /// Names (lower case) and values.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Bytes,
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("url", &crate::url::redact(&self.url))
            .field("headers", &names)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish()
    }
}

/// An answer whose head has arrived.
pub struct HttpResponse {
    /// 200, 404, ...
    pub status: u16,
    /// Names (lower case) and values.
    pub headers: Vec<(String, String)>,
    /// Whether a body that is cut short is sure to end with an error, because its length or its end is marked. `false`
    /// for an HTTP/1 answer that just ends with the connection.
    pub end_is_marked: bool,
    /// The body as it comes in. It ends with an error when the transfer breaks; dropping it ends the transfer.
    pub body: BoxStream<'static, Result<Bytes, RemoteError>>,
}

impl HttpResponse {
    /// The first value of a header, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponse")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Sends HTTP requests.
pub trait HttpClient: Send + Sync + fmt::Debug {
    /// Sends one request and resolves when the answer's head has arrived, whatever its status. An error's kind is
    /// [`RemoteErrorKind::Unreachable`] when the connection failed. Dropping the future cancels the request.
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, RemoteError>>;

    /// Whether bodies of answers are handed over as they came. One that undoes a `Content-Encoding`, as `fetch` does, is not asked
    /// for compressed answers: nobody could tell what is undone.
    fn keeps_codings(&self) -> bool {
        false
    }

    /// Whether this error of [`send`](Self::send) proves that nothing of the request left this machine's hands, so that
    /// sending it again cannot do its work twice. When in doubt: `false`.
    fn was_never_sent(&self, error: &RemoteError) -> bool {
        let _ = error;
        false
    }
}

/// [`HttpClient`] over reqwest: a connection pool, HTTP/1.1 and HTTP/2, TLS by rustls with ring and the platform's
/// certificate verifier. It installs no process-wide crypto provider and needs none.
#[derive(Clone)]
pub struct ReqwestClient {
    client: reqwest::Client,
    /// Why https cannot be used here; http still works.
    no_tls: Option<String>,
}

impl fmt::Debug for ReqwestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestClient").finish_non_exhaustive()
    }
}

impl ReqwestClient {
    /// A client that trusts the system's certificate authorities.
    pub fn new() -> Result<Self, RemoteError> {
        Self::with_root_certificates(&[])
    }

    /// A client that trusts these PEM certificates too; each text may hold several.
    pub fn with_root_certificates(pems: &[Vec<u8>]) -> Result<Self, RemoteError> {
        let (builder, no_tls) = http_client_builder(pems)?;
        let client = builder.build().map_err(|e| {
            RemoteError::with_source(
                RemoteErrorKind::Client,
                format!("the HTTP client cannot be set up: {}", chain(&e)),
                e,
            )
        })?;
        Ok(Self { client, no_tls })
    }
}

/// How every HTTP client of this project is set up: TLS by rustls with ring and the platform's certificate verifier, which trusts these
/// PEM certificates too; no redirects; peers that are gone are noticed. Also why https cannot be used here, if it cannot.
pub fn http_client_builder(
    pems: &[Vec<u8>],
) -> Result<(reqwest::ClientBuilder, Option<String>), RemoteError> {
    let mut extra = Vec::new();
    for pem in pems {
        let before = extra.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            extra.push(certificate.map_err(|e| bad_certificate(&e.to_string()))?);
        }
        if extra.len() == before {
            return Err(bad_certificate("it holds no `BEGIN CERTIFICATE` block"));
        }
    }
    let (tls, no_tls) = tls_config(extra)?;
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(DEAD_PEER / 2)
        .http2_keep_alive_interval(DEAD_PEER / 2)
        .http2_keep_alive_timeout(DEAD_PEER / 2)
        .pool_idle_timeout(POOL_IDLE);
    Ok((builder, no_tls))
}

fn bad_certificate(why: &str) -> RemoteError {
    RemoteError::new(
        RemoteErrorKind::Client,
        format!("a root certificate cannot be used: {why}. Give it in PEM form"),
    )
}

/// The TLS set-up, and why it trusts nobody where the system has no certificate authorities: only https needs them.
fn tls_config(extra: Vec<CertificateDer<'static>>) -> Result<(ClientConfig, Option<String>), RemoteError> {
    let provider = CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| {
            RemoteError::with_source(RemoteErrorKind::Client, format!("TLS cannot be set up: {e}"), e)
        })?;
    match Verifier::new_with_extra_roots(extra.clone(), provider) {
        Ok(verifier) => Ok((
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth(),
            None,
        )),
        Err(problem) => {
            let mut roots = RootCertStore::empty();
            let (good, _) = roots.add_parsable_certificates(extra);
            let no_tls = (good == 0).then(|| {
                format!(
                    "no certificate authority is known on this system ({problem}); install its CA certificates or \
                     give a root certificate"
                )
            });
            Ok((
                builder.with_root_certificates(roots).with_no_client_auth(),
                no_tls,
            ))
        }
    }
}

impl HttpClient for ReqwestClient {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, RemoteError>> {
        async move {
            if let Some(why) = self.no_tls.as_ref().filter(|_| request.url.starts_with("https:")) {
                return Err(RemoteError::new(RemoteErrorKind::Client, why.clone()));
            }
            let method = reqwest::Method::from_bytes(request.method.as_bytes())
                .map_err(|e| RemoteError::with_source(RemoteErrorKind::Client, e.to_string(), e))?;
            let mut builder = self.client.request(method, &request.url).body(request.body);
            for (name, value) in request.headers {
                let mut value = reqwest::header::HeaderValue::from_str(&value).map_err(|_| {
                    RemoteError::new(
                        RemoteErrorKind::Client,
                        format!("the value for the header {name} holds characters that no header may hold"),
                    )
                })?;
                value.set_sensitive(name == "authorization" || name == crate::wire::ENCRYPTION_KEY_HEADER);
                builder = builder.header(name, value);
            }
            let response = builder.send().await.map_err(broken)?;
            let headers = response
                .headers()
                .iter()
                .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
                .collect();
            let names = response.headers();
            Ok(HttpResponse {
                status: response.status().as_u16(),
                end_is_marked: response.version() > reqwest::Version::HTTP_11
                    || names.contains_key(CONTENT_LENGTH)
                    || names.contains_key(TRANSFER_ENCODING),
                headers,
                body: response.bytes_stream().map(|chunk| chunk.map_err(broken)).boxed(),
            })
        }
        .boxed()
    }

    /// No coding of reqwest is built in.
    fn keeps_codings(&self) -> bool {
        true
    }

    fn was_never_sent(&self, error: &RemoteError) -> bool {
        error
            .source
            .as_deref()
            .and_then(|source| source.downcast_ref::<reqwest::Error>())
            .is_some_and(reqwest::Error::is_connect)
    }
}

fn broken(error: reqwest::Error) -> RemoteError {
    let error = error.without_url();
    let kind = if error.is_builder() {
        RemoteErrorKind::Client
    } else if error.is_timeout() {
        RemoteErrorKind::TimedOut
    } else {
        RemoteErrorKind::Unreachable
    };
    RemoteError::with_source(kind, chain(&error), error)
}

/// An error and everything underneath it in one line; reqwest's own text says only "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_made_with_and_without_a_process_wide_crypto_provider() {
        ReqwestClient::new().unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        ReqwestClient::new().unwrap();
    }

    #[test]
    fn a_root_certificate_that_is_none_is_refused() {
        for pem in [
            &b""[..],
            b"hello",
            b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----",
        ] {
            let error = ReqwestClient::with_root_certificates(&[pem.to_vec()]).unwrap_err();
            assert_eq!(error.kind, RemoteErrorKind::Client);
            assert!(error.message.contains("PEM"), "{error}");
        }
    }

    #[test]
    fn a_request_does_not_show_its_secrets() {
        let request = HttpRequest {
            method: "POST",
            url: "https://db.io/?authToken=s3cret".into(),
            headers: vec![("authorization".into(), "Bearer s3cret".into())],
            body: Bytes::from_static(b"s3cret"),
        };
        assert!(!format!("{request:?}").contains("s3cret"));
    }
}
