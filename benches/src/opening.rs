//! Opening after a crash, beside opening after a close: a process of its own writes and pulls, and is killed at several
//! moments; what it left is opened, one row is read, and once more after it was closed.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use partial_sync::Database;
use partial_sync_server::Server;

use crate::{options::Options, result::Result, samples::Samples};

/// First word of the command line of the process that is killed.
pub(crate) const CHILD: &str = "--cut-off";
/// Parts of the time that the whole pull takes after which the process is killed.
const MOMENTS: [f64; 8] = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.0];

/// Runs and prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir_in(&options.dir)?;
    let file = folder.path().join("remote.db");
    let remote = rusqlite::Connection::open(&file)?;
    remote.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);
         WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 10000)
         INSERT INTO t SELECT x, 'row ' || x FROM c",
    )?;
    let server = Server::builder(&file).start_blocking("127.0.0.1:0")?;
    let url = format!("http://{}", server.addr());
    println!(
        "\n### opening after a crash: killed while {} changes were put back\n",
        options.changes
    );
    println!("| killed after | ms to open and read a row | after a close |");
    println!("|---|---|---|");
    let mut whole = Duration::from_secs(3600);
    let mut moments = vec![1.0];
    moments.extend(MOMENTS);
    let (mut after_crash, mut after_close) = (Samples::default(), Samples::default());
    for (round, part) in moments.into_iter().enumerate() {
        let path = folder.path().join(format!("app-{round}.db"));
        let took = killed(&path, &url, options.changes, whole.mul_f64(part), &remote)?;
        if round == 0 {
            // The first one was left alone, to know how long a pull takes.
            whole = took;
            continue;
        }
        let (crashed, closed) = (open(&path, &url)?, open(&path, &url)?);
        println!(
            "| {:.2} s of its pull | {crashed:.1} | {closed:.1} |",
            took.as_secs_f64()
        );
        after_crash.push(crashed);
        after_close.push(closed);
    }
    println!(
        "\nmedian and range: {} ms after a crash, {} ms after a close (at most 100 ms more wanted)",
        after_crash.shown(1),
        after_close.shown(1)
    );
    server.shutdown_blocking();
    Ok(())
}

/// Lets a process write and pull, and kills it so long after its pull began, or when that has ended.
fn killed(
    path: &Path,
    url: &str,
    changes: u64,
    after: Duration,
    remote: &rusqlite::Connection,
) -> Result<Duration> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([CHILD, url, &changes.to_string()])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let mut said = |what: &str| match lines.next() {
        Some(Ok(line)) if line == what => Ok(()),
        other => Err(format!("{what} was expected, not {other:?}")),
    };
    said("written")?;
    remote.execute_batch("UPDATE t SET v = v || '.' WHERE id % 100 = 0")?;
    // Closing its input is the word to continue.
    drop(child.stdin.take());
    let began = Instant::now();
    let ended = std::thread::scope(|scope| {
        let pulled = scope.spawn(move || said("pulled").is_ok());
        while began.elapsed() < after && !pulled.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let ended = began.elapsed();
        child.kill()?;
        child.wait()?;
        Ok::<_, std::io::Error>(ended)
    })?;
    Ok(ended)
}

/// Milliseconds until a row was read.
fn open(path: &Path, url: &str) -> Result<f64> {
    let began = Instant::now();
    let db = Database::builder(path).remote(url).connect()?;
    let conn = db.connection()?;
    let _: String = conn.query_row("SELECT v FROM t WHERE id = 5000", (), |row| row.get(0))?;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    drop(conn);
    db.close()?;
    Ok(took)
}

/// The process that is killed.
pub(crate) fn child(mut words: impl Iterator<Item = String>) -> Result<()> {
    let (Some(url), Some(changes), Some(path)) = (words.next(), words.next(), words.next()) else {
        return Err("too few words".into());
    };
    let db = Database::builder(&path).remote(url).connect()?;
    db.connection()?.execute(
        "WITH RECURSIVE c(x) AS (SELECT 100001 UNION ALL SELECT x + 1 FROM c WHERE x < 100000 + ?)
         INSERT INTO t SELECT x, 'mine ' || x FROM c",
        (changes.parse::<i64>()?,),
    )?;
    println!("written");
    std::io::stdin().read_line(&mut String::new())?;
    db.pull()?;
    println!("pulled");
    std::thread::sleep(Duration::from_secs(3600));
    Ok(())
}
