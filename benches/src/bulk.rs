//! Many rows at once, when everything is here: inserts and updates that are recorded, reads, and what a large update takes of
//! memory. A replica is compared with stock SQLite on a file of its own; pyturso with Python's `sqlite3`, in a process each.

use std::{path::Path, process::Command, time::Instant};

use partial_sync::Database;
use partial_sync_server::Server;

use crate::{cold::pyturso_version, json, memory, options::Options, result::Result, samples::Samples};

const ROWS: i64 = 200_000;
/// Rows of the update that is measured in memory.
const MANY: i64 = 1_000_000;
const LOOKUPS: i64 = 50_000;
const SCANS: i64 = 5;
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/bulk.py");

/// What is timed, and what the ratio to stock SQLite should not be above.
const WORK: [(&str, f64); 6] = [
    ("bulk insert of 200,000 rows", 1.4),
    ("UPDATE of 200,000 rows in one statement", 2.0),
    ("50,000 point reads", 0.5),
    ("50,000 point reads in one transaction", 1.05),
    ("5 scans", 1.2),
    ("fetching 200,000 rows", 0.9),
];
const MEMORY: &str = "memory of an UPDATE of 1,000,000 rows";

/// The cases.
pub(crate) fn cases() -> Vec<&'static str> {
    WORK.iter().map(|(name, _)| *name).chain([MEMORY]).collect()
}

/// The same statements on either side; a check value comes out of each.
macro_rules! work {
    ($module:ident, $connection:ty) => {
        mod $module {
            use crate::{
                bulk::{LOOKUPS, ROWS, SCANS},
                result::Result,
            };

            /// Does part `which` of `WORK`.
            pub(super) fn run(conn: &$connection, which: usize) -> Result<i64> {
                match which {
                    0 => insert(conn),
                    1 => {
                        conn.execute_batch("UPDATE bulk SET k = k + 1")?;
                        Ok(ROWS)
                    }
                    2 => points(conn),
                    3 => {
                        conn.execute_batch("BEGIN")?;
                        let sum = points(conn)?;
                        conn.execute_batch("COMMIT")?;
                        Ok(sum)
                    }
                    4 => {
                        let mut select = conn.prepare("SELECT sum(length(body)) FROM bulk")?;
                        let mut sum = 0;
                        for _ in 0..SCANS {
                            let length: i64 = select.query_row((), |row| row.get(0))?;
                            sum += length;
                        }
                        Ok(sum)
                    }
                    _ => fetch(conn),
                }
            }

            fn insert(conn: &$connection) -> Result<i64> {
                conn.execute_batch("BEGIN")?;
                let mut insert = conn.prepare("INSERT INTO bulk VALUES (?, ?, ?)")?;
                for id in 1..=ROWS {
                    insert.execute((
                        id,
                        id * 7,
                        "a text of an ordinary length, as a message or a note has it",
                    ))?;
                }
                conn.execute_batch("COMMIT")?;
                Ok(ROWS)
            }

            fn points(conn: &$connection) -> Result<i64> {
                let mut select = conn.prepare("SELECT id + length(body) FROM bulk WHERE id = ?")?;
                let mut sum = 0;
                for i in 0..LOOKUPS {
                    let found: i64 = select.query_row((i * 7919 % ROWS + 1,), |row| row.get(0))?;
                    sum += found;
                }
                Ok(sum)
            }

            fn fetch(conn: &$connection) -> Result<i64> {
                let mut select = conn.prepare("SELECT id, k, body FROM bulk")?;
                let mut rows = select.query(())?;
                let mut sum = 0;
                while let Some(row) = rows.next()? {
                    let (id, body): (i64, String) = (row.get(0)?, row.get(2)?);
                    sum += id + body.len() as i64;
                }
                Ok(sum)
            }
        }
    };
}

work!(stock, rusqlite::Connection);
work!(replica, partial_sync::Connection);

const MAKE: &str = "CREATE TABLE bulk(id INTEGER PRIMARY KEY, k INTEGER, body TEXT)";
const FRESH: &str = "DELETE FROM bulk";

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
    match options.wants(MEMORY) {
        true => memory(folder.path()),
        false => Ok(()),
    }
}

/// A replica with every page, of a remote that has no rows yet, and a stock database; both with the same settings.
fn sides(folder: &Path, name: &str) -> Result<(rusqlite::Connection, Database, partial_sync::Connection)> {
    const SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL";
    let remote = folder.join(format!("{name}-remote.db"));
    let own = folder.join(format!("{name}-stock.db"));
    for file in [&remote, &own] {
        rusqlite::Connection::open(file)?.execute_batch(MAKE)?;
    }
    let server = Server::builder(&remote).start_blocking("127.0.0.1:0")?;
    let database = Database::builder(folder.join(format!("{name}-replica.db")))
        .remote(server.url())
        .connect()?;
    server.shutdown_blocking();
    let replica = database.connection()?;
    replica.execute_batch(SETTINGS)?;
    let stock = rusqlite::Connection::open(own)?;
    stock.execute_batch(SETTINGS)?;
    Ok((stock, database, replica))
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
                    0 => stock::run(&stock, i)?,
                    _ => replica::run(&replica, i)?,
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

/// What an update of many rows takes of memory, above what is in use before it.
fn memory(folder: &Path) -> Result<()> {
    let (stock, _database, replica) = sides(folder, "memory")?;
    let fill = format!(
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {MANY}) \
         INSERT INTO bulk SELECT x, x, 'small' FROM c"
    );
    const UPDATE: &str = "UPDATE bulk SET k = k + 1";
    let megabytes = |before: Option<u64>| match (before, memory::peak()) {
        (Some(before), Some(peak)) => format!("{}", peak.saturating_sub(before) / 1024),
        _ => "not known here".to_owned(),
    };
    stock.execute_batch(&fill)?;
    let before = memory::forget_peak();
    stock.execute_batch(UPDATE)?;
    let stock = megabytes(before);
    replica.execute_batch(&fill)?;
    let before = memory::forget_peak();
    replica.execute_batch(UPDATE)?;
    let replica = megabytes(before);
    println!("{MEMORY}: {stock} MB with SQLite, {replica} MB with a replica (at most 64 wanted)\n");
    Ok(())
}
