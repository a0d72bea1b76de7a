//! Many runs of one plan in one world, as numbers and as a paragraph.
//!
//! Chances carry their standard errors: a number without one is no result of a simulation.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::Serialize;

use super::stage::{End, Keep, Run, edges, started};
use super::world::{World, run};
use crate::plan::Plan;
use crate::reason::count;
use crate::units::duration_text;

/// A share of runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chance {
    /// From 0 to 1.
    pub share: f64,
    /// Its standard error. Where none or all of R runs ended so, 3/R instead: what 95 % confidence excludes.
    pub error: f64,
}

impl Chance {
    fn of(many: u64, runs: u64) -> Self {
        let r = runs.max(1) as f64;
        let share = many as f64 / r;
        let error = if many == 0 || many == runs { (3.0 / r).min(1.0) } else { libm::sqrt(share * (1.0 - share) / r) };
        Self { share, error }
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (share, error) = (100.0 * self.share, 100.0 * self.error);
        match self.share {
            0.0 => write!(f, "0 % (under {error:.2})"),
            1.0 => write!(f, "100 % (over {:.2})", 100.0 - error),
            _ => write!(f, "{share:.1} % (± {error:.1})"),
        }
    }
}

/// What came of many rollouts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// How many were simulated.
    pub runs: u64,
    /// With this seed.
    pub seed: u64,
    /// They end undecided after so many seconds.
    pub longest_s: f64,
    /// Promoted.
    pub promoted: Chance,
    /// Taken back.
    pub rolled_back: Chance,
    /// Neither.
    pub undecided: Chance,
    /// Seconds to promotion: median and nine of ten; absent when none was.
    pub promoted_s: Option<(f64, f64)>,
    /// Seconds to the rollback, the same way.
    pub rolled_back_s: Option<(f64, f64)>,
    /// Requests that the canary answered, mean of all runs.
    pub canary_requests: f64,
    /// Those that it failed.
    pub canary_failed: f64,
    /// Failed canary requests of the runs that were taken back, the same way as the seconds: the users who meet the fault.
    pub failed_before_rollback: Option<(f64, f64)>,
    /// Rollbacks by the metric that convicted (empty: none did).
    pub by_metric: BTreeMap<String, u64>,
    /// Rollbacks by step, from 1; one more than the plan has is 100 %.
    pub by_step: BTreeMap<usize, u64>,
    /// What undecided runs waited for at their end, most frequent first, at most three.
    pub waits: Vec<(String, u64)>,
}

/// Simulates the plan's rollout in this world `runs` times.
pub fn simulate(plan: &Plan, world: &World, runs: u64, seed: u64, longest_s: f64) -> Outcome {
    Outcome::of(&simulate_part(plan, world, 0..runs, seed, longest_s), seed, longest_s)
}

/// Some of a seed's runs, without their stories: a caller with several cores gives a part to each, and `Outcome::of` all of them. The parts together are
/// the same runs as the whole.
pub fn simulate_part(plan: &Plan, world: &World, numbers: core::ops::Range<u64>, seed: u64, longest_s: f64) -> Vec<Run> {
    let (plan, edges) = (started(plan), edges(plan));
    numbers.map(|i| run(&plan, world, &edges, seed, i, longest_s, Keep::End)).collect()
}

impl Outcome {
    /// Sums up runs of one seed.
    pub fn of(runs: &[Run], seed: u64, longest_s: f64) -> Self {
        summed(runs, seed, longest_s)
    }
}

fn summed(ended: &[Run], seed: u64, longest_s: f64) -> Outcome {
    let runs = ended.len() as u64;
    let promoted: Vec<&Run> = ended.iter().filter(|r| r.end == End::Promoted).collect();
    let back: Vec<&Run> = ended.iter().filter(|r| matches!(r.end, End::RolledBack { .. })).collect();
    let (mut by_metric, mut by_step, mut waits) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::<String, u64>::new());
    for r in ended {
        match &r.end {
            End::Promoted => {}
            End::RolledBack { metric, .. } => {
                *by_metric.entry(metric.clone().unwrap_or_default()).or_insert(0) += 1;
                *by_step.entry(r.step + 1).or_insert(0) += 1;
            }
            // Numbers differ from run to run; what comes before the first colon does not.
            End::Undecided { why } => *waits.entry(why.split(':').next().unwrap_or_default().into()).or_insert(0) += 1,
        }
    }
    let mut waits: Vec<(String, u64)> = waits.into_iter().collect();
    waits.sort_by_key(|(_, many)| core::cmp::Reverse(*many));
    waits.truncate(3);
    let mean = |of: fn(&Run) -> f64| ended.iter().map(of).sum::<f64>() / runs.max(1) as f64;
    Outcome {
        runs,
        seed,
        longest_s,
        promoted: Chance::of(promoted.len() as u64, runs),
        rolled_back: Chance::of(back.len() as u64, runs),
        undecided: Chance::of(runs - (promoted.len() + back.len()) as u64, runs),
        promoted_s: median_and_ninety(promoted.iter().map(|r| r.took_s).collect()),
        rolled_back_s: median_and_ninety(back.iter().map(|r| r.took_s).collect()),
        canary_requests: mean(|r| r.canary_requests),
        canary_failed: mean(|r| r.canary_failed),
        failed_before_rollback: median_and_ninety(back.iter().map(|r| r.canary_failed).collect()),
        by_metric,
        by_step,
        waits,
    }
}

fn median_and_ninety(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values.get(libm::floor(part * (values.len().checked_sub(1)?) as f64) as usize).copied();
    Some((at(0.5)?, at(0.9)?))
}

/// A paragraph that an engineer reads aloud.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |s: f64| duration_text(Duration::from_secs_f64(s.clamp(0.0, 1e9)));
        let within = |t: Option<(f64, f64)>| {
            t.map_or_else(String::new, |(m, n)| format!("; half within {}, nine of ten within {}", time(m), time(n)))
        };
        writeln!(f, "{} rollouts simulated, seed {}, each at most {}", count(self.runs as f64), self.seed, time(self.longest_s))?;
        writeln!(f, "  promoted     {}{}", self.promoted, within(self.promoted_s))?;
        write!(f, "  rolled back  {}{}", self.rolled_back, within(self.rolled_back_s))?;
        if let Some((m, n)) = self.failed_before_rollback {
            write!(f, "; by then the canary had failed {} requests (nine of ten: at most {})", count(m), count(n))?;
        }
        writeln!(f)?;
        writeln!(f, "  undecided    {}", self.undecided)?;
        let list = |of: Vec<String>| of.join(", ");
        if !self.by_step.is_empty() {
            let steps = self.by_step.iter().map(|(step, many)| format!("step {step}: {}", count(*many as f64))).collect();
            let named = self.by_metric.iter().map(|(metric, many)| (if metric.is_empty() { "no metric" } else { metric.as_str() }, many));
            let metrics = named.map(|(metric, many)| format!("{metric}: {}", count(*many as f64))).collect();
            writeln!(f, "  rollbacks by {}; by {}", list(steps), list(metrics))?;
        }
        for (why, many) in &self.waits {
            writeln!(f, "  at the end {} waited: {why}", count(*many as f64))?;
        }
        write!(f, "  the canary answered {} requests in the mean and failed {:.1} of them", count(self.canary_requests), self.canary_failed)
    }
}
