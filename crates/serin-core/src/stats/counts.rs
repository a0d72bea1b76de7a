//! What comes in: requests and the bad ones among them, per arm.
//!
//! Nothing here knows which requests are bad, or why.

use serde::{Deserialize, Serialize};

/// More requests than this in one batch are cut off, so that no product of counts overflows.
const MOST: f64 = 1e15;

/// Requests and the bad ones among them. Counts need not be whole: scaled or weighted ones are valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests.
    pub n: f64,
    /// Bad requests, at most `n`.
    pub x: f64,
}

impl Counts {
    /// Requests, and bad ones among them.
    pub const fn new(n: f64, x: f64) -> Self {
        Self { n, x }
    }

    /// What the formulas may rely on: finite, `0 <= x <= n`. More bad requests than requests is a torn scrape: all were bad.
    #[must_use]
    pub fn clean(self) -> Self {
        let n = if self.n.is_nan() { 0.0 } else { self.n.clamp(0.0, MOST) };
        let x = if self.x.is_nan() { 0.0 } else { self.x.clamp(0.0, n) };
        Self { n, x }
    }

    /// Both counts added.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { n: self.n + other.n, x: self.x + other.x }
    }

    /// Share of bad requests; 0 without requests.
    pub fn rate(self) -> f64 {
        if self.n > 0.0 { self.x / self.n } else { 0.0 }
    }
}

/// What one poll added to one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The canary's requests.
    pub canary: Counts,
    /// Stable's requests.
    pub stable: Counts,
}

impl Batch {
    /// A batch of the four counts.
    pub const fn new(n_canary: f64, x_canary: f64, n_stable: f64, x_stable: f64) -> Self {
        Self { canary: Counts::new(n_canary, x_canary), stable: Counts::new(n_stable, x_stable) }
    }

    /// See `Counts::clean`.
    #[must_use]
    pub fn clean(self) -> Self {
        Self { canary: self.canary.clean(), stable: self.stable.clean() }
    }

    /// Both arms added.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { canary: self.canary.plus(other.canary), stable: self.stable.plus(other.stable) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_bad_than_requests_means_all_were_bad() {
        assert_eq!(Counts::new(10.0, 12.0).clean(), Counts::new(10.0, 10.0));
    }

    #[test]
    fn numbers_that_are_no_counts_become_some() {
        assert_eq!(Counts::new(f64::NAN, 3.0).clean(), Counts::new(0.0, 0.0));
        assert_eq!(Counts::new(f64::INFINITY, f64::NAN).clean(), Counts::new(MOST, 0.0));
        assert_eq!(Counts::new(-4.0, -5.0).clean(), Counts::new(0.0, 0.0));
    }
}
