//! Intervals for display. No verdict rests on them.
//!
//! Section 10: a beta mixture confidence sequence, valid however often one looks, that assumes a constant rate, which verdicts do not
//! (Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021; Lindon and Malek 2022).

use super::counts::{Batch, Counts};
use super::special::ln_beta_over_best;

/// Lower and upper limit of the rate behind these counts, together wrong with a chance of at most `alpha`. Without requests: 0 and 1.
pub fn rate(counts: Counts, alpha: f64) -> (f64, f64) {
    let Counts { n, x } = counts.clean();
    if n <= 0.0 {
        return (0.0, 1.0);
    }
    let alpha = if alpha.is_nan() { 1e-12 } else { alpha.clamp(1e-12, 1.0) };
    let q = x / n;
    // Inside, n times the divergence of q from p is below this.
    let room = -libm::log(alpha) - ln_beta_over_best(n, x);
    let outside = |p: f64| divergence(n, x, p) >= room;
    let limit = |mut inside: f64, mut out: f64| {
        for _ in 0..80 {
            let mid = 0.5 * (inside + out);
            if outside(mid) {
                out = mid;
            } else {
                inside = mid;
            }
        }
        0.5 * (inside + out)
    };
    (if x <= 0.0 { 0.0 } else { limit(q, 0.0) }, if x >= n { 1.0 } else { limit(q, 1.0) })
}

/// Lower and upper limit of the canary's rate less stable's: the two intervals' corners, each at half of `alpha`. For display only.
pub fn difference(batch: &Batch, alpha: f64) -> (f64, f64) {
    let (c, s) = (rate(batch.canary, alpha / 2.0), rate(batch.stable, alpha / 2.0));
    (c.0 - s.1, c.1 - s.0)
}

/// The largest fault that the counts still allow, in points as a fraction: the upper limit of the difference, not below 0. For display only.
pub fn excluded_margin(batch: &Batch, alpha: f64) -> f64 {
    difference(batch, alpha).1.clamp(0.0, 1.0)
}

/// `x ln(q/p) + (n-x) ln((1-q)/(1-p))` with q = x/n, for p inside (0, 1).
fn divergence(n: f64, x: f64, p: f64) -> f64 {
    let off = x / n - p;
    let part = |k: f64, relative: f64| if k > 0.0 { k * libm::log1p(relative) } else { 0.0 };
    if p <= 0.0 || p >= 1.0 {
        return f64::INFINITY;
    }
    part(x, off / p) + part(n - x, -off / (1.0 - p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_requests_leave_everything_open() {
        assert_eq!(rate(Counts::default(), 0.05), (0.0, 1.0));
        assert_eq!(difference(&Batch::default(), 0.05), (-1.0, 1.0));
        assert_eq!(excluded_margin(&Batch::default(), 0.05), 1.0);
    }

    #[test]
    fn more_requests_exclude_smaller_faults() {
        let at = |n: f64| excluded_margin(&Batch::new(n, 0.0, 9.0 * n, 0.0), 0.05);
        assert!(at(20.0) > at(200.0) && at(200.0) > at(2000.0));
        assert!(at(2000.0) < 0.005, "{}", at(2000.0));
    }
}
