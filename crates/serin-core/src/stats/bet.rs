//! Evidence of one batch: the bet against "the canary is not worse", or against "it is".
//!
//! Section 2. The bet is the likelihood ratio of an alternative to its projection on the null line `y = m + rho x`, made valid for
//! every null by choosing stable's stake from the canary's (`k_s = -rho n_c k_c / n_s`): then `E[S] <= exp(n_c k_c (p_c - m - rho p_s)) <= 1`.
//! Validity does not rest on the root: a sloppy one costs speed, never safety. After Turner, Ly and Gruenwald (2024), Turner and Gruenwald (2023).
//! Deliberately holds no state.

use super::counts::Batch;

/// Halvings of the bracket: what a double can hold, and a fixed number, so that the cost is the same for every batch.
const HALVINGS: usize = 60;

/// No argument of a logarithm falls below this after rounding.
const LEAST_ARGUMENT: f64 = -1.0 + 1e-12;

/// A bet: the point of the null line that it is played against, and the stakes on both arms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bet {
    /// Stable's rate at the nearest point of the null line.
    pub x_null: f64,
    /// The canary's rate there.
    pub y_null: f64,
    /// Stake on each canary request.
    pub k_c: f64,
    /// Stake on each stable request.
    pub k_s: f64,
}

/// The bet for one alternative: `theta_c` for the canary, `theta_s` (in (0, 1)) for stable, against the line `margin + ratio x`.
/// Without requests on one side there is no bet: the stakes are 0.
pub fn bet(n_c: f64, n_s: f64, margin: f64, ratio: f64, theta_s: f64, theta_c: f64) -> Bet {
    let [one] = bets(n_c, n_s, [margin], [ratio], theta_s, [theta_c]);
    one
}

/// The same for several alternatives at once, each against its own line. The lanes are bisected side by side, without branches, so that the
/// compiler can use vector instructions: this is where the time of an update goes.
pub(crate) fn bets<const L: usize>(n_c: f64, n_s: f64, margin: [f64; L], ratio: [f64; L], theta_s: f64, theta_c: [f64; L]) -> [Bet; L] {
    let mut out = [Bet::default(); L];
    if n_c <= 0.0 || n_s <= 0.0 {
        return out;
    }
    // x is written as origin + sign * d, and d is bisected, with the origin where theta_c - y vanishes (or at 0): the stake
    // k_c is proportional to d there, and would lose its digits as a difference when one arm is a billion times the other.
    let mut origin = [0.0; L];
    let mut sign = [0.0; L];
    let mut rest = [0.0; L];
    let mut from_theta = [0.0; L];
    let mut lo = [0.0; L];
    let mut hi = [0.0; L];
    for i in 0..L {
        let zero = (theta_c[i] - margin[i]) / ratio[i];
        let above = theta_c[i] > margin[i] + ratio[i] * theta_s;
        origin[i] = if above { zero } else { zero.max(0.0) };
        rest[i] = if origin[i] == zero { 0.0 } else { theta_c[i] - margin[i] };
        sign[i] = if above { -1.0 } else { 1.0 };
        from_theta[i] = origin[i] - theta_s;
        hi[i] = (-sign[i] * from_theta[i]).max(0.0);
    }
    for _ in 0..HALVINGS {
        for i in 0..L {
            let d = 0.5 * (lo[i] + hi[i]);
            let step = sign[i] * d;
            let x = origin[i] + step;
            let y = margin[i] + ratio[i] * x;
            let gap = rest[i] - ratio[i] * step;
            let g = n_c * ratio[i] * gap * x * (1.0 - x) - n_s * (from_theta[i] + step) * y * (1.0 - y);
            // g > 0 left of the root: the root lies to the right, which is a larger d only where d grows to the right.
            let larger = g * sign[i] > 0.0;
            lo[i] = if larger { d } else { lo[i] };
            hi[i] = if larger { hi[i] } else { d };
        }
    }
    for i in 0..L {
        let step = sign[i] * 0.5 * (lo[i] + hi[i]);
        let x = origin[i] + step;
        let y = margin[i] + ratio[i] * x;
        let variance = y * (1.0 - y);
        if variance > 0.0 && x < 1.0 {
            let k_c = (rest[i] - ratio[i] * step) / variance;
            out[i] = Bet { x_null: x, y_null: y, k_c, k_s: -ratio[i] * n_c * k_c / n_s };
        }
    }
    out
}

impl Bet {
    /// Logarithm of what the bet made of 1, given the batch that it was made for.
    pub fn ln_s(&self, batch: &Batch) -> f64 {
        let (c, s) = (batch.canary, batch.stable);
        term(c.x, (1.0 - self.y_null) * self.k_c)
            + term(c.n - c.x, -self.y_null * self.k_c)
            + term(s.x, (1.0 - self.x_null) * self.k_s)
            + term(s.n - s.x, -self.x_null * self.k_s)
    }
}

/// `count * ln(1 + a)`.
fn term(count: f64, a: f64) -> f64 {
    if count > 0.0 { count * libm::log1p(a.max(LEAST_ARGUMENT)) } else { 0.0 }
}

/// Section 7: the one-sample bet on `theta` against the limit `tau`, both in (0, 1).
pub(crate) fn limit_ln_s(n: f64, x: f64, theta: f64, tau: f64) -> f64 {
    x * libm::log(theta / tau) + (n - x) * (libm::log1p(-theta) - libm::log1p(-tau))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_requests_on_one_side_there_is_no_evidence() {
        for batch in [Batch::new(0.0, 0.0, 100.0, 3.0), Batch::new(10.0, 10.0, 0.0, 0.0)] {
            let b = bet(batch.canary.n, batch.stable.n, 0.005, 1.0, 0.01, 0.5);
            assert_eq!(b.ln_s(&batch), 0.0);
        }
    }

    #[test]
    fn an_alternative_on_the_line_is_no_bet() {
        let b = bet(50.0, 450.0, 0.0, 1.0, 0.01, 0.01);
        assert_eq!((b.k_c, b.k_s), (0.0, 0.0));
    }
}
