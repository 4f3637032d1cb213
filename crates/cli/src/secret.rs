//! Tokens and keys that come from the environment or from files, so that none has to be on a command line.
//!
//! | variable | flag | what |
//! |---|---|---|
//! | `PARTIAL_SYNC_AUTH_TOKEN` | `--auth-token` | a token |
//! | `PARTIAL_SYNC_AUTH_TOKEN_FILE` | `--auth-token-file` | the path of a file with it; for `serve`, with as many as there are |
//! | `PARTIAL_SYNC_AUTH_JWT_KEY` | | what a key file would have in it, for `serve` |
//! | `PARTIAL_SYNC_AUTH_JWT_KEY_FILE` | `--auth-jwt-key` | the path of a key file or folder, for `serve` |
//! | `PARTIAL_SYNC_ADMIN_TOKEN` | | a token for administration |
//! | `PARTIAL_SYNC_ADMIN_TOKEN_FILE` | `--admin-token-file` | the path of a file with it; for `serve`, with as many as there are |
//! | `PARTIAL_SYNC_ORIGIN_TOKEN` | | the token that `serve --from` sends to a remote |
//! | `PARTIAL_SYNC_ORIGIN_TOKEN_FILE` | `--origin-token-file` | the path of a file with it |
//! | `PARTIAL_SYNC_SIGNING_KEY` | | what the file of `token create --key` would have in it |
//!
//! A flag takes the place of its variable. Nothing here repeats a secret.

use std::path::Path;

use partial_sync_transport::AuthToken;

use crate::{arguments::Bearer, error::CliError};

pub(crate) const TOKEN: &str = "PARTIAL_SYNC_AUTH_TOKEN";
pub(crate) const TOKEN_FILE: &str = "PARTIAL_SYNC_AUTH_TOKEN_FILE";
pub(crate) const JWT_KEY: &str = "PARTIAL_SYNC_AUTH_JWT_KEY";
pub(crate) const JWT_KEY_FILE: &str = "PARTIAL_SYNC_AUTH_JWT_KEY_FILE";
pub(crate) const ADMIN_TOKEN: &str = "PARTIAL_SYNC_ADMIN_TOKEN";
pub(crate) const ADMIN_TOKEN_FILE: &str = "PARTIAL_SYNC_ADMIN_TOKEN_FILE";
const ADMIN_TOKEN_FLAG: &str = "admin-token-file";
const ORIGIN_TOKEN: &str = "PARTIAL_SYNC_ORIGIN_TOKEN";
const ORIGIN_TOKEN_FILE: &str = "PARTIAL_SYNC_ORIGIN_TOKEN_FILE";
const ORIGIN_TOKEN_FLAG: &str = "origin-token-file";
pub(crate) const SIGNING_KEY: &str = "PARTIAL_SYNC_SIGNING_KEY";

/// The flags that say whom a server lets in, and how it is let in elsewhere, and the variables whose place they take.
pub(crate) const OF_FLAGS: [(&str, &[&str]); 5] = [
    ("auth-token", &[TOKEN]),
    ("auth-token-file", &[TOKEN_FILE]),
    ("auth-jwt-key", &[JWT_KEY, JWT_KEY_FILE]),
    (ADMIN_TOKEN_FLAG, &[ADMIN_TOKEN_FILE]),
    (ORIGIN_TOKEN_FLAG, &[ORIGIN_TOKEN, ORIGIN_TOKEN_FILE]),
];

/// Those whose place no flag takes.
pub(crate) const OF_NO_FLAG: [&str; 1] = [ADMIN_TOKEN];

/// A variable that is set and says whom a server lets in.
pub(crate) fn of_server() -> Option<&'static str> {
    let others = [ADMIN_TOKEN_FLAG, ORIGIN_TOKEN_FLAG];
    let flags = OF_FLAGS.iter().filter(|(flag, _)| !others.contains(flag));
    let mut names = flags.flat_map(|(_, names)| names.iter().copied());
    names.find(|name| std::env::var_os(name).is_some())
}

/// For somebody who gives a token on a command line.
pub(crate) const IS_SEEN: &str = "others on this machine can read the token on the command line: put it in a file and give --auth-token-file, \
                                  or in the environment variable PARTIAL_SYNC_AUTH_TOKEN";

/// A variable of the environment. One that is empty is most likely the mistake of a script, and an error here: who has set
/// it does not want to do without.
pub(crate) fn variable(name: &'static str) -> Result<Option<String>, CliError> {
    match std::env::var(name) {
        Ok(value) if value.trim().is_empty() => Err(CliError::EmptyVariable(name)),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(CliError::BadToken(name.to_owned())),
    }
}

/// The token that a client sends. A remote may ask for none, so an empty variable is as good as none.
pub(crate) fn token(given: &Bearer) -> Result<Option<String>, CliError> {
    if let Some(token) = &given.auth_token {
        eprintln!("warning: {IS_SEEN}");
        return Ok(Some(token.clone()));
    }
    if let Some(path) = &given.auth_token_file {
        return in_file(path).map(Some);
    }
    let variable = |name| match variable(name) {
        Err(CliError::EmptyVariable(_)) => Ok(None),
        other => other,
    };
    match (variable(TOKEN)?, variable(TOKEN_FILE)?) {
        (Some(_), Some(_)) => Err(CliError::TwoVariables(TOKEN, TOKEN_FILE)),
        (Some(token), None) => one(&token, TOKEN).map(Some),
        (None, Some(path)) => in_file(Path::new(&path)).map(Some),
        (None, None) => Ok(None),
    }
}

/// The token that `admin` sends.
pub(crate) fn admin_token(file: Option<&Path>) -> Result<String, CliError> {
    if let Some(path) = file {
        return in_file(path);
    }
    match (variable(ADMIN_TOKEN)?, variable(ADMIN_TOKEN_FILE)?) {
        (Some(_), Some(_)) => Err(CliError::TwoVariables(ADMIN_TOKEN, ADMIN_TOKEN_FILE)),
        (Some(token), None) => one(&token, ADMIN_TOKEN),
        (None, Some(path)) => in_file(Path::new(&path)),
        (None, None) => Err(CliError::NoAdminToken),
    }
}

/// The token that a server sends to the remote that it serves; one in a file is read again for each request.
pub(crate) fn origin_token(file: Option<&Path>) -> Result<AuthToken, CliError> {
    let path = match (file, variable(ORIGIN_TOKEN)?, variable(ORIGIN_TOKEN_FILE)?) {
        (Some(path), ..) => path.to_owned(),
        (None, Some(_), Some(_)) => return Err(CliError::TwoVariables(ORIGIN_TOKEN, ORIGIN_TOKEN_FILE)),
        (None, Some(token), None) => return Ok(one(&token, ORIGIN_TOKEN)?.into()),
        (None, None, Some(path)) => path.into(),
        (None, None, None) => return Ok(AuthToken::None),
    };
    in_file(&path)?;
    Ok(AuthToken::function(move || {
        let token = in_file(&path);
        async move { Ok(Some(token?)) }
    }))
}

fn in_file(path: &Path) -> Result<String, CliError> {
    let contents = std::fs::read_to_string(path).map_err(|source| CliError::File {
        doing: "read",
        path: path.to_owned(),
        source,
    })?;
    one(&contents, &path.display().to_string())
}

/// One token, perhaps with spaces or line breaks around it.
pub(crate) fn one(text: &str, origin: &str) -> Result<String, CliError> {
    let token = text.trim();
    match !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(token.to_owned()),
        false => Err(CliError::BadToken(origin.to_owned())),
    }
}
