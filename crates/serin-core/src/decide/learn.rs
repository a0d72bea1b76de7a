//! What a rollout learns of stable before it can ask: the edges and margins of a latency quantile, and a step's coarser margins.
//!
//! Once learnt they are kept, as evidence answers one question only. Deliberately judges nothing.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use crate::observe::{ArmCounts, Reading};
use crate::plan::{Bad, Metric, Plan, Quantile, Side, Step};
use crate::reason::Reason;
use crate::state::{Edge, Learnt, Rollout};
use crate::stats::forecast::{Stream, graded_margin};
use crate::stats::{Histogram, MetricTest, Test};
use crate::units::{Timestamp, Weight};

/// Stable's latency is learnt from so many intervals where the source does not know the past: five minutes at the usual ten seconds.
const INTERVALS: u32 = 30;
/// So many requests beyond the quantile, at least, or nobody knows where it lies.
const BEYOND: f64 = 10.0;

impl Rollout {
    /// The plan's tests as they stand for this rollout: with the margins that it learnt, the step's coarser ones, and at 100 % the limits in
    /// stable's place.
    pub fn tests(&self, plan: &Plan) -> Vec<MetricTest> {
        let mut tests = plan.tests().to_vec();
        // Whatever became of the step, or of the plan: a coarser margin is the graded step's alone.
        let graded = matches!(plan.step(self.step), Some(Step::Weight { graded: true, .. }));
        for (i, (test, metric)) in tests.iter_mut().zip(plan.metrics()).enumerate() {
            if let Some(edge) = self.edge(plan, metric) {
                test.test = Test::Compare { margin: edge.margin, ratio: 1.0 };
            }
            test.graded = self.graded.get(i).copied().flatten().filter(|_| graded);
            if let Some(max) = self.bake.as_ref().and_then(|bake| bake.limits.get(i)) {
                *test = MetricTest::new(Test::Limit { max: *max }, test.weight);
            }
        }
        tests
    }

    /// Whether this metric asks anything: not the second edge of a quantile that has one only.
    pub fn asks(&self, plan: &Plan, metric: &Metric) -> bool {
        !(matches!(metric.bad, Bad::Quantile { .. }) && self.is_fixed(plan, metric) && self.edge(plan, metric).is_none())
    }

    /// The bucket edges that the source is asked for, in milliseconds, ascending; and whether it is asked for all that there are.
    pub fn edges(&self, plan: &Plan) -> (Vec<f64>, bool) {
        let learns = plan.metrics().iter().any(|m| matches!(m.bad, Bad::Quantile { .. }) && !self.is_fixed(plan, m));
        let mut edges = plan.edges().0;
        edges.extend(plan.metrics().iter().filter_map(|m| self.edge(plan, m)).flat_map(|e| [e.canary_ms, e.stable_ms]));
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        (edges, learns)
    }

    /// What was learnt for a quantile's metric.
    fn learnt_of(&self, plan: &Plan, metric: &Metric) -> Option<&Learnt> {
        let Bad::Quantile { side, .. } = metric.bad else { return None };
        let mut of_side = plan.metrics().iter().filter(|m| matches!(m.bad, Bad::Quantile { side: s, .. } if s == side));
        self.learnt.get(of_side.position(|m| m.name == metric.name)?)
    }

    pub(super) fn is_fixed(&self, plan: &Plan, metric: &Metric) -> bool {
        matches!(self.learnt_of(plan, metric), Some(Learnt::Fixed { .. }))
    }

    /// Where slow begins for a quantile's metric; `None` until that is learnt, and where there is nothing to test.
    fn edge(&self, plan: &Plan, metric: &Metric) -> Option<Edge> {
        match (self.learnt_of(plan, metric)?, &metric.bad) {
            (Learnt::Fixed { lower, .. }, Bad::Quantile { side: Side::Lower, .. }) => *lower,
            (Learnt::Fixed { upper, .. }, Bad::Quantile { side: Side::Upper, .. }) => *upper,
            _ => None,
        }
    }

    /// The edges of canary and stable above which a request is bad for this metric, in milliseconds; `None` where it counts no latency, or
    /// does not know yet.
    pub(super) fn slow_from(&self, plan: &Plan, metric: &Metric) -> Option<(f64, f64)> {
        match metric.bad {
            Bad::Errors | Bad::Counted { .. } => None,
            Bad::SlowerThan { edge_ms } => Some((edge_ms, edge_ms)),
            Bad::Quantile { .. } => self.edge(plan, metric).map(|e| (e.canary_ms, e.stable_ms)),
        }
    }

    /// The first quantile that is not learnt yet, with what is waited for.
    pub(super) fn learning(&self, plan: &Plan, now: Timestamp) -> Option<Reason> {
        let open = plan.metrics().iter().find(|m| matches!(m.bad, Bad::Quantile { .. }) && !self.is_fixed(plan, m))?;
        let Bad::Quantile { asked, .. } = open.bad else { return None };
        let metric = as_asked(open);
        let nothing = Learnt::NOTHING;
        let Learnt::Gathering { since, n, slower } = self.learnt_of(plan, open).unwrap_or(&nothing) else { return None };
        let left = since.map_or(gathering(plan), |since| gathering(plan).saturating_sub(now.since(since)));
        // Before the first request nobody knows of a histogram either.
        let edges = if *n > 0.0 { slower.len() } else { 1 };
        Some(Reason::LearnsLatency { metric, requests: *n, needed: enough(&asked), left, edges })
    }

    /// Whether a reading is wholly of the weight that is set.
    pub(super) fn settled(&self, plan: &Plan, reading: &Reading) -> bool {
        self.weight.seen.is_some_and(|seen| reading.from >= seen.plus(plan.spec().settle))
    }

    /// Puts a reading into what is learnt; tells what is fixed by it.
    pub(super) fn learn(&mut self, plan: &Plan, reading: &Reading) -> Vec<Reason> {
        let mut told = Vec::new();
        let quantiles = plan.metrics().iter().filter_map(|m| match m.bad {
            Bad::Quantile { asked, side: Side::Lower } => Some((m, asked)),
            _ => None,
        });
        for (i, (metric, asked)) in quantiles.enumerate() {
            if self.learnt.len() <= i {
                self.learnt.push(Learnt::NOTHING);
            }
            let Learnt::Gathering { since, n, slower } = &mut self.learnt[i] else { continue };
            // A source that knows the past has said it all at once.
            let from = if reading.history.is_empty() { reading.from } else { reading.from.minus(gathering(plan)) };
            let since = since.get_or_insert(from);
            *since = (*since).min(from);
            for arm in reading.history.iter().chain([&reading.stable]).filter(|arm| arm.timed > 0.0 && !arm.slower.is_empty()) {
                gather(n, slower, arm);
            }
            if reading.to.since(*since) < gathering(plan) || *n < enough(&asked) || slower.is_empty() {
                continue;
            }
            let cumulative: Vec<(f64, f64)> = slower.iter().map(|(edge, slow)| (*edge, *n - slow)).collect();
            let Some((learnt, tested)) = fixed(&Histogram::new(&cumulative, *n), &asked) else { continue };
            self.learnt[i] = learnt;
            told.push(Reason::LatencyLearnt { metric: as_asked(metric), tested });
        }
        told
    }

    /// The step's coarser margins, once, by the forecast when its settle time is over and the rate of requests is known: from numbers of requests and
    /// stable's rate alone, so that nobody can choose by what passes. What counted before was asked for the margin itself, which is asking more.
    pub(super) fn grade(&mut self, plan: &Plan, reading: &Reading) -> Vec<Reason> {
        let Some(Step::Weight { weight, graded: true, max_wait: Some(within), .. }) = plan.step(self.step) else { return Vec::new() };
        if self.measured_rate(plan).is_none() || !self.graded.is_empty() || !self.settled(plan, reading) || self.bake.is_some() {
            return Vec::new();
        }
        let mut told = Vec::new();
        let tests = self.tests(plan);
        for (i, (metric, test)) in plan.metrics().iter().zip(&tests).enumerate() {
            let chosen = self.coarser(plan, i, &test.test, *weight, *within);
            self.graded.push(chosen.map(|(_, graded, _)| graded));
            if let Some((margin, graded, rate)) = chosen {
                told.push(Reason::Graded { metric: metric.name.clone(), margin, graded, rate, within: *within });
            }
        }
        told
    }

    /// The margin of a metric's test, the coarser one that a graded step at this weight would ask for, and the rate by which that follows. `None`: none
    /// is coarser.
    pub(super) fn coarser(&self, plan: &Plan, i: usize, test: &Test, weight: Weight, within: Duration) -> Option<(f64, f64, f64)> {
        let metric = plan.metrics().get(i)?;
        let Test::Compare { margin, ratio } = *test else { return None };
        let rate = self.rate_of(plan, i).filter(|_| self.asks(plan, metric))?;
        let stream = Stream { weight: weight.fraction(), rate, bursts: self.analysis.burst_factor(i) };
        let p = self.analysis.stable_rate(i).max(1e-6);
        let fits = graded_margin(p, margin, ratio, plan.settings().beta, &stream, within.as_secs_f64() / 60.0)?;
        (fits > margin).then_some((margin, fits, rate))
    }
}

/// A quantile's name as the plan has it: the metrics made of it carry the side behind it.
fn as_asked(metric: &Metric) -> String {
    metric.name.strip_suffix("-lower").unwrap_or(&metric.name).to_string()
}

/// How long stable's latency is gathered at least.
fn gathering(plan: &Plan) -> Duration {
    plan.spec().interval * INTERVALS
}

/// How many of stable's requests it takes to know a quantile's bucket.
fn enough(asked: &Quantile) -> f64 {
    libm::ceil(BEYOND / asked.q.min(1.0 - asked.q).max(1e-6))
}

/// Adds an arm's requests. Only edges that all have are known.
fn gather(n: &mut f64, slower: &mut Vec<(f64, f64)>, arm: &ArmCounts) {
    if *n == 0.0 {
        slower.clone_from(&arm.slower);
    } else {
        slower.retain(|(edge, _)| arm.slower_than(*edge).is_some());
        for (edge, slow) in slower.iter_mut() {
            *slow += arm.slower_than(*edge).unwrap_or(0.0);
        }
    }
    *n += arm.timed;
}

/// The edges at which the quantile is tested, and the sentence for it. `None`: the histogram cannot tell.
fn fixed(histogram: &Histogram, asked: &Quantile) -> Option<(Learnt, String)> {
    let margins = histogram.margins(asked.q, asked.may_grow)?;
    if !asked.strict {
        let edge = |e: crate::stats::Edge| Edge { canary_ms: e.bound_ms, stable_ms: e.bound_ms, margin: e.margin };
        let learnt = Learnt::Fixed { lower: margins.lower.map(edge), upper: margins.upper.map(edge) };
        return Some((learnt, margins.to_string()));
    }
    // The pairs whose upper edges are the first at or above the quantile, and the next one.
    let from = margins.upper.or(margins.lower)?.bound_ms;
    let pairs: Vec<_> = histogram.strict_pairs(asked.may_grow).into_iter().filter(|p| p.hi_ms >= from).take(2).collect();
    let edge = |i: usize| pairs.get(i).map(|p| Edge { canary_ms: p.hi_ms, stable_ms: p.lo_ms, margin: 0.0 });
    let claims: Vec<String> =
        pairs.iter().map(|p| format!("more of the canary over {} ms than of stable over {} ms", p.hi_ms, p.lo_ms)).collect();
    let growth = crate::reason::points(asked.may_grow);
    let tested = match claims.is_empty() {
        true => format!("no two edges of the histogram lie more than {growth} % apart there, so nothing can be claimed strictly"),
        false => format!("{} is slower by more than {growth} %, wherever in its bucket each request lies", claims.join(", or ")),
    };
    Some((Learnt::Fixed { lower: edge(0), upper: edge(1) }, tested))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Bad;

    #[test]
    fn a_quantile_is_called_as_its_owner_calls_it() {
        for asked in ["p99", "read-lower"] {
            let test = MetricTest::new(Test::Limit { max: 1.0 }, 1.0);
            let metric = Metric { name: format!("{asked}-lower"), bad: Bad::Errors, test, warmup: Duration::ZERO };
            assert_eq!(as_asked(&metric), asked);
        }
    }
}
