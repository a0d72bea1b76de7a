//! Gates and shares: what must be true before a weight goes up, and how routes get from one share to another.
//!
//! Deliberately knows no evidence. On the way up VirtualServices are changed one after the other, on the way down all at once.

use super::Look;
use crate::action::{Action, Guard};
use crate::observe::{Route, Workload};
use crate::plan::{Plan, Scaling, SubsetHome};
use crate::reason::Reason;
use crate::state::{Added, PauseCause, Rollout};
use crate::units::{ObjectName, Timestamp, VersionName, Weight};

/// How the routes stand to the share that they shall have.
pub(super) enum Shown {
    /// Every split shows it.
    All,
    /// Some split still shows what was before.
    NotYet,
    /// Somebody else wrote another share.
    Drift { to: Weight, at: Timestamp },
}

impl Rollout {
    /// Pods for `share` of stable's size when the rollout began (design, "Capacity"). At least one, or there is nobody to answer.
    pub fn pods_needed(&self, plan: &Plan, share: Weight) -> u32 {
        match plan.spec().scaling {
            Scaling::Full => self.full_size,
            Scaling::ByWeight | Scaling::Wait => share.pods(self.full_size).max(1),
        }
    }
}

impl Look<'_> {
    /// Whether the canary may get `share`; asks for what lacks and says what it waits for.
    pub(super) fn ready_for(&mut self, rollout: &Rollout, share: Weight) -> bool {
        self.reachable(rollout) && self.enough_pods(rollout, share)
    }

    /// Whether callers could reach the canary if it had weight.
    pub(super) fn reachable(&mut self, rollout: &Rollout) -> bool {
        self.observes() || (self.subset_there(rollout) && self.named_by_routes(rollout))
    }

    fn subset_there(&mut self, rollout: &Rollout) -> bool {
        let canary = rollout.canary.name.clone();
        if self.seen.rules.subsets.contains(&canary) {
            return true;
        }
        let refusal = match self.plan.spec().subsets {
            SubsetHome::Existing => Some("spec.traffic.destinationRule is Existing".into()),
            SubsetHome::Companion => self.seen.rules.refusal.clone(),
        };
        if refusal.is_none() {
            self.actions.push(Action::EnsureSubset { stable: rollout.stable.name.clone(), canary: canary.clone() });
        }
        self.say(Reason::WaitsForSubset { canary, refusal });
        false
    }

    fn named_by_routes(&mut self, rollout: &Rollout) -> bool {
        let canary = &rollout.canary.name;
        let lacks = |r: &&Route| r.splits.iter().any(|s| s.share(canary).is_none());
        let Some(route) = self.seen.routes.iter().find(lacks) else {
            if self.seen.routes.is_empty() {
                self.say(Reason::NoRoute { service: "the service".into() });
                return false;
            }
            return true;
        };
        let (stable, canary, route) = (rollout.stable.name.clone(), canary.clone(), route.object.clone());
        self.say(Reason::WaitsForDestination { canary: canary.clone(), route: alloc::format!("{route}") });
        self.note_added(&canary, &route);
        self.actions.push(Action::EnsureDestination { route, stable, canary });
        false
    }

    /// What is added here is taken away again once the version is gone.
    fn note_added(&mut self, version: &VersionName, route: &ObjectName) {
        let added = &mut self.next.added;
        let known = added.iter().position(|a| a.version == *version);
        if known.is_none() {
            added.push(Added::new(version.clone()));
        }
        let at = known.unwrap_or(added.len() - 1);
        if !added[at].routes.contains(route) {
            added[at].routes.push(route.clone());
        }
    }

    pub(super) fn enough_pods(&mut self, rollout: &Rollout, share: Weight) -> bool {
        if self.observes() {
            return true;
        }
        let needed = rollout.pods_needed(self.plan, share);
        let Some(canary) = self.workload(&rollout.canary) else { return false };
        if canary.capacity() >= needed {
            return true;
        }
        let may_scale = canary.scaled_by.is_none() && self.plan.spec().scaling != Scaling::Wait;
        if may_scale && canary.replicas < needed {
            self.actions.push(Action::Scale { workload: canary.name.clone(), replicas: needed });
        }
        self.say(Reason::WaitsForPods {
            canary: canary.version.clone(),
            workload: canary.name.clone(),
            ready: canary.capacity(),
            needed,
            who_scales: canary.scaled_by.clone(),
        });
        false
    }

    /// What the routes show of the share that they shall have.
    pub(super) fn shown(&self, rollout: &Rollout) -> Shown {
        // The weights are somebody else's, and none of them is a contradiction.
        if self.observes() {
            return Shown::All;
        }
        let target = rollout.weight;
        let mut all = !self.seen.routes.is_empty();
        for route in &self.seen.routes {
            for split in &route.splits {
                let share = split.share(&rollout.canary.name).unwrap_or(Weight::ZERO);
                if share == target.share {
                    continue;
                }
                // Before it was once seen, the old share is a write that is not done, or not visible yet.
                if target.seen.is_some() || share != target.before {
                    let at = route.manager.as_ref().map_or(self.now, |(_, at)| *at);
                    return Shown::Drift { to: share, at };
                }
                all = false;
            }
        }
        if all { Shown::All } else { Shown::NotYet }
    }

    /// Brings the routes to the target, which lies above what was before: one VirtualService at a time.
    pub(super) fn raise(&mut self, rollout: &Rollout) {
        let short = |r: &&Route| r.splits.iter().any(|s| s.share(&rollout.canary.name) != Some(rollout.weight.share));
        if let Some(route) = self.seen.routes.iter().find(short) {
            self.set(rollout, route, Guard::Forward { resource_version: route.resource_version.clone() });
        }
        self.say(Reason::Routing { canary: rollout.canary.name.clone(), to: rollout.weight.share });
    }

    /// Brings every route down to the target at once.
    pub(super) fn lower(&mut self, rollout: &Rollout, guard: &Guard) {
        for route in &self.seen.routes {
            if route.splits.iter().any(|s| s.share(&rollout.canary.name).is_some_and(|w| w != rollout.weight.share)) {
                self.set(rollout, route, guard.clone());
            }
        }
    }

    fn set(&mut self, rollout: &Rollout, route: &Route, guard: Guard) {
        let action = Action::SetWeights {
            route: route.object.clone(),
            stable: rollout.stable.name.clone(),
            canary: rollout.canary.name.clone(),
            share: rollout.weight.share,
            guard,
        };
        // A person's abort, and the phase that follows it in the same look, ask for the same.
        if !self.actions.contains(&action) {
            self.actions.push(action);
        }
    }

    pub(super) fn drifted(&self, to: Weight, at: Timestamp) -> PauseCause {
        PauseCause::Drift { manager: self.manager(), to, at }
    }

    /// Whether stable could take every request now.
    pub(super) fn stable_is_up(&self, rollout: &Rollout) -> bool {
        self.workload(&rollout.stable).map_or(0, Workload::capacity) > 0
    }
}
