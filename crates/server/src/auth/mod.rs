//! Who may do what: ready-made [`Authenticator`]s.
//!
//! | type | who gets in |
//! |---|---|
//! | [`Open`] | everybody; for loopback only |
//! | [`StaticToken`], [`StaticTokens`] | who knows one token, or one of a file |
//! | [`Jwt`] | who has a token signed with one of some keys |
//! | [`AnyOf`] | who gets in by one of several |
//!
//! [`SigningKey`] makes tokens for [`Jwt`].
//!
//! A token is a secret: never log it, never repeat it in an error.

mod bearer;
mod claims;
mod jwt;
mod key;
mod key_file;
mod problem;
mod signing;
mod static_token;

pub use jwt::Jwt;
pub(crate) use jwt::caller_of_subject;
pub use problem::{CredentialError, CredentialProblem};
pub use signing::{Grant, NewKey, SigningKey};
pub use static_token::{StaticToken, StaticTokens};

use crate::access::{Access, Authenticator, Caller, CallerId, Denied};

/// Everybody may do everything. For a server that listens on loopback only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Authenticator for Open {
    fn check(&self, _authorization: Option<&str>, _database: &str) -> Result<Caller, Denied> {
        Ok(Caller {
            access: Access::Full,
            id: CallerId::ANYONE,
        })
    }
}

/// Several ways in; the best of them counts.
pub struct AnyOf(pub Vec<Box<dyn Authenticator>>);

impl Authenticator for AnyOf {
    fn check(&self, authorization: Option<&str>, database: &str) -> Result<Caller, Denied> {
        best(self.0.iter().map(|way| way.check(authorization, database)))
    }
}

/// What counts of the answers of several ways.
pub(crate) fn best(answers: impl Iterator<Item = Result<Caller, Denied>>) -> Result<Caller, Denied> {
    let best = answers.reduce(|best, next| match (best, next) {
        (Ok(a), Ok(b)) => Ok(if b.access > a.access { b } else { a }),
        (Ok(a), Err(_)) => Ok(a),
        (_, Ok(b)) => Ok(b),
        // What the last one says is about the token; "forbidden" is the most that one can say.
        (Err(a @ Denied::Forbidden(_)), Err(_)) => Err(a),
        (_, Err(b)) => Err(b),
    });
    best.unwrap_or_else(|| {
        Err(Denied::Invalid(
            "this server was started without any token or key that it would accept".to_owned(),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_several_ways_counts() {
        let both = AnyOf(vec![
            Box::new(StaticToken::new("reader", Access::ReadOnly)),
            Box::new(StaticToken::new("writer", Access::Full)),
        ]);
        let [reader, writer] =
            ["Bearer reader", "Bearer writer"].map(|header| both.check(Some(header), "").unwrap());
        assert_eq!((reader.access, writer.access), (Access::ReadOnly, Access::Full));
        assert_ne!(reader.id, writer.id);
        assert!(matches!(
            both.check(Some("Bearer other"), ""),
            Err(Denied::Invalid(_))
        ));
        assert_eq!(both.check(None, ""), Err(Denied::Missing));
        assert!(matches!(
            AnyOf(Vec::new()).check(None, ""),
            Err(Denied::Invalid(_))
        ));
    }
}
