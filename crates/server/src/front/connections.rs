//! Which connections are open. There is a limit for all of them and one for those from one address; at a limit, one for which nothing
//! is being done makes room for the new one: the one that has been idle for longest, or if there is none, one whose long polls wait, or one
//! whose client keeps the server waiting. It is one of the address that has the most of these, so that those who open many
//! make room for each other, and not those who come with one; and it is not one of an address that has fewer than that of the
//! new one. What had to make room holds its socket until it is closed: sockets are counted until then, and have a limit of their own.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr, pin::pin, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{activity::Activity, descriptors};
use crate::{access::CallerId, limits::Limits};

/// The open connections of a server.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: Limits,
    open: Mutex<Open>,
    /// A socket was closed.
    closed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    /// Those that have not been told to make room.
    by_number: HashMap<u64, (CallerId, Arc<Activity>)>,
    from: HashMap<CallerId, usize>,
    next: u64,
    /// All that are not closed yet.
    sockets: usize,
}

impl Connections {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let mut limits = limits.clone();
        if let Some(descriptors) = descriptors::allowed() {
            let half = usize::try_from(descriptors / 2).unwrap_or(usize::MAX);
            limits.connections = limits.connections.min(half.max(1));
        }
        // One address does not take all of them.
        let half = limits.connections.div_ceil(2);
        limits.connections_per_address = limits.connections_per_address.min(half);
        Arc::new(Self {
            limits,
            open: Mutex::default(),
            closed: Notify::new(),
        })
    }

    /// How many sockets there may be: half as many again as connections, for those that are being closed.
    fn most_sockets(&self) -> usize {
        let connections = self.limits.connections;
        connections + connections.div_ceil(2)
    }

    /// Waits until there is room for another socket.
    pub(crate) async fn room(&self) {
        loop {
            let mut closed = pin!(self.closed.notified());
            closed.as_mut().enable();
            if self.open.lock().sockets < self.most_sockets() {
                return;
            }
            closed.await;
        }
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.open.lock().by_number.len()
    }

    /// A new one; `None` = there is no room: the server works for all that could make it, or they are not closed yet.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Entered> {
        let from = CallerId::of_peer(address);
        let mut open = self.open.lock();
        if open.sockets >= self.most_sockets() {
            return None;
        }
        let mine = open.from.get(&from).copied().unwrap_or(0);
        if mine >= self.limits.connections_per_address {
            open.evict(|of, _| of == from)?;
        } else if open.by_number.len() >= self.limits.connections {
            open.evict(|_, theirs| theirs >= mine)?;
        }
        let number = open.next;
        open.next += 1;
        let activity = Activity::new(&self.limits);
        open.by_number.insert(number, (from, Arc::clone(&activity)));
        *open.from.entry(from).or_default() += 1;
        open.sockets += 1;
        Some(Entered {
            connections: Arc::clone(self),
            number,
            activity,
        })
    }

    /// Closes those from these addresses, as soon as they have no request under way.
    pub(crate) fn close_from(&self, addresses: &[CallerId]) {
        let open = self.open.lock();
        let from = open
            .by_number
            .values()
            .filter(|(from, _)| addresses.contains(from));
        from.for_each(|(_, activity)| activity.close());
    }

    /// The server stops: those that have no request under way are closed soon, whatever their clients do.
    pub(crate) fn stop(&self) {
        let open = self.open.lock();
        open.by_number.values().for_each(|(_, activity)| activity.stop());
    }

    /// Closes the one that has been idle for longest: the process has no descriptors left.
    pub(crate) fn make_room(&self) {
        self.open.lock().evict(|_, _| true);
    }
}

impl Open {
    /// Among those whose address, and the number of its connections, are meant.
    fn evict(&mut self, among: impl Fn(CallerId, usize) -> bool) -> Option<()> {
        let count = |from| self.from.get(from).copied().unwrap_or(0);
        let idle = self.by_number.iter();
        let idle = idle.filter(|(_, (from, _))| among(*from, count(from)));
        let idle: Vec<_> = idle
            .filter_map(|(number, (from, activity))| Some((*from, activity.worth()?, *number)))
            .collect();
        // Those that are idle after a request that was let in do not count: a proxy, or a whole office, may have many.
        let mut burden: HashMap<CallerId, usize> = HashMap::new();
        for (from, worth, _) in &idle {
            *burden.entry(*from).or_default() += usize::from(!worth.is_known_and_idle());
        }
        let first = idle
            .into_iter()
            .min_by_key(|(from, worth, number)| (Reverse(burden[from]), *worth, *number));
        let (_, worth, number) = first?;
        if let Some(activity) = self.remove(number) {
            activity.evict(worth);
        }
        Some(())
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Activity>> {
        let (from, activity) = self.by_number.remove(&number)?;
        if let Some(count) = self.from.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.from.remove(&from);
            }
        }
        Some(activity)
    }
}

/// An open connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    connections: Arc<Connections>,
    number: u64,
    pub activity: Arc<Activity>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        open.remove(self.number);
        open.sockets -= 1;
        drop(open);
        self.connections.closed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn connections(most: usize) -> Arc<Connections> {
        Connections::new(&Limits {
            connections: most,
            connections_per_address: most,
            ..Limits::default()
        })
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    /// Was red: connections that had been told to make room left the count, and their sockets took the descriptors of databases.
    #[tokio::test]
    async fn v6_connections_that_make_room_count_until_they_are_closed() {
        let connections = connections(4);
        let mut entered: Vec<_> = (0..6).map(|n| connections.enter(address(n)).unwrap()).collect();
        assert_eq!(connections.count(), 4);
        assert!(connections.enter(address(9)).is_none());
        let mut room = pin!(connections.room());
        assert!(room.as_mut().now_or_never().is_none());
        drop(entered.remove(0));
        room.await;
        assert!(connections.enter(address(9)).is_some());
    }

    /// Was red: those who opened many took the place of those who had one, as soon as these were the only ones that did nothing.
    #[tokio::test]
    async fn v6_who_has_many_does_not_take_the_place_of_who_has_few() {
        let connections = connections(8);
        let few = connections.enter(address(1)).unwrap();
        // All others are at work: three of the second address, four of the third.
        let busy: Vec<_> = [2, 2, 2, 3, 3, 3, 3]
            .into_iter()
            .map(|n| {
                let entered = connections.enter(address(n)).unwrap();
                let request = entered.activity.request(hyper::Version::HTTP_11);
                let works = entered.activity.work();
                (entered, request, works)
            })
            .collect();
        assert!(connections.enter(address(2)).is_none());
        assert_eq!(connections.count(), 8, "that of the first is idle, and stays");
        assert!(connections.enter(address(4)).is_some());
        drop((few, busy));
    }

    /// Was red: a request that came in the moment in which its connection had to go kept its socket for as long as its client liked.
    #[tokio::test(start_paused = true)]
    async fn v6_who_has_to_make_room_and_then_keeps_the_server_waiting_is_closed() {
        let connections = connections(1);
        let first = connections.enter(address(1)).unwrap();
        let _second = connections.enter(address(1)).unwrap();
        let half = first.activity.request(hyper::Version::HTTP_11);
        let works = first.activity.work();
        let mut closed = pin!(first.activity.overdue());
        let hour = std::time::Duration::from_secs(3600);
        let worked = tokio::time::timeout(hour, closed.as_mut()).await;
        assert!(worked.is_err(), "the server works on its request");
        drop(works);
        let made_room = tokio::time::timeout(hour, closed).await;
        assert_eq!(made_room, Ok("it made room for another"));
        drop(half);
    }
}
