//! Readings become evidence, and evidence becomes verdicts with their numbers.
//!
//! The arithmetic is that of `stats`; here stands only which counts go into which test, and what is said of the result.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Look;
use crate::observe::{ArmCounts, Reading, Traffic, Workload};
use crate::plan::{Bad, Metric, Mode};
use crate::reason::{Measured, Reason};
use crate::state::{Down, EndCause, PauseCause, Phase, Rollout, Target};
use crate::stats::{Analysis, Batch, Counting, Counts, History, MetricTest, Test};
use crate::units::Weight;

/// Clocks of two machines differ by less; more is a clock that was set back.
const SKEW: core::time::Duration = core::time::Duration::from_secs(60);

impl Look<'_> {
    /// Puts the reading of this look, if there is one, into the running rollout's evidence.
    pub(super) fn judge(&mut self) {
        let (plan, now) = (self.plan, self.now);
        let up = |version| self.workload(version).is_some_and(|w: &Workload| w.capacity() > 0);
        let down_now = self.next.rollout().map(|r| Down { stable: !up(&r.stable), canary: !up(&r.canary) }).unwrap_or_default();
        let drifted = matches!(self.next.phase, Phase::Paused(_, PauseCause::Drift { .. }));
        let judged = !matches!(self.next.phase, Phase::Preparing(_));
        let (Phase::Preparing(rollout) | Phase::Progressing(rollout) | Phase::Paused(rollout, _) | Phase::Promoting(rollout)) =
            &mut self.next.phase
        else {
            return;
        };
        rollout.down = Down { stable: rollout.down.stable || down_now.stable, canary: rollout.down.canary || down_now.canary };
        match &self.seen.traffic {
            Traffic::NotAsked => {}
            Traffic::Problem(problem) => {
                let since = rollout.source.take().map_or(now, |(_, since)| since);
                rollout.source = Some((problem.clone(), since));
            }
            // Two controllers by accident, or one that began anew: what was counted is never counted again. Dropping is valid, counting twice is
            // not. A clock that was set back is no reason to count nothing until it has caught up.
            Traffic::Read(reading) if rollout.last_reading.is_some_and(|last| reading.from < last && last <= now.plus(SKEW)) => {}
            Traffic::Read(reading) => {
                let mut reading = reading.clone();
                // UH names no version (`docs/istio.md`, section 2): it is the one's that was without a ready pod at some look since the
                // last reading, where the other never was. Else it is nobody's that is known.
                match core::mem::replace(&mut rollout.down, down_now) {
                    Down { canary: true, stable: false } => {
                        reading.canary.n += reading.no_healthy_upstream;
                        reading.canary.errors += reading.no_healthy_upstream;
                    }
                    // Told as stable's, and kept out of the comparison: an outage says nothing of how stable answers, and would pass for
                    // bursts that no canary could be told from for hours.
                    Down { canary: false, stable: true } => {
                        rollout.served.stable.n += reading.no_healthy_upstream;
                        rollout.served.stable.x += reading.no_healthy_upstream;
                    }
                    Down { .. } if reading.no_healthy_upstream > 0.0 => {
                        rollout.served.unattributed += reading.no_healthy_upstream;
                        rollout.refused_at = Some(now);
                    }
                    Down { .. } => {}
                }
                count(rollout, &reading);
                if judged {
                    add_evidence(plan, rollout, &reading, drifted);
                } else if !reading.history.is_empty() {
                    rollout.analysis = Analysis::new(plan.tests(), &histories(plan.metrics(), &reading.history));
                }
            }
        }
    }

    /// The verdict "worse", with its cause.
    pub(super) fn harm(&self, rollout: &Rollout) -> Option<EndCause> {
        let tests = tests_now(self.plan.tests(), rollout);
        let settings = self.plan.settings();
        let harm = rollout.analysis.harm(&tests, &settings);
        if !harm.failed {
            return None;
        }
        let i = harm.cause.unwrap_or(0);
        let (measured, alpha) = (self.measured(rollout, i), settings.alpha);
        Some(EndCause::Harm(match &tests.get(i)?.test {
            Test::Compare { margin, ratio } => Reason::Harm { measured, margin: *margin, ratio: *ratio, alpha },
            Test::Limit { max } => Reason::OverLimit { measured, max: *max, alpha },
        }))
    }

    /// No step is left while harm is suspected.
    pub(super) fn suspicion(&self, rollout: &Rollout) -> Option<Reason> {
        let harm = rollout.analysis.harm(&tests_now(self.plan.tests(), rollout), &self.plan.settings());
        harm.suspected.then(|| Reason::Suspects { measured: self.measured(rollout, harm.cause.unwrap_or(0)), p: harm.p })
    }

    /// The first metric whose gross faults are not excluded in this step.
    pub(super) fn gross_open(&self, rollout: &Rollout) -> Option<Reason> {
        let settings = self.plan.settings();
        let open = (0..self.plan.metrics().len()).find(|i| !rollout.analysis.fitness(*i, &settings).gross_excluded)?;
        let step = rollout.analysis.step_totals(open);
        if !self.observes() && step.canary.n == 0.0 && step.stable.n >= 12.0 / rollout.weight.share.fraction().max(1e-5) {
            let (canary, share) = (rollout.canary.name.clone(), rollout.weight.share);
            return Some(Reason::CanaryUnreached { canary, share, stable_requests: step.stable.n });
        }
        let more = rollout.analysis.gross_requests_needed(open, &settings);
        Some(Reason::WaitsForGross { measured: self.measured_in_step(rollout, open), more })
    }

    /// The first metric by which the canary is not shown fit in this step.
    pub(super) fn fitness_open(&self, rollout: &Rollout) -> Option<Reason> {
        let settings = self.plan.settings();
        let open = (0..self.plan.metrics().len()).find(|i| !rollout.analysis.fitness(*i, &settings).fit)?;
        let measured = self.measured_in_step(rollout, open);
        let both_fail = |c: &Counts| c.n >= 20.0 && c.x / c.n > 0.9;
        if both_fail(&measured.canary_counts) && both_fail(&measured.stable_counts) {
            return Some(Reason::BothFail { measured });
        }
        let margin = match self.plan.tests().get(open).map(|t| &t.test) {
            Some(Test::Compare { margin, .. }) => *margin,
            Some(Test::Limit { max }) => *max,
            None => 0.0,
        };
        let share = rollout.weight.share.fraction();
        let more = rollout.analysis.requests_needed(open, self.plan.tests(), &settings, share);
        let rate = step_rate(rollout, &measured, self.now);
        let time = more.zip(rate).map(|(n, r)| core::time::Duration::from_secs_f64((n / r).clamp(1.0, 1e8)));
        Some(Reason::WaitsForFitness { measured, margin, more, time })
    }

    /// Whether the share that is seen contradicts the share that is set.
    pub(super) fn split_reason(&self, rollout: &Rollout) -> Option<Reason> {
        let split = &rollout.split;
        split.alarm().then(|| Reason::ShareOff {
            set: rollout.weight.share,
            seen: split.canary() / split.total().max(1.0),
            canary: split.canary(),
            total: split.total(),
        })
    }

    /// Requests of this reading found no cluster, within the settle time of a weight that went up.
    pub(super) fn callers_were_refused(&self, rollout: &Rollout) -> bool {
        let Traffic::Read(reading) = &self.seen.traffic else { return false };
        let Some(seen) = rollout.weight.seen else { return false };
        let settling = self.now.since(seen) <= self.plan.spec().settle + self.plan.spec().interval;
        reading.no_cluster > 0.0 && settling && rollout.weight.share > rollout.weight.before
    }

    /// At 100 %: what stands in for stable (`Analysis::frozen`).
    pub(super) fn frozen_limits(&self, rollout: &Rollout) -> Vec<f64> {
        let alpha = self.plan.settings().alpha;
        let limit = |(i, t): (usize, &MetricTest)| match rollout.analysis.frozen(i, &t.test, alpha) {
            Some(Test::Limit { max }) => max,
            Some(Test::Compare { .. }) | None => 1.0,
        };
        self.plan.tests().iter().enumerate().map(limit).collect()
    }

    pub(super) fn measured(&self, rollout: &Rollout, metric: usize) -> Measured {
        self.in_words(rollout, metric, rollout.analysis.totals(metric))
    }

    fn measured_in_step(&self, rollout: &Rollout, metric: usize) -> Measured {
        self.in_words(rollout, metric, rollout.analysis.step_totals(metric))
    }

    fn in_words(&self, rollout: &Rollout, metric: usize, counts: Batch) -> Measured {
        let (name, verb) = self.plan.metrics().get(metric).map_or_else(Default::default, |m| (m.name.clone(), verb(&m.bad)));
        Measured {
            metric: name,
            verb,
            canary: rollout.canary.name.clone(),
            canary_counts: counts.canary,
            stable: rollout.stable.name.clone(),
            stable_counts: counts.stable,
        }
    }
}

/// What bad means, as a verb of the version.
fn verb(bad: &Bad) -> String {
    match bad {
        Bad::Errors => "failed".into(),
        Bad::SlowerThan { edge_ms } => format!("took over {edge_ms} ms for"),
    }
}

/// The canary's requests per second in this step; `None` before the first.
fn step_rate(rollout: &Rollout, measured: &Measured, now: crate::units::Timestamp) -> Option<f64> {
    let seconds = now.since(rollout.step_since).as_secs_f64();
    (measured.canary_counts.n > 0.0 && seconds > 0.0).then(|| measured.canary_counts.n / seconds)
}

/// The tests as they stand: at 100 % each has its limit in stable's place.
pub(crate) fn tests_now(tests: &[MetricTest], rollout: &Rollout) -> Vec<MetricTest> {
    let Some(bake) = &rollout.bake else { return tests.to_vec() };
    let limit = |(t, max): (&MetricTest, &f64)| MetricTest { test: Test::Limit { max: *max }, weight: t.weight };
    tests.iter().zip(&bake.limits).map(limit).collect()
}

fn count(rollout: &mut Rollout, reading: &Reading) {
    if reading.canary.n + reading.stable.n > 0.0 {
        rollout.last_traffic = Some(reading.to);
    }
    rollout.last_reading = Some(reading.to);
    rollout.source = None;
    for (sum, arm) in [(&mut rollout.served.canary, &reading.canary), (&mut rollout.served.stable, &reading.stable)] {
        sum.n += arm.n;
        sum.x += arm.errors;
    }
}

fn add_evidence(plan: &crate::plan::Plan, rollout: &mut Rollout, reading: &Reading, drifted: bool) {
    let settle = plan.spec().settle;
    let settled = |t: &Target| t.seen.is_some_and(|seen| reading.from >= seen.plus(settle));
    // Of a share that somebody else set only harm can be learnt.
    let counting = if settled(&rollout.weight) && !drifted { Counting::Full } else { Counting::HarmOnly };
    let batches: Vec<Option<Batch>> = plan.metrics().iter().map(|m| batch(m, reading)).collect();
    let dt_s = reading.to.since(reading.from).as_secs_f64();
    let tests = tests_now(plan.tests(), rollout);
    rollout.analysis.judge(&tests, &plan.settings(), &batches, dt_s, counting);
    let share = rollout.weight.share;
    // Requests that found no pod carry no version, so a share cannot be told while there are any.
    let whole = reading.no_healthy_upstream == 0.0 && reading.no_cluster == 0.0;
    let set_by_serin = plan.spec().mode == Mode::Act;
    if set_by_serin && counting == Counting::Full && whole && share > Weight::ZERO && share < Weight::ALL {
        rollout.split.update(share.fraction(), reading.canary.n + reading.stable.n, reading.canary.n);
    }
}

fn bad_of(metric: &Metric, arm: &ArmCounts) -> Option<Counts> {
    let x = match metric.bad {
        Bad::Errors => arm.errors,
        Bad::SlowerThan { edge_ms } => arm.slower_than(edge_ms)?,
    };
    Some(Counts { n: arm.n, x })
}

fn batch(metric: &Metric, reading: &Reading) -> Option<Batch> {
    Some(Batch { canary: bad_of(metric, &reading.canary)?, stable: bad_of(metric, &reading.stable)? })
}

fn histories(metrics: &[Metric], polls: &[ArmCounts]) -> Vec<Option<History>> {
    let of = |m: &Metric| {
        let polls: Vec<Counts> = polls.iter().map(|arm| bad_of(m, arm)).collect::<Option<_>>()?;
        let (n, x) = polls.iter().fold((0.0, 0.0), |(n, x), c| (n + c.n, x + c.x));
        Some(History { n, x, polls })
    };
    metrics.iter().map(of).collect()
}
