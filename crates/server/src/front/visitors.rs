//! Which names a request may ask for, and which web pages may send one.
//!
//! A browser sends what any page tells it to, also to servers on its own machine. What the page cannot choose is the
//! `Origin`, and without a preflight no content type but those of forms. And it can give its own name the address
//! 127.0.0.1, but then that name is in `Host`.

use std::{convert::Infallible, net::IpAddr, time::Duration};

use axum::{
    body::Body,
    http::{
        HeaderName, HeaderValue, Method, Request, StatusCode, Version,
        header::{CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE},
        request::Parts,
        uri::{Authority, Uri},
    },
    response::Response,
};
use partial_sync_transport::wire::FEATURES_HEADER;
use tower::{Layer, Service, ServiceExt as _};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::error::ServerError;

/// How long a browser may remember what a preflight allowed.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Visitors {
    origins: Vec<HeaderValue>,
    any_origin: bool,
    /// The names that a request may ask for, in lower case; `None` = any.
    hosts: Option<Vec<String>>,
    cors: CorsLayer,
}

/// Why a request is refused, no matter who sends it: status, code and text.
pub(crate) type Refused = (StatusCode, &'static str, &'static str);

/// Where the page is that sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// No page, or one of this server's own.
    Here,
    /// One of an origin that is allowed: the answer has to say so.
    Allowed,
}

impl Visitors {
    /// `origins` as browsers write them, or `*`; `hosts` stand for themselves and for every name below them.
    pub(crate) fn new(origins: &[String], hosts: Option<Vec<String>>) -> Result<Self, ServerError> {
        let any_origin = origins.iter().any(|origin| origin == "*");
        let listed = origins.iter().filter(|origin| *origin != "*");
        let origins: Vec<_> = listed
            .map(|origin| as_browsers_write_it(origin).ok_or_else(|| ServerError::BadOrigin(origin.clone())))
            .collect::<Result<_, _>>()?;
        let allowed = match any_origin {
            true => AllowOrigin::any(),
            false => AllowOrigin::list(origins.clone()),
        };
        let cors = CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(AllowHeaders::mirror_request())
            .allow_private_network(true)
            .expose_headers([
                HeaderName::from_static(FEATURES_HEADER),
                WWW_AUTHENTICATE,
                RETRY_AFTER,
            ])
            .max_age(REMEMBERED);
        let hosts = hosts.map(|hosts| hosts.iter().map(|host| host.to_ascii_lowercase()).collect());
        Ok(Self {
            origins,
            any_origin,
            hosts,
            cors,
        })
    }

    /// Whether a request may ask for what it asks for, from where it does.
    pub(crate) fn check(&self, request: &Request<Body>) -> Result<From, Refused> {
        let host = asked_for(request)?;
        let allowed = match (&self.hosts, &host) {
            (Some(hosts), Some(host)) => is_allowed(host.host(), hosts),
            _ => true,
        };
        if !allowed {
            return Err((
                StatusCode::FORBIDDEN,
                "HOST_NOT_ALLOWED",
                "this server does not answer to that name: ask for localhost, or start it with --allowed-host NAME",
            ));
        }
        let mut origins = request.headers().get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(From::Here),
            (Some(origin), None) if self.any_origin || self.origins.contains(origin) => Ok(From::Allowed),
            (Some(origin), None) if host.is_some_and(|host| is_same(origin, &host)) => Ok(From::Here),
            _ => Err((
                StatusCode::FORBIDDEN,
                "ORIGIN_NOT_ALLOWED",
                "web pages of that origin may not use this server: start it with --cors-origin ORIGIN to let them",
            )),
        }
    }

    /// Answers a request of a page of another origin: a preflight here, everything else with the headers that a browser
    /// wants to see.
    pub(crate) async fn answer<S>(&self, service: S, request: Request<Body>) -> Response
    where
        S: Service<Request<Body>, Response = Response, Error = Infallible>,
    {
        match self.cors.layer(service).oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }
}

/// Whether a body is of a type that a page may send to any server without asking it first.
pub(crate) fn check_content_type(request: &Parts) -> Result<(), Refused> {
    let of_forms = |value: &HeaderValue| {
        let value = value.to_str().unwrap_or_default();
        let kind = value.split(';').next().unwrap_or_default();
        let kind = kind.trim().to_ascii_lowercase();
        kind == "text/plain" || kind == "application/x-www-form-urlencoded" || kind.starts_with("multipart/")
    };
    let posts = request.method == Method::POST;
    match posts && request.headers.get_all(CONTENT_TYPE).iter().any(of_forms) {
        true => Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "send the body as application/json, or pages' requests as application/protobuf",
        )),
        false => Ok(()),
    }
}

/// The one host that a request names; `None` = an HTTP/1.0 client that names none.
fn asked_for(request: &Request<Body>) -> Result<Option<Authority>, Refused> {
    let bad = |text| (StatusCode::BAD_REQUEST, "BAD_REQUEST", text);
    let mut headers = request.headers().get_all(HOST).iter();
    let header = match (headers.next(), headers.next()) {
        (Some(_), Some(_)) => return Err(bad("the request has more than one Host header: send one")),
        (Some(host), None) => {
            Some(Authority::try_from(host.as_bytes()).map_err(|_| bad("the Host header cannot be read"))?)
        }
        (None, _) => None,
    };
    match (request.uri().authority(), header) {
        (Some(authority), Some(header)) if *authority != header => Err(bad(
            "the request names two hosts, one in its url and one in its Host header",
        )),
        (Some(authority), _) => Ok(Some(authority.clone())),
        (None, None) if request.version() >= Version::HTTP_11 => Err(bad("the request has no Host header")),
        (None, header) => Ok(header),
    }
}

fn is_allowed(host: &str, hosts: &[String]) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    let is = |name: &str| {
        let above = host.strip_suffix(name);
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    };
    address.is_ok_and(|address| address.to_canonical().is_loopback())
        || is("localhost")
        || hosts.iter().any(|name| is(name))
}

fn is_same(origin: &HeaderValue, host: &Authority) -> bool {
    let Some(uri) = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()) else {
        return false;
    };
    let usual = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    uri.authority().is_some_and(|origin| {
        origin.host().eq_ignore_ascii_case(host.host())
            && origin.port_u16().unwrap_or(usual) == host.port_u16().unwrap_or(usual)
    })
}

/// An origin in lower case and without a port that goes without saying; `None` = it is none.
fn as_browsers_write_it(origin: &str) -> Option<HeaderValue> {
    let origin = origin.to_ascii_lowercase();
    if origin == "null" {
        return HeaderValue::try_from(origin).ok();
    }
    let (scheme, authority) = origin.split_once("://")?;
    let authority: Authority = authority.parse().ok()?;
    let usual = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let authority = authority.as_str();
    let authority = match usual {
        "" => authority,
        usual => authority.strip_suffix(usual).unwrap_or(authority),
    };
    let is_plain = !scheme.is_empty() && !authority.is_empty() && !authority.contains('@');
    is_plain.then(|| HeaderValue::try_from(format!("{scheme}://{authority}")).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v17_a_name_stands_for_itself_and_for_those_below_it() {
        let hosts = ["example.org".to_owned(), "192.0.2.1".to_owned()];
        for host in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "one.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "example.org",
            "one.Example.org",
            "192.0.2.1",
        ] {
            assert!(is_allowed(host, &hosts), "{host}");
        }
        for host in [
            "",
            "example.com",
            "notlocalhost",
            "localhost.example.com",
            "example.org.evil.net",
            "127.0.0.1.nip.io",
            "192.0.2.10",
            "0.0.0.0",
            "[2001:db8::1]",
            "xample.org",
        ] {
            assert!(!is_allowed(host, &hosts), "{host}");
        }
    }

    #[test]
    fn v17_origins_are_compared_as_browsers_write_them() {
        for (given, written) in [
            ("https://App.example.org", "https://app.example.org"),
            ("https://app.example.org:443", "https://app.example.org"),
            ("http://app.example.org:443", "http://app.example.org:443"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("tauri://localhost", "tauri://localhost"),
            ("null", "null"),
        ] {
            assert_eq!(as_browsers_write_it(given).unwrap(), written);
        }
        for none in [
            "",
            "app.example.org",
            "https://",
            "https://a.example/",
            "https://a.example/b",
            "https://u@a.example",
        ] {
            assert!(as_browsers_write_it(none).is_none(), "{none}");
            assert!(Visitors::new(&[none.to_owned()], None).is_err(), "{none}");
        }
        let host = "app.example.org".parse().unwrap();
        for (origin, same) in [
            ("https://app.example.org", true),
            ("http://app.example.org", true),
            ("https://app.example.org:8443", false),
            ("https://example.org", false),
            ("ftp://app.example.org", false),
            ("null", false),
        ] {
            assert_eq!(
                is_same(&HeaderValue::from_static(origin), &host),
                same,
                "{origin}"
            );
        }
    }
}
