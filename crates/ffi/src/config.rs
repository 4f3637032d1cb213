//! What a database is opened with. Zero means the default everywhere, so that a zeroed struct with a path is enough, and
//! a program built with an older header (a shorter struct) keeps working.

use std::{
    ffi::{c_char, c_void},
    mem::{self, MaybeUninit},
    path::Path,
    ptr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use partial_sync::{
    Bootstrap, Builder, Database, PartialSync,
    options::{self, Given, Language, OptionError, OptionSpec},
};
use partial_sync_transport::AuthToken;

use crate::{
    asked::{name_of, refuse_when_asked},
    boundary::{Result, misuse, optional_text, text},
    callback::{
        Callbacks, PartialSyncReleaseFunction, PartialSyncTokenFunction, PartialSyncTransformFunction,
        PartialSyncUrlFunction,
    },
    cancel::PartialSyncCancel,
};

/// What to open. Set `size` and `path`, leave zero what shall be as usual:
///
///     PartialSyncConfig config = {.size = sizeof config, .path = "app.db", .url = "libsql://db.example.com"};
///
/// Everything is copied: the struct and its texts may go as soon as the call returns.
///
/// Partial sync is on when one of `bootstrap_prefix`, `bootstrap_query`, `segment_size` and `prefetch` is set; otherwise
/// the first connect downloads everything. The bootstrap counts only when the replica is made: one that exists is opened
/// without asking the remote for anything.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PartialSyncConfig {
    /// `sizeof(PartialSyncConfig)`: tells which version of this struct the program was built with.
    pub size: usize,
    /// The database file, UTF-8; `":memory:"` leaves no file, and is one database for all connections.
    pub path: *const c_char,
    /// The remote: `libsql://`, `turso://`, `https://` or `http://`. NULL: a plain local database, or the replica at the
    /// path, offline.
    pub url: *const c_char,
    /// The bearer token; NULL for none. `partial_sync_set_auth_token` replaces it later.
    pub auth_token: *const c_char,
    /// How this client is called on the remote; a random part is added. NULL: `partial-sync`.
    pub client_name: *const c_char,
    /// Bytes at the beginning of the remote's file to fetch at the first connect; at least one page. 0: none.
    pub bootstrap_prefix: u64,
    /// A SELECT whose pages to fetch at the first connect. NULL: none. At most one of the two bootstraps.
    pub bootstrap_query: *const c_char,
    /// Bytes to fetch around an absent page, a power of two. 0: 128 KiB, or as the replica was opened before.
    pub segment_size: u64,
    /// What comes along with an absent page: 1 also what a query is expected to want next; -1 its segment alone; 0 as the replica was
    /// opened before, and for a new one, where the remote can, what the SELECT touches, which is sent with its values.
    pub prefetch: i32,
    /// Milliseconds that a statement waits for another connection's lock. 0: 5000; -1: not at all.
    pub busy_timeout_ms: i32,
    /// Milliseconds that a query waits for an absent page, and a request for each next piece of its answer. 0: 30000.
    pub timeout_ms: u64,
    /// Milliseconds that a pull lets the remote wait for a change. 0: not at all.
    pub long_poll_ms: u64,
    /// Most changes in one push request; a transaction is never split. 0: 10000.
    pub push_operations_threshold: u64,
    /// Bootstraps everything in requests of about this many bytes. 0: in one.
    pub pull_bytes_threshold: u64,
    /// Key of a remote that encrypts; NULL for none.
    pub encryption_key: *const c_char,
    /// Cipher that goes with the key; NULL lets the remote choose.
    pub encryption_cipher: *const c_char,
    /// What stops the network calls of this database, the first connect included; NULL for none. Used during the call
    /// only; the database keeps what it needs of it.
    pub cancel: *const PartialSyncCancel,
    /// Asked for the url before each request, in place of `url`; NULL for none.
    pub url_function: PartialSyncUrlFunction,
    /// Asked for the token before each request, in place of `auth_token`; NULL for none.
    pub token_function: PartialSyncTokenFunction,
    /// Asked about each local change before it is pushed or put back; NULL for none.
    ///
    /// The functions are called during calls that you make, and on threads of the library; also several at a time. They
    /// must return normally (no `longjmp`, no C++ exception) and, but for that of the token, soon. What they call of their
    /// own database, of its connections and statements fails with `PARTIAL_SYNC_CODE_MISUSE` at once, or gives nothing: it
    /// could wait for them. They may release handles. On a thread of yours for which a function waits they are not known:
    /// what is called there waits for the function, until the timeout. They are called as long as the database, or a
    /// connection to it, is open.
    pub transform: PartialSyncTransformFunction,
    /// What the functions are given as their first argument.
    pub user_data: *mut c_void,
    /// Called once with `user_data`, on any thread, when none of the functions will be called any more: after closing, and
    /// when opening fails, but for a config that is NULL or whose `size` is wrong. NULL for none.
    pub release: PartialSyncReleaseFunction,
    /// Whether the first connect asks the remote for the bootstrap: 1 and 0 yes; -1 makes an empty replica without asking
    /// the remote, and the first pull brings the rest.
    pub bootstrap_if_empty: i32,
    /// Whether a replica that is here may continue with another remote than it was made from, because its database has moved to
    /// a new url or was restored from a backup: 1 yes, 0 and -1 no. After the next pull pages that are not here can be read again;
    /// changes that were not pushed stay.
    pub accept_new_url: i32,
    /// Milliseconds that one call may run statements of a connection, see `partial_sync_query_timeout`. 0: no limit.
    pub query_timeout_ms: u32,
}

/// The token that requests carry from now on; shared with the database that was opened with one.
pub(crate) type Token = Arc<Mutex<String>>;

impl PartialSyncConfig {
    /// A copy of what the caller gave (fields that its version does not have are zero), and whether that is all of it.
    ///
    /// # Safety
    /// `config` is null, or points to a struct that begins with its size in bytes.
    unsafe fn read(config: *const Self) -> Result<(Self, bool)> {
        if config.is_null() {
            return misuse("the config is NULL");
        }
        // SAFETY: not null, and every version of the struct begins with the size.
        let given = unsafe { config.cast::<usize>().read() };
        let known = mem::size_of::<Self>();
        let least = mem::offset_of!(Self, path) + mem::size_of::<*const c_char>();
        if given < least || given > 64 * known {
            return misuse(format!(
                "config.size is {given}: set it to sizeof(PartialSyncConfig)"
            ));
        }
        let mut copy = MaybeUninit::<Self>::zeroed();
        // SAFETY: the caller's struct has `given` bytes; what is beyond our own is only compared with zero; zero is a
        // valid value of every field, and so is whatever C put there.
        unsafe {
            let beyond = given.saturating_sub(known);
            let rest = config.cast::<u8>().add(given - beyond);
            let is_all = (0..beyond).all(|i| rest.add(i).read() == 0);
            ptr::copy_nonoverlapping(config.cast::<u8>(), copy.as_mut_ptr().cast(), given.min(known));
            Ok((copy.assume_init(), is_all))
        }
    }

    /// Takes the caller's data over, so that it is released whatever becomes of the opening.
    ///
    /// # Safety
    /// As for `read`; the texts are null or end with NUL.
    pub(crate) unsafe fn take(config: *const Self) -> Result<Opening> {
        // SAFETY: the caller says so.
        let (config, is_all) = unsafe { Self::read(config)? };
        let path = match config.path.is_null() {
            true => "",
            // SAFETY: the caller says so.
            false => unsafe { std::ffi::CStr::from_ptr(config.path) }
                .to_str()
                .unwrap_or_default(),
        };
        let name = name_of(path);
        Ok(Opening {
            callbacks: Callbacks::new(config.user_data, config.release, name.clone()),
            config,
            is_all,
            name,
        })
    }

    unsafe fn builder(&self, callbacks: &Callbacks) -> Result<(Builder, Option<Token>)> {
        let optional = |field, option: OptionSpec| {
            let name = option.c[0];
            // SAFETY: the caller of `connect` says so, for every text of the struct.
            let given = unsafe { optional_text(field, &format!("config.{name}")) }?;
            if let Some(text) = given {
                option.check(Language::C, name, Given::Text(text), format_args!("{text:?}"))?;
            }
            Result::Ok(given)
        };
        // SAFETY: as above.
        let mut builder = Database::builder(unsafe { text(self.path, "config.path") }?).share_memory();
        let mut token = None;
        match callbacks.url(self.url_function) {
            Some(_) if !self.url.is_null() => {
                return misuse("config has url and url_function: set one of them");
            }
            Some(function) => builder = builder.remote(function),
            None => {}
        }
        match callbacks.token(self.token_function) {
            Some(_) if !self.auth_token.is_null() => {
                return misuse("config has auth_token and token_function: set one of them");
            }
            Some(function) => builder = builder.auth_token(function),
            None => {}
        }
        if let Some(transform) = callbacks.transform(self.transform) {
            builder = builder.transform(transform);
        }
        if let Some(url) = optional(self.url, options::REMOTE_URL)? {
            builder = builder.remote(url);
        }
        if let Some(first) = optional(self.auth_token, options::REMOTE_AUTH_TOKEN)? {
            let current: Token = Arc::new(Mutex::new(first.to_owned()));
            token = Some(current.clone());
            builder = builder.auth_token(AuthToken::function(move || {
                let now = current.lock().clone();
                async move { Ok(Some(now)) }
            }));
        }
        if let Some(name) = optional(self.client_name, options::CLIENT_NAME)? {
            builder = builder.client_name(name);
        }
        let cipher = optional(self.encryption_cipher, options::REMOTE_ENCRYPTION_CIPHER)?;
        match optional(self.encryption_key, options::REMOTE_ENCRYPTION_KEY)? {
            Some(key) => builder = builder.remote_encryption(key, cipher.map(str::to_owned)),
            None if cipher.is_some() => {
                return misuse("config.encryption_cipher needs config.encryption_key");
            }
            None => {}
        }
        if let Some(partial) = self.partial(optional(self.bootstrap_query, options::BOOTSTRAP_QUERY)?)? {
            builder = builder.partial(partial);
        }
        if let Some(wanted) = flag("bootstrap_if_empty", self.bootstrap_if_empty)? {
            builder = builder.bootstrap_if_empty(wanted);
        }
        if let Some(accepted) = flag("accept_new_url", self.accept_new_url)? {
            builder = builder.accept_new_url(accepted);
        }
        if let Some(time) = millis(self.timeout_ms) {
            builder = builder.timeout(time);
        }
        match self.busy_timeout_ms {
            0 => {}
            ms => builder = builder.busy_timeout(busy(ms)?),
        }
        if let Some(time) = millis(self.long_poll_ms) {
            builder = builder.long_poll(time);
        }
        // SAFETY: null or live, by the rules of the boundary.
        if let Some(cancel) = unsafe { self.cancel.as_ref() } {
            builder = builder.cancel_handle(cancel.handle.clone());
        }
        if self.push_operations_threshold != 0 {
            let most = usize::try_from(self.push_operations_threshold).unwrap_or(usize::MAX);
            builder = builder.push_operations_threshold(most);
        }
        if self.pull_bytes_threshold != 0 {
            builder = builder.pull_bytes_threshold(self.pull_bytes_threshold);
        }
        Ok((builder, token))
    }

    fn partial(&self, query: Option<&str>) -> Result<Option<PartialSync>> {
        let bootstrap = match (self.bootstrap_prefix, query) {
            (0, None) => None,
            (0, Some(query)) => Some(Bootstrap::query(query)),
            (length, None) => Some(Bootstrap::prefix(length)),
            (_, Some(_)) => {
                return misuse("config has bootstrap_prefix and bootstrap_query: set one of them");
            }
        };
        let partial = PartialSync {
            bootstrap,
            segment_size: (self.segment_size != 0).then_some(self.segment_size),
            prefetch: flag("prefetch", self.prefetch)?,
        };
        Ok((partial != PartialSync::default()).then_some(partial))
    }
}

/// What was opened.
pub(crate) struct Opened {
    pub(crate) database: Database,
    /// What the database is known by to its functions.
    pub(crate) name: Arc<Path>,
    pub(crate) token: Option<Token>,
    /// Of the connections that are opened.
    pub(crate) query_timeout_ms: u32,
}

/// What is to be opened.
pub(crate) struct Opening {
    config: PartialSyncConfig,
    /// Whether the config sets only what this library knows.
    is_all: bool,
    name: Arc<Path>,
    callbacks: Callbacks,
}

impl Opening {
    /// # Safety
    /// What the config points to is still there.
    pub(crate) unsafe fn open(self) -> Result<Opened> {
        if !self.is_all {
            return misuse(
                "the config sets a field that this library does not know: it is older than the header",
            );
        }
        refuse_when_asked(&self.name)?;
        // SAFETY: the caller says so.
        let (builder, token) = unsafe { self.config.builder(&self.callbacks)? };
        Ok(Opened {
            database: builder.connect()?,
            name: self.name,
            token,
            query_timeout_ms: self.config.query_timeout_ms,
        })
    }
}

/// Milliseconds; zero says nothing.
pub(crate) fn millis(ms: u64) -> Option<Duration> {
    // Ten years are for ever, and can be added to a clock.
    const MOST: u64 = 10 * 365 * 86_400_000;
    (ms != 0).then(|| Duration::from_millis(ms.min(MOST)))
}

/// A busy timeout; -1 is none.
pub(crate) fn busy(ms: i32) -> Result<Duration> {
    let option = options::BUSY_TIMEOUT;
    match ms {
        -1 => Ok(Duration::ZERO),
        ms => {
            option.check(Language::C, option.c[0], Given::Whole(ms.into()), ms)?;
            Ok(Duration::from_millis(ms.unsigned_abs().into()))
        }
    }
}

/// Yes, no, or not said.
fn flag(name: &str, value: i32) -> Result<Option<bool>> {
    match value {
        0 => Ok(None),
        1 => Ok(Some(true)),
        -1 => Ok(Some(false)),
        other => Err(OptionError::range(name, other, "1 for yes, -1 for no, or 0 for the default").into()),
    }
}
