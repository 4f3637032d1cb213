//! What a server is held to, and the table of what was seen.

use std::time::Duration;

use crate::{
    attack::Attack,
    round::{END, Outcome},
};

/// Bytes of memory.
pub(crate) const MEMORY: u64 = 300_000_000;
/// The 99th percentile of each kind of requests of the honest client.
const P99: Duration = Duration::from_secs(1);

impl Outcome {
    /// Everything that was not held.
    pub(crate) fn judged(&self, timed: bool) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        if self.honest == 0 {
            wrong.push("the honest client had not one answer".to_owned());
        }
        if self.honest_failed > 0 {
            wrong.push(format!(
                "{} requests of the honest client failed",
                self.honest_failed
            ));
        }
        if timed && self.p99 >= P99 {
            wrong.push(format!(
                "the honest client's p99 is {:?} ({})",
                self.p99, self.p99_of
            ));
        }
        if self.most.rss_peak >= MEMORY {
            wrong.push(format!("it had {} MB of memory", self.most.rss_peak / 1_000_000));
        }
        if self.term > END {
            wrong.push(format!("SIGTERM took {:?}", self.term));
        }
        wrong
    }
}

/// The head of the table.
pub(crate) fn print_head() {
    println!(
        "| attacker | rounds | requests | honest requests | failed | sent again | p99 ms | RSS peak MB | descriptors | threads | WAL MB | SIGTERM s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
}

/// A line of it.
pub(crate) fn print(attack: &Attack, outcome: &Outcome) {
    println!(
        "| {} | {} | {} | {} | {} | {} | {} ({}) | {} | {} | {} | {:.1} | {:.2} |",
        attack.name,
        outcome.rounds,
        outcome.requests,
        outcome.honest,
        outcome.honest_failed,
        outcome.again,
        outcome.p99.as_millis(),
        outcome.p99_of,
        outcome.most.rss_peak / 1_000_000,
        outcome.most.descriptors,
        outcome.most.threads,
        outcome.most.wal as f64 / 1e6,
        outcome.term.as_secs_f64()
    );
}
