//! What a replica costs when everything is here: reads, and writes that are recorded, against stock SQLite on a copy of the
//! same file with the same settings.
//!
//! The sides take turns within every round, and the order turns too. The ratio of a case is the median of the rounds'
//! ratios, so that a machine that is slow for a while is slow for both.

mod work;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use cpu_time::ThreadTime;
use partial_sync::{Connection, Database, PartialSync};
use partial_sync_server::Server;
use rusqlite::OpenFlags;
use work::{BULK, Draw, replica, stock};

use crate::{
    data::{self, TOWNS, population, town},
    options::Options,
    result::Result,
    samples::Samples,
};

/// Every case.
pub(crate) const CASES: [&str; 16] = [
    "read by key",
    "read by key, one transaction",
    "read by index",
    "scan",
    "scan, rows to the program",
    "read by key, small cache",
    "read by key, one transaction, small cache",
    "read by index, small cache",
    "scan, small cache",
    "insert, FULL",
    "update, FULL",
    "delete, FULL",
    "insert, NORMAL",
    "update, NORMAL",
    "delete, NORMAL",
    "bulk insert, NORMAL",
];

/// What is counted.
#[derive(Clone, Copy)]
enum Clock {
    /// The thread's processor time: for reads of what is in memory, which wait for nothing. The turns that other programs
    /// take on a shared machine are not in it.
    Processor,
    /// Time on the wall: for writes, which wait for the disk.
    Wall,
}

type Work<C> = fn(&C, &Draw) -> Result<i64>;

struct Case {
    name: &'static str,
    stock: Work<rusqlite::Connection>,
    replica: Work<Connection>,
    /// Operations in one round.
    operations: usize,
    /// What the ratio should not be above.
    target: Option<f64>,
}

fn case(
    name: &'static str,
    stock: Work<rusqlite::Connection>,
    replica: Work<Connection>,
    operations: usize,
    target: impl Into<Option<f64>>,
) -> Case {
    Case {
        name,
        stock,
        replica,
        operations,
        target: target.into(),
    }
}

/// Two databases with the same content, open.
struct Pair {
    /// As `rusqlite` opens it: without a mutex, for one thread.
    stock: rusqlite::Connection,
    /// As `sqlite3_open` opens it, and as a replica's connection is: threads may share it. For reads.
    serialized: Option<rusqlite::Connection>,
    replica: Connection,
    _database: Database,
}

impl Pair {
    fn both(&self, sql: &str) -> Result<()> {
        stock::script(&self.stock, sql)?;
        if let Some(serialized) = &self.serialized {
            stock::script(serialized, sql)?;
        }
        replica::script(&self.replica, sql)
    }
}

/// Runs the cases that are wanted and prints a table for each group.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir_in(&options.dir)?;
    let (stock_file, replica_file) = (folder.path().join("stock.db"), folder.path().join("replica.db"));
    hydrate(folder.path(), &replica_file)?;
    std::fs::copy(&replica_file, &stock_file)?;
    for name in [replica_file.clone(), prefetch_file(&replica_file)] {
        // Written in the same way and at the same time as the other side's: how a file came into the page cache (page by
        // page or in large pieces) makes more of a difference to reading it than who reads.
        let copy = folder.path().join("copy");
        std::fs::copy(&name, &copy)?;
        std::fs::rename(&copy, &name)?;
    }
    println!(
        "### A replica that has every page ({:.1} MB), against stock SQLite\n",
        std::fs::metadata(&stock_file)?.len() as f64 / 1e6
    );

    for (prefetch, title) in [
        (false, "Reads: µs of processor time"),
        (true, "Reads of a replica with `prefetch`: µs of processor time"),
    ] {
        heading(title);
        let pair = open(&stock_file, &replica_file, prefetch, false)?;
        reads(&pair, options)?;
        println!();
    }
    heading("Writes, recorded, WAL mode: µs on the clock");
    let pair = open(&stock_file, &replica_file, false, true)?;
    writes(&pair, options)?;
    println!();
    Ok(())
}

/// The replica that was made with `prefetch`.
fn prefetch_file(replica_file: &Path) -> PathBuf {
    replica_file.with_extension("prefetch")
}

/// A replica with every page, made the way a user would make one, and closed.
fn hydrate(folder: &Path, replica_file: &Path) -> Result<()> {
    let remote = folder.join("remote.db");
    data::make(&remote)?;
    let server = Server::builder(&remote).start_blocking("127.0.0.1:0")?;
    for prefetch in [false, true] {
        let name = match prefetch {
            true => prefetch_file(replica_file),
            false => replica_file.to_owned(),
        };
        let database = Database::builder(&name)
            .remote(server.url())
            .partial(PartialSync {
                prefetch: Some(prefetch),
                ..PartialSync::default()
            })
            .connect()?;
        database.hydrate(|_| {})?;
        database.checkpoint()?;
    }
    server.shutdown_blocking();
    Ok(())
}

fn open(stock_file: &Path, replica_file: &Path, prefetch: bool, writes: bool) -> Result<Pair> {
    // No remote is running any more: a page that is not here would be an error.
    let replica_file = match prefetch {
        true => prefetch_file(replica_file),
        false => replica_file.to_owned(),
    };
    let database = Database::builder(replica_file).connect()?;
    let pair = Pair {
        stock: rusqlite::Connection::open(stock_file)?,
        serialized: match writes {
            true => None,
            false => Some(rusqlite::Connection::open_with_flags(
                stock_file,
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_FULL_MUTEX,
            )?),
        },
        replica: database.connection()?,
        _database: database,
    };
    // A whole replica is a file for any program, and not in WAL mode as such.
    stock::script(&pair.stock, "PRAGMA journal_mode = WAL")?;
    pair.both("PRAGMA foreign_keys = OFF")?;
    Ok(pair)
}

fn reads(pair: &Pair, options: &Options) -> Result<()> {
    const LOOKUPS: usize = 40_000;
    for small in [false, true] {
        // 20 pages: nearly every leaf is asked of the VFS. -2000 is the default, 2 MB.
        pair.both(if small {
            "PRAGMA cache_size = 20"
        } else {
            "PRAGMA cache_size = -2000"
        })?;
        let cases = match small {
            false => vec![
                case(CASES[0], stock::by_key, replica::by_key, LOOKUPS, 1.05),
                case(
                    CASES[1],
                    stock::by_key_in_one_transaction,
                    replica::by_key_in_one_transaction,
                    LOOKUPS,
                    1.05,
                ),
                case(CASES[2], stock::by_index, replica::by_index, LOOKUPS, 1.05),
                case(CASES[3], stock::scan, replica::scan, TOWNS as usize, 1.05),
                case(
                    CASES[4],
                    stock::scan_rows,
                    replica::scan_rows,
                    TOWNS as usize,
                    1.05,
                ),
            ],
            true => vec![
                case(CASES[5], stock::by_key, replica::by_key, LOOKUPS, 1.05),
                case(
                    CASES[6],
                    stock::by_key_in_one_transaction,
                    replica::by_key_in_one_transaction,
                    LOOKUPS,
                    1.05,
                ),
                case(CASES[7], stock::by_index, replica::by_index, LOOKUPS, 1.05),
                case(CASES[8], stock::scan, replica::scan, TOWNS as usize, 1.05),
            ],
        };
        for case in cases {
            if options.wants(case.name) {
                measure(pair, &case, options.rounds(11), Clock::Processor)?;
            }
        }
    }
    Ok(())
}

fn writes(pair: &Pair, options: &Options) -> Result<()> {
    pair.both("PRAGMA cache_size = -2000")?;
    for (level, first, operations, target) in [("FULL", 9, 400, 1.5), ("NORMAL", 12, 4_000, 2.0)] {
        pair.both(&format!("PRAGMA synchronous = {level}"))?;
        let (insert, update, delete) = (CASES[first], CASES[first + 1], CASES[first + 2]);
        let cases = [
            case(insert, stock::insert, replica::insert, operations, target),
            case(update, stock::update, replica::update, operations, target),
            case(delete, stock::delete, replica::delete, operations, target),
        ];
        // Deletes take away what inserts put there, so either all three run or the selected one would find nothing.
        if cases.iter().any(|case| options.wants(case.name)) {
            for case in cases {
                measure(pair, &case, options.rounds(9), Clock::Wall)?;
            }
        }
    }
    if options.wants(CASES[15]) {
        pair.both("CREATE TABLE visits(id INTEGER PRIMARY KEY, town INTEGER, remark TEXT)")?;
        let bulk = case(CASES[15], stock::bulk, replica::bulk, BULK as usize, None);
        measure(pair, &bulk, options.rounds(5), Clock::Wall)?;
    }
    Ok(())
}

fn heading(title: &str) {
    println!("**{title}**\n");
    println!(
        "| case | SQLite, no mutex, µs | SQLite, serialized, µs | replica, µs | to no mutex | to serialized | target |"
    );
    println!("|---|---|---|---|---|---|---|");
}

/// Measures a case and prints its row: microseconds for each operation, and the replica's time over the others'.
fn measure(pair: &Pair, case: &Case, rounds: usize, clock: Clock) -> Result<()> {
    let mut times: [Samples; 3] = Default::default();
    let mut ratios: [Samples; 2] = Default::default();
    // The first round is not counted: it fills caches.
    for round in 0..=rounds {
        let draw = draw(round, case.operations);
        let mut outcomes = [None; 3];
        for turn in 0..3 {
            let side = (turn + round) % 3;
            outcomes[side] = match (side, &pair.serialized) {
                (0, _) => Some(timed(clock, || (case.stock)(&pair.stock, &draw))?),
                (1, Some(serialized)) => Some(timed(clock, || (case.stock)(serialized, &draw))?),
                (1, None) => None,
                _ => Some(timed(clock, || (case.replica)(&pair.replica, &draw))?),
            };
        }
        let [stock, serialized, replica] = outcomes;
        for (side, outcome) in [stock, serialized].into_iter().enumerate() {
            let (Some((expected, theirs)), Some((answer, ours))) = (outcome, replica) else {
                continue;
            };
            if answer != expected {
                return Err(format!("{}: SQLite answers {expected}, the replica {answer}", case.name).into());
            }
            if round > 0 {
                ratios[side].push(ours / theirs);
            }
        }
        for (samples, outcome) in times.iter_mut().zip(outcomes) {
            if let (Some((_, time)), true) = (outcome, round > 0) {
                samples.push(time / case.operations as f64);
            }
        }
    }
    // Like is compared with like where there is such a measurement.
    let judged = ratios.iter().rev().map(Samples::median).find(|m| !m.is_nan());
    let target = match (case.target, judged) {
        (Some(target), Some(ratio)) if ratio <= target => format!("{target} met"),
        (Some(target), _) => format!("{target} missed"),
        (None, _) => "-".into(),
    };
    let [stock, serialized, replica] = times.map(|samples| samples.shown(2));
    let [to_stock, to_serialized] = ratios.map(|samples| samples.shown(2));
    println!(
        "| {} | {stock} | {serialized} | {replica} | {to_stock} | {to_serialized} | {target} |",
        case.name
    );
    Ok(())
}

/// What `work` returns, and the microseconds it took.
fn timed<T>(clock: Clock, work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let (start, start_cpu) = (Instant::now(), ThreadTime::now());
    let value = work()?;
    let took = match clock {
        Clock::Processor => start_cpu.elapsed(),
        Clock::Wall => start.elapsed(),
    };
    Ok((value, took.as_secs_f64() * 1e6))
}

fn draw(round: usize, operations: usize) -> Draw {
    let mut random = fastrand::Rng::with_seed(round as u64 + 1);
    let ids: Vec<i64> = (0..operations).map(|_| random.i64(1..=TOWNS)).collect();
    Draw {
        populations: ids.iter().copied().map(population).collect(),
        ids,
        free_id: 10_000_000 + (round as i64) * BULK,
        text: town(1_000_000 + round as i64).3,
    }
}
