//! The exact binomial test: is a count of successes in keeping with a share that is set?
//!
//! For looking once at a bounded number of requests (`serin verify`, the demo). A test that may be read at every poll is
//! another thing: see `stats::Split`.

/// Two-sided p-value of `k` successes in `n` draws of probability `p`: the chance of every outcome that is at most as
/// likely as the one seen (the method of minimum likelihood, as in R's `binom.test`).
///
/// 1 for no draws. `k` above `n` counts as `n`; `p` is clamped to 0 to 1. Takes time in proportion to `n`.
pub fn two_sided(k: u64, n: u64, p: f64) -> f64 {
    let (k, p) = (k.min(n), p.clamp(0.0, 1.0));
    if n == 0 {
        return 1.0;
    }
    if p == 0.0 || p == 1.0 {
        let certain = if p == 0.0 { 0 } else { n };
        return if k == certain { 1.0 } else { 0.0 };
    }
    // Two outcomes of the same chance differ by rounding alone: R's tolerance.
    let limit = ln_chance(k, n, p) + libm::log1p(1e-7);
    let tail = |outcomes: &mut dyn Iterator<Item = u64>| {
        let mut sum = 0.0;
        for i in outcomes {
            let ln = ln_chance(i, n, p);
            if ln > limit {
                break;
            }
            sum += libm::exp(ln);
        }
        sum
    };
    // From both ends towards the mode, where the chances rise: each tail ends at the first outcome that is likelier. Where both
    // tails run over all outcomes (k is the mode), each outcome is counted once.
    let mode = (libm::floor((n + 1) as f64 * p) as u64).min(n);
    let low = tail(&mut (0..mode));
    let high = tail(&mut (mode..=n).rev());
    (low + high).min(1.0)
}

/// ln of the chance of exactly `k` successes.
fn ln_chance(k: u64, n: u64, p: f64) -> f64 {
    let ln_factorial = |m: u64| libm::lgamma(m as f64 + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k) + k as f64 * libm::log(p) + (n - k) as f64 * libm::log1p(-p)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Computed with exact fractions from the definition, and the tolerance of 1e-7.
    #[test]
    fn p_values_are_exact() {
        for (k, n, p, expected) in [
            (7, 20, 0.5, 0.26317596435546875),
            (10, 100, 0.1, 1.0),
            (0, 30, 0.1, 0.06821794693712607),
            (152, 1498, 0.1, 0.8295707042928571),
            (377, 1502, 0.1, 5.483836055825504e-63),
            (3, 3, 0.5, 0.25),
            (0, 5, 0.01, 1.0),
            (260, 2000, 0.1, 1.753889174632055e-05),
            (1, 1, 0.1, 0.1),
            (640, 1000, 0.65, 0.5074685505582969),
        ] {
            let got = two_sided(k, n, p);
            assert!((got - expected).abs() <= 1e-9 * expected.max(1e-3), "{k} of {n} at {p}: {got}, expected {expected}");
        }
    }

    #[test]
    fn certain_shares_allow_no_other_count() {
        assert_eq!(
            [two_sided(0, 9, 0.0), two_sided(1, 9, 0.0), two_sided(9, 9, 1.0), two_sided(8, 9, 1.0), two_sided(0, 0, 0.3)],
            [1.0, 0.0, 1.0, 0.0, 1.0]
        );
    }

    proptest! {
        #[test]
        fn it_is_a_chance_and_the_likeliest_count_is_no_surprise(k in 0_u64..3000, n in 1_u64..3000, p in 0.001_f64..0.999) {
            let value = two_sided(k, n, p);
            prop_assert!((0.0..=1.0).contains(&value));
            let mode = (((n + 1) as f64 * p) as u64).min(n);
            prop_assert!((two_sided(mode, n, p) - 1.0).abs() < 1e-6);
        }
    }
}
