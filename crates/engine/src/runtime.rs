//! Where a blocking engine meets an async transport: one shared runtime for the process, and a wait that can be
//! cancelled. Works from any thread, also from inside somebody else's async runtime.

use std::{future::Future, sync::OnceLock};

use partial_sync_vfs::sqlite::InterruptHandle;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::watch,
};

use crate::error::{Error, Result};

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

/// Ends what [`CancelHandle::interrupts`] began.
pub(crate) struct Interrupting(tokio::task::JoinHandle<()>);

impl Drop for Interrupting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Breaks the network waits of pulls, pushes and the like of one database.
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

    /// Breaks what is waiting now; it fails with [`Error::Interrupted`]. What begins later is not touched.
    pub fn cancel(&self) {
        self.calls.send_modify(|calls| *calls += 1);
    }

    /// Tells whether [`Self::cancel`] was called since.
    pub(crate) fn watch(&self) -> impl Fn() -> bool {
        let calls = self.calls.subscribe();
        move || calls.has_changed().unwrap_or(false)
    }

    /// Interrupts a connection when [`Self::cancel`] is called, for as long as the answer lives.
    pub(crate) fn interrupts(&self, connection: InterruptHandle) -> Interrupting {
        let mut calls = self.calls.subscribe();
        calls.mark_unchanged();
        Interrupting(runtime().spawn(async move {
            while calls.changed().await.is_ok() {
                connection.interrupt();
            }
        }))
    }

    /// Runs a future unless [`Self::cancel`] is called first.
    pub(crate) fn wait<T: Send>(
        &self,
        doing: &'static str,
        future: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let mut changed = self.calls.subscribe();
        changed.mark_unchanged();
        wait(async move {
            tokio::select! {
                result = future => result,
                _ = changed.changed() => Err(Error::Interrupted { doing }),
            }
        })
    }
}
