//! What every attacker needs: whom it attacks, from which addresses, and many of its kind at a time.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::task::JoinSet;

use crate::{
    ask::READERS,
    client::{Ask, Client, Reply},
    process::Place,
};

/// After a request that could not even be sent.
pub(super) const BREATH: Duration = Duration::from_millis(20);

/// Who attacks, and whom.
#[derive(Clone)]
pub(crate) struct Foe {
    pub addr: SocketAddr,
    pub place: Place,
    pub server: u32,
    pub seed: u64,
    /// How many of the tasks that an attack has, of 100.
    pub strength: usize,
    pub requests: Arc<AtomicU64>,
}

impl Foe {
    pub(crate) fn new(addr: SocketAddr, place: Place, server: u32, seed: u64, strength: usize) -> Self {
        Self {
            addr,
            place,
            server,
            seed,
            strength,
            requests: Arc::default(),
        }
    }

    /// One of ten addresses of this machine.
    pub(super) fn address(rng: &mut Rng) -> IpAddr {
        Ipv4Addr::new(127, 0, 0, rng.u8(10..20)).into()
    }

    pub(super) fn count(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(super) fn breach(what: &str) {
        println!("breach {}", what.replace('\n', " "));
    }

    /// Sends, and tells of an answer that no abuse may get.
    pub(super) async fn send(&self, client: &mut Client, ask: &Ask) -> Option<Reply> {
        let sent = client.send(ask).await;
        self.count();
        match sent {
            Ok(reply) => {
                if reply.status == 500 {
                    Self::breach(&format!("{} was answered with {}", ask.path, reply.start()));
                }
                Some(reply)
            }
            Err(_) => {
                tokio::time::sleep(BREATH).await;
                None
            }
        }
    }

    /// Runs so many tasks at a time, each with randomness of its own, for ever.
    pub(super) async fn tasks<F>(&self, tasks: usize, task: impl Fn(Foe, Rng) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tasks = (tasks * self.strength / 100).max(1);
        let mut running = JoinSet::new();
        for n in 0..tasks {
            running.spawn(task(
                self.clone(),
                Rng::with_seed(self.seed.wrapping_add(n as u64)),
            ));
        }
        while running.join_next().await.is_some() {}
    }

    /// So many clients who each send one request after the other.
    pub(super) async fn clients(
        &self,
        clients: usize,
        ask: impl Fn(&mut Rng) -> Ask + Clone + Send + 'static,
        check: fn(&Ask, &Reply),
    ) {
        self.tasks(clients, |foe, mut rng| {
            let ask = ask.clone();
            async move {
                let mut client = Client::new(foe.addr, Some(Self::address(&mut rng)));
                loop {
                    let ask = ask(&mut rng);
                    if let Some(reply) = foe.send(&mut client, &ask).await {
                        check(&ask, &reply);
                    }
                }
            }
        })
        .await;
    }
}

/// Whatever is answered is good.
pub(super) fn any(_: &Ask, _: &Reply) {}

pub(super) fn reader(rng: &mut Rng) -> &'static str {
    READERS[rng.usize(..READERS.len())]
}

/// A folder where an attacker keeps things.
pub(super) fn own(foe: &Foe) -> PathBuf {
    foe.place.beside.join("foe")
}
