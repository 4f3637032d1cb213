//! `completions` and `man`: what shells and `man` want to know of the command line, made from its definition.

use std::io::Write as _;

use clap::CommandFactory as _;

use crate::{
    arguments::{Completions, Man, Program},
    error::CliError,
};

pub(crate) fn print(arguments: &Completions) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Program::command(),
        "partial-sync",
        &mut script,
    );
    // clap_complete 4.6 writes two names for the functions of a program with a `-` in its name.
    let script = String::from_utf8_lossy(&script).replace("partial__subcmd__sync", "partial__sync");
    std::io::stdout().write_all(script.as_bytes())?;
    Ok(())
}

pub(crate) fn write_manual(arguments: Man) -> Result<(), CliError> {
    clap_mangen::generate_to(Program::command(), &arguments.folder).map_err(|source| CliError::File {
        doing: "write the manual pages to",
        path: arguments.folder,
        source,
    })
}
