//! `admin`: administers a server over HTTP.

mod client;

use std::io::{self, Write};

use serde_json::{Value, json};

use client::{Client, text};

use crate::{
    arguments::admin::{
        Admin, Command, Delete, DropHistory, Fork, Kick, List, OnDatabase, Revisions, Server,
    },
    confirm::confirm,
    error::CliError,
    units::{counted, grouped, shown_bytes},
};

pub(crate) fn run(admin: Admin) -> Result<(), CliError> {
    match admin.command {
        Command::List(arguments) => list(&arguments),
        Command::Create(on) => {
            let done = on_database(&on, "POST", "/create", None)?;
            say(&on.server, &done, &format!("made {}", on.name))
        }
        Command::Delete(arguments) => delete(&arguments),
        Command::Fork(arguments) => fork(&arguments),
        Command::Stats(on) => stats(&on),
        Command::Revisions(arguments) => revisions(&arguments),
        Command::DropHistory(arguments) => drop_history(&arguments),
        Command::Kick(arguments) => kick(&arguments),
    }
}

/// All of them, a thousand at a time.
fn list(arguments: &List) -> Result<(), CliError> {
    let client = Client::new(&arguments.server)?;
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let mut page = client.send("GET", &format!("/v1/namespaces?after={after}"), None)?;
        if let Value::Array(names) = page["namespaces"].take() {
            all.extend(names);
        }
        match page["next"].as_str() {
            Some(next) if next > after.as_str() => after = next.to_owned(),
            _ => break,
        }
    }
    let lines: Vec<_> = all.iter().map(|it| text(&it["name"])).collect();
    say(
        &arguments.server,
        &json!({ "namespaces": all }),
        &lines.join("\n"),
    )
}

fn delete(arguments: &Delete) -> Result<(), CliError> {
    let on = &arguments.on;
    if !arguments.yes {
        confirm(&format!("delete {}, with its revisions", on.name), &on.name)?;
    }
    let done = on_database(on, "DELETE", "", None)?;
    say(&on.server, &done, &format!("deleted {}", on.name))
}

fn fork(arguments: &Fork) -> Result<(), CliError> {
    let body = match (&arguments.revision, &arguments.timestamp) {
        (Some(revision), _) => json!({ "revision": revision }),
        (None, Some(time)) => json!({ "timestamp": time }),
        (None, None) => json!({}),
    };
    let path = path(&arguments.name, &format!("/fork/{}", part(&arguments.to)));
    let done = Client::new(&arguments.server)?.send("POST", &path, Some(&body))?;
    let said = format!(
        "{} is {} at revision {}",
        arguments.to,
        arguments.name,
        text(&done["revision"])
    );
    say(&arguments.server, &done, &said)
}

fn stats(on: &OnDatabase) -> Result<(), CliError> {
    let stats = on_database(on, "GET", "/stats", None)?;
    let number = |name: &str| stats[name].as_u64().unwrap_or_default();
    let bytes = |name| shown_bytes(number(name));
    let mut lines = vec![
        ("file", bytes("file_bytes")),
        ("WAL", bytes("wal_bytes")),
        ("history", bytes("history_bytes")),
    ];
    if stats["pages"].is_u64() {
        let pages = format!("{} of {}", grouped(number("pages")), bytes("page_size"));
        lines.push(("pages", pages));
    }
    match stats["revision"].is_string() {
        true => lines.extend([
            ("revision", text(&stats["revision"])),
            ("revisions kept", grouped(number("revisions"))),
            (
                "they reach back",
                format!("{} s", grouped(number("history_reach_seconds"))),
            ),
        ]),
        false => lines.push(("revision", "not known: the database is not open".to_owned())),
    }
    let lines: Vec<_> = lines
        .iter()
        .map(|(name, value)| format!("{name:18}{value}"))
        .collect();
    say(&on.server, &stats, &lines.join("\n"))
}

fn revisions(arguments: &Revisions) -> Result<(), CliError> {
    let on = &arguments.on;
    let mut query = format!("/revisions?limit={}", arguments.limit);
    if let Some(before) = &arguments.before {
        query.push_str(&format!("&before={}", part(before)));
    }
    let listed = on_database(on, "GET", &query, None)?;
    let mut lines: Vec<_> = listed["revisions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| {
            let pages = counted(it["pages"].as_u64().unwrap_or_default(), "page");
            format!("{}  {}  {pages}", text(&it["revision"]), text(&it["time"]))
        })
        .collect();
    if let Some(next) = listed["next"].as_str() {
        lines.push(format!("there are more: --before {next}"));
    }
    say(&on.server, &listed, &lines.join("\n"))
}

fn drop_history(arguments: &DropHistory) -> Result<(), CliError> {
    let on = &arguments.on;
    let (which, body) = match &arguments.before {
        Some(before) => (format!("those before {before}"), json!({ "before": before })),
        None => ("all but the latest".to_owned(), json!({ "all": true })),
    };
    let what = format!(
        "drop revisions of {} ({which}): replicas that are at one of them have to be made again",
        on.name
    );
    if !arguments.yes {
        confirm(&what, &on.name)?;
    }
    let done = on_database(on, "POST", "/drop-history", Some(&body))?;
    say(
        &on.server,
        &done,
        &format!("the oldest revision is now {}", text(&done["oldest"])),
    )
}

fn kick(arguments: &Kick) -> Result<(), CliError> {
    let (path, body) = match (&arguments.database, &arguments.caller, &arguments.address) {
        (Some(name), ..) => (path(name, "/kick"), json!({})),
        (_, Some(caller), _) => ("/v1/kick".to_owned(), json!({ "caller": caller })),
        (.., address) => ("/v1/kick".to_owned(), json!({ "address": address })),
    };
    let done = Client::new(&arguments.server)?.send("POST", &path, Some(&body))?;
    let polls = counted(done["page_requests"].as_u64().unwrap_or_default(), "request");
    let said = format!("ended {polls} for pages, long polls among them, and every open transaction");
    say(&arguments.server, &done, &said)
}

fn on_database(
    on: &OnDatabase,
    method: &'static str,
    rest: &str,
    body: Option<&Value>,
) -> Result<Value, CliError> {
    Client::new(&on.server)?.send(method, &path(&on.name, rest), body)
}

fn path(name: &str, rest: &str) -> String {
    format!("/v1/namespaces/{}{rest}", part(name))
}

/// A name as a part of a path: whatever it has, it does not lead elsewhere.
fn part(name: &str) -> String {
    let mut part = String::new();
    for byte in name.bytes() {
        match byte {
            b'-' | b'_' | b'.' => part.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => part.push(char::from(byte)),
            byte => part.push_str(&format!("%{byte:02X}")),
        }
    }
    part
}

fn say(server: &Server, done: &Value, text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match server.json {
        true => writeln!(out, "{done}")?,
        false if text.is_empty() => {}
        false => writeln!(out, "{text}")?,
    }
    Ok(())
}
