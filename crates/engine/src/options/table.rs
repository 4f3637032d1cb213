//! The table. docs/options.md is made from it: `UPDATE_DOCS=1 cargo test -p partial-sync --lib options`.

use super::spec::{Default, ENDLESS, OptionSpec, Takes};

/// Of an option that no language has.
const NOWHERE: OptionSpec = OptionSpec {
    name: "",
    text: "",
    takes: Takes::Text,
    default: Default::None,
    node: &[],
    python: &[],
    go: &[],
    c: &[],
    rust: &[],
    program: &[],
};

macro_rules! options {
    ($($(#[doc = $text:literal])+ $option:ident = $name:literal { $($field:ident: $value:expr),+ $(,)? })+) => {
        $(
            $(#[doc = $text])+
            // One option is spelled in every place.
            #[allow(clippy::needless_update)]
            pub const $option: OptionSpec = OptionSpec {
                name: $name,
                text: concat!($($text),+),
                $($field: $value,)+
                ..NOWHERE
            };
        )+

        /// Every option, in the order of the documentation.
        pub static ALL: &[OptionSpec] = &[$($option,)+];
    };
}

options! {
    /// File of the database or replica; `:memory:` leaves no file.
    PATH = "path" {
        takes: Takes::Text, default: Default::Required,
        node: &["path"], python: &["path", "database"], go: &["Path"], c: &["path"],
        rust: &["Database::builder"], program: &["REPLICA"],
    }
    /// The remote: `libsql://`, `turso://`, `https://` or `http://`; built with `object-storage`, also a bucket: `s3://`, `gs://`, `az://` or `file://`. A function is asked before each request; nothing pauses sync.
    REMOTE_URL = "remote_url" {
        takes: Takes::TextOrFunction, default: Default::Words("a plain local database, or the url that the replica at the path knows"),
        node: &["url"], python: &["remote_url"], go: &["RemoteUrl", "RemoteUrlFunction"],
        c: &["url", "url_function"],
        rust: &["remote"], program: &["--url"],
    }
    /// Name of the database on a remote that serves several.
    NAMESPACE = "namespace" { takes: Takes::Own("letters, digits, '-', '_' and '.'"), go: &["Namespace"] }
    /// The bearer token. A function is asked before each request.
    REMOTE_AUTH_TOKEN = "remote_auth_token" {
        takes: Takes::AnyTextOrFunction,
        node: &["authToken"], python: &["remote_auth_token", "auth_token"],
        go: &["RemoteAuthToken", "AuthToken", "RemoteAuthTokenFunction"], c: &["auth_token", "token_function"],
        rust: &["auth_token"], program: &["--auth-token", "--auth-token-file"],
    }
    /// Partial sync, whose options follow. Without it the first connect downloads everything.
    PARTIAL_SYNC = "partial_sync" {
        takes: Takes::Group,
        node: &["partialSyncExperimental"], python: &["partial_sync_opts", "partial_sync_experimental"],
        go: &["PartialSyncConfig", "PartialSyncExperimental"], rust: &["partial"],
    }
    /// What to fetch at the first connect: one of the next two.
    BOOTSTRAP = "bootstrap" {
        takes: Takes::Group, default: Default::Words("page 1"),
        node: &["partialSyncExperimental.bootstrapStrategy"], python: &["PartialSyncOpts.bootstrap_strategy"],
        rust: &["PartialSync.bootstrap"],
    }
    /// Which of the two it is.
    BOOTSTRAP_KIND = "bootstrap_kind" {
        takes: Takes::OneOf(&["prefix", "query"]), default: Default::Required,
        node: &["partialSyncExperimental.bootstrapStrategy.kind"],
    }
    /// Bytes from the beginning of the database to fetch at the first connect; at least one page.
    BOOTSTRAP_PREFIX = "bootstrap_prefix" {
        takes: Takes::Whole { least: 0, most: ENDLESS, unit: "bytes" },
        node: &["partialSyncExperimental.bootstrapStrategy.length"], python: &["PartialSyncPrefixBootstrap.length"],
        go: &["PartialSyncConfig.BoostrapStrategyPrefix", "PartialSyncConfig.BootstrapStrategyPrefix",
            "PartialSyncExperimental.BoostrapStrategyPrefix", "PartialSyncExperimental.BootstrapStrategyPrefix"],
        c: &["bootstrap_prefix"], rust: &["Bootstrap::prefix"], program: &["--bootstrap-prefix"],
    }
    /// A SELECT, which the remote runs, or the replica where that is a bucket: the pages that it touches are fetched at the first connect.
    BOOTSTRAP_QUERY = "bootstrap_query" {
        takes: Takes::Text,
        node: &["partialSyncExperimental.bootstrapStrategy.query"], python: &["PartialSyncQueryBootstrap.query"],
        go: &["PartialSyncConfig.BoostrapStrategyQuery", "PartialSyncConfig.BootstrapStrategyQuery",
            "PartialSyncExperimental.BoostrapStrategyQuery", "PartialSyncExperimental.BootstrapStrategyQuery"],
        c: &["bootstrap_query"], rust: &["Bootstrap::query"], program: &["--bootstrap-query"],
    }
    /// Bytes that are fetched around an absent page, rounded down to whole pages.
    SEGMENT_SIZE = "segment_size" {
        takes: Takes::Whole { least: 1, most: 64 << 20, unit: "bytes" }, default: Default::Number(128 << 10),
        node: &["partialSyncExperimental.segmentSize"], python: &["PartialSyncOpts.segment_size"],
        go: &["PartialSyncConfig.SegmentSize", "PartialSyncExperimental.SegmentSize"], c: &["segment_size"],
        rust: &["PartialSync.segment_size"], program: &["--segment-size"],
    }
    /// What comes along with an absent page. Not given: its segment and, where the remote can, what the SELECT that misses it touches:
    /// the statement is sent, with its values. True: pages that a query is expected to want next too. False: its segment alone.
    PREFETCH = "prefetch" {
        takes: Takes::Flag, default: Default::Words("what the SELECT touches"),
        node: &["partialSyncExperimental.prefetch"], python: &["PartialSyncOpts.prefetch"],
        go: &["PartialSyncConfig.Prefetch", "PartialSyncExperimental.Prefetch",
            "PartialSyncConfig.DisablePrefetch", "PartialSyncExperimental.DisablePrefetch"], c: &["prefetch"],
        rust: &["PartialSync.prefetch"], program: &["--prefetch"],
    }
    /// Whether the first connect fetches from the remote. If not, the replica begins empty, and the first pull fills it.
    BOOTSTRAP_IF_EMPTY = "bootstrap_if_empty" {
        takes: Takes::Flag, default: Default::Flag(true),
        node: &["bootstrapIfEmpty"], python: &["bootstrap_if_empty"], go: &["BootstrapIfEmpty"],
        c: &["bootstrap_if_empty"], rust: &["bootstrap_if_empty"],
    }
    /// Whether the replica may continue with another remote than it was made from, because its database has moved or was restored.
    ACCEPT_NEW_URL = "accept_new_url" {
        takes: Takes::Flag, default: Default::Flag(false),
        node: &["acceptNewUrl"], python: &["accept_new_url"], go: &["AcceptNewUrl"], c: &["accept_new_url"],
        rust: &["accept_new_url"], program: &["--accept-new-url"],
    }
    /// Part of the client's id on the remote.
    CLIENT_NAME = "client_name" {
        takes: Takes::Text, default: Default::Words("`turso-sync-js`, `turso-sync-py`, `turso-sync-go`, `partial-sync`"),
        node: &["clientName"], python: &["client_name"], go: &["ClientName"], c: &["client_name"],
        rust: &["client_name"],
    }
    /// How long a query waits for a page, and a request for each next piece of its answer.
    REQUEST_TIMEOUT = "request_timeout" {
        takes: Takes::Time { most: ENDLESS }, default: Default::Number(30_000),
        node: &["requestTimeoutMs"], python: &["request_timeout"], go: &["RequestTimeoutMs"], c: &["timeout_ms"],
        rust: &["timeout"], program: &["--timeout"],
    }
    /// How long a statement waits for another connection's lock.
    BUSY_TIMEOUT = "busy_timeout" {
        takes: Takes::Time { most: i32::MAX as u64 }, default: Default::Number(5000),
        node: &["timeout"], python: &["timeout"], go: &["BusyTimeout", "?_busy_timeout"], c: &["busy_timeout_ms"],
        rust: &["busy_timeout"],
    }
    /// How long a pull lets the remote wait for a change.
    LONG_POLL_TIMEOUT = "long_poll_timeout" {
        takes: Takes::Time { most: ENDLESS }, default: Default::Number(0),
        node: &["longPollTimeoutMs"], python: &["long_poll_timeout_ms"], go: &["LongPollTimeoutMs"],
        c: &["long_poll_ms"], rust: &["long_poll"],
    }
    /// How long a query may take, network included.
    QUERY_TIMEOUT = "query_timeout" {
        takes: Takes::Time { most: u32::MAX as u64 }, default: Default::Words("no limit"),
        node: &["queryTimeout"], python: &["set_query_timeout.milliseconds"],
        go: &["QueryTimeoutMs", "?_query_timeout"], c: &["query_timeout_ms"],
    }
    /// Most changes in one push request; a transaction is never split.
    PUSH_OPERATIONS_THRESHOLD = "push_operations_threshold" {
        takes: Takes::Whole { least: 1, most: ENDLESS, unit: "changes" }, default: Default::Number(10_000),
        node: &["pushOperationsThreshold"], python: &["push_operations_threshold"], go: &["PushOperationsThreshold"],
        c: &["push_operations_threshold"], rust: &["push_operations_threshold"],
    }
    /// A full bootstrap is fetched in requests of about this many bytes.
    PULL_BYTES_THRESHOLD = "pull_bytes_threshold" {
        takes: Takes::Whole { least: 1, most: ENDLESS, unit: "bytes" }, default: Default::Words("one request"),
        node: &["pullBytesThreshold"], python: &["pull_bytes_threshold"], go: &["PullBytesThreshold"],
        c: &["pull_bytes_threshold"], rust: &["pull_bytes_threshold"],
    }
    /// Key and cipher of a remote that encrypts its database, which follow.
    REMOTE_ENCRYPTION = "remote_encryption" {
        takes: Takes::Group,
        node: &["remoteEncryption"],
    }
    /// Key of a remote that encrypts its database, sent as a header; base64.
    REMOTE_ENCRYPTION_KEY = "remote_encryption_key" {
        takes: Takes::Text,
        node: &["remoteEncryption.key"], python: &["remote_encryption_key"], go: &["RemoteEncryptionKey"],
        c: &["encryption_key"], rust: &["remote_encryption"],
    }
    /// The cipher that goes with the key.
    REMOTE_ENCRYPTION_CIPHER = "remote_encryption_cipher" {
        takes: Takes::OneOf(&[
            "aes256gcm", "aes128gcm", "chacha20poly1305", "aegis128l", "aegis128x2", "aegis128x4", "aegis256",
            "aegis256x2", "aegis256x4",
        ]),
        node: &["remoteEncryption.cipher"], python: &["remote_encryption_cipher"], go: &["RemoteEncryptionCipher"],
        c: &["encryption_cipher"], rust: &["remote_encryption"],
    }
    /// Rewrites or skips local changes before they are pushed, and before a pull puts them back.
    TRANSFORM = "transform" {
        takes: Takes::Function,
        node: &["transform"], python: &["transform"], go: &["Transform"], c: &["transform"],
        rust: &["transform"],
    }
    /// Sends every request.
    FETCH = "fetch" {
        takes: Takes::Function, default: Default::Words("a client of this library"),
        node: &["fetch"], rust: &["http_client"],
    }
    /// The engine's log on standard error. The first database of a process decides.
    TRACING = "tracing" {
        takes: Takes::OneOf(&["error", "warn", "info", "debug", "trace"]), default: Default::Words("no log"),
        node: &["tracing"],
    }
    /// Breaks the network waits of the database.
    CANCEL = "cancel" { takes: Takes::Own("a handle"), c: &["cancel"], rust: &["cancel_handle"] }
    /// Names of features that SQLite has without being asked; nothing changes.
    EXPERIMENTAL = "experimental" {
        takes: Takes::Names,
        node: &["experimental"],
    }
    /// The same, in one string.
    EXPERIMENTAL_FEATURES = "experimental_features" {
        takes: Takes::Own("names, separated by commas"),
        python: &["experimental_features"], go: &["ExperimentalFeatures", "?experimental"],
    }
    /// An option of the published packages.
    LOGICAL_MVCC_PULL = "logical_mvcc_pull" {
        takes: Takes::Refused("a pull brings pages"), default: Default::Flag(false),
        node: &["logicalMvccPull"], python: &["logical_mvcc_pull"], go: &["LogicalMvccPull"],
    }
    /// An option of the published packages.
    REMOTE_WRITES = "remote_writes" {
        takes: Takes::Refused("writes are local and go to the remote by push()"), default: Default::Flag(false),
        node: &["remoteWritesExperimental"],
    }
    /// How transactions begin; `None` begins none.
    ISOLATION_LEVEL = "isolation_level" {
        takes: Takes::Own("'DEFERRED', 'IMMEDIATE', 'EXCLUSIVE' or None"), default: Default::Words("'DEFERRED'"),
        python: &["isolation_level"],
    }
    /// Whether statements commit by themselves, as in `sqlite3`.
    AUTOCOMMIT = "autocommit" {
        takes: Takes::Own("True, False or LEGACY_TRANSACTION_CONTROL"), default: Default::Words("LEGACY_TRANSACTION_CONTROL"),
        python: &["autocommit"],
    }
    /// `PARSE_DECLTYPES` and `PARSE_COLNAMES`: what converters are chosen by.
    DETECT_TYPES = "detect_types" {
        takes: Takes::Whole { least: 0, most: i32::MAX as u64, unit: "flags" }, default: Default::Number(0),
        python: &["detect_types"],
    }
    /// Whether other threads are refused.
    CHECK_SAME_THREAD = "check_same_thread" {
        takes: Takes::Own("anything that is true or not"), default: Default::Flag(false),
        python: &["check_same_thread"],
    }
    /// Compiled statements that are kept.
    CACHED_STATEMENTS = "cached_statements" {
        takes: Takes::Whole { least: 0, most: ENDLESS, unit: "statements" }, default: Default::Number(128),
        python: &["cached_statements"],
    }
    /// Makes the connection.
    FACTORY = "factory" { takes: Takes::Own("a class"), default: Default::Words("the connection's class"), python: &["factory"] }
    /// Whether a path that begins with `file:` is a URI.
    URI = "uri" { takes: Takes::Flag, default: Default::Flag(false), python: &["uri"] }
    /// Rows that `async for` reads ahead at most, in `turso.aio`.
    ITER_CHUNK_SIZE = "iter_chunk_size" {
        takes: Takes::Whole { least: 1, most: ENDLESS, unit: "rows" }, default: Default::Number(64),
        python: &["iter_chunk_size"],
    }
    /// Called by other packages' event loops; nothing changes.
    EXTRA_IO = "extra_io" { takes: Takes::Own("anything"), python: &["extra_io"] }
    /// Whether foreign keys are enforced.
    FOREIGN_KEYS = "foreign_keys" { takes: Takes::Flag, default: Default::Flag(false), go: &["?_foreign_keys"] }
    /// How transactions begin.
    TXLOCK = "txlock" {
        takes: Takes::OneOf(&["deferred", "immediate", "exclusive"]), default: Default::Words("deferred"),
        go: &["?_txlock"],
    }
    /// How the published package does its own I/O; nothing changes.
    ASYNC = "async" { takes: Takes::Flag, go: &["?async"] }
    /// An option of the published packages.
    VFS = "vfs" {
        takes: Takes::Refused("this library has a VFS of its own"), python: &["vfs"], go: &["?vfs"],
    }
    /// An option of the published packages.
    ENCRYPTION = "encryption" {
        takes: Takes::Refused("local files are not encrypted; keep them on an encrypted disk"),
        python: &["encryption"], go: &["?encryption_cipher", "?encryption_hexkey"],
    }
}
