//! The server as a process of its own, with few descriptors, and what the system tells of it. Linux only: `/proc`.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{ask, result::Result};

/// Files and sockets that the server may have open.
const DESCRIPTORS: u32 = 1024;
/// How long its start may take: what is longer is an error anyway.
const START: Duration = Duration::from_secs(30);

/// How to start it.
#[derive(Clone)]
pub(crate) struct Place {
    pub binary: PathBuf,
    /// The databases.
    pub data: PathBuf,
    /// For its tokens and its log.
    pub beside: PathBuf,
    /// What it is told besides.
    pub options: &'static [&'static str],
}

/// A running server.
pub(crate) struct Server {
    process: Child,
    pub addr: SocketAddr,
    // Open as long as it runs.
    _out: BufReader<ChildStdout>,
}

/// What it has at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub rss: u64,
    /// The most that it ever had.
    pub rss_peak: u64,
    pub descriptors: u64,
    pub threads: u64,
    pub wal: u64,
    pub history: u64,
}

impl Sample {
    /// The larger of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            rss: self.rss.max(other.rss),
            rss_peak: self.rss_peak.max(other.rss_peak),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            wal: self.wal.max(other.wal),
            history: self.history.max(other.history),
        }
    }
}

impl Place {
    /// The command that serves `path`, with everything as in the run.
    pub(crate) fn command(&self, path: &Path, options: &[&str]) -> Result<Command> {
        let tokens = self.beside.join("tokens");
        if !tokens.exists() {
            fs::write(&tokens, ask::token_file())?;
        }
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("ulimit -n {DESCRIPTORS} && exec \"$@\""))
            .arg("sh")
            .arg(&self.binary)
            .arg("serve")
            .arg(path)
            .args(["--listen", "127.0.0.1:0", "--auth-token-file"])
            .arg(tokens)
            .args(self.options)
            .args(options)
            // Where statements sort.
            .env("SQLITE_TMPDIR", &self.beside)
            .env("TMPDIR", &self.beside)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Ok(command)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.beside.join("log")
    }

    /// Starts it.
    pub(crate) fn start(&self, options: &[&str]) -> Result<Server> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let began = Instant::now();
        let mut process = self.command(&self.data, options)?.stderr(log).spawn()?;
        let mut out = BufReader::new(process.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        let Some(addr) = line.trim().strip_prefix("listening on http://") else {
            let ended = process.wait()?;
            return Err(format!("the server did not start: {ended}, see {}", self.log().display()).into());
        };
        let addr = addr.parse()?;
        if began.elapsed() > START {
            return Err(format!("it listens only after {:?}", began.elapsed()).into());
        }
        Ok(Server {
            process,
            addr,
            _out: out,
        })
    }

    /// The bytes of all files of the databases whose names end like this.
    fn bytes(&self, end: &str) -> u64 {
        let files = fs::read_dir(&self.data).into_iter().flatten().flatten();
        let these = files.filter(|file| file.file_name().to_string_lossy().ends_with(end));
        these.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    }
}

impl Server {
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it ended by itself, and how.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let ended = self.process.try_wait().ok()??;
        Some(format!("the server ended by itself: {ended}"))
    }

    pub(crate) fn sample(&self, place: &Place) -> Sample {
        let id = self.id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
        };
        Sample {
            rss: number("VmRSS:") << 10,
            rss_peak: number("VmHWM:") << 10,
            descriptors: fs::read_dir(format!("/proc/{id}/fd")).map_or(0, |all| all.count() as u64),
            threads: number("Threads:"),
            wal: place.bytes("-wal"),
            history: place.bytes("-history"),
        }
    }

    /// Sends a signal: `TERM`, `KILL`, `HUP`.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        signal(self.id(), name)
    }

    /// Waits for its end, and says how long that took; after `most` it is killed.
    pub(crate) async fn wait(mut self, most: Duration) -> Result<Duration> {
        let began = Instant::now();
        loop {
            if self.process.try_wait()?.is_some() {
                return Ok(began.elapsed());
            }
            if began.elapsed() > most {
                self.process.kill()?;
                self.process.wait()?;
                return Ok(began.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Sends a signal to a process that this program started.
pub(crate) fn signal(id: u32, name: &str) -> Result<()> {
    send(&id.to_string(), name)
}

/// Kills a process that this program started as the first of a group, and all others of the group.
pub(crate) fn kill_group(id: u32) -> Result<()> {
    send(&format!("-{id}"), "KILL")
}

fn send(to: &str, name: &str) -> Result<()> {
    Command::new("kill")
        .args([&format!("-{name}"), "--", to])
        .stderr(Stdio::null())
        .status()?;
    Ok(())
}
