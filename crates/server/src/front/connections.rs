//! Which connections are open. There is a limit for all of them and one for those from one address; at a limit, one for which nothing
//! is being done makes room for the new one: the one that has been idle for longest, or if there is none, one whose long polls wait, or one
//! whose client keeps the server waiting. It is one of the address that has the most of these, so that those who open many
//! make room for each other, and not those who come with one.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use super::{activity::Activity, descriptors};
use crate::{access::CallerId, limits::Limits};

/// The open connections of a server.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: Limits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_number: HashMap<u64, (CallerId, Arc<Activity>)>,
    from: HashMap<CallerId, usize>,
    next: u64,
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
        })
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.open.lock().by_number.len()
    }

    /// A new one; `None` = there is no room, and the server works for all that are open.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Entered> {
        let from = CallerId::of_peer(address);
        let mut open = self.open.lock();
        if open.from.get(&from).copied().unwrap_or(0) >= self.limits.connections_per_address {
            open.evict(|of| of == from)?;
        } else if open.by_number.len() >= self.limits.connections {
            open.evict(|_| true)?;
        }
        let number = open.next;
        open.next += 1;
        let activity = Activity::new(&self.limits);
        open.by_number.insert(number, (from, Arc::clone(&activity)));
        *open.from.entry(from).or_default() += 1;
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

    /// Closes the one that has been idle for longest: the process has no descriptors left.
    pub(crate) fn make_room(&self) {
        self.open.lock().evict(|_| true);
    }
}

impl Open {
    fn evict(&mut self, among: impl Fn(CallerId) -> bool) -> Option<()> {
        let idle = self.by_number.iter().filter(|(_, (from, _))| among(*from));
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
        self.connections.open.lock().remove(self.number);
    }
}
