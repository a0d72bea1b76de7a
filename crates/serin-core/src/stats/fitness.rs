//! The evidence that acquits: three bets that the canary is not worse by the margin, from a step's start.
//!
//! Section 4. No cap and no fresh stakes: what is shown is shown about the whole step. The same three bets at a fixed, coarse margin
//! exclude a gross fault, for steps that need no proof. What the bets are on is `analysis`.

/// Alternatives: where between stable's rate and the null line the canary is taken to be.
pub(crate) const FRACTIONS: [f64; 3] = [0.0, 0.3, 0.6];
/// Alternatives of a limit: parts of it.
pub(crate) const LIMIT_PARTS: [f64; 3] = [0.1, 0.4, 0.7];
/// How much is bet on each.
pub(crate) const SHARES: [f64; 3] = [0.6, 0.25, 0.15];

/// A gross fault: 20 points. Fixed, for a first step of 1 % has few requests, and what it cannot show it shall not be asked.
pub const GROSS_MARGIN: f64 = 0.20;

/// Beyond any verdict, far from overflow.
const MOST: f64 = 1e300;

/// Logarithms of three bets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PassEvidence {
    pub(crate) ln: [f64; 3],
}

impl PassEvidence {
    /// Adds one batch's outcomes, already divided by the burst factor.
    pub fn play(&mut self, ln_s: &[f64; 3]) {
        for (sum, ln_s) in self.ln.iter_mut().zip(ln_s) {
            *sum = (*sum + ln_s).clamp(-MOST, MOST);
        }
    }

    /// Logarithm of the evidence.
    pub fn ln_e(&self) -> f64 {
        let top = self.ln.iter().copied().fold(-MOST, f64::max);
        let sum: f64 = self.ln.iter().zip(SHARES).map(|(ln, share)| share * libm::exp(ln - top)).sum();
        top + libm::log(sum)
    }

    /// The logarithm of the bet on "as good as stable" alone.
    pub fn ln_best(&self) -> f64 {
        self.ln[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_starts_at_one() {
        assert!(PassEvidence::default().ln_e().abs() < 1e-15);
    }

    #[test]
    fn one_bet_that_wins_carries_the_two_that_lose_all() {
        let mut e = PassEvidence::default();
        e.play(&[-1e6, 10.0, -1e308]);
        assert!((e.ln_e() - (10.0 + libm::log(0.25))).abs() < 1e-12);
    }
}
