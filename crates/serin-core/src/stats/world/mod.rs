//! Simulated requests, and what the tests make of them: the proof by numbers of what `docs/statistics.md` says.
//!
//! One step or a few, without pods, routes or people: the whole rollout over `decide` is `crate::simulate`. Everything is seeded, time is a number.
//! `peers` holds the methods that others use, for comparison; `reference` the table and where it comes from, `extra` the
//! other studies.

mod extra;
mod peers;
mod reference;

pub use extra::{StudyRow, StudyTable, studies};
pub use peers::Method;
pub use reference::{Cell, Compared, ReferenceTable, reference_cell, reference_cells, reference_table};

use alloc::vec::Vec;

use super::analysis::{Analysis, Bursts, Counting, History, MetricTest, Settings, Test};
use super::counts::{Batch, Counts};
use super::random::Random;

/// The error rates of two versions, and how fast requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scene {
    /// Stable's rate, as a fraction.
    pub stable: f64,
    /// What the canary has more.
    pub delta: f64,
    /// The fault begins so many seconds after the start.
    pub fault_from_s: f64,
    /// Stable's rate swings by this part of itself, up and down.
    pub swing: f64,
    /// Seconds of a swing.
    pub swing_s: f64,
    /// Both versions fail more from one second to another: from, to, by how much.
    pub outage: (f64, f64, f64),
    /// Inner correlation: each version's rate is drawn anew at every poll from a beta law. 0: no bursts.
    pub correlation: f64,
    /// Requests a second, to both versions.
    pub rate_per_s: f64,
}

impl Scene {
    /// Rates that never change.
    pub const fn constant(stable: f64, delta: f64, rate_per_s: f64) -> Self {
        Self { stable, delta, fault_from_s: 0.0, swing: 0.0, swing_s: 1.0, outage: (0.0, 0.0, 0.0), correlation: 0.0, rate_per_s }
    }

    /// Rates of stable and canary so many seconds after the start, before bursts.
    pub fn rates(&self, at_s: f64) -> (f64, f64) {
        let swing = if self.swing > 0.0 { self.swing * libm::sin(2.0 * core::f64::consts::PI * at_s / self.swing_s) } else { 0.0 };
        let (from, to, more) = self.outage;
        let outage = if at_s >= from && at_s < to { more } else { 0.0 };
        let stable = (self.stable * (1.0 + swing) + outage).clamp(0.0, 1.0);
        let fault = if at_s >= self.fault_from_s { self.delta } else { 0.0 };
        (stable, (stable + fault).clamp(0.0, 1.0))
    }

    /// The requests of one poll that ends at `at_s`.
    pub fn batch(&self, at_s: f64, seconds: f64, weight: f64, random: &mut Random) -> Batch {
        let (stable, canary) = self.rates(at_s - seconds);
        let arm = |random: &mut Random, share: f64, rate: f64| {
            let n = random.poisson(self.rate_per_s * seconds * share);
            let rate = random.bursty_rate(rate, self.correlation);
            Counts::new(n, random.binomial(n, rate))
        };
        let canary = arm(random, weight, canary);
        Batch { canary, stable: arm(random, 1.0 - weight, stable) }
    }
}

/// What is known of stable before the rollout, when it had every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Nothing.
    Unknown,
    /// Its rate, and nothing of bursts.
    Rate,
    /// Every poll.
    Polls,
}

/// What ends a trial before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// A passed step, or an abort.
    Verdict,
    /// An abort.
    Abort,
    /// Nothing: how often each threshold is ever reached.
    End,
}

/// How Serin looks at a scene.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// What is asked of the canary.
    pub margin: f64,
    /// The metric's part of the error budget; others, without a word to say, have the rest.
    pub weight: f64,
    /// Seconds between polls.
    pub poll_s: f64,
    /// See `Settings`.
    pub settings: Settings,
    /// What is known of stable's last 30 minutes.
    pub past: Past,
    /// A step is not passed before so many seconds.
    pub least_s: f64,
    /// What ends the trial before its time.
    pub until: Until,
}

impl Trial {
    /// Section 12's: 0.5 points, a poll every 10 s, half of the budget, stable's last 30 minutes known.
    pub const fn of_section_12() -> Self {
        let settings = Settings { alpha: 0.05, beta: 0.05, bursts: Bursts::Off, interval_s: 10.0 };
        Self { margin: 0.005, weight: 0.5, poll_s: 10.0, settings, past: Past::Polls, least_s: 60.0, until: Until::Verdict }
    }
}

/// What came of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ended {
    /// Seconds until the abort.
    pub aborted_s: Option<f64>,
    /// Seconds until the (first) step was passed.
    pub passed_s: Option<f64>,
    /// Failed canary requests until the verdict, or the end.
    pub failed: f64,
}

/// Steps of (canary's share, seconds), judged by Serin.
pub fn try_once(scene: &Scene, steps: &[(f64, f64)], trial: &Trial, random: &mut Random) -> Ended {
    let tests = [MetricTest::new(Test::Compare { margin: trial.margin, ratio: 1.0 }, trial.weight)];
    let history = (trial.past != Past::Unknown).then(|| {
        let before = Scene { delta: 0.0, outage: (0.0, 0.0, 0.0), ..*scene };
        let poll = |_| before.batch(0.0, trial.poll_s, 0.0, random).stable;
        let polls: Vec<Counts> = (0..libm::ceil(1800.0 / trial.poll_s) as usize).map(poll).collect();
        let sum = polls.iter().fold(Counts::default(), |sum, c| sum.plus(*c));
        History { n: sum.n, x: sum.x, polls: if trial.past == Past::Polls { polls } else { Vec::new() } }
    });
    let mut analysis = Analysis::new(&tests, &[history]);
    let (mut ended, mut at_s) = (Ended::default(), 0.0);
    for (share, seconds) in steps {
        analysis.start_step();
        let begun = at_s;
        while at_s - begun < *seconds - 1e-9 {
            at_s += trial.poll_s;
            let batch = scene.batch(at_s, trial.poll_s, *share, random);
            ended.failed += batch.canary.x;
            analysis.judge(&tests, &trial.settings, &[Some(batch)], trial.poll_s, Counting::Full);
            let harm = analysis.harm(&tests, &trial.settings);
            if harm.failed && ended.aborted_s.is_none() {
                ended.aborted_s = Some(at_s);
                if trial.until != Until::End {
                    return ended;
                }
            }
            let free = !harm.suspected || trial.until == Until::End;
            if ended.passed_s.is_none() && at_s - begun >= trial.least_s && free && analysis.fitness(0, &trial.settings).fit {
                ended.passed_s = Some(at_s);
                if trial.until == Until::Verdict {
                    return ended;
                }
            }
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_swings_fails_and_recovers_as_told() {
        let s = Scene { swing: 0.5, swing_s: 400.0, outage: (100.0, 200.0, 0.1), fault_from_s: 150.0, ..Scene::constant(0.01, 0.05, 1.0) };
        assert_eq!(s.rates(0.0), (0.01, 0.01));
        let close = |(a, b): (f64, f64), (c, d): (f64, f64)| (a - c).abs() < 1e-12 && (b - d).abs() < 1e-12;
        assert!(close(s.rates(100.0), (0.115, 0.115)));
        assert!(close(s.rates(200.0), (0.01, 0.06)));
        assert!(close(s.rates(300.0), (0.005, 0.055)));
    }

    #[test]
    fn a_trial_of_the_same_seed_ends_the_same() {
        let scene = Scene { correlation: 0.01, ..Scene::constant(0.01, 0.05, 50.0) };
        let trial = Trial::of_section_12();
        let run = || try_once(&scene, &[(0.1, 1800.0)], &trial, &mut Random::of_run(5, 1));
        assert_eq!(run(), run());
        assert!(run().aborted_s.is_some());
    }
}
