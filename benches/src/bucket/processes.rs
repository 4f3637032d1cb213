//! Servers of a bucket as processes of their own, which can be killed and whose memory can be seen. The bucket is a folder.

use std::{
    io::{BufRead, BufReader},
    num::NonZeroU64,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use partial_sync_core::{PageCount, PageNo, PageSize};
use partial_sync_server::{Mirroring, Replication, Server, TakeOver};
use partial_sync_store::{Begin, New, StoreError, Writer};
use partial_sync_transport::{PageSelector, PagesRequest};

use crate::{
    client::{Connection, post},
    pushing::{push_all, small},
    result::Result,
    server::asks,
};

/// First word of the command line of a process that serves a bucket.
pub(crate) const CHILD: &str = "--serve-bucket";
/// After it, what it is.
const WRITER: &str = "writer";
const SUCCESSOR: &str = "successor";

const LEASE: Duration = Duration::from_secs(2);
/// Pages of the large database, of 4 KiB.
const LARGE: u32 = 2_621_440;

/// Serves until it is killed, or its standard input is closed.
pub(crate) fn child(words: impl Iterator<Item = String>) -> Result<()> {
    let words: Vec<_> = words.collect();
    let [role, bucket, address, file] = &*words else {
        return Err("a role, a bucket, an address and a file".into());
    };
    let public = format!("http://{address}");
    let server = match &**role {
        WRITER => Server::builder(file).replicate(Replication::to(bucket).writer_url(public)),
        SUCCESSOR => Server::from_bucket(Mirroring::of(bucket).take_over(TakeOver::After(LEASE), public)),
        _ => return Err("no such role".into()),
    };
    let server = server.start_blocking(&**address)?;
    println!("{}", server.addr());
    std::io::stdin().lines().for_each(drop);
    server.shutdown_blocking();
    Ok(())
}

/// One of them.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(role: &str, bucket: &str, file: &Path) -> Result<Self> {
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut child = Command::new(std::env::current_exe()?)
            .args([CHILD, role, bucket, &free.to_string()])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        let address = BufReader::new(out).lines().next().ok_or("it did not start")??;
        Ok(Self { child, address })
    }

    /// The most memory that it had, in MB.
    fn peak(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        Ok(kib.ok_or("no VmHWM")? / 1024.0)
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// How long one page takes, on a connection of its own.
    async fn one_page(&self, id: u32) -> Result<Duration> {
        let request = PagesRequest {
            select: PageSelector::Ids([id].into_iter().collect()),
            ..PagesRequest::default()
        };
        let began = Instant::now();
        let mut connection = Connection::open(&self.address).await?;
        connection
            .send(&post(&self.address, "/pull-updates", &asks(&request)))
            .await?;
        Ok(began.elapsed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The writer is killed; how long until another server answers a write, and how long the longest answer to a reader takes meanwhile.
pub(super) async fn takeover(folder: &Path) -> Result<()> {
    let (file, bucket) = (folder.join("taken.db"), folder.join("taken"));
    let bucket = format!("file://{}", std::path::absolute(bucket)?.display());
    small(&file)?;
    let mut writer = Process::start(WRITER, &bucket, &file)?;
    let address = writer.address.parse()?;
    push_all(address, 8, 20).await?;
    let successor = Process::start(SUCCESSOR, &bucket, &file)?;
    successor.one_page(0).await?;
    writer.kill()?;
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    let address = successor.address.parse()?;
    while push_all(address, 1, 1).await.is_err() {
        longest = longest.max(successor.one_page(0).await?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lease = LEASE.as_secs_f64();
    println!(
        "**The writer is killed** (a folder, the lease is {lease} s): the first write was taken after {:.2} s (at most {} wanted), the longest read took {:.3} s (at most 2 wanted).\n",
        began.elapsed().as_secs_f64(),
        lease + 2.0,
        longest.as_secs_f64()
    );
    Ok(())
}

/// A new server of a database of 10 GB.
pub(super) async fn large(folder: &Path) -> Result<()> {
    let place = folder.join("large");
    let url = format!("file://{}", std::path::absolute(&place)?.display());
    let bucket = partial_sync_store::open(&url, std::env::vars())?;
    let node = NonZeroU64::MIN;
    let begin = Begin {
        node,
        url: None,
        new: New {
            lineage: node,
            after: None,
            retention: Duration::from_secs(24 * 60 * 60),
        },
        now: 0,
    };
    let size = PageSize::DEFAULT;
    Writer::create(bucket, begin, size, PageCount(LARGE), move |put| {
        let mut page = vec![0; size.as_usize()];
        for no in (1..=LARGE).filter_map(PageNo::new) {
            // Some bytes that are not the same everywhere, or the file is too small to be one of 10 GB.
            fastrand::Rng::with_seed(no.get().into()).fill(&mut page[..64]);
            if !no.is_lock_byte_page(size) {
                put(no, &page).map_err(|error: StoreError| error)?;
            }
        }
        Ok(())
    })
    .await?;
    let began = Instant::now();
    let server = Process::start(SUCCESSOR, &url, &place)?;
    server.one_page(LARGE / 2).await?;
    let first = began.elapsed();
    for id in (0..LARGE).step_by(LARGE as usize / 200) {
        server.one_page(id).await?;
    }
    let bytes = f64::from(LARGE) * f64::from(size.bytes()) / 1e9;
    println!(
        "**A new server of a database of {bytes:.1} GB** (a folder): its first page after {:.2} s (at most 2 wanted); {:.0} MB of memory at most, after 200 pages from all over it (50 wanted).\n",
        first.as_secs_f64(),
        server.peak()?
    );
    Ok(())
}
