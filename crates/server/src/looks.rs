//! A look at all databases that many ask for at the same time is taken once, and one at a time: those who wait for one that begins
//! after they asked are told what it saw. Anyone may ask, as often as he likes, and each look takes a thread.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use tokio::sync::Mutex;

/// See the module.
#[derive(Debug)]
pub(crate) struct Looks<T> {
    begun: AtomicU64,
    /// The number of the last one that was taken, and what it saw. Locked while one is being taken.
    last: Arc<Mutex<Option<(u64, T)>>>,
}

impl<T> Default for Looks<T> {
    fn default() -> Self {
        Self {
            begun: AtomicU64::new(0),
            last: Arc::default(),
        }
    }
}

impl<T: Clone + Send + 'static> Looks<T> {
    /// What a look sees that begins now or later; `None` = it panicked, or the runtime is going down.
    pub(crate) async fn take(&self, look: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let asked = self.begun.load(SeqCst);
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some((number, seen)) = &*last
            && *number > asked
        {
            return Some(seen.clone());
        }
        let number = self.begun.fetch_add(1, SeqCst) + 1;
        // A task of its own, which ends its turn: what was begun continues when who asked leaves.
        let taken = tokio::spawn(async move {
            let seen = look.await;
            *last = Some((number, seen.clone()));
            seen
        });
        taken.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, time::Duration};

    use futures_util::{FutureExt as _, future::join_all};

    use super::*;

    #[derive(Clone, Default)]
    struct Counts {
        taken: Arc<AtomicUsize>,
        at_once: Arc<AtomicUsize>,
    }

    impl Counts {
        async fn look(self) -> usize {
            assert_eq!(self.at_once.fetch_add(1, SeqCst), 0, "another one is being taken");
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.at_once.fetch_sub(1, SeqCst);
            self.taken.fetch_add(1, SeqCst) + 1
        }
    }

    /// Was red: each was taken, all at once, and requests waited for their threads.
    #[tokio::test(start_paused = true)]
    async fn v16_of_many_looks_at_the_same_time_one_is_taken_and_none_is_of_before() {
        let (looks, counts) = (Looks::default(), Counts::default());
        let seen = join_all((0..100).map(|_| looks.take(counts.clone().look()))).await;
        // Those who asked when the first one had begun share the second.
        assert_eq!(seen[0], Some(1));
        assert!(seen[1..].iter().all(|seen| *seen == Some(2)), "{seen:?}");
        assert_eq!(looks.take(counts.clone().look()).await, Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn v16_a_look_goes_on_when_who_asked_for_it_leaves() {
        let (looks, counts) = (Looks::default(), Counts::default());
        for _ in 0..10 {
            assert!(looks.take(counts.clone().look()).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        looks.take(counts.clone().look()).await.unwrap();
        assert_eq!(counts.taken.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn v16_a_look_that_panics_is_not_the_last() {
        let looks = Looks::default();
        assert_eq!(looks.take(async { panic!("on purpose") }).await, None::<u8>);
        assert_eq!(looks.take(async { 7 }).await, Some(7));
    }
}
