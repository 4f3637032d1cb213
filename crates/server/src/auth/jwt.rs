//! Signed tokens (JSON Web Tokens), as libSQL's server reads them.
//!
//! The algorithm belongs to the key, never to the token: a public Ed25519 key checks `EdDSA` and nothing else, a shared
//! secret `HS256` and nothing else.
//!
//! | claim | meaning |
//! |---|---|
//! | `exp`, `nbf` | not valid from / before then (seconds since 1970); absent = no limit |
//! | `a` | `"ro"` or `"rw"`, for every database |
//! | `id` | the token is for this database only |
//! | `sub` | who asks, for limits per caller; absent = each token is a caller of its own |
//! | `p` | rights per database: `{"rw": {"ns": ["a"]}, "ro": {"ns": ["b", "c"]}}` |
//!
//! A token with none of `a`, `id` and `p` may do everything.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use serde::Deserialize;

use super::bearer::bearer;
use crate::access::{Access, Authenticator, Caller, CallerId, Denied};

/// How far the clock of anyone who makes tokens may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// What a file with a shared secret starts with.
const HMAC_PREFIX: &[u8] = b"hmac:";
/// The shortest shared secret: as long as its hash.
const HMAC_MIN_BYTES: usize = 32;

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Neither of the forms that a key can have.
    #[error(
        "this server cannot use the key. It must be an Ed25519 public key, as PEM (`-----BEGIN PUBLIC \
         KEY-----`) or as 43 characters of base64url, or `hmac:` followed by a shared secret of at least 32 bytes"
    )]
    Unknown,
    /// A PEM file with something else in it.
    #[error(
        "the PEM file has no Ed25519 public key in it: make one with `openssl pkey -in PRIVATE.pem -pubout`"
    )]
    Pem(#[source] jsonwebtoken::errors::Error),
    /// A secret that could be guessed.
    #[error("the shared secret has {0} bytes: take at least 32")]
    ShortSecret(usize),
}

/// Lets in who has a token signed with one key.
#[derive(Clone)]
pub struct Jwt {
    key: DecodingKey,
    algorithm: Algorithm,
    now: fn() -> SystemTime,
}

impl Jwt {
    /// Understands the contents of a key file: PEM, raw base64url, or `hmac:` and a secret.
    ///
    /// A secret has to say that it is one: a public key that was taken for a secret would let everybody in.
    pub fn from_key_file(contents: &[u8]) -> Result<Self, KeyError> {
        if let Some(secret) = contents.strip_prefix(HMAC_PREFIX) {
            return Self::hmac_sha256(secret.trim_ascii_end());
        }
        let text = std::str::from_utf8(contents)
            .map_err(|_| KeyError::Unknown)?
            .trim();
        if text.starts_with("-----BEGIN") {
            return Self::ed25519_pem(text);
        }
        let bytes: [u8; 32] = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(KeyError::Unknown)?;
        Ok(Self::ed25519(bytes))
    }

    /// An Ed25519 public key as PEM (SubjectPublicKeyInfo).
    pub fn ed25519_pem(pem: &str) -> Result<Self, KeyError> {
        let key = DecodingKey::from_ed_pem(pem.as_bytes()).map_err(KeyError::Pem)?;
        Ok(Self::with(key, Algorithm::EdDSA))
    }

    /// The 32 bytes of an Ed25519 public key.
    pub fn ed25519(public_key: [u8; 32]) -> Self {
        Self::with(DecodingKey::from_ed_der(&public_key), Algorithm::EdDSA)
    }

    /// A secret shared with anyone who makes the tokens.
    pub fn hmac_sha256(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < HMAC_MIN_BYTES {
            return Err(KeyError::ShortSecret(secret.len()));
        }
        Ok(Self::with(DecodingKey::from_secret(secret), Algorithm::HS256))
    }

    fn with(key: DecodingKey, algorithm: Algorithm) -> Self {
        Self {
            key,
            algorithm,
            now: SystemTime::now,
        }
    }

    /// Takes the time from elsewhere.
    pub fn with_clock(self, now: fn() -> SystemTime) -> Self {
        Self { now, ..self }
    }

    fn claims(&self, token: &str) -> Result<Claims, Denied> {
        let mut validation = Validation::new(self.algorithm);
        // The times are checked below, where they have a clock and a text of their own.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &validation)
            .map_err(|cause| Denied::Invalid(self.explain(cause.kind())))?
            .claims;
        let now = (self.now)().duration_since(UNIX_EPOCH).unwrap_or_default();
        let invalid = |text: &str| Err(Denied::Invalid(text.to_owned()));
        if claims.exp.is_some_and(|exp| now.as_secs_f64() >= exp) {
            return invalid("the token has expired: get a new one");
        }
        if claims
            .nbf
            .is_some_and(|nbf| (now + CLOCK_SKEW).as_secs_f64() < nbf)
        {
            return invalid("the token is not valid yet: its `nbf` lies in the future");
        }
        Ok(claims)
    }

    fn explain(&self, kind: &ErrorKind) -> String {
        match kind {
            ErrorKind::InvalidSignature => {
                "the token was not signed with the key of this server: get one that was".to_owned()
            }
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
                format!(
                    "the token must be signed with {:?}: no other algorithm is accepted",
                    self.algorithm
                )
            }
            ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Utf8(_) => {
                "the token is not a JSON Web Token: it must have three parts, with dots between them"
                    .to_owned()
            }
            ErrorKind::Json(_) => format!(
                "the token cannot be read: its header must name {:?} as `alg`, its claims must be `exp` and `nbf` \
                 (numbers), `a` (\"ro\" or \"rw\"), `id` (text) and `p`",
                self.algorithm
            ),
            other => format!(
                "the token is not valid: {}",
                jsonwebtoken::errors::Error::from(other.clone())
            ),
        }
    }
}

impl Authenticator for Jwt {
    fn check(&self, authorization: Option<&str>, database: &str) -> Result<Caller, Denied> {
        let token = bearer(authorization)?;
        let claims = self.claims(token)?;
        let access = claims.access(database).ok_or_else(|| {
            Denied::Forbidden(format!(
                "the token is good, but not for the database {database:?}: get one that names it"
            ))
        })?;
        let id = match &claims.sub {
            Some(subject) => CallerId::of_token(subject.to_string()),
            // Without the signature, which may be written in more than one way.
            None => CallerId::of_token(token.rsplit_once('.').map_or(token, |(signed, _)| signed)),
        };
        Ok(Caller { access, id })
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// What a token says.
#[derive(Debug, Deserialize)]
struct Claims {
    exp: Option<f64>,
    nbf: Option<f64>,
    sub: Option<serde_json::Value>,
    a: Option<Right>,
    id: Option<String>,
    p: Option<PerDatabase>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Right {
    Ro,
    Rw,
}

#[derive(Debug, Default, Deserialize)]
struct PerDatabase {
    ro: Option<Scope>,
    rw: Option<Scope>,
}

#[derive(Debug, Deserialize)]
struct Scope {
    #[serde(default)]
    ns: Vec<String>,
}

impl Claims {
    fn access(&self, database: &str) -> Option<Access> {
        let names =
            |scope: &Option<Scope>| scope.as_ref().is_some_and(|s| s.ns.iter().any(|n| n == database));
        let whole = match self.a {
            Some(Right::Ro) => Some(Access::ReadOnly),
            Some(Right::Rw) => Some(Access::Full),
            None if self.p.is_some() => None,
            None => Some(Access::Full),
        };
        let whole = whole.filter(|_| self.id.as_ref().is_none_or(|id| id == database));
        let listed = match &self.p {
            Some(p) if names(&p.rw) => Some(Access::Full),
            Some(p) if names(&p.ro) => Some(Access::ReadOnly),
            _ => None,
        };
        whole.max(listed)
    }
}
