//! Keys that sign tokens, and what a token is to allow.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde::Serialize;

use super::{
    key::{ED25519_SPKI, Key, Line, LineKey, ed25519_thumbprint},
    key_file::{Entry, entries, read},
    problem::{CredentialError, CredentialProblem, Part},
};
use crate::access::Access;

/// What an Ed25519 private key starts with in PKCS #8 (RFC 8410); its 32 bytes follow. Version 1, which has no public key in
/// it: older programs do not read the other one.
const ED25519_PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A key that signs tokens, which [`Jwt`](super::Jwt) checks with its public key or with the same secret.
pub struct SigningKey {
    id: Option<String>,
    algorithm: Algorithm,
    encoding: EncodingKey,
}

/// What a token is to allow.
#[derive(Clone, Debug)]
pub struct Grant {
    /// What its bearer may do
    pub access: Access,
    /// with these databases; with all, if there is none.
    pub databases: Vec<String>,
    /// Until when; for ever, if there is none.
    pub expires: Option<SystemTime>,
    /// Who it is, for the limits of the server.
    pub subject: Option<String>,
}

/// A new Ed25519 key. Its private half is a secret.
pub struct NewKey {
    /// For [`SigningKey::from_key_file`]: PKCS #8 in PEM.
    pub private_pem: String,
    /// For [`Jwt::from_key_file`](super::Jwt::from_key_file): SubjectPublicKeyInfo in PEM.
    pub public_pem: String,
    /// By which tokens name it: the fingerprint of the public key (RFC 7638).
    pub id: String,
}

impl NewKey {
    /// Makes one. `None` = the system has no randomness to give.
    pub fn generate() -> Option<Self> {
        let mut seed = [0; 32];
        let random = rustls::crypto::ring::default_provider().secure_random;
        random.fill(&mut seed).ok()?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().ok()?;
        let pem = |label: &str, head: &[u8], key: &[u8; 32]| {
            // Fits a line of PEM.
            let der = STANDARD.encode([head, key].concat());
            format!("-----BEGIN {label}-----\n{der}\n-----END {label}-----\n")
        };
        Some(Self {
            private_pem: pem("PRIVATE KEY", &ED25519_PKCS8, &seed),
            public_pem: pem("PUBLIC KEY", &ED25519_SPKI, &public),
            id: ed25519_thumbprint(&public),
        })
    }
}

impl SigningKey {
    /// Reads the key of a file; see [`Self::from_key_file`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, CredentialError> {
        let path = path.as_ref();
        Self::from_key_file(&read(path)?).map_err(|e| e.in_file(path))
    }

    /// Understands the contents of a file with one key: an Ed25519 private key in PEM (PKCS #8), or a line with `hmac:` and a
    /// secret, perhaps after the id of the key and a space.
    pub fn from_key_file(contents: &[u8]) -> Result<Self, CredentialError> {
        let mut key = None;
        for entry in entries(contents) {
            let (number, entry) = entry?;
            let at = |problem: CredentialProblem| problem.at(Part::Line(number));
            if key.is_some() {
                return Err(at(CredentialProblem::SecondSigningKey));
            }
            key = Some(match entry {
                Entry::Pem { block, .. } => Self::pem(&block).map_err(at)?,
                Entry::Line(line) => Self::line(line).map_err(at)?,
            });
        }
        key.ok_or_else(|| CredentialProblem::Empty.into())
    }

    fn pem(block: &[u8]) -> Result<Self, CredentialProblem> {
        let unusable = || CredentialProblem::NotSigningKey;
        let der = PrivatePkcs8KeyDer::from_pem_slice(block).map_err(|_| unusable())?;
        let der = der.secret_pkcs8_der();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| unusable())?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| unusable())?;
        Ok(Self {
            id: Some(ed25519_thumbprint(&public)),
            algorithm: Algorithm::EdDSA,
            encoding: EncodingKey::from_ed_der(der),
        })
    }

    fn line(line: &[u8]) -> Result<Self, CredentialProblem> {
        match Line::parse(line) {
            Ok(Line {
                id,
                key: LineKey::Secret(secret),
            }) => {
                // As for a key that checks: not one that could be guessed.
                let key = Key::secret(Algorithm::HS256, secret)?;
                Ok(Self {
                    id: id.map(str::to_owned),
                    algorithm: key.algorithm,
                    encoding: EncodingKey::from_secret(secret),
                })
            }
            Ok(_) | Err(CredentialProblem::UnknownKey) => Err(CredentialProblem::NotSigningKey),
            Err(problem) => Err(problem),
        }
    }

    /// By which tokens name it: the fingerprint of the public key (RFC 7638), or the id of the secret, if it has one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Makes a token.
    pub fn sign(&self, grant: &Grant) -> Result<String, CredentialError> {
        let header = Header {
            kid: self.id.clone(),
            ..Header::new(self.algorithm)
        };
        let token = jsonwebtoken::encode(&header, &claims(grant), &self.encoding);
        Ok(token.map_err(CredentialProblem::Unsigned)?)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The claims that `claims.rs` reads.
#[derive(Serialize)]
struct Minted<'a> {
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    /// For every database.
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<HashMap<&'static str, Scope<'a>>>,
}

#[derive(Serialize)]
struct Scope<'a> {
    ns: &'a [String],
}

fn claims(grant: &Grant) -> Minted<'_> {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let access = match grant.access {
        Access::ReadOnly => "ro",
        Access::Full => "rw",
    };
    let named = !grant.databases.is_empty();
    Minted {
        iat: seconds(SystemTime::now()),
        exp: grant.expires.map(seconds),
        sub: grant.subject.as_deref(),
        a: (!named).then_some(access),
        p: named.then(|| HashMap::from([(access, Scope { ns: &grant.databases })])),
    }
}
