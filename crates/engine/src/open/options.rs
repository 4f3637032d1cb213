//! What a replica is opened with.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use partial_sync_transport::{AuthToken, HttpClient, Remote};
use partial_sync_vfs::Storage;
use serde::{Deserialize, Serialize};

use crate::{
    change::transform::TransformFn,
    error::Result,
    options::{self, Given, Language, OptionSpec},
    runtime::CancelHandle,
};

/// How long a page is waited for when nothing else is said.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_millis(options::REQUEST_TIMEOUT.default_number());

/// Long enough to mean forever, short enough to be added to a clock.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What is local right after the first connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Bootstrap {
    /// The first `length` bytes of the database file; at least one page.
    Prefix {
        /// Bytes.
        length: u64,
    },
    /// The pages that a `SELECT` touches. The remote runs it, and where that is a bucket, the replica.
    Query {
        /// The SQL.
        query: String,
    },
}

impl Bootstrap {
    /// The first `length` bytes.
    pub fn prefix(length: u64) -> Self {
        Self::Prefix { length }
    }

    /// What a query touches.
    pub fn query(sql: impl Into<String>) -> Self {
        Self::Query { query: sql.into() }
    }
}

/// Partial sync: what to fetch at connect and how to fetch the rest later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartialSync {
    /// What to fetch at connect; `None` = only page 1, without which nothing can be opened.
    pub bootstrap: Option<Bootstrap>,
    /// How many bytes around an absent page are fetched with it. Default: 128 KiB.
    pub segment_size: Option<u64>,
    /// `None`, the default: where the remote can, a SELECT that misses a page is sent along, its values included, and the pages that
    /// it touches come with the answer. `true`: pages that a query is expected to want next are fetched too. `false`: only segments.
    pub prefetch: Option<bool>,
}

/// Everything that can be set before [`Builder::connect`].
#[derive(Clone)]
pub struct Builder {
    pub(crate) path: PathBuf,
    pub(crate) url: Option<partial_sync_transport::UrlSource>,
    pub(crate) remote: Option<Arc<dyn Remote>>,
    pub(crate) token: Option<AuthToken>,
    pub(crate) encryption: Option<(String, Option<String>)>,
    pub(crate) client: Option<Arc<dyn HttpClient>>,
    pub(crate) client_name: String,
    pub(crate) partial: Option<PartialSync>,
    pub(crate) bootstrap_if_empty: bool,
    pub(crate) accept_new_url: bool,
    pub(crate) timeout: Duration,
    pub(crate) busy_timeout: Duration,
    pub(crate) long_poll: Option<Duration>,
    pub(crate) transform: Option<Arc<TransformFn>>,
    pub(crate) push_threshold: Option<usize>,
    pub(crate) pull_threshold: Option<u64>,
    pub(crate) storage: Option<Arc<dyn Storage>>,
    pub(crate) seed: Option<u64>,
    pub(crate) longest_question: usize,
    pub(crate) shared_memory: bool,
    pub(crate) cancel: CancelHandle,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("path", &self.path)
            .field("partial", &self.partial)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            url: None,
            remote: None,
            token: None,
            encryption: None,
            client: None,
            client_name: Language::Rust.client_name().into(),
            partial: None,
            bootstrap_if_empty: options::BOOTSTRAP_IF_EMPTY.default_flag(),
            accept_new_url: options::ACCEPT_NEW_URL.default_flag(),
            timeout: DEFAULT_TIMEOUT,
            busy_timeout: Duration::from_millis(options::BUSY_TIMEOUT.default_number()),
            long_poll: None,
            transform: None,
            push_threshold: None,
            pull_threshold: None,
            storage: None,
            seed: None,
            longest_question: 1024,
            shared_memory: false,
            cancel: CancelHandle::default(),
        }
    }

    /// The remote database: `libsql://`, `turso://`, `https://` or `http://`, with a path where the remote has one; with the feature
    /// `object-storage` a bucket: `s3://`, `gs://`, `az://` or `file://`, from which pages come and where nothing is pushed; or a
    /// function that is asked before each request and may answer `None` while sync is paused (then nothing is fetched,
    /// pulled or pushed; see also [`bootstrap_if_empty`](Self::bootstrap_if_empty)). Without a remote the
    /// database is a plain local one, or, where a replica is at the path, that replica with the url that it knows. Opening
    /// a replica that is here asks the remote for nothing.
    pub fn remote(mut self, url: impl Into<partial_sync_transport::UrlSource>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// A remote of your own making: a decorator, or one in memory.
    pub fn remote_with(mut self, remote: Arc<dyn Remote>) -> Self {
        self.remote = Some(remote);
        self
    }

    /// The bearer token, or an async function that is asked before each request.
    pub fn auth_token(mut self, token: impl Into<AuthToken>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Key and cipher of a remote that encrypts, sent as headers.
    pub fn remote_encryption(mut self, key: impl Into<String>, cipher: Option<String>) -> Self {
        self.encryption = Some((key.into(), cipher));
        self
    }

    /// The HTTP client that every request goes through.
    pub fn http_client(mut self, client: Arc<dyn HttpClient>) -> Self {
        self.client = Some(client);
        self
    }

    /// How this client is called on the remote; a random part is added.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = name.into();
        self
    }

    /// Partial sync. Without it the first connect downloads everything.
    pub fn partial(mut self, partial: PartialSync) -> Self {
        self.partial = Some(partial);
        self
    }

    /// Whether the first connect, which finds no replica at the path, fetches from the remote. Without it that connect asks
    /// the remote for nothing: the replica begins as an empty database, writes work, and the first pull brings what the
    /// first connect would have brought, with local changes on top. It begins so too while the url function gives no url.
    /// Default: yes.
    pub fn bootstrap_if_empty(mut self, wanted: bool) -> Self {
        self.bootstrap_if_empty = wanted;
        self
    }

    /// Whether a replica that is here may continue with another remote than it was made from: its database has moved to a new
    /// url, or was restored from a backup at the old one. Without it such a url is refused, for mixing two databases would
    /// damage the replica. With it, pages that are not here can be read again after the next pull, which downloads what is
    /// here again; changes that were not pushed stay and can be pushed. Default: no.
    pub fn accept_new_url(mut self, accepted: bool) -> Self {
        self.accept_new_url = accepted;
        self
    }

    /// How long a query waits for an absent page, and a request for the beginning and each next piece of its answer. It is
    /// also how far an answer may fall behind 4 KiB a second: a large download may take as long as it needs, one that only
    /// drips is given up. Pulls, pushes and checkpoints wait so long for each other. Default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(FOREVER);
        self
    }

    /// How long a statement waits for another connection's write lock. Default: 5 s.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// How long a pull lets the remote wait for a change. Default: not at all.
    pub fn long_poll(mut self, timeout: Duration) -> Self {
        self.long_poll = Some(timeout);
        self
    }

    /// Rewrites or skips changes before they are pushed and before they are put back by a pull.
    ///
    /// It is asked about every row that is written, each by itself: the statement's own rows and, where those are sent (to this
    /// project's server, and by a pull), those that triggers and foreign-key actions wrote for them. Skipping a row leaves
    /// those in; skip them, too, where they must not arrive without it. A statement that takes a change's place fires no
    /// triggers there. The entry of a full-text index with external content follows its row.
    pub fn transform(mut self, transform: Arc<TransformFn>) -> Self {
        self.transform = Some(transform);
        self
    }

    /// Most changes in one push request; a local transaction is never split. Default: 10000.
    pub fn push_operations_threshold(mut self, changes: usize) -> Self {
        self.push_threshold = Some(changes);
        self
    }

    /// Bootstraps everything in requests of about this many bytes. Default: one request.
    pub fn pull_bytes_threshold(mut self, bytes: u64) -> Self {
        self.pull_threshold = Some(bytes);
        self
    }

    /// Where the replica's files are; for tests that stop the world.
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = Some(storage);
        self
    }

    /// Seed of the random choices (client id, retry jitter); for tests.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How many runs of pages that follow each other a request may name as those that are here; of more, a remote that can is
    /// asked first which matter. For tests.
    #[doc(hidden)]
    pub fn longest_question(mut self, runs: usize) -> Self {
        self.longest_question = runs;
        self
    }

    /// Connections to a plain `:memory:` database see one database (of at most 1 GiB), not one each.
    pub fn share_memory(mut self) -> Self {
        self.shared_memory = true;
        self
    }

    /// A handle that breaks the network waits of this database, those of the first connect included.
    pub fn cancel_handle(mut self, handle: CancelHandle) -> Self {
        self.cancel = handle;
        self
    }

    /// Holds what was given against the table of options.
    pub(crate) fn check(&self) -> Result<()> {
        let number = |option: OptionSpec, name, value: Option<u64>| {
            let check = |value: u64| option.check(Language::Rust, name, Given::Whole(value.into()), value);
            value.map_or(Ok(()), check)
        };
        let text = |option: OptionSpec, name, value: Option<&str>| {
            let check = |value: &str| {
                option.check(
                    Language::Rust,
                    name,
                    Given::Text(value),
                    format_args!("{value:?}"),
                )
            };
            value.map_or(Ok(()), check)
        };
        if let Some(partial) = &self.partial {
            number(options::SEGMENT_SIZE, "segment_size", partial.segment_size)?;
            if let Some(Bootstrap::Query { query }) = &partial.bootstrap {
                text(options::BOOTSTRAP_QUERY, "Bootstrap::query", Some(query))?;
            }
        }
        let threshold = self.push_threshold.map(|changes| changes as u64);
        number(
            options::PUSH_OPERATIONS_THRESHOLD,
            "push_operations_threshold",
            threshold,
        )?;
        number(
            options::PULL_BYTES_THRESHOLD,
            "pull_bytes_threshold",
            self.pull_threshold,
        )?;
        text(options::CLIENT_NAME, "client_name", Some(&self.client_name))?;
        if let Some((key, cipher)) = &self.encryption {
            text(options::REMOTE_ENCRYPTION_KEY, "remote_encryption", Some(key))?;
            text(
                options::REMOTE_ENCRYPTION_CIPHER,
                "remote_encryption",
                cipher.as_deref(),
            )?;
        }
        Ok(())
    }
}
