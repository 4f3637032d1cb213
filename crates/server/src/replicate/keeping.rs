//! Keeps a log in order beside its writer: compaction after some commits, collection after some hours with commits.

use std::time::Duration;

use partial_sync_ltx::TxId;
use partial_sync_store::{Keeper, StoreError};
use tokio::time::Instant;

use crate::history::Seq;

/// Commits after which it is looked whether there is something to compact.
const COMMITS: u64 = 16;
/// How often it is looked how many there are.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often files that are not needed any more are removed.
const COLLECT_EVERY: Duration = Duration::from_secs(60 * 60);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(30);

/// Does so until the log is another's; `last` tells its last transaction.
pub(super) async fn keep(keeper: &Keeper, last: impl Fn() -> Seq) {
    let (mut compacted, mut collected, mut collected_at) = (Seq(0), Seq(0), Instant::now());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let at = last();
        let Some(last) = TxId::new(at.0) else { return };
        let kept = async {
            if at.0 - compacted.0 >= COMMITS {
                while keeper.compact(last).await? {}
                compacted = at;
            }
            if at != collected && collected_at.elapsed() >= COLLECT_EVERY {
                let removed = keeper.collect(last).await?;
                tracing::debug!(removed, "files of the log that are not needed any more");
                (collected, collected_at) = (at, Instant::now());
            }
            Ok(())
        };
        match kept.await {
            Ok(()) => {}
            Err(StoreError::Fenced { .. }) => return,
            Err(error) => {
                tracing::warn!(%error, "the log is not kept in order; it is tried again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
