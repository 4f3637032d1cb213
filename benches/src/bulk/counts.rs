//! How many instructions each part takes for a row, counted by `callgrind` (Valgrind) in a process of its own: a number that
//! other programs on the machine do not change, so that a part that became dearer is seen.

use std::{path::Path, process::Command};

use super::work::{FRESH, Sizes, WORK, replica, sides, stock};
use crate::{json, options::Options, result::Result};

pub(super) const CASE: &str = "instructions for a row";
/// The parts of `WORK`, for one row each.
const PARTS: [&str; WORK.len()] = [
    "insert",
    "update",
    "point read",
    "point read in a transaction",
    "scan",
    "fetch",
];
/// The first word of the process that is counted.
pub(crate) const CHILD: &str = "--count";
const SIZES: Sizes = Sizes {
    rows: 5_000,
    lookups: 5_000,
    scans: 1,
};

/// Prints a table.
pub(super) fn run(options: &Options, folder: &Path) -> Result<()> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is missing: {CASE} are left out.\n");
        return Ok(());
    }
    println!("| instructions for each row | SQLite | replica | ratio |");
    println!("|---|---|---|---|");
    let mut numbers = serde_json::Map::new();
    for (i, name) in PARTS.into_iter().enumerate() {
        let stock = count(folder, "stock", i)?;
        let replica = count(folder, "replica", i)?;
        println!(
            "| {name} | {stock} | {replica} | {:.2} |",
            replica as f64 / stock as f64
        );
        numbers.insert(name.to_owned(), serde_json::json!([stock, replica]));
    }
    println!();
    json::add(options, "instructions", numbers.into())
}

/// Instructions for a row of one part on one side.
fn count(folder: &Path, side: &str, which: usize) -> Result<u64> {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
        ])
        .arg("--toggle-collect=*counted_part*")
        .arg(std::env::current_exe()?)
        .args([CHILD, side, &which.to_string()])
        .arg(folder.join(format!("count-{side}-{which}")))
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    match collected.and_then(|(_, number)| number.trim().parse::<u64>().ok()) {
        Some(number) if output.status.success() && number > 0 => Ok(number / SIZES.rows as u64),
        _ => Err(format!("instructions could not be counted: {text}").into()),
    }
}

/// What is counted: `side part folder`.
pub(crate) fn child(mut words: impl Iterator<Item = String>) -> Result<()> {
    let mut word = || words.next().ok_or("a word is missing");
    let (side, which, folder) = (word()?, word()?.parse()?, word()?);
    std::fs::create_dir_all(&folder)?;
    let (stock, _database, replica) = sides(Path::new(&folder), "count")?;
    let run = |which| match side.as_str() {
        "stock" => stock::run(&stock, which, SIZES),
        _ => replica::run(&replica, which, SIZES),
    };
    // What is learnt once is learnt.
    run(0)?;
    match which {
        0 => {
            stock.execute_batch(FRESH)?;
            replica.execute_batch(FRESH)?;
        }
        _ => {
            run(which)?;
        }
    }
    counted_part(|| run(which))?;
    Ok(())
}

/// Counted is what happens in here.
#[inline(never)]
fn counted_part(part: impl FnOnce() -> Result<i64>) -> Result<i64> {
    std::hint::black_box(part())
}
