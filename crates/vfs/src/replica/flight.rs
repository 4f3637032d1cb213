//! Requests for pages that are under way, and what came of them for those who wait.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use partial_sync_core::{Epoch, PageNo};

use crate::{
    source::SourceError,
    sync::{Condvar, Mutex},
};

/// How often a wait looks whether its statement was interrupted.
pub(super) const INTERRUPT_POLL: Duration = Duration::from_millis(10);

/// One request under way.
#[derive(Default)]
pub(super) struct Flight {
    /// Whether its pages were to fill the map when it started.
    pub(super) fills: bool,
    /// Who wants its pages; counted under the lock of [`Flights`].
    pub(super) wanted_by: AtomicU32,
    pub(super) state: Mutex<FlightState>,
    pub(super) arrived: Condvar,
}

#[derive(Default)]
pub(super) struct FlightState {
    /// Pages that came but may not fill the map.
    pub(super) private: HashMap<PageNo, Arc<[u8]>>,
    pub(super) done: Option<Result<(), SourceError>>,
}

pub(super) type PrivatePages = HashMap<(Epoch, PageNo), Arc<[u8]>>;
pub(super) type Flights = HashMap<(Epoch, PageNo), Arc<Flight>>;
