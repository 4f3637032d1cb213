//! The forms that keys and tokens have in files, and which key a token is checked with.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey};
use partial_sync_server::{
    access::{Access, Authenticator, Denied},
    auth::{CredentialError, CredentialProblem, Jwt, StaticTokens},
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData as _};
use serde_json::{Value, json};

use super::signing::{Signer, base64url, sign};

const SECRETS: [&str; 2] = [
    "the first secret, of more than 32 bytes",
    "the second secret, of more than 32 bytes",
];
/// The modulus of rsa.pem.
const RSA_MODULUS: &str = "lOE6GBlkqWRki7BCP2dXZhqIDNTRld4KNvCR4BrQBmoahonqVJilfe9iYRzHXW59-VttEBNDH6e7jqddPxJH7nnLqSJWQaL7vm96_r8j5GdGfSlSGAjROkevIbIcT7S5foQP7ZkGHErDlS8WSSQssSFrrJ0Z7r9kQNltxVMyubmRzbQoUhZOysT77LzyaP9cV44l5a9AKej6iVZ4ZzrsFKl3Az6aVysZ6hMlUUBHIO-wKqoN4BSaV-g-5Y7zjDx8dabKVatpcd9BhsyyYiQO6bLvlqJMRBM7EaaZhYFJwio1hBoGkr6ecKMwghLR500iftFg5AhhbJRe6alyV4HbUw";

fn check(way: &impl Authenticator, token: &str) -> Result<Access, Denied> {
    way.check(Some(&format!("Bearer {token}")), "any")
        .map(|caller| caller.access)
}

fn refusal(way: &impl Authenticator, token: &str) -> String {
    let denied = check(way, token).unwrap_err();
    assert_eq!(denied.status(), 401);
    denied.to_string()
}

fn with_secret(secret: &str, kid: Option<&str>) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    sign(Algorithm::HS256, &key, kid, &json!({"a": "ro"}))
}

fn keys(contents: &str) -> Jwt {
    Jwt::from_key_file(contents.as_bytes()).unwrap()
}

/// Was red: the two were one secret with a line break in it, with which nobody signs.
#[test]
fn v12_two_secrets_in_two_lines_are_two_keys() {
    let [first, second] = SECRETS;
    let jwt = keys(&format!("hmac:{first}\r\n# the next one\n\n  hmac:{second}\n"));
    for secret in [first, second] {
        assert_eq!(check(&jwt, &with_secret(secret, None)), Ok(Access::ReadOnly));
    }
    let both = with_secret(&format!("{first}\nhmac:{second}"), None);
    assert!(refusal(&jwt, &both).contains("not signed"));

    let error = Jwt::from_key_file(format!("hmac:{first}\n{second}\n").as_bytes()).unwrap_err();
    assert!(matches!(error.problem(), CredentialProblem::UnknownKey));
    assert!(error.to_string().starts_with("line 2: "), "{error}");
}

#[test]
fn v12_keys_of_every_form_in_one_file() {
    let signers: Vec<_> = (0..4).map(|_| Signer::new()).collect();
    let [secret, named] = SECRETS;
    let contents = format!(
        "\u{feff}# keys\n{}\n{}\n{}{}\nnew {}\nhmac:{secret}\nold hmac:{named}",
        signers[0].raw(),
        signers[1].pem(),
        signers[2].pem(),
        "",
        signers[3].raw(),
    );
    let jwt = keys(&contents);
    for signer in &signers {
        assert_eq!(check(&jwt, &signer.token(None, json!({}))), Ok(Access::Full));
    }
    for token in [
        with_secret(secret, None),
        with_secret(named, None),
        with_secret(named, Some("old")),
    ] {
        assert_eq!(check(&jwt, &token), Ok(Access::ReadOnly));
    }
    assert!(refusal(&jwt, &Signer::new().token(None, json!({}))).contains("not signed"));
    let ids: Vec<_> = jwt.key_ids().collect();
    assert_eq!((ids[3], ids[4], ids[5]), (Some("new"), None, Some("old")));
    assert_eq!(ids[0].map(str::len), Some(43), "the fingerprint");
    let shown = format!("{jwt:?}");
    assert!(
        !shown.contains("secret,") && !shown.contains(&signers[3].raw()),
        "{shown}"
    );
}

/// The example of RFC 8037, appendix A.3.
#[test]
fn v12_the_fingerprint_of_a_key_is_that_of_the_rfc() {
    let jwt = keys("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    let ids: Vec<_> = jwt.key_ids().collect();
    assert_eq!(ids, [Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")]);
}

/// The key's algorithm and the ids of a set; what a set has for other uses is left out.
#[test]
fn v12_a_set_of_json_web_keys_of_all_algorithms() {
    let ed = Signer::new();
    let elliptic = |algorithm, kid: &str| {
        let (curve, pair) = match algorithm {
            Algorithm::ES256 => ("P-256", KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)),
            _ => ("P-384", KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)),
        };
        let pair = pair.unwrap();
        let point = &pair.der_bytes()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let jwk = json!({"kty": "EC", "crv": curve, "kid": kid, "x": base64url(x), "y": base64url(y)});
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        (jwk, sign(algorithm, &key, Some(kid), &json!({})))
    };
    let rsa = EncodingKey::from_rsa_pem(include_bytes!("rsa.pem")).unwrap();
    let (p256, of_p256) = elliptic(Algorithm::ES256, "p256");
    let (p384, of_p384) = elliptic(Algorithm::ES384, "p384");
    let secret = "s".repeat(64);
    let set = json!({"keys": [
        ed.jwk("ed"),
        p256,
        p384,
        {"kty": "RSA", "kid": "rsa", "n": RSA_MODULUS, "e": "AQAB", "x5c": ["MIIC"], "use": "sig"},
        {"kty": "RSA", "kid": "pss", "n": RSA_MODULUS, "e": "AQAB", "alg": "PS512"},
        {"kty": "oct", "kid": "oct", "k": base64url(secret.as_bytes()), "alg": "HS512"},
        {"kty": "RSA", "kid": "for encryption", "n": RSA_MODULUS, "e": "AQAB", "use": "enc"},
        {"kty": "RSA", "kid": "for encryption too", "n": RSA_MODULUS, "e": "AQAB", "alg": "RSA-OAEP"},
        {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
        {"kty": "new", "data": {"of": ["some", "kind"]}},
    ]});
    let jwt = keys(&set.to_string());
    let secret = EncodingKey::from_secret(secret.as_bytes());
    let claims = json!({});
    for token in [
        ed.token(Some("ed"), json!({})),
        of_p256,
        of_p384,
        sign(Algorithm::RS256, &rsa, Some("rsa"), &claims),
        sign(Algorithm::RS256, &rsa, None, &claims),
        sign(Algorithm::PS512, &rsa, Some("pss"), &claims),
        sign(Algorithm::HS512, &secret, Some("oct"), &claims),
    ] {
        assert_eq!(check(&jwt, &token), Ok(Access::Full), "{token}");
    }
    for (algorithm, key, kid) in [
        (Algorithm::RS512, &rsa, "rsa"),
        (Algorithm::RS256, &rsa, "pss"),
        (Algorithm::HS256, &secret, "oct"),
        (Algorithm::HS512, &secret, "ed"),
    ] {
        let refused = refusal(&jwt, &sign(algorithm, key, Some(kid), &claims));
        assert!(
            refused.contains("must be signed with ES256 or ES384 or EdDSA or "),
            "{refused}"
        );
    }
    assert_eq!(jwt.key_ids().count(), 6);
    let single = keys(&ed.jwk("ed").to_string());
    assert_eq!(check(&single, &ed.token(None, json!({}))), Ok(Access::Full));
}

#[test]
fn v12_the_id_in_a_token_chooses_its_key() {
    let [one, two, unnamed] = [(); 3].map(|()| Signer::new());
    let named = json!({"keys": [one.jwk("one"), two.jwk("two")]}).to_string();
    let jwt = keys(&named);
    assert_eq!(check(&jwt, &two.token(Some("two"), json!({}))), Ok(Access::Full));
    assert_eq!(check(&jwt, &two.token(None, json!({}))), Ok(Access::Full));
    let refused = refusal(&jwt, &two.token(Some("one"), json!({})));
    assert!(refused.contains("not signed"), "{refused}");
    let refused = refusal(&jwt, &two.token(Some("three"), json!({})));
    assert!(
        refused.contains("a key that this server does not have"),
        "{refused}"
    );

    // Whoever made a key without an id may have given it one that is known elsewhere only.
    let jwt = keys(&format!("one {}\n{}", one.raw(), unnamed.pem()));
    assert_eq!(
        check(&jwt, &unnamed.token(Some("three"), json!({}))),
        Ok(Access::Full)
    );
    let fingerprint = jwt.key_ids().nth(1).unwrap().unwrap().to_owned();
    assert_eq!(
        check(&jwt, &unnamed.token(Some(&fingerprint), json!({}))),
        Ok(Access::Full)
    );
    let refused = refusal(&jwt, &one.token(Some("three"), json!({})));
    assert!(refused.contains("not signed"), "{refused}");
}

/// What is wrong, in which line, and never the secret itself.
#[test]
fn v12_a_file_that_cannot_be_used_is_refused_with_its_line_and_without_its_secret() {
    let signer = Signer::new();
    let (pem, raw, jwk) = (signer.pem(), signer.raw(), signer.jwk("one"));
    let ec = KeyPair::generate().unwrap().public_key_pem();
    let secret = SECRETS[0];
    let set = |keys: Value| json!({ "keys": keys }).to_string();
    let broken_pem = pem.replace("MCow", "!!!!");
    for (contents, start, text) in [
        (String::new(), "there is nothing", "put at least one key"),
        (
            "\n# nothing\n".to_owned(),
            "there is nothing",
            "put at least one key",
        ),
        (secret.to_owned(), "line 1: ", "`hmac:` followed by"),
        (
            format!("{raw}\nid {secret}"),
            "line 2: ",
            "not a key that the server can use",
        ),
        (format!("{raw} {raw} {raw}"), "line 1: ", "not a key"),
        (
            "hmac:s3cret".to_owned(),
            "line 1: ",
            "has 6 bytes: take at least 32",
        ),
        (format!("{raw}\n{raw}"), "line 2: ", "in line 1, has the id"),
        (
            format!("a {raw}\na hmac:{secret}"),
            "line 2: ",
            "in line 1, has the id \"a\" too",
        ),
        (format!("a\u{7} {raw}"), "line 1: ", "control character"),
        (
            format!("\n{}", signer.private_pem()),
            "line 2: ",
            "give the server the public key",
        ),
        (ec, "line 1: ", "not an Ed25519 public key"),
        (broken_pem, "line 1: ", "not an Ed25519 public key"),
        (pem[..60].to_owned(), "line 1: ", "the file was cut"),
        (format!("{pem}{secret}"), "line 4: ", "not a key"),
        (
            "{\"keys\": [\n{\"k\": 5318008}]}".to_owned(),
            "line 2: ",
            "the JSON is broken",
        ),
        (format!("{jwk}\n{jwk}"), "line 2: ", "the JSON is broken"),
        (set(json!([])), "no key there", "EdDSA"),
        (
            set(json!([{"kty": "oct", "k": base64url(secret.as_bytes()), "use": "enc"}])),
            "no key there",
            "not for encryption",
        ),
        (
            set(json!([jwk, {"kty": "oct", "k": "czNjcmV0"}])),
            "key 2 of the set: ",
            "has 6 bytes",
        ),
        (
            set(json!([{"kty": "oct", "alg": "HS512", "k": base64url(secret.as_bytes())}])),
            "key 1 of the set: ",
            "take at least 64",
        ),
        (
            set(json!([{"kty": "OKP", "crv": "Ed25519", "x": "s3cret"}])),
            "key 1 of the set: ",
            "`x` must be 32 bytes",
        ),
        (
            set(json!([{"kty": "OKP", "crv": "Ed25519", "x": raw, "d": "s3cret"}])),
            "key 1 of the set: ",
            "private key",
        ),
        (
            set(json!([{"kty": "EC", "crv": "P-384", "x": raw, "y": raw}])),
            "key 1 of the set: ",
            "48 for P-384",
        ),
        (
            set(json!([{"kty": "RSA", "n": raw, "e": "AQAB"}])),
            "key 1 of the set: ",
            "2048 bits",
        ),
        (set(json!([{"k": secret}])), "key 1 of the set: ", "no `kty`"),
        (
            set(json!([jwk, jwk])),
            "key 2 of the set: ",
            "key 1 of the set, has the id \"one\"",
        ),
    ] {
        let error = Jwt::from_key_file(contents.as_bytes()).unwrap_err();
        let said = error.to_string();
        assert!(
            said.starts_with(start) && said.contains(text),
            "{contents:?}: {said}"
        );
        for shown in [said, format!("{error:?}")] {
            for secret in [secret, "s3cret", "czNjcmV0", "5318008"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
    }
}

#[test]
fn v12_no_more_keys_are_tried_than_sixty_four() {
    let signers: Vec<_> = (0..65).map(|_| Signer::new()).collect();
    let lines = |n: usize| {
        signers[..n]
            .iter()
            .map(Signer::raw)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let jwt = keys(&lines(64));
    assert_eq!(check(&jwt, &signers[63].token(None, json!({}))), Ok(Access::Full));
    let error = Jwt::from_key_file(lines(65).as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 65: there are more than 64 keys: remove those with which nothing is signed any more"
    );
}

fn write(path: &Path, contents: &str) {
    std::fs::write(path, contents).unwrap();
}

#[test]
fn v12_a_folder_has_the_keys_of_all_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let empty = Jwt::read(folder.path()).unwrap_err();
    assert!(matches!(empty.problem(), CredentialProblem::Empty), "{empty}");
    let [one, two] = [(); 2].map(|()| Signer::new());
    write(&at("one.pem"), &one.pem());
    write(&at("two.json"), &two.jwk("two").to_string());
    write(&at(".hidden"), "not a key");
    std::fs::create_dir(at("..data")).unwrap();
    std::fs::create_dir(at("old")).unwrap();
    let jwt = Jwt::read(folder.path()).unwrap();
    for signer in [&one, &two] {
        assert_eq!(check(&jwt, &signer.token(None, json!({}))), Ok(Access::Full));
    }
    let said = |problem: Result<Jwt, CredentialError>| problem.unwrap_err().to_string();
    write(&at("three"), &one.raw());
    let error = said(Jwt::read(folder.path()));
    let (first, second) = (at("one.pem"), at("three"));
    assert!(
        error.starts_with(&format!("{}, line 1: ", second.display())),
        "{error}"
    );
    assert!(
        error.contains(&format!("in {}, line 1, has the id", first.display())),
        "{error}"
    );
    write(&at("three"), "");
    let error = said(Jwt::read(folder.path()));
    assert!(
        error.starts_with(&format!("{}: there is nothing in it", second.display())),
        "{error}"
    );
    let error = said(Jwt::read(at("four")));
    assert!(error.contains("four: it cannot be read: "), "{error}");
    std::fs::File::create(at("three"))
        .unwrap()
        .set_len(2 << 20)
        .unwrap();
    let error = said(Jwt::read(at("three")));
    assert!(error.contains("three: it has more than 1048576 bytes"), "{error}");
}

#[test]
fn v12_a_file_of_tokens_says_what_each_may_do_and_who_it_is() {
    let contents = "# tokens\nplain\nfull w-1 writer\n  read-only\tr.1~+/=  the reports \nread-only r2 the reports\r\n\n";
    let tokens = StaticTokens::from_token_file(contents.as_bytes()).unwrap();
    assert_eq!(tokens.count(), 4);
    let caller = |token: &str| tokens.check(Some(&format!("Bearer {token}")), "any");
    let [plain, writer, first, second] =
        ["plain", "w-1", "r.1~+/=", "r2"].map(|token| caller(token).unwrap());
    assert_eq!((plain.access, writer.access), (Access::Full, Access::Full));
    assert_eq!(
        (first.access, second.access),
        (Access::ReadOnly, Access::ReadOnly)
    );
    assert_eq!(first.id, second.id, "one name is one caller");
    assert_ne!(plain.id, writer.id);
    for wrong in ["full", "read-only", "w-1 writer", "writer", "R2", "r"] {
        assert!(caller(wrong).is_err(), "{wrong}");
    }
    assert_eq!(tokens.check(None, "any"), Err(Denied::Missing));
    assert!(!format!("{tokens:?}").contains("w-1"));
}

#[test]
fn v12_a_file_of_tokens_that_cannot_be_used_is_refused_with_its_line_and_without_a_token() {
    let many: String = (0..1025).map(|n| format!("t{n}\n")).collect();
    for (contents, start, text) in [
        ("", "there is nothing", "put at least one"),
        ("read-only", "line 1: ", "`read-only TOKEN`"),
        ("full", "line 1: ", "`full TOKEN`"),
        ("one\ns3cret s3cret2", "line 2: ", "`full TOKEN`"),
        ("readonly s3cret", "line 1: ", "`read-only TOKEN`"),
        ("s3crét", "line 1: ", "cannot be sent in a header"),
        ("one\ns3cret\nread-only s3cret bob", "line 3: ", "in line 2 too"),
        (&many, "line 1025: ", "more than 1024 tokens"),
    ] {
        let error = StaticTokens::from_token_file(contents.as_bytes()).unwrap_err();
        let said = error.to_string();
        assert!(
            said.starts_with(start) && said.contains(text),
            "{contents:?}: {said}"
        );
        assert!(
            !said.contains("s3cr") && !format!("{error:?}").contains("s3cr"),
            "{said}"
        );
    }
}
