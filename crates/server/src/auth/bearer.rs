//! The header that a token comes in.

use crate::access::Denied;

/// The token of an `Authorization: Bearer TOKEN` header.
pub(super) fn bearer(authorization: Option<&str>) -> Result<&str, Denied> {
    let header = authorization.ok_or(Denied::Missing)?.trim();
    let token = header
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty());
    token.ok_or_else(|| {
        Denied::Invalid(
            "the Authorization header must be `Bearer TOKEN`: this server knows no other scheme".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_header_is_read_whatever_its_case_and_other_schemes_are_not() {
        assert_eq!(bearer(Some("Bearer abc")), Ok("abc"));
        assert_eq!(bearer(Some("bearer   abc ")), Ok("abc"));
        assert_eq!(bearer(None), Err(Denied::Missing));
        for bad in ["", "abc", "Bearer", "Bearer ", "Basic abc"] {
            assert!(matches!(bearer(Some(bad)), Err(Denied::Invalid(_))), "{bad:?}");
        }
    }
}
