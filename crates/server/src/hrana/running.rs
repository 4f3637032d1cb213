//! The requests that have a connection, so that they can be ended: all of them, or those of one opening of a database.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time};

use super::{connection::Brake, options::HranaOptions};
use crate::access::{CallerId, CommitListener};

/// How long statements get to end that were interrupted.
const LAST_STATEMENTS: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Default)]
pub(super) struct Requests {
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    stopped: bool,
    running: Vec<(Arc<PathBuf>, CallerId, Arc<Cancel>)>,
}

impl Requests {
    /// To be called before a request takes a connection to this opening of a database. `None` after [`Requests::stop`].
    pub(super) fn begin(
        self: &Arc<Self>,
        path: &Arc<PathBuf>,
        caller: CallerId,
        cancel: &Arc<Cancel>,
    ) -> Option<Running> {
        let entry = (Arc::clone(path), caller, Arc::clone(cancel));
        let begun = self.state.send_if_modified(|state| {
            if !state.stopped {
                state.running.push(entry);
            }
            !state.stopped
        });
        begun.then(|| Running {
            requests: Arc::clone(self),
            cancel: Arc::clone(cancel),
        })
    }

    /// From here on no request begins.
    pub(super) fn stop(&self) {
        self.state.send_modify(|state| state.stopped = true);
    }

    /// Interrupts the requests of these openings and callers, and waits for their ends, but not for ever.
    pub(super) async fn end(&self, belongs: impl Fn(&Arc<PathBuf>, CallerId) -> bool) {
        let mut state = self.state.subscribe();
        let running: Vec<_> = {
            let state = state.borrow();
            let of_these = state.running.iter().filter(|(path, of, _)| belongs(path, *of));
            of_these.map(|(_, _, cancel)| Arc::clone(cancel)).collect()
        };
        running.iter().for_each(|cancel| cancel.cancel());
        let none = state.wait_for(|state| !state.running.iter().any(|(path, of, _)| belongs(path, *of)));
        if time::timeout(LAST_STATEMENTS, none).await.is_err() {
            tracing::warn!("statements that do not end are left running");
        }
    }
}

/// See [`Requests::begin`]; until it is dropped.
pub(super) struct Running {
    requests: Arc<Requests>,
    cancel: Arc<Cancel>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let ours = |(_, _, cancel): &(_, _, Arc<Cancel>)| Arc::ptr_eq(cancel, &self.cancel);
        self.requests.state.send_modify(|state| {
            if let Some(at) = state.running.iter().position(ours) {
                state.running.swap_remove(at);
            }
        });
    }
}

/// Stops the work of a request whose client or database has gone.
#[derive(Default)]
pub(super) struct Cancel {
    flag: Arc<AtomicBool>,
    brake: Mutex<Option<Brake>>,
}

impl Cancel {
    /// Becomes true.
    pub(super) fn flag(&self) -> &Arc<AtomicBool> {
        &self.flag
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    pub(super) fn arm(&self, brake: Brake) {
        *self.brake.lock() = Some(brake);
    }

    /// From here on the connection may work for somebody else.
    pub(super) fn disarm(&self) {
        *self.brake.lock() = None;
    }

    pub(super) fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
        if let Some(brake) = &*self.brake.lock() {
            brake.interrupt();
        }
    }

    pub(super) fn end_what_is_late(&self, log: &dyn CommitListener, options: &HranaOptions) {
        if let Some(brake) = &*self.brake.lock() {
            brake.end_what_is_late();
            brake.end_old_read(log, options);
        }
    }
}

/// Cancels when it is dropped.
pub(super) struct CancelOnDrop(pub Arc<Cancel>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
