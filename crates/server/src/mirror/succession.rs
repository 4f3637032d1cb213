//! A server of a bucket that becomes the writer of one of its databases. It restores nothing: its file is empty at first, and the pages
//! that it lacks come from the bucket when SQL reads them. What it has committed is in the bucket before anybody is told, so when this
//! process ends, nothing is missing that was acknowledged.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU64,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use partial_sync_store::{Begin, Bucket, Claim, New, State, Writer};
use partial_sync_transport::{HttpClient, http::HttpRequest};
use tokio::{runtime::Handle, time::Instant};

use super::{options::TakeOver, source::LogSource};
use crate::{
    database::{Database, Opener},
    error::ServerError,
    follow::{AttachLog, Attached, CopyFolder, File, Follower, PartialFile, SourceFiles},
    history::{KeptElsewhere, RevisionRecord, Seq},
    log_states::LogStates,
    places::url_of,
    replicate::{Durability, Log},
};

/// How long the answer of a writer may take that is asked whether it is there.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// How many are asked at once.
const ASKED_AT_ONCE: usize = 16;
/// How long the answer to a commit waits for the bucket.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Succession {
    pub opener: Arc<Opener>,
    /// Where this server takes SQL.
    pub url: String,
    pub when: TakeOver,
    /// Where files are made.
    pub folder: Option<PathBuf>,
}

impl Succession {
    /// Whether the head names this server as the writer of a database: it was, before it was started again.
    pub(super) fn is_ours(&self, name: &str, states: &LogStates) -> bool {
        states
            .writer()
            .is_some_and(|writer| writer == url_of(&self.url, name))
    }

    /// Becomes the writer.
    pub(super) async fn take_over(
        &self,
        name: &str,
        bucket: Bucket,
        states: &Arc<LogStates>,
    ) -> Result<Arc<Database>, ServerError> {
        let generation = states.generation();
        let lineage = states.reader().lineage();
        if lineage != generation.to_string() {
            return Err(ServerError::OtherLog {
                bucket: bucket.name(),
                writer: None,
                why: format!("its lineage, {lineage}, is not one of this program"),
            });
        }
        let node = NonZeroU64::new(fastrand::u64(1..)).unwrap_or(NonZeroU64::MIN);
        let now = self.opener.clock.now().duration_since(SystemTime::UNIX_EPOCH);
        let begin = Begin {
            node,
            url: Some(url_of(&self.url, name)),
            new: New {
                lineage: node,
                after: None,
                retention: self.opener.retention.age,
            },
            now: i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX),
        };
        // Before the log is taken from its writer.
        let folder = self.folder.clone();
        let folder = tokio::task::spawn_blocking(move || CopyFolder::new(folder.as_deref()));
        let folder = folder.await.map_err(|_| ServerError::Stopping)??;
        let writer = Writer::take_over(bucket.clone(), begin, Claim::TakeOver).await?;
        if writer.lineage() != lineage {
            // Its readers find that out too, and open it again.
            return Err(ServerError::Replaced {
                path: bucket.name().into(),
            });
        }
        let at = State {
            id: writer.last(),
            size: writer.commit(),
            time: 0,
        };
        let page_size = writer.page_size();
        let source = Arc::new(LogSource::new(states.reader().clone(), at));
        let log = Log::new(
            writer,
            bucket,
            Handle::current(),
            (Durability::Durable, PATIENCE),
            Some(Arc::clone(states)),
        );
        let record = RevisionRecord {
            seq: Seq(at.id.get()),
            db_size: at.size,
        };
        let clock = self.opener.clock.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let file = PartialFile::new(folder, page_size, generation, record, source)?;
            let files = SourceFiles::open_partial(file)?;
            let history = Arc::new(KeptElsewhere::new(generation, page_size, record));
            let continues = Continues(Mutex::new(Some(Attached {
                log: Arc::new(log),
                generation,
                seq: record.seq,
            })));
            Follower::open_with(files, history, clock, Some(&continues))
        });
        let follower = opened.await.map_err(|_| ServerError::Stopping)??;
        tracing::info!(database = name, revision = %record.seq, "this server is the writer of the database now");
        let database = Database::of(name.into(), Arc::new(follower), None);
        database.watch(Arc::clone(&self.opener), std::future::ready(()));
        Ok(database)
    }
}

/// The servers that did not answer when they were asked last, since when.
#[derive(Default)]
pub(super) struct Silent(HashMap<String, Instant>);

impl Silent {
    /// Asks the servers at these urls whether they are there; those that have not answered for `lease` are left.
    pub(super) async fn longer_than(
        &mut self,
        lease: Duration,
        client: &Arc<dyn HttpClient>,
        urls: impl Iterator<Item = String>,
    ) -> HashSet<String> {
        let mut at: HashMap<String, Vec<String>> = HashMap::new();
        for url in urls {
            at.entry(server_of(&url)).or_default().push(url);
        }
        let asked = Instant::now();
        let servers: Vec<_> = at.keys().cloned().collect();
        let silent: Vec<_> = futures_util::stream::iter(servers)
            .map(|server| {
                let client = Arc::clone(client);
                async move { (!answers(&*client, &server).await).then_some(server) }
            })
            .buffer_unordered(ASKED_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let since = |server: String| {
            let since = self.0.get(&server).copied().unwrap_or(asked);
            (server, since)
        };
        self.0 = silent.into_iter().map(since).collect();
        at.retain(|server, _| self.0.get(server).is_some_and(|since| since.elapsed() >= lease));
        at.into_values().flatten().collect()
    }
}

/// The server of a url, without its path.
fn server_of(url: &str) -> String {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    url[..end].to_owned()
}

/// Whether somebody is there, and is not a proxy who says that nobody is.
async fn answers(client: &dyn HttpClient, server: &str) -> bool {
    let request = HttpRequest {
        method: "GET",
        url: format!("{server}/health"),
        headers: Vec::new(),
        body: Bytes::new(),
    };
    let answer = tokio::time::timeout(ANSWERS_WITHIN, client.send(request)).await;
    matches!(answer, Ok(Ok(answer)) if !(502..=504).contains(&answer.status))
}

/// The log that this server has just taken over.
struct Continues(Mutex<Option<Attached>>);

impl std::fmt::Debug for Continues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Continues")
    }
}

impl AttachLog for Continues {
    fn attach(&self, _: &File<'_>) -> Result<Attached, ServerError> {
        self.0.lock().take().ok_or(ServerError::Stopping)
    }
}
