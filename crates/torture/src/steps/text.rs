//! The text form of a history: one line for each setting, then one for each step. Lines that are indented happen during the
//! step above them: `while N STEP` when that step sends its Nth request, `beside STEP` over and over on a thread of its own
//! for as long as it takes.

use std::{fmt, str::FromStr};

use partial_sync_vfs::crash::Survives;

use super::{Case, First, Net, ReplicaSpec, Step, Trouble};

impl fmt::Display for ReplicaSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |on| if on { "yes" } else { "no" };
        write!(
            f,
            "replica segment={} prefetch={} lists={} real={} threshold={} ",
            self.segment,
            self.prefetch.map_or("default", on),
            on(self.lists),
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
            Self::Discard(r, keep, false) => write!(f, "discard {r} {keep}"),
            Self::Discard(r, keep, true) => write!(f, "discard {r} {keep} dependents"),
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
            "discard" => Self::Discard(w.number()?, w.number()?, w.next() == Some("dependents")),
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
        prefetch: None,
        lists: false,
        real_files: false,
        threshold: 1000,
    };
    loop {
        let word = w.word()?;
        match word.split_once('=') {
            Some(("segment", n)) => spec.segment = n.parse().map_err(|_| "segment is a number")?,
            Some(("threshold", n)) => spec.threshold = n.parse().map_err(|_| "threshold is a number")?,
            Some(("prefetch", on)) => spec.prefetch = (on != "default").then_some(on == "yes"),
            Some(("lists", on)) => spec.lists = on == "yes",
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
