//! Many rows at once, when everything is here: inserts and updates that are recorded, reads, and what a large update takes of
//! memory. A replica is compared with stock SQLite on a file of its own; pyturso with Python's `sqlite3`, in a process each.
//! Instructions are counted as well (`counts.rs`): they are the same on a machine that has other things to do.

mod counts;
mod work;

use std::{path::Path, process::Command, time::Instant};

use partial_sync_server::Server;

use work::{FRESH, MAKE, SIZES, WORK, replica, sides, stock};

pub(crate) use counts::{CHILD, child};

use crate::{cold::pyturso_version, json, memory, options::Options, result::Result, samples::Samples};

/// Rows of the update that is measured in memory.
const MANY: i64 = 1_000_000;
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/bulk.py");

const MEMORY: &str = "memory in MB of a statement on 1,000,000 rows";

/// The cases.
pub(crate) fn cases() -> Vec<&'static str> {
    let names = WORK.iter().map(|(name, _)| *name);
    names.chain([counts::CASE, MEMORY]).collect()
}

/// Runs the cases that are wanted and prints a table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir_in(&options.dir)?;
    println!("### Many rows at once, when everything is here: ms on the clock, WAL, `synchronous` NORMAL\n");
    let ours = measure(options, folder.path())?;
    let theirs = match pyturso_version(&options.python) {
        Some(version) => {
            println!("pyturso {version} beside Python's `sqlite3`, both in Python; the others in Rust.\n");
            Some(python(options, folder.path())?)
        }
        None => {
            println!("pyturso is missing in {}: left out.\n", options.python.display());
            None
        }
    };
    let mut numbers = serde_json::Map::new();
    println!("| case | SQLite | replica | ratio | wanted | pyturso to `sqlite3` |");
    println!("|---|---|---|---|---|---|");
    for (i, (name, wanted)) in WORK.into_iter().enumerate() {
        let Some([stock, replica, ratio]) = &ours[i] else {
            continue;
        };
        let met = if ratio.median() <= wanted { "met" } else { "missed" };
        let theirs = theirs
            .as_ref()
            .map_or("-".to_owned(), |theirs| theirs[i].shown(2));
        println!(
            "| {name} | {} | {} | {} | {wanted} {met} | {theirs} |",
            stock.shown(0),
            replica.shown(0),
            ratio.shown(2)
        );
        numbers.insert(name.to_owned(), ratio.median().into());
    }
    println!();
    json::add(options, "bulk", numbers.into())?;
    if options.wants(counts::CASE) {
        counts::run(options, folder.path())?;
    }
    match options.wants(MEMORY) {
        true => memory(folder.path()),
        false => Ok(()),
    }
}

/// Times of SQLite, of the replica, and their ratios; in turns within each round.
fn measure(options: &Options, folder: &Path) -> Result<Vec<Option<[Samples; 3]>>> {
    let (stock, _database, replica) = sides(folder, "bulk")?;
    let mut all = vec![None; WORK.len()];
    for round in 0..=options.rounds(5) {
        stock.execute_batch(FRESH)?;
        replica.execute_batch(FRESH)?;
        for (i, (name, _)) in WORK.iter().enumerate() {
            let mut took = [0.0; 2];
            let mut checks = [0; 2];
            for turn in 0..2 {
                let side = (turn + round) % 2;
                let start = Instant::now();
                checks[side] = match side {
                    0 => stock::run(&stock, i, SIZES)?,
                    _ => replica::run(&replica, i, SIZES)?,
                };
                took[side] = start.elapsed().as_secs_f64() * 1000.0;
            }
            if checks[0] != checks[1] {
                return Err(
                    format!("{name}: SQLite answers {}, the replica {}", checks[0], checks[1]).into(),
                );
            }
            // The first round fills caches. What is not wanted is done all the same: the next part needs its rows.
            if round > 0 && options.wants(name) {
                let [stock, replica, ratio] = all[i].get_or_insert_with(<[Samples; 3]>::default);
                stock.push(took[0]);
                replica.push(took[1]);
                ratio.push(took[1] / took[0]);
            }
        }
    }
    Ok(all)
}

/// The same in Python: ratios of pyturso to `sqlite3`.
fn python(options: &Options, folder: &Path) -> Result<Vec<Samples>> {
    let remote = folder.join("python-remote.db");
    rusqlite::Connection::open(&remote)?.execute_batch(MAKE)?;
    let server = Server::builder(&remote).start_blocking("127.0.0.1:0")?;
    let rounds = options.rounds(5).to_string();
    let times = |package: &str| -> Result<Vec<Vec<f64>>> {
        let output = Command::new(&options.python)
            .arg(PYTHON)
            .arg(package)
            .arg(folder.join(format!("{package}.db")))
            .args([server.url(), rounds.clone()])
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let (stock, theirs) = (times("sqlite3")?, times("turso")?);
    server.shutdown_blocking();
    let ratios = stock.iter().zip(&theirs).map(|(stock, theirs)| {
        let mut samples = Samples::default();
        for (stock, theirs) in stock.iter().zip(theirs) {
            samples.push(theirs / stock);
        }
        samples
    });
    Ok(ratios.collect())
}

/// What statements that change many rows take of memory, above what is in use before them.
fn memory(folder: &Path) -> Result<()> {
    let (stock, _database, replica) = sides(folder, "memory")?;
    let rows = format!("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {MANY})");
    let fill = format!("{rows} INSERT INTO bulk SELECT x, x, 'small' FROM c");
    const UPDATE: &str = "UPDATE bulk SET k = k + 1";
    let failing = format!("{rows} INSERT INTO once SELECT min(x, {MANY} - 1) FROM c");
    // What is made before, the statement, and whether it fails.
    let cases = [
        ("an UPDATE", fill.as_str(), UPDATE, false),
        (
            "an UPDATE whose trigger writes a row for each",
            "CREATE TABLE noted(k); \
             CREATE TRIGGER notes AFTER UPDATE ON bulk BEGIN INSERT INTO noted VALUES (new.k); END",
            UPDATE,
            false,
        ),
        (
            "an UPDATE beside a generated column",
            "DROP TRIGGER notes; ALTER TABLE bulk ADD COLUMN twice AS (2 * k)",
            UPDATE,
            false,
        ),
        (
            "an INSERT that fails at its last row",
            "CREATE TABLE once(k UNIQUE)",
            failing.as_str(),
            true,
        ),
    ];
    println!("| {MEMORY} | SQLite | replica (at most 64 wanted) |");
    println!("|---|---|---|");
    let peak_of = |run: &dyn Fn() -> bool, fails: bool| -> Result<String> {
        let before = memory::forget_peak();
        if run() != fails {
            return Err("a statement did not do what it is measured for".into());
        }
        Ok(match (before, memory::peak()) {
            (Some(before), Some(peak)) => (peak.saturating_sub(before) / 1024).to_string(),
            _ => "not known here".to_owned(),
        })
    };
    for (name, before, statement, fails) in cases {
        stock.execute_batch(before)?;
        let with_sqlite = peak_of(&|| stock.execute_batch(statement).is_err(), fails)?;
        replica.execute_batch(before)?;
        let with_replica = peak_of(&|| replica.execute_batch(statement).is_err(), fails)?;
        println!("| {name} | {with_sqlite} | {with_replica} |");
    }
    println!();
    Ok(())
}
