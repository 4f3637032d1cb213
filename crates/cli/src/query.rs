//! `query`: runs statements on a replica and prints their rows.

use std::{
    io::{self, BufWriter, IsTerminal, Read, Write},
    time::{Duration, Instant},
};

use partial_sync::{Connection, Database, Stats};
use serde::Serialize;

use crate::{
    arguments::Query,
    error::CliError,
    interrupt, replica,
    rows::{JsonRows, Table},
    units::counted,
};

/// How long pages that are still streaming in are waited for at the end.
const SETTLE: Duration = Duration::from_secs(5);

/// What `--stats` prints: the counters of the database since it was opened, and the time the statements took.
#[derive(Serialize)]
struct QueryStats {
    #[serde(flatten)]
    stats: Stats,
    query_ms: f64,
}

pub(crate) fn run(arguments: Query) -> Result<(), CliError> {
    let sql = match arguments.sql.as_str() {
        "-" => {
            let mut sql = String::new();
            io::stdin().read_to_string(&mut sql)?;
            sql
        }
        _ => arguments.sql,
    };
    let database = replica::open_or_make(&arguments.replica, &arguments.remote, &arguments.partial)?;
    let connection = database.connection()?;
    let handle = connection.interrupt_handle();
    interrupt::on_ctrl_c(move || handle.interrupt());
    let began = Instant::now();
    let result = run_all(&connection, &sql, arguments.json);
    let query_ms = began.elapsed().as_secs_f64() * 1000.0;
    // What was fetched around the pages that the query read is kept for the next one.
    database.settle(SETTLE);
    if arguments.stats {
        print_stats(&database, query_ms)?;
    }
    result
}

fn run_all(connection: &Connection, sql: &str, json: bool) -> Result<(), CliError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let for_a_person = !json && io::stdout().is_terminal();
    let mut rest = sql;
    while !rest.is_empty() {
        let (statement, tail) = connection.prepare_first(rest)?;
        rest = &rest[tail..];
        let Some(mut statement) = statement else { continue };
        if statement.column_count() == 0 {
            let changed = statement.execute(())?;
            if for_a_person && changed > 0 {
                writeln!(out, "{} changed", counted(changed, "row"))?;
            }
            continue;
        }
        let names = statement.column_names()?;
        let mut rows = statement.query(())?;
        let mut count = 0;
        if json {
            let mut printed = JsonRows::begin(&mut out, &names)?;
            while let Some(row) = rows.next()? {
                printed.row(&row)?;
            }
            printed.end()?;
        } else {
            let mut table = Table::new(&mut out, &names);
            while let Some(row) = rows.next()? {
                table.row(&row)?;
                count += 1;
            }
            table.end()?;
        }
        if for_a_person {
            writeln!(out, "({})", counted(count, "row"))?;
        }
        out.flush()?;
    }
    Ok(out.flush()?)
}

fn print_stats(database: &Database, query_ms: f64) -> Result<(), CliError> {
    let stats = QueryStats {
        stats: database.stats()?,
        query_ms,
    };
    let mut out = io::stderr().lock();
    serde_json::to_writer(&mut out, &stats).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}
