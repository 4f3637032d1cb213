//! Makes a failing history short: takes steps out, larger pieces first, and keeps what still fails in the same way.

use std::time::{Duration, Instant};

use crate::{
    run::{Verdict, run},
    steps::Case,
};

/// Gives a shorter history that fails with the same kind of failure.
pub fn shrink(case: &Case, kind: &str, patience: Duration) -> Case {
    let mut shrinker = Shrinker {
        kind,
        end: Instant::now() + patience,
        best: case.clone(),
    };
    shrinker.cut_end();
    loop {
        let before = shrinker.best.clone();
        shrinker.lines();
        shrinker.company();
        shrinker.settings();
        if shrinker.best == before || shrinker.is_over() {
            return shrinker.best;
        }
    }
}

struct Shrinker<'a> {
    kind: &'a str,
    end: Instant,
    best: Case,
}

impl Shrinker<'_> {
    fn is_over(&self) -> bool {
        Instant::now() > self.end
    }

    /// Takes a candidate if it fails in the same way. What runs beside is not the same each time.
    fn try_case(&mut self, candidate: Case) -> bool {
        if self.is_over() {
            return false;
        }
        let free = candidate.lines.iter().any(|line| !line.beside.is_empty());
        for _ in 0..if free { 5 } else { 1 } {
            if let (Verdict::Failed(_, failure), _) = run(&candidate)
                && failure.kind == self.kind
            {
                self.best = candidate;
                return true;
            }
        }
        false
    }

    /// Nothing after the failing line matters.
    fn cut_end(&mut self) {
        if let (Verdict::Failed(at, _), _) = run(&self.best) {
            let mut candidate = self.best.clone();
            candidate.lines.truncate(at + 1);
            self.try_case(candidate);
        }
    }

    fn lines(&mut self) {
        let mut size = (self.best.lines.len() / 2).max(1);
        loop {
            let mut at = 0;
            while at < self.best.lines.len() {
                let mut candidate = self.best.clone();
                let end = (at + size).min(candidate.lines.len());
                candidate.lines.drain(at..end);
                if !self.try_case(candidate) {
                    at += size;
                }
                if self.is_over() {
                    return;
                }
            }
            if size == 1 {
                return;
            }
            size /= 2;
        }
    }

    fn company(&mut self) {
        for n in 0..self.best.lines.len() {
            for m in (0..self.best.lines[n].meanwhile.len()).rev() {
                let mut candidate = self.best.clone();
                candidate.lines[n].meanwhile.remove(m);
                self.try_case(candidate);
            }
            for m in (0..self.best.lines[n].beside.len()).rev() {
                let mut candidate = self.best.clone();
                candidate.lines[n].beside.remove(m);
                self.try_case(candidate);
            }
        }
    }

    fn settings(&mut self) {
        for n in (0..self.best.tables.len()).rev() {
            let mut candidate = self.best.clone();
            candidate.tables.remove(n);
            self.try_case(candidate);
        }
        for n in (0..self.best.pragmas.len()).rev() {
            let mut candidate = self.best.clone();
            candidate.pragmas.remove(n);
            self.try_case(candidate);
        }
        if self.best.replicas.len() > 1 {
            let mut candidate = self.best.clone();
            candidate.replicas.pop();
            self.try_case(candidate);
        }
        for filler in [0, 10] {
            if self.best.filler > filler {
                let mut candidate = self.best.clone();
                candidate.filler = filler;
                self.try_case(candidate);
            }
        }
        let mut candidate = self.best.clone();
        candidate.auto_vacuum = "none".into();
        if candidate != self.best {
            self.try_case(candidate);
        }
    }
}
