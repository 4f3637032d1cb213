//! Asks before something is done that cannot be undone.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::error::CliError;

/// Asks on a terminal for the name of what is lost. Elsewhere nobody can be asked: `--yes` has to be given.
pub(crate) fn confirm(what: &str, name: &str) -> Result<(), CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::NotConfirmed);
    }
    eprintln!("This will {what}. It cannot be undone.");
    eprint!("Type {name} to go ahead: ");
    io::stderr().flush()?;
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed)?;
    match typed.trim() == name {
        true => Ok(()),
        false => Err(CliError::NotConfirmed),
    }
}
