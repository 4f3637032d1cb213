//! The process that is measured: it opens a replica, or works with it, and prints what that took as JSON.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use cpu_time::ProcessTime;
use futures_util::StreamExt;
use partial_sync::{Bootstrap, Database, PartialSync, Stats};
use partial_sync_core::{PageSize, Revision};
use partial_sync_transport::{HttpRemote, PageSelector, PagesRequest, Remote};

use super::files::{CONTENT, ROWS};
use crate::{memory, result::Result};

/// First word of the command line of this process.
pub(crate) const CHILD: &str = "--size-client";
/// As many misses are measured.
const MISSES: usize = 24;
/// As many pulls and checkpoints.
const ROUNDS: usize = 21;
/// After the answer, before the processor time is read: some of what a request brought may still be stored.
const REST: Duration = Duration::from_millis(20);

/// Which pages come with one that is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Those that come by default.
    Default,
    /// None.
    Plain,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Default, Self::Plain];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Plain => "plain",
        }
    }
}

fn open(path: &Path, url: &str, kind: Kind) -> Result<Database> {
    let mut partial = PartialSync {
        bootstrap: Some(Bootstrap::prefix(4096)),
        ..PartialSync::default()
    };
    if kind == Kind::Plain {
        partial.segment_size = Some(4096);
        partial.prefetch = Some(false);
    }
    Ok(Database::builder(path).remote(url).partial(partial).connect()?)
}

/// Makes a replica that has page 1.
pub(super) fn make_replica(path: &Path, url: &str, kind: Kind) -> Result<()> {
    Ok(open(path, url, kind)?.close()?)
}

type Numbers = BTreeMap<String, Vec<f64>>;

/// Measures and prints.
pub(crate) fn child(mut words: impl Iterator<Item = String>) -> Result<()> {
    let (Some(mode), Some(kind), Some(url)) = (words.next(), words.next(), words.next()) else {
        return Err("too few words".into());
    };
    let (Some(path), Some(file)) = (words.next(), words.next()) else {
        return Err("too few words".into());
    };
    let path = Path::new(&path);
    let kind = match kind == Kind::Plain.word() {
        true => Kind::Plain,
        false => Kind::Default,
    };
    let mut numbers = Numbers::new();
    match mode.as_str() {
        "open" => opening(&mut numbers, path, &url, kind)?,
        _ => {
            let db = open(path, &url, kind)?;
            misses(&mut numbers, &db, &url, kind)?;
            if kind == Kind::Default {
                pulls(&mut numbers, &db, Path::new(&file))?;
                checkpoints(&mut numbers, &db)?;
            }
            db.close()?;
        }
    }
    println!("{}", serde_json::to_string(&numbers)?);
    Ok(())
}

fn opening(numbers: &mut Numbers, path: &Path, url: &str, kind: Kind) -> Result<()> {
    let before = memory::resident().ok_or("how much memory is in use?")?;
    let spent = Spent::begin();
    let db = open(path, url, kind)?;
    let (ms, _) = spent.end();
    let after = memory::resident().ok_or("how much memory is in use?")?;
    push(numbers, "open_ms", ms);
    push(
        numbers,
        "open_mb",
        after.saturating_sub(before) as f64 * 1024.0 / 1e6,
    );
    Ok(db.close()?)
}

/// Rows of pages that lie in different segments are read. Beside each miss, a request for as many pages is made without a replica.
fn misses(numbers: &mut Numbers, db: &Database, url: &str, kind: Kind) -> Result<()> {
    let conn = db.connection()?;
    let mut read = conn.prepare("SELECT length(v) FROM t WHERE id = ?")?;
    let mut length_of = |id: i64| -> Result<i64> { Ok(read.query_row((id,), |row| row.get(0))?) };
    // The inner pages of the tree first.
    for id in (1..ROWS).step_by(ROWS as usize / 6) {
        length_of(id)?;
    }
    let alone = Alone::new(url, db)?;
    alone.request(1)?;
    let (mut cpu, mut wall, mut pages) = (vec![], vec![], vec![]);
    for id in (100..ROWS).step_by(130) {
        let before = db.stats()?;
        let spent = Spent::begin();
        let length = length_of(id)?;
        let (ms, cpu_ms) = spent.end();
        assert_eq!(length, 900);
        let after = db.stats()?;
        if after.requests != before.requests + 1 {
            // It had come with another one, or an inner page was missed too.
            continue;
        }
        let came = after.pages_present - before.pages_present;
        let spent = Spent::begin();
        alone.request(came)?;
        let (_, alone_ms) = spent.end();
        cpu.push(cpu_ms - alone_ms);
        wall.push(ms);
        pages.push(f64::from(came));
        if cpu.len() == MISSES {
            break;
        }
    }
    if cpu.len() < 20 {
        return Err(format!("only {} reads were one miss each", cpu.len()).into());
    }
    numbers.insert(format!("{}_cpu", kind.word()), cpu);
    numbers.insert(format!("{}_ms", kind.word()), wall);
    numbers.insert(format!("{}_pages", kind.word()), pages);
    Ok(())
}

/// Requests that no replica makes.
struct Alone {
    runtime: tokio::runtime::Runtime,
    remote: HttpRemote,
    revision: Revision,
}

impl Alone {
    fn new(url: &str, db: &Database) -> Result<Self> {
        Ok(Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            remote: HttpRemote::builder(url).build()?,
            revision: db
                .stats()?
                .revision
                .and_then(Revision::new)
                .ok_or("no revision")?,
        })
    }

    /// Fetches so many pages of the table.
    fn request(&self, pages: u32) -> Result<()> {
        assert!((1..CONTENT / 2).contains(&pages), "{pages} pages came with one");
        let request = PagesRequest {
            revision: Some(self.revision.clone()),
            select: PageSelector::Ids((2..2 + pages).collect()),
            page_size: Some(PageSize::DEFAULT),
            ..PagesRequest::default()
        };
        self.runtime.block_on(async {
            let mut stream = self.remote.pages(request).await?;
            let mut came = 0;
            while let Some(page) = stream.pages.next().await {
                page?;
                came += 1;
            }
            assert_eq!(came, pages);
            Ok(())
        })
    }
}

fn pulls(numbers: &mut Numbers, db: &Database, file: &Path) -> Result<()> {
    let conn = db.connection()?;
    let value =
        || -> Result<String> { Ok(conn.query_row("SELECT v FROM t WHERE id = 7", (), |row| row.get(0))?) };
    let remote = rusqlite::Connection::open(file)?;
    for round in 0..ROUNDS {
        value()?;
        let new = format!("theirs {round}");
        remote.execute("UPDATE t SET v = ? WHERE id = 7", [&new])?;
        let before = db.stats()?;
        let spent = Spent::begin();
        assert!(db.pull()?, "the remote had news");
        let (ms, cpu_ms) = spent.end();
        let sent = |of: fn(&Stats) -> u64| -> Result<f64> { Ok((of(&db.stats()?) - of(&before)) as f64) };
        push(numbers, "pull_requests", sent(|stats| stats.requests)?);
        push(numbers, "pull_bytes", sent(|stats| stats.network_sent_bytes)?);
        push(numbers, "pull_ms", ms);
        push(numbers, "pull_cpu", cpu_ms);
        assert_eq!(value()?, new);
    }
    Ok(())
}

fn checkpoints(numbers: &mut Numbers, db: &Database) -> Result<()> {
    let conn = db.connection()?;
    for round in 0..ROUNDS {
        conn.execute("UPDATE t SET v = ? WHERE id = 7", (format!("mine {round}"),))?;
        let spent = Spent::begin();
        db.checkpoint()?;
        let (ms, cpu_ms) = spent.end();
        push(numbers, "checkpoint_ms", ms);
        push(numbers, "checkpoint_cpu", cpu_ms);
    }
    Ok(())
}

fn push(numbers: &mut Numbers, key: &str, value: f64) {
    numbers.entry(key.into()).or_default().push(value);
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// What something takes on the clock, and of the processor in this process.
struct Spent {
    began: Instant,
    processor: ProcessTime,
}

impl Spent {
    fn begin() -> Self {
        Self {
            processor: ProcessTime::now(),
            began: Instant::now(),
        }
    }

    /// Milliseconds on the clock up to now, and of the processor up to when it rests.
    fn end(self) -> (f64, f64) {
        let took = self.began.elapsed();
        std::thread::sleep(REST);
        (milliseconds(took), milliseconds(self.processor.elapsed()))
    }
}
