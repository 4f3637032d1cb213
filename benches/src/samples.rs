//! Medians and spreads. A spread is the whole range: with few rounds nothing finer would be honest.

/// Measurements of one thing, in one unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The middle one; of an even number the mean of the two middle ones. Not a number when there is none.
    pub(crate) fn median(&self) -> f64 {
        match self.0.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => self.0[n / 2],
            n => f64::midpoint(self.0[n / 2 - 1], self.0[n / 2]),
        }
    }

    /// The least and the most.
    pub(crate) fn range(&self) -> Option<(f64, f64)> {
        Some((*self.0.first()?, *self.0.last()?))
    }

    /// `median (least-most)` with this many digits after the decimal point.
    pub(crate) fn shown(&self, digits: usize) -> String {
        let Some((least, most)) = self.range() else {
            return "-".into();
        };
        if self.0.len() == 1 {
            return format!("{least:.digits$}");
        }
        format!("{:.digits$} ({least:.digits$}-{most:.digits$})", self.median())
    }
}

/// What so large a part of sorted values is not above. Not a number when there is none.
pub(crate) fn at(sorted: &[f64], part: f64) -> f64 {
    let index = (sorted.len().saturating_sub(1) as f64 * part) as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_of_what_was_measured() {
        let mut samples = Samples::default();
        assert_eq!(samples.shown(1), "-");
        for value in [3.0, 1.0, 9.0] {
            samples.push(value);
        }
        assert_eq!(samples.median(), 3.0);
        samples.push(5.0);
        assert_eq!(samples.shown(1), "4.0 (1.0-9.0)");
    }
}
