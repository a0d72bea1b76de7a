//! No rollout runs: adoption of what is found, and the start of the next rollout.
//!
//! Deliberately moves no weight: what stands at rest is somebody's will.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Look, version_of};
use crate::action::{Action, Guard, Severity};
use crate::observe::Workload;
use crate::plan::Step;
use crate::reason::Reason;
use crate::state::{Added, Down, Hurry, Outcome, PauseCause, Phase, PutBack, Rollout, Served, State, Target, Version};
use crate::stats::{Analysis, Split};
use crate::units::{VersionName, Weight};

impl Look<'_> {
    /// The first look: stable is the version with the most weight; all that is there counts as judged; a split that is
    /// found is a rollout, paused.
    pub(super) fn adopt(&mut self) {
        let shares = self.shares_found();
        let with_weight: Vec<&(VersionName, Weight)> = shares.iter().filter(|(_, w)| *w > Weight::ZERO).collect();
        // At equal weights stable is the one nobody wishes for, then the older, then the one that the route names first (of equal
        // ones `max_by_key` takes the last).
        let rank = |(version, share): &(VersionName, Weight)| {
            let created = self.seen.workloads.iter().find(|w| w.version == *version).map(|w| core::cmp::Reverse(w.created));
            (*share, self.plan.spec().desired.as_ref() != Some(version), created)
        };
        let stable = match with_weight.iter().rev().max_by_key(|found| rank(found)) {
            Some((version, _)) => self.seen.workloads.iter().find(|w| w.version == *version),
            // Without a route there is a stable version only if there is but one.
            None if self.seen.workloads.len() == 1 => self.seen.workloads.first(),
            None => None,
        };
        let Some(stable) = stable.map(version_of) else {
            self.say(match (self.seen.workloads.is_empty(), with_weight.first()) {
                (true, _) => Reason::NoVersion { service: "the service".into() },
                (false, None) => Reason::NoRoute { service: "the service".into() },
                (false, Some((v, w))) => Reason::Obstacle {
                    code: "StableMissing".into(),
                    what: format!(
                        "waits: the route gives {v} {w} of the requests, and no Deployment behind the service carries that version"
                    ),
                },
            });
            return;
        };
        let canary = match with_weight.iter().filter(|(v, _)| *v != stable.name).collect::<Vec<_>>().as_slice() {
            [] => None,
            [(version, share)] => Some((version.clone(), *share)),
            _ => {
                self.say(Reason::Obstacle {
                    code: "ManyVersions".into(),
                    what: "waits: the route splits among more than two versions; give all but two a weight of 0".to_string(),
                });
                return;
            }
        };
        self.next.judged = self.seen.workloads.iter().map(version_of).collect();
        // Nor does a wish that stood before Serin came, or before its memory was lost, start anything.
        self.next.desired = self.plan.spec().desired.clone();
        self.next.stable = Some(stable.clone());
        let Some((version, share)) = canary else {
            self.tell(Severity::Normal, Reason::Serving { stable: stable.name });
            self.again();
            return;
        };
        let Some(workload) = self.seen.workloads.iter().find(|w| w.version == version) else {
            // The weight leads nowhere: said, and left, as nobody asked for a rollout.
            self.say(Reason::DriftAtRest { manager: self.manager(), version, to: share });
            return;
        };
        let step = self.first_step_of_at_least(share);
        let mut rollout = self.new_rollout(&stable, workload);
        self.next.rollouts += 1;
        rollout.step = step;
        rollout.weight = Target { share, before: share, seen: Some(self.now) };
        rollout.analysis.start_step();
        self.tell(Severity::Normal, Reason::Adopted { stable: stable.name, canary: version, share, step });
        self.next.phase = Phase::Paused(rollout, PauseCause::Adopted);
    }

    /// Idle or rolled back: starts the rollout of a wanted version, or says why none starts.
    pub(super) fn rest(&mut self, phase: Phase) -> Phase {
        let Some(stable) = self.next.stable.clone() else { return phase };
        self.forget_the_gone();
        match self.workload(&stable) {
            Some(w) if w.hash != stable.hash => {
                self.next.stable = Some(version_of(w));
                self.next.judged.push(version_of(w));
                self.tell(Severity::Warning, Reason::StableChanged { stable: stable.name.clone() });
            }
            Some(_) => {}
            // Not one: it is not that stable's pods are down, but that nobody is found behind the service.
            None if self.seen.workloads.is_empty() => self.say(Reason::NoVersion { service: "the service".into() }),
            None => self.say(Reason::ServingGone { stable: stable.name.clone() }),
        }
        let stable = self.followed(stable);
        let stray = self.shares_found().into_iter().find(|(v, w)| *v != stable.name && *w > Weight::ZERO);
        let wanted = self.wanted();
        if stray.is_none()
            && let Some(put_back) = &mut self.next.put_back
        {
            put_back.seen = true;
        }
        if let Some((version, to)) = stray.clone().filter(|_| !self.observes() || wanted.is_none()) {
            self.stray(&stable, version, to);
        } else if let Some(wanted) = wanted {
            return self.start(phase, wanted);
        } else if let Some(desired) = self.plan.spec().desired.clone()
            && desired != stable.name
        {
            let present: Vec<VersionName> = self.seen.workloads.iter().map(|w| w.version.clone()).collect();
            if !present.contains(&desired) {
                self.say(Reason::DesiredMissing { desired, present });
            } else if !self.next.failed.iter().any(|v| v.name == desired) {
                self.say(Reason::DesiredJudged { desired });
            }
        }
        if stray.is_none() {
            self.retire();
            self.take_off();
        }
        if let Phase::RolledBack { version, cause, .. } = &phase {
            let why = cause.to_string();
            self.say(Reason::TakenBack { canary: version.name.clone(), why });
        }
        phase
    }

    /// Deletes versions whose time is over, where the plan says so: never while they have weight, stable is without pods, or somebody brakes; and
    /// never what another manager would make again.
    fn retire(&mut self) {
        let Some(after) = self.plan.spec().retire_after else { return };
        let stable_up = self.next.stable.as_ref().and_then(|s| self.workload(s)).is_some_and(|w| w.capacity() > 0);
        if !stable_up || self.brake().is_some() {
            return;
        }
        let serves = |version: &VersionName| self.next.stable.as_ref().is_some_and(|s| s.name == *version);
        let due: Vec<(VersionName, crate::units::Timestamp)> = self.next.retirable.iter().filter(|(v, _)| !serves(v)).cloned().collect();
        for (version, since) in due {
            let at = since.plus(after);
            if self.now < at {
                self.wake(at);
                continue;
            }
            for w in self.seen.workloads.iter().filter(|w| w.version == version) {
                let workload = w.name.clone();
                match &w.kept_by {
                    Some(manager) => self.say(Reason::KeptFromRetiring { version: version.clone(), workload, manager: manager.clone() }),
                    None => {
                        self.tell(
                            Severity::Normal,
                            Reason::Retires { version: version.clone(), workload: workload.clone(), after: self.now.since(since) },
                        );
                        self.actions.push(Action::Retire { workload });
                    }
                }
            }
        }
    }

    /// Takes away what Serin had added so that callers could reach a version, once no Deployment carries it any more: first off the routes, then,
    /// when that has settled and nobody else names it, out of its own rule.
    fn take_off(&mut self) {
        if self.observes() || self.brake().is_some() {
            return;
        }
        // Where not even stable is seen, nobody knows who is gone.
        if self.next.stable.as_ref().is_none_or(|stable| self.workload(stable).is_none()) {
            return;
        }
        let mut added = core::mem::take(&mut self.next.added);
        // What stands in Serin's own rule is Serin's, whatever became of its memory.
        for version in &self.seen.rules.own {
            if !self.is_wanted(version) && !added.iter().any(|a| a.version == *version) {
                added.push(Added::new(version.clone()));
            }
        }
        added.retain_mut(|entry| self.still_added(entry));
        self.next.added = added;
    }

    /// Whether a version serves, or could.
    fn is_wanted(&self, version: &VersionName) -> bool {
        self.next.stable.as_ref().is_some_and(|s| s.name == *version) || self.seen.workloads.iter().any(|w| w.version == *version)
    }

    /// One version that was made reachable: asks for what is to be taken away next; `false` once nothing is left of it.
    fn still_added(&mut self, entry: &mut Added) -> bool {
        let version = entry.version.clone();
        if self.is_wanted(&version) {
            (entry.asked, entry.gone, entry.unnamed) = (None, None, None);
            return !entry.routes.is_empty();
        }
        // Replaced by force, a Deployment is gone for a moment.
        let settle = self.plan.spec().settle;
        let gone = *entry.gone.get_or_insert(self.now);
        if self.now < gone.plus(settle) {
            self.wake(gone.plus(settle));
            return true;
        }
        let (seen, asked) = (self.seen, entry.asked);
        entry.routes.retain(|name| {
            let Some(route) = seen.routes.iter().find(|r| r.object == *name) else { return false };
            let mut naming = route.splits.iter().filter(|s| s.share(&version).is_some()).peekable();
            let by_another = asked.is_some_and(|asked| route.manager.as_ref().is_some_and(|(_, at)| *at > asked));
            // The only destination of a route cannot be taken off it.
            naming.peek().is_some() && naming.all(|s| s.shares.len() > 1) && !by_another
        });
        if let Some(route) = entry.routes.first().cloned() {
            entry.asked = Some(asked.unwrap_or(self.now));
            self.tell(Severity::Normal, Reason::TakenOff { version: version.clone(), from: format!("VirtualService {route}") });
            self.actions.push(Action::RemoveDestination { route, version });
            return true;
        }
        if !self.seen.rules.own.contains(&version) {
            return false;
        }
        if !self.seen.rules.unused.contains(&version) {
            entry.unnamed = None;
            return true;
        }
        let unnamed = *entry.unnamed.get_or_insert(self.now);
        if self.now < unnamed.plus(settle) {
            self.wake(unnamed.plus(settle));
            return true;
        }
        self.tell(Severity::Normal, Reason::TakenOff { version: version.clone(), from: "Serin's own DestinationRule".into() });
        self.actions.push(Action::RemoveSubset { version });
        true
    }

    /// Observed, stable is whichever version was given every request.
    fn followed(&mut self, stable: Version) -> Version {
        let shares = self.shares_found();
        let only = |found: &&(VersionName, Weight)| {
            found.1 == Weight::ALL && found.0 != stable.name && shares.iter().all(|(v, w)| *v == found.0 || *w == Weight::ZERO)
        };
        let Some(new) =
            shares.iter().find(only).and_then(|(v, _)| self.seen.workloads.iter().find(|w| w.version == *v)).filter(|_| self.observes())
        else {
            return stable;
        };
        let new = version_of(new);
        self.next.stable = Some(new.clone());
        self.next.judged.push(new.clone());
        self.tell(Severity::Normal, Reason::Serving { stable: new.name.clone() });
        new
    }

    /// At rest somebody gave a version weight. Where it has the pods for it that is his to do, and only said; where it has not, requests
    /// fail: it is put back, once.
    fn stray(&mut self, stable: &Version, version: VersionName, to: Weight) {
        let manager = self.manager();
        let full_size = self.workload(stable).map_or(0, Workload::capacity);
        let needed = to.pods(full_size).max(1);
        let ready = self.seen.workloads.iter().find(|w| w.version == version).map_or(0, Workload::capacity);
        // Back means to stable, so it has to be there; and the owner's brake is not overridden.
        if ready >= needed || full_size == 0 || self.observes() || self.plan.spec().suspend || self.seen.obstacle.is_some() {
            self.say(Reason::DriftAtRest { manager, version, to });
            return;
        }
        let rewritten = |at| self.seen.routes.iter().filter_map(|r| r.manager.as_ref()).any(|(_, written)| *written > at);
        match &self.next.put_back {
            Some(before) if before.version == version && (before.seen || rewritten(before.at)) => {
                self.say(Reason::PutBackUndone { manager, version, to, ready, needed });
                return;
            }
            Some(before) if before.version == version => self.say(Reason::PutBack { manager, version: version.clone(), to, ready, needed }),
            Some(_) | None => {
                self.next.put_back = Some(PutBack { version: version.clone(), manager: manager.clone(), at: self.now, seen: false });
                self.tell(Severity::Warning, Reason::PutBack { manager, version: version.clone(), to, ready, needed });
            }
        }
        for route in self.seen.routes.iter().filter(|r| r.splits.iter().any(|s| s.share(&version).is_some_and(|w| w > Weight::ZERO))) {
            self.actions.push(Action::SetWeights {
                route: route.object.clone(),
                stable: stable.name.clone(),
                canary: version.clone(),
                share: Weight::ZERO,
                guard: Guard::Back,
            });
        }
    }

    /// After a promotion: the rollout whose end brings the version back that served before.
    ///
    /// # Errors
    /// Why there is none to bring back.
    pub(super) fn bring_back(&mut self) -> Result<Rollout, alloc::string::String> {
        let stable = self.next.stable.clone().ok_or("no version serves yet")?;
        let mut promotions = self.next.history.iter().rev().filter(|p| p.outcome == Outcome::Promoted && p.canary == stable.name);
        let old = promotions
            .next()
            .ok_or_else(|| format!("no promotion of {stable} is remembered, so there is nothing to go back to"))?
            .stable
            .clone();
        let find = |name: &VersionName| self.seen.workloads.iter().find(|w| w.version == *name);
        let before = find(&old).ok_or_else(|| format!("the Deployment of {old} is gone: apply it again first"))?;
        let serving = self.workload(&stable).ok_or_else(|| format!("the Deployment of {stable}, which serves, is gone"))?;
        if self.seen.routes.is_empty() {
            return Err("no route sends to the service".into());
        }
        let mut rollout = self.new_rollout(&version_of(before), serving);
        // Full size is that of the version that serves: as many have to take over from it.
        rollout.full_size = serving.capacity().max(1);
        rollout.weight = Target { share: Weight::ALL, before: Weight::ALL, seen: Some(self.now) };
        self.next.rollouts += 1;
        self.next.retirable.retain(|(v, _)| *v != old);
        Ok(rollout)
    }

    fn start(&mut self, phase: Phase, wanted: &Workload) -> Phase {
        let Some(stable) = self.next.stable.clone() else { return phase };
        if let Some(brake) = self.brake() {
            self.say(brake);
            return phase;
        }
        if self.seen.routes.is_empty() {
            self.say(Reason::NoRoute { service: "the service".into() });
            return phase;
        }
        let rollout = self.new_rollout(&stable, wanted);
        self.next.rollouts += 1;
        self.next.put_back = None;
        // From here on it is no news: only a change of its template makes it wanted again.
        self.next.judged.push(rollout.canary.clone());
        self.next.retirable.retain(|(v, _)| *v != rollout.canary.name);
        self.tell(Severity::Normal, Reason::Started { stable: stable.name, canary: rollout.canary.name.clone() });
        Phase::Preparing(rollout)
    }

    fn new_rollout(&self, stable: &Version, canary: &Workload) -> Rollout {
        let capacity = self.workload(stable).map_or(0, Workload::capacity);
        Rollout {
            uid: format!("{}-{}-{}", canary.version, self.next.rollouts + 1, self.now.0),
            canary: version_of(canary),
            stable: stable.clone(),
            started: self.now,
            step: 0,
            step_since: self.now,
            weight: Target::UNBEGUN,
            highest: Weight::ZERO,
            full_size: capacity.max(1),
            found_replicas: canary.replicas,
            analysis: Analysis::new(self.plan.tests(), &[]),
            split: Split::default(),
            served: Served::default(),
            read_s: 0.0,
            judged_s: 0.0,
            past_rate: None,
            warned: false,
            last_traffic: None,
            refused_at: None,
            down: Down::default(),
            last_reading: None,
            source: None,
            hurry: Hurry::No,
            bake: None,
            learnt: Vec::new(),
            answers: Vec::new(),
            graded: Vec::new(),
            questions: self.plan.questions().to_string(),
        }
    }

    pub(super) fn first_step_of_at_least(&self, share: Weight) -> usize {
        let steps = &self.plan.spec().steps;
        let fits = |s: &Step| matches!(s, Step::Weight { weight, .. } if *weight >= share);
        let last = || steps.iter().rposition(|s| matches!(s, Step::Weight { .. }));
        steps.iter().position(fits).or_else(last).unwrap_or(0)
    }

    /// The largest share that any route gives each version.
    fn shares_found(&self) -> Vec<(VersionName, Weight)> {
        let mut found: Vec<(VersionName, Weight)> = Vec::new();
        for (version, share) in self.seen.routes.iter().flat_map(|r| &r.splits).flat_map(|s| &s.shares) {
            match found.iter_mut().find(|(v, _)| v == version) {
                Some((_, most)) => *most = (*most).max(*share),
                None => found.push((version.clone(), *share)),
            }
        }
        found
    }

    /// A version whose Deployment is gone is news when it comes back, unless it failed.
    fn forget_the_gone(&mut self) {
        let present: Vec<Version> = self.seen.workloads.iter().map(version_of).collect();
        // Where not even stable is seen, a selector or a label was written wrong: nothing was deleted, and nothing that comes back is news.
        if self.next.stable.as_ref().is_none_or(|stable| present.iter().all(|p| p.name != stable.name)) {
            return;
        }
        let State { judged, retirable, .. } = &mut self.next;
        judged.retain(|v| present.contains(v));
        retirable.retain(|(v, _)| present.iter().any(|p| p.name == *v));
    }

    /// Who last wrote the routes, other than Serin.
    pub(super) fn manager(&self) -> alloc::string::String {
        let last = self.seen.routes.iter().filter_map(|r| r.manager.as_ref()).max_by_key(|(_, at)| *at);
        last.map_or_else(|| "somebody".to_string(), |(who, _)| who.clone())
    }
}
