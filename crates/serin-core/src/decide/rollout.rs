//! A rollout runs: one function per phase, each from the rollout's data to the next phase.
//!
//! Deliberately counts nothing: verdicts come from `evidence`, gates and shares from `weights`.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

use super::Look;
use super::weights::Shown;
use crate::action::{Action, Guard, Order, Severity};
use crate::observe::Workload;
use crate::plan::{OnInconclusive, OnNoTraffic, Scaling, Step};
use crate::reason::Reason;
use crate::state::{Bake, EndCause, Hurry, Outcome, Past, PauseCause, Phase, REMEMBERED, Rollout, Target};
use crate::stats::Split;
use crate::units::Weight;

/// Without a request for this long, a step says so instead of counting (specification, section 9).
const QUIET: Duration = Duration::from_secs(60);

/// So long a rollback asks for the canary's pods to be as many as were found.
const UNSCALE: Duration = Duration::from_secs(30);
/// Whether they are is looked at so often, should nothing else tell of it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What becomes of a step.
enum Answer {
    /// On to the next.
    Leave,
    /// Not yet; the reason is said.
    Stay,
    /// Back to stable, as the plan says of a step without an answer.
    GoBack,
}

impl Look<'_> {
    /// Before the first weight: pods, subset, destination, and a source that answers.
    pub(super) fn prepare(&mut self, rollout: Rollout) -> Phase {
        if let Some(cause) = self.must_end(&rollout) {
            return self.end(rollout, cause, Phase::Preparing);
        }
        if let Some(brake) = self.brake() {
            self.say(brake);
            return Phase::Preparing(rollout);
        }
        let first = self.plan.weight_at(0);
        if !self.ready_for(&rollout, first) || !self.source_answers(&rollout) {
            return Phase::Preparing(rollout);
        }
        self.step_to(rollout, 0)
    }

    /// At a step: first what ends or disturbs it, then its weight, then whether it is done.
    pub(super) fn progress(&mut self, mut rollout: Rollout) -> Phase {
        if let Some(cause) = self.must_end(&rollout).or_else(|| self.harm(&rollout)) {
            return self.end(rollout, cause, Phase::Progressing);
        }
        match self.shown(&rollout) {
            Shown::Drift { to, at } => {
                let cause = self.drifted(to, at);
                self.tell(Severity::Warning, Reason::Paused { why: cause.to_string() });
                return Phase::Paused(rollout, cause);
            }
            // Deleted meanwhile: requests go by numbers of pods now, which nobody chose.
            Shown::NotYet if self.seen.routes.is_empty() => {
                self.say(Reason::NoRoute { service: "the service".into() });
                return Phase::Progressing(rollout);
            }
            Shown::NotYet if rollout.weight.share > rollout.weight.before => {
                // Pods may have gone since the step was begun: the gates are asked again before each write.
                let share = rollout.weight.share;
                if let Some(brake) = self.brake() {
                    self.say(brake);
                } else if self.ready_for(&rollout, share) {
                    self.raise(&rollout);
                }
                return Phase::Progressing(rollout);
            }
            Shown::NotYet => {
                self.lower(&rollout, &Guard::Back);
                self.say(Reason::Routing { canary: rollout.canary.name.clone(), to: rollout.weight.share });
                return Phase::Progressing(rollout);
            }
            Shown::All if rollout.weight.seen.is_none() => {
                rollout.weight.seen = Some(self.now);
                rollout.step_since = self.now;
            }
            Shown::All => {}
        }
        if self.callers_were_refused(&rollout) {
            return self.take_back_last_change(rollout);
        }
        // The owner changed the plan meanwhile: its step begins anew at what it asks for now.
        let planned = self.plan.weight_at(rollout.step);
        if planned != rollout.weight.share {
            if let Some(brake) = self.brake().filter(|_| planned > rollout.weight.share) {
                self.say(brake);
                return Phase::Progressing(rollout);
            }
            if planned > rollout.weight.share && !self.ready_for(&rollout, planned) {
                return Phase::Progressing(rollout);
            }
            let step = rollout.step;
            return self.step_to(rollout, step);
        }
        match self.step_answer(&rollout) {
            Answer::Leave => self.advance(rollout),
            Answer::Stay => Phase::Progressing(rollout),
            Answer::GoBack => self.end(rollout, EndCause::Inconclusive, Phase::Progressing),
        }
    }

    /// Whether the step may be left; says why not. The order is that of what a person wants to know first.
    fn step_answer(&mut self, rollout: &Rollout) -> Answer {
        let (hold, confirm, max_wait) = match self.plan.step(rollout.step) {
            Some(Step::Weight { hold, confirm, max_wait, .. }) => (*hold, *confirm, *max_wait),
            Some(Step::Pause { .. }) | None => (Duration::ZERO, false, None),
        };
        // Even who hurries leaves harm the two readings that a gross fault takes.
        let shortest = self.plan.spec().settle.max(self.plan.spec().interval * 2);
        let settle_left = self.left(rollout, shortest);
        let hold_left = self.left(rollout, hold.max(self.plan.spec().settle));
        let canary = || rollout.canary.name.clone();
        let share = rollout.weight.share;
        if let Some(reason) = self.braked_or_stable_down(rollout) {
            return self.stay_because(reason);
        }
        // Who asks to hurry takes the evidence upon himself; nobody to serve (weight 0) has none to give.
        let left = if rollout.hurry == Hurry::No { hold_left } else { settle_left };
        if left > Duration::ZERO {
            self.wake_in(left);
        }
        if rollout.hurry != Hurry::No || share == Weight::ZERO {
            return if left.is_zero() { Answer::Leave } else { self.stay_because(Reason::Holds { canary: canary(), share, left }) };
        }
        if let Some(reason) = self.disturbed(rollout) {
            if !self.may_be_quiet(&reason) {
                return self.stay_because(reason);
            }
            return match self.doubt(rollout) {
                Some(doubt) => self.stay_because(doubt),
                None if left.is_zero() => Answer::Leave,
                None => self.stay_because(reason),
            };
        }
        if left > Duration::ZERO {
            return self.stay_because(Reason::Holds { canary: canary(), share, left });
        }
        if let Some(reason) = self.gross_open(rollout).or_else(|| self.limits_open(rollout)) {
            return self.stay_because(reason);
        }
        match self.fitness_open(rollout) {
            Some(open) if confirm => self.overdue(rollout, max_wait, open),
            Some(_) | None => Answer::Leave,
        }
    }

    /// A confirm step without an answer yet: it stays, until its longest time is over and the plan says otherwise.
    fn overdue(&mut self, rollout: &Rollout, max_wait: Option<Duration>, open: Reason) -> Answer {
        let left = max_wait.map(|m| self.left(rollout, m));
        match (left, self.plan.spec().on_inconclusive) {
            (Some(Duration::ZERO), OnInconclusive::Promote) if !self.speaks_against(rollout) => {
                let measured = self.measured_all(rollout);
                self.tell(Severity::Warning, Reason::AdvancedWithoutProof { measured });
                Answer::Leave
            }
            (Some(Duration::ZERO), OnInconclusive::Rollback) => Answer::GoBack,
            (left, OnInconclusive::Promote | OnInconclusive::Rollback | OnInconclusive::Hold) => {
                if let Some(left) = left.filter(|l| !l.is_zero()) {
                    self.wake_in(left);
                }
                self.stay_because(open)
            }
        }
    }

    fn stay_because(&mut self, reason: Reason) -> Answer {
        self.say(reason);
        Answer::Stay
    }

    /// What keeps a step from being judged at all.
    fn disturbed(&self, rollout: &Rollout) -> Option<Reason> {
        if let Some((problem, since)) = &rollout.source {
            return Some(Reason::Source { problem: problem.clone(), since: self.now.since(*since) });
        }
        let quiet_since = rollout.last_traffic.map_or(rollout.step_since, |t| t.max(rollout.step_since));
        let patience = QUIET.max(self.plan.spec().interval * 3);
        // A source may be asked some time behind the clock: quiet is what was read, not what could not be read yet.
        let read_until = rollout.last_reading.unwrap_or(self.now);
        if read_until.since(quiet_since) >= patience {
            return Some(Reason::NoTraffic {
                service: "the service".into(),
                since: self.now.since(quiet_since),
                last: rollout.last_traffic,
            });
        }
        self.doubt(rollout)
    }

    /// What speaks against going on, whether or not anybody calls.
    fn doubt(&self, rollout: &Rollout) -> Option<Reason> {
        if rollout.refused_at.is_some_and(|at| self.now.since(at) < self.plan.spec().interval * 3) {
            return Some(Reason::Unattributed { requests: rollout.served.unattributed });
        }
        self.limit_missing(rollout).or_else(|| self.split_reason(rollout)).or_else(|| self.suspicion(rollout))
    }

    /// Without any request there is nobody to harm; the plan may say that this is enough.
    fn may_be_quiet(&self, reason: &Reason) -> bool {
        matches!(reason, Reason::NoTraffic { .. }) && self.plan.spec().on_no_traffic == OnNoTraffic::Proceed
    }

    fn braked_or_stable_down(&self, rollout: &Rollout) -> Option<Reason> {
        if !self.stable_is_up(rollout) {
            return Some(Reason::StableDown { stable: rollout.stable.name.clone() });
        }
        self.brake()
    }

    fn left(&self, rollout: &Rollout, span: Duration) -> Duration {
        let since = rollout.weight.seen.map_or(rollout.step_since, |seen| seen.max(rollout.step_since));
        span.saturating_sub(self.now.since(since))
    }

    /// On to the next step, or to promotion; stays, with the reason said, while the next weight's gates are shut.
    pub(super) fn advance(&mut self, rollout: Rollout) -> Phase {
        let next = rollout.step + 1;
        match self.plan.step(next) {
            None => {
                let fit = self.measured_all(&rollout);
                self.tell(Severity::Normal, Reason::StepsPassed { canary: rollout.canary.name.clone(), fit });
                Phase::Promoting(Rollout { hurry: Hurry::No, ..rollout })
            }
            Some(Step::Pause { time }) => {
                let cause = PauseCause::Plan { until: time.map(|t| self.now.plus(t)) };
                self.tell(Severity::Normal, Reason::Paused { why: cause.to_string() });
                Phase::Paused(Rollout { step: next, step_since: self.now, ..rollout }, cause)
            }
            Some(Step::Weight { weight, .. }) => {
                let weight = *weight;
                if !self.ready_for(&rollout, weight) {
                    return Phase::Progressing(rollout);
                }
                self.step_to(rollout, next)
            }
        }
    }

    fn step_to(&mut self, mut rollout: Rollout, step: usize) -> Phase {
        let to = self.plan.weight_at(step);
        let from = rollout.weight.share;
        let steps = self.plan.spec().steps.len();
        let takes = rollout.forecast(self.plan, step).and_then(|f| f.time);
        self.tell(Severity::Normal, Reason::StepBegins { canary: rollout.canary.name.clone(), step, steps, from, to, takes });
        self.foretell(&mut rollout, step);
        rollout.step = step;
        self.aim(&mut rollout, to);
        rollout.start_evidence();
        if let Hurry::Step { .. } = rollout.hurry {
            rollout.hurry = Hurry::No;
        }
        Phase::Progressing(rollout)
    }

    fn aim(&self, rollout: &mut Rollout, share: Weight) {
        rollout.weight = Target { share, before: rollout.weight.share, seen: None };
        rollout.step_since = self.now;
        rollout.split = Split::default();
    }

    /// Callers were refused right after the last change, as some proxies do not know the subset yet: back to what was before.
    fn take_back_last_change(&mut self, mut rollout: Rollout) -> Phase {
        let before = rollout.weight.before;
        self.aim(&mut rollout, before);
        let cause = PauseCause::Unreachable;
        self.tell(Severity::Warning, Reason::Paused { why: cause.to_string() });
        self.lower(&rollout, &Guard::Back);
        Phase::Paused(rollout, cause)
    }

    /// Stays on purpose; harm and the canary's death end it all the same.
    pub(super) fn stay_paused(&mut self, mut rollout: Rollout, cause: PauseCause) -> Phase {
        if let Some(end) = self.must_end(&rollout).or_else(|| self.harm(&rollout)) {
            return self.end(rollout, end, |rollout| Phase::Paused(rollout, cause));
        }
        match (&cause, self.shown(&rollout)) {
            // Of a route without managed fields nobody knows when it was written: a pause that is known is not told anew at each look.
            (PauseCause::Drift { manager, to: known, .. }, Shown::Drift { to, .. }) if *known == to && *manager == self.manager() => {}
            (PauseCause::Drift { .. }, Shown::Drift { to, at }) => {
                let cause = self.drifted(to, at);
                self.say(Reason::Paused { why: cause.to_string() });
                return Phase::Paused(rollout, cause);
            }
            (PauseCause::Drift { .. }, Shown::All | Shown::NotYet) => {}
            (_, Shown::Drift { to, at }) => {
                let cause = self.drifted(to, at);
                self.tell(Severity::Warning, Reason::Paused { why: cause.to_string() });
                return Phase::Paused(rollout, cause);
            }
            (_, Shown::NotYet) if rollout.weight.share <= rollout.weight.before => self.lower(&rollout, &Guard::Back),
            // A weight that a person set is reached like a step's; any other pause leaves a way up where it is.
            (PauseCause::WeightSet { .. }, Shown::NotYet) => {
                if let Some(brake) = self.brake() {
                    self.say(brake);
                } else if self.ready_for(&rollout, rollout.weight.share) {
                    self.raise(&rollout);
                }
                return Phase::Paused(rollout, cause);
            }
            // Paused before its first weight it stays unbegun, or a resume would pass over what Preparing asks for.
            (_, Shown::All) if rollout.weight.seen.is_none() && rollout.weight != Target::UNBEGUN => rollout.weight.seen = Some(self.now),
            (_, Shown::NotYet | Shown::All) => {}
        }
        if let PauseCause::Plan { until: Some(until) } = cause {
            if self.now >= until {
                match self.braked_or_stable_down(&rollout).or_else(|| self.disturbed(&rollout)) {
                    Some(reason) => self.say(reason),
                    // Unless the plan has no pause there any more: then its step is gone to.
                    None if !matches!(self.plan.step(rollout.step), Some(Step::Pause { .. })) => return Phase::Progressing(rollout),
                    None => return self.advance(rollout),
                }
            } else {
                self.wake(until);
            }
        }
        self.say(Reason::Paused { why: cause.to_string() });
        Phase::Paused(rollout, cause)
    }

    /// Every step is passed: full size, the whole weight, bake; each only once the one before is seen.
    pub(super) fn promote(&mut self, mut rollout: Rollout) -> Phase {
        if let Some(cause) = self.must_end(&rollout).or_else(|| self.harm(&rollout)) {
            return self.end(rollout, cause, Phase::Promoting);
        }
        if rollout.weight.share < Weight::ALL {
            // Between the last answer and now pods may have been waited for, and more readings have come.
            if let Some(reason) = self.brake().or_else(|| self.suspicion(&rollout)) {
                self.say(reason);
            } else if self.ready_for(&rollout, Weight::ALL) {
                let (canary, from) = (rollout.canary.name.clone(), rollout.weight.share);
                self.aim(&mut rollout, Weight::ALL);
                self.tell(Severity::Normal, Reason::Promotes { canary, from });
                self.again();
            }
            return Phase::Promoting(rollout);
        }
        match self.shown(&rollout) {
            Shown::Drift { to, at } => {
                let cause = self.drifted(to, at);
                self.tell(Severity::Warning, Reason::Paused { why: cause.to_string() });
                return Phase::Paused(rollout, cause);
            }
            Shown::NotYet => {
                if let Some(brake) = self.brake() {
                    self.say(brake);
                } else if self.ready_for(&rollout, Weight::ALL) {
                    self.raise(&rollout);
                }
                return Phase::Promoting(rollout);
            }
            Shown::All => {}
        }
        let bake = match &rollout.bake {
            Some(bake) => bake.clone(),
            None => {
                rollout.weight.seen = Some(self.now);
                rollout.step_since = self.now;
                let bake = Bake { since: self.now, limits: self.frozen_limits(&rollout) };
                rollout.analysis.start_step();
                rollout.graded.clear();
                rollout.bake = Some(bake.clone());
                bake
            }
        };
        let left = self.plan.spec().bake.max(self.plan.spec().settle).saturating_sub(self.now.since(bake.since));
        if left > Duration::ZERO {
            self.wake_in(left);
            self.say(Reason::Bakes { canary: rollout.canary.name.clone(), left });
            return Phase::Promoting(rollout);
        }
        if let Some(reason) = self.disturbed(&rollout) {
            // What was not watched is not baked; only a plan that says so takes silence for an answer.
            let doubt = if self.may_be_quiet(&reason) { self.doubt(&rollout) } else { Some(reason) };
            if let Some(reason) = doubt {
                self.say(reason);
                return Phase::Promoting(rollout);
            }
        }
        let (stable, old) = (rollout.canary.clone(), rollout.stable.name.clone());
        let why = Reason::Promoted { stable: stable.name.clone(), old: old.clone() };
        self.remember(&rollout, Outcome::Promoted, why.to_string());
        // Observed, it serves once whoever moves the weights has given it all: `rest` sees that.
        if !self.observes() {
            self.next.retirable.push((old, self.now));
            self.next.stable = Some(stable);
        }
        self.tell(Severity::Normal, why);
        Phase::Idle
    }

    /// The begin of the end: routes first. While stable has nobody to take the requests it cannot begin, and all stays `as_it_was`.
    pub(super) fn end(&mut self, mut rollout: Rollout, cause: EndCause, as_it_was: impl FnOnce(Rollout) -> Phase) -> Phase {
        let forced = matches!(&cause, EndCause::Abort { force: true, .. });
        let exposed = self.routes_send_to(&rollout);
        if exposed && !forced && !self.stable_is_up(&rollout) {
            self.say(Reason::StableDown { stable: rollout.stable.name.clone() });
            return as_it_was(rollout);
        }
        let from = rollout.weight.share;
        self.aim(&mut rollout, Weight::ZERO);
        rollout.weight.before = from;
        if exposed {
            let guard = guard_back(&rollout, &cause);
            self.lower(&rollout, &guard);
            if let Guard::Abort { .. } = guard {
                self.order = Order::RouteFirst;
            }
        }
        let severity = if matches!(cause, EndCause::Superseded { .. }) { Severity::Normal } else { Severity::Warning };
        self.tell(severity, Reason::GoesBack { canary: rollout.canary.name.clone(), from, why: cause.to_string() });
        Phase::RollingBack(rollout, cause)
    }

    /// Whether routes give the canary weight that is Serin's to take back.
    pub(super) fn routes_send_to(&self, rollout: &Rollout) -> bool {
        if self.observes() {
            return false;
        }
        let mut shares = self.seen.routes.iter().flat_map(|r| &r.splits).filter_map(|s| s.share(&rollout.canary.name));
        shares.any(|w| w > Weight::ZERO)
    }

    /// All weight to stable; then, after settling, the canary's pods back to what was found.
    pub(super) fn roll_back(&mut self, mut rollout: Rollout, cause: EndCause) -> Phase {
        if let EndCause::Rollback { now, .. } = cause
            && rollout.weight.share == Weight::ALL
        {
            if self.can_serve_again(&rollout, now) {
                self.aim(&mut rollout, Weight::ZERO);
                let why = cause.to_string();
                self.tell(Severity::Warning, Reason::GoesBack { canary: rollout.canary.name.clone(), from: Weight::ALL, why });
                self.lower(&rollout, &guard_back(&rollout, &cause));
            }
            return Phase::RollingBack(rollout, cause);
        }
        if rollout.weight.seen.is_none() {
            if self.routes_send_to(&rollout) {
                self.lower(&rollout, &guard_back(&rollout, &cause));
                return self.still_going_back(rollout, cause);
            }
            rollout.weight.seen = Some(self.now);
        }
        let settle_left = self.left(&rollout, self.plan.spec().settle);
        if settle_left > Duration::ZERO {
            self.wake_in(settle_left);
            return self.still_going_back(rollout, cause);
        }
        if let Some(w) = self.workload(&rollout.canary)
            && w.replicas > rollout.found_replicas
            && w.scaled_by.is_none()
            && self.plan.spec().scaling != Scaling::Wait
        {
            self.actions.push(Action::Unscale { workload: w.name.clone(), replicas: rollout.found_replicas });
            // Asked for until it is seen, or a crash right after the state would leave the pods; not for ever, as somebody else may want them.
            let patience = self.left(&rollout, self.plan.spec().settle + UNSCALE);
            if patience > Duration::ZERO {
                self.wake_in(patience.min(LOOK_AGAIN));
                return self.still_going_back(rollout, cause);
            }
        }
        if let EndCause::Rollback { .. } = cause {
            self.next.stable = Some(rollout.stable.clone());
        }
        let superseded = matches!(cause, EndCause::Superseded { .. } | EndCause::CanaryGone);
        self.remember(&rollout, if superseded { Outcome::Superseded } else { Outcome::RolledBack }, cause.to_string());
        if superseded {
            return Phase::Idle;
        }
        // Said in this look too: between it and the next one the status would call stable's service all that there is to tell.
        self.say(Reason::TakenBack { canary: rollout.canary.name.clone(), why: cause.to_string() });
        self.next.failed.push(rollout.canary.clone());
        if self.next.failed.len() > REMEMBERED {
            self.next.failed.remove(0);
        }
        Phase::RolledBack { version: rollout.canary, cause, since: self.now }
    }

    fn still_going_back(&mut self, rollout: Rollout, cause: EndCause) -> Phase {
        self.say(Reason::GoesBack { canary: rollout.canary.name.clone(), from: rollout.weight.before, why: cause.to_string() });
        Phase::RollingBack(rollout, cause)
    }

    /// Whether the version that served before can take every request again: subset, destination, pods, in this order, each asked for.
    fn can_serve_again(&mut self, rollout: &Rollout, now: bool) -> bool {
        let old = rollout.stable.name.clone();
        let Some(capacity) = self.workload(&rollout.stable).map(Workload::capacity) else {
            let present = self.seen.workloads.iter().map(|w| w.version.clone()).collect();
            self.say(Reason::DesiredMissing { desired: old, present });
            return false;
        };
        // The gates ask about the version that is to get requests, which is the old one here.
        let turned = Rollout { canary: rollout.stable.clone(), stable: rollout.canary.clone(), ..rollout.clone() };
        if now && capacity > 0 {
            return self.reachable(&turned);
        }
        self.ready_for(&turned, Weight::ALL)
    }

    fn remember(&mut self, rollout: &Rollout, outcome: Outcome, why: alloc::string::String) {
        self.next.history.push(Past {
            uid: rollout.uid.clone(),
            stable: rollout.stable.name.clone(),
            canary: rollout.canary.name.clone(),
            outcome,
            why,
            started: rollout.started,
            took: self.now.since(rollout.started),
            served: rollout.served,
            highest: rollout.highest,
        });
        let surplus = self.next.history.len().saturating_sub(REMEMBERED);
        self.next.history.drain(..surplus);
    }

    fn source_answers(&mut self, rollout: &Rollout) -> bool {
        if let Some((problem, since)) = &rollout.source {
            let since = self.now.since(*since);
            self.say(Reason::Source { problem: problem.clone(), since });
            return false;
        }
        if rollout.last_reading.is_none() {
            self.say(Reason::WaitsForSource { since: self.now.since(rollout.started) });
        }
        rollout.last_reading.is_some()
    }

    fn measured_all(&self, rollout: &Rollout) -> Vec<crate::reason::Measured> {
        (0..self.plan.metrics().len()).map(|i| self.measured(rollout, i)).collect()
    }
}

/// An end that condemns the version goes to the routes first and leaves its mark there; any other end is a step down like the rest,
/// or a crash between route and state would condemn a version that nobody blamed.
fn guard_back(rollout: &Rollout, cause: &EndCause) -> Guard {
    match cause {
        EndCause::Harm(_) | EndCause::Abort { .. } | EndCause::Mark | EndCause::Marked { .. } | EndCause::CanaryDown => {
            Guard::Abort { rollout: rollout.uid.clone(), why: cause.to_string() }
        }
        EndCause::CanaryGone | EndCause::Superseded { .. } | EndCause::Inconclusive | EndCause::Rollback { .. } => Guard::Back,
    }
}
