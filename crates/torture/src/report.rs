//! Numbers: what was run, what was checked, what failed.

use std::{collections::BTreeMap, fmt};

use crate::steps::Step;

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Histories that ended.
    pub histories: u64,
    /// Of those, the ones that the model could not decide to the end.
    pub undecided: u64,
    /// Crashes whose remains were opened and checked.
    pub crash_points: u64,
    /// Steps by kind.
    pub steps: BTreeMap<String, u64>,
    /// Failures by kind.
    pub failures: BTreeMap<String, u64>,
}

impl Counts {
    /// Counts a step.
    pub fn step(&mut self, step: &Step) {
        let text = step.to_string();
        let kind = text.split(' ').next().unwrap_or_default();
        *self.steps.entry(kind.to_owned()).or_default() += 1;
    }

    /// As one line.
    pub fn encode(&self) -> String {
        let map = |map: &BTreeMap<String, u64>| {
            map.iter()
                .map(|(kind, n)| format!("{n} {kind}"))
                .collect::<Vec<_>>()
                .join(";")
        };
        format!(
            "{}\t{}\t{}\t{}\t{}",
            self.histories,
            self.undecided,
            self.crash_points,
            map(&self.steps),
            map(&self.failures)
        )
    }

    /// From that line; what cannot be read counts nothing.
    pub fn decode(text: &str) -> Self {
        let mut fields = text.split('\t');
        let mut number = || fields.next().and_then(|n| n.parse().ok()).unwrap_or_default();
        let (histories, undecided, crash_points) = (number(), number(), number());
        let mut map = || {
            let entries = fields.next().unwrap_or_default().split(';');
            entries
                .filter_map(|entry| entry.split_once(' '))
                .filter_map(|(n, kind)| Some((kind.to_owned(), n.parse().ok()?)))
                .collect()
        };
        Self {
            histories,
            undecided,
            crash_points,
            steps: map(),
            failures: map(),
        }
    }

    /// Adds others.
    pub fn add(&mut self, other: &Counts) {
        self.histories += other.histories;
        self.undecided += other.undecided;
        self.crash_points += other.crash_points;
        for (kind, n) in &other.steps {
            *self.steps.entry(kind.clone()).or_default() += n;
        }
        for (kind, n) in &other.failures {
            *self.failures.entry(kind.clone()).or_default() += n;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "histories {} (undecided {}), crash points {}",
            self.histories, self.undecided, self.crash_points
        )?;
        let steps: Vec<_> = self.steps.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        writeln!(f, "steps: {}", steps.join(", "))?;
        write!(f, "failures: {}", self.failures.values().sum::<u64>())?;
        for (kind, n) in &self.failures {
            write!(f, "\n  {n} x {kind}")?;
        }
        Ok(())
    }
}
