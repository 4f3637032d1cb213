//! Turns to run something that keeps a thread busy: so many at the same time in all, and so many for one caller, who waits
//! for its own to end and keeps nobody else waiting.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};

use crate::access::CallerId;

/// See the module.
#[derive(Debug)]
pub struct Turns {
    all: Arc<Semaphore>,
    most: usize,
    each: usize,
    callers: Mutex<HashMap<CallerId, Arc<Semaphore>>>,
}

/// The right to run; given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// No turn came in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTurn {
    /// The caller itself has all that it may have.
    Caller(usize),
    /// All of the server's are taken.
    Server(usize),
}

impl Turns {
    /// `all` turns, of which a caller has at most `each` (both at least one).
    pub fn new(all: usize, each: usize) -> Self {
        let all = all.max(1);
        Self {
            all: Arc::new(Semaphore::new(all)),
            most: all,
            each: each.clamp(1, all),
            callers: Mutex::default(),
        }
    }

    /// Waits for a turn.
    pub async fn take(&self, caller: CallerId, patience: Duration) -> Result<Turn, NoTurn> {
        let own = self.of(caller).acquire_owned();
        let until = time::Instant::now() + patience;
        let Ok(Ok(own)) = time::timeout_at(until, own).await else {
            return Err(NoTurn::Caller(self.each));
        };
        match time::timeout_at(until, Arc::clone(&self.all).acquire_owned()).await {
            Ok(Ok(all)) => Ok(Turn { _own: own, _all: all }),
            _ => Err(NoTurn::Server(self.most)),
        }
    }

    fn of(&self, caller: CallerId) -> Arc<Semaphore> {
        let mut callers = self.callers.lock();
        if callers.len() > 2 * self.most {
            // Who runs or waits has a clone.
            callers.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        let turns = callers
            .entry(caller)
            .or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        Arc::clone(turns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn v1_a_caller_takes_its_share_and_leaves_the_rest() {
        let turns = Turns::new(4, 2);
        let (one, other) = (CallerId::of_token("one"), CallerId::of_token("other"));
        let take = |caller| turns.take(caller, Duration::from_millis(1));
        let held = (take(one).await.unwrap(), take(one).await.unwrap());
        assert_eq!(take(one).await.unwrap_err(), NoTurn::Caller(2));
        let others = (take(other).await.unwrap(), take(other).await.unwrap());
        let third = CallerId::of_token("third");
        assert_eq!(take(third).await.unwrap_err(), NoTurn::Server(4));
        drop(held);
        take(one).await.unwrap();
        take(third).await.unwrap();
        drop(others);
        for n in 0..100_u32 {
            take(CallerId::of_token(n.to_be_bytes())).await.unwrap();
        }
        assert!(turns.callers.lock().len() <= 9, "callers who left are forgotten");
    }
}
