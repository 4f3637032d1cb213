//! What a language pays for rows: the bindings against the engine that they bind, and against other packages, on one file
//! that stock SQLite made. Each round runs every contender once, in turns; a contender's time is the median of its
//! repetitions in a process of its own, after a first one that is thrown away. Every checksum is compared.

use std::{
    hint::black_box,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use partial_sync::Database;
use serde_json::Value;

use crate::{options::Options, result::Result, samples::Samples};

/// Rows of `places`, all of which the bulk case fetches.
const ROWS: i64 = 100_000;
/// Rows fetched one at a time.
const LOOKUPS: i64 = 10_000;
/// How often a process repeats each case.
const REPETITIONS: usize = 5;
const CASES: [(&str, &str); 2] = [
    ("bulk", "100,000 rows of four columns fetched in bulk"),
    ("single", "10,000 rows fetched one at a time by their key"),
];

/// Names of the cases.
pub(crate) fn cases() -> Vec<&'static str> {
    CASES.map(|(name, _)| name).to_vec()
}

/// Who fetches rows: its name, and the program and its arguments before the file.
struct Contender {
    name: &'static str,
    /// Nothing for the engine, which runs in this process.
    command: Vec<String>,
    samples: [Samples; CASES.len()],
    ratios: [Samples; CASES.len()],
}

/// Runs what the options want.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("bindings")
        .tempdir_in(&options.dir)?;
    let file = folder.path().join("places.db");
    make(&file)?;
    let mut contenders = contenders(options);
    contenders.retain(|c| {
        let missing = c
            .command
            .iter()
            .find(|part| part.contains('/') && !Path::new(part).exists());
        if let Some(missing) = missing {
            println!("- left out: {}, for {missing} is not there", c.name);
        }
        missing.is_none()
    });
    let rounds = options.rounds(5);
    for _ in 0..rounds {
        let mut engine = [(0, 0.0); CASES.len()];
        for contender in &mut contenders {
            let answer = match contender.command.is_empty() {
                true => of_engine(&file)?,
                false => of_client(&contender.command, &file)
                    .map_err(|error| format!("{}: {error}", contender.name))?,
            };
            if contender.command.is_empty() {
                engine = answer;
            }
            for (case, (check, millis)) in answer.into_iter().enumerate() {
                if check != engine[case].0 {
                    return Err(format!("{} fetched other rows: {}", contender.name, CASES[case].0).into());
                }
                contender.samples[case].push(millis);
                contender.ratios[case].push(millis / engine[case].1);
            }
        }
    }
    for (case, (name, title)) in CASES.iter().enumerate() {
        if !options.wants(name) {
            continue;
        }
        println!("\n### {title}\n");
        println!("| program | ms, median of {rounds} (range) | times the engine (range) |");
        println!("|---|---:|---:|");
        for contender in &contenders {
            let (millis, ratio) = (&contender.samples[case], &contender.ratios[case]);
            println!(
                "| {} | {} | {} |",
                contender.name,
                millis.shown(1),
                ratio.shown(2)
            );
        }
    }
    Ok(())
}

fn contenders(options: &Options) -> Vec<Contender> {
    let clients = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");
    let interop = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop");
    let staged = options.staged.display();
    let python = options.python.display();
    let words = |words: &[String]| words.to_vec();
    let all = [
        ("the engine, from Rust", vec![]),
        (
            "Node, this project",
            words(&[
                "node".into(),
                format!("{clients}/rows.mjs"),
                format!("{staged}/node/index.js"),
            ]),
        ),
        (
            "Node, `@tursodatabase/sync` of npm",
            words(&[
                "node".into(),
                format!("{clients}/rows.mjs"),
                format!("{interop}/node_modules/@tursodatabase/sync"),
            ]),
        ),
        (
            "Python, this project",
            words(&[
                format!("{staged}/venv/bin/python"),
                format!("{clients}/rows.py"),
                "turso".into(),
            ]),
        ),
        (
            "Python, `pyturso` of PyPI",
            words(&[python.to_string(), format!("{clients}/rows.py"), "turso".into()]),
        ),
        (
            "Python, its own `sqlite3`",
            words(&[python.to_string(), format!("{clients}/rows.py"), "sqlite3".into()]),
        ),
        (
            "Go, this project, `database/sql`",
            words(&[format!("{staged}/go/rows")]),
        ),
    ];
    all.into_iter()
        .map(|(name, command)| Contender {
            name,
            command,
            samples: Default::default(),
            ratios: Default::default(),
        })
        .collect()
}

type Answer = [(i64, f64); CASES.len()];

fn of_client(command: &[String], file: &Path) -> Result<Answer> {
    let output = Command::new(&command[0])
        .args(&command[1..])
        .arg(file)
        .arg(REPETITIONS.to_string())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("ended with {}", output.status).into());
    }
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let mut of_cases = Answer::default();
    for (slot, (name, _)) in of_cases.iter_mut().zip(CASES) {
        let mut samples = Samples::default();
        for time in answer[name]["times"].as_array().ok_or("no times")? {
            samples.push(time.as_f64().ok_or("a time that is not a number")?);
        }
        *slot = (
            answer[name]["check"].as_i64().ok_or("no checksum")?,
            samples.median(),
        );
    }
    Ok(of_cases)
}

fn of_engine(file: &Path) -> Result<Answer> {
    let db = Database::builder(file).connect()?;
    let conn = db.connection()?;
    let bulk = || -> Result<i64> {
        let rows: Vec<(i64, String, i64, f64)> =
            conn.query("SELECT id, name, population, area FROM places", ())?;
        assert_eq!(rows.len() as i64, ROWS);
        Ok(black_box(rows).iter().map(|row| row.2).sum())
    };
    let mut one = conn.prepare("SELECT name, population, area FROM places WHERE id = ?")?;
    let single = || -> Result<i64> {
        let mut total = 0;
        for i in 1..=LOOKUPS {
            let row: (String, i64, f64) = one.query_row((i * 7919 % ROWS + 1,), |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            total += black_box(row).1;
        }
        Ok(total)
    };
    Ok([timed(bulk)?, timed(single)?])
}

fn timed(mut work: impl FnMut() -> Result<i64>) -> Result<(i64, f64)> {
    let check = work()?;
    let mut samples = Samples::default();
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        work()?;
        samples.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok((check, samples.median()))
}

fn make(path: &Path) -> Result<()> {
    let mut conn = rusqlite::Connection::open(path)?;
    conn.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
         CREATE TABLE places(id INTEGER PRIMARY KEY, name TEXT, population INTEGER, area REAL);",
    )?;
    let transaction = conn.transaction()?;
    {
        let mut insert = transaction.prepare("INSERT INTO places VALUES (?, ?, ?, ?)")?;
        for id in 1..=ROWS {
            let (name, _, population, _) = crate::data::town(id);
            insert.execute((id, name, population, population as f64 / 7.0))?;
        }
    }
    transaction.commit()?;
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}
