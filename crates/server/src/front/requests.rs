//! Requests under way: how many there may be in all, and for one caller.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::{access::CallerId, limits::Limits};

/// The requests that are being answered.
#[derive(Debug)]
pub(crate) struct Requests {
    in_all: usize,
    per_caller: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    in_all: usize,
    of: HashMap<CallerId, usize>,
}

/// There is no room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMany {
    /// Of this caller's.
    OfCaller,
    /// At all.
    InAll,
}

impl Requests {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            in_all: limits.requests,
            per_caller: limits.requests_per_caller,
            counts: Mutex::default(),
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.counts.lock().in_all
    }

    /// One more, until what is returned is dropped.
    pub(crate) fn enter(self: &Arc<Self>, caller: CallerId) -> Result<UnderWay, TooMany> {
        let mut counts = self.counts.lock();
        if counts.of.get(&caller).copied().unwrap_or(0) >= self.per_caller {
            return Err(TooMany::OfCaller);
        }
        if counts.in_all >= self.in_all {
            return Err(TooMany::InAll);
        }
        counts.in_all += 1;
        *counts.of.entry(caller).or_default() += 1;
        Ok(UnderWay {
            requests: Arc::clone(self),
            caller,
        })
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct UnderWay {
    requests: Arc<Requests>,
    caller: CallerId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut counts = self.requests.counts.lock();
        counts.in_all -= 1;
        if let Some(count) = counts.of.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                counts.of.remove(&self.caller);
            }
        }
    }
}
