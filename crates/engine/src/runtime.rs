//! Where a blocking engine meets an async transport: one shared runtime for the process, and a wait that can be
//! cancelled. Works from any thread, also from inside somebody else's async runtime.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use partial_sync_vfs::sqlite::InterruptHandle;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::watch,
};

use crate::error::{Error, Result};

/// How often a wait for somebody else looks whether it was cancelled.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// The runtime that drives requests. Two threads: they only move bytes.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("partial-sync")
            .enable_all()
            .build()
            .expect("the operating system gives a process two threads")
    })
}

/// Runs a future to its end on this thread.
pub(crate) fn wait<F>(future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    let handle = runtime().handle();
    if Handle::try_current().is_ok() {
        // Blocking inside another runtime is refused by tokio; a thread of our own is not inside it.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| handle.block_on(future));
            waiting
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    } else {
        handle.block_on(future)
    }
}

/// Ends what [`CancelHandle::interrupts`] began. No interrupt comes after it was dropped.
pub(crate) struct Interrupting {
    task: tokio::task::JoinHandle<()>,
    ended: Arc<Mutex<bool>>,
}

impl Drop for Interrupting {
    fn drop(&mut self) {
        *self.ended.lock() = true;
        self.task.abort();
    }
}

/// Breaks pulls, pushes and the like of one database.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle {
    /// How often it was called.
    calls: watch::Sender<u64>,
}

impl CancelHandle {
    /// A handle for [`Builder::cancel_handle`](crate::Builder::cancel_handle).
    pub fn new() -> Self {
        Self::default()
    }

    /// Breaks what is under way now, also where it is not waiting at this moment; it fails with [`Error::Interrupted`]. What
    /// begins later is not touched.
    pub fn cancel(&self) {
        self.calls.send_modify(|calls| *calls += 1);
    }

    /// Now: what begins at this moment is ended by a cancel that comes after it.
    pub(crate) fn moment(&self) -> Moment {
        Moment(*self.calls.borrow())
    }

    pub(crate) fn is_cancelled_since(&self, begun: Moment) -> bool {
        *self.calls.borrow() != begun.0
    }

    /// Interrupts a connection when [`Self::cancel`] is called, or was since `begun`, for as long as the answer lives. Until
    /// then it does so again and again: SQLite forgets an interrupt that comes between two statements.
    pub(crate) fn interrupts(&self, connection: InterruptHandle, begun: Moment) -> Interrupting {
        let mut calls = self.calls.subscribe();
        let ended = Arc::new(Mutex::new(false));
        let over = ended.clone();
        let task = runtime().spawn(async move {
            if calls.wait_for(|calls| *calls != begun.0).await.is_err() {
                return;
            }
            loop {
                {
                    let over = over.lock();
                    if *over {
                        return;
                    }
                    connection.interrupt();
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Interrupting { task, ended }
    }

    /// Runs a future unless [`Self::cancel`] is called first, or was since `begun`.
    pub(crate) fn wait<T: Send>(
        &self,
        begun: Moment,
        operation: &'static str,
        future: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let mut calls = self.calls.subscribe();
        wait(async move {
            tokio::select! {
                biased;
                _ = calls.wait_for(|calls| *calls != begun.0) => Err(Error::Interrupted { operation }),
                result = future => result,
            }
        })
    }
}

/// When an operation began, as a [`CancelHandle`] counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(u64);
