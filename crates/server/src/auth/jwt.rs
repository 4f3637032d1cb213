//! Signed tokens (JSON Web Tokens), as libSQL's server reads them.
//!
//! The algorithm belongs to the key, never to the token: a public Ed25519 key checks `EdDSA` and nothing else, a shared
//! secret `HS256` and nothing else.
//!
//! A token says with `kid` which key it was signed with. When no key has that id, those that came without one are tried, and
//! without `kid` all of the token's algorithm: no more than 64, since anyone can send a token.

use std::{
    fmt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, Header, Validation, errors::ErrorKind};

use super::{
    bearer::bearer,
    claims::Claims,
    key::{Id, Key},
    key_file::{keys_at, keys_in},
    problem::CredentialError,
};
use crate::access::{Authenticator, Caller, CallerId, Denied};

/// How far the clock of anyone who makes tokens may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Lets in who has a token signed with one of some keys.
#[derive(Clone)]
pub struct Jwt {
    keys: Vec<Key>,
    now: fn() -> SystemTime,
}

impl Jwt {
    /// Reads the keys of a file, or of all files of a folder; see [`Self::from_key_file`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, CredentialError> {
        keys_at(path.as_ref()).map(Self::with)
    }

    /// Understands the contents of a key file, in which each key has a line of its own: an Ed25519 public key in base64url, or
    /// `hmac:` and a secret, perhaps after the id of the key and a space; between them, PEM blocks with Ed25519 public
    /// keys. Or the contents are a JSON Web Key, or a set of them.
    ///
    /// A secret has to say that it is one: a public key that was taken for a secret would let everybody in.
    pub fn from_key_file(contents: &[u8]) -> Result<Self, CredentialError> {
        keys_in(contents).map(Self::with)
    }

    /// An Ed25519 public key as PEM (SubjectPublicKeyInfo).
    pub fn ed25519_pem(pem: &str) -> Result<Self, CredentialError> {
        Ok(Self::with(vec![Key::pem(pem.as_bytes())?]))
    }

    /// The 32 bytes of an Ed25519 public key.
    pub fn ed25519(public_key: [u8; 32]) -> Self {
        Self::with(vec![Key::ed25519(&public_key)])
    }

    /// A secret shared with anyone who makes the tokens.
    pub fn hmac_sha256(secret: &[u8]) -> Result<Self, CredentialError> {
        Ok(Self::with(vec![Key::secret(Algorithm::HS256, secret)?]))
    }

    fn with(keys: Vec<Key>) -> Self {
        Self {
            keys,
            now: SystemTime::now,
        }
    }

    /// Takes the time from elsewhere.
    pub fn with_clock(self, now: fn() -> SystemTime) -> Self {
        Self { now, ..self }
    }

    /// The ids of the keys: those that they came with, the fingerprints (RFC 7638) of other public keys, and nothing for other
    /// shared secrets.
    pub fn key_ids(&self) -> impl Iterator<Item = Option<&str>> {
        self.keys.iter().map(|key| key.id.as_ref().map(Id::as_str))
    }

    fn claims(&self, token: &str) -> Result<Claims, Denied> {
        let invalid = |text: String| Denied::Invalid(text);
        let header = jsonwebtoken::decode_header(token).map_err(|e| invalid(self.explain(e.kind())))?;
        let mut keys = self.candidates(&header).peekable();
        if keys.peek().is_none() {
            return Err(invalid(NO_SUCH_KEY.to_owned()));
        }
        let mut keys = keys.filter(|key| key.algorithm == header.alg).peekable();
        if keys.peek().is_none() {
            return Err(invalid(self.explain(&ErrorKind::InvalidAlgorithm)));
        }
        let mut validation = Validation::new(header.alg);
        // The times are checked below, where they have a clock and a text of their own.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let checked = keys
            .map(|key| jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation))
            .find(|checked| !matches!(checked, Err(e) if *e.kind() == ErrorKind::InvalidSignature));
        let claims = match checked {
            Some(Ok(token)) => token.claims,
            Some(Err(cause)) => return Err(invalid(self.explain(cause.kind()))),
            None => return Err(invalid(self.explain(&ErrorKind::InvalidSignature))),
        };
        self.check_times(&claims)?;
        Ok(claims)
    }

    /// The keys that a token may have been signed with, by what it says itself.
    fn candidates<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a Key> {
        let kid = header.kid.as_deref();
        let named = kid.and_then(|kid| {
            let has_it = |key: &&Key| key.id.as_ref().is_some_and(|id| id.as_str() == kid);
            self.keys.iter().find(has_it)
        });
        let others = self.keys.iter();
        let others = others.filter(move |key| named.is_none() && (kid.is_none() || !key.is_named()));
        named.into_iter().chain(others)
    }

    fn check_times(&self, claims: &Claims) -> Result<(), Denied> {
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
        Ok(())
    }

    fn explain(&self, kind: &ErrorKind) -> String {
        match kind {
            ErrorKind::InvalidSignature => {
                "the token was not signed with a key of this server: get one that was".to_owned()
            }
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
                format!(
                    "the token must be signed with {}: no other algorithm is accepted",
                    self.algorithms()
                )
            }
            ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Utf8(_) => {
                "the token is not a JSON Web Token: it must have three parts, with dots between them"
                    .to_owned()
            }
            ErrorKind::Json(_) => format!(
                "the token cannot be read: its header must name {} as `alg`, its claims must be `exp` and `nbf` \
                 (numbers), `a` (\"ro\" or \"rw\"), `id` (text) and `p`",
                self.algorithms()
            ),
            other => format!(
                "the token is not valid: {}",
                jsonwebtoken::errors::Error::from(other.clone())
            ),
        }
    }

    /// "EdDSA or HS256".
    fn algorithms(&self) -> String {
        let mut names: Vec<_> = self
            .keys
            .iter()
            .map(|key| format!("{:?}", key.algorithm))
            .collect();
        names.sort();
        names.dedup();
        names.join(" or ")
    }
}

const NO_SUCH_KEY: &str = "the token was signed with a key that this server does not have (its `kid` says so): get one that was signed with a \
     key of this server";

/// The caller of tokens whose subject is this text.
pub(crate) fn caller_of_subject(subject: &str) -> CallerId {
    CallerId::of_token(serde_json::Value::from(subject).to_string())
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
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}
