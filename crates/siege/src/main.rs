//! Abuses `partial-sync serve` as its own process, with few descriptors and a small disk, while an honest client works beside
//! it, and ends it at random moments. Prints a table of what was seen; fails if the server was not held to what it promises:
//!
//! - no request of the honest client fails, and its 99th percentile stays below a second;
//! - the server never has 300 MB of memory;
//! - SIGTERM ends it within 10 seconds, whatever it is doing;
//! - every row that was acknowledged is there, after SIGTERM and after SIGKILL;
//! - no attacker gets what it must not get, and no answer is 500.
//!
//! An attacker is a process as well (`--attack`), with less of the processor: on a network it would be on another machine.

mod ask;
mod attack;
mod client;
mod files;
mod held;
mod honest;
mod process;
mod result;
mod round;
mod soak;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;

use crate::{
    attack::{ALL, Attack, Foe},
    files::{MANY, SmallDisk},
    honest::Ledger,
    process::Place,
    result::Result,
    round::{Outcome, Round},
};

/// Abuses a server beside an honest client, and says whether it held.
#[derive(Parser)]
struct Arguments {
    /// The program that serves.
    #[arg(long)]
    binary: PathBuf,
    /// How long all attackers together have.
    #[arg(long, default_value_t = 6.0)]
    minutes: f64,
    /// The first seed; random when it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these attackers, with commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Instead of it: one server for so many minutes, with moderate abuse.
    #[arg(long, value_name = "MINUTES")]
    soak: Option<f64>,
    /// The 99th percentile is not judged: the program is not optimised, or the machine has other things to do.
    #[arg(long)]
    untimed: bool,
    /// Where the databases are made; a folder on a disk.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Lists the attackers.
    #[arg(long)]
    list: bool,
    #[arg(long, hide = true)]
    attack: Option<String>,
    #[arg(long, hide = true)]
    addr: Option<SocketAddr>,
    #[arg(long, hide = true, default_value_t = 0)]
    pid: u32,
    #[arg(long, hide = true, default_value_t = 100)]
    strength: usize,
    #[arg(long, hide = true)]
    data: Option<PathBuf>,
}

/// One round is not longer than this.
const ROUND: Duration = Duration::from_secs(10);
/// The disk of which there is too little.
const SMALL_DISK: u32 = 384;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let run = |runtime: tokio::runtime::Runtime| runtime.block_on(run(arguments));
    match runtime.map_err(Into::into).and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<bool> {
    if arguments.list {
        for attack in ALL {
            println!("{:10} {}", attack.name, attack.what);
        }
        return Ok(true);
    }
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    if let (Some(name), Some(addr), Some(beside), Some(data)) = (
        &arguments.attack,
        arguments.addr,
        &arguments.folder,
        &arguments.data,
    ) {
        let place = Place {
            binary: arguments.binary,
            data: data.clone(),
            beside: beside.clone(),
            options: &[],
        };
        let foe = Foe::new(addr, place, arguments.pid, seed, arguments.strength);
        attack::run(attack::named(name)?, foe).await;
        return Ok(true);
    }
    let folder = match &arguments.folder {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            tempfile::tempdir_in(folder)?
        }
        None => tempfile::tempdir()?,
    };
    let place = Place {
        binary: std::fs::canonicalize(&arguments.binary)?,
        data: folder.path().join("data"),
        beside: folder.path().to_owned(),
        options: &[],
    };
    files::make(&place.data, MANY)?;
    println!(
        "seed {seed}; 1,024 descriptors; databases in {}",
        place.data.display()
    );
    let wrong = match arguments.soak {
        Some(minutes) => soak::run(&place, &Arc::default(), minutes, seed).await?,
        None => rounds(&arguments, &place, seed).await?,
    };
    let mut wrong = wrong;
    let log = std::fs::read_to_string(place.log())?;
    wrong.extend(
        log.lines()
            .filter(|line| line.contains("panicked"))
            .map(|line| format!("log: {line}")),
    );
    if !wrong.is_empty() {
        println!("\nnot held:");
        wrong.iter().for_each(|what| println!("- {what}"));
        let kept = std::env::temp_dir().join("siege.log");
        std::fs::write(&kept, log)?;
        println!("the server's log is {}", kept.display());
    }
    Ok(wrong.is_empty())
}

/// Every attacker, round after round, until the time is over; each has one round at least.
async fn rounds(arguments: &Arguments, place: &Place, seed: u64) -> Result<Vec<String>> {
    let attacks: Vec<&Attack> = match arguments.only.is_empty() {
        true => ALL.iter().collect(),
        false => arguments
            .only
            .iter()
            .map(|name| attack::named(name))
            .collect::<Result<_>>()?,
    };
    let each = Duration::from_secs_f64(arguments.minutes * 60.0 / attacks.len() as f64);
    let ledger = Arc::default();
    let mut wrong = Vec::new();
    held::print_head();
    for attack in attacks {
        let disk = match attack.name {
            "disk" => small_disk(place)?,
            _ => Some((place.clone(), Arc::clone(&ledger), None)),
        };
        let Some((place, ledger, _mounted)) = disk else {
            println!(
                "| {} | skipped: this user may not mount a small disk |",
                attack.name
            );
            continue;
        };
        let (outcome, failed) = rounds_of(attack, &place, &ledger, each, seed).await;
        held::print(attack, &outcome);
        let mut of_this = outcome.judged(!arguments.untimed);
        of_this.extend(failed);
        wrong.extend(of_this.into_iter().map(|what| format!("{}: {what}", attack.name)));
    }
    Ok(wrong)
}

/// Also what kept it from being continued.
async fn rounds_of(
    attack: &Attack,
    place: &Place,
    ledger: &Arc<Ledger>,
    time: Duration,
    seed: u64,
) -> (Outcome, Option<String>) {
    let (began, mut outcome) = (Instant::now(), Outcome::default());
    loop {
        let n = u64::from(outcome.rounds);
        let round = Round {
            attack,
            place,
            ledger,
            seed: seed + n,
            time: ROUND.min(time),
            kill: n % 3 == 1,
        };
        if let Err(error) = round.run(&mut outcome).await {
            return (outcome, Some(format!("the round cannot be continued: {error}")));
        }
        // Half a round more would be too much.
        if began.elapsed() + ROUND.min(time) / 2 >= time {
            return (outcome, None);
        }
    }
}

type OnDisk = (Place, Arc<Ledger>, Option<SmallDisk>);

/// A place on a small disk, with databases of its own.
fn small_disk(place: &Place) -> Result<Option<OnDisk>> {
    let at = place.beside.join("small");
    let Some(disk) = SmallDisk::mount(Path::new(&at), SMALL_DISK)? else {
        return Ok(None);
    };
    let place = Place {
        data: at.join("data"),
        // Else what the attacker writes fills it for good.
        options: &["--retain-bytes", "16777216"],
        ..place.clone()
    };
    files::make(&place.data, 1)?;
    Ok(Some((place, Arc::default(), Some(disk))))
}
