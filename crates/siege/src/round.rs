//! One round: the server is started, an attacker abuses it beside the honest client, and it is ended in the middle of it, by
//! SIGTERM or SIGKILL. Then it is started again, and every row that was acknowledged must be there.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use parking_lot::Mutex;

use crate::{
    attack::Attack,
    honest::{self, Ledger, Seen},
    process::{self, Place, Sample, Server},
    result::Result,
};

/// Between two looks at the process.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The honest client is at work before the attack begins.
const WARM: Duration = Duration::from_millis(700);
/// In which a server has to end.
pub(crate) const END: Duration = Duration::from_secs(10);
const MUST_END: Duration = Duration::from_secs(20);
/// What of a breach is told.
const TOLD: usize = 5;

/// The process of an attacker, which ends with this, and with it all that it has started.
pub(crate) struct Attacker {
    process: Child,
    pub requests: Arc<AtomicU64>,
    pub breaches: Arc<Mutex<Vec<String>>>,
}

impl Attacker {
    pub(crate) fn start(
        attack: &Attack,
        server: &Server,
        place: &Place,
        seed: u64,
        strength: usize,
    ) -> Result<Self> {
        let mut process = Command::new("nice")
            .args(["-n", "4"])
            .arg(std::env::current_exe()?)
            .args(["--attack", attack.name, "--addr", &server.addr.to_string()])
            .args(["--pid", &server.id().to_string(), "--seed", &seed.to_string()])
            .args(["--strength", &strength.to_string(), "--binary"])
            .arg(&place.binary)
            .arg("--folder")
            .arg(&place.beside)
            .arg("--data")
            .arg(&place.data)
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let out = process.stdout.take().ok_or("no output")?;
        let (requests, breaches) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (count, told) = (Arc::clone(&requests), Arc::clone(&breaches));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                match line.split_once(' ') {
                    Some(("requests", n)) => count.store(n.parse().unwrap_or(0), SeqCst),
                    Some(("breach", what)) if told.lock().len() < TOLD => told.lock().push(what.to_owned()),
                    _ => {}
                }
            }
        });
        Ok(Self {
            process,
            requests,
            breaches,
        })
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        // It may be gone. What it started would go on, and keep what the next round needs.
        let _ = process::kill_group(self.process.id());
        let _ = self.process.wait();
    }
}

/// What a round, or several of one attacker, came to.
#[derive(Default)]
pub(crate) struct Outcome {
    pub rounds: u32,
    pub requests: u64,
    pub honest: usize,
    pub honest_failed: u64,
    pub again: u64,
    pub p99: Duration,
    pub p99_of: &'static str,
    pub most: Sample,
    /// The slowest end after SIGTERM.
    pub term: Duration,
    /// Whatever was not held.
    pub wrong: Vec<String>,
}

/// What a round is of.
pub(crate) struct Round<'a> {
    pub attack: &'a Attack,
    pub place: &'a Place,
    pub ledger: &'a Arc<Ledger>,
    pub seed: u64,
    /// At most.
    pub time: Duration,
    pub kill: bool,
}

impl Round<'_> {
    pub(crate) async fn run(&self, outcome: &mut Outcome) -> Result<()> {
        let mut rng = Rng::with_seed(self.seed);
        let mut server = self.place.start(&[])?;
        self.check_rows(&server, outcome).await;
        let seen = Arc::new(Seen::on_disk(self.attack.name == "disk"));
        let mut client = honest::start(server.addr, self.ledger, &seen);
        tokio::time::sleep(WARM).await;
        let attacker = Attacker::start(self.attack, &server, self.place, self.seed, 100)?;
        let until = Instant::now() + self.time.mul_f32(0.7 + 0.3 * rng.f32());
        while Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
            outcome.most = outcome.most.max(server.sample(self.place));
            if let Some(ended) = server.ended() {
                outcome.wrong.push(ended);
                break;
            }
        }
        seen.end();
        let ended = match self.kill {
            true => {
                server.signal("KILL")?;
                server.wait(MUST_END).await?;
                Duration::ZERO
            }
            false => {
                server.signal("TERM")?;
                server.wait(MUST_END).await?
            }
        };
        client.shutdown().await;
        outcome.rounds += 1;
        outcome.requests += attacker.requests.load(SeqCst);
        outcome.wrong.extend(attacker.breaches.lock().drain(..));
        drop(attacker);
        // What an attacker has filled the disk with.
        let _ = std::fs::remove_file(self.place.data.join("filler"));
        self.add(&seen, ended, outcome);
        let again = self.place.start(&[])?;
        self.check_rows(&again, outcome).await;
        again.signal("TERM")?;
        again.wait(MUST_END).await?;
        Ok(())
    }

    async fn check_rows(&self, server: &Server, outcome: &mut Outcome) {
        match honest::lost(server.addr, self.ledger).await {
            Ok(0) => {}
            Ok(lost) => outcome.wrong.push(format!("{lost} acknowledged rows are lost")),
            Err(error) => outcome
                .wrong
                .push(format!("the rows cannot be read after the start: {error}")),
        }
    }

    fn add(&self, seen: &Seen, ended: Duration, outcome: &mut Outcome) {
        outcome.honest += seen.requests();
        outcome.honest_failed += seen.failed();
        outcome.again += seen.again.load(SeqCst);
        let (p99, of) = seen.p99();
        if p99 > outcome.p99 {
            (outcome.p99, outcome.p99_of) = (p99, of);
        }
        outcome.wrong.extend(seen.failures());
        outcome.term = outcome.term.max(ended);
    }
}
