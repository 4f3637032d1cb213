//! The committed header is the one that the source makes. `UPDATE_HEADER=1` writes it.

use std::{collections::BTreeSet, env, fs, path::Path};

use partial_sync::options::ALL;

/// In the order in which one reads the header.
const SOURCES: [&str; 13] = [
    "version",
    "error",
    "cancel",
    "callback",
    "config",
    "options",
    "database",
    "sync",
    "stats",
    "connection",
    "statement",
    "column",
    "batch",
];

#[test]
fn the_header_says_what_the_source_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root.join("src").join(source).with_extension("rs"));
    }
    let mut header = vec![];
    builder.generate().unwrap().write(&mut header);
    let header = String::from_utf8(header).unwrap();
    let path = root.join("include/partial_sync.h");
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, header).unwrap();
        return;
    }
    let committed = fs::read_to_string(&path)
        .unwrap_or_default()
        .replace("\r\n", "\n");
    assert!(
        committed == header,
        "{} is not what src makes: run UPDATE_HEADER=1 cargo test -p partial-sync-ffi header",
        path.display()
    );
}

#[test]
fn every_exported_function_is_declared() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = fs::read_to_string(root.join("include/partial_sync.h")).unwrap();
    let mut exported = 0;
    for entry in fs::read_dir(root.join("src")).unwrap() {
        let source = fs::read_to_string(entry.unwrap().path()).unwrap();
        for (at, _) in source.match_indices("extern \"C\" fn partial_sync_") {
            let name = source[at..].split(['(', ' ']).nth(3).unwrap();
            assert!(
                header.contains(&format!("{name}(")),
                "{name} is not in the header"
            );
            exported += 1;
        }
    }
    assert!(exported > 50, "{exported} functions");
}

#[test]
fn the_config_has_the_options_of_the_table() {
    let source = include_str!("../../src/config.rs");
    let start = source.find("pub struct PartialSyncConfig {").unwrap();
    let end = source[start..].find("\n}").unwrap();
    let fields: BTreeSet<&str> = source[start..start + end]
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next())
        // How a config is given, and no options.
        .filter(|field| !["struct PartialSyncConfig {", "size", "user_data", "release"].contains(field))
        .collect();
    let options: BTreeSet<&str> = ALL.iter().flat_map(|option| option.c).copied().collect();
    assert_eq!(fields, options);
}
