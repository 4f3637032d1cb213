//! Which operation a request for administration means.
//!
//! Not an `axum::Router`: an operation is a value, because it is decided whether a token may do it after it is read and before it is
//! done, and 404 and 405 are for those who have a token only.

use axum::{
    http::{HeaderValue, Method, StatusCode, header::ALLOW, request::Parts},
    response::Response,
};
use serde::Deserialize;

use crate::app::error;

/// Names, and revisions, of one answer.
const MOST_LISTED: usize = 1000;

/// What is asked for. Names are as they came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation {
    List {
        after: String,
        limit: usize,
    },
    Create {
        name: String,
    },
    Delete {
        name: String,
    },
    Fork {
        name: String,
        to: String,
        at: At,
    },
    Stats {
        name: String,
    },
    Revisions {
        name: String,
        before: Option<String>,
        limit: usize,
    },
    DropHistory {
        name: String,
        before: Option<String>,
    },
    KickDatabase {
        name: String,
    },
    KickCaller(Whom),
}

/// Which state of a database.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct At {
    /// The revision.
    pub revision: Option<String>,
    /// The latest revision at this time.
    pub timestamp: Option<String>,
}

/// Who is to be sent away.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Whom {
    /// The subject of tokens, or the name of tokens of a file.
    pub caller: Option<String>,
    /// The address.
    pub address: Option<std::net::IpAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// What is dropped has to be said.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drop {
    before: Option<String>,
    #[serde(default)]
    all: bool,
}

impl Operation {
    /// Whether it does more than look.
    pub(super) fn changes(&self) -> bool {
        !matches!(
            self,
            Self::List { .. } | Self::Stats { .. } | Self::Revisions { .. }
        )
    }
}

/// Whether it asks if the server is alive.
pub(super) fn asks_health(request: &Parts) -> bool {
    matches!(request.method, Method::GET | Method::HEAD) && matches!(request.uri.path(), "/" | "/health")
}

/// The name of a database in a path.
pub(super) fn database(request: &Parts) -> Option<&str> {
    let rest = request.uri.path().strip_prefix("/v1/namespaces/")?;
    rest.split('/').next()
}

/// Reads a request.
pub(super) fn operation(request: &Parts, body: &[u8]) -> Result<Operation, Box<Response>> {
    let path = request.uri.path().strip_prefix('/').unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    let named = |name: &&str| (*name).to_owned();
    let (allowed, operation): (_, &dyn Fn() -> Result<Operation, Box<Response>>) = match &parts[..] {
        ["v1", "namespaces"] => (Method::GET, &|| {
            let query = Query::of(request, "after")?;
            let (after, limit) = (query.from.unwrap_or_default(), query.limit);
            Ok(Operation::List { after, limit })
        }),
        ["v1", "namespaces", name] => (Method::DELETE, &|| Ok(Operation::Delete { name: named(name) })),
        ["v1", "namespaces", name, "create"] => (Method::POST, &|| {
            let Nothing {} = json(body)?;
            Ok(Operation::Create { name: named(name) })
        }),
        ["v1", "namespaces", name, "fork", to] => (Method::POST, &|| {
            let at: At = json(body)?;
            if at.revision.is_some() && at.timestamp.is_some() {
                return Err(bad("give a revision or a timestamp, not both"));
            }
            let (name, to) = (named(name), named(to));
            Ok(Operation::Fork { name, to, at })
        }),
        ["v1", "namespaces", name, "stats"] => (Method::GET, &|| Ok(Operation::Stats { name: named(name) })),
        ["v1", "namespaces", name, "revisions"] => (Method::GET, &|| {
            let query = Query::of(request, "before")?;
            let (name, before, limit) = (named(name), query.from, query.limit);
            Ok(Operation::Revisions { name, before, limit })
        }),
        ["v1", "namespaces", name, "drop-history"] => (Method::POST, &|| {
            let Drop { before, all } = json(body)?;
            if before.is_some() == all {
                return Err(bad(
                    "say what to drop: {\"before\": REVISION}, or {\"all\": true}",
                ));
            }
            let name = named(name);
            Ok(Operation::DropHistory { name, before })
        }),
        ["v1", "namespaces", name, "kick"] => (Method::POST, &|| {
            let Nothing {} = json(body)?;
            Ok(Operation::KickDatabase { name: named(name) })
        }),
        ["v1", "kick"] => (Method::POST, &|| {
            let whom: Whom = json(body)?;
            match whom.caller.is_some() || whom.address.is_some() {
                true => Ok(Operation::KickCaller(whom)),
                false => Err(bad("say who: {\"caller\": NAME}, or {\"address\": IP}")),
            }
        }),
        _ => {
            let text = "there is nothing at this path; administration is below /v1/namespaces, and /v1/kick";
            return Err(Box::new(error(StatusCode::NOT_FOUND, "NOT_FOUND", text)));
        }
    };
    if request.method != allowed {
        let text = format!("use {allowed}");
        let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", &text);
        if let Ok(allowed) = HeaderValue::try_from(allowed.as_str()) {
            answer.headers_mut().insert(ALLOW, allowed);
        }
        return Err(Box::new(answer));
    }
    operation()
}

/// `?after=NAME&limit=100`.
struct Query {
    from: Option<String>,
    limit: usize,
}

impl Query {
    fn of(request: &Parts, from: &str) -> Result<Self, Box<Response>> {
        let mut this = Self {
            from: None,
            limit: MOST_LISTED,
        };
        let query = request.uri.query().unwrap_or_default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                // Names and revisions have no characters that would have to be escaped.
                Some((name, value)) if name == from => this.from = Some(value.to_owned()),
                Some(("limit", value)) => {
                    let limit = value
                        .parse()
                        .ok()
                        .filter(|limit| (1..=MOST_LISTED).contains(limit));
                    this.limit = limit.ok_or_else(|| bad(&format!("limit must be 1 to {MOST_LISTED}")))?;
                }
                _ => {
                    return Err(bad(&format!(
                        "the query may have {from} and limit, and nothing else"
                    )));
                }
            }
        }
        Ok(this)
    }
}

/// No body is one that says nothing.
fn json<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Box<Response>> {
    let body = match body.trim_ascii() {
        [] => b"{}",
        body => body,
    };
    serde_json::from_slice(body).map_err(|e| bad(&format!("the body is not what is expected here: {e}")))
}

fn bad(text: &str) -> Box<Response> {
    Box::new(error(StatusCode::BAD_REQUEST, "BAD_REQUEST", text))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn read(method: &str, path: &str, body: &str) -> Result<Operation, u16> {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        operation(&request.into_parts().0, body.as_bytes()).map_err(|answer| answer.status().as_u16())
    }

    #[test]
    fn what_is_asked_for_is_said_in_full_or_refused() {
        let name = || "a".to_owned();
        let fork = |at| Operation::Fork {
            name: name(),
            to: "b".into(),
            at,
        };
        let revision = Some("x-1".to_owned());
        for (method, path, body, operation) in [
            (
                "GET",
                "/v1/namespaces?after=q&limit=7",
                "",
                Operation::List {
                    after: "q".into(),
                    limit: 7,
                },
            ),
            (
                "POST",
                "/v1/namespaces/a/create",
                "{}",
                Operation::Create { name: name() },
            ),
            (
                "DELETE",
                "/v1/namespaces/a",
                "",
                Operation::Delete { name: name() },
            ),
            ("POST", "/v1/namespaces/a/fork/b", " ", fork(At::default())),
            (
                "POST",
                "/v1/namespaces/a/fork/b",
                r#"{"revision":"x-1"}"#,
                fork(At {
                    revision: revision.clone(),
                    timestamp: None,
                }),
            ),
            (
                "POST",
                "/v1/namespaces/a/drop-history",
                r#"{"before":"x-1"}"#,
                Operation::DropHistory {
                    name: name(),
                    before: revision,
                },
            ),
        ] {
            assert_eq!(read(method, path, body), Ok(operation), "{method} {path}");
        }
        for (method, path, body, status) in [
            ("GET", "/v1/namespaces/a/create", "", 405),
            ("POST", "/v1/namespaces/a", "", 405),
            ("POST", "/v1/namespaces", "", 405),
            ("GET", "/v2/namespaces", "", 404),
            ("DELETE", "/v1/namespaces/a/", "", 404),
            ("GET", "/v1/namespaces?limit=0", "", 400),
            ("GET", "/v1/namespaces?limit=1001", "", 400),
            ("GET", "/v1/namespaces?what=1", "", 400),
            ("POST", "/v1/namespaces/a/create", r#"{"dump_url":"x"}"#, 400),
            ("POST", "/v1/namespaces/a/create", "[", 400),
            ("POST", "/v1/namespaces/a/drop-history", "", 400),
            (
                "POST",
                "/v1/namespaces/a/drop-history",
                r#"{"all":true,"before":"x-1"}"#,
                400,
            ),
            (
                "POST",
                "/v1/namespaces/a/fork/b",
                r#"{"revision":"x","timestamp":"y"}"#,
                400,
            ),
            ("POST", "/v1/kick", "{}", 400),
        ] {
            assert_eq!(read(method, path, body), Err(status), "{method} {path} {body}");
        }
    }
}
