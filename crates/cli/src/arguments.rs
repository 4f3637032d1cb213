//! The command line as clap reads it. Names and defaults here are what users type: they do not change.

pub(crate) mod admin;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    config::{file::File, tuning::Tuning},
    log::Format,
    units,
};
use admin::Admin;

/// Open and use a remote SQLite database without downloading it.
#[derive(Debug, Parser)]
#[command(name = "partial-sync", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Program {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  partial-sync serve app.db
  partial-sync query replica.db --url http://127.0.0.1:8080 --bootstrap-prefix 128k 'SELECT * FROM users WHERE id = 7'
  partial-sync inspect replica.db";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a SQLite file, or every *.db file of a folder, as a remote
    Serve(Box<Serve>),
    /// Run SQL on a replica, which is made first if it is not there
    Query(Query),
    /// Bring the remote's changes to a replica
    Pull(OnReplica),
    /// Send a replica's local changes to the remote
    Push(OnReplica),
    /// List the local changes of a replica that were not pushed
    Changes(OnReplica),
    /// Give up a local change, which a push or pull that failed has named
    Discard(Discard),
    /// Move what is in the WAL of a replica into its database file
    Checkpoint(OnReplica),
    /// Print counters and sizes of a replica
    Stats(OnReplica),
    /// Fetch the pages of a replica that are absent: all, or those that a query touches
    Hydrate(Hydrate),
    /// Draw which pages of a replica are here, by table and index
    Inspect(Inspect),
    /// Compare the pages of a replica with the remote's; or read every file of a database in a bucket and check it, and compare it with a
    /// database file
    Verify(Verify),
    /// Make keys and tokens for `serve`, and look into tokens
    #[command(subcommand)]
    Token(Token),
    /// Administer a server that was started with --admin-listen
    Admin(Admin),
    /// Write one state of a database into a file, while others write to it
    Backup(Backup),
    /// Put a backup, or a state of a bucket, in the place of a database, which a server may have open
    Restore(Restore),
    /// List the states of a database in a bucket that can be restored
    Log(BucketLog),
    /// Make a database in a bucket that begins with a state of another one there, without copying it
    Branch(Branch),
    /// List the branches of a database in a bucket that read its files
    Branches(Branches),
    /// Copy what a branch reads from the database that it is a branch of, so that it needs it no more
    Detach(Detach),
    /// Print what a shell needs to complete these commands
    Completions(Completions),
    /// Write the manual pages
    Man(Man),
}

#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell
    pub shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct Man {
    /// The folder to write them to
    pub folder: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a key that signs tokens, and beside it, in a file that ends in .pub, the public key that checks them
    Key(TokenKey),
    /// Sign a token and print it
    Create(TokenCreate),
    /// Print what a token says; its signature is not checked
    Show(TokenShow),
}

#[derive(Args, Debug)]
pub(crate) struct TokenKey {
    /// The file to make; it must not be there yet
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct TokenCreate {
    /// The key to sign with: an Ed25519 private key (PEM), or `hmac:` and a secret. In the environment: the key itself in
    /// PARTIAL_SYNC_SIGNING_KEY
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// How long the token is good, like 12h or 30d; or `never`: it does not expire
    #[arg(long, value_name = "TIME", value_parser = expiration)]
    pub expiration: Expiration,
    /// Only for this database: the name of its file, without .db; may be given several times. Without it, for all
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub database: Vec<String>,
    /// Only to read
    #[arg(long)]
    pub read_only: bool,
    /// Who it is for; tokens of one subject share what one caller may use of the server
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub subject: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct TokenShow {
    /// A file with the token; without it, or with `-`, the token comes from stdin
    pub file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How long a token is good.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expiration {
    Never,
    After(Duration),
}

/// Longer would be `never`, and what is added to a clock has an end.
const LONGEST_EXPIRATION: Duration = Duration::from_secs(100 * 366 * 86_400);

fn expiration(text: &str) -> Result<Expiration, String> {
    if text == "never" {
        return Ok(Expiration::Never);
    }
    match units::duration(text)? {
        time if time < Duration::from_secs(1) => Err("the token would be expired when it is made".to_owned()),
        time if time > LONGEST_EXPIRATION => Err("write `never` for more than 100 years".to_owned()),
        time => Ok(Expiration::After(time)),
    }
}

#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// The file (made if it is missing) or folder; without it, an empty database in memory
    pub path: Option<PathBuf>,
    /// A configuration file (TOML) with what is not given here; its keys are the names of these flags. In the environment:
    /// PARTIAL_SYNC_CONFIG
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the settings and all the files that they name, print the settings that are in effect, without secrets, and end
    #[arg(long)]
    pub check_config: bool,
    /// Address to listen on; port 0 = any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = units::address)]
    pub listen: String,
    /// Let in who sends this token, which others on this machine can read here; better is PARTIAL_SYNC_AUTH_TOKEN in the
    /// environment, or a file
    #[arg(long, value_name = "TOKEN")]
    pub auth_token: Option<String>,
    /// Let in who sends a token of this file; each line is TOKEN, `full TOKEN` or `read-only TOKEN`, and after that a name if
    /// one is wanted. SIGHUP reads it again. In the environment: PARTIAL_SYNC_AUTH_TOKEN_FILE
    #[arg(long, value_name = "FILE")]
    pub auth_token_file: Option<PathBuf>,
    /// Let in who sends a JWT signed with a key in this file, or in the files of this folder: Ed25519 public keys (PEM or
    /// base64url), `hmac:` and a secret, a JSON Web Key Set. SIGHUP reads them again. In the environment:
    /// PARTIAL_SYNC_AUTH_JWT_KEY_FILE, or the keys themselves in PARTIAL_SYNC_AUTH_JWT_KEY
    #[arg(long, value_name = "FILE", visible_alias = "auth-jwt-key-file")]
    pub auth_jwt_key: Option<PathBuf>,
    /// Listen beyond loopback without a token or key
    #[arg(long, conflicts_with_all = ["auth_token", "auth_token_file", "auth_jwt_key"])]
    pub allow_unauthenticated: bool,
    /// Let web pages of this origin (like https://app.example.org; * = of all) use the server; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    pub cors_origin: Vec<String>,
    /// Answer only requests for this name or one below it (and for localhost); may be given several times. Without it,
    /// any name is answered, or without a token or key on loopback, only localhost
    #[arg(long, value_name = "NAME")]
    pub allowed_host: Vec<String>,
    /// Believe a proxy of this address or network (like 10.0.0.0/8) when it says in X-Forwarded-For for whom it asks; may be given several
    /// times. In the environment, with commas between: PARTIAL_SYNC_TRUSTED_PROXY
    #[arg(long, value_name = "ADDR")]
    pub trusted_proxy: Vec<String>,
    /// Serve https with this certificate chain (PEM); SIGHUP reads it and its key again
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// How long old pages are kept for replicas that are behind
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = units::duration)]
    pub retain: Duration,
    /// How many bytes of old pages are kept for each database
    #[arg(long, value_name = "SIZE", default_value = "1g", value_parser = units::bytes)]
    pub retain_bytes: u64,
    /// Put every commit into object storage too, at s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or file:///FOLDER; each
    /// database of a folder at its name below that. Credentials are taken from the environment, as the stores' own programs do
    #[arg(long, value_name = "URL", requires = "path", group = "bucket")]
    pub replicate: Option<String>,
    /// Answer a commit when it is on the disk here, before it is in the bucket
    #[arg(long, requires = "replicate")]
    pub replicate_async: bool,
    /// Be the writer of the database which is in the bucket, no matter who is it now: the server that wrote it before stops. With --replicate, where
    /// there is no file yet, it is made first; with --from there is none, and needs none
    #[arg(long, requires = "bucket")]
    pub take_over: bool,
    /// With --from: be the writer of a database as soon as its writer has not answered for so long
    #[arg(long, value_name = "TIME", value_parser = units::duration, requires_all = ["from", "public_url"], conflicts_with = "take_over")]
    pub take_over_after: Option<Duration>,
    /// The url of this server, for those who read from the bucket and have something to write
    #[arg(long, value_name = "URL", requires = "bucket")]
    pub public_url: Option<String>,
    /// Serve what is at this url, without a file: in object storage, or what another remote has (https://, http://, libsql://). Pages come
    /// from there, SQL goes to the server that writes it. One database, or each one below it by its name
    #[arg(long, value_name = "URL", group = "bucket", conflicts_with_all = ["path", "replicate", "admin_listen"])]
    pub from: Option<String>,
    /// A file with the token for the remote of --from, with which this server reads for all its clients. In the environment:
    /// PARTIAL_SYNC_ORIGIN_TOKEN_FILE, or the token itself in PARTIAL_SYNC_ORIGIN_TOKEN
    #[arg(long, value_name = "FILE", requires = "from")]
    pub origin_token_file: Option<PathBuf>,
    /// Keep what was read from there in this folder, over restarts; other servers of a bucket may have the same one
    #[arg(long, value_name = "FOLDER", requires = "from")]
    pub cache: Option<PathBuf>,
    /// How many bytes
    #[arg(long, value_name = "SIZE", default_value = "1g", value_parser = units::bytes)]
    pub cache_bytes: u64,
    /// How much memory SQLite may have, all databases together; a value that is written takes two to three times its size
    #[arg(long, value_name = "SIZE", default_value = "256m", value_parser = units::bytes)]
    pub sqlite_memory: u64,
    /// How many bytes the temporary files of sorting and grouping may have together
    #[arg(long, value_name = "SIZE", default_value = "1g", value_parser = units::bytes)]
    pub temp_space: u64,
    /// How many databases of a folder are open at a time; those that nobody uses are closed
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub open_databases: usize,
    /// Longest long poll, whatever a client asks for
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = units::duration)]
    pub longest_poll: Duration,
    /// How the log is written, on stderr. RUST_LOG says what is in it; `info` if it is not set
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub log_format: Format,
    /// Tell the log of each request: method, path, database, status, bytes, time, caller and address, and no secret
    #[arg(long)]
    pub log_requests: bool,
    /// Address to listen on for administration (`partial-sync admin`), with tokens of its own
    #[arg(long, value_name = "ADDR", value_parser = units::address)]
    pub admin_listen: Option<String>,
    /// Let administer who sends a token of this file, which has the form of that of --auth-token-file; with a `read-only` one, only
    /// look. SIGHUP reads it again. In the environment: PARTIAL_SYNC_ADMIN_TOKEN_FILE, or a token itself in
    /// PARTIAL_SYNC_ADMIN_TOKEN
    #[arg(long, value_name = "FILE", requires = "admin_listen")]
    pub admin_token_file: Option<PathBuf>,
    #[arg(skip)]
    pub configured: Configured,
}

/// What is known of the settings of `serve` beyond what its flags say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configured {
    /// The limits of the configuration file.
    pub tuning: Tuning,
    /// To be told when there is a log.
    pub warnings: Vec<String>,
    /// The settings in effect, as a configuration file would set them.
    pub effective: String,
    /// The configuration file as it was read.
    pub file: Option<Arc<File>>,
    /// How each setting that was given was written: its flag, its line in the file, or its variable.
    pub written: Vec<(String, String)>,
}

impl Configured {
    /// How a setting was written.
    pub(crate) fn written(&self, key: &str) -> String {
        let found = self.written.iter().find(|(name, _)| name == key);
        found.map_or_else(|| format!("--{key}"), |(_, written)| written.clone())
    }
}

/// Which replica, and where its remote is.
#[derive(Args, Debug)]
pub(crate) struct OnReplica {
    /// The replica's database file
    pub replica: PathBuf,
    #[command(flatten)]
    pub remote: Remote,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Remote {
    /// The remote: libsql://, https:// or http://; or the bucket that it is in: s3://, gs://, az:// or file://. A replica that is here
    /// remembers its own
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Continue with the remote at --url though the replica was made from another one: its database has moved there
    #[arg(long)]
    pub accept_new_url: bool,
    #[command(flatten)]
    pub bearer: Bearer,
    /// Longest wait for the remote
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    pub timeout: Duration,
}

/// The token that a client sends.
#[derive(Args, Debug)]
pub(crate) struct Bearer {
    /// The bearer token, which others on this machine can read here; better is PARTIAL_SYNC_AUTH_TOKEN in the environment, or
    /// a file
    #[arg(long, value_name = "TOKEN")]
    pub auth_token: Option<String>,
    /// A file with the bearer token. In the environment: PARTIAL_SYNC_AUTH_TOKEN_FILE
    #[arg(long, value_name = "FILE", conflicts_with = "auth_token")]
    pub auth_token_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Backup {
    /// The url of the database, for which a token that may only read is enough, or its file, also one that a server has open
    pub source: String,
    /// The file to write
    pub output: PathBuf,
    /// The revision to write, if it is still kept; without it, the latest. Only of a url
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
    /// Do not check the file when it is written (`PRAGMA quick_check`)
    #[arg(long)]
    pub no_check: bool,
    #[command(flatten)]
    pub bearer: Bearer,
    /// Longest silence of the server
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    pub timeout: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The backup: a whole SQLite database; or the url of a bucket: s3://, gs://, az:// or file://
    pub backup: PathBuf,
    /// The database file to replace, or to make
    pub database: PathBuf,
    /// Which state of a bucket: an id as `log` prints it, or the last one at a time like 2026-11-30T17:30:00Z; without it, the latest
    #[arg(long, value_name = "TIME|ID", value_parser = units::at)]
    pub at: Option<units::At>,
    /// Do not ask before it is replaced
    #[arg(long)]
    pub yes: bool,
    /// Longest wait for the server that has the database open
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    pub timeout: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct BucketLog {
    /// The url of the bucket: s3://, gs://, az:// or file://
    pub url: String,
    /// So many, the newest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Branch {
    /// The url of the database in a bucket
    pub url: String,
    /// The url of the branch, where nothing is yet
    pub new_url: String,
    /// With which state it begins: an id as `log` prints it, or the last one at a time like 2026-11-30T17:30:00Z; without it, the latest
    #[arg(long, value_name = "TIME|ID", value_parser = units::at)]
    pub at: Option<units::At>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Branches {
    /// The url of the database in a bucket
    pub url: String,
    /// Keep no files any more for those that are gone or need none
    #[arg(long)]
    pub prune: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Detach {
    /// The url of the branch
    pub url: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub on: OnReplica,
    /// Of the url of a bucket: the database file to compare its latest state with, which a server may have open
    pub file: Option<PathBuf>,
}

/// How a replica that is not here yet is made. With none of these, it is downloaded as a whole.
#[derive(Args, Debug, Default)]
pub(crate) struct Partial {
    /// Make a partial replica with the first N bytes of the database (like 128k)
    #[arg(long, value_name = "N", value_parser = units::bytes, conflicts_with = "bootstrap_query")]
    pub bootstrap_prefix: Option<u64>,
    /// Make a partial replica with the pages that this SELECT touches
    #[arg(long, value_name = "SQL")]
    pub bootstrap_query: Option<String>,
    /// Bytes that are fetched around an absent page; 128k if not given
    #[arg(long, value_name = "N", value_parser = units::bytes)]
    pub segment_size: Option<u64>,
    /// Fetch along what the query is expected to need next; `--prefetch=false`: send no statement, fetch segments alone
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub prefetch: Option<bool>,
}

#[derive(Args, Debug)]
pub(crate) struct Query {
    /// The replica's database file
    pub replica: PathBuf,
    /// One or more statements; `-` reads them from stdin
    pub sql: String,
    #[command(flatten)]
    pub remote: Remote,
    #[command(flatten)]
    pub partial: Partial,
    /// Print the rows of each statement as a JSON array of objects
    #[arg(long)]
    pub json: bool,
    /// Print what it took as JSON on stderr
    #[arg(long)]
    pub stats: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Discard {
    /// The replica's database file
    pub replica: PathBuf,
    /// The number of the change
    pub change: i64,
    #[command(flatten)]
    pub remote: Remote,
    /// Also give up the later changes that cannot stay without it
    #[arg(long)]
    pub with_dependents: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Hydrate {
    #[command(flatten)]
    pub on: OnReplica,
    /// Fetch only the pages that this SELECT touches
    #[arg(long, value_name = "SQL")]
    pub query: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub on: OnReplica,
    /// Write the picture to this file as SVG instead of drawing it
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Columns of the picture; what fits the terminal if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(40..=400))]
    pub width: Option<u16>,
    /// Most rows of the picture
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub height: u16,
    /// Draw the grid alone, without counts, legend, tables and indexes
    #[arg(long)]
    pub brief: bool,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use partial_sync::options::{ALL, REQUEST_TIMEOUT};

    use super::{Command, Program};

    #[test]
    fn the_program_has_the_options_and_defaults_of_the_table() {
        let program = Program::command();
        let query = program.find_subcommand("query").unwrap();
        for name in ALL.iter().flat_map(|option| option.program) {
            let is_there = query
                .get_arguments()
                .any(|argument| match name.strip_prefix("--") {
                    Some(long) => argument.get_long() == Some(long),
                    None => argument.get_id() == name.to_lowercase().as_str(),
                });
            assert!(is_there, "{name}");
        }
        let given = Program::try_parse_from(["partial-sync", "query", "a.db", "SELECT 1"]).unwrap();
        let Command::Query(query) = given.command else {
            panic!("{given:?}")
        };
        let timeout = query.remote.timeout.as_millis();
        assert_eq!(timeout, u128::from(REQUEST_TIMEOUT.default_number()));
    }
}
