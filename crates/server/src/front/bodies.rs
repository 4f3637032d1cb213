//! Bodies of requests, within a budget of bytes for all that are being received or answered.
//!
//! A body that says its length takes all of it before its first byte is read; another takes it as it comes. Bodies of
//! up to 1 MiB have a budget of their own, so that a pull never waits for large pushes.

use std::{collections::HashMap, future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use hyper::body::Body as _;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{access::CallerId, limits::Limits};

/// The largest body that has nothing to do with the budget of the large ones.
const SMALL: usize = 1 << 20;
/// What one permit of a budget stands for.
const UNIT: usize = 1 << 10;
/// Callers whose shares are remembered before those without a body are forgotten.
const REMEMBERED: usize = 1024;
/// How much of a refused body is read, and for how long, so that a client that is still sending sees the answer instead
/// of a connection that was reset.
const THROWN_AWAY: usize = 4 << 20;
const THROWING_AWAY: Duration = Duration::from_secs(1);

/// Reads bodies.
#[derive(Debug)]
pub(crate) struct Bodies {
    small: Budget,
    large: Budget,
    time: Duration,
}

/// Why a body was not read.
#[derive(Debug)]
pub(crate) enum BadBody {
    /// It is or would be larger than this.
    TooLarge(usize),
    /// It broke off.
    Broken,
    /// It took too long.
    Late,
    /// There was no room for it in time.
    NoRoom,
}

/// A body; its bytes count until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held {
    small: Share,
    large: Share,
}

impl Bodies {
    pub(crate) fn new(limits: &Limits) -> Self {
        let large = limits.bodies.max(limits.body);
        Self {
            small: Budget::new((large / 4).max(SMALL)),
            large: Budget::new(large),
            time: limits.body_time,
        }
    }

    /// Reads a body of at most `limit` bytes.
    pub(crate) async fn read(
        &self,
        caller: CallerId,
        limit: usize,
        body: &mut Body,
    ) -> Result<(Bytes, Held), BadBody> {
        let hint = body.size_hint();
        let length = usize::try_from(hint.lower()).unwrap_or(usize::MAX);
        if length > limit {
            return Err(BadBody::TooLarge(limit));
        }
        let mut held = Held::default();
        self.reserve(&mut held, caller, length).await?;
        let arriving = self.arrive(caller, limit, body, &mut held);
        let bytes = tokio::time::timeout(self.time, arriving)
            .await
            .map_err(|_| BadBody::Late)??;
        Ok((bytes, held))
    }

    async fn arrive(
        &self,
        caller: CallerId,
        limit: usize,
        body: &mut Body,
        held: &mut Held,
    ) -> Result<Bytes, BadBody> {
        let length = usize::try_from(body.size_hint().lower()).unwrap_or(0);
        let (mut first, mut whole, mut size) = (Bytes::new(), BytesMut::new(), 0);
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            let Ok(piece) = frame.map_err(|_| BadBody::Broken)?.into_data() else {
                continue;
            };
            size += piece.len();
            if size > limit {
                return Err(BadBody::TooLarge(limit));
            }
            self.reserve(held, caller, size).await?;
            if first.is_empty() {
                first = piece;
                continue;
            }
            if whole.is_empty() {
                whole.reserve(length.max(size));
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&piece);
        }
        // Most bodies are one piece, and are not copied.
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    }

    /// Makes `held` as large as `size`.
    async fn reserve(&self, held: &mut Held, caller: CallerId, size: usize) -> Result<(), BadBody> {
        let growing = async {
            match size {
                0..=SMALL => self.small.grow(&mut held.small, caller, size).await,
                _ => self.large.grow(&mut held.large, caller, size).await,
            }
        };
        tokio::time::timeout(self.time, growing)
            .await
            .map_err(|_| BadBody::NoRoom)
    }
}

/// So many bytes, of which one caller has at most half, or one body.
#[derive(Debug)]
struct Budget {
    units: u32,
    all: Arc<Semaphore>,
    callers: Mutex<HashMap<CallerId, Arc<Semaphore>>>,
}

/// What one body has of a budget, and of its caller's part of it.
#[derive(Debug, Default)]
struct Share {
    of_caller: Option<OwnedSemaphorePermit>,
    of_all: Option<OwnedSemaphorePermit>,
}

impl Budget {
    fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        Self {
            units,
            all: Arc::new(Semaphore::new(units as usize)),
            callers: Mutex::default(),
        }
    }

    async fn grow(&self, share: &mut Share, caller: CallerId, size: usize) {
        let units = u32::try_from(size.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let half = (self.units / 2).max(1);
        take(&mut share.of_caller, units.min(half), || {
            self.caller(caller, half)
        })
        .await;
        take(&mut share.of_all, units.min(self.units), || Arc::clone(&self.all)).await;
    }

    fn caller(&self, caller: CallerId, share: u32) -> Arc<Semaphore> {
        let mut callers = self.callers.lock();
        if callers.len() >= REMEMBERED {
            callers.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let made = callers.entry(caller);
        Arc::clone(made.or_insert_with(|| Arc::new(Semaphore::new(share as usize))))
    }
}

/// Makes `permit` as large as `units`.
async fn take(permit: &mut Option<OwnedSemaphorePermit>, units: u32, of: impl FnOnce() -> Arc<Semaphore>) {
    let has = permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let more = units.saturating_sub(u32::try_from(has).unwrap_or(u32::MAX));
    if more == 0 {
        return;
    }
    // Nobody closes these semaphores.
    if let Ok(taken) = of().acquire_many_owned(more).await {
        match permit {
            Some(permit) => permit.merge(taken),
            None => *permit = Some(taken),
        }
    }
}

/// Reads a little of a body that nobody wants.
pub(crate) fn throw_away(body: Body) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(tokio::time::timeout(THROWING_AWAY, async move {
        let mut pieces = body.into_data_stream();
        let mut read = 0;
        while let (true, Some(Ok(piece))) = (read < THROWN_AWAY, pieces.next().await) {
            read += piece.len();
        }
    }));
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn bodies() -> Bodies {
        Bodies::new(&Limits {
            body: 8 << 20,
            bodies: 8 << 20,
            ..Limits::default()
        })
    }

    /// Reads a body for which there is room now.
    fn read(bodies: &Bodies, caller: CallerId, size: usize) -> Option<Held> {
        let mut body = Body::from(vec![1; size]);
        let read = bodies.read(caller, usize::MAX, &mut body).now_or_never()?;
        let (bytes, held) = read.unwrap();
        assert_eq!(bytes.len(), size);
        Some(held)
    }

    #[tokio::test]
    async fn v2_one_caller_has_half_of_the_budget_or_one_body() {
        let bodies = bodies();
        let [a, b, c] = ["a", "b", "c"].map(CallerId::of_token);
        let first = read(&bodies, a, 3 << 20).unwrap();
        assert!(read(&bodies, a, 2 << 20).is_none());
        let second = read(&bodies, b, 4 << 20).unwrap();
        assert!(read(&bodies, c, 2 << 20).is_none(), "there is one MiB left");
        drop(first);
        let third = read(&bodies, c, 2 << 20).unwrap();
        drop((second, third));
        // One body of any size.
        let whole = read(&bodies, a, 8 << 20).unwrap();
        assert!(read(&bodies, b, 2 << 20).is_none());
        drop(whole);
        read(&bodies, b, 2 << 20).unwrap();
    }

    #[tokio::test]
    async fn v2_small_bodies_do_not_wait_for_large_ones() {
        let bodies = bodies();
        let [a, b] = ["a", "b"].map(CallerId::of_token);
        let large = read(&bodies, a, 8 << 20).unwrap();
        let small = [
            read(&bodies, a, 1 << 20).unwrap(),
            read(&bodies, b, 1000).unwrap(),
        ];
        assert!(read(&bodies, a, 1).is_none(), "it has half of two MiB");
        drop((large, small));
    }

    #[tokio::test]
    async fn v2_a_body_in_pieces_takes_its_room_as_it_comes() {
        let bodies = bodies();
        let caller = CallerId::of_token("a");
        let pieces = || {
            let pieces = (0..8).map(|n| Ok::<_, std::io::Error>(Bytes::from(vec![n; 1 << 20])));
            Body::from_stream(futures_util::stream::iter(pieces))
        };
        let (bytes, held) = bodies.read(caller, 8 << 20, &mut pieces()).await.unwrap();
        assert_eq!((bytes.len(), bytes[0], bytes[8_388_607]), (8 << 20, 0, 7));
        let waits = bodies.read(caller, 8 << 20, &mut pieces()).now_or_never();
        assert!(waits.is_none(), "{waits:?}");
        drop(held);
        let refused = bodies.read(caller, (8 << 20) - 1, &mut pieces()).await;
        assert!(matches!(refused, Err(BadBody::TooLarge(_))), "{refused:?}");
        bodies.read(caller, 8 << 20, &mut pieces()).await.unwrap();
    }
}
