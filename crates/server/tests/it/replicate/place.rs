//! A bucket in memory to which several go, each through a network of his own, and the time that all clocks there tell: tests let it pass.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use parking_lot::Mutex;
use partial_sync_store::{
    Clock, Mark,
    object_store::{
        ObjectMeta, ObjectStore, PutMode, PutOptions, PutPayload, PutResult, Result, memory::InMemory,
        path::Path as Key,
    },
};

/// What is put where.
pub(crate) type Write = (Key, PutPayload, PutMode);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub objects: InMemory,
    /// Seconds that have passed.
    passed: AtomicU64,
    /// When objects were written, where time had passed.
    written: Mutex<BTreeMap<Key, Duration>>,
}

impl Place {
    pub(crate) fn pass(&self, time: Duration) {
        self.passed.fetch_add(time.as_secs(), SeqCst);
    }

    fn now(&self) -> Duration {
        Duration::from_secs(self.passed.load(SeqCst))
    }

    pub(crate) async fn put(&self, key: &Key, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let done = self.objects.put_opts(key, payload, options).await?;
        self.written.lock().insert(key.clone(), self.now());
        Ok(done)
    }

    pub(crate) fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        let written = self.written.lock().clone();
        let objects = self.objects.list(prefix).map_ok(move |mut object| {
            object.last_modified += written.get(&object.location).copied().unwrap_or_default();
            object
        });
        objects.boxed()
    }
}

impl Clock for Place {
    fn mark(&self) -> Mark {
        Mark {
            steady: self.now(),
            ..Mark::default()
        }
    }
}

/// Counts down, from where it is set.
pub(crate) fn is_used_up(left: &AtomicUsize) -> bool {
    let one_less = |left| match left {
        usize::MAX => None,
        left => usize::checked_sub(left, 1),
    };
    left.fetch_update(SeqCst, SeqCst, one_less)
        .is_err_and(|left| left == 0)
}
