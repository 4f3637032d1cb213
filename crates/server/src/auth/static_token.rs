//! One token for everybody who may come in.

use std::fmt;

use subtle::ConstantTimeEq as _;

use super::bearer::bearer;
use crate::access::{Access, Authenticator, Caller, CallerId, Denied};

/// Lets in who knows the token. The comparison takes the same time wherever the first difference is.
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
}

impl Authenticator for StaticToken {
    fn check(&self, authorization: Option<&str>, _database: &str) -> Result<Caller, Denied> {
        let token = bearer(authorization)?;
        // An empty token would be no protection at all; `bearer` never gives one.
        if token.as_bytes().ct_eq(self.token.as_bytes()).into() {
            Ok(self.caller)
        } else {
            Err(Denied::Invalid(
                "the token is not the one this server was started with: check `Authorization: Bearer TOKEN`"
                    .to_owned(),
            ))
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
