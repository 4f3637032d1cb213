use std::{collections::BTreeSet, env, fmt::Write, fs, path::Path, time::Duration};

use partial_sync_core::SegmentSize;

use super::*;

const LANGUAGES: [Language; 6] = [
    Language::Node,
    Language::Python,
    Language::Go,
    Language::C,
    Language::Rust,
    Language::Program,
];

fn cell(spellings: &[&str]) -> String {
    let quoted: Vec<String> = spellings.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn default(option: &OptionSpec) -> String {
    match option.default {
        Default::Required => "required".into(),
        Default::None => String::new(),
        Default::Words(words) => words.into(),
        Default::Number(number) => number.to_string(),
        Default::Flag(flag) => flag.to_string(),
    }
}

/// The two tables of docs/options.md.
fn tables() -> String {
    let mut page = String::from("| option | what | may be | default |\n|---|---|---|---|\n");
    for option in ALL {
        let (name, text, allowed) = (option.name, option.text.trim(), option.allowed(false));
        writeln!(page, "| `{name}` | {text} | {allowed} | {} |", default(option)).unwrap();
    }
    page.push_str(
        "\n## Names\n\n| option | Node | Python | Go | C | Rust | program |\n|---|---|---|---|---|---|---|\n",
    );
    for option in ALL {
        let cells: Vec<String> = (LANGUAGES.iter())
            .map(|language| cell(option.spelled(*language)))
            .collect();
        writeln!(page, "| `{}` | {} |", option.name, cells.join(" | ")).unwrap();
    }
    page
}

/// The bindings hold themselves to the same tables.
#[test]
fn the_tables_in_the_documentation_are_the_one_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/options.md");
    let page = fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
    let start = page.find("| option | what ").expect("the page has the tables");
    let wanted = page[..start].to_owned() + &tables();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, wanted).unwrap();
        return;
    }
    assert!(
        page == wanted,
        "docs/options.md is not what the table makes: run UPDATE_DOCS=1 cargo test -p partial-sync --lib options"
    );
}

#[test]
fn no_language_has_two_options_of_one_name() {
    for language in LANGUAGES {
        let mut met = BTreeSet::new();
        for option in ALL {
            for name in option.spelled(language) {
                // Key and cipher are one method of the builder.
                assert!(
                    met.insert(name) || *name == "remote_encryption",
                    "{language:?}: {name}"
                );
            }
        }
    }
}

#[test]
fn rust_has_the_options_and_defaults_of_the_table() {
    let source = include_str!("../open/options.rs");
    for name in ALL.iter().flat_map(|option| option.rust) {
        let own = name.rsplit(['.', ':']).next().unwrap();
        let is_there = [format!("pub fn {own}("), format!("pub {own}: ")]
            .iter()
            .any(|declared| source.contains(declared.as_str()));
        assert!(is_there || *name == "Database::builder", "{name}");
    }
    let builder = crate::Database::builder("a.db");
    assert_eq!(builder.timeout, Duration::from_secs(30));
    assert_eq!(builder.busy_timeout, Duration::from_secs(5));
    assert!(builder.bootstrap_if_empty && !builder.accept_new_url);
    let Takes::Whole { most, .. } = SEGMENT_SIZE.takes else {
        panic!()
    };
    assert_eq!(most, u64::from(SegmentSize::MAX.bytes()));
    assert_eq!(
        SEGMENT_SIZE.default_number(),
        u64::from(SegmentSize::DEFAULT.bytes())
    );
}

#[test]
fn a_suggestion_is_given_only_when_it_is_close() {
    let known = [
        "path",
        "remote_url",
        "auth_token",
        "segmentSize",
        "partialSyncExperimental",
        "_busy_timeout",
    ];
    for (given, meant) in [
        ("remote_ulr", Some("remote_url")),
        ("url", Some("remote_url")),
        ("authToken", Some("auth_token")),
        ("authtokne", Some("auth_token")),
        ("segmentsize", Some("segmentSize")),
        ("partialSync", Some("partialSyncExperimental")),
        ("busy_timeout", Some("_busy_timeout")),
        ("_busytimout", Some("_busy_timeout")),
        ("uri", None),
        ("qqqq", None),
        ("", None),
        ("é", None),
    ] {
        assert_eq!(nearest(given, &known), meant, "{given}");
    }
    assert_eq!(nearest("x", &[]), None);
    assert_eq!(
        OptionError::unknown("qqqq", "", &["path", "url"]).to_string(),
        "unknown option \"qqqq\"; the options are path, url"
    );
    assert_eq!(
        OptionError::unknown("kee", "remoteEncryption", &["key", "cipher"]).to_string(),
        "unknown option \"kee\" in \"remoteEncryption\"; did you mean \"key\"?"
    );
}

#[test]
fn values_are_of_their_type_and_in_range() {
    use Given as G;
    let says = |option: OptionSpec, given| match option.check(Language::Node, "x", given, "SHOWN") {
        Ok(()) => None,
        Err(error) => Some(error.to_string()),
    };
    for (option, good, bad, allowed) in [
        (
            PATH,
            vec![G::Text("a")],
            vec![G::Text(""), G::Flag(true), G::Other],
            "a string that is not empty",
        ),
        (
            REMOTE_AUTH_TOKEN,
            vec![G::Text(""), G::Function],
            vec![G::Whole(1)],
            "a string, or a function that gives one or nothing",
        ),
        (
            SEGMENT_SIZE,
            vec![G::Whole(1), G::Number(67_108_864.0)],
            vec![
                G::Whole(0),
                G::Whole(-1),
                G::Number(1.5),
                G::Whole(67_108_865),
                G::Number(f64::NAN),
                G::Text("1"),
            ],
            "a whole number of bytes, 1 to 67108864",
        ),
        (
            PULL_BYTES_THRESHOLD,
            vec![G::Whole(u64::MAX.into()), G::Number(1.0)],
            vec![
                G::Whole(0),
                G::Whole(1 << 64),
                G::Number(f64::INFINITY),
                G::Number(1e300),
                G::Flag(true),
            ],
            "a whole number of bytes, 1 or more",
        ),
        (
            LONG_POLL_TIMEOUT,
            vec![G::Whole(0), G::Number(5.0)],
            vec![G::Number(-1.0), G::Number(0.5)],
            "a whole number of milliseconds, 0 or more",
        ),
        (PREFETCH, vec![G::Flag(false)], vec![G::Whole(1)], "true or false"),
        (
            BOOTSTRAP_KIND,
            vec![G::Text("query")],
            vec![G::Text("prefx"), G::Other],
            "one of 'prefix', 'query'",
        ),
        (TRANSFORM, vec![G::Function], vec![G::Text("x")], "a function"),
        (
            EXPERIMENTAL,
            vec![G::Names],
            vec![G::Text("x")],
            "an array of names",
        ),
    ] {
        for given in good {
            assert_eq!(says(option, given), None, "{given:?}");
        }
        for given in bad {
            let text = format!("option \"x\" is SHOWN; it must be {allowed}");
            assert_eq!(says(option, given), Some(text), "{given:?}");
        }
    }
    let seconds = |given| {
        BUSY_TIMEOUT
            .check(Language::Python, "timeout", given, "SHOWN")
            .is_ok()
    };
    assert!(seconds(G::Number(0.5)) && seconds(G::Whole(1000)));
    assert!(!seconds(G::Number(-0.1)) && !seconds(G::Number(f64::NAN)) && !seconds(G::Whole(1 << 31)));
    let refused = VFS
        .check(Language::Go, "?vfs", G::Text("unix"), "SHOWN")
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("option \"?vfs\" is not supported: "),
        "{refused}"
    );
    assert!(
        LOGICAL_MVCC_PULL
            .check(Language::Node, "logicalMvccPull", G::Flag(false), "false")
            .is_ok()
    );
}

/// What is called otherwise where it is read helps nobody.
#[test]
fn error_texts_name_options_as_the_language_of_the_reader_does() {
    use crate::{ChangeId, Error, change::push::PushRefused};
    let refused = |change_id, key| {
        Error::PushRefused(Box::new(PushRefused {
            change_id,
            batch: (ChangeId(7), ChangeId(9)),
            table: Some("discard_changes".into()),
            key,
            sql: String::new(),
            message: "CHECK constraint failed: an_accept_new_url".into(),
            code: None,
        }))
    };
    let a_row = vec![("id".to_owned(), crate::change::Value::Integer(1))];
    let other_remote = Error::OtherRemote {
        path: "/a.db".into(),
        replica: "http://a".into(),
        asked: "http://b".into(),
    };
    let conflict = Error::PullConflict {
        change: ChangeId(7),
        what: "the schema".into(),
        message: String::new(),
    };
    let began_without = crate::pull::not_what_it_began_as("text in UTF-16", "text in UTF-8");
    let names = |language: Language| match language {
        Language::Node => ["acceptNewUrl", "bootstrapIfEmpty", "discardChange"],
        Language::Go => ["AcceptNewUrl", "BootstrapIfEmpty", "DiscardChange"],
        // It has no such option.
        Language::Program => ["--accept-new-url", "bootstrap_if_empty", "partial-sync discard"],
        Language::C => [
            "accept_new_url",
            "bootstrap_if_empty",
            "partial_sync_discard_change",
        ],
        Language::Python | Language::Rust => ["accept_new_url", "bootstrap_if_empty", "discard_change"],
    };
    for language in LANGUAGES {
        let [accept, bootstrap, discard] = names(language);
        for (error, named) in [
            (&other_remote, format!("with {accept}")),
            (&began_without, format!("with {bootstrap} ")),
            (&conflict, format!("with {discard}(7)")),
            (&refused(Some(ChangeId(7)), vec![]), format!("with {discard}(7)")),
            (
                &refused(Some(ChangeId(7)), a_row.clone()),
                format!("with {discard}(7)"),
            ),
            (&refused(None, vec![]), format!("with {discard};")),
        ] {
            let text = in_language(&error.to_string(), language);
            assert!(text.contains(&named), "{language:?}: {text}");
            if let Error::PushRefused(_) = error {
                assert!(text.contains("an_accept_new_url"), "{language:?}: {text}");
            }
        }
        assert_eq!(in_language("é, ü_ö; Ω", language), "é, ü_ö; Ω");
    }
}
