//! Random numbers for simulations: seeded, the same on every platform.
//!
//! Decisions never draw any; a simulated world does. xoshiro256++ (Blackman and Vigna 2019), seeded by splitmix64; counts by inversion where few are
//! expected and by Hoermann's transformed rejection (1993) where many are, both exact.

/// A stream of random numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random {
    s: [u64; 4],
}

impl Random {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self { s: [next(), next(), next(), next()] }
    }

    /// The stream of the `run`-th of many runs of a seed: any run can be repeated alone.
    pub fn of_run(seed: u64, run: u64) -> Self {
        Self::new(Self::new(seed).next().wrapping_add(run.wrapping_mul(0xd134_2543_de82_ef95)))
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.s;
        let out = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.s = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        out
    }

    /// Uniform in (0, 1), never either.
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Standard normal (Marsaglia's polar method).
    pub fn normal(&mut self) -> f64 {
        loop {
            let (u, v) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                return u * libm::sqrt(-2.0 * libm::log(s) / s);
            }
        }
    }

    /// Gamma of this shape and scale 1 (Marsaglia and Tsang 2000).
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = libm::pow(self.unit(), 1.0 / shape.max(1e-6));
            return self.gamma(shape.max(1e-6) + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / libm::sqrt(9.0 * d);
        loop {
            let x = self.normal();
            let v = 1.0 + c * x;
            if v > 0.0 {
                let v = v * v * v;
                if libm::log(self.unit()) < 0.5 * x * x + d * (1.0 - v + libm::log(v)) {
                    return d * v;
                }
            }
        }
    }

    /// A rate of mean `mean` that is drawn anew from a beta law with this inner correlation: at 0 it is always the mean, near 1 all or nothing.
    pub fn bursty_rate(&mut self, mean: f64, correlation: f64) -> f64 {
        if !(mean > 0.0 && mean < 1.0 && correlation > 0.0) {
            return mean.clamp(0.0, 1.0);
        }
        let total = 1.0 / correlation.min(0.999_999) - 1.0;
        let (a, b) = (self.gamma(mean * total), self.gamma((1.0 - mean) * total));
        if a + b > 0.0 { a / (a + b) } else { f64::from(u8::from(self.unit() < mean)) }
    }

    /// Poisson, of this mean.
    pub fn poisson(&mut self, mean: f64) -> f64 {
        if mean.is_nan() || mean <= 0.0 {
            return 0.0;
        }
        if mean < 10.0 {
            let (mut k, mut p, mut u) = (0.0, libm::exp(-mean), self.unit());
            while u > p && k < 1000.0 {
                u -= p;
                k += 1.0;
                p *= mean / k;
            }
            return k;
        }
        let mean = mean.min(1e15);
        let (b, ln_mean) = (0.931 + 2.53 * libm::sqrt(mean), libm::log(mean));
        let a = -0.059 + 0.02483 * b;
        let (inverse_alpha, v_r) = (1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2.0));
        loop {
            let (u, v) = (self.unit() - 0.5, self.unit());
            let us = 0.5 - if u < 0.0 { -u } else { u };
            let k = libm::floor((2.0 * a / us + b) * u + mean + 0.43);
            if us >= 0.07 && v <= v_r {
                return k;
            }
            if k < 0.0 || (us < 0.013 && v > us) {
                continue;
            }
            if libm::log(v * inverse_alpha / (a / (us * us) + b)) <= k * ln_mean - mean - libm::lgamma(k + 1.0) {
                return k;
            }
        }
    }

    /// Binomial: how many of `n` (whole) happen, each with chance `p`.
    pub fn binomial(&mut self, n: f64, p: f64) -> f64 {
        if !(n >= 1.0 && p > 0.0) {
            return 0.0;
        }
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p.min(1.0));
        }
        if n * p < 10.0 { self.binomial_by_inversion(n, p) } else { self.binomial_by_rejection(n, p) }
    }

    fn binomial_by_inversion(&mut self, n: f64, p: f64) -> f64 {
        let odds = p / (1.0 - p);
        let (mut k, mut f, mut u) = (0.0, libm::exp(n * libm::log1p(-p)), self.unit());
        while u > f && k < n {
            u -= f;
            k += 1.0;
            f *= odds * (n - k + 1.0) / k;
            // Far in the tail the terms run out before rounding's rest of u does.
            if f < 1e-300 && k > n * p {
                break;
            }
        }
        k
    }

    fn binomial_by_rejection(&mut self, n: f64, p: f64) -> f64 {
        let spread = libm::sqrt(n * p * (1.0 - p));
        let b = 1.15 + 2.53 * spread;
        let a = -0.0873 + 0.0248 * b + 0.01 * p;
        let c = n * p + 0.5;
        let (v_r, alpha) = (0.92 - 4.2 / b, (2.83 + 5.1 / b) * spread);
        let ln_odds = libm::log(p) - libm::log1p(-p);
        let mode = libm::floor((n + 1.0) * p);
        let ln_ways = |k: f64| libm::lgamma(k + 1.0) + libm::lgamma(n - k + 1.0);
        let h = ln_ways(mode);
        loop {
            let (u, v) = (self.unit() - 0.5, self.unit());
            let us = 0.5 - if u < 0.0 { -u } else { u };
            let k = libm::floor((2.0 * a / us + b) * u + c);
            if k < 0.0 || k > n {
                continue;
            }
            if us >= 0.07 && v <= v_r {
                return k;
            }
            if libm::log(v * alpha / (a / (us * us) + b)) <= h - ln_ways(k) + (k - mode) * ln_odds {
                return k;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Mean and variance of draws lie within five standard errors of what they should be (fourth moment taken as at most 4 variances squared).
    fn check(what: &str, draws: &[f64], mean: f64, variance: f64) {
        let n = draws.len() as f64;
        let m = draws.iter().sum::<f64>() / n;
        let v = draws.iter().map(|d| (d - m) * (d - m)).sum::<f64>() / n;
        assert!((m - mean).abs() < 5.0 * libm::sqrt(variance / n), "{what}: mean {m}, not {mean}");
        assert!((v / variance - 1.0).abs() < 5.0 * libm::sqrt((3.0 + 1.0 / variance) / n), "{what}: variance {v}, not {variance}");
    }

    #[test]
    fn counts_have_the_mean_and_spread_of_their_law() {
        let mut r = Random::new(1);
        for (n, p) in [
            (1.0, 0.3),
            (20.0, 0.5),
            (450.0, 0.001),
            (450.0, 0.01),
            (1000.0, 0.009),
            (1000.0, 0.011),
            (5000.0, 0.4),
            (5000.0, 0.97),
            (1e9, 0.2),
        ] {
            let draws: Vec<f64> = (0..40_000).map(|_| r.binomial(n, p)).collect();
            assert!(draws.iter().all(|k| *k >= 0.0 && *k <= n && *k == libm::floor(*k)));
            check("binomial", &draws, n * p, n * p * (1.0 - p));
        }
        for mean in [0.05, 3.0, 9.99, 10.01, 500.0, 1e6] {
            check("poisson", &(0..40_000).map(|_| r.poisson(mean)).collect::<Vec<_>>(), mean, mean);
        }
        for shape in [0.3, 1.0, 7.5] {
            check("gamma", &(0..80_000).map(|_| r.gamma(shape)).collect::<Vec<_>>(), shape, shape);
        }
        check("normal", &(0..40_000).map(|_| r.normal()).collect::<Vec<_>>(), 0.0, 1.0);
    }

    #[test]
    fn a_bursty_rate_has_its_mean_and_correlation() {
        let mut r = Random::new(2);
        let draws: Vec<f64> = (0..100_000).map(|_| r.bursty_rate(0.2, 0.05)).collect();
        let (mean, variance) = (0.2, 0.2 * 0.8 * 0.05);
        let m = draws.iter().sum::<f64>() / 1e5;
        let v = draws.iter().map(|d| (d - m) * (d - m)).sum::<f64>() / 1e5;
        assert!((m - mean).abs() < 1e-3 && (v / variance - 1.0).abs() < 0.03, "{m} {v}");
        assert_eq!(r.bursty_rate(0.2, 0.0), 0.2);
    }

    #[test]
    fn the_same_seed_and_run_give_the_same_numbers_and_others_do_not() {
        let first = |seed, run| Random::of_run(seed, run).unit();
        assert_eq!(first(7, 3), first(7, 3));
        assert!(first(7, 3) != first(7, 4) && first(7, 3) != first(8, 3));
    }

    #[test]
    fn what_is_no_chance_never_happens_or_always() {
        let mut r = Random::new(3);
        assert_eq!((r.binomial(100.0, 0.0), r.binomial(100.0, 1.0), r.binomial(0.0, 0.5), r.poisson(0.0)), (0.0, 100.0, 0.0, 0.0));
        assert_eq!((r.binomial(100.0, f64::NAN), r.poisson(f64::NAN), r.poisson(-1.0)), (0.0, 0.0, 0.0));
    }
}
