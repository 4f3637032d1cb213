//! The command line of `admin`.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Subcommand};

use crate::units;

/// Administer a server that was started with --admin-listen.
#[derive(Args, Debug)]
pub(crate) struct Admin {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the databases
    List(List),
    /// Make an empty database
    Create(OnDatabase),
    /// Remove a database, with its revisions and all that is beside its file
    Delete(Delete),
    /// Copy a database to a new one, as it is or as it was, while others write
    Fork(Fork),
    /// Print the sizes of a database
    Stats(OnDatabase),
    /// List the revisions of a database that are kept
    Revisions(Revisions),
    /// Let go of the revisions of a database, all or those before one
    DropHistory(DropHistory),
    /// End what is open in a database or of a caller: transactions, long polls, answers that are being sent
    Kick(Kick),
}

/// Which server.
#[derive(Args, Debug)]
pub(crate) struct Server {
    /// Where the server listens for administration, like http://127.0.0.1:8081
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// A file with a token for administration. In the environment: PARTIAL_SYNC_ADMIN_TOKEN_FILE, or the token itself in
    /// PARTIAL_SYNC_ADMIN_TOKEN
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Longest wait for the server; a copy of a large database takes long
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = units::duration)]
    pub timeout: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    #[command(flatten)]
    pub server: Server,
}

#[derive(Args, Debug)]
pub(crate) struct OnDatabase {
    /// The name of the database: that of its file, without .db
    pub name: String,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub on: OnDatabase,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Fork {
    /// The database to copy
    pub name: String,
    /// The name of the copy
    pub to: String,
    /// As it was at this revision; `admin revisions` lists those that are kept
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// As it was at this time, like 2026-11-29T18:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "revision")]
    pub timestamp: Option<String>,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Args, Debug)]
pub(crate) struct Revisions {
    #[command(flatten)]
    pub on: OnDatabase,
    /// Only those before this one
    #[arg(long, value_name = "REVISION")]
    pub before: Option<String>,
    /// How many, the latest first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which").required(true))]
pub(crate) struct DropHistory {
    #[command(flatten)]
    pub on: OnDatabase,
    /// Those that are older than this one
    #[arg(long, value_name = "REVISION", group = "which")]
    pub before: Option<String>,
    /// All but the latest
    #[arg(long, group = "which")]
    pub all: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("whom").required(true))]
pub(crate) struct Kick {
    /// Everybody in this database
    #[arg(long, value_name = "NAME", group = "whom")]
    pub database: Option<String>,
    /// Who has tokens with this subject, or a token that has this name in a file of tokens
    #[arg(long, value_name = "NAME", group = "whom")]
    pub caller: Option<String>,
    /// Who comes from this address
    #[arg(long, value_name = "IP", group = "whom")]
    pub address: Option<IpAddr>,
    #[command(flatten)]
    pub server: Server,
}
