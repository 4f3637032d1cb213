//! Understands `--sync-server ADDR [PATH]` as Turso's shell does, so that a script made for that shell starts this server:
//! in memory without PATH, `--experimental-*` flags ignored, and open to everybody who can reach the address.

use std::ffi::OsString;

use crate::secret;

/// The arguments, turned into those of `serve` when they are of that form.
pub(crate) fn translated(arguments: Vec<OsString>) -> Vec<OsString> {
    let is_of_that_form = |word: &OsString| {
        let word = word.to_string_lossy();
        word == "--sync-server" || word.starts_with("--sync-server=")
    };
    let at = arguments.iter().position(is_of_that_form);
    let names_a_command = arguments
        .get(1)
        .is_some_and(|word| word == "serve" || word == "query" || word == "help");
    if at.is_none() || names_a_command {
        return arguments;
    }
    let mut words = arguments.into_iter();
    let mut translated: Vec<OsString> = words.next().into_iter().collect();
    translated.push("serve".into());
    let mut has_token = false;
    for word in words {
        let text = word.to_string_lossy().into_owned();
        if text == "--sync-server" {
            translated.push("--listen".into());
        } else if let Some(address) = text.strip_prefix("--sync-server=") {
            translated.extend(["--listen".into(), address.into()]);
        } else if text.starts_with("--experimental-")
            || text == "-q"
            || text == "--quiet"
            || text == ":memory:"
        {
            continue;
        } else {
            has_token |= text.starts_with("--auth-");
            translated.push(word);
        }
    }
    if !has_token && secret::of_server().is_none() {
        translated.push("--allow-unauthenticated".into());
    }
    translated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Vec<String> {
        let words = words.iter().map(OsString::from).collect();
        translated(words)
            .into_iter()
            .map(|w| w.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_sync_server_is_a_serve() {
        let served = [
            "p",
            "serve",
            "--listen",
            "0.0.0.0:8080",
            "file.db",
            "--allow-unauthenticated",
        ];
        assert_eq!(of(&["p", "--sync-server", "0.0.0.0:8080", "file.db"]), served);
        let other_way = of(&[
            "p",
            "file.db",
            "--experimental-views",
            "-q",
            "--sync-server=0.0.0.0:8080",
        ]);
        assert_eq!(
            other_way,
            [
                "p",
                "serve",
                "file.db",
                "--listen",
                "0.0.0.0:8080",
                "--allow-unauthenticated"
            ]
        );
        let in_memory = of(&[
            "p",
            "--sync-server",
            "127.0.0.1:1",
            ":memory:",
            "--auth-token",
            "x",
        ]);
        assert_eq!(
            in_memory,
            ["p", "serve", "--listen", "127.0.0.1:1", "--auth-token", "x"]
        );
    }

    #[test]
    fn everything_else_is_left_as_it_is() {
        for words in [
            &["p"][..],
            &["p", "serve", "x.db"],
            &["p", "query", "x.db", "--sync-server"],
        ] {
            assert_eq!(of(words), words);
        }
    }
}
