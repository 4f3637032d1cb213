//! Several who want the same share one request for it.
//!
//! A request continues as long as one of them waits, no matter which, and ends with the last. What must never happen here: that one who
//! comes after a request has failed is given its error.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

use crate::error::StoreError;

type Request<V> = BoxFuture<'static, Result<V, Arc<StoreError>>>;
/// A request that is under way.
pub(crate) type Flight<V> = Shared<Request<V>>;

/// The requests that are under way.
pub(crate) struct Flights<K, V: Clone>(Mutex<ByKey<K, V>>);

/// After how many forgotten ones they are cleared away.
const FORGOTTEN: usize = 256;

type ByKey<K, V> = HashMap<K, WeakShared<Request<V>>>;

impl<K: Eq + Hash + Clone, V: Clone> Flights<K, V> {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    /// The requests for `keys`: those that are not under way, as far as they follow each other, are given to `begin`, which says for how
    /// many of them, at least one, it makes a request.
    pub(crate) fn join<F>(&self, keys: &[K], mut begin: impl FnMut(&[K]) -> (usize, F)) -> Vec<Flight<V>>
    where
        F: Future<Output = Result<V, StoreError>> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut joined: Vec<Flight<V>> = Vec::new();
        let mut at = 0;
        while let Some(key) = keys.get(at) {
            if let Some(flight) = under_way(&flights, key) {
                joined.push(flight);
                at += 1;
                continue;
            }
            let free = keys[at..]
                .iter()
                .take_while(|key| under_way(&flights, key).is_none())
                .count();
            let (taken, request) = begin(&keys[at..at + free]);
            let taken = taken.clamp(1, free);
            joined.push(put(&mut flights, &keys[at..at + taken], request));
            at += taken;
        }
        joined
    }

    /// The request for `key`, which is begun if it is not under way.
    pub(crate) async fn one<F>(&self, key: K, begin: impl FnOnce() -> F) -> Result<V, StoreError>
    where
        F: Future<Output = Result<V, StoreError>> + Send + 'static,
    {
        let flight = {
            let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            under_way(&flights, &key).unwrap_or_else(|| put(&mut flights, &[key], begin()))
        };
        flight.await.map_err(StoreError::Shared)
    }
}

fn under_way<K: Eq + Hash, V: Clone>(flights: &ByKey<K, V>, key: &K) -> Option<Flight<V>> {
    let flight = flights.get(key)?.upgrade()?;
    flight.peek().is_none().then_some(flight)
}

fn put<K: Eq + Hash + Clone, V: Clone>(
    flights: &mut ByKey<K, V>,
    keys: &[K],
    request: impl Future<Output = Result<V, StoreError>> + Send + 'static,
) -> Flight<V> {
    if flights.len() > FORGOTTEN {
        flights.retain(|_, flight| flight.upgrade().is_some());
    }
    let flight = request.map(|result| result.map_err(Arc::new)).boxed().shared();
    for key in keys {
        if let Some(weak) = flight.downgrade() {
            flights.insert(key.clone(), weak);
        }
    }
    flight
}
