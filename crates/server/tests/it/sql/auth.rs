//! Tokens, as the header of a real request.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use partial_sync_server::{
    access::{Access, Authenticator as _, Denied},
    auth::{CredentialProblem, Jwt, StaticToken},
};
use serde_json::{Value, json};

use super::server::Server;

const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEII+dRl3XJ8PL2X2z406a9V4obsxezZW6Ev0yGoARcW91
-----END PRIVATE KEY-----";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA/yLXhTIFUFkUDZrgRT+RPVM8m9xoaJdRtxC0oF+nnz4=
-----END PUBLIC KEY-----";
const PUBLIC_RAW: &str = "_yLXhTIFUFkUDZrgRT-RPVM8m9xoaJdRtxC0oF-nnz4";
const OTHER_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIO/L9ZCyPmnDbECan6WZXceuxY5s7I9d1rNd4iOP/hSW
-----END PRIVATE KEY-----";
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: u64 = 2_000_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn sign(private: &str, claims: &Value) -> String {
    let key = EncodingKey::from_ed_pem(private.as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key).unwrap()
}

fn token(claims: Value) -> String {
    sign(PRIVATE, &claims)
}

fn ed25519() -> Jwt {
    Jwt::from_key_file(PUBLIC.as_bytes()).unwrap().with_clock(now)
}

fn check(jwt: &Jwt, token: &str, database: &str) -> Result<Access, Denied> {
    jwt.check(Some(&format!("Bearer {token}")), database)
        .map(|caller| caller.access)
}

fn reason(denied: Result<Access, Denied>) -> String {
    let denied = denied.unwrap_err();
    assert_eq!(denied.status(), 401, "{denied}");
    denied.to_string()
}

#[test]
fn the_claims_decide_what_a_token_may_do_with_which_database() {
    use Access::{Full, ReadOnly};
    let jwt = ed25519();
    for (claims, database, expected) in [
        (json!({}), "any", Some(Full)),
        (json!({"a": "rw"}), "any", Some(Full)),
        (json!({"a": "ro"}), "any", Some(ReadOnly)),
        (json!({"id": "one"}), "one", Some(Full)),
        (json!({"id": "one"}), "two", None),
        (json!({"id": "one", "a": "ro"}), "one", Some(ReadOnly)),
        (
            json!({"p": {"rw": {"ns": ["one"]}, "ro": {"ns": ["two"]}}}),
            "one",
            Some(Full),
        ),
        (
            json!({"p": {"rw": {"ns": ["one"]}, "ro": {"ns": ["two"]}}}),
            "two",
            Some(ReadOnly),
        ),
        (
            json!({"p": {"rw": {"ns": ["one"]}, "ro": {"ns": ["two"]}}}),
            "three",
            None,
        ),
        (json!({"p": {}}), "one", None),
        (
            json!({"p": {"roa": {"ns": ["one"]}, "rwa": {"ns": ["two"]}, "rw": {"ns": null}, "ddl": {"ns": ["one"]}}}),
            "one",
            Some(ReadOnly),
        ),
        (
            json!({"p": {"rwa": {"ns": ["one"]}, "tags": 1}}),
            "one",
            Some(Full),
        ),
        (
            json!({"p": {"rw": {"ns": ["one"]}}, "a": "ro"}),
            "one",
            Some(Full),
        ),
        (
            json!({"p": {"rw": {"ns": ["one"]}}, "a": "ro"}),
            "two",
            Some(ReadOnly),
        ),
        (
            json!({"exp": NOW + 1, "nbf": NOW, "aud": "somebody", "iss": "someone", "unknown": [1]}),
            "any",
            Some(Full),
        ),
    ] {
        let got = check(&jwt, &token(claims.clone()), database);
        match expected {
            Some(access) => assert_eq!(got, Ok(access), "{claims} {database}"),
            None => assert_eq!(got.unwrap_err().status(), 403, "{claims} {database}"),
        }
    }
}

#[test]
fn a_token_that_is_no_good_is_told_why() {
    let jwt = ed25519();
    let hmac = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &json!({}),
        // The classic: the public key, taken for a shared secret.
        &EncodingKey::from_secret(PUBLIC.as_bytes()),
    )
    .unwrap();
    // {"alg":"none","typ":"JWT"} . {} . (no signature)
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.e30.";
    let good = token(json!({"a": "rw"}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{}.{signature}", signed.replace('.', ".e30"));
    for (token, text) in [
        (token(json!({"exp": NOW})), "expired"),
        (token(json!({"exp": NOW - 1000})), "expired"),
        (token(json!({"nbf": NOW + 1000})), "not valid yet"),
        (token(json!({"exp": "soon"})), "cannot be read"),
        (token(json!({"a": "root"})), "cannot be read"),
        (
            sign(OTHER_PRIVATE, &json!({"a": "rw"})),
            "not signed with a key of this server",
        ),
        (forged, "not signed"),
        (hmac, "must be signed with EdDSA"),
        (none.to_owned(), "cannot be read"),
        ("x".to_owned(), "not a JSON Web Token"),
        ("a.b.c".to_owned(), "not a JSON Web Token"),
    ] {
        let reason = reason(check(&jwt, &token, "any"));
        assert!(reason.contains(text), "{token}: {reason}");
        assert!(
            !reason.contains(&token) || token.len() < 10,
            "the token is not repeated"
        );
    }
}

#[test]
fn a_shared_secret_accepts_its_own_algorithm_only() {
    let file = [b"hmac:", SECRET, b"\n"].concat();
    let jwt = Jwt::from_key_file(&file).unwrap().with_clock(now);
    let sign = |algorithm| {
        let key = EncodingKey::from_secret(SECRET);
        jsonwebtoken::encode(&Header::new(algorithm), &json!({"a": "ro"}), &key).unwrap()
    };
    assert_eq!(check(&jwt, &sign(Algorithm::HS256), "any"), Ok(Access::ReadOnly));
    let refused = reason(check(&jwt, &sign(Algorithm::HS512), "any"));
    assert!(refused.contains("HS256"), "{refused}");
    let refused = reason(check(&jwt, &token(json!({})), "any"));
    assert!(refused.contains("HS256"), "{refused}");
}

#[test]
fn a_key_file_is_pem_or_raw_or_says_that_it_is_a_secret() {
    let raw = Jwt::from_key_file(format!("{PUBLIC_RAW}\n").as_bytes()).unwrap();
    assert_eq!(check(&raw, &token(json!({})), "any"), Ok(Access::Full));
    let problem = |contents: &[u8]| Jwt::from_key_file(contents).unwrap_err();
    for unknown in [SECRET, b"short", b"\xff\xfe"] {
        assert!(matches!(
            problem(unknown).problem(),
            CredentialProblem::UnknownKey
        ));
    }
    assert!(matches!(problem(b"").problem(), CredentialProblem::Empty));
    assert!(matches!(
        problem(PRIVATE.as_bytes()).problem(),
        CredentialProblem::Private
    ));
    assert!(matches!(
        problem(b"hmac:tooshort").problem(),
        CredentialProblem::ShortSecret { bytes: 8, .. }
    ));
    assert!(!format!("{raw:?}").contains(PUBLIC_RAW));
}

#[tokio::test]
async fn over_http_a_bad_token_gets_401_and_what_to_do_and_a_good_one_its_rights() {
    let server = Server::with_auth(ed25519()).await;
    let body =
        json!({"requests": [{"type": "execute", "stmt": {"sql": "CREATE TABLE t(v)"}}, {"type": "close"}]});
    let (status, answer) = server.send("/v2/pipeline", None, &body).await;
    assert_eq!(status, 401);
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("Authorization: Bearer TOKEN"),
        "{answer}"
    );
    let expired = token(json!({"exp": NOW - 1}));
    let (status, answer) = server.send("/v2/pipeline", Some(&expired), &body).await;
    assert_eq!(status, 401);
    assert!(answer["error"].as_str().unwrap().contains("expired"));
    let (status, _) = server
        .send("/v2/pipeline", Some(&token(json!({"id": "another"}))), &body)
        .await;
    assert_eq!(status, 403);
    let (status, answer) = server
        .send("/v2/pipeline", Some(&token(json!({"a": "ro"}))), &body)
        .await;
    assert_eq!(
        (status, &answer["results"][0]["error"]["code"]),
        (200, &json!("SQLITE_READONLY"))
    );
    let (status, answer) = server
        .send("/v2/pipeline", Some(&token(json!({"a": "rw"}))), &body)
        .await;
    assert_eq!((status, &answer["results"][0]["type"]), (200, &json!("ok")));
}

#[tokio::test]
async fn over_http_a_static_token_lets_in_who_knows_it() {
    let server = Server::with_auth(StaticToken::new("s3cret", Access::Full)).await;
    let body = json!({"requests": [{"type": "close"}]});
    for (token, expected) in [
        (Some("s3cret"), 200),
        (Some("s3cre"), 401),
        (Some(""), 401),
        (None, 401),
    ] {
        assert_eq!(
            server.send("/v2/pipeline", token, &body).await.0,
            expected,
            "{token:?}"
        );
    }
}

#[test]
fn who_asks_is_the_subject_or_else_the_token() {
    let jwt = ed25519();
    let id = |claims: Value| {
        let header = format!("Bearer {}", token(claims));
        jwt.check(Some(&header), "any").unwrap().id
    };
    let ann = id(json!({"sub": "ann", "exp": NOW + 1}));
    assert_eq!(ann, id(json!({"sub": "ann", "a": "ro"})));
    assert_ne!(ann, id(json!({"sub": "bob", "exp": NOW + 1})));
    assert_eq!(id(json!({"exp": NOW + 1})), id(json!({"exp": NOW + 1})));
    assert_ne!(id(json!({"exp": NOW + 1})), id(json!({"exp": NOW + 2})));
}
