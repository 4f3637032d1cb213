//! What the server spends on a request for pages, beside nginx sending the same bytes from a file: requests per second of
//! processor time, which does not depend on who else uses the machine. Then how late a commit wakes a thousand long polls,
//! and how many writers of one row it serves.
//!
//! Both servers are processes of their own on loopback; the client here keeps its connections open. Linux only: processor
//! time is read from `/proc`.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use partial_sync_core::Revision;
use partial_sync_server::{
    Server,
    hrana::{Hrana, HranaOptions},
};
use partial_sync_transport::{
    PageSelector, PagesRequest,
    wire::{PageEncoding, PullUpdatesRequest},
};
use prost::Message;
use roaring::RoaringBitmap;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    client::{Connection, post},
    options::Options,
    pushing::push_all,
    result::Result,
    samples::{Samples, at},
};

/// First word of the command line of the process that serves.
pub(crate) const CHILD: &str = "--serve";
const CONNECTIONS: usize = 64;
/// Requests of one measurement.
const REQUESTS: usize = 20_000;
const POLLS: usize = 1000;
const WAKES: usize = 20;
const PUSHES: usize = 20_000;
const ROWS: u64 = 20_000;

/// The names of the cases.
pub(crate) const CASES: [&str; 6] = [
    "one page",
    "32 pages",
    "one page, at an older revision",
    "32 pages, at an older revision",
    "polls",
    "pushes",
];

/// Serves a file until its standard input is closed.
pub(crate) fn child(mut words: impl Iterator<Item = String>) -> Result<()> {
    let path = words.next().ok_or("which file?")?;
    partial_sync_server::raise_descriptor_limit()?;
    // Everything here comes from one address.
    let sql = Hrana::new(HranaOptions {
        caller_requests: CONNECTIONS,
        ..HranaOptions::default()
    });
    let server = Server::builder(path).sql(sql).start_blocking("127.0.0.1:0")?;
    println!("{}", server.addr());
    std::io::stdin().lines().for_each(drop);
    server.shutdown_blocking();
    Ok(())
}

/// Runs and prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure(options))
}

async fn measure(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir_in(&options.dir)?;
    let file = folder.path().join("served.db");
    make(&file)?;
    let ours = Ours::start(&file)?;
    let first = ours.post(
        "/pull-updates",
        &asks(&PagesRequest {
            select: PageSelector::Ids(RoaringBitmap::from_iter([0])),
            ..PagesRequest::default()
        }),
    );
    let mut connection = Connection::open(&ours.addr).await?;
    let old = revision(connection.send(&first).await?)?;
    // One page of each segment changes, so that a pinned request finds some in the page history.
    rusqlite::Connection::open(&file)?.execute("UPDATE t SET v = randomblob(3000) WHERE id % 32 = 0", ())?;
    connection.send(&first).await?;

    let ids = |from: u32, count: u32| PageSelector::Ids((from..from + count).collect());
    let page = |select, revision| PagesRequest {
        select,
        revision,
        ..PagesRequest::default()
    };
    let cases = [
        (CASES[0], page(ids(100, 1), None), 0.5),
        (CASES[1], page(ids(96, 32), None), 0.5),
        (CASES[2], page(ids(100, 1), Some(old.clone())), 0.4),
        (CASES[3], page(ids(96, 32), Some(old)), 0.4),
    ];
    if cases.iter().any(|(what, ..)| options.wants(what)) {
        println!("\n### requests per second of processor time, {CONNECTIONS} connections\n");
        println!("| what | bytes | server | nginx | ratio | wanted |");
        println!("|---|---|---|---|---|---|");
    }
    for (what, request, wanted) in cases {
        if !options.wants(what) {
            continue;
        }
        let ask = ours.post("/pull-updates", &asks(&request));
        let answer = connection.send(&ask).await?;
        std::fs::write(folder.path().join("answer"), &answer)?;
        let nginx = Nginx::start(folder.path())?;
        let get = format!("GET /answer HTTP/1.1\r\nHost: {}\r\n\r\n", nginx.addr).into_bytes();
        let (mut of_ours, mut of_nginx, mut ratios) =
            (Samples::default(), Samples::default(), Samples::default());
        for _ in 0..options.rounds(3) {
            let one = per_second(&ours.addr, &ask, answer.len(), || ours.spent()).await?;
            let other = per_second(&nginx.addr, &get, answer.len(), || nginx.spent()).await?;
            of_ours.push(one);
            of_nginx.push(other);
            ratios.push(one / other);
        }
        println!(
            "| {what} | {} | {} | {} | {} | {wanted} |",
            answer.len(),
            of_ours.shown(0),
            of_nginx.shown(0),
            ratios.shown(2)
        );
    }
    if options.wants(CASES[4]) {
        polls(&ours, &file).await?;
    }
    if options.wants(CASES[5]) {
        pushes(&ours).await?;
    }
    Ok(())
}

fn make(file: &Path) -> Result<()> {
    rusqlite::Connection::open(file)?.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
         CREATE TABLE pushed(id INTEGER PRIMARY KEY, v TEXT);
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO t SELECT i, randomblob(3000) FROM n"
    ))?;
    Ok(())
}

pub(crate) fn asks(request: &PagesRequest) -> Vec<u8> {
    PullUpdatesRequest::new(request, PageEncoding::Raw).encode_to_vec()
}

/// The revision that an answer is of.
fn revision(answer: Vec<u8>) -> Result<Revision> {
    let header = partial_sync_transport::wire::PullUpdatesHeader::decode_length_delimited(&answer[..])?;
    Ok(header.check()?.0)
}

/// This project's server.
pub(crate) struct Ours {
    process: Child,
    /// Where it listens.
    pub(crate) addr: String,
}

impl Ours {
    /// Serves a file from a process of its own.
    pub(crate) fn start(file: &Path) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(CHILD)
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = process.stdout.take().ok_or("no output")?;
        let addr = BufReader::new(out).lines().next().ok_or("it did not start")??;
        Ok(Self { process, addr })
    }

    fn post(&self, path: &str, body: &[u8]) -> Vec<u8> {
        post(&self.addr, path, body)
    }

    fn spent(&self) -> Result<Duration> {
        spent(self.process.id())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// nginx with one worker, which sends a folder's files.
struct Nginx {
    process: Child,
    folder: PathBuf,
    addr: String,
}

impl Nginx {
    fn start(folder: &Path) -> Result<Self> {
        let addr = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .to_string();
        let work = folder.join("nginx");
        std::fs::create_dir_all(&work)?;
        let user = match Path::new("/proc/self")
            .metadata()
            .is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
        {
            true => "user root;",
            false => "",
        };
        let config = work.join("nginx.conf");
        std::fs::write(
            &config,
            format!(
                "{user} daemon off; worker_processes 1; pid {work}/pid; error_log {work}/errors;
                 events {{ worker_connections 4096; }}
                 http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; open_file_cache max=10;
                 client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f;
                 uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
                 server {{ listen {addr}; root {root}; }} }}",
                work = work.display(),
                root = folder.display(),
            ),
        )?;
        let process = Command::new("nginx")
            .arg("-c")
            .arg(&config)
            .arg("-e")
            .arg(work.join("errors"))
            .spawn()
            .map_err(|e| format!("nginx is needed to compare with (package nginx-light): {e}"))?;
        for _ in 0..500 {
            if std::net::TcpStream::connect(&addr).is_ok() {
                return Ok(Self {
                    process,
                    folder: work,
                    addr,
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("nginx does not answer".into())
    }

    /// The workers are children of the process.
    fn spent(&self) -> Result<Duration> {
        let id = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let workers = children.split_whitespace().map(|child| spent(child.parse()?));
        workers.sum()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let id = std::fs::read_to_string(self.folder.join("pid"));
        let _ = Command::new("kill").arg(id.unwrap_or_default().trim()).status();
        let _ = self.process.wait();
    }
}

/// Processor time of a process, of all its threads, in the kernel and outside.
fn spent(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name before may have spaces in it.
    let fields = stat.rsplit_once(')').ok_or("no stat")?.1;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|n| n.parse::<u64>().unwrap_or(0))
        .sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// Sends requests on all connections and says how many were answered per second of the server's processor time.
async fn per_second(
    addr: &str,
    request: &[u8],
    bytes: usize,
    spent: impl Fn() -> Result<Duration>,
) -> Result<f64> {
    let request: Arc<[u8]> = request.into();
    let before = spent()?;
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(addr).await?;
        let request = Arc::clone(&request);
        clients.spawn(async move {
            for _ in 0..REQUESTS / CONNECTIONS {
                let answer = connection.send(&request).await?;
                if answer.len() != bytes {
                    return Err("another answer".into());
                }
            }
            Result::Ok(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    Ok((REQUESTS / CONNECTIONS * CONNECTIONS) as f64 / (spent()? - before).as_secs_f64())
}

/// How long after a commit began each of many long polls has its answer.
async fn polls(ours: &Ours, file: &Path) -> Result<()> {
    let mut connection = Connection::open(&ours.addr).await?;
    let none = PagesRequest {
        select: PageSelector::Ids(RoaringBitmap::new()),
        ..PagesRequest::default()
    };
    let now = revision(connection.send(&ours.post("/pull-updates", &asks(&none))).await?)?;
    let (answers, mut answered) = mpsc::channel(POLLS);
    let mut polls = JoinSet::new();
    for _ in 0..POLLS {
        let mut connection = Connection::open(&ours.addr).await?;
        let (addr, answers, mut since) = (ours.addr.clone(), answers.clone(), now.clone());
        polls.spawn(async move {
            loop {
                let poll = PagesRequest {
                    since: Some(since.clone()),
                    long_poll: Some(Duration::from_secs(60)),
                    select: PageSelector::Ids(RoaringBitmap::new()),
                    ..PagesRequest::default()
                };
                let ask = post(&addr, "/pull-updates", &asks(&poll));
                since = revision(connection.send(&ask).await?)?;
                if answers.send(Instant::now()).await.is_err() {
                    return Result::Ok(());
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = resources(ours.process.id())?;
    let writer = rusqlite::Connection::open(file)?;
    let mut late = Vec::new();
    for _ in 0..WAKES {
        let began = Instant::now();
        writer.execute("UPDATE t SET v = randomblob(3000) WHERE id = 1", ())?;
        for _ in 0..POLLS {
            let at = tokio::select! {
                at = answered.recv() => at.ok_or("the polls have ended")?,
                // They never end by themselves.
                Some(failed) = polls.join_next() => return failed?,
                () = tokio::time::sleep(Duration::from_secs(20)) => return Err("a poll was not woken".into()),
            };
            late.push((at - began).as_secs_f64() * 1000.0);
        }
        // They ask again.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let after = resources(ours.process.id())?;
    polls.shutdown().await;
    late.sort_by(f64::total_cmp);
    println!("\n### {POLLS} long polls, woken {WAKES} times by a commit of another program\n");
    println!(
        "after the commit began: median {:.0} ms, 99 % {:.0} ms (at most 250 wanted), longest {:.0} ms; \
         threads {} then {}, descriptors {} then {}",
        at(&late, 0.5),
        at(&late, 0.99),
        at(&late, 1.0),
        before.0,
        after.0,
        before.1,
        after.1
    );
    Ok(())
}

/// How many writers of one row are served.
async fn pushes(ours: &Ours) -> Result<()> {
    let (rate, took) = push_all(ours.addr.parse()?, CONNECTIONS, PUSHES / CONNECTIONS).await?;
    println!("\n### {CONNECTIONS} writers of one row each\n");
    println!(
        "{rate:.0} a second (at least 1000 wanted); each took median {:.0} ms, 99 % {:.0} ms (at most 500 wanted), longest {:.0} ms",
        at(&took, 0.5),
        at(&took, 0.99),
        at(&took, 1.0)
    );
    Ok(())
}

/// Threads and descriptors of a process.
fn resources(process: u32) -> Result<(usize, usize)> {
    let count = |what: &str| Result::Ok(std::fs::read_dir(format!("/proc/{process}/{what}"))?.count());
    Ok((count("task")?, count("fd")?))
}
