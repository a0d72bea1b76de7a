//! Evidence of one batch: the bet against "the canary is not worse", or against "it is".
//!
//! Section 2. The bet is the likelihood ratio of an alternative to its projection on the null line `y = m + rho x`, made valid for
//! every null by choosing stable's stake from the canary's (`k_s = -rho n_c k_c / n_s`): then `E[S] <= exp(n_c k_c (p_c - m - rho p_s)) <= 1`.
//! Validity does not rest on the root: a sloppy one costs speed, never safety. After Turner, Ly and Gruenwald (2024), Turner and Gruenwald (2023).
//! Deliberately holds no state.

use super::counts::Batch;

/// Halvings of the bracket that find any root: what a double can hold.
const HALVINGS: usize = 60;
/// Halvings before Newton's method is trusted, and how many of its steps are tried. Some five suffice; the rest is for odd batches.
const FIRST_HALVINGS: usize = 8;
const NEWTON_STEPS: usize = 12;
/// A last step so small, relative to where it leads, leaves an error far below a double's precision, as it is squared by each step.
const SETTLED: f64 = 1e-12;

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

/// The same for several alternatives at once, each against its own line. The lanes are worked on side by side, without branches, so that the
/// compiler can use vector instructions: this is where the time of an update goes.
pub(crate) fn bets<const L: usize>(n_c: f64, n_s: f64, margin: [f64; L], ratio: [f64; L], theta_s: f64, theta_c: [f64; L]) -> [Bet; L] {
    let mut out = [Bet::default(); L];
    if n_c <= 0.0 || n_s <= 0.0 {
        return out;
    }
    let lines = Lines::new(n_c, n_s, margin, ratio, theta_s, theta_c);
    let roots = lines.roots();
    for i in 0..L {
        let step = lines.sign[i] * roots[i];
        let x = lines.origin[i] + step;
        let y = margin[i] + ratio[i] * x;
        let variance = y * (1.0 - y);
        if variance > 0.0 && x < 1.0 {
            let k_c = (lines.rest[i] - ratio[i] * step) / variance;
            out[i] = Bet { x_null: x, y_null: y, k_c, k_s: -ratio[i] * n_c * k_c / n_s };
        }
    }
    out
}

/// The equation of each lane, `g(x) = 0`, with x written as `origin + sign d`: the origin lies where `theta_c - y` vanishes (or at 0),
/// because the stake `k_c` is proportional to that and would lose its digits as a difference when one arm is a billion times the other.
struct Lines<const L: usize> {
    n_c: f64,
    n_s: f64,
    margin: [f64; L],
    ratio: [f64; L],
    origin: [f64; L],
    sign: [f64; L],
    /// `theta_c - y` at the origin.
    rest: [f64; L],
    /// `x - theta_s` at the origin.
    from_theta: [f64; L],
    /// The root has d between 0 and this.
    width: [f64; L],
}

impl<const L: usize> Lines<L> {
    fn new(n_c: f64, n_s: f64, margin: [f64; L], ratio: [f64; L], theta_s: f64, theta_c: [f64; L]) -> Self {
        let zeros = [0.0; L];
        let mut l = Self { n_c, n_s, margin, ratio, origin: zeros, sign: zeros, rest: zeros, from_theta: zeros, width: zeros };
        for i in 0..L {
            let zero = (theta_c[i] - margin[i]) / ratio[i];
            let above = theta_c[i] > margin[i] + ratio[i] * theta_s;
            l.origin[i] = if above { zero } else { zero.max(0.0) };
            l.rest[i] = if l.origin[i] == zero { 0.0 } else { theta_c[i] - margin[i] };
            l.sign[i] = if above { -1.0 } else { 1.0 };
            l.from_theta[i] = l.origin[i] - theta_s;
            l.width[i] = (-l.sign[i] * l.from_theta[i]).max(0.0);
        }
        l
    }

    /// `sign g` at d, which is positive below the root, and its slope along d.
    #[inline(always)]
    fn at(&self, i: usize, d: f64) -> (f64, f64) {
        let (sign, ratio) = (self.sign[i], self.ratio[i]);
        let step = sign * d;
        let x = self.origin[i] + step;
        let y = self.margin[i] + ratio * x;
        let gap = self.rest[i] - ratio * step;
        let from = self.from_theta[i] + step;
        let (a, b) = (self.n_c * ratio, self.n_s);
        let (vx, vy) = (x * (1.0 - x), y * (1.0 - y));
        let g = a * gap * vx - b * from * vy;
        let slope = a * (gap * (1.0 - 2.0 * x) - ratio * vx) - b * (vy + from * ratio * (1.0 - 2.0 * y));
        (sign * g, slope)
    }

    fn roots(&self) -> [f64; L] {
        let (mut lo, mut hi) = ([0.0; L], self.width);
        self.halve(&mut lo, &mut hi, FIRST_HALVINGS);
        let mut d = [0.0; L];
        for i in 0..L {
            d[i] = 0.5 * (lo[i] + hi[i]);
        }
        for _ in 0..NEWTON_STEPS {
            let mut open = 0.0;
            for i in 0..L {
                let (g, slope) = self.at(i, d[i]);
                let below = g > 0.0;
                lo[i] = if below { d[i] } else { lo[i] };
                hi[i] = if below { hi[i] } else { d[i] };
                let newton = d[i] - g / slope;
                let inside = newton >= lo[i] && newton <= hi[i];
                let next = if inside { newton } else { 0.5 * (lo[i] + hi[i]) };
                let off = next - d[i];
                let off = if off < 0.0 { -off } else { off };
                open += if off > SETTLED * next { 1.0 } else { 0.0 };
                d[i] = next;
            }
            if open == 0.0 {
                return d;
            }
        }
        (lo, hi) = ([0.0; L], self.width);
        self.halve(&mut lo, &mut hi, HALVINGS);
        for i in 0..L {
            d[i] = 0.5 * (lo[i] + hi[i]);
        }
        d
    }

    fn halve(&self, lo: &mut [f64; L], hi: &mut [f64; L], times: usize) {
        for _ in 0..times {
            for i in 0..L {
                let d = 0.5 * (lo[i] + hi[i]);
                let below = self.at(i, d).0 > 0.0;
                lo[i] = if below { d } else { lo[i] };
                hi[i] = if below { hi[i] } else { d };
            }
        }
    }
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

    proptest::proptest! {
        /// Newton's way and plain bisection lead to the same stakes.
        #[test]
        fn the_root_is_the_one_that_bisection_finds(n_c in 0.0..9.0_f64, n_s in 0.0..9.0_f64, m in 0.0..0.1_f64, rho in 1.0..3.0_f64, theta in 1e-6..0.2_f64, at in 0.0..1.0_f64) {
            let (n_c, n_s) = (libm::exp10(n_c), libm::exp10(n_s));
            for (m, theta) in [(m, theta), (0.0, theta), (m, theta * theta * theta)] {
                let line = m + rho * theta;
                for theta_c in [line + (1.0 - line) * at * 0.999, theta + (line - theta) * at, line * at] {
                    let lines = Lines::new(n_c, n_s, [m], [rho], theta, [theta_c]);
                    let (mut lo, mut hi) = ([0.0], lines.width);
                    lines.halve(&mut lo, &mut hi, 200);
                    let ([d], want) = (lines.roots(), 0.5 * (lo[0] + hi[0]));
                    proptest::prop_assert!((d - want).abs() <= 1e-10 * want, "{} {} at {} {} {} {} {} {}", d, want, n_c, n_s, m, rho, theta, theta_c);
                }
            }
        }
    }

    #[test]
    fn an_alternative_on_the_line_is_no_bet() {
        let b = bet(50.0, 450.0, 0.0, 1.0, 0.01, 0.01);
        assert_eq!((b.k_c, b.k_s), (0.0, 0.0));
    }
}
