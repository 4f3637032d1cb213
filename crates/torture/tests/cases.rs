//! The saved lists of steps, each of which failed once, and a sample of histories from fixed seeds.

use std::{
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use partial_sync_torture::{
    generator::{Focus, generate},
    report::Counts,
    run::{Verdict, run},
    shrink::shrink,
    steps::Case,
};

/// Histories run one at a time in a process.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn every_saved_list_of_steps_ends_well() {
    let _turn = TURN.lock();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut failed = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "txt") {
            continue;
        }
        let case: Case = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        // What runs on threads beside is not the same each time.
        let free = case.lines.iter().any(|line| !line.beside.is_empty());
        for _ in 0..if free { 5 } else { 1 } {
            if let (Verdict::Failed(at, failure), _) = run(&case) {
                failed.push(format!(
                    "{}: line {at}: {}: {}",
                    path.display(),
                    failure.kind,
                    failure.detail
                ));
                break;
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_text_of_a_history_means_the_same_history() {
    for seed in 0..300 {
        let case = generate(seed, &Focus::default());
        assert_eq!(case.to_string().parse::<Case>().unwrap(), case, "seed {seed}");
    }
}

/// A bounded sample of what `scripts/torture` runs. It stops early on a slow machine.
#[test]
fn a_sample_of_histories_ends_well() {
    let _turn = TURN.lock();
    let end = Instant::now() + Duration::from_secs(75);
    let mut counts = Counts::default();
    for seed in 0..150 {
        if Instant::now() > end {
            break;
        }
        let case = generate(seed, &Focus::default());
        let (verdict, counted) = run(&case);
        counts.add(&counted);
        if let Verdict::Failed(at, failure) = verdict {
            let short = shrink(&case, &failure.kind, Duration::from_secs(60));
            // Panics are collected, and not printed, while histories run.
            println!(
                "seed {seed}, line {at}: {}: {}\n{short}",
                failure.kind, failure.detail
            );
            panic!("a history failed");
        }
    }
    println!("{counts}");
}
