//! The soak: one server for a long time, an honest client and one moderate attacker after the other, with a rest after each. What
//! it has at rest must not grow with the time.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use crate::{
    attack::{ALL, Attack},
    held::MEMORY,
    honest::{self, Ledger, Seen},
    process::{Place, Sample},
    result::Result,
    round::{Attacker, END},
};

const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Of one attacker.
const ATTACK: Duration = Duration::from_secs(20);
/// Without one after it: longer than a thread of the server waits for work.
const REST: Duration = Duration::from_secs(12);
/// Of 100.
const STRENGTH: usize = 25;
/// Bytes of page history that the server is told to keep, so that it has to let go of some.
const KEEP: u64 = 256 << 20;
/// WAL, all databases together: what readers may pin of one, twice.
const WAL: u64 = 256 << 20;

/// What is compared: its name, what it is, how much larger it may be at the end than at the beginning, and what it never is.
type Figure = (&'static str, fn(&Sample) -> u64, u64, u64);
const FIGURES: [Figure; 5] = [
    ("RSS MB", |s| s.rss / 1_000_000, 60, MEMORY / 1_000_000),
    ("descriptors", |s| s.descriptors, 100, 1024),
    ("threads", |s| s.threads, 40, 600),
    ("WAL MB", |s| s.wal / 1_000_000, u64::MAX, WAL / 1_000_000),
    (
        "history MB",
        |s| s.history / 1_000_000,
        u64::MAX,
        (KEEP + KEEP / 2) / 1_000_000,
    ),
];

/// Runs it, and says what was not held.
pub(crate) async fn run(place: &Place, ledger: &Arc<Ledger>, minutes: f64, seed: u64) -> Result<Vec<String>> {
    let keep = KEEP.to_string();
    let mut server = place.start(&["--retain-bytes", &keep])?;
    let seen = Arc::new(Seen::default());
    let mut client = honest::start(server.addr, ledger, &seen);
    let until = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let (mut samples, mut at_rest, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    let attacks: Vec<&Attack> = ALL.iter().filter(|attack| attack.name != "disk").collect();
    let (mut attacker, mut since, mut n) = (None, Instant::now(), 0);
    let mut requests = 0;
    let mut next_sample = Instant::now() + SAMPLE_EVERY;
    while Instant::now() < until {
        match &attacker {
            None if since.elapsed() >= REST => {
                at_rest.push(server.sample(place));
                let attack = attacks[n % attacks.len()];
                (n, since) = (n + 1, Instant::now());
                attacker = Some(Attacker::start(
                    attack,
                    &server,
                    place,
                    seed + n as u64,
                    STRENGTH,
                )?);
            }
            Some(attacking) if since.elapsed() >= ATTACK => {
                requests += attacking.requests.load(SeqCst);
                wrong.extend(attacking.breaches.lock().drain(..));
                (attacker, since) = (None, Instant::now());
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        if Instant::now() >= next_sample {
            next_sample += SAMPLE_EVERY;
            let sample = server.sample(place);
            samples.push(sample);
            if let Some(ended) = server.ended() {
                wrong.push(ended);
                break;
            }
        }
    }
    seen.end();
    server.signal("TERM")?;
    let ended = server.wait(END * 2).await?;
    client.shutdown().await;
    drop(attacker);
    if ended > END {
        wrong.push(format!("SIGTERM took {ended:?}"));
    }
    let again = place.start(&[])?;
    let lost = honest::lost(again.addr, ledger).await?;
    again.signal("TERM")?;
    again.wait(END).await?;
    if lost > 0 {
        wrong.push(format!("{lost} acknowledged rows are lost"));
    }
    if seen.failed() > 0 {
        wrong.push(format!("{} requests of the honest client failed", seen.failed()));
        wrong.extend(seen.failures());
    }
    let (p99, of) = seen.p99();
    println!(
        "{minutes} minutes, {n} attacks with {requests} requests; honest requests {}, failed {}, sent again {}, p99 {} ms ({of}); rows \
         acknowledged {}; SIGTERM {:.2} s\n",
        seen.requests(),
        seen.failed(),
        seen.again.load(SeqCst),
        p99.as_millis(),
        ledger.acknowledged.lock().len(),
        ended.as_secs_f64()
    );
    wrong.extend(judge(&at_rest, &samples, attacks.len()));
    Ok(wrong)
}

/// Prints the figures, and says which are not bounded. Databases that were asked for stay open, as many as may: where there was time for
/// it, what is compared is what the server had after each attacker had been there, of whom there are `attackers`.
fn judge(at_rest: &[Sample], all: &[Sample], attackers: usize) -> Vec<String> {
    let tenth = (at_rest.len() / 10).max(1).min(at_rest.len());
    let begin = match at_rest.len() >= attackers + 2 * tenth {
        true => attackers,
        false => 0,
    };
    let mean = |some: &[Sample], of: fn(&Sample) -> u64| {
        some.iter().map(of).sum::<u64>() / (some.len() as u64).max(1)
    };
    let mut wrong = Vec::new();
    println!("| | at rest, first tenth | after {begin} attacks | last tenth | maximum |");
    println!("|---|---|---|---|---|");
    for (name, of, growth, bound) in FIGURES {
        let fresh = mean(&at_rest[..tenth], of);
        let first = mean(&at_rest[begin..begin + tenth], of);
        let last = mean(&at_rest[at_rest.len() - tenth..], of);
        let peak = all.iter().map(of).max().unwrap_or(0);
        println!("| {name} | {fresh} | {first} | {last} | {peak} |");
        if last > first.saturating_add(growth) || peak >= bound {
            wrong.push(format!("{name} is not bounded: {first}, {last}, at most {peak}"));
        }
    }
    let peak = all.iter().map(|sample| sample.rss_peak).max().unwrap_or(0);
    println!("\nRSS peak {} MB", peak / 1_000_000);
    if peak >= MEMORY {
        wrong.push(format!("it had {} MB of memory", peak / 1_000_000));
    }
    wrong
}
