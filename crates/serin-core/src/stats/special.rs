//! The few functions that `libm` lacks: the normal and inverse Gaussian laws, and a logarithm of beta without cancellation.
//!
//! Each is good to about 1e-12 where it is used. No state, no panics.

use core::f64::consts::{FRAC_1_SQRT_2, PI};

/// Distribution function of the standard normal law.
pub(crate) fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z * FRAC_1_SQRT_2)
}

/// `exp(z^2/2) * Phi(-z)` for z >= 0, where either factor alone leaves the range of a double.
fn scaled_tail(z: f64) -> f64 {
    if z < 25.0 {
        return libm::exp(0.5 * z * z) * normal_cdf(-z);
    }
    // Abramowitz and Stegun 26.2.12; the next term is below 1e-12 from z = 25 on.
    let r = 1.0 / (z * z);
    (1.0 - r * (1.0 - 3.0 * r * (1.0 - 5.0 * r * (1.0 - 7.0 * r)))) / (z * libm::sqrt(2.0 * PI))
}

/// Distribution function at `u` of the inverse Gaussian law with mean 1 and shape `phi`.
pub(crate) fn inverse_gaussian_cdf(u: f64, phi: f64) -> f64 {
    if u <= 0.0 {
        return 0.0;
    }
    let root = libm::sqrt(phi / u);
    let a = root * (u - 1.0);
    normal_cdf(a) + libm::exp(-0.5 * a * a) * scaled_tail(root * (u + 1.0))
}

/// Its quantile: when a walk with drift 1 first reaches 1, in multiples of the mean.
///
/// Newton's method in logarithms, as the quantile may be any number of digits below the mean, guarded by a bracket. A simulated rollout
/// asks at every look, and plain halvings were two thirds of its time.
pub(crate) fn inverse_gaussian_quantile(p: f64, phi: f64) -> f64 {
    let (mut lo, mut hi) = (-80.0, 80.0);
    // Where the law is narrow it is nearly normal; where it is wide, the walk is nearly without drift, and 3 is between its tails.
    let mut at = if phi > 1.0 { 0.0 } else { libm::log(phi / 3.0).clamp(-79.0, 79.0) };
    for _ in 0..100 {
        let u = libm::exp(at);
        let off = inverse_gaussian_cdf(u, phi) - p;
        if off < 0.0 {
            lo = at
        } else {
            hi = at
        }
        let root = libm::sqrt(phi / u);
        let a = root * (u - 1.0);
        let slope = root * libm::exp(-0.5 * a * a) / libm::sqrt(2.0 * PI);
        let newton = at - off / slope;
        // Settled; the bracket may lie on one side of it alone.
        if libm::fabs(newton - at) <= 1e-13 * libm::fabs(at).max(1.0) {
            break;
        }
        at = if newton > lo && newton < hi { newton } else { 0.5 * (lo + hi) };
    }
    libm::exp(at)
}

/// What Stirling's formula lacks: `ln Gamma(z) - ((z - 1/2) ln z - z + ln(2 pi)/2)`, z >= 1/2.
fn stirling_rest(z: f64) -> f64 {
    if z < 12.0 {
        return libm::lgamma(z) - ((z - 0.5) * libm::log(z) - z + 0.5 * libm::log(2.0 * PI));
    }
    let r = 1.0 / (z * z);
    (1.0 / 12.0 - r * (1.0 / 360.0 - r * (1.0 / 1260.0 - r / 1680.0))) / z
}

/// `ln B(1/2 + x, 1/2 + n - x) - ln B(1/2, 1/2) - x ln(x/n) - (n-x) ln(1 - x/n)`: how far the mixture lies below the best
/// fit. Written so that nothing large is subtracted, for counts of any size. Needs 0 <= x <= n, n > 0.
pub(crate) fn ln_beta_over_best(n: f64, x: f64) -> f64 {
    let part = |k: f64| if k > 0.0 { k * libm::log1p(0.5 / k) } else { 0.0 };
    part(x) + part(n - x) - n * libm::log1p(1.0 / n) - 0.5 * libm::log(n + 1.0) + 0.5 * libm::log(2.0 * PI) - libm::log(PI)
        + stirling_rest(x + 0.5)
        + stirling_rest(n - x + 0.5)
        - stirling_rest(n + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beta_logarithm_is_that_of_lgamma_where_both_are_exact() {
        for (n, x) in [(1.0, 0.0), (1.0, 1.0), (20.0, 3.0), (37.5, 11.25), (100.0, 100.0), (4000.0, 17.0)] {
            let lb = |a: f64, b: f64| libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b);
            let xlogy = |k: f64, q: f64| if k > 0.0 { k * libm::log(q) } else { 0.0 };
            let want = lb(0.5 + x, 0.5 + n - x) - lb(0.5, 0.5) - xlogy(x, x / n) - xlogy(n - x, 1.0 - x / n);
            assert!((ln_beta_over_best(n, x) - want).abs() < 1e-9, "{n} {x}: {} {want}", ln_beta_over_best(n, x));
        }
    }

    #[test]
    fn a_quantile_is_where_its_distribution_function_says() {
        for phi in [1e-6, 0.01, 1.0, 50.0, 1e5, 1e12] {
            for p in [0.1, 0.5, 0.9] {
                let u = inverse_gaussian_quantile(p, phi);
                assert!((inverse_gaussian_cdf(u, phi) - p).abs() < 1e-6, "{phi} {p} {u}");
            }
        }
    }

    #[test]
    fn newtons_quantile_is_that_of_plain_halvings() {
        for e in -60..=60 {
            let phi = libm::exp10(f64::from(e) / 5.0);
            for p in [0.001, 0.1, 0.5, 0.9, 0.999] {
                let (mut lo, mut hi) = (-80.0, 80.0);
                for _ in 0..70 {
                    let mid = 0.5 * (lo + hi);
                    if inverse_gaussian_cdf(libm::exp(mid), phi) < p { lo = mid } else { hi = mid }
                }
                let (want, got) = (libm::exp(0.5 * (lo + hi)), inverse_gaussian_quantile(p, phi));
                assert!((got / want - 1.0).abs() < 1e-7, "{phi} {p}: {got} {want}");
            }
        }
    }

    #[test]
    fn the_scaled_tail_has_no_step_where_its_formula_changes() {
        assert!((scaled_tail(25.0 - 1e-9) / scaled_tail(25.0) - 1.0).abs() < 1e-9);
    }
}
