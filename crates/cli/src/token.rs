//! `token`: makes keys, signs tokens with them, and shows what a token says.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use partial_sync_server::{
    access::Access,
    auth::{Grant, NewKey, SigningKey},
};
use serde_json::{Map, Value, json};

use crate::{
    arguments::{Expiration, Token, TokenCreate, TokenKey, TokenShow},
    error::CliError,
    secret,
};

/// No token is as long.
const LONGEST: u64 = 1 << 20;

pub(crate) fn run(command: Token) -> Result<(), CliError> {
    match command {
        Token::Key(arguments) => key(&arguments),
        Token::Create(arguments) => create(arguments),
        Token::Show(arguments) => show(&arguments),
    }
}

/// Makes a file for the private key, which only its owner may read, and one for the public key.
fn key(arguments: &TokenKey) -> Result<(), CliError> {
    let private = &arguments.out;
    let mut public = private.clone().into_os_string();
    public.push(".pub");
    let public = PathBuf::from(public);
    if public.symlink_metadata().is_ok() {
        return Err(CliError::Exists(public));
    }
    let key = NewKey::generate().ok_or(CliError::NoRandomness)?;
    write_new(private, 0o600, &key.private_pem)?;
    if let Err(error) = write_new(&public, 0o644, &key.public_pem) {
        // It was made here, and nobody knows it. The other error is the one to tell.
        let _ = std::fs::remove_file(private);
        return Err(error);
    }
    let (private, public) = (private.display(), public.display());
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{private}: the private key, for `partial-sync token create --key {private}`; keep it secret"
    )?;
    writeln!(
        out,
        "{public}: the public key, for `partial-sync serve --auth-jwt-key {public}`"
    )?;
    writeln!(out, "its id: {}", key.id)?;
    Ok(())
}

fn write_new(path: &Path, mode: u32, contents: &str) -> Result<(), CliError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(contents.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CliError::Exists(path.to_owned()),
        _ => CliError::File {
            doing: "write",
            path: path.to_owned(),
            source,
        },
    })
}

/// Prints a token and nothing else.
fn create(arguments: TokenCreate) -> Result<(), CliError> {
    let key = match (&arguments.key, secret::variable(secret::SIGNING_KEY)) {
        (Some(path), _) => SigningKey::read(path)?,
        (None, Ok(Some(contents))) => SigningKey::from_key_file(contents.as_bytes())
            .map_err(|source| CliError::InSetting(secret::SIGNING_KEY.to_owned(), source.into()))?,
        (None, Ok(None)) => return Err(CliError::NoSigningKey),
        (None, Err(error)) => return Err(error),
    };
    let expires = match arguments.expiration {
        Expiration::Never => None,
        Expiration::After(time) => Some(SystemTime::now() + time),
    };
    let token = key.sign(&Grant {
        access: if arguments.read_only {
            Access::ReadOnly
        } else {
            Access::Full
        },
        databases: arguments.database,
        expires,
        subject: arguments.subject,
    })?;
    writeln!(io::stdout(), "{token}")?;
    Ok(())
}

/// Prints the head and the claims of a token. The signature is neither checked nor printed.
fn show(arguments: &TokenShow) -> Result<(), CliError> {
    let mut text = String::new();
    match arguments.file.as_deref().filter(|path| path.as_os_str() != "-") {
        None => io::stdin().take(LONGEST).read_to_string(&mut text)?,
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
            .map_err(|source| CliError::File {
                doing: "read",
                path: path.to_owned(),
                source,
            })?,
    };
    let parts: Vec<_> = text.trim().split('.').collect();
    let [header, claims, _signature] = parts[..] else {
        return Err(CliError::NotToken);
    };
    let (header, claims) = (object(header)?, object(claims)?);
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", json!({"header": header, "claims": claims}))?;
        return Ok(());
    }
    for (name, value) in header.iter().chain(&claims) {
        let is_time = matches!(name.as_str(), "exp" | "nbf" | "iat");
        let is_over = name == "exp" && value.as_f64().is_some_and(|seconds| seconds <= now());
        let name = name.escape_debug().to_string();
        match value.as_f64().filter(|_| is_time).and_then(date) {
            Some(date) if is_over => writeln!(out, "{name:<6}{date} (expired)")?,
            Some(date) => writeln!(out, "{name:<6}{date}")?,
            None => writeln!(out, "{name:<6}{value}")?,
        }
    }
    Ok(())
}

fn object(part: &str) -> Result<Map<String, Value>, CliError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| CliError::NotToken)?;
    serde_json::from_slice(&json).map_err(|_| CliError::NotToken)
}

/// In seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// Seconds since 1970 as a date.
fn date(seconds: f64) -> Option<String> {
    let time = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
    let mut text = String::new();
    // What comes after the year 9999 has no such form.
    write!(text, "{}", humantime::format_rfc3339_seconds(time)).ok()?;
    Some(text)
}
