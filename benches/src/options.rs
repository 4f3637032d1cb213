//! The command line.

use std::{path::PathBuf, time::Duration};

use crate::result::Result;

const USAGE: &str =
    "usage: scripts/bench [local] [cold] [bindings] [pull] [server] [size] [wire] [bulk] [bucket] [--list] [--only TEXT] [--rounds N]
    [--dir FOLDER] [--rtt MILLISECONDS] [--mbit MEGABITS] [--python PROGRAM] [--changes N] [--json FILE] [--plot FILE]

  local    a replica that has every page, against stock SQLite on a copy of its file
  cold     a first query over a far-away line, against other ways to get its answer
  bindings rows in Node, Python and Go, against the engine and other packages
  pull     what readers and writers wait during a pull that has much to put back, and opening after a crash in it
  server   what the server spends on a request, against nginx sending the same bytes; long polls; writers
  size     what opening, a miss, a pull and a checkpoint cost, with databases of 10 MB to 100 GB (sparse files)
  wire     what a download, a scan and pushes send and take, against the same bytes compressed at once, and pyturso
  bulk     many rows at once when everything is here, against stock SQLite, and pyturso against Python's sqlite3
  bucket   a database on object storage: pushes, cold reads, idle servers, takeovers, a database of 10 GB
  --only   the cases whose name contains this
  --rounds how often each case is measured (odd; default 7 local, 3 cold, 5 bindings)
  --dir    where databases are made; its file system is what is measured (default: the target folder)
  --rtt    round trip of the line in `cold` and `bucket` (default 20); --mbit: its width, 0 = no limit (default 100)
  --python a Python that has pyturso (default: that of tests/interop)
  --changes how many changes `pull` puts back (default 1000000)
  --json   a file for the numbers of the groups that give them (size)
  --plot   a file for the curves of `size`, as SVG
  --staged where the bindings are, built in release mode (set by scripts/bench)";

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Run the local cases.
    pub local: bool,
    /// Run the cold cases.
    pub cold: bool,
    /// Run the bindings' cases.
    pub bindings: bool,
    /// Run the case of a pull.
    pub pull: bool,
    /// Run the server's cases.
    pub server: bool,
    /// Run the cases of databases of many sizes.
    pub size: bool,
    /// Where the numbers are written.
    pub json: Option<PathBuf>,
    /// Where the curves of `size` are drawn.
    pub plot: Option<PathBuf>,
    /// Run the cases of the wire.
    pub wire: bool,
    /// Run the cases of many rows.
    pub bulk: bool,
    /// Run the cases of object storage.
    pub bucket: bool,
    /// How many changes a pull puts back.
    pub changes: u64,
    /// Name the cases and do nothing.
    pub list: bool,
    /// Part of the names of the cases to run.
    pub only: Option<String>,
    rounds: Option<usize>,
    /// Where databases are made.
    pub dir: PathBuf,
    /// Round trip of the far-away line.
    pub rtt: Duration,
    /// Bytes per second of the far-away line.
    pub bytes_per_second: Option<u64>,
    /// A Python interpreter with pyturso.
    pub python: PathBuf,
    /// Folder of the bindings, built in release mode.
    pub staged: PathBuf,
}

impl Options {
    /// Understands the words after the program's name.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let mut options = Self {
            local: false,
            cold: false,
            bindings: false,
            pull: false,
            server: false,
            size: false,
            json: None,
            plot: None,
            wire: false,
            bulk: false,
            bucket: false,
            changes: 1_000_000,
            list: false,
            only: None,
            rounds: None,
            dir: PathBuf::from(root).join("target"),
            rtt: Duration::from_millis(20),
            bytes_per_second: Some(100_000_000 / 8),
            python: PathBuf::from(root).join("tests/interop/.venv/bin/python"),
            staged: PathBuf::from(root).join("target/bindings"),
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| format!("{word} needs a value\n{USAGE}"))
            };
            match word.as_str() {
                "local" => options.local = true,
                "cold" => options.cold = true,
                "bindings" => options.bindings = true,
                "pull" => options.pull = true,
                "server" => options.server = true,
                "size" => options.size = true,
                "--json" => options.json = Some(value()?.into()),
                "--plot" => options.plot = Some(value()?.into()),
                "wire" => options.wire = true,
                "bulk" => options.bulk = true,
                "bucket" => options.bucket = true,
                "--changes" => options.changes = value()?.parse()?,
                "--list" => options.list = true,
                "--help" | "-h" => {
                    println!("{USAGE}");
                    std::process::exit(0);
                }
                "--only" => options.only = Some(value()?),
                "--rounds" => options.rounds = Some(value()?.parse::<usize>()?.max(1)),
                "--dir" => options.dir = value()?.into(),
                "--rtt" => options.rtt = Duration::from_secs_f64(value()?.parse::<f64>()? / 1000.0),
                "--mbit" => {
                    let megabits: u64 = value()?.parse()?;
                    options.bytes_per_second = (megabits > 0).then_some(megabits * 1_000_000 / 8);
                }
                "--python" => options.python = value()?.into(),
                "--staged" => options.staged = value()?.into(),
                _ => return Err(format!("there is no {word}\n{USAGE}").into()),
            }
        }
        let named = [
            options.local,
            options.cold,
            options.bindings,
            options.pull,
            options.server,
            options.size,
            options.wire,
            options.bulk,
            options.bucket,
            options.list,
        ];
        if !named.contains(&true) {
            options.local = true;
            options.cold = true;
        }
        Ok(options)
    }

    /// Whether a case of this name is wanted.
    pub(crate) fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|part| case.contains(part.as_str()))
    }

    /// How often a case is measured.
    pub(crate) fn rounds(&self, default: usize) -> usize {
        self.rounds.unwrap_or(default)
    }
}
