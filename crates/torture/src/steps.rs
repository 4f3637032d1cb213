//! What a history is made of, and its text form: one line for each setting, then one for each step. Lines that are
//! indented happen during the step above them: `while N STEP` when that step sends its Nth request, `beside STEP` over and
//! over on a thread of its own for as long as it takes.

use std::{fmt, str::FromStr};

use partial_sync_vfs::crash::Survives;

/// A replica's first connect and its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSpec {
    /// What the first connect brings.
    pub first: First,
    /// Bytes of a segment.
    pub segment: u64,
    /// Whether queries fetch ahead.
    pub prefetch: bool,
    /// Whether its files are real ones, which several handles of the process share, and not on a disk that can crash.
    pub real_files: bool,
    /// Most changes in a push request.
    pub threshold: usize,
}

/// What a first connect brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// Everything.
    Whole,
    /// The first bytes.
    Prefix(u64),
    /// What a query touches.
    Query(String),
    /// Nothing: the replica begins without the remote.
    Nothing,
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It does not arrive.
    Fail,
    /// It is answered with 503.
    Refuse,
    /// It does its work, and the answer is lost.
    Lose,
    /// The answer's body ends after so many bytes.
    Cut(usize),
    /// It arrives twice.
    Twice,
    /// It does not arrive until [`Net::Release`], when nobody waits for it any more.
    Late,
    /// The end of the answer, after its last byte, does not come until [`Net::Release`].
    HoldEnd,
}

/// The line between a replica and the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// Every request fails.
    Offline,
    /// No fault is left.
    Well,
    /// The request of this number from now on (1 = the next) suffers it.
    Trouble(usize, Trouble),
    /// From the request of this number on, every request fails.
    OfflineFrom(usize),
    /// What was held goes on.
    Release,
}

/// One step. Connections are numbered within their replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opens a replica.
    Open(usize),
    /// Closes it and every connection.
    Close(usize),
    /// Runs SQL on a connection.
    Sql(usize, usize, String),
    /// Attaches the file of another replica as `other`, runs SQL, and detaches it.
    Attach(usize, usize, usize, String),
    /// Begins a transaction; `true` = to write.
    Begin(usize, usize, bool),
    /// Commits it.
    Commit(usize, usize),
    /// Rolls it back.
    Rollback(usize, usize),
    /// Reads a table and holds it against the model.
    Read(usize, usize, String),
    /// Another client's SQL on the remote.
    Remote(String),
    /// Pulls; `true` = with a long poll.
    Pull(usize, bool),
    /// Pushes.
    Push(usize),
    /// Downloads everything.
    Hydrate(usize),
    /// Asks for statistics.
    Stats(usize),
    /// Checkpoints.
    Checkpoint(usize),
    /// Cancels what waits.
    Cancel(usize),
    /// The remote lets go of every old revision.
    Expire,
    /// Stops the server and starts it; `true` = by a kill.
    Restart(bool),
    /// The line of a replica.
    Net(usize, Net),
    /// The replica's world stops at the operation of this number from now on, at the latest after the next step.
    Crash(usize, u64, Survives),
    /// What a crash at the operation of this number of the next step would leave is checked, and the history goes on.
    Fork(usize, u64, Survives),
}

/// A step and what happens during it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The step.
    pub step: Step,
    /// At which of its requests, and what.
    pub meanwhile: Vec<(usize, Step)>,
    /// Over and over on threads of their own.
    pub beside: Vec<Step>,
}

impl From<Step> for Line {
    fn from(step: Step) -> Self {
        Self {
            step,
            meanwhile: vec![],
            beside: vec![],
        }
    }
}

/// A whole history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What random choices of the engine begin with.
    pub seed: u64,
    /// Bytes of a page.
    pub page_size: u32,
    /// `none`, `full` or `incremental`.
    pub auto_vacuum: String,
    /// Rows of the table that nobody but the remote writes.
    pub filler: usize,
    /// Kinds of tables, by name.
    pub tables: Vec<String>,
    /// Pragmas of every connection, `foreign_keys = on`.
    pub pragmas: Vec<String>,
    /// Milliseconds that anything waits for the remote.
    pub timeout: u64,
    /// Whether requests travel over a real socket.
    pub http: bool,
    /// The replicas.
    pub replicas: Vec<ReplicaSpec>,
    /// What happens.
    pub lines: Vec<Line>,
}

impl fmt::Display for ReplicaSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |on| if on { "yes" } else { "no" };
        write!(
            f,
            "replica segment={} prefetch={} real={} threshold={} ",
            self.segment,
            on(self.prefetch),
            on(self.real_files),
            self.threshold
        )?;
        match &self.first {
            First::Whole => write!(f, "whole"),
            First::Prefix(bytes) => write!(f, "prefix {bytes}"),
            First::Query(sql) => write!(f, "query {sql}"),
            First::Nothing => write!(f, "nothing"),
        }
    }
}

fn survives(s: &Survives) -> String {
    match s {
        Survives::Written => "written".into(),
        Survives::Synced => "synced".into(),
        Survives::SyncedAndSome(seed) => format!("some:{seed}"),
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(r) => write!(f, "open {r}"),
            Self::Close(r) => write!(f, "close {r}"),
            Self::Sql(r, c, sql) => write!(f, "sql {r} {c} {sql}"),
            Self::Attach(r, c, other, sql) => write!(f, "attach {r} {c} {other} {sql}"),
            Self::Begin(r, c, false) => write!(f, "begin {r} {c}"),
            Self::Begin(r, c, true) => write!(f, "begin {r} {c} immediate"),
            Self::Commit(r, c) => write!(f, "commit {r} {c}"),
            Self::Rollback(r, c) => write!(f, "rollback {r} {c}"),
            Self::Read(r, c, table) => write!(f, "read {r} {c} {table}"),
            Self::Remote(sql) => write!(f, "remote {sql}"),
            Self::Pull(r, false) => write!(f, "pull {r}"),
            Self::Pull(r, true) => write!(f, "pull {r} poll"),
            Self::Push(r) => write!(f, "push {r}"),
            Self::Hydrate(r) => write!(f, "hydrate {r}"),
            Self::Stats(r) => write!(f, "stats {r}"),
            Self::Checkpoint(r) => write!(f, "checkpoint {r}"),
            Self::Cancel(r) => write!(f, "cancel {r}"),
            Self::Expire => write!(f, "expire"),
            Self::Restart(kill) => write!(f, "restart{}", if *kill { " kill" } else { "" }),
            Self::Net(r, Net::Offline) => write!(f, "net {r} offline"),
            Self::Net(r, Net::Well) => write!(f, "net {r} well"),
            Self::Net(r, Net::OfflineFrom(n)) => write!(f, "net {r} offline-from {n}"),
            Self::Net(r, Net::Release) => write!(f, "net {r} release"),
            Self::Net(r, Net::Trouble(n, t)) => match t {
                Trouble::Fail => write!(f, "net {r} trouble {n} fail"),
                Trouble::Refuse => write!(f, "net {r} trouble {n} refuse"),
                Trouble::Lose => write!(f, "net {r} trouble {n} lose"),
                Trouble::Cut(bytes) => write!(f, "net {r} trouble {n} cut {bytes}"),
                Trouble::Twice => write!(f, "net {r} trouble {n} twice"),
                Trouble::Late => write!(f, "net {r} trouble {n} late"),
                Trouble::HoldEnd => write!(f, "net {r} trouble {n} hold-end"),
            },
            Self::Crash(r, n, s) => write!(f, "crash {r} {n} {}", survives(s)),
            Self::Fork(r, n, s) => write!(f, "fork {r} {n} {}", survives(s)),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "page {}", self.page_size)?;
        writeln!(f, "auto_vacuum {}", self.auto_vacuum)?;
        writeln!(f, "filler {}", self.filler)?;
        writeln!(f, "tables {}", self.tables.join(" "))?;
        for pragma in &self.pragmas {
            writeln!(f, "pragma {pragma}")?;
        }
        writeln!(f, "timeout {}", self.timeout)?;
        if self.http {
            writeln!(f, "http")?;
        }
        for replica in &self.replicas {
            writeln!(f, "{replica}")?;
        }
        writeln!(f)?;
        for line in &self.lines {
            writeln!(f, "{}", line.step)?;
            for (n, step) in &line.meanwhile {
                writeln!(f, "  while {n} {step}")?;
            }
            for step in &line.beside {
                writeln!(f, "  beside {step}")?;
            }
        }
        Ok(())
    }
}

/// The words of a line.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        if text.is_empty() {
            return None;
        }
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        self.0 = rest;
        Some(word)
    }

    fn word(&mut self) -> Result<&'a str, String> {
        self.next().ok_or_else(|| "a word is missing".to_owned())
    }

    fn number<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("{word:?} is not a number"))
    }

    fn rest(&mut self) -> String {
        std::mem::take(&mut self.0).trim().to_owned()
    }

    fn survives(&mut self) -> Result<Survives, String> {
        match self.word()? {
            "written" => Ok(Survives::Written),
            "synced" => Ok(Survives::Synced),
            other => match other.strip_prefix("some:").and_then(|seed| seed.parse().ok()) {
                Some(seed) => Ok(Survives::SyncedAndSome(seed)),
                None => Err(format!("{other:?} is not what survives")),
            },
        }
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut w = Words(line);
        Ok(match w.word()? {
            "open" => Self::Open(w.number()?),
            "close" => Self::Close(w.number()?),
            "sql" => Self::Sql(w.number()?, w.number()?, w.rest()),
            "attach" => Self::Attach(w.number()?, w.number()?, w.number()?, w.rest()),
            "begin" => Self::Begin(w.number()?, w.number()?, w.next() == Some("immediate")),
            "commit" => Self::Commit(w.number()?, w.number()?),
            "rollback" => Self::Rollback(w.number()?, w.number()?),
            "read" => Self::Read(w.number()?, w.number()?, w.rest()),
            "remote" => Self::Remote(w.rest()),
            "pull" => Self::Pull(w.number()?, w.next() == Some("poll")),
            "push" => Self::Push(w.number()?),
            "hydrate" => Self::Hydrate(w.number()?),
            "stats" => Self::Stats(w.number()?),
            "checkpoint" => Self::Checkpoint(w.number()?),
            "cancel" => Self::Cancel(w.number()?),
            "expire" => Self::Expire,
            "restart" => Self::Restart(w.next() == Some("kill")),
            "net" => Self::Net(w.number()?, net(&mut w)?),
            "crash" => Self::Crash(w.number()?, w.number()?, w.survives()?),
            "fork" => Self::Fork(w.number()?, w.number()?, w.survives()?),
            other => return Err(format!("{other:?} is not a step")),
        })
    }
}

fn net(w: &mut Words<'_>) -> Result<Net, String> {
    Ok(match w.word()? {
        "offline" => Net::Offline,
        "well" => Net::Well,
        "offline-from" => Net::OfflineFrom(w.number()?),
        "release" => Net::Release,
        "trouble" => Net::Trouble(
            w.number()?,
            match w.word()? {
                "fail" => Trouble::Fail,
                "refuse" => Trouble::Refuse,
                "lose" => Trouble::Lose,
                "cut" => Trouble::Cut(w.number()?),
                "twice" => Trouble::Twice,
                "late" => Trouble::Late,
                "hold-end" => Trouble::HoldEnd,
                other => return Err(format!("{other:?} is not a trouble")),
            },
        ),
        other => return Err(format!("{other:?} is not a state of the line")),
    })
}

fn replica(w: &mut Words<'_>) -> Result<ReplicaSpec, String> {
    let mut spec = ReplicaSpec {
        first: First::Whole,
        segment: 0,
        prefetch: false,
        real_files: false,
        threshold: 1000,
    };
    loop {
        let word = w.word()?;
        match word.split_once('=') {
            Some(("segment", n)) => spec.segment = n.parse().map_err(|_| "segment is a number")?,
            Some(("threshold", n)) => spec.threshold = n.parse().map_err(|_| "threshold is a number")?,
            Some(("prefetch", on)) => spec.prefetch = on == "yes",
            Some(("real", on)) => spec.real_files = on == "yes",
            _ => {
                spec.first = match word {
                    "whole" => First::Whole,
                    "prefix" => First::Prefix(w.number()?),
                    "query" => First::Query(w.rest()),
                    "nothing" => First::Nothing,
                    other => return Err(format!("{other:?} is not a first connect")),
                };
                return Ok(spec);
            }
        }
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut case = Case {
            seed: 0,
            page_size: 4096,
            auto_vacuum: "none".into(),
            filler: 0,
            tables: vec![],
            pragmas: vec![],
            timeout: 10_000,
            http: false,
            replicas: vec![],
            lines: vec![],
        };
        for (n, line) in text.lines().enumerate() {
            case.read_line(line)
                .map_err(|why| format!("line {}: {why}: {line}", n + 1))?;
        }
        Ok(case)
    }
}

impl Case {
    fn read_line(&mut self, line: &str) -> Result<(), String> {
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let mut w = Words(line);
        match w.word()? {
            "seed" => self.seed = w.number()?,
            "page" => self.page_size = w.number()?,
            "auto_vacuum" => self.auto_vacuum = w.rest(),
            "filler" => self.filler = w.number()?,
            "tables" => self.tables = w.rest().split_whitespace().map(Into::into).collect(),
            "pragma" => self.pragmas.push(w.rest()),
            "timeout" => self.timeout = w.number()?,
            "http" => self.http = true,
            "replica" => self.replicas.push(replica(&mut w)?),
            "while" => {
                let nth = w.number()?;
                let step = w.rest().parse()?;
                self.lines
                    .last_mut()
                    .ok_or("nothing is above")?
                    .meanwhile
                    .push((nth, step));
            }
            "beside" => {
                let step = w.rest().parse()?;
                self.lines.last_mut().ok_or("nothing is above")?.beside.push(step);
            }
            _ => self.lines.push(line.parse::<Step>()?.into()),
        }
        Ok(())
    }
}
