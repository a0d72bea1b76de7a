//! Drives `decide` through one rollout: pods are ready at once, routes show what was set, people resume what the plan paused.
//!
//! Where the requests come from is the caller's: `Supply`. What the real world does besides (stale caches, drift, pods that die) is not
//! played here; scenarios and the lab do that.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::action::Action;
use crate::decide::decide;
use crate::observe::{ArmCounts, Observation, Reading, Request, RequestAction, Route, Rules, Split, Traffic, Workload};
use crate::plan::{Plan, PlanSpec, Question, Trigger};
use crate::reason::Reason;
use crate::state::{EndCause, PauseCause, Phase, State};
use crate::units::{ObjectName, Timestamp, VersionName, Weight};

/// Virtual time begins here.
pub(super) const START: Timestamp = Timestamp(0);
/// Looks at one instant, at most: a decision that always wants another one at once would be a bug, and the run ends undecided.
const LOOKS_AT_ONCE: u32 = 200;

/// Where requests come from.
pub(super) trait Supply {
    /// Stable's requests before the rollout, poll by poll, at most 30 minutes.
    fn history(&mut self) -> Vec<ArmCounts>;
    /// Requests from `at_s` on for `seconds`, with the canary's share and the step that runs: canary's, stable's.
    fn flow(&mut self, at_s: f64, seconds: f64, share: f64, step: usize) -> (ArmCounts, ArmCounts);
    /// No more requests are known from here on, in seconds.
    fn ends_s(&self) -> f64;
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// The canary is the new stable.
    Promoted,
    /// Taken back; the metric that convicted it, where one did, and the sentence.
    RolledBack {
        /// Its name.
        metric: Option<String>,
        /// Why.
        why: String,
    },
    /// Neither in the time that was given; the sentence of the last look.
    Undecided {
        /// What it waits for.
        why: String,
    },
}

/// The evidence at one look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Seconds since the rollout began.
    pub at_s: f64,
    /// The canary's share.
    pub share: f64,
    /// Logarithm of the evidence of harm.
    pub ln_harm: f64,
    /// Logarithm of the evidence of fitness in this step, of the metric that has least.
    pub ln_fit: f64,
}

/// One rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// How it ended.
    pub end: End,
    /// Seconds it took.
    pub took_s: f64,
    /// The step that ran last, from 0; the number of steps at 100 %.
    pub step: usize,
    /// Requests that the canary answered.
    pub canary_requests: f64,
    /// Those that it failed.
    pub canary_failed: f64,
    /// The evidence, look by look, where it was asked for.
    pub trace: Vec<Point>,
    /// What was told on the way: seconds and the event.
    pub told: Vec<(f64, Reason)>,
}

/// What is written down of a run beside its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Nothing.
    End,
    /// Evidence and events.
    Story,
}

/// The plan, as if somebody started it: a manual trigger or a brake would only wait. Nobody is there to answer its queries, nor to count anything
/// but requests.
pub(super) fn started(plan: &Plan) -> Plan {
    let mut spec = PlanSpec { trigger: Trigger::Automatic, suspend: false, limits: Vec::new(), ..plan.spec().clone() };
    spec.metrics.retain(|m| !matches!(m.question, Question::Counted(..)));
    Plan::new(spec).unwrap_or_else(|_| plan.clone())
}

/// One rollout of a plan that was `started`, until it ends or `longest_s` are over.
pub(super) fn play(plan: &Plan, pods: u32, supply: &mut impl Supply, longest_s: f64, keep: Keep) -> Run {
    let mut stage = Stage::new(plan, pods.max(1));
    let longest_s = longest_s.min(supply.ends_s());
    let history = supply.history();
    stage.play(supply, history, longest_s, keep)
}

struct Stage<'a> {
    plan: &'a Plan,
    state: State,
    seen: Observation,
    now: Timestamp,
    share: Weight,
    pending: (ArmCounts, ArmCounts),
    read_to: Timestamp,
    canary: VersionName,
    requests: u64,
}

fn name(text: &str) -> Option<VersionName> {
    VersionName::new(text).ok()
}

impl<'a> Stage<'a> {
    fn new(plan: &'a Plan, pods: u32) -> Self {
        let desired = plan.spec().desired.clone();
        let named = |texts: [&str; 2]| texts.into_iter().filter_map(name).find(|n| Some(n) != desired.as_ref());
        // Two literals that are label values, of which one at least is not the desired version.
        let stable = named(["v1", "v0"]);
        let canary = desired.clone().or_else(|| name("v2"));
        let (Some(stable), Some(canary)) = (stable, canary) else { unreachable!("v0, v1 and v2 are label values") };
        let workload = |version: &VersionName, created: i64| Workload {
            version: version.clone(),
            name: alloc::format!("app-{version}"),
            hash: version.to_string(),
            replicas: pods,
            ready: pods,
            endpoints: pods,
            created: Timestamp(created),
            scaled_by: None,
            kept_by: None,
        };
        let route = Route {
            object: ObjectName { namespace: "default".into(), name: "app".into() },
            resource_version: "1".into(),
            splits: vec![Split {
                label: "spec.http[0]".into(),
                shares: vec![(stable.clone(), Weight::ALL), (canary.clone(), Weight::ZERO)],
            }],
            manager: None,
            mark: None,
            because: None,
        };
        let mut seen = Observation {
            at: START,
            workloads: vec![workload(&stable, -2)],
            routes: vec![route],
            rules: Rules { subsets: vec![stable, canary.clone()], own: Vec::new(), unused: Vec::new(), refusal: None },
            traffic: Traffic::NotAsked,
            requests: Vec::new(),
            abort: None,
            freeze: None,
            obstacle: None,
        };
        // Adopted while only stable is there, with the wish that stood then; the canary is news.
        let before = PlanSpec { desired: None, ..plan.spec().clone() };
        let adopting = Plan::new(before).unwrap_or_else(|_| plan.clone());
        let state = decide(&adopting, &State::new(), &seen, START).next;
        seen.workloads.push(workload(&canary, -1));
        let pending = Default::default();
        Self { plan, state, seen, now: START, share: Weight::ZERO, pending, read_to: START, canary, requests: 0 }
    }

    fn play(&mut self, supply: &mut impl Supply, mut history: Vec<ArmCounts>, longest_s: f64, keep: Keep) -> Run {
        let interval = self.plan.spec().interval.max(Duration::from_millis(1));
        let end = START.plus(Duration::from_secs_f64(longest_s.clamp(0.0, 1e9)));
        let mut run = Run {
            end: End::Undecided { why: String::new() },
            took_s: 0.0,
            step: 0,
            canary_requests: 0.0,
            canary_failed: 0.0,
            trace: Vec::new(),
            told: Vec::new(),
        };
        let (mut looks, mut wants_traffic) = (0, false);
        // Its sentence is made once, at the end: it is dearer than the look.
        let mut waits: Option<Reason>;
        loop {
            let due = wants_traffic && self.now >= self.read_to.plus(interval);
            self.seen.traffic = if due { self.reading(core::mem::take(&mut history)) } else { Traffic::NotAsked };
            self.seen.at = self.now;
            let decision = decide(self.plan, &self.state, &self.seen, self.now);
            let acted = self.act(&decision.actions, keep, &mut run);
            wants_traffic = decision.wants_traffic;
            self.state = decision.next;
            // On the way back the target is 0 already: the step is the one that it comes from.
            if let Some(rollout) = self.state.rollout().filter(|_| !matches!(self.state.phase, Phase::RollingBack(..))) {
                run.step = if rollout.weight.share == Weight::ALL { self.plan.spec().steps.len() } else { rollout.step };
            }
            if keep == Keep::Story {
                run.trace.extend(self.point());
            }
            run.took_s = self.seconds();
            if let Some(end) = self.ended(&decision.reasons) {
                run.end = end;
                return run;
            }
            waits = decision.reasons.into_iter().next();
            let asked = self.resume_what_the_plan_paused();
            looks += 1;
            let at_once = acted || asked || decision.wake_at.is_some_and(|at| at <= self.now);
            if at_once && looks < LOOKS_AT_ONCE {
                continue;
            }
            let poll = if wants_traffic { Some(self.read_to.plus(interval)) } else { None };
            let next = [decision.wake_at, poll].into_iter().flatten().filter(|at| *at > self.now).min();
            let Some(next) = next.filter(|next| looks < LOOKS_AT_ONCE && *next <= end) else {
                run.end = End::Undecided { why: waits.as_ref().map(ToString::to_string).unwrap_or_default() };
                return run;
            };
            looks = 0;
            self.advance(next, supply, &mut run);
        }
    }

    fn seconds(&self) -> f64 {
        self.now.since(START).as_secs_f64()
    }

    fn advance(&mut self, to: Timestamp, supply: &mut impl Supply, run: &mut Run) {
        let seconds = to.since(self.now).as_secs_f64();
        let step = run.step;
        let (canary, stable) = supply.flow(self.seconds(), seconds, self.share.fraction(), step);
        run.canary_requests += canary.n;
        run.canary_failed += canary.errors;
        self.pending.0.add(&canary);
        self.pending.1.add(&stable);
        self.now = to;
    }

    fn reading(&mut self, history: Vec<ArmCounts>) -> Traffic {
        let (canary, stable) = core::mem::take(&mut self.pending);
        let from = core::mem::replace(&mut self.read_to, self.now);
        Traffic::Read(Reading {
            from,
            to: self.now,
            stable,
            canary,
            history,
            no_healthy_upstream: 0.0,
            no_cluster: 0.0,
            answers: Vec::new(),
            counted: Vec::new(),
        })
    }

    /// Carries out what was asked for; true when something that Serin sees has changed.
    fn act(&mut self, actions: &[Action], keep: Keep, run: &mut Run) -> bool {
        let mut changed = false;
        for action in actions {
            match action {
                Action::SetWeights { canary, share, .. } => {
                    self.share = *share;
                    for (version, weight) in self.seen.routes.iter_mut().flat_map(|r| &mut r.splits).flat_map(|s| &mut s.shares) {
                        *weight = if version == canary { *share } else { share.rest() };
                    }
                    changed = true;
                }
                Action::Scale { workload, replicas } | Action::Unscale { workload, replicas } => {
                    for w in self.seen.workloads.iter_mut().filter(|w| w.name == *workload) {
                        (w.replicas, w.ready, w.endpoints) = (*replicas, *replicas, *replicas);
                    }
                    changed = true;
                }
                Action::Handle { id } => {
                    self.seen.requests.retain(|r| r.id != *id);
                    changed = true;
                }
                Action::Event { reason, .. } => {
                    if keep == Keep::Story {
                        run.told.push((self.seconds(), reason.clone()));
                    }
                }
                // Subset and destination are there from the beginning.
                Action::Retire { .. }
                | Action::EnsureSubset { .. }
                | Action::EnsureDestination { .. }
                | Action::RemoveDestination { .. }
                | Action::RemoveSubset { .. } => {}
            }
        }
        changed
    }

    fn resume_what_the_plan_paused(&mut self) -> bool {
        let Phase::Paused(rollout, PauseCause::Plan { until: None }) = &self.state.phase else { return false };
        if !self.seen.requests.is_empty() {
            return false;
        }
        self.requests += 1;
        let id = self.requests.to_string();
        let rollout = rollout.uid.clone();
        let (action, who, why) = (RequestAction::Resume, "simulate".to_string(), String::new());
        self.seen.requests.push(Request { id, action, rollout, step: None, who, why, at: self.now });
        true
    }

    fn ended(&self, reasons: &[Reason]) -> Option<End> {
        match &self.state.phase {
            Phase::Idle if self.state.stable.as_ref().is_some_and(|s| s.name == self.canary) => Some(End::Promoted),
            // The weight is back; what follows is housekeeping.
            Phase::RollingBack(_, cause) if self.share == Weight::ZERO => Some(end_of(cause)),
            Phase::RolledBack { cause, .. } => Some(end_of(cause)),
            Phase::Idle if self.state.history.last().is_some() => {
                Some(End::RolledBack { metric: None, why: reasons.first().map(ToString::to_string).unwrap_or_default() })
            }
            Phase::Idle
            | Phase::Preparing(_)
            | Phase::Progressing(_)
            | Phase::Paused(..)
            | Phase::Promoting(_)
            | Phase::RollingBack(..) => None,
        }
    }

    fn point(&self) -> Option<Point> {
        let rollout = self.state.rollout()?;
        let settings = self.plan.settings();
        let asking = self.plan.metrics().iter().enumerate().filter(|(_, m)| rollout.asks(self.plan, m));
        let ln_fit = asking.map(|(i, _)| rollout.analysis.fitness(i, &settings).ln_e).fold(f64::INFINITY, f64::min);
        let ln_harm = rollout.analysis.harm(&rollout.tests(self.plan), &settings).ln_e;
        Some(Point { at_s: self.seconds(), share: self.share.fraction(), ln_harm, ln_fit: if ln_fit.is_finite() { ln_fit } else { 0.0 } })
    }
}

fn end_of(cause: &EndCause) -> End {
    let metric = match cause {
        EndCause::Harm(Reason::Harm { measured, .. } | Reason::OverLimit { measured, .. }) => Some(measured.metric.clone()),
        _ => None,
    };
    End::RolledBack { metric, why: cause.to_string() }
}

/// The edges of Istio's own histogram, in milliseconds.
pub const ISTIO_EDGES: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// The bucket edges that the plan asks for, in milliseconds, each once and in order; Istio's own besides where it asks for a quantile.
pub fn edges(plan: &Plan) -> Vec<f64> {
    let (mut edges, all) = plan.edges();
    edges.extend(ISTIO_EDGES.iter().filter(|_| all));
    edges.sort_by(f64::total_cmp);
    edges.dedup();
    edges
}
