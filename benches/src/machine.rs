//! What numbers cannot be read without: which commit, which machine, which SQLite, which file system.

use std::{fs, path::Path, process::Command};

use crate::{options::Options, result::Result};

/// Prints the facts as a Markdown list.
pub(crate) fn print(options: &Options) -> Result<()> {
    for fact in facts(options)? {
        println!("- {fact}");
    }
    println!();
    Ok(())
}

/// The facts, a line each.
pub(crate) fn facts(options: &Options) -> Result<Vec<String>> {
    fs::create_dir_all(&options.dir)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let profile = if cfg!(debug_assertions) {
        "debug: these numbers mean nothing"
    } else {
        "release"
    };
    Ok(vec![
        format!("commit {} ({profile})", commit()),
        format!(
            "{cores} cores, {}; load average at the start {}; {}",
            processor(),
            first_words("/proc/loadavg", 3),
            first_words("/proc/sys/kernel/osrelease", 1),
        ),
        format!("SQLite {}, the same build on both sides", rusqlite::version()),
        format!("databases on {}", file_system(&options.dir.canonicalize()?)),
    ])
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR")])
            .args(args)
            .output();
        output
            .ok()
            .filter(|o| o.status.success())
            .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".into();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", "../crates"]);
    match changed.is_none_or(|c| c.is_empty()) {
        true => head,
        false => format!("{head} and changes not committed"),
    }
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or_else(
        || std::env::consts::ARCH.to_owned(),
        |model| model.trim_start_matches([' ', '\t', ':']).to_owned(),
    )
}

fn first_words(path: &str, count: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().take(count).collect();
    words.join(" ")
}

/// Kind of the file system that a folder is on, from the mount with the longest path above it.
fn file_system(folder: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let found = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(at, _)| folder.starts_with(at))
        .max_by_key(|(at, _)| at.len());
    found.map_or_else(|| "an unknown file system".into(), |(_, kind)| kind.to_owned())
}
