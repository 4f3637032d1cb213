//! What a history is made of. Its text form is in `text.rs`.

mod text;

use partial_sync_vfs::crash::Survives;

/// A replica's first connect and its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSpec {
    /// What the first connect brings.
    pub first: First,
    /// Bytes of a segment.
    pub segment: u64,
    /// Whether queries fetch ahead; `None` = as without the option.
    pub prefetch: Option<bool>,
    /// Whether every pull asks for a list of what changed.
    pub lists: bool,
    /// Whether its files are real ones, which several handles of the process share, and not on a disk that can crash.
    pub real_files: bool,
    /// Most changes in a push request.
    pub threshold: usize,
}

/// What a first connect brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// Everything.
    Whole,
    /// The first bytes.
    Prefix(u64),
    /// What a query touches.
    Query(String),
    /// Nothing: the replica begins without the remote.
    Nothing,
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It does not arrive.
    Fail,
    /// It is answered with 503.
    Refuse,
    /// It does its work, and the answer is lost.
    Lose,
    /// The answer's body ends after so many bytes.
    Cut(usize),
    /// It arrives twice.
    Twice,
    /// It does not arrive until [`Net::Release`], when nobody waits for it any more.
    Late,
    /// The end of the answer, after its last byte, does not come until [`Net::Release`].
    HoldEnd,
}

/// The line between a replica and the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// Every request fails.
    Offline,
    /// No fault is left.
    Well,
    /// The request of this number from now on (1 = the next) suffers it.
    Trouble(usize, Trouble),
    /// From the request of this number on, every request fails.
    OfflineFrom(usize),
    /// What was held continues.
    Release,
}

/// One step. Connections are numbered within their replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opens a replica.
    Open(usize),
    /// Closes it and every connection.
    Close(usize),
    /// Runs SQL on a connection.
    Sql(usize, usize, String),
    /// Attaches the file of another replica as `other`, runs SQL, and detaches it.
    Attach(usize, usize, usize, String),
    /// Begins a transaction; `true` = to write.
    Begin(usize, usize, bool),
    /// Commits it.
    Commit(usize, usize),
    /// Rolls it back.
    Rollback(usize, usize),
    /// Reads a table and holds it against the model.
    Read(usize, usize, String),
    /// Another client's SQL on the remote.
    Remote(String),
    /// Pulls; `true` = with a long poll.
    Pull(usize, bool),
    /// Pushes.
    Push(usize),
    /// Downloads everything.
    Hydrate(usize),
    /// Gives up what is not pushed, but what the first transactions (so many) did, and pulls. `true` = the oldest of it with
    /// what depends on it first.
    Discard(usize, usize, bool),
    /// Asks for statistics.
    Stats(usize),
    /// Checkpoints.
    Checkpoint(usize),
    /// Cancels what waits.
    Cancel(usize),
    /// The remote lets go of every old revision.
    Expire,
    /// Stops the server and starts it; `true` = by a kill.
    Restart(bool),
    /// The line of a replica.
    Net(usize, Net),
    /// The replica's world stops at the operation of this number from now on, at the latest after the next step.
    Crash(usize, u64, Survives),
    /// What a crash at the operation of this number of the next step would leave is checked, and the history continues. A step
    /// with fewer operations is counted through again.
    Fork(usize, u64, Survives),
}

/// A step and what happens during it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The step.
    pub step: Step,
    /// At which of its requests, and what.
    pub meanwhile: Vec<(usize, Step)>,
    /// Over and over on threads of their own.
    pub beside: Vec<Step>,
}

impl From<Step> for Line {
    fn from(step: Step) -> Self {
        Self {
            step,
            meanwhile: vec![],
            beside: vec![],
        }
    }
}

/// A whole history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What random choices of the engine begin with.
    pub seed: u64,
    /// Bytes of a page.
    pub page_size: u32,
    /// `none`, `full` or `incremental`.
    pub auto_vacuum: String,
    /// Rows of the table that nobody but the remote writes.
    pub filler: usize,
    /// Kinds of tables, by name.
    pub tables: Vec<String>,
    /// Pragmas of every connection, `foreign_keys = on`.
    pub pragmas: Vec<String>,
    /// Milliseconds that anything waits for the remote.
    pub timeout: u64,
    /// Whether requests travel over a real socket.
    pub http: bool,
    /// The replicas.
    pub replicas: Vec<ReplicaSpec>,
    /// What happens.
    pub lines: Vec<Line>,
}
