//! Somebody who makes keys and signs tokens.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _};
use serde_json::{Value, json};

/// A new Ed25519 key.
pub(super) struct Signer {
    key: EncodingKey,
    pair: KeyPair,
}

impl Signer {
    pub(super) fn new() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        Self {
            key: EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap(),
            pair,
        }
    }

    /// The public key as PEM.
    pub(super) fn pem(&self) -> String {
        self.pair.public_key_pem()
    }

    /// The private key as PEM.
    pub(super) fn private_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// The public key in base64url.
    pub(super) fn raw(&self) -> String {
        base64url(self.pair.der_bytes())
    }

    /// The public key as a JSON Web Key.
    pub(super) fn jwk(&self, kid: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": self.raw()})
    }

    /// A token with these claims, perhaps with the id of its key.
    pub(super) fn token(&self, kid: Option<&str>, claims: Value) -> String {
        sign(Algorithm::EdDSA, &self.key, kid, &claims)
    }
}

pub(super) fn sign(algorithm: Algorithm, key: &EncodingKey, kid: Option<&str>, claims: &Value) -> String {
    let header = Header {
        kid: kid.map(str::to_owned),
        ..Header::new(algorithm)
    };
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

pub(super) fn base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
