//! The money that convicts: eight bets that the canary is worse, placed anew at every poll, over the whole rollout.
//!
//! Section 3. The rollout owns 1; `reserve + bank + stakes` is a fair game while the canary is not worse, so that it ever reaches 1/alpha
//! has a chance of at most alpha (Ville 1939). Fresh money at every poll notices a fault that begins late (Shin, Ramdas, Rinaldo 2024).
//! What the bets are on, and who wins, is `analysis`.

/// Alternatives: how many times the odds of the null line.
pub(crate) const ODDS: [f64; 8] = [1.12, 1.3, 1.7, 2.5, 5.0, 15.0, 80.0, 1000.0];

/// Where a bet stops growing: far beyond any verdict, far below infinity.
const MOST: f64 = 1e250;

/// One metric's evidence of harm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Money {
    pub(crate) bets: [f64; 8],
    pub(crate) bank: f64,
    pub(crate) reserve: f64,
    pub(crate) k: f64,
}

impl Default for Money {
    fn default() -> Self {
        Self::new()
    }
}

impl Money {
    /// A rollout's start: all of it in reserve.
    pub const fn new() -> Self {
        Self { bets: [0.0; 8], bank: 0.0, reserve: 1.0, k: 0.0 }
    }

    /// A step's start: half of what is not staked may be staked in it. So steps have 1/2, 1/4, … and their number need not be known.
    pub fn start_step(&mut self) {
        let all = self.reserve + self.bank;
        self.bank = all / 2.0;
        self.reserve = all - self.bank;
        self.k = 0.0;
    }

    /// One batch: stakes a little, then pays out. `ln_s` are the bets' outcomes, already divided by the burst factor; `cap`
    /// keeps one poll from convicting alone.
    pub fn play(&mut self, ln_s: &[f64; 8], cap: f64) {
        self.k += 1.0;
        let kept = self.bank * libm::sqrt(self.k / (self.k + 1.0));
        let stake = (self.bank - kept) / 8.0;
        self.bank = kept;
        for (bet, ln_s) in self.bets.iter_mut().zip(ln_s) {
            *bet = ((*bet + stake) * libm::exp(ln_s.min(cap))).min(MOST);
        }
    }

    /// What is on the table.
    pub fn staked(&self) -> f64 {
        self.bets.iter().sum()
    }

    /// The evidence: an e-process that starts at 1.
    pub fn e(&self) -> f64 {
        self.reserve + self.bank + self.staked()
    }

    /// Not staked, in this step's bank and in reserve, and the polls judged in the step.
    pub fn purse(&self) -> (f64, f64, f64) {
        (self.bank, self.reserve, self.k)
    }
}

/// What one poll's evidence is capped at: with the fresh stakes of a first poll it reaches about 0.8/alpha, so it takes two.
pub(crate) fn cap(alpha: f64) -> f64 {
    1.0 - libm::log(alpha)
}

/// The canary's rate at `odds` times the odds of `b`, which is below 1.
pub(crate) fn at_odds(odds: f64, b: f64) -> f64 {
    let o = odds * b / (1.0 - b);
    o / (1.0 + o)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_evidence_no_money_is_made_or_lost() {
        let mut money = Money::new();
        for step in 0..7 {
            money.start_step();
            for _ in 0..1000 {
                money.play(&[0.0; 8], 4.0);
            }
            assert!((money.e() - 1.0).abs() < 1e-12, "step {step}: {}", money.e());
        }
    }

    #[test]
    fn steps_may_stake_a_half_a_quarter_an_eighth() {
        let mut money = Money::new();
        let mut banks = [0.0; 3];
        for bank in &mut banks {
            money.start_step();
            *bank = money.bank;
            // Loses all that was staked, and stakes nearly all.
            for _ in 0..1_000_000 {
                money.play(&[-1e9; 8], 4.0);
            }
        }
        for (bank, want) in banks.into_iter().zip([0.5, 0.25, 0.125]) {
            assert!((bank - want).abs() < 1e-3, "{banks:?}");
        }
    }

    #[test]
    fn one_poll_alone_never_convicts_and_two_do() {
        for alpha in [0.5, 0.05, 0.001] {
            let mut money = Money::new();
            money.start_step();
            money.play(&[1e9; 8], cap(alpha));
            assert!(money.e() < 1.0 / alpha, "alpha {alpha}: {}", money.e());
            money.play(&[1e9; 8], cap(alpha));
            assert!(money.e() > 1.0 / alpha);
        }
    }
}
