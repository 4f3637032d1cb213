//! The `partial-sync` program: serves SQLite files as remotes, and opens, queries, syncs and looks into replicas of them.
//!
//! This file reads the arguments, runs one command and turns its error into text on stderr and an exit code: 1 when the
//! command failed, 2 when it was called wrongly. Everything else is in a file per command.
#![forbid(unsafe_code)]

mod arguments;
mod changes;
mod error;
mod hydrate;
mod inspect;
mod interrupt;
mod picture;
mod query;
mod replica;
mod rows;
mod secret;
mod serve;
mod sync;
mod token;
mod turso_shell;
mod units;
mod verify;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::{
    arguments::{Command, Program},
    error::CliError,
};

fn main() -> ExitCode {
    let program = Program::parse_from(turso_shell::translated(std::env::args_os().collect()));
    log_to_stderr(matches!(program.command, Command::Serve(_)));
    match run(program.command) {
        Ok(()) => ExitCode::SUCCESS,
        // Anyone who read our output has seen enough.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Query(arguments) => query::run(arguments),
        Command::Pull(arguments) => sync::pull(arguments),
        Command::Push(arguments) => sync::push(arguments),
        Command::Changes(arguments) => changes::list(&arguments),
        Command::Discard(arguments) => changes::discard(arguments),
        Command::Checkpoint(arguments) => sync::checkpoint(arguments),
        Command::Stats(arguments) => sync::stats(arguments),
        Command::Hydrate(arguments) => hydrate::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Token(command) => token::run(command),
    }
}

/// `RUST_LOG` says what is logged; without it, a server tells what it does and everything else only what goes wrong.
fn log_to_stderr(serves: bool) {
    let default = if serves { "info" } else { "error" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .init();
}
