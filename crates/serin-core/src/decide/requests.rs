//! What people ask for: done, or refused with the reason; either way remembered, told and taken off the object.
//!
//! Deliberately moves no weight itself: a request changes phase or pace, and the phases do the rest.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

use super::Look;
use crate::action::{Action, Severity};
use crate::observe::{Request, RequestAction};
use crate::plan::Step;
use crate::reason::Reason;
use crate::state::{EndCause, Handled, Hurry, PauseCause, Phase, REMEMBERED, Rollout, Target};
use crate::units::Weight;

/// A request older than this was meant for another situation.
const TOO_OLD: Duration = Duration::from_secs(600);

impl Look<'_> {
    /// Abort first, then the others in their order.
    pub(super) fn answer_requests(&mut self) {
        let asked: alloc::vec::Vec<&Request> = self.seen.abort.iter().chain(&self.seen.requests).collect();
        for handled in &mut self.next.handled {
            handled.gone |= asked.iter().all(|request| request.id != handled.id);
        }
        for request in asked {
            if !self.next.handled.iter().any(|h| h.id == request.id && !h.gone) {
                let result = self.fits(request).and_then(|()| self.carry_out(request));
                self.close(request, result);
            }
            self.actions.push(Action::Handle { id: request.id.clone() });
        }
    }

    fn close(&mut self, request: &Request, result: Result<String, String>) {
        let (action, who, why) = (request.action.to_string(), request.who.clone(), request.why.clone());
        let refused = result.as_ref().err().cloned();
        match result {
            Ok(effect) => self.tell(Severity::Normal, Reason::RequestDone { action, who, why, effect }),
            Err(because) => self.tell(Severity::Warning, Reason::RequestRefused { action, who, because }),
        }
        let handled =
            Handled { id: request.id.clone(), action: request.action, who: request.who.clone(), at: self.now, refused, gone: false };
        self.next.handled.push(handled);
        if self.next.handled.len() > REMEMBERED {
            self.next.handled.remove(0);
        }
    }

    /// Whether the request was meant for what is here now.
    fn fits(&self, request: &Request) -> Result<(), String> {
        if self.observes() && matches!(request.action, RequestAction::SetWeight(_) | RequestAction::Rollback | RequestAction::RollbackNow) {
            return Err("spec.mode is Observe, so no weight is touched".into());
        }
        let abort = matches!(request.action, RequestAction::Abort | RequestAction::AbortForced);
        if !abort && self.now.since(request.at) > TOO_OLD {
            return Err("it is older than ten minutes; ask again".into());
        }
        let Some(rollout) = self.next.rollout() else { return Ok(()) };
        if !request.rollout.is_empty() && request.rollout != rollout.uid {
            return Err(format!("it was meant for rollout {}, and {} runs", request.rollout, rollout.uid));
        }
        if let Some(step) = request.step
            && !abort
            && step != rollout.step
        {
            return Err(format!("it was meant for step {}, and step {} runs", step + 1, rollout.step + 1));
        }
        if let RequestAction::SetWeight(to) = request.action {
            let most = (0..self.plan.spec().steps.len()).map(|i| self.plan.weight_at(i)).max().unwrap_or(Weight::ZERO);
            if to > most {
                return Err(format!("the plan goes to {most} at most before promotion; promote --full goes through its steps to 100 %"));
            }
        }
        let forward = match request.action {
            RequestAction::Promote | RequestAction::PromoteFull | RequestAction::Resume => true,
            RequestAction::SetWeight(to) => to > rollout.weight.stands(),
            _ => false,
        };
        match self.brake() {
            Some(brake) if forward => Err(brake.to_string()),
            Some(_) | None => Ok(()),
        }
    }

    /// The effect in words, or why there is none.
    fn carry_out(&mut self, request: &Request) -> Result<String, String> {
        let phase = core::mem::replace(&mut self.next.phase, Phase::Idle);
        let (phase, result) = self.applied(phase, request);
        self.next.phase = phase;
        result
    }

    fn applied(&mut self, phase: Phase, request: &Request) -> (Phase, Result<String, String>) {
        let who = request.who.clone();
        match request.action {
            RequestAction::Abort | RequestAction::AbortForced => self.abort(phase, request),
            RequestAction::Pause => match phase {
                Phase::Preparing(r) | Phase::Progressing(r) => {
                    let effect = format!("{} stays at {}", r.canary, r.weight.share);
                    (Phase::Paused(r, PauseCause::Person { who, why: request.why.clone(), at: self.now }), Ok(effect))
                }
                // Until every route shows the whole weight there is something to stop.
                Phase::Promoting(r) if r.weight.share < Weight::ALL || r.weight.seen.is_none() => {
                    let effect = format!("{} stays at {}", r.canary, r.weight.stands());
                    (Phase::Paused(r, PauseCause::Person { who, why: request.why.clone(), at: self.now }), Ok(effect))
                }
                Phase::Paused(r, cause) => {
                    let effect = format!("it is paused already: {cause}");
                    (Phase::Paused(r, cause), Ok(effect))
                }
                Phase::Promoting(_) => (phase, Err("the canary has every request already; abort takes it back".into())),
                Phase::Idle | Phase::RollingBack(..) | Phase::RolledBack { .. } => nothing_runs(phase, "pause"),
            },
            RequestAction::Resume => match phase {
                Phase::Paused(r, cause) => self.resumed(r, &cause),
                Phase::Preparing(_) | Phase::Progressing(_) | Phase::Promoting(_) => (phase, Ok("it is not paused".into())),
                Phase::Idle | Phase::RollingBack(..) | Phase::RolledBack { .. } => nothing_runs(phase, "resume"),
            },
            RequestAction::Promote => self.hurried(phase, Hurry::Step { who }),
            RequestAction::PromoteFull => self.hurried(phase, Hurry::All { who }),
            RequestAction::Retry => match phase {
                Phase::RolledBack { version, .. } => {
                    let effect = format!("{version} may be tried again");
                    self.next.failed.retain(|v| *v != version);
                    self.next.judged.retain(|v| *v != version);
                    (Phase::Idle, Ok(effect))
                }
                Phase::Idle => {
                    let result = self.put_on_trial();
                    (phase, result)
                }
                Phase::Preparing(_) | Phase::Progressing(_) | Phase::Paused(..) | Phase::Promoting(_) | Phase::RollingBack(..) => {
                    (phase, Err("a rollout runs; no version is rolled back".into()))
                }
            },
            RequestAction::SetWeight(to) => match phase {
                Phase::Progressing(r) => self.set_weight(r, Phase::Progressing, to, request),
                Phase::Paused(r, cause) => self.set_weight(r, |r| Phase::Paused(r, cause), to, request),
                Phase::Promoting(r) if r.weight.share < Weight::ALL => self.set_weight(r, Phase::Promoting, to, request),
                Phase::Promoting(_) => (phase, Err("the canary has every request already; abort takes it back".into())),
                Phase::Preparing(_) => (phase, Err("the rollout is being prepared; ask again once its first step runs".into())),
                Phase::Idle | Phase::RollingBack(..) | Phase::RolledBack { .. } => nothing_runs(phase, "give a weight to"),
            },
            RequestAction::Rollback | RequestAction::RollbackNow => self.roll_back_asked(phase, request),
        }
    }

    /// A weight by hand: the step that it belongs to, paused there.
    fn set_weight(
        &mut self,
        mut r: Rollout,
        as_it_was: impl FnOnce(Rollout) -> Phase,
        to: Weight,
        request: &Request,
    ) -> (Phase, Result<String, String>) {
        let from = r.weight.stands();
        let under_way = |s: &crate::observe::Split| s.share(&r.canary.name).is_some_and(|w| w != from);
        if self.seen.routes.iter().flat_map(|r| &r.splits).any(under_way) {
            let because = format!("the routes are on their way from {from} to {}; ask again once all show it", r.weight.share);
            return (as_it_was(r), Err(because));
        }
        let cause = PauseCause::WeightSet { who: request.who.clone(), why: request.why.clone(), to, at: self.now };
        let effect = format!("{} {from} → {to}, and stays there until someone resumes", r.canary);
        r.hurry = Hurry::No;
        r.step = self.first_step_of_at_least(to);
        if from != to || r.weight.share != to {
            r.weight = Target { share: to, before: from, seen: None };
            r.step_since = self.now;
            r.start_evidence();
        }
        (Phase::Paused(r, cause), Ok(effect))
    }

    /// Back to what served before the last promotion.
    fn roll_back_asked(&mut self, phase: Phase, request: &Request) -> (Phase, Result<String, String>) {
        let now = request.action == RequestAction::RollbackNow;
        let cause = EndCause::Rollback { who: request.who.clone(), why: request.why.clone(), now };
        match phase {
            Phase::Idle | Phase::RolledBack { .. } => match self.bring_back() {
                Ok(rollout) => {
                    let effect = format!("{} serves again instead of {}, as soon as it can", rollout.stable, rollout.canary);
                    (Phase::RollingBack(rollout, cause), Ok(effect))
                }
                Err(because) => (phase, Err(because)),
            },
            Phase::RollingBack(r, EndCause::Rollback { .. }) => {
                let effect = format!("{} is being brought back", r.stable);
                (Phase::RollingBack(r, cause), Ok(effect))
            }
            Phase::RollingBack(..) => (phase, Ok("it goes back already".into())),
            Phase::Preparing(_) | Phase::Progressing(_) | Phase::Paused(..) | Phase::Promoting(_) => {
                (phase, Err("a rollout runs, so nothing was promoted that could be rolled back; abort takes the canary back".into()))
            }
        }
    }

    /// At rest: the version that is desired, or the newest one beside stable, counts as news again.
    fn put_on_trial(&mut self) -> Result<String, String> {
        let stable = self.next.stable.as_ref().map(|s| s.name.clone());
        let desired = &self.plan.spec().desired;
        let beside = self.seen.workloads.iter().filter(|w| Some(&w.version) != stable.as_ref());
        let candidate = beside.filter(|w| desired.as_ref().is_none_or(|d| *d == w.version)).max_by_key(|w| w.created);
        let Some(version) = candidate.map(super::version_of) else {
            return Err("no version is rolled back, and none stands beside stable".into());
        };
        self.next.failed.retain(|v| *v != version);
        self.next.judged.retain(|v| *v != version);
        Ok(format!("{version} goes on trial"))
    }

    fn abort(&mut self, phase: Phase, request: &Request) -> (Phase, Result<String, String>) {
        let (r, as_it_was): (Rollout, Box<dyn FnOnce(Rollout) -> Phase>) = match phase {
            Phase::Preparing(r) => (r, Box::new(Phase::Preparing)),
            Phase::Progressing(r) => (r, Box::new(Phase::Progressing)),
            Phase::Paused(r, cause) => (r, Box::new(|r| Phase::Paused(r, cause))),
            Phase::Promoting(r) => (r, Box::new(Phase::Promoting)),
            Phase::RollingBack(..) => return (phase, Ok("it goes back already".into())),
            Phase::Idle | Phase::RolledBack { .. } => return nothing_runs(phase, "abort"),
        };
        let force = request.action == RequestAction::AbortForced;
        let effect = format!("{} {} → 0 %", r.canary, r.weight.share);
        let stable = r.stable.name.clone();
        match self.end(r, EndCause::Abort { who: request.who.clone(), why: request.why.clone(), force }, as_it_was) {
            phase @ Phase::RollingBack(..) => (phase, Ok(effect)),
            phase => {
                (phase, Err(format!("{stable} has no ready pod, so this would be the outage; serin abort --force does it all the same")))
            }
        }
    }

    /// Where a pause ends: at the step it interrupted, with its weight set again if somebody moved it.
    fn resumed(&mut self, mut r: Rollout, cause: &PauseCause) -> (Phase, Result<String, String>) {
        let begun = r.weight != Target::UNBEGUN;
        if !begun {
            let effect = format!("{} is prepared", r.canary);
            return (Phase::Preparing(r), Ok(effect));
        }
        // Unless the plan has no pause there any more: then its step is gone to.
        if let (PauseCause::Plan { .. }, Some(Step::Pause { .. })) = (cause, self.plan.step(r.step)) {
            let effect = format!("{} goes on from {}", r.canary, r.weight.share);
            return (self.advance(r), Ok(effect));
        }
        let promoting = r.weight.share == Weight::ALL;
        let share = if promoting { Weight::ALL } else { self.plan.weight_at(r.step) };
        let before = match cause {
            PauseCause::Drift { to, .. } => *to,
            PauseCause::Plan { .. }
            | PauseCause::Person { .. }
            | PauseCause::WeightSet { .. }
            | PauseCause::Adopted
            | PauseCause::Unreachable => r.weight.stands(),
        };
        let effect = format!("{} {before} → {share}", r.canary);
        if before != share || r.weight.share != share {
            r.weight = Target { share, before, seen: None };
        }
        // What was seen at another share says nothing of this one; and the evidence of a rollout that was found begins with the consent to go on.
        if before != share || matches!(cause, PauseCause::Adopted) {
            r.step_since = self.now;
            r.start_evidence();
        }
        (if promoting { Phase::Promoting(r) } else { Phase::Progressing(r) }, Ok(effect))
    }

    fn hurried(&mut self, phase: Phase, hurry: Hurry) -> (Phase, Result<String, String>) {
        match phase {
            Phase::Progressing(mut r) => {
                let effect = unhindered(&r, r.weight.share);
                r.hurry = hurry;
                (Phase::Progressing(r), Ok(effect))
            }
            Phase::Paused(mut r, cause) => {
                if hurry != (Hurry::No) {
                    let keep = matches!(hurry, Hurry::All { .. });
                    // On a plan's pause "promote" means: leave the pause. Elsewhere it means: leave the step as well.
                    if keep || !matches!(cause, PauseCause::Plan { .. }) {
                        r.hurry = hurry;
                    }
                }
                let leaves = r.hurry.clone();
                let (phase, result) = self.resumed(r, &cause);
                // What is hurried leaves the step that it resumes, so its weight is not where it ends.
                let effect = match (&leaves, &phase) {
                    (Hurry::Step { .. } | Hurry::All { .. }, Phase::Progressing(r)) => Ok(unhindered(r, r.weight.stands())),
                    _ => result,
                };
                (phase, effect)
            }
            Phase::Preparing(mut r) => {
                let effect = format!("{} goes on as soon as it is prepared", r.canary);
                r.hurry = hurry;
                (Phase::Preparing(r), Ok(effect))
            }
            Phase::Promoting(r) => {
                let effect = format!("{} is being promoted already", r.canary);
                (Phase::Promoting(r), Ok(effect))
            }
            Phase::Idle | Phase::RollingBack(..) | Phase::RolledBack { .. } => nothing_runs(phase, "promote"),
        }
    }
}

/// What comes of a rollout that is hurried.
fn unhindered(rollout: &Rollout, from: Weight) -> String {
    format!("{} goes on from {from} without waiting for evidence; harm still takes it back", rollout.canary)
}

fn nothing_runs(phase: Phase, what: &str) -> (Phase, Result<String, String>) {
    let because = format!("no rollout runs that one could {what}; the phase is {}", phase.name());
    (phase, Err(because))
}
