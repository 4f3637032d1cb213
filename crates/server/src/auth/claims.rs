//! What a token says: the claims of libSQL's server.
//!
//! | claim | meaning |
//! |---|---|
//! | `exp`, `nbf` | not valid from / before then (seconds since 1970); absent = no limit |
//! | `a` | `"ro"` or `"rw"`, for every database |
//! | `id` | the token is for this database only |
//! | `sub` | who asks, for limits per caller; absent = each token is a caller of its own |
//! | `p` | rights per database: `{"rw": {"ns": ["a"]}, "ro": {"ns": ["b", "c"]}}`; `rwa` and `roa` (to attach) include them |
//!
//! A token with none of `a`, `id` and `p` may do everything.

use serde::Deserialize;

use crate::access::Access;

/// See the module.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub exp: Option<f64>,
    pub nbf: Option<f64>,
    pub sub: Option<serde_json::Value>,
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
    roa: Option<Scope>,
    rwa: Option<Scope>,
}

#[derive(Debug, Deserialize)]
struct Scope {
    ns: Option<Vec<String>>,
}

impl Claims {
    /// What the token allows with a database, if anything.
    pub(super) fn access(&self, database: &str) -> Option<Access> {
        let whole = match self.a {
            Some(Right::Ro) => Some(Access::ReadOnly),
            Some(Right::Rw) => Some(Access::Full),
            None if self.p.is_some() => None,
            None => Some(Access::Full),
        };
        let whole = whole.filter(|_| self.id.as_ref().is_none_or(|id| id == database));
        let listed = match &self.p {
            Some(p) if names(&[&p.rw, &p.rwa], database) => Some(Access::Full),
            Some(p) if names(&[&p.ro, &p.roa], database) => Some(Access::ReadOnly),
            _ => None,
        };
        whole.max(listed)
    }
}

fn names(scopes: &[&Option<Scope>], database: &str) -> bool {
    let namespaces = scopes.iter().filter_map(|scope| scope.as_ref()?.ns.as_ref());
    namespaces.flatten().any(|name| name == database)
}
