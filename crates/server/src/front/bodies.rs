//! Bodies of requests, within a budget of bytes for all that are being received or answered.
//!
//! A body that says its length takes all of it before its first byte is read. Another takes what a small one may have, and
//! what it needs when it grows larger: who has a part of the large ones' never waits for the rest, which another one who
//! waits may have. Bodies of up to 1 MiB have a budget of their own, so that a pull never waits for large pushes; those of up
//! to 16 KiB, which most are, wait for nothing.
//!
//! One caller has at most a quarter of each, or one body. What a body takes counts until the last of its bytes is dropped, wherever they are.

use std::{collections::HashMap, future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use hyper::body::Body as _;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{coding::Coding, pieces::counted};
use crate::{access::CallerId, limits::Limits};

/// The largest body that does not count: as many as there may be requests take less than the budget of small ones.
const TINY: usize = 16 << 10;
/// The largest body that has nothing to do with the budget of the large ones.
const SMALL: usize = 1 << 20;
/// What one permit of a budget stands for.
const UNIT: usize = 1 << 10;
/// Bytes a second at which a body may arrive however long it is.
const SLOWEST: f64 = 16384.0;
/// Bodies that wait for room at the same time: what came of them already is in memory too.
const WAITING: usize = 256;
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
    waiting: Semaphore,
    time: Duration,
}

/// Why a body was not read.
#[derive(Debug)]
pub(crate) enum BadBody {
    /// It is or would be larger than this.
    TooLarge(usize),
    /// It broke off.
    Broken,
    /// It is not in the coding that it is said to be in, or ended within it.
    Unreadable,
    /// It took too long.
    Late,
    /// There was no room for it in time.
    NoRoom,
}

/// What a body has of the budgets.
#[derive(Debug, Default)]
struct Held {
    small: Share,
    large: Share,
}

impl Bodies {
    pub(crate) fn new(limits: &Limits) -> Self {
        let large = limits.bodies.max(limits.body);
        Self {
            small: Budget::new((large / 4).max(SMALL)),
            large: Budget::new(large),
            waiting: Semaphore::new(WAITING),
            time: limits.body_time,
        }
    }

    /// Reads a body of at most `limit` bytes, those that it has without its coding: they are what counts, while they are made.
    pub(crate) async fn read(
        &self,
        caller: CallerId,
        limit: usize,
        coding: Coding,
        body: &mut Body,
    ) -> Result<Bytes, BadBody> {
        let hint = body.size_hint();
        let length = usize::try_from(hint.lower()).unwrap_or(usize::MAX);
        if length > limit {
            return Err(BadBody::TooLarge(limit));
        }
        let room = match (hint.exact(), coding) {
            (Some(_), Coding::Identity) => length,
            // Of which the window of a decoder is a part.
            _ => length.max(SMALL),
        };
        let mut held = Held::default();
        if room > TINY && !self.has_room(&mut held, caller, room) {
            let _waits = self.waiting.try_acquire().map_err(|_| BadBody::NoRoom)?;
            tokio::time::timeout(self.time, self.wait(&mut held, caller, room))
                .await
                .map_err(|_| BadBody::NoRoom)?;
        }
        let bytes = self.arrive(caller, limit, coding, body, &mut held).await?;
        held.small.shrink(bytes.len());
        Ok(counted(bytes, held))
    }

    async fn arrive(
        &self,
        caller: CallerId,
        limit: usize,
        coding: Coding,
        body: &mut Body,
        held: &mut Held,
    ) -> Result<Bytes, BadBody> {
        let length = usize::try_from(body.size_hint().lower()).unwrap_or(0);
        let (mut first, mut whole, mut size) = (Bytes::new(), BytesMut::new(), 0);
        let mut decoder = coding.decoder();
        let mut left = self.time;
        loop {
            let waits = Instant::now();
            let next = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
            let next = tokio::time::timeout(left, next)
                .await
                .map_err(|_| BadBody::Late)?;
            let Some(frame) = next else { break };
            let Ok(piece) = frame.map_err(|_| BadBody::Broken)?.into_data() else {
                continue;
            };
            let earned = Duration::from_secs_f64(piece.len() as f64 / SLOWEST);
            left = (left.saturating_sub(waits.elapsed()) + earned).min(self.time);
            decoder.push(piece);
            while let Some(piece) = decoder.next_piece().map_err(|_| BadBody::Unreadable)? {
                size += piece.len();
                if size > limit {
                    return Err(BadBody::TooLarge(limit));
                }
                if size > SMALL && !self.outgrow(held, caller, size).await {
                    return Err(BadBody::NoRoom);
                }
                if first.is_empty() {
                    first = piece;
                    continue;
                }
                if whole.is_empty() {
                    whole.reserve(length.max(size));
                    whole.extend_from_slice(&first);
                }
                whole.extend_from_slice(&piece);
                // A little can become much, which no other request is to wait for.
                tokio::task::consume_budget().await;
            }
        }
        if !decoder.is_at_end() {
            return Err(BadBody::Unreadable);
        }
        // Most bodies are one piece, and are not copied.
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    }

    /// Gives `held` what a body of `size` bytes needs, if it is there.
    fn has_room(&self, held: &mut Held, caller: CallerId, size: usize) -> bool {
        let (budget, share) = match size {
            0..=SMALL => (&self.small, &mut held.small),
            _ => (&self.large, &mut held.large),
        };
        let has = budget.grow(share, caller, size);
        if !has {
            *share = Share::default();
        }
        has
    }

    /// Gives `held` what a body of `size` bytes needs.
    async fn wait(&self, held: &mut Held, caller: CallerId, size: usize) {
        match size {
            0..=SMALL => self.small.wait(&mut held.small, caller, size).await,
            _ => self.large.wait(&mut held.large, caller, size).await,
        }
    }

    /// The same for a body that turned out to be larger. It waits only while it has nothing that another one could wait for.
    async fn outgrow(&self, held: &mut Held, caller: CallerId, size: usize) -> bool {
        if held.large.of_all.is_some() {
            return self.large.grow(&mut held.large, caller, size);
        }
        let waiting = self.large.wait(&mut held.large, caller, size);
        let waited = tokio::time::timeout(self.time, waiting).await.is_ok();
        held.small = Share::default();
        waited
    }
}

/// So many bytes, of which one caller has at most a quarter, or one body.
#[derive(Debug)]
struct Budget {
    units: u32,
    most_of_caller: u32,
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
        let units = units(bytes);
        Self {
            units,
            most_of_caller: (units / 4).max(1),
            all: Arc::new(Semaphore::new(units as usize)),
            callers: Mutex::default(),
        }
    }

    /// What a body of so many bytes has of its caller's part, and of all.
    fn parts(&self, size: usize) -> (u32, u32) {
        (units(size).min(self.most_of_caller), units(size).min(self.units))
    }

    /// For a share that has nothing yet.
    async fn wait(&self, share: &mut Share, caller: CallerId, size: usize) {
        let (of_caller, of_all) = self.parts(size);
        // Nobody closes these semaphores.
        let taken = self.caller(caller).acquire_many_owned(of_caller).await;
        share.of_caller = taken.ok();
        share.of_all = Arc::clone(&self.all).acquire_many_owned(of_all).await.ok();
    }

    fn grow(&self, share: &mut Share, caller: CallerId, size: usize) -> bool {
        let (of_caller, of_all) = self.parts(size);
        more(&mut share.of_caller, of_caller, || self.caller(caller))
            && more(&mut share.of_all, of_all, || Arc::clone(&self.all))
    }

    fn caller(&self, caller: CallerId) -> Arc<Semaphore> {
        let mut callers = self.callers.lock();
        if callers.len() >= REMEMBERED {
            callers.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let made = callers.entry(caller);
        Arc::clone(made.or_insert_with(|| Arc::new(Semaphore::new(self.most_of_caller as usize))))
    }
}

impl Share {
    /// Gives back what is beyond `size`.
    fn shrink(&mut self, size: usize) {
        for permit in [&mut self.of_caller, &mut self.of_all].into_iter().flatten() {
            let surplus = permit.num_permits().saturating_sub(units(size) as usize);
            drop(permit.split(surplus));
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// Makes `permit` as large as `units`, if there are as many.
fn more(permit: &mut Option<OwnedSemaphorePermit>, units: u32, of: impl FnOnce() -> Arc<Semaphore>) -> bool {
    let has = permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let more = units.saturating_sub(u32::try_from(has).unwrap_or(u32::MAX));
    if more == 0 {
        return true;
    }
    let Ok(taken) = of().try_acquire_many_owned(more) else {
        return false;
    };
    match permit {
        Some(permit) => permit.merge(taken),
        None => *permit = Some(taken),
    }
    true
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
    use partial_sync_transport::wire::BODY_WINDOW_LOG;

    use super::*;

    fn bodies() -> Bodies {
        Bodies::new(&Limits {
            body: 8 << 20,
            bodies: 8 << 20,
            ..Limits::default()
        })
    }

    /// Reads a body for which there is room now.
    fn read(bodies: &Bodies, caller: CallerId, size: usize) -> Option<Bytes> {
        let mut body = Body::from(vec![1; size]);
        let bytes = bodies
            .read(caller, usize::MAX, Coding::Identity, &mut body)
            .now_or_never()?
            .unwrap();
        assert_eq!(bytes.len(), size);
        Some(bytes)
    }

    /// A body of so many bytes, which does not say its length.
    fn pieces(sizes: impl IntoIterator<Item = usize, IntoIter: Send + 'static>, pause: Duration) -> Body {
        let pieces = sizes
            .into_iter()
            .map(|size| Ok::<_, std::io::Error>(Bytes::from(vec![2; size])));
        Body::from_stream(futures_util::stream::iter(pieces).then(move |piece| async move {
            tokio::time::sleep(pause).await;
            piece
        }))
    }

    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn v2_one_caller_has_a_quarter_of_the_budget_or_one_body() {
        let bodies = bodies();
        let [a, b, c] = ["a", "b", "c"].map(CallerId::of_token);
        let first = read(&bodies, a, 3 * MIB).unwrap();
        assert!(read(&bodies, a, 2 * MIB).is_none());
        let second = read(&bodies, b, 4 * MIB).unwrap();
        assert!(read(&bodies, c, 2 * MIB).is_none(), "there is one MiB left");
        drop(first);
        let third = read(&bodies, c, 2 * MIB).unwrap();
        drop((second, third));
        // One body of any size.
        let whole = read(&bodies, a, 8 * MIB).unwrap();
        assert!(read(&bodies, b, 2 * MIB).is_none());
        // It counts as long as there is a part of it.
        let part = whole.slice(..1);
        drop(whole);
        assert!(read(&bodies, b, 2 * MIB).is_none());
        drop(part);
        read(&bodies, b, 2 * MIB).unwrap();
    }

    /// A compressed body counts as what it stands for.
    #[tokio::test]
    async fn v2_a_compressed_body_counts_with_the_bytes_that_it_stands_for() {
        let bodies = bodies();
        let [a, b] = ["a", "b"].map(CallerId::of_token);
        let pack_with = |window, size| {
            let mut packer = zstd::bulk::Compressor::new(3).unwrap();
            packer.window_log(window).unwrap();
            packer.compress(&vec![0; size]).unwrap()
        };
        let pack = |size| pack_with(BODY_WINDOW_LOG, size);
        let packed = pack(7 * MIB);
        assert!(packed.len() < TINY);
        let read_packed = async |caller, limit, packed: &[u8]| {
            let mut body = Body::from(packed.to_vec());
            bodies.read(caller, limit, Coding::Zstd, &mut body).await
        };
        let held = read_packed(a, 8 * MIB, &packed).await.unwrap();
        assert_eq!(held.len(), 7 * MIB);
        assert!(read(&bodies, b, 2 * MIB).is_none(), "there is one MiB left");
        drop(held);
        read(&bodies, b, 2 * MIB).unwrap();
        let refused = read_packed(a, 7 * MIB - 1, &packed).await;
        assert!(matches!(refused, Err(BadBody::TooLarge(_))), "{refused:?}");
        let wide = pack_with(BODY_WINDOW_LOG + 1, 4 * MIB);
        let short = pack(TINY);
        let two = [short.clone(), short.clone()].concat();
        for wrong in [&short[..short.len() - 1], &[][..], &two, b"{}", &wide] {
            let refused = read_packed(a, 8 * MIB, wrong).await;
            assert!(matches!(refused, Err(BadBody::Unreadable)), "{refused:?}");
        }
        // In pieces of one byte, and of nothing.
        for size in [0, 1, SMALL, SMALL + 1, 3 * super::super::PIECE] {
            let bytes = pack(size);
            let one = bytes
                .into_iter()
                .map(|byte| Ok::<_, std::io::Error>(Bytes::from(vec![byte])));
            let mut body = Body::from_stream(futures_util::stream::iter(one));
            let read = bodies.read(a, 8 * MIB, Coding::Zstd, &mut body).await.unwrap();
            assert_eq!(read.len(), size);
        }
    }

    #[tokio::test]
    async fn v2_small_bodies_do_not_wait_for_large_ones() {
        let bodies = bodies();
        let [a, b] = ["a", "b"].map(CallerId::of_token);
        let large = read(&bodies, a, 8 * MIB).unwrap();
        let small = [read(&bodies, a, MIB).unwrap(), read(&bodies, b, 1000).unwrap()];
        assert!(
            read(&bodies, a, TINY + 1).is_none(),
            "it has more than a quarter of two MiB"
        );
        drop((large, small));
    }

    /// Was red: two callers whose bodies came slowly had all of the room, and a request of a few bytes waited for it.
    #[tokio::test]
    async fn v2_bodies_of_a_few_bytes_wait_for_nothing() {
        let bodies = bodies();
        let callers: Vec<_> = ["a", "b", "c", "d", "e"].map(CallerId::of_token).into();
        let held: Vec<_> = callers
            .iter()
            .filter_map(|caller| read(&bodies, *caller, MIB))
            .collect();
        assert_eq!(held.len(), 2, "that is all of it");
        let refused = (0..2 * WAITING).map(|_| {
            bodies
                .read(callers[2], MIB, Coding::Identity, &mut Body::from(vec![0; MIB]))
                .now_or_never()
        });
        assert!(
            refused.flatten().next().is_none(),
            "a body that is given up waits no more"
        );
        for caller in callers {
            assert!(read(&bodies, caller, TINY).is_some());
        }
    }

    /// Was red: what had come of each was in memory, and however many there were waited.
    #[tokio::test]
    async fn v2_only_so_many_bodies_wait_for_room() {
        let bodies = bodies();
        let caller = CallerId::of_token("a");
        let held = read(&bodies, caller, MIB).unwrap();
        let mut waiting = Vec::new();
        let refused = loop {
            let mut read = Box::pin(async {
                bodies
                    .read(caller, MIB, Coding::Identity, &mut Body::from(vec![0; MIB]))
                    .await
            });
            match (&mut read).now_or_never() {
                None => waiting.push(read),
                Some(refused) => break refused,
            }
        };
        assert!(matches!(refused, Err(BadBody::NoRoom)), "{refused:?}");
        assert_eq!(waiting.len(), WAITING);
        drop(held);
        waiting.swap_remove(0).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn v2_a_body_in_pieces_takes_its_room_as_it_comes() {
        let bodies = bodies();
        let caller = CallerId::of_token("a");
        let whole = || pieces([MIB; 8], Duration::ZERO);
        let bytes = bodies
            .read(caller, 8 * MIB, Coding::Identity, &mut whole())
            .await
            .unwrap();
        assert_eq!(bytes.len(), 8 * MIB);
        let waits = bodies.read(caller, 8 * MIB, Coding::Identity, &mut whole()).await;
        assert!(matches!(waits, Err(BadBody::NoRoom)), "{waits:?}");
        drop(bytes);
        let refused = bodies
            .read(caller, 8 * MIB - 1, Coding::Identity, &mut whole())
            .await;
        assert!(matches!(refused, Err(BadBody::TooLarge(_))), "{refused:?}");
        // A small one keeps no more than it turned out to have.
        let mut small = pieces([1000, 24], Duration::ZERO);
        let small = bodies
            .read(caller, MIB, Coding::Identity, &mut small)
            .await
            .unwrap();
        assert!(
            read(&bodies, caller, MIB).is_none(),
            "it has a quarter of two MiB"
        );
        assert!(read(&bodies, caller, MIB / 2 - 1024).is_some());
        drop(small);
        bodies
            .read(caller, 8 * MIB, Coding::Identity, &mut whole())
            .await
            .unwrap();
    }

    /// Was red: each waited for what the other one had, until both had taken too long.
    #[tokio::test(start_paused = true)]
    async fn v2_bodies_in_pieces_do_not_wait_for_each_other() {
        let bodies = Bodies::new(&Limits {
            body: 32 * MIB,
            bodies: 32 * MIB,
            ..Limits::default()
        });
        let caller = CallerId::of_token("a");
        let began = Instant::now();
        // They take turns, and fit into a quarter of the budget one at a time.
        let read = async |n: u64| {
            let mut body = pieces([MIB; 7], Duration::from_millis(100 + n));
            let bytes = bodies.read(caller, 32 * MIB, Coding::Identity, &mut body).await?;
            Ok::<_, BadBody>(bytes.len())
        };
        let both = tokio::join!(read(0), read(1));
        assert!(matches!(both, (Err(BadBody::NoRoom), Ok(_))), "{both:?}");
        assert!(began.elapsed() < Duration::from_secs(1));
    }

    /// Was red: whatever took more than a minute was refused, also from a client with a slow line.
    #[tokio::test(start_paused = true)]
    async fn v6_a_body_may_take_long_if_it_keeps_coming() {
        let bodies = bodies();
        let caller = CallerId::of_token("a");
        let mut slow = pieces([16 << 10; 100], Duration::from_millis(990));
        assert_eq!(
            bodies
                .read(caller, 8 * MIB, Coding::Identity, &mut slow)
                .await
                .unwrap()
                .len(),
            100 * (16 << 10)
        );
        for mut late in [
            pieces([1; 100], Duration::from_secs(2)),
            pieces([16 << 10; 2], Duration::from_secs(61)),
        ] {
            let late = bodies.read(caller, 8 * MIB, Coding::Identity, &mut late).await;
            assert!(matches!(late, Err(BadBody::Late)), "{late:?}");
        }
    }
}
