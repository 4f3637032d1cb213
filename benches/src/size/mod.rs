//! Whether what a replica costs grows with its database: opening, a miss, a pull of one changed page and a checkpoint, with
//! databases of 10 MB to 100 GB. Their files are sparse: all but the first pages are zeros. A process of its own serves them
//! on loopback, and each measurement is made in a process of its own, whose processor time and memory are those of the client.
//!
//! Two replicas of each: of one the first pages are absent and all others here, so that the page map has one run; of the other every
//! second page is here, for which nothing shorter can be said than a bit for each.

mod client;
mod files;
mod plot;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{json, options::Options, result::Result, samples::Samples, server::Ours};
use files::Shape;

pub(crate) use client::{CHILD, child};

/// Names and pages, of 4096 bytes, of the databases.
const SIZES: [(&str, u32); 5] = [
    ("10 MB", 2_500),
    ("100 MB", 25_000),
    ("1 GB", 250_000),
    ("10 GB", 2_500_000),
    ("100 GB", 25_000_000),
];
/// The other client downloads all of a database: up to this many pages that is soon done.
const DOWNLOADED: u32 = 25_000;
/// How long the server is given to compare a database with its page history, which it does in the background after its first
/// start.
const COMPARED_WITHIN: Duration = Duration::from_secs(15 * 60);
const PYTURSO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/pyturso_size.py");

/// Names of the cases.
pub(crate) fn cases() -> Vec<&'static str> {
    SIZES.map(|(name, _)| name).to_vec()
}

/// What is wanted of a median.
#[derive(Clone, Copy)]
enum Wanted {
    /// No more than this, with any size.
    AtMost(f64),
    /// With any size at most twice what it is with the smallest.
    AsSmallest,
    Nothing,
}

impl Wanted {
    fn shown(self) -> String {
        match self {
            Self::AtMost(most) => format!("at most {most}"),
            Self::AsSmallest => "as the smallest".into(),
            Self::Nothing => "-".into(),
        }
    }

    /// Whether medians, the smallest size first, are so.
    fn is_met(self, medians: &[f64]) -> Option<bool> {
        let most = match self {
            Self::AtMost(most) => most,
            Self::AsSmallest => medians.first()? * 2.0,
            Self::Nothing => return None,
        };
        Some(medians.iter().all(|median| *median <= most))
    }
}

/// Something that is measured, and the unit that it is counted in.
struct Quantity {
    /// What the clients call it.
    key: &'static str,
    name: &'static str,
    unit: &'static str,
    digits: usize,
    wanted: Wanted,
    /// The name of its curves, if it has some.
    curve: Option<&'static str>,
}

const QUANTITIES: [Quantity; 13] = [
    Quantity {
        key: "open_ms",
        name: "opening",
        unit: "ms",
        digits: 1,
        wanted: Wanted::AtMost(50.0),
        curve: Some("opening"),
    },
    Quantity {
        key: "open_mb",
        name: "the same: memory more",
        unit: "MB",
        digits: 1,
        wanted: Wanted::AtMost(20.0),
        curve: None,
    },
    Quantity {
        key: "plain_cpu",
        name: "miss of one page, `prefetch` false: processor time beyond the request",
        unit: "ms",
        digits: 3,
        wanted: Wanted::AtMost(0.2),
        curve: Some("miss of one page: processor time"),
    },
    Quantity {
        key: "plain_ms",
        name: "the same: in all",
        unit: "ms",
        digits: 2,
        wanted: Wanted::Nothing,
        curve: None,
    },
    Quantity {
        key: "default_pages",
        name: "miss by default",
        unit: "pages that come",
        digits: 0,
        wanted: Wanted::Nothing,
        curve: None,
    },
    Quantity {
        key: "default_cpu",
        name: "miss by default: processor time beyond a request of as many pages",
        unit: "ms",
        digits: 3,
        wanted: Wanted::AtMost(0.2),
        curve: Some("miss by default: processor time"),
    },
    Quantity {
        key: "default_ms",
        name: "the same: in all",
        unit: "ms",
        digits: 2,
        wanted: Wanted::Nothing,
        curve: Some("miss by default"),
    },
    Quantity {
        key: "pull_requests",
        name: "pull of one changed page",
        unit: "requests",
        digits: 0,
        wanted: Wanted::AtMost(2.0),
        curve: None,
    },
    Quantity {
        key: "pull_bytes",
        name: "pull of one changed page",
        unit: "bytes of requests",
        digits: 0,
        wanted: Wanted::AtMost(16_000.0),
        curve: None,
    },
    Quantity {
        key: "pull_ms",
        name: "pull of one changed page",
        unit: "ms",
        digits: 1,
        wanted: Wanted::AtMost(50.0),
        curve: Some("pull of one changed page"),
    },
    Quantity {
        key: "pull_cpu",
        name: "the same: processor time",
        unit: "ms",
        digits: 2,
        wanted: Wanted::Nothing,
        curve: Some("pull: processor time"),
    },
    Quantity {
        key: "checkpoint_ms",
        name: "checkpoint after one local change",
        unit: "ms",
        digits: 1,
        wanted: Wanted::AsSmallest,
        curve: Some("checkpoint after one local change"),
    },
    Quantity {
        key: "checkpoint_cpu",
        name: "the same: processor time",
        unit: "ms",
        digits: 2,
        wanted: Wanted::AsSmallest,
        curve: None,
    },
];

/// What was measured of one database, or the other client's part of it, by key.
type Measured = BTreeMap<String, Samples>;

/// Who was measured: what its rows are called, and what it took with each size that it was measured with.
struct Contender {
    name: String,
    /// Of this project, the replicas of which shape; nothing for the other client.
    shape: Option<Shape>,
    sizes: Vec<(usize, Measured)>,
}

/// Runs and prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    let sizes: Vec<_> = SIZES
        .into_iter()
        .filter(|(name, _)| options.wants(name))
        .collect();
    let contender = |name: String, shape| Contender {
        name,
        shape,
        sizes: vec![],
    };
    let mut ours = Shape::ALL.map(|shape| contender(shape.name().into(), Some(shape)));
    let version = crate::cold::pyturso_version(&options.python);
    let mut other = version.map(|version| contender(format!("all, pyturso {version}"), None));
    let mut most_disk = 0;
    for (nth, (name, pages)) in sizes.iter().enumerate() {
        let folder = tempfile::Builder::new().prefix("size").tempdir_in(&options.dir)?;
        let file = folder.path().join("remote.db");
        files::make_remote(&file, *pages)?;
        let server = Ours::start(&file)?;
        eprintln!(
            "{name}: compared within {:.1} s",
            wait_until_compared(&server.addr)?.as_secs_f64()
        );
        let url = format!("http://{}", server.addr);
        for (shape, contender) in Shape::ALL.into_iter().zip(&mut ours) {
            let measured = of_replicas(options, folder.path(), &url, &file, *pages, shape)
                .map_err(|error| format!("{name}, {}: {error}", shape.name()))?;
            contender.sizes.push((nth, measured));
        }
        if let Some(other) = other.as_mut().filter(|_| *pages <= DOWNLOADED) {
            other
                .sizes
                .push((nth, of_pyturso(options, folder.path(), &url, &file)?));
        }
        most_disk = most_disk.max(files::allocated(folder.path())?);
    }
    let contenders: Vec<_> = ours.into_iter().chain(other).collect();
    let names: Vec<_> = sizes.iter().map(|(name, _)| *name).collect();
    print(&names, &contenders);
    println!(
        "\nThe files took {} MB of the disk at most.",
        most_disk.div_ceil(1_000_000)
    );
    json::add(options, "size", numbers(&names, &contenders))?;
    if let Some(path) = &options.plot {
        let bytes: Vec<_> = sizes
            .iter()
            .map(|(_, pages)| f64::from(*pages) * 4096.0)
            .collect();
        std::fs::write(path, plot::svg(&names, &bytes, &curves(&contenders)))?;
    }
    Ok(())
}

/// Replicas of one shape: one with default options, and one that fetches single pages.
fn of_replicas(
    options: &Options,
    folder: &Path,
    url: &str,
    file: &Path,
    pages: u32,
    shape: Shape,
) -> Result<Measured> {
    let mut measured = Measured::new();
    for kind in client::Kind::ALL {
        let path = folder.join(format!("{}-{}.db", shape.word(), kind.word()));
        client::make_replica(&path, url, kind)?;
        files::have(&path, pages, shape)?;
        let client = |mode: &str| {
            let mut command = Command::new(std::env::current_exe()?);
            command.args([CHILD, mode, kind.word(), url]).arg(&path).arg(file);
            numbers_of(&mut command)
        };
        if kind == client::Kind::Default {
            for _ in 0..options.rounds(5) {
                add(&mut measured, client("open")?);
            }
        }
        add(&mut measured, client("work")?);
    }
    Ok(measured)
}

/// The other client, which has downloaded everything.
fn of_pyturso(options: &Options, folder: &Path, url: &str, file: &Path) -> Result<Measured> {
    let mut measured = Measured::new();
    let client = |mode: &str| {
        let mut command = Command::new(&options.python);
        command
            .args([PYTURSO, mode, url])
            .arg(folder.join("pyturso.db"))
            .arg(file);
        numbers_of(&mut command)
    };
    client("open")?;
    for _ in 0..options.rounds(5) {
        add(&mut measured, client("open")?);
    }
    add(&mut measured, client("work")?);
    Ok(measured)
}

type Numbers = BTreeMap<String, Vec<f64>>;

fn add(measured: &mut Measured, numbers: Numbers) {
    for (key, values) in numbers {
        let samples = measured.entry(key).or_default();
        values.into_iter().for_each(|value| samples.push(value));
    }
}

/// Runs a client, which prints what it measured.
fn numbers_of(command: &mut Command) -> Result<Numbers> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout)?),
        false => Err(format!("a client ended with {}", output.status).into()),
    }
}

/// Waits until the server has compared the database with its page history, as one that has run for a while has, and gives
/// how long that took.
fn wait_until_compared(addr: &str) -> Result<Duration> {
    let began = Instant::now();
    while began.elapsed() < COMPARED_WITHIN {
        let mut server = TcpStream::connect(addr)?;
        write!(
            server,
            "GET /ready HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        server.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 200") {
            return Err(format!("the server is not ready: {answer}").into());
        }
        if !answer.contains("comparing") {
            return Ok(began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Err("the server still compares the database with its page history".into())
}

/// What a contender took, the smallest size first; nothing where that was not measured.
fn of_sizes<'c>(
    contender: &'c Contender,
    quantity: &Quantity,
    sizes: usize,
) -> Option<Vec<Option<&'c Samples>>> {
    let mut all = vec![None; sizes];
    for (nth, measured) in &contender.sizes {
        all[*nth] = measured.get(quantity.key);
    }
    all.iter().any(Option::is_some).then_some(all)
}

fn medians(samples: &[Option<&Samples>]) -> Vec<f64> {
    samples.iter().flatten().map(|samples| samples.median()).collect()
}

/// Whether a quantity is as wanted; of the other client nothing is.
fn verdict(quantity: &Quantity, contender: &Contender, samples: &[Option<&Samples>]) -> Option<bool> {
    contender
        .shape
        .and_then(|_| quantity.wanted.is_met(&medians(samples)))
}

fn print(names: &[&str], contenders: &[Contender]) {
    println!("\n### databases of {}\n", names.join(", "));
    println!("| what | unit | pages here | {} | wanted | |", names.join(" | "));
    println!("|---|---|---|{}---|---|", "---|".repeat(names.len()));
    for quantity in &QUANTITIES {
        for contender in contenders {
            let Some(samples) = of_sizes(contender, quantity, names.len()) else {
                continue;
            };
            let cells = samples
                .iter()
                .map(|samples| samples.map_or_else(|| "-".into(), |samples| samples.shown(quantity.digits)));
            let (wanted, met) = match verdict(quantity, contender, &samples) {
                Some(true) => (quantity.wanted.shown(), "met"),
                Some(false) => (quantity.wanted.shown(), "missed"),
                None => ("-".into(), "-"),
            };
            println!(
                "| {} | {} | {} | {} | {wanted} | {met} |",
                quantity.name,
                quantity.unit,
                contender.name,
                cells.collect::<Vec<_>>().join(" | ")
            );
        }
    }
}

fn numbers(names: &[&str], contenders: &[Contender]) -> Value {
    let mut rows = vec![];
    for quantity in &QUANTITIES {
        for contender in contenders {
            let Some(samples) = of_sizes(contender, quantity, names.len()) else {
                continue;
            };
            let of_size = |(name, samples): (&&str, &Option<&Samples>)| {
                let samples = (*samples)?;
                let (least, most) = samples.range()?;
                Some(json!({ "size": name, "median": samples.median(), "least": least, "most": most }))
            };
            rows.push(json!({
                "key": quantity.key,
                "what": quantity.name,
                "unit": quantity.unit,
                "pages": contender.name,
                "sizes": names.iter().zip(&samples).filter_map(of_size).collect::<Vec<_>>(),
                "met": verdict(quantity, contender, &samples),
            }));
        }
    }
    rows.into()
}

fn curves(contenders: &[Contender]) -> Vec<plot::Curve> {
    let mut curves = vec![];
    for (color, quantity) in QUANTITIES.iter().filter(|q| q.curve.is_some()).enumerate() {
        for contender in contenders.iter().filter(|contender| contender.shape.is_some()) {
            curves.push(plot::Curve {
                name: format!("{}, {}", quantity.curve.unwrap_or_default(), contender.name),
                color,
                dashed: contender.shape == Some(Shape::EverySecond),
                values: contender
                    .sizes
                    .iter()
                    .filter_map(|(nth, measured)| Some((*nth, measured.get(quantity.key)?.median())))
                    .collect(),
            });
        }
    }
    curves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_size_that_costs_too_much_is_a_target_missed() {
        assert_eq!(Wanted::AtMost(2.0).is_met(&[1.0, 2.0]), Some(true));
        assert_eq!(Wanted::AtMost(2.0).is_met(&[2.5, 1.0]), Some(false));
        assert_eq!(Wanted::AsSmallest.is_met(&[2.0, 4.0, 1.0]), Some(true));
        assert_eq!(Wanted::AsSmallest.is_met(&[2.0, 4.5, 1.0]), Some(false));
        assert_eq!(Wanted::Nothing.is_met(&[2.0]), None);
    }
}
