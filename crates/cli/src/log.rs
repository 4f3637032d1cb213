//! The log, on stderr: as text or as JSON, and each event in one line, whatever is in it.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal as _, Write},
};

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::stderr;

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// An object of JSON
    Json,
}

/// `RUST_LOG` says what is logged; without it, a server tells what it does and everything else only what goes wrong.
pub(crate) fn start(serves: bool, format: Format) {
    let default = if serves { "info" } else { "error" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(OneLine);
    match format {
        Format::Text => log
            .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .with_target(false)
            .init(),
        Format::Json => {
            log.json().flatten_event(true).with_span_list(false).init();
        }
    }
    if serves {
        std::panic::set_hook(Box::new(|panic| {
            let backtrace = Backtrace::capture();
            let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
            let backtrace = backtrace.map(tracing::field::display);
            tracing::error!(%panic, backtrace, "a thread panicked");
        }));
    }
}

/// Tells of lines that are not there.
pub(crate) fn dropped(lines: u64) {
    tracing::warn!(
        lines,
        "lines of the log were dropped, because nobody read them in time"
    );
}

/// stderr, to which each event goes as a whole. A line break within one is not what it seems: text that somebody chose could look
/// like an event of its own.
#[derive(Clone, Copy)]
struct OneLine;

impl MakeWriter<'_> for OneLine {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

impl Write for OneLine {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        stderr::say(&in_one_line(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn in_one_line(event: &[u8]) -> Vec<u8> {
    let text = event.strip_suffix(b"\n").unwrap_or(event);
    let mut line = Vec::with_capacity(event.len());
    for byte in text {
        match byte {
            b'\n' => line.extend(b"\\n"),
            b'\r' => line.extend(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(in_one_line(b"a\nERROR b\r\n"), b"a\\nERROR b\\r\n");
        assert_eq!(in_one_line(b"a\n"), b"a\n");
        assert_eq!(in_one_line(b""), b"\n");
    }
}
