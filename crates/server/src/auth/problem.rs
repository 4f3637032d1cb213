//! What can be wrong with a file of keys or tokens. No text here repeats a key, a secret or a token.

use std::{fmt, io, path::Path};

/// No server has more keys: each may have to be tried.
pub(super) const MOST_KEYS: usize = 64;
/// No file has more tokens: each is compared.
pub(super) const MOST_TOKENS: usize = 1024;
/// The shortest shared secret: as long as its hash.
pub(super) const HMAC_MIN_BYTES: usize = 32;

/// Keys or tokens that cannot be used: where they are, and what is wrong.
#[derive(Debug)]
pub struct CredentialError {
    file: Option<String>,
    part: Option<Part>,
    problem: CredentialProblem,
}

/// The part of a file that something is in, counted from 1.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Line(usize),
    /// Of a JSON Web Key Set.
    Key(usize),
}

/// What is wrong with keys or tokens, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialProblem {
    /// The file or folder cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// More than keys or tokens need.
    #[error("it has more than {0} bytes, which are not keys or tokens: was another file meant?")]
    TooLarge(u64),
    /// Nothing is in it.
    #[error("there is nothing in it: put at least one key or token there, or do not give the file")]
    Empty,
    /// None of the forms that a key can have.
    #[error(
        "this is not a key that the server can use. It must be an Ed25519 public key, as PEM (`-----BEGIN PUBLIC \
         KEY-----`) or as 43 characters of base64url; `hmac:` followed by a shared secret of at least {HMAC_MIN_BYTES} \
         bytes; either of the two after an id and a space; or the file must be a JSON Web Key (Set). Each key has a \
         line of its own, and so has each comment, which begins with #"
    )]
    UnknownKey,
    /// A PEM block with something else in it.
    #[error(
        "this PEM block is not an Ed25519 public key: make one with `openssl pkey -in PRIVATE.pem -pubout`. Keys of other \
         algorithms are read from a JSON Web Key Set"
    )]
    NotEd25519,
    /// A PEM block without its last line.
    #[error("this PEM block has no `-----END ...-----` line: the file was cut")]
    CutPem,
    /// A key that can sign, where one that checks belongs.
    #[error(
        "this is a private key, which the server has no use for: keep it elsewhere, and give the server the public key (the .pub \
         file, or `openssl pkey -in PRIVATE.pem -pubout`)"
    )]
    Private,
    /// A key that cannot sign, where one that signs belongs.
    #[error(
        "tokens cannot be signed with this. It must be an Ed25519 private key as PEM (`-----BEGIN PRIVATE KEY-----`), which \
         `partial-sync token key` makes, or `hmac:` followed by a secret of at least {HMAC_MIN_BYTES} bytes"
    )]
    NotSigningKey,
    /// Keys to choose from, where nothing chooses.
    #[error("this is a second key: sign with a file that has one")]
    SecondSigningKey,
    /// A token could not be made.
    #[error("the token cannot be signed: {0}")]
    Unsigned(jsonwebtoken::errors::Error),
    /// A secret that could be guessed.
    #[error("the shared secret has {bytes} bytes: take at least {least}")]
    ShortSecret {
        /// What it has.
        bytes: usize,
        /// What it needs.
        least: usize,
    },
    /// Not JSON, or not a JSON Web Key.
    #[error(
        "this is not a JSON Web Key, nor a set of them (`{{\"keys\": [...]}}`, RFC 7517): the JSON is broken, or a \
         member is not text"
    )]
    NotJwk,
    /// A JSON Web Key that is not complete.
    #[error("the JSON Web Key cannot be used: {0}")]
    BrokenJwk(&'static str),
    /// A set in which nothing can check signatures of tokens.
    #[error(
        "no key there can check tokens: they must be of EdDSA (Ed25519), ES256, ES384, RS256, RS384, RS512, PS256, \
         PS384, PS512, HS256, HS384 or HS512, and not for encryption"
    )]
    NoUsableJwk,
    /// An id that nobody could type, or that would spoil a log.
    #[error("the id of the key must have 1 to 200 characters, none of them a control character")]
    BadId,
    /// Two keys of one id.
    #[error(
        "another key, in {first}, has the id {id:?} too: give each key an id of its own, and each key once"
    )]
    DuplicateId {
        /// The id.
        id: String,
        /// Where the other one is.
        first: String,
    },
    /// More keys than may have to be tried.
    #[error("there are more than {MOST_KEYS} keys: remove those with which nothing is signed any more")]
    TooManyKeys,
    /// A line that is not a token.
    #[error(
        "the line must be a token, or `full TOKEN` or `read-only TOKEN`, and after that a name if one is wanted; each \
         token has a line of its own, and so has each comment, which begins with #"
    )]
    UnknownToken,
    /// A token that no header can have.
    #[error("the token has characters that cannot be sent in a header: use letters, digits and -._~+/=")]
    UnsendableToken,
    /// One token twice.
    #[error("this token is in line {0} too: remove one of them")]
    DuplicateToken(usize),
    /// More tokens than can be compared at each request.
    #[error("there are more than {MOST_TOKENS} tokens: use signed tokens for so many")]
    TooManyTokens,
}

impl CredentialError {
    /// What is wrong.
    pub fn problem(&self) -> &CredentialProblem {
        &self.problem
    }

    /// The file that they are in, if they are in one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref().map(Path::new)
    }

    pub(super) fn in_file(mut self, path: &Path) -> Self {
        self.file.get_or_insert_with(|| path.display().to_string());
        self
    }
}

impl CredentialProblem {
    pub(super) fn at(self, part: Part) -> CredentialError {
        CredentialError {
            part: Some(part),
            ..self.into()
        }
    }
}

/// Where something is, in words; empty if nothing is known of it.
pub(super) fn place(file: Option<&str>, part: Option<Part>) -> String {
    let part = match part {
        Some(Part::Line(number)) => format!("line {number}"),
        Some(Part::Key(number)) => format!("key {number} of the set"),
        None => return file.unwrap_or_default().to_owned(),
    };
    match file {
        Some(file) => format!("{file}, {part}"),
        None => part,
    }
}

impl From<CredentialProblem> for CredentialError {
    fn from(problem: CredentialProblem) -> Self {
        Self {
            file: None,
            part: None,
            problem,
        }
    }
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match place(self.file.as_deref(), self.part) {
            place if place.is_empty() => write!(f, "{}", self.problem),
            place => write!(f, "{place}: {}", self.problem),
        }
    }
}

impl std::error::Error for CredentialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            CredentialProblem::Unreadable(source) => Some(source),
            _ => None,
        }
    }
}
