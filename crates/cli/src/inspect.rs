//! `inspect`: the page map of a replica as a picture, in the terminal or as a file, or as JSON.

use std::io::{self, IsTerminal, Write};

use console::Term;
use partial_sync::{Owner, PageAt, PageMapView};
use serde::Serialize;

use crate::{
    arguments,
    error::CliError,
    picture::{Style, draw, svg},
    replica,
};

/// Columns when the output is not a terminal.
const COLUMNS: u16 = 80;
/// More columns than this are not easier to read.
const MOST_COLUMNS: u16 = 110;

/// What `inspect --json` prints.
#[derive(Serialize)]
struct Summary<'m> {
    page_size: u32,
    revision: &'m str,
    pages_total: u32,
    present: u32,
    dirty: u32,
    absent: u32,
    owners: &'m [Owner],
    /// Absent pages that belong to nobody that is known.
    absent_unknown: u32,
}

pub(crate) fn run(arguments: arguments::Inspect) -> Result<(), CliError> {
    let database = replica::open(&arguments.on)?;
    let map = database.page_map()?;
    let title = arguments
        .on
        .replica
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut out = io::BufWriter::new(io::stdout().lock());
    if let Some(path) = &arguments.svg {
        std::fs::write(path, svg(&title, &map)).map_err(|source| CliError::File {
            doing: "write",
            path: path.clone(),
            source,
        })?;
    } else if !arguments.on.json {
        draw(&mut out, &title, &map, style(&arguments))?;
    }
    if arguments.on.json {
        serde_json::to_writer(&mut out, &summary(&map)).map_err(io::Error::from)?;
        writeln!(out)?;
    }
    Ok(out.flush()?)
}

fn summary(map: &PageMapView) -> Summary<'_> {
    Summary {
        page_size: map.page_size,
        revision: &map.revision,
        pages_total: map.total(),
        present: map.count(PageAt::Present),
        dirty: map.count(PageAt::Dirty),
        absent: map.count(PageAt::Absent),
        owners: &map.owners,
        absent_unknown: map.unowned(PageAt::Absent),
    }
}

/// Colour on a terminal, unless `NO_COLOR` says no; anywhere when `CLICOLOR_FORCE` says so.
fn style(arguments: &arguments::Inspect) -> Style {
    let is_set = |name| std::env::var_os(name).is_some_and(|value: std::ffi::OsString| !value.is_empty());
    let is_terminal = io::stdout().is_terminal();
    let columns = arguments.width.unwrap_or_else(|| match is_terminal {
        true => Term::stdout().size().1.min(MOST_COLUMNS),
        false => COLUMNS,
    });
    let forced = is_set("CLICOLOR_FORCE");
    Style {
        columns: columns.into(),
        rows: arguments.height.into(),
        brief: arguments.brief,
        colour: !is_set("NO_COLOR") && (is_terminal || forced),
    }
}
