//! The one retry policy: how often, and how long to wait in between. It decides nothing about what may be retried.

use std::time::Duration;

/// Attempts and pauses. The pause before attempt n+1 is drawn evenly from zero to `base * 2^(n-1)`, at most `cap`
/// ("full jitter"), and never less than what the remote asks for with `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts altogether; 1 = no retries. 0 is read as 1.
    pub attempts: u32,
    /// The longest first pause.
    pub base: Duration,
    /// The longest pause.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(100),
            cap: Duration::from_secs(5),
        }
    }
}

impl RetryPolicy {
    /// One attempt.
    pub const fn none() -> Self {
        Self {
            attempts: 1,
            base: Duration::ZERO,
            cap: Duration::ZERO,
        }
    }

    /// The pause after `failed` attempts (from 1 up).
    pub fn pause(&self, failed: u32, random: &mut fastrand::Rng) -> Duration {
        let doubled = 2u32.saturating_pow(failed.saturating_sub(1));
        self.base
            .saturating_mul(doubled)
            .min(self.cap)
            .mul_f64(random.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_cap_and_spread_over_the_whole_range() {
        let policy = RetryPolicy::default();
        let mut random = fastrand::Rng::with_seed(1);
        for (failed, most) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (4, 800),
            (20, 5000),
            (u32::MAX, 5000),
        ] {
            let most = Duration::from_millis(most);
            let pauses: Vec<_> = (0..200).map(|_| policy.pause(failed, &mut random)).collect();
            assert!(pauses.iter().all(|p| *p <= most), "{failed}");
            assert!(pauses.iter().any(|p| *p < most / 4) && pauses.iter().any(|p| *p > most / 4 * 3));
        }
        assert_eq!(RetryPolicy::none().pause(9, &mut random), Duration::ZERO);
    }
}
