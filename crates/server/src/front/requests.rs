//! Requests under way: how many there may be in all, and for one caller. Nobody may have more than are left for everybody else,
//! so that a few who ask for all they can get still leave some. Long polls that wait are counted apart, in the same way: they
//! take next to nothing, and those of a caller keep none of its other requests out.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::activity::{Activity, Polling, Working};
use crate::{access::CallerId, limits::Limits};

/// The requests that are being answered.
#[derive(Debug)]
pub(crate) struct Requests {
    in_all: usize,
    per_caller: usize,
    at_work: Mutex<Counts>,
    waiting: Mutex<Counts>,
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
            at_work: Mutex::default(),
            waiting: Mutex::default(),
        })
    }

    /// How many there are, waiting long polls included.
    pub(crate) fn count(&self) -> usize {
        self.at_work.lock().in_all + self.waiting.lock().in_all
    }

    /// One more, on a connection if it came on one, until what is returned is dropped.
    pub(crate) fn enter(
        self: &Arc<Self>,
        caller: CallerId,
        on: Option<&Arc<Activity>>,
    ) -> Result<UnderWay, TooMany> {
        self.at_work.lock().enter(caller, self)?;
        Ok(UnderWay {
            requests: Arc::clone(self),
            caller,
            on: on.map(Arc::clone),
        })
    }
}

impl Counts {
    fn enter(&mut self, caller: CallerId, most: &Requests) -> Result<(), TooMany> {
        let left = most.in_all.saturating_sub(self.in_all);
        if left == 0 {
            return Err(TooMany::InAll);
        }
        if self.of.get(&caller).copied().unwrap_or(0) >= most.per_caller.min(left) {
            return Err(TooMany::OfCaller);
        }
        self.add(caller);
        Ok(())
    }

    fn add(&mut self, caller: CallerId) {
        self.in_all += 1;
        *self.of.entry(caller).or_default() += 1;
    }

    fn leave(&mut self, caller: CallerId) {
        self.in_all -= 1;
        if let Some(count) = self.of.get_mut(&caller) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&caller);
            }
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct UnderWay {
    requests: Arc<Requests>,
    caller: CallerId,
    on: Option<Arc<Activity>>,
}

impl UnderWay {
    /// The server works on it until what is returned is dropped.
    pub(crate) fn work(&self) -> Option<Working> {
        self.on.as_ref().map(Activity::work)
    }

    /// It waits, and is not at work, until what is returned is dropped.
    pub(crate) fn wait(&self) -> Result<Waiting<'_>, TooMany> {
        self.requests.waiting.lock().enter(self.caller, &self.requests)?;
        self.requests.at_work.lock().leave(self.caller);
        Ok(Waiting {
            under_way: self,
            polling: self.on.as_ref().map(Activity::poll),
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.requests.at_work.lock().leave(self.caller);
    }
}

/// See [`UnderWay::wait`].
#[derive(Debug)]
pub(crate) struct Waiting<'u> {
    under_way: &'u UnderWay,
    polling: Option<Polling>,
}

impl Waiting<'_> {
    /// Waits until it has to end, because its connection has to make room.
    pub(crate) async fn has_to_end(&self) {
        match &self.polling {
            Some(polling) => polling.has_to_answer().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let UnderWay { requests, caller, .. } = self.under_way;
        requests.waiting.lock().leave(*caller);
        // It has begun already: there is room for it.
        requests.at_work.lock().add(*caller);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(in_all: usize, per_caller: usize) -> Arc<Requests> {
        Requests::new(&Limits {
            requests: in_all,
            requests_per_caller: per_caller,
            ..Limits::default()
        })
    }

    /// Was red: two who asked for all that they could get had all of the server's.
    #[test]
    fn v6_callers_who_take_all_they_can_leave_some_for_the_next() {
        let requests = requests(100, 50);
        let mut held = Vec::new();
        for n in 0..6_u32 {
            let caller = CallerId::of_token(n.to_be_bytes());
            let taken: Vec<_> = std::iter::from_fn(|| requests.enter(caller, None).ok()).collect();
            assert!(!taken.is_empty(), "{n}");
            assert_eq!(n == 0, taken.len() == 50, "half of it, if nobody else is there");
            held.extend(taken);
        }
        drop(held);
        assert_eq!(requests.count(), 0);
    }

    /// Was red: they counted as any other request of their caller.
    #[test]
    fn v15_polls_that_wait_keep_no_other_requests_of_their_caller_out() {
        let requests = requests(100, 10);
        let caller = CallerId::of_token("one");
        let polls: Vec<_> = (0..10).map(|_| requests.enter(caller, None).unwrap()).collect();
        assert_eq!(requests.enter(caller, None).unwrap_err(), TooMany::OfCaller);
        let waiting: Vec<_> = polls.iter().map(|poll| poll.wait().unwrap()).collect();
        let other = requests.enter(caller, None).unwrap();
        assert_eq!(other.wait().unwrap_err(), TooMany::OfCaller);
        assert_eq!(requests.count(), 11);
        drop(other);
        drop(waiting);
        assert_eq!(requests.enter(caller, None).unwrap_err(), TooMany::OfCaller);
        drop(polls);
        assert_eq!((requests.count(), requests.at_work.lock().of.len()), (0, 0));
    }
}
