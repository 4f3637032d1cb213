//! Replays the committed corpora and the generated seeds, so that what a fuzzer once found stays mended.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use partial_sync_fuzz::{TARGETS, seeds};

/// Some targets have one folder, and a replica's name is taken once in a process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A panic inside a target does not say which input it was.
struct Running(String);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input was {}", self.0);
        }
    }
}

#[test]
fn invariant_11_every_target_takes_its_seeds() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, body) in TARGETS {
        let seeds = seeds::of(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for (n, seed) in seeds.iter().enumerate() {
            let _running = Running(format!("seed {n} of {name}"));
            body(seed);
        }
        let _running = Running(format!("nothing, to {name}"));
        body(&[]);
    }
}

#[test]
fn invariant_11_every_target_takes_its_corpus() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, body) in TARGETS {
        let mut files = 0;
        for entry in
            std::fs::read_dir(corpora.join(name)).unwrap_or_else(|e| panic!("the corpus of {name}: {e}"))
        {
            let path = entry.unwrap().path();
            let _running = Running(path.display().to_string());
            body(&std::fs::read(&path).unwrap());
            files += 1;
        }
        assert!(files > 0, "the corpus of {name} is empty");
    }
}

#[test]
fn every_corpus_has_a_target() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for entry in std::fs::read_dir(corpora).unwrap() {
        let name = entry.unwrap().file_name();
        let name = name.to_str().unwrap();
        assert!(
            partial_sync_fuzz::target(name).is_some(),
            "{name} is not a target"
        );
    }
}
