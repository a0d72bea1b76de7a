//! Readings become evidence, and evidence becomes verdicts with their numbers.
//!
//! The arithmetic is that of `stats`; here stands only which counts go into which test, and what is said of the result.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Look;
use crate::action::Severity;
use crate::observe::{ArmCounts, Reading, Traffic, Workload};
use crate::plan::{Bad, Metric, Mode, Plan, QueryLimit};
use crate::reason::{Measured, Reason};
use crate::state::{Answers, Down, EndCause, PauseCause, Phase, Rollout};
use crate::stats::{Analysis, Batch, Counting, Counts, History, MetricTest, NumberVerdict, Split, Test};
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
        let shares = self.seen.routes.iter().flat_map(|r| &r.splits).filter_map(|s| s.share(&rollout.canary.name));
        rollout.highest = shares.fold(rollout.highest, Weight::max);
        let mut told = Vec::new();
        let mut answers_this_plan = true;
        if rollout.questions != plan.questions() {
            if !rollout.questions.is_empty() {
                begin_anew(plan, rollout);
                told.push(Reason::EvidenceAnew);
                // What is at hand was asked for by the plan before.
                answers_this_plan = false;
            }
            rollout.questions = plan.questions().into();
        }
        rollout.down = Down { stable: rollout.down.stable || down_now.stable, canary: rollout.down.canary || down_now.canary };
        match &self.seen.traffic {
            Traffic::NotAsked => {}
            Traffic::Read(_) if !answers_this_plan => {}
            Traffic::Problem(problem) => {
                let since = rollout.source.take().map_or(now, |(_, since)| since);
                rollout.source = Some((problem.clone(), since));
            }
            // Two controllers by accident, or one that began anew: what was counted is never counted again. Dropping is valid, counting twice is
            // not. A clock that was set back is no reason to count nothing until it has caught up.
            Traffic::Read(reading) if rollout.last_reading.is_some_and(|last| reading.from < last && last <= now.plus(SKEW)) => {}
            Traffic::Read(reading) => {
                let mut reading = reading.clean();
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
                told.extend(rollout.learn(plan, &reading));
                told.extend(rollout.grade(plan, &reading));
                if judged {
                    add_evidence(plan, rollout, &reading, drifted);
                } else if !reading.history.is_empty() {
                    let histories = histories(plan, rollout, &reading.history);
                    rollout.analysis = Analysis::new(plan.tests(), &histories);
                    let requests: f64 = reading.history.iter().map(|arm| arm.n).sum();
                    let seconds = plan.spec().interval.as_secs_f64() * reading.history.len() as f64;
                    rollout.past_rate = (requests > 0.0).then(|| requests / seconds);
                }
            }
        }
        for reason in told {
            self.tell(Severity::Normal, reason);
        }
    }

    /// The verdict "worse", with its cause.
    pub(super) fn harm(&self, rollout: &Rollout) -> Option<EndCause> {
        let tests = rollout.tests(self.plan);
        let settings = self.plan.settings();
        let harm = rollout.analysis.harm(&tests, &settings);
        if !harm.failed {
            return self.broken_limit(rollout).map(EndCause::Harm);
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
        let harm = rollout.analysis.harm(&rollout.tests(self.plan), &self.plan.settings());
        harm.suspected.then(|| Reason::Suspects { measured: self.measured(rollout, harm.cause.unwrap_or(0)), p: harm.p })
    }

    /// Whether there is more evidence of harm than of none: a plan that goes on without proof does not go on against it (specification, section 8).
    pub(super) fn speaks_against(&self, rollout: &Rollout) -> bool {
        rollout.analysis.harm(&rollout.tests(self.plan), &self.plan.settings()).ln_e >= core::f64::consts::LN_2
    }

    /// The first metric whose gross faults are not excluded in this step.
    pub(super) fn gross_open(&self, rollout: &Rollout) -> Option<Reason> {
        if let Some(learning) = rollout.learning(self.plan, self.now) {
            return Some(learning);
        }
        let settings = self.plan.settings();
        let open = self.asking(rollout).find(|i| !rollout.analysis.fitness(*i, &settings).gross_excluded)?;
        let step = rollout.analysis.step_totals(open);
        let reached = step.canary.n > 0.0 || rollout.split.canary() > 0.0;
        if !self.observes() && !reached && step.stable.n >= 12.0 / rollout.weight.share.fraction().max(1e-5) {
            let (canary, share) = (rollout.canary.name.clone(), rollout.weight.share);
            return Some(Reason::CanaryUnreached { canary, share, stable_requests: step.stable.n });
        }
        let more = rollout.analysis.gross_requests_needed(open, &settings);
        Some(Reason::WaitsForGross { measured: self.measured_in_step(rollout, open), more })
    }

    /// The first metric by which the canary is not shown fit in this step.
    pub(super) fn fitness_open(&self, rollout: &Rollout) -> Option<Reason> {
        let settings = self.plan.settings();
        let open = self.asking(rollout).find(|i| !rollout.analysis.fitness(*i, &settings).fit)?;
        let measured = self.measured_in_step(rollout, open);
        let both_fail = |c: &Counts| c.n >= 20.0 && c.x / c.n > 0.9;
        if both_fail(&measured.canary_counts) && both_fail(&measured.stable_counts) {
            return Some(Reason::BothFail { measured });
        }
        let tests = rollout.tests(self.plan);
        let margin = match tests.get(open).map(MetricTest::of_fitness) {
            Some(Test::Compare { margin, .. }) => margin,
            Some(Test::Limit { max }) => max,
            None => 0.0,
        };
        let share = rollout.weight.share.fraction();
        let more = rollout.analysis.requests_needed(open, &tests, &settings, share);
        let time = more.filter(|n| *n > 0.0).and_then(|n| rollout.time_for(self.plan, open, n));
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
        // By the reading's own time: a source may be asked some time behind the clock.
        let settling = reading.from.since(seen) <= self.plan.spec().settle && reading.to > seen;
        reading.no_cluster > 0.0 && settling && rollout.weight.share > rollout.weight.before
    }

    /// At 100 %: what stands in for stable (`Analysis::frozen`).
    pub(super) fn frozen_limits(&self, rollout: &Rollout) -> Vec<f64> {
        let alpha = self.plan.settings().alpha;
        let limit = |(i, t): (usize, &MetricTest)| match rollout.analysis.frozen(i, &t.test, alpha) {
            Some(Test::Limit { max }) => max,
            Some(Test::Compare { .. }) | None => 1.0,
        };
        rollout.tests(self.plan).iter().enumerate().map(limit).collect()
    }

    /// The metrics that ask something in this rollout.
    fn asking(&self, rollout: &Rollout) -> impl Iterator<Item = usize> {
        self.plan.metrics().iter().enumerate().filter(|(_, m)| rollout.asks(self.plan, m)).map(|(i, _)| i)
    }

    /// A query whose answers broke its limit as often in a row as the plan allows.
    fn broken_limit(&self, rollout: &Rollout) -> Option<Reason> {
        let (limit, answers) = self.limits(rollout).find(|(l, a)| a.readings.verdict(&l.limit) == NumberVerdict::Broken)?;
        let (value, times) = (answers.last.unwrap_or(f64::NAN), answers.readings.bad());
        Some(Reason::LimitBroken { metric: limit.name.clone(), value, min: limit.limit.min, max: limit.limit.max, times })
    }

    /// A query whose limit was not kept often enough in a row in this step.
    pub(super) fn limits_open(&self, rollout: &Rollout) -> Option<Reason> {
        let (limit, answers) = self.limits(rollout).find(|(l, a)| a.readings.verdict(&l.limit) != NumberVerdict::Kept)?;
        let (good, needed) = (answers.readings.good(), limit.limit.in_a_row.max(1));
        Some(Reason::WaitsForLimit { metric: limit.name.clone(), last: answers.last, good, needed })
    }

    /// A query that has had no answer for so long that somebody has to know.
    pub(super) fn limit_missing(&self, rollout: &Rollout) -> Option<Reason> {
        let (limit, answers) = self.limits(rollout).find(|(l, a)| a.readings.verdict(&l.limit) == NumberVerdict::Missing)?;
        Some(Reason::LimitMissing { metric: limit.name.clone(), times: answers.readings.missing() })
    }

    fn limits(&self, rollout: &Rollout) -> impl Iterator<Item = (&QueryLimit, Answers)> {
        self.plan.spec().limits.iter().enumerate().map(|(i, limit)| (limit, rollout.answers.get(i).copied().unwrap_or_default()))
    }

    pub(super) fn measured(&self, rollout: &Rollout, metric: usize) -> Measured {
        self.in_words(rollout, metric, rollout.analysis.totals(metric))
    }

    fn measured_in_step(&self, rollout: &Rollout, metric: usize) -> Measured {
        self.in_words(rollout, metric, rollout.analysis.step_totals(metric))
    }

    fn in_words(&self, rollout: &Rollout, metric: usize, counts: Batch) -> Measured {
        let of = |m: &Metric| {
            let noun = if let Bad::Counted { .. } = m.bad { m.name.clone() } else { crate::reason::requests() };
            (m.name.clone(), verb(rollout.slow_from(self.plan, m)), noun)
        };
        let (name, verb, noun) = self.plan.metrics().get(metric).map_or_else(Default::default, of);
        Measured {
            metric: name,
            verb,
            noun,
            canary: rollout.canary.name.clone(),
            canary_counts: counts.canary,
            stable: rollout.stable.name.clone(),
            stable_counts: counts.stable,
        }
    }
}

/// What bad means, as a verb of the version.
fn verb(slow_from: Option<(f64, f64)>) -> String {
    match slow_from {
        None => "failed".into(),
        Some((canary, stable)) if canary == stable => format!("took over {canary} ms for"),
        Some((canary, stable)) => format!("took over {canary} ms (stable: over {stable} ms) for"),
    }
}

/// What was counted answered other questions (specification, section 11). At 100 % there is nobody left to learn a limit from, so only those
/// that the plan names stand.
fn begin_anew(plan: &Plan, rollout: &mut Rollout) {
    rollout.analysis = Analysis::new(plan.tests(), &[]);
    rollout.analysis.start_step();
    rollout.learnt.clear();
    rollout.answers.clear();
    rollout.graded.clear();
    rollout.warned = false;
    rollout.judged_s = 0.0;
    if let Some(bake) = &mut rollout.bake {
        let own = |t: &MetricTest| if let Test::Limit { max } = t.test { max } else { 1.0 };
        bake.limits = plan.tests().iter().map(own).collect();
    }
}

impl Rollout {
    /// The step's evidence begins: nothing of another step, or of another share, acquits in this one. What speaks for harm stays.
    pub(super) fn start_evidence(&mut self) {
        self.analysis.start_step();
        self.answers.iter_mut().for_each(|a| a.readings.start_step());
        self.graded.clear();
        self.split = Split::default();
    }
}

fn count(rollout: &mut Rollout, reading: &Reading) {
    if reading.canary.n + reading.stable.n > 0.0 {
        rollout.last_traffic = Some(reading.to);
    }
    rollout.last_reading = Some(reading.to);
    rollout.read_s += reading.to.since(reading.from).as_secs_f64();
    rollout.source = None;
    for (sum, arm) in [(&mut rollout.served.canary, &reading.canary), (&mut rollout.served.stable, &reading.stable)] {
        sum.n += arm.n;
        sum.x += arm.errors;
    }
}

fn add_evidence(plan: &Plan, rollout: &mut Rollout, reading: &Reading, drifted: bool) {
    // Of a share that somebody else set only harm can be learnt.
    let counting = if rollout.settled(plan, reading) && !drifted { Counting::Full } else { Counting::HarmOnly };
    let warm = |m: &Metric| m.warmup.is_zero() || rollout.weight.seen.is_some_and(|seen| reading.from >= seen.plus(m.warmup));
    let batches: Vec<Option<Batch>> = plan.metrics().iter().map(|m| warm(m).then(|| batch(plan, rollout, m, reading)).flatten()).collect();
    let dt_s = reading.to.since(reading.from).as_secs_f64();
    rollout.judged_s += dt_s;
    let tests = rollout.tests(plan);
    note_answers(plan, rollout, reading, counting);
    rollout.analysis.judge(&tests, &plan.settings(), &batches, dt_s, counting);
    let share = rollout.weight.share;
    // Requests that found no pod carry no version, so a share cannot be told while there are any.
    let whole = reading.no_healthy_upstream == 0.0 && reading.no_cluster == 0.0;
    let set_by_serin = plan.spec().mode == Mode::Act;
    if set_by_serin && counting == Counting::Full && whole && share > Weight::ZERO && share < Weight::ALL {
        rollout.split.update(share.fraction(), reading.canary.n + reading.stable.n, reading.canary.n);
    }
}

fn note_answers(plan: &Plan, rollout: &mut Rollout, reading: &Reading, counting: Counting) {
    rollout.answers.resize(plan.spec().limits.len(), Answers::default());
    for (i, (limit, answers)) in plan.spec().limits.iter().zip(&mut rollout.answers).enumerate() {
        let value = reading.answers.get(i).copied().flatten();
        answers.readings.update(&limit.limit, value);
        answers.last = value.or(answers.last);
        // What was answered while the weight settled is not of this step.
        if counting == Counting::HarmOnly {
            answers.readings.start_step();
        }
    }
}

/// What an arm's requests say for a metric; `None` where it counts latency, and nobody knows from where on it is slow, or the source has not that edge.
fn bad_of(metric: &Metric, slow_from_ms: Option<f64>, arm: &ArmCounts) -> Option<Counts> {
    match metric.bad {
        Bad::Errors => Some(Counts { n: arm.n, x: arm.errors }),
        Bad::SlowerThan { .. } | Bad::Quantile { .. } => Some(Counts { n: arm.timed, x: arm.slower_than(slow_from_ms?)? }),
        // Counted by nobody who calls: see `Reading::counted`.
        Bad::Counted { .. } => None,
    }
}

fn batch(plan: &Plan, rollout: &Rollout, metric: &Metric, reading: &Reading) -> Option<Batch> {
    if let Bad::Counted { index } = metric.bad {
        return reading.counted.get(index).copied().flatten();
    }
    let (canary_ms, stable_ms) = rollout.slow_from(plan, metric).unzip();
    Some(Batch { canary: bad_of(metric, canary_ms, &reading.canary)?, stable: bad_of(metric, stable_ms, &reading.stable)? })
}

fn histories(plan: &Plan, rollout: &Rollout, polls: &[ArmCounts]) -> Vec<Option<History>> {
    let of = |m: &Metric| {
        let stable_ms = rollout.slow_from(plan, m).map(|(_, stable_ms)| stable_ms);
        let polls: Vec<Counts> = polls.iter().map(|arm| bad_of(m, stable_ms, arm)).collect::<Option<_>>()?;
        let (n, x) = polls.iter().fold((0.0, 0.0), |(n, x), c| (n + c.n, x + c.x));
        Some(History { n, x, polls })
    };
    plan.metrics().iter().map(of).collect()
}
