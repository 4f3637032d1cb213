//! How many reads block a thread at the same time: however many long polls one commit wakes, they take a few threads and a
//! few connections to the page history, one after the other.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::error::ServerError;

/// Reads that run at the same time; others wait for their turn without a thread.
const READS_AT_ONCE: usize = 32;

/// See the module. Clones share their turns.
#[derive(Clone, Debug)]
pub struct ReadTurns(Arc<Semaphore>);

impl Default for ReadTurns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READS_AT_ONCE)))
    }
}

impl ReadTurns {
    /// Runs what blocks on a thread of its own when it is its turn.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ServerError> {
        let turn = Arc::clone(&self.0).acquire_owned().await;
        let turn = turn.map_err(|_| ServerError::Stopping)?;
        let done = tokio::task::spawn_blocking(move || {
            // Moved in here: the turn ends with the work, even if nobody waits for it any more.
            let _turn = turn;
            work()
        });
        done.await.map_err(|_| ServerError::Stopping)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[tokio::test]
    async fn v15_no_more_reads_than_allowed_have_a_thread() {
        let turns = ReadTurns::default();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all = (0..READS_AT_ONCE * 8).map(|_| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            turns.run(move || {
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, SeqCst);
            })
        });
        for done in futures_util::future::join_all(all).await {
            done.unwrap();
        }
        assert!(most.load(SeqCst) <= READS_AT_ONCE, "{most:?}");
    }
}
