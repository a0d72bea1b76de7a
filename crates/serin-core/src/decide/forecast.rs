//! How long steps will take, by the requests that came so far.
//!
//! Deliberately decides nothing: a forecast is said, and never obeyed. Its arithmetic is section 8's, in `stats::forecast`.

use alloc::vec::Vec;
use core::time::Duration;

use super::Look;
use crate::action::Severity;
use crate::plan::{Bad, Plan, Step};
use crate::reason::Reason;
use crate::state::{PauseCause, Phase, Rollout, State};
use crate::stats::{GROSS_MARGIN, Test};
use crate::units::{Timestamp, Weight};

/// A rate of requests is known after so many readings.
const READINGS: u32 = 3;

/// A step that would need longer than its `maxWait`, or without one longer than this, is called too slow.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Whatever takes longer takes for ever.
const FOR_EVER: f64 = 1e9;

/// How long one step takes from the moment that its weight is seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Forecast {
    /// Canary requests (or whatever the slowest metric counts) that an answer needs, more likely than not.
    pub(super) requests: f64,
    /// The time of as many; `None`: at this rate, or with these margins, never.
    pub(super) time: Option<Duration>,
    /// Enough in nine of ten cases.
    pub(super) ninety: Option<Duration>,
}

impl Forecast {
    /// So long, whatever comes.
    fn fixed(time: Duration) -> Self {
        Self { requests: 0.0, time: Some(time), ninety: Some(time) }
    }
}

impl Rollout {
    /// Requests a second to both versions, as counted in this rollout; `None`: not for long enough to tell.
    pub(super) fn measured_rate(&self, plan: &Plan) -> Option<f64> {
        let requests = self.served.canary.n + self.served.stable.n;
        (requests > 0.0 && self.read_s >= (plan.spec().interval * READINGS).as_secs_f64()).then(|| requests / self.read_s)
    }

    /// The same, or what stable had before the rollout, where the source remembers.
    pub fn rate(&self, plan: &Plan) -> Option<f64> {
        self.measured_rate(plan).or(self.past_rate)
    }

    /// What a metric counts of both versions in a second, as far as that is known.
    pub(super) fn rate_of(&self, plan: &Plan, metric: usize) -> Option<f64> {
        match plan.metrics().get(metric)?.bad {
            Bad::Errors | Bad::SlowerThan { .. } | Bad::Quantile { .. } => self.rate(plan),
            // Whatever that is, it need not come with every request.
            Bad::Counted { .. } => {
                let counted = self.analysis.totals(metric);
                let rate = (counted.canary.n + counted.stable.n) / self.judged_s;
                (rate > 0.0 && self.judged_s >= (plan.spec().interval * READINGS).as_secs_f64()).then_some(rate)
            }
        }
    }

    /// How long so much of what a metric counts takes to come to the canary at the present share; `None`: the rate is not known yet, or it is none.
    pub fn time_for(&self, plan: &Plan, metric: usize, more: f64) -> Option<Duration> {
        let seconds = more / (self.rate_of(plan, metric)? * self.weight.share.fraction());
        (seconds < FOR_EVER).then(|| Duration::from_secs_f64(seconds))
    }

    /// What the step of that index, which has not begun, takes if the canary is as good as stable and requests come as they did. `None`: nobody knows
    /// yet, or the step waits for a person.
    pub(super) fn forecast(&self, plan: &Plan, index: usize) -> Option<Forecast> {
        let (weight, hold, confirm, graded) = match plan.step(index)? {
            Step::Weight { weight, hold, confirm, graded, max_wait } => (*weight, *hold, *confirm, max_wait.filter(|_| *graded)),
            Step::Pause { time } => return time.map(Forecast::fixed),
        };
        let least = hold.max(plan.spec().settle);
        if weight == Weight::ZERO {
            return Some(Forecast::fixed(least));
        }
        let (tests, settings) = (self.tests(plan), plan.settings());
        let asking = || plan.metrics().iter().enumerate().filter(|(_, m)| self.asks(plan, m));
        if asking().any(|(_, m)| matches!(m.bad, Bad::Quantile { .. }) && !self.is_fixed(plan, m)) {
            return None;
        }
        let asked = |i: usize| match tests.get(i).map(|t| t.test.clean()) {
            _ if !confirm => Test::Compare { margin: GROSS_MARGIN, ratio: 1.0 },
            Some(test @ Test::Compare { margin, ratio }) => {
                let coarser =
                    graded.and_then(|within| self.coarser(plan, i, &test, weight, within)).map_or(margin, |(_, graded, _)| graded);
                Test::Compare { margin: coarser, ratio }
            }
            Some(limit @ Test::Limit { .. }) => limit,
            None => Test::Compare { margin: 1.0, ratio: 1.0 },
        };
        let needed: Vec<_> =
            asking().map(|(i, m)| (i, m, self.analysis.requests_from_nothing(i, &asked(i), &settings, weight.fraction()))).collect();
        // That nothing would ever suffice follows from stable's own rates, however fast requests come.
        if needed.iter().any(|(_, _, n)| n.is_none()) {
            self.rate(plan)?;
            return Some(Forecast { requests: f64::INFINITY, time: None, ninety: None });
        }
        let (mut requests, mut median, mut ninety) = (0.0_f64, 0.0_f64, 0.0_f64);
        for (i, metric, needed) in needed {
            let (needed, rate) = (needed?, self.rate_of(plan, i)? * weight.fraction());
            // Right after a new weight requests are left out.
            let unused = plan.spec().settle.max(metric.warmup).as_secs_f64();
            requests = requests.max(needed.median);
            median = median.max(needed.median / rate + unused);
            ninety = ninety.max(needed.ninety / rate + unused);
        }
        let time = |seconds: f64| (seconds < FOR_EVER).then(|| Duration::from_secs_f64(seconds).max(least));
        Some(Forecast { requests, time: time(median), ninety: time(ninety) })
    }

    /// How long the running step's evidence still takes, by its slowest metric.
    fn evidence_left(&self, plan: &Plan) -> Option<Duration> {
        let Some(Step::Weight { weight, confirm, .. }) = plan.step(self.step) else { return None };
        let (tests, settings) = (self.tests(plan), plan.settings());
        let mut longest = Duration::ZERO;
        for (i, _) in plan.metrics().iter().enumerate().filter(|(_, m)| self.asks(plan, m)) {
            let more = match confirm {
                true => self.analysis.requests_needed(i, &tests, &settings, weight.fraction()),
                false => self.analysis.gross_requests_needed(i, &settings),
            }?;
            if more > 0.0 {
                longest = longest.max(self.time_for(plan, i, more)?);
            }
        }
        Some(longest)
    }
}

impl State {
    /// How long until the canary is the new stable, more likely than not, if it is as good as that one. `None`: nobody knows yet, it would never be,
    /// or a person is waited for.
    pub fn until_promoted(&self, plan: &Plan, now: Timestamp) -> Option<Duration> {
        let steps = plan.spec().steps.len();
        let since = |at: Timestamp| now.since(at);
        let sum = |r: &Rollout, from: usize| {
            (from..steps).try_fold(Duration::ZERO, |sum, i| Some(sum.saturating_add(r.forecast(plan, i)?.time?)))
        };
        let bake = plan.spec().bake.max(plan.spec().settle);
        match &self.phase {
            Phase::Preparing(r) => Some(sum(r, 0)?.saturating_add(bake)),
            Phase::Progressing(r) => {
                let Some(Step::Weight { hold, .. }) = plan.step(r.step) else { return None };
                let held = (*hold).max(plan.spec().settle).saturating_sub(since(r.step_since));
                // What is there counts already, so the time that is left follows from what lacks, not from the step's whole time.
                let evidence = r.evidence_left(plan)?;
                Some(held.max(evidence).saturating_add(sum(r, r.step + 1)?).saturating_add(bake))
            }
            Phase::Paused(r, PauseCause::Plan { until: Some(until) }) => {
                Some(until.since(now).saturating_add(sum(r, r.step + 1)?).saturating_add(bake))
            }
            Phase::Promoting(r) => Some(bake.saturating_sub(r.bake.as_ref().map_or(Duration::ZERO, |b| since(b.since)))),
            Phase::Idle | Phase::RolledBack { .. } | Phase::Paused(..) | Phase::RollingBack(..) => None,
        }
    }
}

impl Look<'_> {
    /// Says once of a rollout, before the step in question if that is known then, that a step from `from` on would hardly be answered in its time.
    pub(super) fn foretell(&mut self, rollout: &mut Rollout, from: usize) {
        if rollout.warned {
            return;
        }
        for index in from..self.plan.spec().steps.len() {
            let Some(Step::Weight { weight, confirm: true, max_wait, .. }) = self.plan.step(index) else { continue };
            let (weight, within) = (*weight, max_wait.unwrap_or(LONGEST));
            let Some(Forecast { requests, time, ninety }) = rollout.forecast(self.plan, index) else { return };
            if ninety.is_some_and(|ninety| ninety <= within) {
                continue;
            }
            rollout.warned = true;
            let canary = rollout.canary.name.clone();
            let rate = rollout.rate(self.plan).unwrap_or(0.0);
            let steps = self.plan.spec().steps.len();
            self.tell(
                Severity::Warning,
                Reason::TooSlow { canary, step: index, steps, weight, requests, time, ninety, rate, within, day: max_wait.is_none() },
            );
            return;
        }
    }
}
