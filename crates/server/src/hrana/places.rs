//! Places for transactions that stay open while their client is away: so many in all, and so many for one caller. Requests that
//! end their transaction themselves need none.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;
use partial_sync_transport::hrana;

use super::error::{code, error};
use crate::access::CallerId;

/// See the module.
pub(super) struct Places {
    all: usize,
    each: usize,
    taken: Mutex<HashMap<CallerId, usize>>,
}

/// A transaction that is open between requests.
pub(super) struct Open {
    pub since: Instant,
    caller: CallerId,
    places: Arc<Places>,
}

impl Places {
    pub(super) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self {
            all,
            each,
            taken: Mutex::default(),
        })
    }

    /// A place for a transaction of a caller that has begun now.
    pub(super) fn take(self: &Arc<Self>, caller: CallerId) -> Result<Open, hrana::Error> {
        let mut taken = self.taken.lock();
        let all: usize = taken.values().sum();
        let own = taken.get(&caller).copied().unwrap_or_default();
        let full = match () {
            () if own >= self.each => {
                format!("{own} interactive transactions of this caller are open, which is its share")
            }
            () if all >= self.all => format!("{all} interactive transactions are open"),
            () => {
                taken.insert(caller, own + 1);
                return Ok(Open {
                    since: Instant::now(),
                    caller,
                    places: self.clone(),
                });
            }
        };
        Err(error(
            code::TOO_MANY_STREAMS,
            format!(
                "{full}, so the one that began here was rolled back: end one of them, or try again later. Requests that end \
                 their transaction themselves are not limited"
            ),
        ))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Entry::Occupied(mut own) = self.places.taken.lock().entry(self.caller) {
            match own.get() {
                0 | 1 => drop(own.remove()),
                _ => *own.get_mut() -= 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_a_caller_has_its_share_and_leaves_the_rest() {
        let places = Places::new(3, 2);
        let [one, other] = ["one", "other"].map(CallerId::of_token);
        let held = [places.take(one), places.take(one)].map(Result::unwrap);
        let code = |refused: Result<Open, hrana::Error>| refused.err().and_then(|e| e.code);
        let full = Some(code::TOO_MANY_STREAMS.to_owned());
        assert_eq!(code(places.take(one)), full);
        let last = places.take(other).unwrap();
        assert_eq!(code(places.take(other)), full);
        drop(held);
        places.take(one).unwrap();
        drop(last);
        assert!(places.taken.lock().is_empty());
    }
}
