//! Runs a history from its first step to its quiet end.

use std::sync::Once;

use parking_lot::Mutex;

use crate::{
    oracle::{Failure, UNDECIDED, guarded},
    report::Counts,
    steps::Case,
    world::World,
};

/// How a history ended.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// As it should.
    Well,
    /// The model does not know what should have happened.
    Undecided,
    /// At this line (the number of lines: at the end).
    Failed(usize, Failure),
}

/// Panics of any thread, until somebody takes them.
static PANICS: Mutex<Vec<String>> = Mutex::new(vec![]);

fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| PANICS.lock().push(info.to_string())));
    });
}

fn panicked() -> Result<(), Failure> {
    match PANICS.lock().drain(..).next() {
        Some(text) => {
            let last = text.lines().last().unwrap_or_default().to_owned();
            Err(Failure::new(format!("panic: {last}"), text))
        }
        None => Ok(()),
    }
}

/// Runs a history. One at a time in a process: panics are nobody's in particular.
pub fn run(case: &Case) -> (Verdict, Counts) {
    hear_panics();
    PANICS.lock().clear();
    let mut world = match guarded(|| World::new(case)) {
        Ok(Ok(world)) => world,
        Ok(Err(failure)) | Err(failure) => return (Verdict::Failed(0, failure), Counts::default()),
    };
    let mut verdict = Verdict::Well;
    for n in 0..=case.lines.len() {
        let done = guarded(|| match case.lines.get(n) {
            Some(line) => world.line(line),
            None => world.end_all(),
        });
        let done = done.and_then(|done| panicked().and(done));
        match done {
            Ok(()) => {}
            Err(failure) if failure.kind == UNDECIDED => {
                verdict = Verdict::Undecided;
                break;
            }
            Err(failure) => {
                verdict = Verdict::Failed(n, failure);
                break;
            }
        }
    }
    let mut counts = std::mem::take(&mut world.counts);
    // What is left of a failed history may fail again.
    let _ = guarded(|| drop(world));
    PANICS.lock().clear();
    counts.histories = 1;
    match &verdict {
        Verdict::Undecided => counts.undecided = 1,
        Verdict::Failed(_, failure) => *counts.failures.entry(failure.kind.clone()).or_default() += 1,
        Verdict::Well => {}
    }
    (verdict, counts)
}
