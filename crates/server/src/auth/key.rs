//! One key that checks signatures, and the forms that it can have.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::digest::{SHA256, digest};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde::Deserialize;

use super::problem::{CredentialProblem, HMAC_MIN_BYTES};

/// What a shared secret starts with.
const HMAC_PREFIX: &str = "hmac:";
/// What an Ed25519 public key starts with as SubjectPublicKeyInfo (RFC 8410); its 32 bytes follow.
pub(super) const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const LONGEST_ID: usize = 200;
/// The shortest modulus of an RSA key: 2048 bits.
const RSA_MIN_BYTES: usize = 256;

/// See the module.
#[derive(Clone)]
pub(super) struct Key {
    pub id: Option<Id>,
    pub algorithm: Algorithm,
    pub decoding: DecodingKey,
}

/// What a token can name its key by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Id {
    /// The key came with it.
    Given(String),
    /// The fingerprint of a public key that came without (RFC 7638). A shared secret has none, since it would help to guess it.
    Thumbprint(String),
}

impl Id {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Id::Given(id) | Id::Thumbprint(id) => id,
        }
    }
}

impl Key {
    /// The 32 bytes of an Ed25519 public key.
    pub(super) fn ed25519(public_key: &[u8; 32]) -> Self {
        Self {
            id: Some(Id::Thumbprint(ed25519_thumbprint(public_key))),
            algorithm: Algorithm::EdDSA,
            decoding: DecodingKey::from_ed_der(public_key),
        }
    }

    /// A PEM block.
    pub(super) fn pem(block: &[u8]) -> Result<Self, CredentialProblem> {
        let der =
            SubjectPublicKeyInfoDer::from_pem_slice(block).map_err(|_| CredentialProblem::NotEd25519)?;
        let public = der.strip_prefix(&ED25519_SPKI);
        let public = public.and_then(|public| public.try_into().ok());
        Ok(Self::ed25519(public.ok_or(CredentialProblem::NotEd25519)?))
    }

    /// A shared secret.
    pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, CredentialProblem> {
        let least = match algorithm {
            Algorithm::HS384 => 48,
            Algorithm::HS512 => 64,
            _ => HMAC_MIN_BYTES,
        };
        if secret.len() < least {
            let bytes = secret.len();
            return Err(CredentialProblem::ShortSecret { bytes, least });
        }
        Ok(Self {
            id: None,
            algorithm,
            decoding: DecodingKey::from_secret(secret),
        })
    }

    /// A key in a line of its own.
    pub(super) fn line(line: &[u8]) -> Result<Self, CredentialProblem> {
        let line = Line::parse(line)?;
        let key = match line.key {
            LineKey::Ed25519(public) => Self::ed25519(&public),
            LineKey::Secret(secret) => Self::secret(Algorithm::HS256, secret)?,
        };
        Ok(match line.id {
            Some(id) => key.named(id),
            None => key,
        })
    }

    fn named(self, id: &str) -> Self {
        let id = Some(Id::Given(id.to_owned()));
        Self { id, ..self }
    }

    /// Whether the id came with the key.
    pub(super) fn is_named(&self) -> bool {
        matches!(self.id, Some(Id::Given(_)))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// A key in a line of its own, perhaps after its id.
pub(super) struct Line<'a> {
    pub id: Option<&'a str>,
    pub key: LineKey<'a>,
}

/// The forms of a key that fit into a line.
pub(super) enum LineKey<'a> {
    /// A public key in base64url.
    Ed25519([u8; 32]),
    /// What comes after `hmac:`.
    Secret(&'a [u8]),
}

impl<'a> Line<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, CredentialProblem> {
        if let Some(key) = LineKey::parse(line) {
            return Ok(Self { id: None, key });
        }
        let end = line.iter().position(u8::is_ascii_whitespace);
        let (id, key) = line.split_at(end.ok_or(CredentialProblem::UnknownKey)?);
        let key = LineKey::parse(key.trim_ascii_start()).ok_or(CredentialProblem::UnknownKey)?;
        let id = std::str::from_utf8(id).map_err(|_| CredentialProblem::BadId)?;
        let id = Some(good_id(id)?);
        Ok(Self { id, key })
    }
}

impl<'a> LineKey<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        if let Some(secret) = text.strip_prefix(HMAC_PREFIX.as_bytes()) {
            return Some(Self::Secret(secret));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(Self::Ed25519(bytes.try_into().ok()?))
    }
}

fn good_id(id: &str) -> Result<&str, CredentialProblem> {
    let fits = (1..=LONGEST_ID).contains(&id.chars().count());
    match fits && !id.chars().any(char::is_control) {
        true => Ok(id),
        false => Err(CredentialProblem::BadId),
    }
}

/// The fingerprint of an Ed25519 public key as RFC 7638 makes it.
pub(super) fn ed25519_thumbprint(public_key: &[u8; 32]) -> String {
    let x = URL_SAFE_NO_PAD.encode(public_key);
    thumbprint(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#))
}

fn thumbprint(canonical: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()))
}

/// A JSON Web Key (RFC 7517, 7518, 8037), or with `keys` a set of them. Members that nothing is read from are left out.
#[derive(Deserialize)]
pub(super) struct Jwk {
    pub keys: Option<Vec<Jwk>>,
    kty: Option<String>,
    #[serde(rename = "use")]
    used_for: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    k: Option<String>,
    /// Of a private key.
    d: Option<serde::de::IgnoredAny>,
}

/// Why a key of a set does not become one.
pub(super) enum NoKey {
    /// It is for something else, or of an algorithm that is not known here; a set may have such keys.
    Other,
    Problem(CredentialProblem),
}

impl From<CredentialProblem> for NoKey {
    fn from(problem: CredentialProblem) -> Self {
        NoKey::Problem(problem)
    }
}

impl Jwk {
    pub(super) fn key(&self) -> Result<Key, NoKey> {
        let kty = self.kty.as_deref().ok_or(broken("it has no `kty`"))?;
        let signs = self.used_for.as_deref().is_none_or(|used_for| used_for == "sig");
        let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify" || op == "sign");
        if !signs || !self.key_ops.as_ref().is_none_or(verifies) {
            return Err(NoKey::Other);
        }
        let algorithm = self.algorithm(kty)?;
        if self.d.is_some() {
            return Err(CredentialProblem::Private.into());
        }
        let key = match algorithm {
            Algorithm::EdDSA => {
                let x = bytes(&self.x, "`x` must be 32 bytes of base64url")?;
                let x = x.as_slice().try_into();
                Key::ed25519(&x.map_err(|_| broken("`x` must be 32 bytes of base64url"))?)
            }
            Algorithm::ES256 | Algorithm::ES384 => self.elliptic(algorithm)?,
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                let secret = bytes(&self.k, "`k` must be base64url")?;
                Key::secret(algorithm, &secret)?
            }
            _ => self.rsa(algorithm)?,
        };
        match &self.kid {
            Some(kid) => Ok(key.named(good_id(kid)?)),
            None => Ok(key),
        }
    }

    /// The algorithm belongs to the key, whatever a token says.
    fn algorithm(&self, kty: &str) -> Result<Algorithm, NoKey> {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        let possible: &[Algorithm] = match (kty, self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => &[EdDSA],
            ("EC", Some("P-256")) => &[ES256],
            ("EC", Some("P-384")) => &[ES384],
            ("RSA", _) => &[RS256, RS384, RS512, PS256, PS384, PS512],
            ("oct", _) => &[HS256, HS384, HS512],
            _ => return Err(NoKey::Other),
        };
        match &self.alg {
            None => Ok(possible[0]),
            Some(alg) => {
                let named = Algorithm::from_str(alg).ok();
                named.filter(|alg| possible.contains(alg)).ok_or(NoKey::Other)
            }
        }
    }

    fn elliptic(&self, algorithm: Algorithm) -> Result<Key, NoKey> {
        const WRONG: &str = "`x` and `y` must be base64url, of 32 bytes each for P-256 and 48 for P-384";
        let (curve, size) = match algorithm {
            Algorithm::ES256 => ("P-256", 32),
            _ => ("P-384", 48),
        };
        let (Some(x), Some(y)) = (&self.x, &self.y) else {
            return Err(broken(WRONG));
        };
        if bytes(&self.x, WRONG)?.len() != size || bytes(&self.y, WRONG)?.len() != size {
            return Err(broken(WRONG));
        }
        let canonical = format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#);
        Ok(Key {
            id: Some(Id::Thumbprint(thumbprint(&canonical))),
            algorithm,
            decoding: DecodingKey::from_ec_components(x, y).map_err(|_| broken(WRONG))?,
        })
    }

    fn rsa(&self, algorithm: Algorithm) -> Result<Key, NoKey> {
        const WRONG: &str = "`n` and `e` must be base64url, and `n` have at least 2048 bits";
        let (Some(n), Some(e)) = (&self.n, &self.e) else {
            return Err(broken(WRONG));
        };
        if bytes(&self.n, WRONG)?.len() < RSA_MIN_BYTES || bytes(&self.e, WRONG)?.is_empty() {
            return Err(broken(WRONG));
        }
        let canonical = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
        Ok(Key {
            id: Some(Id::Thumbprint(thumbprint(&canonical))),
            algorithm,
            decoding: DecodingKey::from_rsa_components(n, e).map_err(|_| broken(WRONG))?,
        })
    }
}

fn broken(reason: &'static str) -> NoKey {
    NoKey::Problem(CredentialProblem::BrokenJwk(reason))
}

fn bytes(member: &Option<String>, wrong: &'static str) -> Result<Vec<u8>, NoKey> {
    let text = member.as_deref().ok_or(broken(wrong))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| broken(wrong))
}
