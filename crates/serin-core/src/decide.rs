//! The decision: plan, state and observation in; next state, actions and reasons out.
//!
//! One look makes at most one change of phase and then asks to be called again, so that a crash between any two looks
//! leaves a state that the next look understands. What was seen decides, never what was done: an action is asked for
//! until its effect is seen. Deliberately no I/O, clock or randomness.
//!
//! Reading order: `decide` below; `rest` (no rollout runs), `rollout` (one does), `evidence` (readings and verdicts), `learn` (what has to be
//! known of stable first), `forecast` (how long steps will take), `weights` (gates and shares), `requests` (what people ask for).

mod evidence;
mod forecast;
mod learn;
mod requests;
mod rest;
mod rollout;
mod weights;

use alloc::vec::Vec;
use core::time::Duration;

use crate::action::{Action, Decision, Order, Severity};
use crate::observe::{Observation, Workload};
use crate::plan::{Mode, Plan, Trigger};
use crate::reason::Reason;
use crate::state::{EndCause, Phase, Rollout, State, Version};
use crate::units::{Timestamp, VersionName};

/// What follows from the plan, what is remembered and what was seen, at `now`.
///
/// The same arguments give the same decision, bit for bit. Reasons are never empty.
pub fn decide(plan: &Plan, state: &State, seen: &Observation, now: Timestamp) -> Decision {
    let mut look = Look::new(plan, state, seen, now);
    if let Some(obstacle) = &seen.obstacle {
        look.say(Reason::Obstacle { code: obstacle.code.clone(), what: obstacle.what.clone() });
        // Nothing is known yet that could be taken back; or nothing may be touched.
        if obstacle.stops_everything() || look.next.stable.is_none() {
            return look.decided(state);
        }
    }
    if look.next.stable.is_none() {
        look.adopt();
    } else {
        look.note_what_is_desired();
        look.fit_to_plan();
        look.judge();
        look.answer_requests();
        look.go_on();
    }
    look.decided(state)
}

/// One look: the arguments, and the decision as it grows.
struct Look<'a> {
    plan: &'a Plan,
    seen: &'a Observation,
    now: Timestamp,
    next: State,
    actions: Vec<Action>,
    reasons: Vec<Reason>,
    order: Order,
    wake_at: Option<Timestamp>,
}

impl<'a> Look<'a> {
    fn new(plan: &'a Plan, state: &State, seen: &'a Observation, now: Timestamp) -> Self {
        Self { plan, seen, now, next: state.clone(), actions: Vec::new(), reasons: Vec::new(), order: Order::StateFirst, wake_at: None }
    }

    /// One step on, from the phase that `judge` and `answer_requests` left.
    fn go_on(&mut self) {
        // The phase is taken out and put back, so that its data can be changed while the rest of the state is at hand.
        let phase = core::mem::replace(&mut self.next.phase, Phase::Idle);
        self.next.phase = match phase {
            Phase::Idle => self.rest(Phase::Idle),
            Phase::RolledBack { .. } => self.rest(phase),
            Phase::Preparing(rollout) => self.prepare(rollout),
            Phase::Progressing(rollout) => self.progress(rollout),
            Phase::Paused(rollout, cause) => self.stay_paused(rollout, cause),
            Phase::Promoting(rollout) => self.promote(rollout),
            Phase::RollingBack(rollout, cause) => self.roll_back(rollout, cause),
        };
    }

    /// Closes the look. A write is asked for, by the next sequence number, when something changed or is to be done.
    fn decided(mut self, before: &State) -> Decision {
        if self.reasons.is_empty() {
            let stable = self.next.stable.as_ref().map(|s| s.name.clone());
            self.reasons.push(stable.map_or(Reason::NoVersion { service: "the service".into() }, |stable| Reason::Serving { stable }));
        }
        if self.observes() {
            // Everything but the telling is somebody else's to do.
            self.actions.retain(|a| matches!(a, Action::Event { .. } | Action::Handle { .. }));
            self.order = Order::StateFirst;
            let told = self.actions.iter_mut().filter_map(|a| if let Action::Event { reason, .. } = a { Some(reason) } else { None });
            told.chain(&mut self.reasons).for_each(Reason::only_observed);
        }
        if self.next != *before || !self.actions.is_empty() {
            self.next.seq = before.seq + 1;
        }
        let wants_traffic =
            matches!(self.next.phase, Phase::Preparing(_) | Phase::Progressing(_) | Phase::Paused(..) | Phase::Promoting(_));
        if self.next.phase.name() != before.phase.name() {
            self.again();
        }
        Decision { next: self.next, actions: self.actions, order: self.order, wake_at: self.wake_at, wants_traffic, reasons: self.reasons }
    }

    /// Whether this release is watched and not touched.
    fn observes(&self) -> bool {
        self.plan.spec().mode == Mode::Observe
    }

    fn say(&mut self, reason: Reason) {
        self.reasons.push(reason);
    }

    fn tell(&mut self, severity: Severity, reason: Reason) {
        self.actions.push(Action::Event { severity, reason: reason.clone() });
        self.reasons.push(reason);
    }

    fn again(&mut self) {
        self.wake_at = Some(self.now);
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }

    fn wake_in(&mut self, left: Duration) {
        self.wake(self.now.plus(left));
    }

    fn workload(&self, version: &Version) -> Option<&'a Workload> {
        self.seen.workloads.iter().find(|w| w.version == version.name && w.name == version.workload)
    }

    /// Whatever keeps Serin from moving forward by its owner's or operator's will.
    fn brake(&self) -> Option<Reason> {
        if self.plan.spec().suspend {
            return Some(Reason::Braked { by: "spec.suspend is set".into() });
        }
        if let Some(by) = &self.seen.freeze {
            return Some(Reason::Braked { by: by.clone() });
        }
        self.seen.obstacle.as_ref().map(|o| Reason::Obstacle { code: o.code.clone(), what: o.what.clone() })
    }

    /// The version that should be on trial, as plan and trigger say; `None`: none but what already is.
    fn wanted(&self) -> Option<&'a Workload> {
        let stable = self.next.stable.as_ref()?;
        let fresh = |w: &&Workload| w.version != stable.name && !self.next.failed.contains(&version_of(w));
        let news = self.seen.workloads.iter().filter(fresh).filter(|w| !self.next.judged.contains(&version_of(w)));
        match (&self.plan.spec().desired, self.plan.spec().trigger) {
            (Some(desired), _) => news.filter(|w| w.version == *desired).max_by_key(|w| w.created),
            (None, Trigger::Automatic) => news.max_by_key(|w| w.created),
            (None, Trigger::Manual) => None,
        }
    }

    /// A change of `desired` makes that version news again, even one that was there from the beginning.
    fn note_what_is_desired(&mut self) {
        let desired = &self.plan.spec().desired;
        if self.next.desired != *desired {
            self.next.judged.retain(|v| Some(&v.name) != desired.as_ref());
            self.next.desired = desired.clone();
        }
    }

    /// A plan that was made shorter has no step of that index any more: the rollout goes on with the first step that is not below its share.
    fn fit_to_plan(&mut self) {
        let steps = self.plan.spec().steps.len();
        let share_and_step = |r: &Rollout| (r.weight.share, r.step);
        let Some((share, step)) = self.next.rollout().map(share_and_step).filter(|(_, step)| *step >= steps) else { return };
        let fits = self.first_step_of_at_least(share).min(step);
        if let Phase::Preparing(r) | Phase::Progressing(r) | Phase::Paused(r, _) = &mut self.next.phase {
            r.step = fits;
        }
    }

    /// The version that takes the running rollout's place, if one does.
    fn superseded(&self, rollout: &Rollout) -> Option<VersionName> {
        if let Some(wanted) = self.wanted()
            && version_of(wanted) != rollout.canary
        {
            return Some(wanted.version.clone());
        }
        let desired = self.plan.spec().desired.as_ref()?;
        (*desired == rollout.stable.name).then(|| desired.clone())
    }

    /// Why the rollout must end now, whatever its step; the checks that need no statistics.
    fn must_end(&self, rollout: &Rollout) -> Option<EndCause> {
        let mut marked = self.seen.routes.iter().filter(|r| r.mark.as_ref() == Some(&rollout.uid)).peekable();
        if marked.peek().is_some() {
            let why = marked.find_map(|r| r.because.clone());
            return Some(why.map_or(EndCause::Mark, |why| EndCause::Marked { why }));
        }
        let Some(canary) = self.workload(&rollout.canary) else {
            return Some(EndCause::CanaryGone);
        };
        if let Some(by) = self.superseded(rollout) {
            return Some(EndCause::Superseded { by });
        }
        (canary.capacity() == 0 && self.routes_send_to(rollout)).then_some(EndCause::CanaryDown)
    }
}

/// The identity of what a Deployment carries now.
fn version_of(w: &Workload) -> Version {
    Version { name: w.version.clone(), workload: w.name.clone(), hash: w.hash.clone() }
}
