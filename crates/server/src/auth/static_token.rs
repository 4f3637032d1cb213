//! Tokens that are known: one for everybody who may come in, or a file of them.
//!
//! A comparison takes the same time wherever the first difference is, and of a file each token is compared.

use std::{fmt, path::Path};

use subtle::ConstantTimeEq as _;

use super::{
    bearer::bearer,
    key_file::{lines, read},
    problem::{CredentialError, CredentialProblem, MOST_TOKENS, Part},
};
use crate::access::{Access, Authenticator, Caller, CallerId, Denied};

/// Lets in who knows the token.
#[derive(Clone)]
pub struct StaticToken {
    token: Box<str>,
    caller: Caller,
}

impl StaticToken {
    /// The token, and what its bearer may do.
    pub fn new(token: impl Into<String>, access: Access) -> Self {
        let token = token.into().into_boxed_str();
        let id = CallerId::of_token(token.as_bytes());
        Self {
            token,
            caller: Caller { access, id },
        }
    }

    fn is(&self, token: &str) -> bool {
        // An empty token would be no protection at all; `bearer` never gives one.
        token.as_bytes().ct_eq(self.token.as_bytes()).into()
    }
}

impl Authenticator for StaticToken {
    fn check(&self, authorization: Option<&str>, _database: &str) -> Result<Caller, Denied> {
        let token = bearer(authorization)?;
        if self.is(token) {
            Ok(self.caller)
        } else {
            Err(unknown())
        }
    }
}

impl fmt::Debug for StaticToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticToken")
            .field("access", &self.caller.access)
            .finish_non_exhaustive()
    }
}

fn unknown() -> Denied {
    Denied::Invalid(
        "the token is not one that this server knows: check `Authorization: Bearer TOKEN`".to_owned(),
    )
}

/// Lets in who knows one of some tokens.
#[derive(Clone, Debug)]
pub struct StaticTokens(Vec<StaticToken>);

impl StaticTokens {
    /// Reads a file of tokens; see [`Self::from_token_file`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, CredentialError> {
        let path = path.as_ref();
        Self::from_token_file(&read(path)?).map_err(|e| e.in_file(path))
    }

    /// Understands the contents of a file of tokens, each in a line of its own: the token, or `full` or `read-only` and the
    /// token, and after that a name if one is wanted. Tokens of one name are one caller for the limits of the server. Lines
    /// that begin with `#` are comments.
    pub fn from_token_file(contents: &[u8]) -> Result<Self, CredentialError> {
        let mut tokens: Vec<(StaticToken, usize)> = Vec::new();
        for (number, line) in lines(contents) {
            let at = |problem: CredentialProblem| problem.at(Part::Line(number));
            let token = parse(line).map_err(at)?;
            if let Some((_, first)) = tokens.iter().find(|(other, _)| other.is(&token.token)) {
                return Err(at(CredentialProblem::DuplicateToken(*first)));
            }
            if tokens.len() == MOST_TOKENS {
                return Err(at(CredentialProblem::TooManyTokens));
            }
            tokens.push((token, number));
        }
        match tokens.is_empty() {
            true => Err(CredentialProblem::Empty.into()),
            false => Ok(Self(tokens.into_iter().map(|(token, _)| token).collect())),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// `TOKEN`, or `ACCESS TOKEN [NAME]`.
fn parse(line: &[u8]) -> Result<StaticToken, CredentialProblem> {
    let line = std::str::from_utf8(line).map_err(|_| CredentialProblem::UnsendableToken)?;
    let mut words = line.split_ascii_whitespace();
    let first = words.next().ok_or(CredentialProblem::UnknownToken)?;
    let access = match first {
        "full" => Some(Access::Full),
        "read-only" => Some(Access::ReadOnly),
        _ => None,
    };
    let (access, token) = match (access, words.next()) {
        (Some(access), Some(token)) => (access, token),
        (None, None) => (Access::Full, first),
        _ => return Err(CredentialProblem::UnknownToken),
    };
    let name = words.collect::<Vec<_>>().join(" ");
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(CredentialProblem::UnsendableToken);
    }
    let mut token = StaticToken::new(token, access);
    if !name.is_empty() {
        token.caller.id = CallerId::of_name(&name);
    }
    Ok(token)
}

impl Authenticator for StaticTokens {
    fn check(&self, authorization: Option<&str>, _database: &str) -> Result<Caller, Denied> {
        let token = bearer(authorization)?;
        let mut found = None;
        for known in &self.0 {
            if known.is(token) {
                found = Some(known.caller);
            }
        }
        found.ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_lets_in() {
        let way = StaticToken::new("s3cret", Access::ReadOnly);
        let caller = way.check(Some("Bearer s3cret"), "any").unwrap();
        assert_eq!(caller.access, Access::ReadOnly);
        for wrong in ["s3cre", "s3crett", "S3CRET", "x"] {
            let denied = way.check(Some(&format!("Bearer {wrong}")), "any").unwrap_err();
            assert_eq!(denied.status(), 401);
            assert!(!denied.to_string().contains("s3cret"), "{denied}");
        }
        assert_eq!(way.check(None, "any"), Err(Denied::Missing));
    }

    #[test]
    fn its_debug_form_does_not_show_the_token() {
        assert!(!format!("{:?}", StaticToken::new("s3cret", Access::Full)).contains("s3cret"));
    }
}
