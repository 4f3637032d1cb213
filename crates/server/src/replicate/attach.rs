//! Begins the log of a database's file, or continues it.
//!
//! Going on: the writer that the file belonged to is the log's last one, and the log has nothing that the page history has not but
//! fences (transactions without pages, by which the writers of this file kept each other out). So the file is the last state of
//! the log, and what was committed since: by a server that was killed before that was in the bucket, or by other programs. With a new
//! fence, no earlier writer can add anything. What the file has and the log has not is one transaction: the pages of the
//! revision that the history has and the log has not, if there is one, and those whose hashes are not what the history has.
//!
//! ```text
//! history   ..., t        the latest revision; recorded before its transaction is put
//! log       ..., t-1      it did not arrive, and never will: the fence has its id, the revision gets the next one
//!           ..., t        it arrived
//!           ..., t, fences
//! ```
//!
//! Anything else is another history: the file is refused, and nothing was changed.

use std::{num::NonZeroU64, sync::Arc};

use partial_sync_core::PageNo;
use partial_sync_ltx::TxId;
use partial_sync_store::{Begin, Bucket, Claim, End, New, StoreError, Writer};
use tokio::runtime::Handle;

use super::{log::Log, options::Replicator};
use crate::{
    error::ServerError,
    follow::{AttachLog, Attached, File, compare_all},
    history::{History, RevisionRecord, Seq},
};

/// Fences that are looked at: one for each start that came to nothing.
const MOST_FENCES: u64 = 1000;

/// Is before the nodes of a file whose log may not be there yet. No writer has it.
const BEGINNING: u64 = 0;

/// Whether the file with these nodes has a log.
fn has_log(nodes: &[u64]) -> bool {
    nodes.first().is_some_and(|first| *first != BEGINNING)
}

/// Attaches the file of one database.
#[derive(Debug)]
pub(crate) struct Attach {
    replicator: Arc<Replicator>,
    bucket: Bucket,
    /// Where the database takes SQL.
    url: Option<String>,
}

impl Replicator {
    /// What attaches the file of a database to its log.
    pub(crate) fn attach(self: &Arc<Self>, name: &str) -> Result<Attach, ServerError> {
        Ok(Attach {
            replicator: Arc::clone(self),
            bucket: self.options.place(name)?,
            url: self.options.url_of(name),
        })
    }
}

impl Attach {
    pub(super) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.replicator.runtime
    }

    pub(super) fn takes_over(&self) -> bool {
        self.replicator.options.take_over
    }

    /// What a writer begins with.
    pub(super) fn beginning(&self, node: NonZeroU64, now: i64) -> Begin {
        Begin {
            node,
            url: self.url.clone(),
            new: New {
                lineage: node,
                after: None,
                retention: self.replicator.retention,
            },
            now,
        }
    }
}

impl AttachLog for Attach {
    fn attach(&self, file: &File<'_>) -> Result<Attached, ServerError> {
        let runtime = &self.replicator.runtime;
        let end = runtime.block_on(self.bucket.end())?;
        let (writer, seq) = match end {
            Some(End {
                head,
                last: Some(last),
            }) => {
                self.check_continues(file, &head, last)?;
                self.go_on(file)?
            }
            _ => self.begin(file)?,
        };
        let (generation, _) = file.history.generation()?.ok_or(ServerError::Stopping)?;
        let options = &self.replicator.options;
        let log = Log::new(
            writer,
            self.bucket.clone(),
            runtime.clone(),
            (options.durability, options.patience),
            None,
        );
        Ok(Attached {
            log: Arc::new(log),
            generation,
            seq,
        })
    }
}

impl Attach {
    /// Puts the whole file where nothing is.
    fn begin(&self, file: &File<'_>) -> Result<(Writer, Seq), ServerError> {
        let (snapshot, history, runtime) = (file.snapshot, file.history, &self.replicator.runtime);
        let (page_size, db_size) = (snapshot.page_size(), snapshot.db_size());
        runtime.block_on(self.bucket.probe())?;
        let known = history.generation()?.filter(|(_, size)| *size == page_size);
        // One that has another log cannot name the transactions of this one too, unless this is the beginning that was broken off.
        let is_other = match runtime.block_on(self.bucket.end())? {
            Some(End { head, .. }) => {
                known.is_none_or(|(generation, _)| head.lineage != generation.to_string())
            }
            None => true,
        };
        match known {
            None => drop(history.begin(page_size, db_size, file.unix_ms)?),
            Some(_) if is_other && has_log(&history.log_nodes()?) => {
                return Err(ServerError::OtherLog {
                    bucket: self.bucket.name(),
                    writer: None,
                    why: "the file is the working copy of a database in another place, and nothing is here. To begin another one here, \
                          delete the file that ends in -history: replicas start again then"
                        .to_owned(),
                });
            }
            Some(_) => {
                // It may be a copy of a file whose next states have the next names elsewhere.
                history.leap();
                history.resume(history.latest()?, None, db_size, file.unix_ms)?;
            }
        }
        // What the log begins with is what the hashes say.
        let latest = history.latest()?;
        compare_all(history, snapshot, latest)?;
        let (generation, _) = history.generation()?.ok_or(ServerError::Stopping)?;
        let pages = Arc::clone(snapshot);
        let begin = self.next_node(file)?;
        let node = begin.node;
        let begin = Begin {
            new: New {
                lineage: NonZeroU64::new(generation.0).unwrap_or(node),
                after: TxId::new(latest.seq.0),
                ..begin.new
            },
            ..begin
        };
        tracing::info!(bucket = ?self.bucket, pages = db_size.0, "the database is put into the bucket");
        let writer = runtime.block_on(Writer::create(
            self.bucket.clone(),
            begin,
            page_size,
            db_size,
            move |put| {
                let all = (1..=pages.db_size().0).filter_map(PageNo::new);
                let all = all.filter(|page| !page.is_lock_byte_page(pages.page_size()));
                for page in all {
                    let bytes = pages
                        .read(page)
                        .map_err(|error| StoreError::Source(error.into()))?;
                    put(page, &bytes)?;
                }
                Ok(())
            },
        ))?;
        let seq = Seq(writer.last().get());
        history.pass(seq, file.unix_ms)?;
        history.set_log_nodes(&[node.get()])?;
        Ok((writer, seq))
    }

    /// Fails if the file does not continue the log. Changes nothing.
    fn check_continues(
        &self,
        file: &File<'_>,
        head: &partial_sync_store::Head,
        last: TxId,
    ) -> Result<(), ServerError> {
        let elsewhere = |why: String| ServerError::OtherLog {
            bucket: self.bucket.name(),
            writer: head.writer.clone(),
            why,
        };
        let history = file.history;
        let known = history.generation()?;
        let is_ours = known.is_some_and(|(generation, size)| {
            head.lineage == generation.to_string()
                && head.page_size == size.bytes()
                && file.snapshot.page_size() == size
        });
        if !is_ours {
            let why = "the file is not a copy of that database, or it is not known that it is one";
            return Err(elsewhere(why.to_owned()));
        }
        let nodes = history.log_nodes()?;
        if !nodes.contains(&head.node) {
            return Err(elsewhere(
                "another server has written to that database since".to_owned(),
            ));
        }
        let latest = history.latest()?.seq;
        if latest.0 > last.get() + 1 {
            let why = "the file was served without being replicated, so its states have other names now";
            return Err(elsewhere(why.to_owned()));
        }
        if last.get() - latest.0.min(last.get()) > MOST_FENCES {
            let why = format!("the bucket has {last} and the file {latest}");
            return Err(elsewhere(why));
        }
        for id in (latest.0 + 1..=last.get()).filter_map(TxId::new) {
            // The snapshot that this file's log began with has ids without files of their own.
            if head.begun() >= Some(id) {
                continue;
            }
            let wrote = self.replicator.runtime.block_on(self.bucket.wrote(id))?;
            if wrote.is_none_or(|wrote| !wrote.is_fence || !nodes.contains(&wrote.node)) {
                let why = format!(
                    "the file lacks transaction {} and later ones of that database",
                    id.get()
                );
                return Err(elsewhere(why));
            }
        }
        Ok(())
    }

    /// Takes the log from the writer that this file had before.
    fn go_on(&self, file: &File<'_>) -> Result<(Writer, Seq), ServerError> {
        let (history, runtime) = (file.history, &self.replicator.runtime);
        let nodes = history
            .log_nodes()?
            .into_iter()
            .filter_map(NonZeroU64::new)
            .collect();
        let begin = self.next_node(file)?;
        let node = begin.node;
        let taken = Writer::take_over(self.bucket.clone(), begin, Claim::Own(nodes));
        let mut writer = runtime.block_on(taken)?;
        let fence = writer.last();
        // Somebody with a copy of this file may have done the same in between.
        if let Some(End { head, .. }) = runtime.block_on(self.bucket.end())? {
            self.check_continues(file, &head, fence)?;
        }
        let is_ahead = self.pass(history, fence, file.unix_ms)?;
        let seq = match file.stands_still && !is_ahead {
            true => Seq(fence.get()),
            false => self.add_difference(file, &mut writer, Seq(fence.get()).next())?,
        };
        history.set_log_nodes(&[node.get()])?;
        Ok((writer, seq))
    }

    /// Gives the history the fences that the log has. Says whether it has a revision that the log has not: that is the next one then.
    fn pass(&self, history: &dyn History, fence: TxId, unix_ms: i64) -> Result<bool, ServerError> {
        loop {
            let latest = history.latest()?.seq;
            let Some(id) = TxId::new(latest.0).filter(|id| *id <= fence) else {
                return Ok(true);
            };
            // A revision that changed something, and whose id a fence has.
            let wrote = self.replicator.runtime.block_on(self.bucket.wrote(id))?;
            let is_taken =
                wrote.is_some_and(|wrote| wrote.is_fence) && !history.changed_by(latest)?.is_empty();
            match is_taken {
                true => history.pass(latest, unix_ms)?,
                false => {
                    history.pass(Seq(fence.get()), unix_ms)?;
                    return Ok(false);
                }
            }
        }
    }

    /// Makes the file's state the revision `seq`, which is the next one of the log.
    fn add_difference(&self, file: &File<'_>, writer: &mut Writer, seq: Seq) -> Result<Seq, ServerError> {
        let (snapshot, history) = (file.snapshot, file.history);
        let db_size = snapshot.db_size();
        let latest: RevisionRecord = history.resume(history.latest()?, Some(seq), db_size, file.unix_ms)?;
        compare_all(history, snapshot, latest)?;
        let changed = history.changed_by(seq)?;
        tracing::info!(
            pages = changed.len(),
            "what the file has and the bucket has not is put there"
        );
        let pages = changed
            .iter()
            .filter_map(PageNo::new)
            .filter(|page| db_size.contains(*page));
        let pages = pages
            .filter(|page| !page.is_lock_byte_page(snapshot.page_size()))
            .map(|page| {
                let read = snapshot
                    .read(page)
                    .map_err(|error| StoreError::Source(error.into()));
                Ok((page, read?))
            });
        let appended = writer.append(pages, db_size, file.unix_ms);
        let id = self.replicator.runtime.block_on(appended)?;
        match id.get() == seq.0 {
            true => Ok(seq),
            false => Err(ServerError::OtherId {
                expected: seq,
                found: Seq(id.get()),
            }),
        }
    }

    /// A new writer, noted beside the file before anybody hears of it.
    fn next_node(&self, file: &File<'_>) -> Result<Begin, ServerError> {
        let node = NonZeroU64::new(fastrand::u64(1..)).unwrap_or(NonZeroU64::MIN);
        let mut nodes = file.history.log_nodes()?;
        if nodes.is_empty() {
            nodes.push(BEGINNING);
        }
        nodes.push(node.get());
        file.history.set_log_nodes(&nodes)?;
        Ok(self.beginning(node, file.unix_ms))
    }
}
