//! A pull with many unpushed changes to put back: how long reads that begin meanwhile take, beside the same reads while
//! nothing happens, what writers wait for the commit, and how much memory it takes. Everything is local; the remote is a
//! server in this process.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use partial_sync::{Connection, Database};
use partial_sync_server::Server;

use crate::{memory, options::Options, result::Result, samples::at};

/// How long reads are measured while nothing happens.
const QUIET: Duration = Duration::from_secs(3);

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
    let db = Database::builder(folder.path().join("app.db"))
        .remote(format!("http://{}", server.addr()))
        .connect()?;
    let conn = db.connection()?;
    let changes = options.changes;
    conn.execute(
        "WITH RECURSIVE c(x) AS (SELECT 100001 UNION ALL SELECT x + 1 FROM c WHERE x < 100000 + ?)
         INSERT INTO t SELECT x, 'mine ' || x FROM c",
        (changes as i64,),
    )?;
    db.checkpoint()?;
    remote.execute_batch("UPDATE t SET v = 'theirs' WHERE id % 100 = 0")?;

    let quiet = Waits::of(&db, |done| {
        std::thread::sleep(QUIET);
        done.store(true, Ordering::Release);
        Ok(())
    })?;
    let idle_memory = memory::forget_peak();
    let began = Instant::now();
    let mut took = Duration::ZERO;
    let busy = Waits::of(&db, |done| {
        let pulled = db.pull();
        took = began.elapsed();
        done.store(true, Ordering::Release);
        assert!(pulled?, "the remote had news");
        Ok(())
    })?;
    let peak = memory::peak();
    println!(
        "\n### pull: {changes} unpushed changes put back in {:.1} s\n",
        took.as_secs_f64()
    );
    println!("| what begins meanwhile | how many | median ms | 99 % ms | longest ms |");
    println!("|---|---|---|---|---|");
    quiet.reads.print("read of one row, nothing happens");
    busy.reads.print("read of one row, during the pull");
    quiet.writes.print("write of one row, nothing happens");
    busy.writes.print("write of one row, during the pull");
    if let (Some(idle), Some(peak)) = (idle_memory, peak) {
        println!(
            "\npeak memory {} MB above idle (at most 150 wanted)",
            peak.saturating_sub(idle) / 1024
        );
    }
    server.shutdown_blocking();
    Ok(())
}

/// What reads and writes took, in milliseconds.
struct Waits {
    reads: Took,
    writes: Took,
}

impl Waits {
    /// Reads and writes on two threads until `work` has set its flag.
    fn of(db: &Database, work: impl FnOnce(&AtomicBool) -> Result<()>) -> Result<Self> {
        let done = AtomicBool::new(false);
        let (reader, writer) = (db.connection()?, db.connection()?);
        std::thread::scope(|scope| {
            let reads = scope.spawn(|| {
                again(&done, Duration::ZERO, || {
                    let _: String =
                        reader.query_row("SELECT v FROM t WHERE id = 5000", (), |row| row.get(0))?;
                    Ok(())
                })
            });
            let writes = scope.spawn(|| again(&done, Duration::from_millis(20), || write(&writer)));
            let worked = work(&done);
            done.store(true, Ordering::Release);
            let reads = reads.join().map_err(|_| "the reader panicked")??;
            let writes = writes.join().map_err(|_| "the writer panicked")??;
            worked.map(|()| Self { reads, writes })
        })
    }
}

fn write(conn: &Connection) -> Result<()> {
    conn.execute("UPDATE t SET v = 'now' WHERE id = 77", ())?;
    Ok(())
}

fn again(done: &AtomicBool, pause: Duration, mut work: impl FnMut() -> Result<()>) -> Result<Took> {
    let mut took = vec![];
    while !done.load(Ordering::Acquire) {
        let began = Instant::now();
        work()?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        std::thread::sleep(pause);
    }
    took.sort_by(f64::total_cmp);
    Ok(Took(took))
}

/// Milliseconds, sorted.
struct Took(Vec<f64>);

impl Took {
    fn print(&self, what: &str) {
        println!(
            "| {what} | {} | {:.3} | {:.3} | {:.3} |",
            self.0.len(),
            at(&self.0, 0.5),
            at(&self.0, 0.99),
            at(&self.0, 1.0)
        );
    }
}
