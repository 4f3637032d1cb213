//! What goes over the line: a first download, a cold scan and pushes, beside the same bytes compressed at once by `zstd -3`
//! and beside another client of the same server. Every contender starts from nothing in every round.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use partial_sync::{Bootstrap, Database, PartialSync};
use partial_sync_server::Server;
use serde_json::{Map, Value};

use crate::{
    cold::{PREFIX, ask_pyturso_for, pyturso_version, serve_plainly},
    data,
    far::{FarAway, Line, Traffic},
    json,
    options::Options,
    result::Result,
    samples::Samples,
};

/// The cases.
pub(crate) const CASES: [&str; 4] = [
    "download of everything",
    "cold scan",
    "push of one row",
    "push of 5,000 rows in 50 transactions",
];

const SCAN: &str = "SELECT count(*), sum(length(note)) FROM towns";
const PYTURSO_PUSH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/pyturso_push.py");
/// Level of the compression that the others are compared with.
const LEVEL: i32 = 3;

/// Runs the cases that are wanted and prints a table for each.
pub(crate) fn run(options: &Options) -> Result<()> {
    let wire = Wire {
        options,
        line: Line {
            rtt: options.rtt,
            bytes_per_second: options.bytes_per_second,
        },
        pyturso: pyturso_version(&options.python),
    };
    println!("### The wire, over {} ms\n", options.rtt.as_secs_f64() * 1000.0);
    match &wire.pyturso {
        Some(version) => println!("pyturso {version}, as a client of this project's server.\n"),
        None => println!("pyturso is missing in {}: left out.\n", options.python.display()),
    }
    let mut numbers = Map::new();
    wire.downloads(&mut numbers)?;
    wire.pushes(&mut numbers)?;
    json::add(options, "wire", numbers.into())
}

struct Wire<'o> {
    options: &'o Options,
    line: Line,
    pyturso: Option<String>,
}

/// One contender's measurements.
struct Row {
    name: String,
    seconds: Samples,
    traffic: Traffic,
    /// Why there are none.
    failed: Option<String>,
}

impl Wire<'_> {
    /// A first download, and a scan that downloads what it needs.
    fn downloads(&self, numbers: &mut Map<String, Value>) -> Result<()> {
        let folder = tempfile::tempdir_in(&self.options.dir)?;
        let remote = folder.path().join("remote.db");
        data::make(&remote)?;
        let table = folder.path().join("table.db");
        std::fs::copy(&remote, &table)?;
        rusqlite::Connection::open(&table)?.execute_batch(
            "DROP INDEX towns_population; DROP INDEX towns_country; VACUUM; PRAGMA journal_mode = DELETE",
        )?;
        let server = Server::builder(&remote).start_blocking("127.0.0.1:0")?;
        let segments = |prefetch| PartialSync {
            bootstrap: Some(Bootstrap::prefix(PREFIX)),
            segment_size: Some(128 << 10),
            prefetch,
        };
        let cases = [
            (
                CASES[0],
                &remote,
                "the file, `zstd -3`, over TCP, unpacked",
                vec![("everything first", None)],
            ),
            (
                CASES[1],
                &table,
                "a file of the table alone, `zstd -3`, over TCP, unpacked",
                vec![
                    ("by default", Some(segments(None))),
                    ("prefetch", Some(segments(Some(true)))),
                    ("`prefetch` false", Some(segments(Some(false)))),
                ],
            ),
        ];
        for (case, file, plainly, replicas) in cases {
            if !self.options.wants(case) {
                continue;
            }
            let packed = zstd::bulk::compress(&std::fs::read(file)?, LEVEL)?;
            let plain = serve_plainly(packed)?;
            let mut rows = vec![self.measure(plainly.to_owned(), plain, |address, folder| {
                let mut packed = TcpStream::connect(address)?;
                zstd::stream::copy_decode(&mut packed, std::fs::File::create(folder.join("file.db"))?)?;
                Ok(())
            })?];
            for (how, partial) in replicas {
                let name = format!("this project, {how}");
                rows.push(self.measure(name, server.addr(), |address, folder| {
                    let mut builder =
                        Database::builder(folder.join("replica.db")).remote(format!("http://{address}"));
                    if let Some(partial) = partial.clone() {
                        builder = builder.partial(partial);
                    }
                    let database = builder.connect()?;
                    let _: i64 = database.connection()?.query_row(SCAN, (), |row| row.get(0))?;
                    Ok(())
                })?);
            }
            if self.pyturso.is_some() {
                let prefetch = (case == CASES[1]).then_some(true);
                rows.push(
                    self.measure("pyturso".to_owned(), server.addr(), |address, folder| {
                        let url = format!("http://{address}");
                        ask_pyturso_for(
                            &self.options.python,
                            &folder.join("replica.db"),
                            &url,
                            prefetch,
                            SCAN,
                        )
                    })?,
                );
            }
            println!("**{case}**: until `{SCAN}` has its answer, or the file is there\n");
            numbers.insert(
                case.to_owned(),
                print(&rows, |traffic| traffic.received, "MB received"),
            );
        }
        server.shutdown_blocking();
        Ok(())
    }

    /// Pushes. What is pushed is made before the clock and the counts start.
    fn pushes(&self, numbers: &mut Map<String, Value>) -> Result<()> {
        for (case, transactions, each) in [(CASES[2], 1, 1), (CASES[3], 50, 100)] {
            if !self.options.wants(case) {
                continue;
            }
            let folder = tempfile::tempdir_in(&self.options.dir)?;
            let mut rows = Vec::new();
            let mut ours = Row::new("this project");
            let mut theirs = Row::new("pyturso");
            for round in 0..self.options.rounds(3) {
                let remote = folder.path().join(format!("remote-{round}.db"));
                rusqlite::Connection::open(&remote)?
                    .execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, body TEXT)")?;
                let server = Server::builder(&remote).start_blocking("127.0.0.1:0")?;
                let expected = i64::from(transactions * each);
                let landed = || -> Result<i64> {
                    let conn = rusqlite::Connection::open(&remote)?;
                    Ok(conn.query_row("SELECT count(*) FROM t", (), |row| row.get(0))?)
                };
                let line = FarAway::to(server.addr(), self.line)?;
                let path = folder.path().join(format!("ours-{round}.db"));
                ours.add(&line, push(&path, &line, transactions, each)?);
                if landed()? != expected {
                    return Err(format!("{case}: {} rows landed", landed()?).into());
                }
                if self.pyturso.is_some() && theirs.failed.is_none() {
                    let line = FarAway::to(server.addr(), self.line)?;
                    let path = folder.path().join(format!("theirs-{round}.db"));
                    match self.push_by_pyturso(&path, &line, transactions, each) {
                        Ok(took) => theirs.add(&line, took),
                        Err(error) => theirs.failed = Some(error.to_string()),
                    }
                }
                server.shutdown_blocking();
            }
            rows.push(ours);
            if self.pyturso.is_some() {
                rows.push(theirs);
            }
            println!("**{case}**\n");
            numbers.insert(case.to_owned(), print(&rows, |traffic| traffic.sent, "MB sent"));
        }
        Ok(())
    }

    fn push_by_pyturso(&self, path: &Path, line: &FarAway, transactions: u32, each: u32) -> Result<Took> {
        let mut child = Command::new(&self.options.python)
            .arg(PYTURSO_PUSH)
            .arg(path)
            .arg(format!("http://{}", line.address()))
            .args([transactions.to_string(), each.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut said = BufReader::new(child.stdout.take().ok_or("no output to read")?).lines();
        // It waits for a word once its rows are made.
        let is_ready = said.next().transpose()?.is_some_and(|line| line == "ready");
        let before = line.traffic();
        child
            .stdin
            .take()
            .ok_or("no input to write")?
            .write_all(b"push\n")?;
        let seconds = said.next().transpose()?.and_then(|line| line.parse::<f64>().ok());
        let output = child.wait_with_output()?;
        match seconds {
            Some(seconds) if is_ready => Ok(Took { before, seconds }),
            _ => {
                let error = String::from_utf8_lossy(&output.stderr);
                Err(error.trim().lines().last().unwrap_or("no answer").into())
            }
        }
    }

    /// Runs one contender in every round. Between the rounds nothing stays.
    fn measure(
        &self,
        name: String,
        target: SocketAddr,
        work: impl Fn(SocketAddr, &Path) -> Result<()>,
    ) -> Result<Row> {
        let mut row = Row::new(&name);
        for _ in 0..self.options.rounds(3) {
            let folder = tempfile::tempdir_in(&self.options.dir)?;
            let line = FarAway::to(target, self.line)?;
            let before = line.traffic();
            let start = Instant::now();
            work(line.address(), folder.path())?;
            let seconds = start.elapsed().as_secs_f64();
            row.add(&line, Took { before, seconds });
        }
        Ok(row)
    }
}

/// How long something took, and what had gone over the line before it.
struct Took {
    before: Traffic,
    seconds: f64,
}

fn push(path: &Path, line: &FarAway, transactions: u32, each: u32) -> Result<Took> {
    let database = Database::builder(path)
        .remote(format!("http://{}", line.address()))
        .connect()?;
    let connection = database.connection()?;
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..transactions {
        connection.execute_batch("BEGIN")?;
        let mut insert = connection.prepare("INSERT INTO t(k, body) VALUES (?, ?)")?;
        for _ in 0..each {
            let body = data::town(random.i64(1..1_000_000)).3;
            insert.execute((random.i64(0..1 << 32), body))?;
        }
        connection.execute_batch("COMMIT")?;
    }
    let before = line.traffic();
    let start = Instant::now();
    database.push()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Took { before, seconds })
}

impl Row {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            seconds: Samples::default(),
            traffic: Traffic::default(),
            failed: None,
        }
    }

    fn add(&mut self, line: &FarAway, took: Took) {
        self.traffic = line.traffic().since(took.before);
        self.seconds.push(took.seconds);
    }
}

/// A table whose other rows are compared with the first, and its numbers.
fn print(rows: &[Row], bytes: impl Fn(&Traffic) -> u64, title: &str) -> Value {
    println!("| how | requests | {title} | to the first row | s | to the first row |");
    println!("|---|---|---|---|---|---|");
    let mut numbers = Map::new();
    let Some(first) = rows.first() else {
        return numbers.into();
    };
    for row in rows {
        if let Some(why) = &row.failed {
            println!("| {} | {why} | - | - | - | - |", row.name);
            continue;
        }
        println!(
            "| {} | {} | {:.3} | {:.2} | {} | {:.2} |",
            row.name,
            row.traffic.requests,
            bytes(&row.traffic) as f64 / 1e6,
            bytes(&row.traffic) as f64 / bytes(&first.traffic).max(1) as f64,
            row.seconds.shown(2),
            row.seconds.median() / first.seconds.median(),
        );
        let measured = serde_json::json!({
            "requests": row.traffic.requests,
            "bytes": bytes(&row.traffic),
            "seconds": row.seconds.median(),
        });
        numbers.insert(row.name.clone(), measured);
    }
    println!();
    numbers.into()
}
