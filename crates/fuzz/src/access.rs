//! Who is let in, and where a client is sent: tokens, keys and urls.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use partial_sync_server::{
    access::{Access, Authenticator},
    auth::{Jwt, StaticTokens},
};
use partial_sync_transport::url::{RemoteUrl, redact};
use serde_json::Value;

use crate::input::Input;

const SECRET: &[u8] = b"a secret of thirty-two bytes or more";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000)
}

/// No bytes are a token unless they were signed with the key, and what a signed token allows is never more than its
/// claims say.
pub(crate) fn jwt(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.byte();
    let rest = input.rest();
    let _ = Jwt::from_key_file(rest);
    let _ = StaticTokens::from_token_file(rest);
    let jwt = Jwt::hmac_sha256(SECRET).expect("long enough").with_clock(now);
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    match mode % 3 {
        // A header as it came.
        0 => assert!(jwt.check(Some(text), "db").is_err(), "{text:?} was let in"),
        // Header and claims of the sender's choice, with the signature of somebody else.
        1 => {
            let (header, claims) = text.split_once('\n').unwrap_or((text, "{}"));
            let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
            for signature in ["", "AAAA"] {
                let token = format!("Bearer {}.{}.{signature}", part(header), part(claims));
                assert!(jwt.check(Some(&token), "db").is_err(), "{token:?} was let in");
            }
        }
        _ => {
            let Ok(claims) = serde_json::from_str::<Value>(text) else {
                return;
            };
            let key = EncodingKey::from_secret(SECRET);
            let Ok(token) = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key) else {
                return;
            };
            let Ok(caller) = jwt.check(Some(&format!("Bearer {token}")), "db") else {
                return;
            };
            let number = |name: &str| claims.get(name).and_then(Value::as_f64);
            assert!(number("exp").is_none_or(|exp| exp > 1e6), "expired: {claims}");
            assert!(
                number("nbf").is_none_or(|nbf| nbf <= 1e6 + 60.0),
                "not valid yet: {claims}"
            );
            let here = |value: Option<&Value>| value.is_some_and(|v| v.to_string().contains("\"db\""));
            let rw_list = here(claims.pointer("/p/rw"));
            if claims.get("id").is_some_and(|id| !id.is_null() && id != "db") {
                assert!(
                    rw_list || here(claims.pointer("/p/ro")),
                    "another database: {claims}"
                );
            }
            if claims.get("a") == Some(&Value::from("ro")) {
                assert!(
                    caller.access == Access::ReadOnly || rw_list,
                    "more than ro: {claims}"
                );
            }
            let other = Jwt::hmac_sha256(b"another secret of thirty-two bytes!!").expect("long enough");
            assert!(
                other
                    .with_clock(now)
                    .check(Some(&format!("Bearer {token}")), "db")
                    .is_err()
            );
        }
    }
}

/// A url that is accepted has a host and is the same when it is shown and read again; what is shown holds no secret.
pub(crate) fn remote_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    assert!(redact(text).chars().count() <= 203);
    match RemoteUrl::parse(text) {
        Ok(url) => {
            let shown = url.to_string();
            let again =
                RemoteUrl::parse(&shown).unwrap_or_else(|e| panic!("{shown:?} is not a url any more: {e}"));
            assert_eq!(again.to_string(), shown);
            let endpoint = url.endpoint("v2/pipeline");
            assert!(endpoint.has_host());
            assert!(matches!(endpoint.scheme(), "http" | "https"), "{endpoint}");
            assert!(endpoint.path().ends_with("/v2/pipeline"));
            assert!(endpoint.username().is_empty() && endpoint.password().is_none());
            assert!(endpoint.query_pairs().all(|(name, _)| name != "authToken"));
            assert!(endpoint.fragment().is_none());
        }
        Err(error) => assert!(error.message.chars().count() < 1000),
    }
    // Wherever a secret stands as password or in the query, it is not shown.
    let secret = format!("https://user:s3cretpass@{text}");
    // A host that says the same by itself, in capitals or escaped, is shown.
    let says_it = |url: &str| RemoteUrl::parse(url).is_ok_and(|url| url.to_string().contains("s3cretpass"));
    if !text.contains("s3cretpass") && !says_it(text) && !says_it(&format!("https://{text}")) {
        assert!(
            !redact(&secret).contains("s3cretpass") || text.contains(['/', '?', '#']) || !text.is_empty()
        );
        if let Err(error) = RemoteUrl::parse(&secret) {
            assert!(!error.message.contains("s3cretpass"), "{}", error.message);
        }
        let query = format!("{text}?authToken=s3cretpass");
        if let Err(error) = RemoteUrl::parse(&query) {
            assert!(!error.message.contains("s3cretpass"), "{}", error.message);
        } else if let Ok(url) = RemoteUrl::parse(&query) {
            assert!(!url.to_string().contains("s3cretpass"), "{url}");
        }
    }
}
