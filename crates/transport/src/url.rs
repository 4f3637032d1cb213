//! A remote's url: which ones are accepted, what they mean, and how they are shown.
//!
//! What is shown (`Display`, errors) never holds a secret: credentials and the query string are left out.

use std::fmt;

use url::Url;

use crate::remote::{RemoteError, RemoteErrorKind};

/// A checked base url. `libsql://` and `turso://` mean `https://` (`libsql://...?tls=0` means `http://`); a path is kept
/// and the endpoint appended to it; `authToken` in the query is taken out of the url and used as the token when no
/// other is given.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteUrl {
    base: Url,
    token: Option<String>,
}

impl RemoteUrl {
    /// Checks and normalises a url.
    pub fn parse(text: &str) -> Result<Self, RemoteError> {
        let text = text.trim();
        let refuse = |why: &str| {
            RemoteError::new(
                RemoteErrorKind::InvalidUrl,
                format!(
                    "{:?} cannot be used as the url of a remote: {why}. It should look like libsql://HOST, \
                     turso://HOST, https://HOST or http://HOST:PORT, with a path if the remote has one",
                    redact(text)
                ),
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refuse("it has no scheme"))?;
        let scheme = scheme.to_ascii_lowercase();
        let is_alias = matches!(scheme.as_str(), "libsql" | "turso");
        if !is_alias && !matches!(scheme.as_str(), "http" | "https") {
            return Err(refuse("its scheme is not one of libsql, turso, https, http"));
        }
        let scheme = if is_alias { "https" } else { &scheme };
        let mut base = Url::parse(&format!("{scheme}://{rest}")).map_err(|e| refuse(&e.to_string()))?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err(refuse(
                "it holds a user name or password; give the token as the auth token instead",
            ));
        }
        base.set_fragment(None);
        let mut token = None;
        let mut plain = false;
        let mut kept = Vec::new();
        for (name, value) in base.query_pairs() {
            match name.as_ref() {
                "authToken" => token = Some(value.into_owned()),
                "tls" if is_alias => match value.as_ref() {
                    "0" => plain = true,
                    "1" => plain = false,
                    _ => return Err(refuse("tls is neither 0 nor 1")),
                },
                _ => kept.push((name.into_owned(), value.into_owned())),
            }
        }
        base.set_query(None);
        if !kept.is_empty() {
            base.query_pairs_mut().extend_pairs(kept);
        }
        if plain {
            base.set_scheme("http")
                .map_err(|()| refuse("it cannot be used without TLS"))?;
        }
        Ok(Self { base, token })
    }

    /// The url of an endpoint: `path` (without a leading slash) appended to the base path, the query kept.
    pub fn endpoint(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let base = self.base.path().trim_end_matches('/');
        url.set_path(&format!("{base}/{path}"));
        url
    }

    /// The token that was in the query as `authToken`.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.base.clone();
        shown.set_query(None);
        f.write_str(shown.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteUrl({self})")
    }
}

/// A text that may be a url, without what may be secret in it, and not too long to print.
pub fn redact(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let (host, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // A password with such a character in it may end at any @.
    let rest = match host.contains(':') && behind.contains('@') {
        true => "...",
        false => rest.split(['?', '#']).next().unwrap_or_default(),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    // Everything before the last @ of the authority is credentials.
    let rest = match authority.rfind('@') {
        Some(at) => &rest[at + 1..],
        None => rest,
    };
    let shown: String = match scheme {
        Some(scheme) => format!("{scheme}://{rest}"),
        None => rest.to_owned(),
    };
    // As it is printed: an error quotes it, and `\u{7f}` is six characters.
    let mut printed = 0;
    let cut = shown.char_indices().find(|(_, c)| {
        printed += c.escape_debug().count();
        printed > 200
    });
    match cut {
        Some((at, _)) => format!("{}...", &shown[..at]),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> String {
        RemoteUrl::parse(url).unwrap().endpoint("v2/pipeline").into()
    }

    #[test]
    fn aliases_mean_https_and_a_path_is_kept() {
        assert_eq!(
            endpoint("libsql://db-org.turso.io"),
            "https://db-org.turso.io/v2/pipeline"
        );
        assert_eq!(endpoint("turso://db.io:8443/"), "https://db.io:8443/v2/pipeline");
        assert_eq!(endpoint("LIBSQL://db.io"), "https://db.io/v2/pipeline");
        assert_eq!(
            endpoint("http://127.0.0.1:8080/app"),
            "http://127.0.0.1:8080/app/v2/pipeline"
        );
        assert_eq!(
            endpoint("http://127.0.0.1:8080/a/b/"),
            "http://127.0.0.1:8080/a/b/v2/pipeline"
        );
        assert_eq!(endpoint("https://[::1]:9/x"), "https://[::1]:9/x/v2/pipeline");
        assert_eq!(
            endpoint("libsql://127.0.0.1:8080?tls=0"),
            "http://127.0.0.1:8080/v2/pipeline"
        );
    }

    #[test]
    fn a_token_in_the_query_is_used_and_never_shown_and_other_parameters_stay() {
        let url = RemoteUrl::parse("libsql://db.io/p?authToken=s3cret&shard=4").unwrap();
        assert_eq!(url.token(), Some("s3cret"));
        assert_eq!(
            url.endpoint("pull-updates").as_str(),
            "https://db.io/p/pull-updates?shard=4"
        );
        assert_eq!(url.to_string(), "https://db.io/p");
        assert!(!format!("{url:?}").contains("s3cret"));
    }

    #[test]
    fn a_url_that_cannot_be_used_is_named_without_its_secrets() {
        for bad in [
            "",
            "db.io",
            "ftp://db.io",
            "wss://u:s3cret@db.io?authToken=s3cret",
            "https://",
            "https://u:s3cret@db.io",
            "https://s3cret@db.io:99999",
            "libsql://db.io?tls=maybe&authToken=s3cret",
            "file:app.db",
        ] {
            let error = RemoteUrl::parse(bad).unwrap_err();
            assert_eq!(error.kind, RemoteErrorKind::InvalidUrl, "{bad}");
            assert!(!error.message.contains("s3cret"), "{error}");
            for scheme in ["libsql://", "turso://", "https://", "http://"] {
                assert!(error.message.contains(scheme), "{error}");
            }
        }
        let error = RemoteUrl::parse("ftp://u:p@db.io/x").unwrap_err();
        assert!(error.message.contains("ftp://db.io/x"), "{error}");
    }

    #[test]
    fn a_password_is_never_shown_no_matter_what_is_in_it() {
        for secret in ["secret", "sec/ret", "sec?ret", "sec#ret", "s@ec/ret", "s/e@c@ret"] {
            for url in [
                format!("https://key:{secret}@host/app"),
                format!("key:{secret}@host"),
            ] {
                let refused = RemoteUrl::parse(&url).unwrap_err().message;
                let shown = redact(&url);
                for text in [&*shown, refused.split("\" cannot").next().unwrap()] {
                    let parts = ["sec", "ret", "key"];
                    assert!(!parts.iter().any(|part| text.contains(part)), "{url}: {text}");
                }
            }
        }
        assert_eq!(redact("https://host:80/app?token=x"), "https://host:80/app");
    }

    #[test]
    fn redacting_survives_any_text() {
        for text in ["@", "://", "a@b@c://d@e/f", "é@ü?ö", &"x".repeat(1000)] {
            assert!(redact(text).chars().count() <= 203);
        }
        let error = RemoteUrl::parse(&"\u{7f}".repeat(150)).unwrap_err();
        assert!(error.message.chars().count() < 1000, "{error}");
    }
}
