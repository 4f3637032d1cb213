//! The `partial-sync` program: serves SQLite files as remotes, and opens, queries, syncs and looks into replicas of them.
//!
//! This file reads the arguments, runs one command and turns its error into text on stderr and an exit code: 1 when the
//! command failed, 2 when it was called wrongly. Everything else is in a file per command.
#![forbid(unsafe_code)]

mod admin;
mod arguments;
mod backup;
mod branch;
mod bucket;
mod changes;
mod compare;
mod completions;
mod config;
mod confirm;
mod error;
mod file_pages;
mod hydrate;
mod inspect;
mod interrupt;
mod log;
mod picture;
mod query;
mod replica;
mod restore;
mod rows;
mod secret;
mod serve;
mod stderr;
mod sync;
mod token;
mod turso_shell;
mod units;
mod verify;

use std::process::ExitCode;

use crate::{arguments::Command, error::CliError};

fn main() -> ExitCode {
    if let Err(error) = stderr::start(log::dropped) {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let code = run_program();
    stderr::finish();
    code
}

fn run_program() -> ExitCode {
    let program = match config::program(turso_shell::translated(std::env::args_os().collect())) {
        Ok(program) => program,
        Err(error) => return failed(&error, log::Format::Text),
    };
    let (serves, format) = match &program.command {
        Command::Serve(serve) => (true, serve.log_format),
        _ => (false, log::Format::Text),
    };
    log::start(serves, format);
    match run(program.command) {
        Ok(()) => ExitCode::SUCCESS,
        // Anyone who read our output has seen enough.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => failed(&error, format),
    }
}

fn failed(error: &CliError, format: log::Format) -> ExitCode {
    match format {
        log::Format::Text => {
            let told = error.told().join("\n  because: ");
            stderr::say(format!("error: {told}\n").as_bytes());
        }
        log::Format::Json => tracing::error!("{}", error.told().join("; because: ")),
    }
    ExitCode::from(error.exit_code())
}

fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Serve(arguments) => serve::run(*arguments),
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
        Command::Completions(arguments) => completions::print(&arguments),
        Command::Man(arguments) => completions::write_manual(arguments),
        Command::Admin(arguments) => admin::run(arguments),
        Command::Backup(arguments) => backup::run(&arguments),
        Command::Restore(arguments) => restore::run(&arguments),
        Command::Log(arguments) => bucket::log(&arguments),
        Command::Branch(arguments) => branch::branch(&arguments),
        Command::Branches(arguments) => branch::list(&arguments),
        Command::Detach(arguments) => branch::detach(&arguments),
    }
}
