//! What others do, on the same simulated requests: for comparison only.
//!
//! A fixed threshold as Flagger's, a z-test read at every poll, a rank test as Kayenta's. Nothing here decides anything.

use alloc::vec::Vec;

use super::{Ended, Scene, Trial, try_once};
use crate::stats::counts::{Batch, Counts};
use crate::stats::random::Random;
use crate::stats::special::normal_cdf;

/// A way to judge a step of 30 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// This crate's.
    Serin,
    /// Success rate of the last minute under 99 % in 5 of 30 checks aborts.
    Threshold,
    /// One-sided two-sample z-test at 5 %, without a margin, read at every poll from 30 canary requests on.
    PeekedZ,
    /// One-sided Mann-Whitney test of the rates per minute at 2 %, every 5 minutes from the tenth on.
    Ranks,
}

impl Method {
    /// All, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Serin, Self::Threshold, Self::PeekedZ, Self::Ranks];

    /// Its name in the reference table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serin => "serin",
            Self::Threshold => "flagger-like",
            Self::PeekedZ => "z-peeked",
            Self::Ranks => "mann-whitney",
        }
    }
}

/// Length of the step.
const STEP_S: f64 = 1800.0;
const POLL_S: f64 = 10.0;

/// One step, judged by this method.
pub(super) fn one_step(method: Method, scene: &Scene, weight: f64, random: &mut Random) -> Ended {
    match method {
        Method::Serin => try_once(scene, &[(weight, STEP_S)], &Trial::of_section_12(), random),
        Method::Threshold => polls(scene, weight, random, Threshold::default()),
        Method::PeekedZ => polls(scene, weight, random, PeekedZ::default()),
        Method::Ranks => polls(scene, weight, random, Ranks::default()),
    }
}

trait Judge {
    /// Whether this poll aborts.
    fn aborts(&mut self, at_s: f64, batch: &Batch) -> bool;
}

fn polls(scene: &Scene, weight: f64, random: &mut Random, mut judge: impl Judge) -> Ended {
    let (mut ended, mut at_s) = (Ended::default(), 0.0);
    while at_s < STEP_S {
        at_s += POLL_S;
        let batch = scene.batch(at_s, POLL_S, weight, random);
        ended.failed += batch.canary.x;
        if judge.aborts(at_s, &batch) {
            ended.aborted_s = Some(at_s);
            return ended;
        }
    }
    ended.passed_s = Some(STEP_S);
    ended
}

/// Whether a minute ends with this poll.
fn minute_ends(at_s: f64) -> bool {
    (at_s as u64).is_multiple_of(60)
}

#[derive(Default)]
struct Threshold {
    minute: Counts,
    failed_checks: u32,
}

impl Judge for Threshold {
    fn aborts(&mut self, at_s: f64, batch: &Batch) -> bool {
        self.minute = self.minute.plus(batch.canary);
        if minute_ends(at_s) {
            self.failed_checks += u32::from(self.minute.rate() > 0.01);
            self.minute = Counts::default();
        }
        self.failed_checks >= 5
    }
}

#[derive(Default)]
struct PeekedZ {
    all: Batch,
}

impl Judge for PeekedZ {
    fn aborts(&mut self, _at_s: f64, batch: &Batch) -> bool {
        self.all = self.all.plus(*batch);
        let (c, s) = (self.all.canary, self.all.stable);
        if c.n < 30.0 || s.n < 1.0 {
            return false;
        }
        let p = c.plus(s).rate();
        let error = libm::sqrt(p * (1.0 - p) * (1.0 / c.n + 1.0 / s.n));
        error > 0.0 && (c.rate() - s.rate()) / error > 1.644_853_626_951_472_2
    }
}

#[derive(Default)]
struct Ranks {
    minute: Batch,
    canary: Vec<f64>,
    stable: Vec<f64>,
}

impl Judge for Ranks {
    fn aborts(&mut self, at_s: f64, batch: &Batch) -> bool {
        self.minute = self.minute.plus(*batch);
        if !minute_ends(at_s) {
            return false;
        }
        let minute = core::mem::take(&mut self.minute);
        for (rates, counts) in [(&mut self.canary, minute.canary), (&mut self.stable, minute.stable)] {
            // A minute without requests counts as one without errors, as a dashboard shows it.
            rates.push(counts.rate());
        }
        at_s >= 600.0 && (at_s as u64).is_multiple_of(300) && p_greater(&self.canary, &self.stable) < 0.02
    }
}

/// Chance under "the same law" of ranks of `a` as high as these: normal approximation with ties and continuity corrected.
fn p_greater(a: &[f64], b: &[f64]) -> f64 {
    let (n, m) = (a.len() as f64, b.len() as f64);
    let mut all: Vec<(f64, bool)> = a.iter().map(|v| (*v, true)).chain(b.iter().map(|v| (*v, false))).collect();
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut rank_sum, mut ties) = (0.0, 0.0);
    for group in all.chunk_by(|x, y| x.0 == y.0) {
        let before = all.iter().take_while(|v| v.0 < group[0].0).count() as f64;
        let t = group.len() as f64;
        ties += t * t * t - t;
        rank_sum += group.iter().filter(|v| v.1).count() as f64 * (before + 0.5 * (t + 1.0));
    }
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let all = n + m;
    let error = libm::sqrt(n * m / 12.0 * (all + 1.0 - ties / (all * (all - 1.0))));
    if error > 0.0 { 1.0 - normal_cdf((u - n * m / 2.0 - 0.5) / error) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_two_groups_far_apart_are_no_accident_and_equal_ones_are() {
        let (low, high): (Vec<f64>, Vec<f64>) = ((0..10).map(f64::from).collect(), (10..20).map(f64::from).collect());
        // scipy.stats.mannwhitneyu(high, low, alternative="greater", method="asymptotic"): 9.133589555477501e-05
        assert!((p_greater(&high, &low) - 9.133_589_555_477_501e-5).abs() < 1e-12, "{:e}", p_greater(&high, &low));
        assert!(p_greater(&low, &high) > 0.999);
        assert_eq!(p_greater(&[0.0; 10], &[0.0; 10]), 1.0);
    }
}
