//! What a histogram knows of latency: how many requests were slower than a bound, and nothing between bounds.
//!
//! Section 6. "The 0.99 quantile may grow by 20 %" becomes one or two tests of the share slower than a bound, whose margins are interpolated from
//! stable's history and then frozen. Evidence is counted at bounds only. Strict mode tests what needs no interpolation.
//! Deliberately makes no claim about the quantile itself that the buckets cannot carry.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::analysis::Test;
use super::counts::{Batch, Counts};
use super::interval;

/// Requests at or under each bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper bounds in ascending order with the requests at or under each; `+Inf` is not among them.
    buckets: Vec<(f64, f64)>,
    total: f64,
}

impl Histogram {
    /// From cumulative counts per upper bound (in milliseconds, any order) and all requests. What cannot be is mended: counts never fall from bound to bound,
    /// none exceeds the total, bounds that are no positive number are left out.
    pub fn new(cumulative: &[(f64, f64)], total: f64) -> Self {
        let total = Counts::new(total, 0.0).clean().n;
        let mut buckets: Vec<(f64, f64)> = cumulative.iter().copied().filter(|(bound, _)| bound.is_finite() && *bound > 0.0).collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets.dedup_by(|b, a| a.0 == b.0);
        let mut least = 0.0;
        for (_, count) in &mut buckets {
            least = Counts::new(total, *count).clean().x.max(least);
            *count = least;
        }
        Self { buckets, total }
    }

    /// All requests.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// Its bounds in ascending order, in milliseconds.
    pub fn bounds(&self) -> impl Iterator<Item = f64> + '_ {
        self.buckets.iter().map(|(bound, _)| *bound)
    }

    /// Requests, and those slower than this bound. `None`: the histogram has no such bound, and between bounds nothing is counted.
    pub fn slower_than(&self, bound_ms: f64) -> Option<Counts> {
        let (_, at_or_under) = self.buckets.iter().find(|(bound, _)| *bound == bound_ms)?;
        Some(Counts::new(self.total, self.total - at_or_under))
    }

    /// The same with only the bounds that the other has too: two versions whose proxies differ in buckets are compared at these.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let buckets = self.buckets.iter().copied().filter(|(bound, _)| other.bounds().any(|o| o == *bound)).collect();
        Self { buckets, total: self.total }
    }

    /// Share at or under the i-th bound.
    fn share(&self, i: usize) -> f64 {
        self.buckets.get(i).map_or(0.0, |(_, count)| count / self.total)
    }

    /// Share at or under `t`, interpolated, and the share at the lower end of its bucket.
    fn interpolate(&self, t: f64) -> (f64, f64) {
        let i = self.buckets.iter().position(|(bound, _)| t <= *bound).unwrap_or(self.buckets.len());
        let Some((hi, _)) = self.buckets.get(i).copied() else {
            return (1.0, self.share(i.saturating_sub(1)));
        };
        let Some((lo, _)) = i.checked_sub(1).and_then(|below| self.buckets.get(below).copied()) else {
            return (self.share(0) * t / hi, 0.0);
        };
        // An empty or a full bucket has no logit: half a request is put there.
        let half = 0.5 / self.total;
        let logit = |f: f64| {
            let f = f.clamp(half.min(0.5), (1.0 - half).max(0.5));
            libm::log(f) - libm::log1p(-f)
        };
        let (from, to) = (logit(self.share(i - 1)), logit(self.share(i)));
        let at = from + (to - from) * libm::log(t / lo) / libm::log(hi / lo);
        (1.0 / (1.0 + libm::exp(-at)), self.share(i - 1))
    }

    /// The margins for "quantile `q` may grow by `r`" (0.2: by a fifth). `None` without requests, bounds or sense in `q` and `r`.
    pub fn margins(&self, q: f64, r: f64) -> Option<QuantileMargins> {
        if !(self.total > 0.0 && q > 0.0 && q < 1.0 && r > 0.0 && r.is_finite()) || self.buckets.is_empty() {
            return None;
        }
        let b = (0..self.buckets.len()).find(|i| self.share(*i) >= q);
        let a = b.unwrap_or(self.buckets.len()).checked_sub(1);
        let floor = (0.01_f64).min((1.0 - q) / 4.0);
        let edge = |i: usize| {
            let bound_ms = self.buckets[i].0;
            let (at, below) = self.interpolate(bound_ms / (1.0 + r));
            let here = self.share(i);
            // Scaled counts may sum to less than a request, where the half request above is more than all.
            let margin = (here - at).max(floor);
            Edge { bound_ms, margin, margin_max: (here - below).max(margin) }
        };
        Some(QuantileMargins { q, r, upper: b.map(edge), lower: a.map(edge) })
    }

    /// Bounds between which quantile `q` lies, wrong with a chance of at most `alpha`, for display: 0 and infinity where none is known.
    pub fn quantile(&self, q: f64, alpha: f64) -> (f64, f64) {
        let limits = |count: f64| interval::rate(Counts::new(self.total, count), alpha / 2.0);
        let lower = self.buckets.iter().rev().find(|(_, count)| limits(*count).1 < q).map_or(0.0, |(bound, _)| *bound);
        let upper = self.buckets.iter().find(|(_, count)| limits(*count).0 > q).map_or(f64::INFINITY, |(bound, _)| *bound);
        (lower, upper)
    }

    /// Strict mode: for each bound `hi` the highest bound `lo <= hi / (1 + r)`. More of the canary over `hi` than of stable over `lo` is slower by more than
    /// `r`, without any interpolation. No pair within one bucket exists, and so no strict pass.
    pub fn strict_pairs(&self, r: f64) -> Vec<StrictPair> {
        let lo = |hi_ms: f64| self.bounds().filter(|lo| *lo <= hi_ms / (1.0 + r.max(0.0))).last();
        self.bounds().filter_map(|hi_ms| Some(StrictPair { lo_ms: lo(hi_ms)?, hi_ms })).filter(|p| p.lo_ms < p.hi_ms).collect()
    }
}

/// A test at one bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    /// The bound.
    pub bound_ms: f64,
    /// The share that a slow-down by exactly r is taken to push over it.
    pub margin: f64,
    /// The most that this share can be.
    pub margin_max: f64,
}

impl Edge {
    /// The question about the share of requests slower than the bound.
    pub fn test(&self) -> Test {
        Test::Compare { margin: self.margin, ratio: 1.0 }
    }
}

/// "Quantile q may grow by r", as the tests that a histogram can carry. Frozen for a rollout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileMargins {
    /// The quantile.
    pub q: f64,
    /// The growth allowed, as a fraction.
    pub r: f64,
    /// The first bound at or above the quantile; `None`: the histogram ends below it.
    pub upper: Option<Edge>,
    /// The bound below that; `None`: it is the first.
    pub lower: Option<Edge>,
}

impl QuantileMargins {
    /// How coarse the buckets are there: the factor between the two bounds.
    pub fn resolution(&self) -> Option<f64> {
        Some(self.upper?.bound_ms / self.lower?.bound_ms)
    }

    /// The one or two tests; a metric passes by both.
    pub fn edges(&self) -> impl Iterator<Item = Edge> {
        [self.lower, self.upper].into_iter().flatten()
    }
}

/// What is tested, in words: `p99 of stable is between 250 and 500 ms; 20 % slower is taken as +0.72 points of requests over 250 ms and +0.25 over 500 ms`.
impl fmt::Display for QuantileMargins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantile = alloc::format!("{:.4}", self.q * 100.0);
        let quantile = quantile.trim_end_matches('0').trim_end_matches('.');
        match (self.lower, self.upper) {
            (Some(a), Some(b)) => write!(f, "p{quantile} of stable is between {} and {} ms", a.bound_ms, b.bound_ms)?,
            (Some(a), None) => write!(f, "p{quantile} of stable is above {} ms, the histogram's last bound", a.bound_ms)?,
            (None, Some(b)) => write!(f, "p{quantile} of stable is under {} ms, the histogram's first bound", b.bound_ms)?,
            (None, None) => write!(f, "p{quantile} of stable is not known")?,
        }
        let edge = |e: Edge| alloc::format!("+{} points of requests over {} ms", crate::reason::points(e.margin), e.bound_ms);
        let edges: Vec<String> = self.edges().map(edge).collect();
        write!(f, "; {} % slower is taken as {}", crate::reason::points(self.r), edges.join(" and "))
    }
}

/// Two bounds that are further apart than the growth that is asked about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StrictPair {
    /// Where stable's slow requests are counted.
    pub lo_ms: f64,
    /// Where the canary's are.
    pub hi_ms: f64,
}

impl StrictPair {
    /// Can convict, never acquit.
    pub const TEST: Test = Test::Compare { margin: 0.0, ratio: 1.0 };

    /// The batch of a poll; `None` where a bound is missing.
    pub fn batch(&self, canary: &Histogram, stable: &Histogram) -> Option<Batch> {
        Some(Batch { canary: canary.slower_than(self.hi_ms)?, stable: stable.slower_than(self.lo_ms)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn some() -> Histogram {
        Histogram::new(&[(100.0, 900.0), (250.0, 980.0), (500.0, 995.0), (f64::INFINITY, 1000.0)], 1000.0)
    }

    #[test]
    fn the_sentence_names_bounds_and_points() {
        let text = some().margins(0.99, 0.2).expect("requests").to_string();
        assert!(text.starts_with("p99 of stable is between 250 and 500 ms; 20 % slower is taken as +"), "{text}");
        assert!(text.ends_with(" points of requests over 500 ms"), "{text}");
    }

    #[test]
    fn a_quantile_beyond_the_last_bound_is_tested_below_it_and_said_so() {
        let m = some().margins(0.999, 0.2).expect("requests");
        assert_eq!((m.upper, m.lower.map(|e| e.bound_ms), m.resolution()), (None, Some(500.0), None));
        assert!(m.to_string().contains("above 500 ms"));
    }

    #[test]
    fn a_quantile_in_the_first_bucket_has_one_test() {
        let m = some().margins(0.5, 0.2).expect("requests");
        assert_eq!((m.lower, m.upper.map(|e| e.bound_ms)), (None, Some(100.0)));
        assert!((m.upper.expect("there").margin - 0.9 / 6.0).abs() < 1e-12, "linear inside the first bucket");
    }

    #[test]
    fn between_bounds_nothing_is_counted() {
        assert_eq!(some().slower_than(250.0), Some(Counts::new(1000.0, 20.0)));
        assert_eq!(some().slower_than(300.0), None);
    }

    #[test]
    fn strict_pairs_are_further_apart_than_the_growth() {
        let pair = |lo_ms, hi_ms| StrictPair { lo_ms, hi_ms };
        assert_eq!(some().strict_pairs(0.2), [pair(100.0, 250.0), pair(250.0, 500.0)]);
        assert_eq!(some().strict_pairs(1.4), [pair(100.0, 250.0), pair(100.0, 500.0)]);
        assert!(some().strict_pairs(9.0).is_empty());
        assert!(!StrictPair::TEST.can_pass());
    }

    #[test]
    fn only_common_bounds_are_compared() {
        let other = Histogram::new(&[(100.0, 1.0), (300.0, 2.0)], 2.0);
        assert_eq!(some().common(&other).bounds().collect::<Vec<_>>(), vec![100.0]);
    }

    #[test]
    fn no_requests_give_no_margin() {
        assert_eq!(Histogram::new(&[(100.0, 0.0)], 0.0).margins(0.99, 0.2), None);
        assert_eq!(Histogram::new(&[], 10.0).margins(0.99, 0.2), None);
        assert_eq!(Histogram::default().quantile(0.99, 0.05), (0.0, f64::INFINITY));
    }
}
