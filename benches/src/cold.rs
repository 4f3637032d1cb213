//! The first answer from a database that is far away: a replica, another client of the same server over the same line,
//! and downloading the file first. Every contender starts from nothing in every round, and every answer is compared.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use partial_sync::{Bootstrap, Database, PartialSync};
use partial_sync_server::{Server, ServerHandle};
use rusqlite::types::Value;

use crate::{
    data::{self, TOWNS, population},
    far::{FarAway, Line, Traffic},
    options::Options,
    result::Result,
    samples::Samples,
};

/// Bytes of the bootstrap.
pub(crate) const PREFIX: u64 = 128 << 10;
/// A contender that takes longer is stopped and shown as such.
const PATIENCE: Duration = Duration::from_secs(120);
/// A contender that takes longer is measured once.
const SLOW: Duration = Duration::from_secs(20);
const PYTURSO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/pyturso_cold.py");

/// The questions, by name.
fn questions() -> [(&'static str, String); 4] {
    let mut sorted: Vec<i64> = (1..=TOWNS).map(population).collect();
    sorted.sort_unstable();
    let (low, high) = (sorted[70_000], sorted[70_091]);
    [
        (
            "point lookup",
            format!(
                "SELECT id, name, country, population, note FROM towns WHERE id = {}",
                TOWNS / 2 + 7
            ),
        ),
        (
            "92 rows by an index",
            format!(
                "SELECT id, name, population FROM towns WHERE population BETWEEN {low} AND {high} ORDER BY population"
            ),
        ),
        (
            "full scan",
            "SELECT count(*), sum(length(note)) FROM towns".into(),
        ),
        (
            "aggregate over an index",
            "SELECT country, count(*), sum(population) FROM towns GROUP BY country ORDER BY country".into(),
        ),
    ]
}

/// Names of the cases.
pub(crate) fn cases() -> Vec<&'static str> {
    questions().map(|(name, _)| name).to_vec()
}

/// How to get an answer.
#[derive(Clone, Copy, Debug)]
enum Contender {
    Replica(Sync),
    Pyturso(Sync),
    File,
}

/// What is synced.
#[derive(Clone, Copy, Debug)]
enum Sync {
    Everything,
    Partial { segment: u64, prefetch: Option<bool> },
}

/// What counts when nothing is said of segments and prefetch.
const DEFAULT: Sync = Sync::Partial {
    segment: 128 << 10,
    prefetch: None,
};
const SMALL: Sync = Sync::Partial {
    segment: 16 << 10,
    prefetch: Some(true),
};
const SEGMENTS: Sync = Sync::Partial {
    segment: 128 << 10,
    prefetch: Some(false),
};

/// In the order of the table; the first one is what the others are compared with.
const CONTENDERS: [Contender; 8] = [
    Contender::Replica(DEFAULT),
    Contender::Replica(SMALL),
    Contender::Replica(SEGMENTS),
    Contender::Pyturso(SMALL),
    Contender::Pyturso(DEFAULT),
    Contender::Replica(Sync::Everything),
    Contender::Pyturso(Sync::Everything),
    Contender::File,
];

impl Contender {
    fn name(self) -> String {
        let how = |sync| match sync {
            Sync::Everything => "everything first".to_owned(),
            Sync::Partial { segment, prefetch } => {
                let how = match prefetch {
                    None => ", by default",
                    Some(true) => ", prefetch",
                    Some(false) => ", `prefetch` false",
                };
                format!("{} KiB segments{how}", segment >> 10)
            }
        };
        match self {
            Self::Replica(sync) => format!("this project, {}", how(sync)),
            Self::Pyturso(sync) => format!("pyturso, {}", how(sync)),
            Self::File => "the file itself, over TCP, then SQLite".into(),
        }
    }
}

/// One measurement. `None`: it was stopped.
struct Run {
    answer: Option<Vec<Vec<String>>>,
    connect: f64,
    total: f64,
}

/// Where things are during a run.
struct Place<'o> {
    options: &'o Options,
    line: Line,
    server: ServerHandle,
    remote: PathBuf,
    /// A server that sends the file to anyone who connects.
    plain: SocketAddr,
    folder: tempfile::TempDir,
}

/// Runs the cases that are wanted and prints a table for each.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir_in(&options.dir)?;
    let remote = folder.path().join("remote.db");
    data::make(&remote)?;
    let place = Place {
        options,
        line: Line {
            rtt: options.rtt,
            bytes_per_second: options.bytes_per_second,
        },
        server: Server::builder(&remote).start_blocking("127.0.0.1:0")?,
        plain: serve_plainly(std::fs::read(&remote)?)?,
        remote,
        folder,
    };
    let width = options.bytes_per_second.map_or_else(
        || "no limit of bytes".to_owned(),
        |bytes| format!("{} Mbit/s", bytes * 8 / 1_000_000),
    );
    let megabytes = std::fs::metadata(&place.remote)?.len() as f64 / 1e6;
    println!(
        "### First answers from a database of {megabytes:.1} MB over {} ms and {width}\n",
        options.rtt.as_secs_f64() * 1000.0
    );
    println!(
        "Every partial contender begins with a prefix of 128 KiB. Seconds are from nothing to the answer.\n"
    );
    let pyturso = pyturso_version(&options.python);
    match &pyturso {
        Some(version) => println!("pyturso {version}, as a client of this project's server.\n"),
        None => println!("pyturso is missing in {}: left out.\n", options.python.display()),
    }
    for (name, sql) in questions() {
        if options.wants(name) {
            case(&place, name, &sql, pyturso.is_some())?;
        }
    }
    place.server.shutdown_blocking();
    Ok(())
}

fn case(place: &Place<'_>, name: &str, sql: &str, with_pyturso: bool) -> Result<()> {
    let expected = stock_rows(&rusqlite::Connection::open(&place.remote)?, sql)?;
    println!("**{name}**: `{sql}`\n");
    println!("| how | requests | connections | MB received | s to connect | s in all | times |");
    println!("|---|---|---|---|---|---|---|");
    let contenders = CONTENDERS
        .iter()
        .filter(|c| with_pyturso || !matches!(c, Contender::Pyturso(_)));
    let mut results: Vec<Measured> = contenders.map(|&c| Measured::new(c)).collect();
    for _ in 0..place.options.rounds(3) {
        for result in &mut results {
            if result.stopped || result.total.median() > SLOW.as_secs_f64() {
                continue;
            }
            let target = match result.contender {
                Contender::File => place.plain,
                _ => place.server.addr(),
            };
            let line = FarAway::to(target, place.line)?;
            let run = ask(place, result.contender, line.address(), sql)?;
            result.traffic = line.traffic();
            match run.answer {
                Some(answer) if answer != expected => {
                    return Err(
                        format!("{}: wrong answer to {sql}: {answer:?}", result.contender.name()).into(),
                    );
                }
                Some(_) => {
                    result.connect.push(run.connect);
                    result.total.push(run.total);
                }
                None => result.stopped = true,
            }
        }
    }
    let ours = results.first().map_or(f64::NAN, |first| first.total.median());
    for result in results {
        result.print(ours);
    }
    println!();
    Ok(())
}

struct Measured {
    contender: Contender,
    connect: Samples,
    total: Samples,
    traffic: Traffic,
    stopped: bool,
}

impl Measured {
    fn new(contender: Contender) -> Self {
        Self {
            contender,
            connect: Samples::default(),
            total: Samples::default(),
            traffic: Traffic::default(),
            stopped: false,
        }
    }

    fn print(&self, ours: f64) {
        let (seconds, times) = match self.stopped {
            true => (format!("stopped after {} s", PATIENCE.as_secs()), "-".into()),
            false => (self.total.shown(2), format!("{:.2}", self.total.median() / ours)),
        };
        println!(
            "| {} | {} | {} | {:.2} | {} | {seconds} | {times} |",
            self.contender.name(),
            // The plain file is sent to anyone who connects.
            self.traffic.requests.max(1),
            self.traffic.connections,
            self.traffic.received as f64 / 1e6,
            self.connect.shown(2),
        );
    }
}

/// Gets the answer in the contender's way, from nothing.
fn ask(place: &Place<'_>, contender: Contender, address: SocketAddr, sql: &str) -> Result<Run> {
    let folder = tempfile::tempdir_in(place.folder.path())?;
    let path = folder.path().join("replica.db");
    let url = format!("http://{address}");
    match contender {
        Contender::Replica(sync) => ask_replica(&path, &url, sync, sql),
        Contender::Pyturso(sync) => ask_pyturso(&place.options.python, &path, &url, sync, sql),
        Contender::File => {
            let start = Instant::now();
            std::io::copy(
                &mut TcpStream::connect(address)?,
                &mut std::fs::File::create(&path)?,
            )?;
            let connect = start.elapsed().as_secs_f64();
            let answer = stock_rows(&rusqlite::Connection::open(&path)?, sql)?;
            Ok(Run {
                answer: Some(answer),
                connect,
                total: start.elapsed().as_secs_f64(),
            })
        }
    }
}

fn ask_replica(path: &Path, url: &str, sync: Sync, sql: &str) -> Result<Run> {
    let mut builder = Database::builder(path).remote(url).timeout(PATIENCE);
    if let Sync::Partial { segment, prefetch } = sync {
        builder = builder.partial(PartialSync {
            bootstrap: Some(Bootstrap::prefix(PREFIX)),
            segment_size: Some(segment),
            prefetch,
        });
    }
    let start = Instant::now();
    let database = builder.connect()?;
    let connection = database.connection()?;
    let connect = start.elapsed().as_secs_f64();
    let mut select = connection.prepare(sql)?;
    let columns = select.column_count();
    let mut rows = select.query(())?;
    let mut answer = Vec::new();
    while let Some(row) = rows.next()? {
        let values: Result<Vec<String>> = (0..columns)
            .map(|i| Ok(shown(row.get_ref(i)?.try_into()?)))
            .collect();
        answer.push(values?);
    }
    Ok(Run {
        answer: Some(answer),
        connect,
        total: start.elapsed().as_secs_f64(),
    })
}

/// Asks through a new replica of pyturso: of everything, or a partial one with or without prefetch.
pub(crate) fn ask_pyturso_for(
    python: &Path,
    path: &Path,
    url: &str,
    prefetch: Option<bool>,
    sql: &str,
) -> Result<()> {
    let sync = match prefetch {
        None => Sync::Everything,
        Some(_) => Sync::Partial {
            segment: 128 << 10,
            prefetch,
        },
    };
    match ask_pyturso(python, path, url, sync, sql)?.answer {
        Some(_) => Ok(()),
        None => Err("pyturso did not answer in time".into()),
    }
}

/// Runs the client in a process of its own, which measures itself: starting Python is not counted.
fn ask_pyturso(python: &Path, path: &Path, url: &str, sync: Sync, sql: &str) -> Result<Run> {
    let mut command = Command::new(python);
    command.arg(PYTURSO).arg(path).args([url, sql]);
    if let Sync::Partial { segment, prefetch } = sync {
        command.args([
            PREFIX.to_string(),
            segment.to_string(),
            // It knows no other default.
            u8::from(prefetch == Some(true)).to_string(),
        ]);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().ok_or("no output to read")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let Some(status) = child.try_wait()? else {
        child.kill()?;
        child.wait()?;
        return Ok(Run {
            answer: None,
            connect: f64::NAN,
            total: f64::NAN,
        });
    };
    let text = reader
        .join()
        .map_err(|_| "the reader of pyturso's output panicked")??;
    if !status.success() {
        return Err(format!("pyturso ended with {status}: {text}").into());
    }
    let report: serde_json::Value = serde_json::from_str(&text)?;
    Ok(Run {
        answer: Some(serde_json::from_value(report["rows"].clone())?),
        connect: report["connect"]
            .as_f64()
            .ok_or("pyturso did not say how long it took")?,
        total: report["total"]
            .as_f64()
            .ok_or("pyturso did not say how long it took")?,
    })
}

/// Which pyturso this Python has.
pub(crate) fn pyturso_version(python: &Path) -> Option<String> {
    let script = "import importlib.metadata, turso.sync; print(importlib.metadata.version('pyturso'))";
    let output = Command::new(python).args(["-c", script]).output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(version)
}

fn stock_rows(conn: &rusqlite::Connection, sql: &str) -> Result<Vec<Vec<String>>> {
    let mut select = conn.prepare(sql)?;
    let columns = select.column_count();
    let mut rows = select.query(())?;
    let mut answer = Vec::new();
    while let Some(row) = rows.next()? {
        let values: Result<Vec<String>> = (0..columns).map(|i| Ok(shown(row.get(i)?))).collect();
        answer.push(values?);
    }
    Ok(answer)
}

fn shown(value: Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text,
        Value::Blob(bytes) => format!("{bytes:02x?}"),
    }
}

/// Sends these bytes to anyone who connects, for as long as the process lives.
pub(crate) fn serve_plainly(bytes: Vec<u8>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            // A client that went away early is its own affair.
            let _ = client.write_all(&bytes);
        }
    });
    Ok(address)
}
