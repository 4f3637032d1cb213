//! Keys that are made here, and tokens that are signed with them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use partial_sync_server::{
    access::{Access, Authenticator as _},
    auth::{CredentialProblem, Grant, Jwt, NewKey, SigningKey},
};
use serde_json::{Value, json};

use super::signing::Signer;

const SECRET: &str = "a secret of at least thirty-two bytes";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(2_000_000_000)
}

fn anything() -> Grant {
    Grant {
        access: Access::Full,
        databases: vec![],
        expires: None,
        subject: None,
    }
}

fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn v12_a_token_of_a_new_key_allows_what_it_was_made_for() {
    let key = NewKey::generate().unwrap();
    let signing = SigningKey::from_key_file(key.private_pem.as_bytes()).unwrap();
    let jwt = Jwt::from_key_file(key.public_pem.as_bytes())
        .unwrap()
        .with_clock(now);
    assert_eq!(signing.id(), Some(key.id.as_str()));
    assert!(jwt.key_ids().eq([signing.id()]), "a server finds it by its id");
    let check = |grant: &Grant, database: &str| {
        let token = format!("Bearer {}", signing.sign(grant).unwrap());
        jwt.check(Some(&token), database)
            .map_err(|denied| denied.status().as_u16())
    };
    let access = |grant: &Grant, database: &str| check(grant, database).map(|caller| caller.access);
    assert_eq!(access(&anything(), "any"), Ok(Access::Full));
    let reader = Grant {
        access: Access::ReadOnly,
        ..anything()
    };
    assert_eq!(access(&reader, "any"), Ok(Access::ReadOnly));
    for allowed in [Access::ReadOnly, Access::Full] {
        let scoped = Grant {
            access: allowed,
            databases: vec!["a".to_owned(), "b".to_owned()],
            ..anything()
        };
        assert_eq!(
            (access(&scoped, "a"), access(&scoped, "b")),
            (Ok(allowed), Ok(allowed))
        );
        assert_eq!((access(&scoped, "c"), access(&scoped, "")), (Err(403), Err(403)));
    }
    let until = |seconds| Grant {
        expires: Some(now() + Duration::from_secs(seconds)),
        subject: Some("ann".to_owned()),
        ..anything()
    };
    assert_eq!(
        (access(&until(1), "any"), access(&until(0), "any")),
        (Ok(Access::Full), Err(401))
    );
    let (first, second) = (check(&until(1), "any").unwrap(), check(&until(2), "any").unwrap());
    assert_eq!(first.id, second.id, "one subject is one caller");
    // Other servers read whole numbers only.
    let claims = part(&signing.sign(&until(1)).unwrap(), 1);
    assert_eq!(claims["exp"], json!(2_000_000_001_u64));
    assert!(claims["iat"].is_u64());
    assert_ne!(NewKey::generate().unwrap().id, key.id);
    let shown = format!("{key:?} {signing:?}");
    assert!(
        !shown.contains(key.private_pem.lines().nth(1).unwrap()),
        "{shown}"
    );
}

#[test]
fn v12_tokens_are_signed_with_keys_that_others_made() {
    // PKCS #8 of version 2, which has the public key in it.
    let signer = Signer::new();
    let key = SigningKey::from_key_file(format!("# mine\n{}", signer.private_pem()).as_bytes()).unwrap();
    let jwt = Jwt::from_key_file(signer.raw().as_bytes()).unwrap();
    let token = key.sign(&anything()).unwrap();
    assert_eq!(part(&token, 0)["kid"], json!(key.id().unwrap()));
    assert!(jwt.check(Some(&format!("Bearer {token}")), "any").is_ok());

    for (line, id) in [
        (format!("hmac:{SECRET}"), None),
        (format!("new hmac:{SECRET}\n"), Some("new")),
    ] {
        let key = SigningKey::from_key_file(line.as_bytes()).unwrap();
        let jwt = Jwt::from_key_file(line.as_bytes()).unwrap();
        assert_eq!(key.id(), id);
        let token = format!("Bearer {}", key.sign(&anything()).unwrap());
        assert!(jwt.check(Some(&token), "any").is_ok());
        let other = Jwt::from_key_file(format!("new hmac:{SECRET}, but another one").as_bytes()).unwrap();
        assert!(other.check(Some(&token), "any").is_err());
    }
}

#[test]
fn v12_a_file_that_cannot_sign_is_refused_without_its_secret() {
    let signer = Signer::new();
    let two = format!("hmac:{SECRET}\nhmac:{SECRET}, but another one");
    let encrypted = signer
        .private_pem()
        .replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let ec = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for (contents, text) in [
        (String::new(), "there is nothing in it"),
        (SECRET.to_owned(), "line 1: tokens cannot be signed with this"),
        ("hmac:s3cret".to_owned(), "line 1: the shared secret has 6 bytes"),
        (two, "line 2: this is a second key"),
        (signer.pem(), "line 1: tokens cannot be signed with this"),
        (
            format!("\n{}", signer.raw()),
            "line 2: tokens cannot be signed with this",
        ),
        (encrypted, "line 1: tokens cannot be signed with this"),
        (ec, "line 1: tokens cannot be signed with this"),
        (
            signer.private_pem()[..60].to_owned(),
            "line 1: this PEM block has no",
        ),
    ] {
        let error = SigningKey::from_key_file(contents.as_bytes()).unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(said.starts_with(text), "{contents}: {said}");
        assert!(!said.contains(SECRET) && !said.contains("s3cret"), "{said}");
    }
    let error = SigningKey::read("/nothing/here").unwrap_err();
    assert!(matches!(error.problem(), CredentialProblem::Unreadable(_)));
    assert!(
        error.to_string().starts_with("/nothing/here: it cannot be read"),
        "{error}"
    );
}
