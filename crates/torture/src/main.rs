//! The program: runs histories for a time, in several processes, prints what failed as short lists of steps, and numbers.
//! A process of its own for each job, because a panic in a thread of the engine, a crash or a hang must be that of one seed.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use clap::Parser;
use partial_sync_torture::{
    generator::{Focus, generate},
    oracle::IGNORED,
    report::Counts,
    run::{Verdict, run},
    shrink::shrink,
    steps::Case,
};

/// Simulated histories of replicas and a remote, held against plain SQLite.
#[derive(Parser, Clone)]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// The first seed; random when it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// At most so many histories for each job.
    #[arg(long)]
    count: Option<u64>,
    /// Processes.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Runs a saved list of steps, so many times.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// How often a saved list is run.
    #[arg(long, default_value_t = 1)]
    times: u32,
    /// Makes a saved list shorter.
    #[arg(long)]
    shrink: bool,
    /// Prints the history of the seed and does not run it.
    #[arg(long)]
    show: bool,
    /// Kinds of tables to look at, with commas.
    #[arg(long, value_delimiter = ',')]
    tables: Vec<String>,
    /// Subjects to leave out, with commas.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Subjects that every history is to have, with commas.
    #[arg(long, value_delimiter = ',')]
    with: Vec<String>,
    /// Failures to look past, by a part of their kind, with commas.
    #[arg(long, value_delimiter = ',')]
    ignore: Vec<String>,
    /// Seconds that making a failing history short may take.
    #[arg(long, default_value_t = 60)]
    patience: u64,
    #[arg(long, hide = true)]
    child: bool,
    #[arg(long, hide = true, default_value_t = 1)]
    stride: u64,
}

/// How often a job says how far it is.
const SAY: Duration = Duration::from_secs(60);
/// A process that runs one small history after another must not grow beyond this.
const MOST_MEMORY: u64 = 600 << 20;
/// A history that takes longer hangs, also on a machine that has other things to do.
const LONGEST: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let focus = Focus {
        tables: arguments.tables.clone(),
        without: arguments.without.clone(),
        with: arguments.with.clone(),
    };
    let seed = *arguments.seed.get_or_insert_with(|| fastrand::u64(..1 << 48));
    let _ = IGNORED.set(arguments.ignore.clone());
    if arguments.show {
        print!("{}", generate(seed, &focus));
        return ExitCode::SUCCESS;
    }
    match &arguments.replay {
        Some(path) => replay(path, &arguments),
        None if arguments.child => child(seed, &arguments, &focus),
        None => parent(seed, &arguments),
    }
}

fn replay(path: &PathBuf, arguments: &Arguments) -> ExitCode {
    let case: Case = match std::fs::read_to_string(path)
        .map_err(|e| e.to_string())
        .and_then(|text| text.parse())
    {
        Ok(case) => case,
        Err(e) => {
            eprintln!("{}: {e}", path.display());
            return ExitCode::FAILURE;
        }
    };
    for _ in 0..arguments.times {
        if let (Verdict::Failed(at, failure), _) = run(&case) {
            println!(
                "{}: {}\n  {}",
                case.lines
                    .get(at)
                    .map_or("the end".to_owned(), |line| line.step.to_string()),
                failure.kind,
                failure.detail
            );
            if arguments.shrink {
                print!(
                    "{}",
                    shrink(&case, &failure.kind, Duration::from_secs(arguments.patience))
                );
            }
            return ExitCode::FAILURE;
        }
    }
    println!("{} ends well", path.display());
    ExitCode::SUCCESS
}

/// Lines that a child prints: `at SEED`, `fail SEED`, `| text`, and its counts at the end.
fn child(seed: u64, arguments: &Arguments, focus: &Focus) -> ExitCode {
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(arguments.minutes * 60.0);
    let started = Arc::new(AtomicU64::new(0));
    watchdog(began, started.clone());
    let mut counts = Counts::default();
    let mut seen = BTreeSet::new();
    let mut seed = seed;
    for _ in 0..arguments.count.unwrap_or(u64::MAX) {
        if Instant::now() >= end {
            break;
        }
        println!("at {seed}");
        started.store(began.elapsed().as_millis() as u64 + 1, SeqCst);
        let case = generate(seed, focus);
        let (verdict, counted) = run(&case);
        started.store(0, SeqCst);
        counts.add(&counted);
        if let Verdict::Failed(at, failure) = verdict {
            println!("fail {seed} {}", failure.kind);
            println!("| at line {at}: {}", failure.detail.replace('\n', "\n| "));
            if seen.insert(failure.kind.clone()) && arguments.patience > 0 {
                let short = shrink(&case, &failure.kind, Duration::from_secs(arguments.patience));
                short.to_string().lines().for_each(|line| println!("| {line}"));
            }
        }
        if let Some(bytes) = resident().filter(|bytes| *bytes > MOST_MEMORY) {
            println!("fail {seed} the process has {} MB after it", bytes >> 20);
            return ExitCode::FAILURE;
        }
        seed += arguments.stride;
        println!("counts {}", counted.encode());
    }
    ExitCode::SUCCESS
}

/// Bytes of memory that this process holds, where the system tells.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

fn watchdog(began: Instant, started: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let at = started.load(SeqCst);
            if at > 0 && began.elapsed() > Duration::from_millis(at) + LONGEST {
                println!("hang");
                std::process::exit(3);
            }
        }
    });
}

fn parent(seed: u64, arguments: &Arguments) -> ExitCode {
    println!(
        "seed {seed}, {} jobs, {} minutes",
        arguments.jobs, arguments.minutes
    );
    let began = Instant::now();
    let (send, receive) = mpsc::channel();
    for job in 0..arguments.jobs {
        let (arguments, send) = (arguments.clone(), send.clone());
        std::thread::spawn(move || {
            let counts = run_job(job, seed + job, &arguments, began);
            let _ = send.send(counts);
        });
    }
    drop(send);
    let mut counts = Counts::default();
    for job in receive {
        counts.add(&job);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{counts}");
    println!(
        "{:.1} histories and {:.1} crash points a second",
        counts.histories as f64 / seconds,
        counts.crash_points as f64 / seconds
    );
    if counts.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs a job to the end of its time, in as many processes as it takes.
fn run_job(job: u64, mut seed: u64, arguments: &Arguments, began: Instant) -> Counts {
    let mut counts = Counts::default();
    let mut left = arguments.count;
    let mut said = Instant::now();
    loop {
        let minutes = arguments.minutes - began.elapsed().as_secs_f64() / 60.0;
        if minutes <= 0.0 || left == Some(0) {
            return counts;
        }
        let mut command = match std::env::current_exe() {
            Ok(program) => Command::new(program),
            Err(e) => {
                eprintln!("this program cannot be started again: {e}");
                return counts;
            }
        };
        command.args([
            "--child",
            "--seed",
            &seed.to_string(),
            "--stride",
            &arguments.jobs.to_string(),
        ]);
        command.args([
            "--minutes",
            &minutes.to_string(),
            "--patience",
            &arguments.patience.to_string(),
        ]);
        if let Some(left) = left {
            command.args(["--count", &left.to_string()]);
        }
        if !arguments.tables.is_empty() {
            command.args(["--tables", &arguments.tables.join(",")]);
        }
        if !arguments.without.is_empty() {
            command.args(["--without", &arguments.without.join(",")]);
        }
        if !arguments.with.is_empty() {
            command.args(["--with", &arguments.with.join(",")]);
        }
        if !arguments.ignore.is_empty() {
            command.args(["--ignore", &arguments.ignore.join(",")]);
        }
        let mut process = match command.stdout(Stdio::piped()).spawn() {
            Ok(process) => process,
            Err(e) => {
                eprintln!("a job cannot be started: {e}");
                return counts;
            }
        };
        let output = process.stdout.take();
        for line in output
            .into_iter()
            .flat_map(|output| BufReader::new(output).lines())
            .map_while(Result::ok)
        {
            if let Some(at) = line.strip_prefix("at ") {
                seed = at.parse().unwrap_or(seed);
            } else if let Some(text) = line.strip_prefix("counts ") {
                counts.add(&Counts::decode(text));
                if said.elapsed() > SAY {
                    said = Instant::now();
                    println!(
                        "... job {job}: {} histories, {} crash points",
                        counts.histories, counts.crash_points
                    );
                }
                left = left.map(|left| left.saturating_sub(1));
            } else {
                println!("{line}");
            }
        }
        let ended = process.wait();
        if ended.as_ref().is_ok_and(|status| status.success()) {
            return counts;
        }
        println!("fail {seed} the process ended with {ended:?}");
        *counts
            .failures
            .entry("the process died or hung".into())
            .or_default() += 1;
        left = left.map(|left| left.saturating_sub(1));
        seed += arguments.jobs;
    }
}
