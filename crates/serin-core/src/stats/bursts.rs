//! How much errors come in clumps: measured on stable for every verdict, and on the canary for its fitness.
//!
//! Section 5. The bets take requests of one batch as independent; a clump of D errors must then count as one, so every logarithm of
//! evidence is divided by D. Estimated from earlier batches only, or validity would be lost.
//!
//! The section's estimate compares each window with the long-run rate, so that an outage of a few minutes, which is no clump but another rate, looks
//! like clumps of a thousand, and makes every later verdict up to a thousand times slower: a canary that failed half of its requests after a
//! shared outage of 3 minutes was found after 3 to 50 minutes instead of 30 s. `robust` therefore also compares each window
//! with the one before, as von Neumann (1941) did against drift, and believes the long-run estimate only as far as that supports it.

use super::counts::Counts;

/// Weight of the past per closed window: about fifty windows are remembered.
const FORGET: f64 = 0.98;
/// With fewer windows a single burst would decide.
const LEAST_WINDOWS: f64 = 10.0;
/// One step between windows counts as at most so many times what is usual: where an outage begins and ends.
const MOST_STEP: f64 = 25.0;
/// How far the two estimates may lie apart before the long-run one is doubted. Clumps of very uneven size show in neighbours only in part: up to
/// threefold at error rates of 1 % and inner correlations up to 0.05.
const SUPPORT: f64 = 3.0;
/// Beyond this no verdict would ever be reached.
const MOST: f64 = 1000.0;

/// Evidence of overdispersion: squared deviations of stable's errors from what was expected, in windows of one expected error or more.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Burstiness {
    q: f64,
    w: f64,
    windows: f64,
    expected: f64,
    variance: f64,
    seen: f64,
    requests: f64,
    /// The window before: requests, and errors.
    before: Counts,
    /// Squared differences of neighbouring windows, and how many.
    q_steps: f64,
    w_steps: f64,
}

impl Burstiness {
    /// Adds one batch of stable: its counts, and the rate that was expected of it before it was seen.
    pub fn observe(&mut self, stable: Counts, theta: f64) {
        self.expected += stable.n * theta;
        self.variance += stable.n * theta * (1.0 - theta);
        self.seen += stable.x;
        self.requests += stable.n;
        if self.expected >= 1.0 && self.variance > 0.0 {
            let off = self.seen - self.expected;
            self.q = FORGET * self.q + off * off / self.variance;
            self.w = FORGET * self.w + 1.0;
            self.windows += 1.0;
            let window = Counts::new(self.requests, self.seen);
            self.step(window, self.expected / self.requests);
            self.before = window;
            (self.expected, self.variance, self.seen, self.requests) = (0.0, 0.0, 0.0, 0.0);
        }
    }

    /// Visits its numbers in the checkpoint's order.
    pub(super) fn each<E>(&mut self, f: &mut impl FnMut(&mut f64) -> Result<(), E>) -> Result<(), E> {
        let windows =
            [&mut self.q, &mut self.w, &mut self.windows, &mut self.expected, &mut self.variance, &mut self.seen, &mut self.requests];
        windows.into_iter().chain([&mut self.before.n, &mut self.before.x, &mut self.q_steps, &mut self.w_steps]).try_for_each(f)
    }

    /// A window and the one before: how much more they differ than chance allows at the rate that both show.
    fn step(&mut self, now: Counts, long_run: f64) {
        if self.before.n <= 0.0 || now.n <= 0.0 {
            return;
        }
        let both = now.plus(self.before);
        let shown = (both.x + 0.5) / (both.n + 1.0);
        // Between the rate of these two windows and the long-run one: the former alone hides clumps, which raise it themselves.
        let rate = if shown > long_run { libm::sqrt(shown * long_run) } else { shown };
        let variance = rate * (1.0 - rate) * (1.0 / now.n + 1.0 / self.before.n);
        let off = now.rate() - self.before.rate();
        let usual = if self.w_steps > 0.0 { (self.q_steps / self.w_steps).max(1.0) } else { 1.0 };
        if variance > 0.0 {
            self.q_steps = FORGET * self.q_steps + (off * off / variance).min(MOST_STEP * usual);
            self.w_steps = FORGET * self.w_steps + 1.0;
        }
    }

    /// As `factor`, but believed only as far as neighbouring windows support it: a rate that moved is not a rate that comes in clumps.
    pub fn robust(&self) -> f64 {
        let supported = if self.w_steps > 0.0 { SUPPORT * (self.q_steps / self.w_steps).max(1.0) } else { 1.0 };
        self.factor().min(supported).max(1.0)
    }

    /// Section 5's size of clump that errors come in, from 1 (none, or not known) to 1000.
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
        assert!(b.robust() > 20.0, "{}", b.robust());
    }

    #[test]
    fn an_outage_is_no_burst() {
        for (n, p) in [(4500.0, 0.0001), (450.0, 0.001), (5000.0, 0.01)] {
            let (mut b, mut known) = (Burstiness::default(), Counts::new(180.0 * n, 180.0 * n * p));
            let mut poll = |b: &mut Burstiness, rate: f64| {
                b.observe(Counts::new(n, n * rate), known.rate());
                known = Counts::new(0.996 * known.n + n, 0.996 * known.x + n * rate);
            };
            (0..180).for_each(|_| poll(&mut b, p));
            (0..18).for_each(|_| poll(&mut b, p + 0.1));
            (0..18).for_each(|_| poll(&mut b, p));
            assert!(b.factor() > 20.0 && b.robust() < 15.0, "{n} {p}: {} {}", b.factor(), b.robust());
        }
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
