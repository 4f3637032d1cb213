//! `hydrate`: fetches what is absent, with a progress bar when a person watches.

use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{arguments, error::CliError, interrupt, replica, units::counted};

pub(crate) fn run(arguments: arguments::Hydrate) -> Result<(), CliError> {
    let database = replica::open(&arguments.on)?;
    let cancel = database.cancel_handle()?;
    interrupt::on_ctrl_c(move || cancel.cancel());
    let bar = bar(arguments.query.is_none());
    let result = match &arguments.query {
        None => database.hydrate(|at| {
            bar.set_length(at.total.into());
            bar.set_position(at.fetched.into());
        }),
        Some(sql) => database.hydrate_query(sql, |at| bar.set_position(at.fetched.into())),
    };
    bar.finish_and_clear();
    let done = result?;
    let mut out = io::stdout().lock();
    if arguments.on.json {
        serde_json::to_writer(&mut out, &done).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        let left = match done.absent {
            0 => "every page is here".to_owned(),
            n => format!("{} still absent", counted(n.into(), "page")),
        };
        writeln!(out, "fetched {}; {left}", counted(done.fetched.into(), "page"))?;
    }
    Ok(())
}

/// A bar on stderr, which draws nothing unless that is a terminal.
pub(crate) fn bar(knows_its_end: bool) -> ProgressBar {
    let template = match knows_its_end {
        true => "{bar:40} {human_pos} of {human_len} pages, {eta} left",
        false => "{spinner} {human_pos} pages",
    };
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("█▌░"));
    }
    bar
}
