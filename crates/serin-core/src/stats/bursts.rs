//! How much errors come in clumps, measured on stable alone.
//!
//! Section 5. The bets take requests of one batch as independent; a clump of D errors must then count as one, so every logarithm of
//! evidence is divided by D. Estimated from earlier batches only, or validity would be lost. Knows nothing of the canary.

use super::counts::Counts;

/// Weight of the past per closed window: about fifty windows are remembered.
const FORGET: f64 = 0.98;
/// With fewer windows a single burst would decide.
const LEAST_WINDOWS: f64 = 10.0;
/// Beyond this no verdict would ever be reached.
const MOST: f64 = 1000.0;

/// Evidence of overdispersion: squared deviations of stable's errors from what was expected, in windows of one expected error or more.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Burstiness {
    pub(crate) q: f64,
    pub(crate) w: f64,
    pub(crate) windows: f64,
    pub(crate) expected: f64,
    pub(crate) variance: f64,
    pub(crate) seen: f64,
}

impl Burstiness {
    /// Adds one batch of stable: its counts, and the rate that was expected of it before it was seen.
    pub fn observe(&mut self, stable: Counts, theta: f64) {
        self.expected += stable.n * theta;
        self.variance += stable.n * theta * (1.0 - theta);
        self.seen += stable.x;
        if self.expected >= 1.0 && self.variance > 0.0 {
            let off = self.seen - self.expected;
            self.q = FORGET * self.q + off * off / self.variance;
            self.w = FORGET * self.w + 1.0;
            self.windows += 1.0;
            (self.expected, self.variance, self.seen) = (0.0, 0.0, 0.0);
        }
    }

    /// The size of clump that errors come in, from 1 (none, or not known) to 1000.
    pub fn factor(&self) -> f64 {
        if self.windows < LEAST_WINDOWS || self.w <= 0.0 { 1.0 } else { (self.q / self.w).clamp(1.0, MOST) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_errors_have_no_bursts() {
        let mut b = Burstiness::default();
        for _ in 0..100 {
            b.observe(Counts::new(1000.0, 10.0), 0.01);
        }
        assert_eq!(b.factor(), 1.0);
    }

    #[test]
    fn errors_that_come_forty_at_a_time_have_a_factor_near_forty() {
        let mut b = Burstiness::default();
        for i in 0..400 {
            b.observe(Counts::new(1000.0, if i % 4 == 0 { 40.0 } else { 0.0 }), 0.01);
        }
        // Deviations are 30 once and -10 three times, each against a variance of 9.9.
        assert!((b.factor() - 30.3).abs() < 1.0, "{}", b.factor());
    }

    #[test]
    fn the_first_nine_windows_say_nothing() {
        let mut b = Burstiness::default();
        for _ in 0..9 {
            b.observe(Counts::new(100.0, 100.0), 0.01);
        }
        assert_eq!(b.factor(), 1.0);
        b.observe(Counts::new(100.0, 100.0), 0.01);
        assert!(b.factor() > 100.0);
    }
}
