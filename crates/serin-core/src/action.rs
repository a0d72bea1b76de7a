//! What a decision asks to be done: a closed list, each safe to repeat and each with its precondition.
//!
//! Deliberately no order among kinds is implied here: a decision's actions are done in the order it lists them.

use alloc::string::String;
use alloc::vec::Vec;

use crate::reason::Reason;
use crate::state::{State, Version};
use crate::units::{ObjectName, Timestamp, VersionName, Weight};

/// What follows from plan, state and observation.
#[must_use = "a decision nobody carries out is an outage"]
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Stored before anything is touched, but for `Order::RouteFirst`.
    pub next: State,
    /// In this order, each safe to repeat.
    pub actions: Vec<Action>,
    /// Whether the state is written before the actions or after the first of them.
    pub order: Order,
    /// Ask again then, even if nothing changes; `None`: only when something changes.
    pub wake_at: Option<Timestamp>,
    /// Whether the next look needs a reading of the source.
    pub wants_traffic: bool,
    /// Why, and what it waits for; the first is the sentence that a person reads first. Never empty.
    pub reasons: Vec<Reason>,
}

/// When the state is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The rule: intent first, then the act.
    StateFirst,
    /// An abort: routes first, as nothing may come before it. Its mark on the route tells the next look, should the write be lost.
    RouteFirst,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the canary's subset reachable, in Serin's own rule. Precondition: `Rules::refusal` is `None`. Idempotent.
    EnsureSubset {
        /// Whose traffic policy the new subset copies.
        stable: VersionName,
        /// The version whose subset lacks.
        canary: VersionName,
    },
    /// Name the canary on a route, at weight 0. Precondition: its subset exists, and the route splits this host by subset already.
    EnsureDestination {
        /// The VirtualService.
        route: ObjectName,
        /// Whose destination is copied.
        stable: VersionName,
        /// The version to name.
        canary: VersionName,
    },
    /// Take a version off a route that Serin had put there. Precondition: no Deployment carries it, and it has no weight.
    RemoveDestination {
        /// The VirtualService.
        route: ObjectName,
        /// The version.
        version: VersionName,
    },
    /// Take a version's subset out of Serin's own rule, and the rule away with its last one. Precondition: no route has named it for the settle time.
    RemoveSubset {
        /// The version.
        version: VersionName,
    },
    /// Give the canary this share on every split of one VirtualService.
    SetWeights {
        /// The VirtualService.
        route: ObjectName,
        /// The version that gets the rest.
        stable: VersionName,
        /// The version that gets the share.
        canary: VersionName,
        /// The share.
        share: Weight,
        /// Which guard the patch carries.
        guard: Guard,
    },
    /// Raise a Deployment's replicas. Precondition: it has fewer, and nobody else sets them.
    Scale {
        /// The Deployment.
        workload: String,
        /// To this many.
        replicas: u32,
    },
    /// Delete the Deployment of a version that another one replaced. Precondition: no route gives it any weight, and nobody else keeps it.
    Retire {
        /// The Deployment.
        workload: String,
    },
    /// Take replicas of a canary that was taken back down to what was found. Precondition: its weight is 0 and has settled.
    Unscale {
        /// The Deployment.
        workload: String,
        /// To this many, never 0 unless it was found so.
        replicas: u32,
    },
    /// Tell the world once.
    Event {
        /// Whether somebody should look.
        severity: Severity,
        /// What happened.
        reason: Reason,
    },
    /// Remove a request's annotation: it is in `State::handled`.
    Handle {
        /// The request's id.
        id: String,
    },
}

/// What a weight patch is pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// On the way forward: the resource version that was seen, and the whole route.
    Forward {
        /// As seen.
        resource_version: String,
    },
    /// On the way back: the route alone, retried until it shows 0.
    Back,
    /// As `Back`, and marks the route with the rollout's uid: the one exception to "state first".
    Abort {
        /// The rollout that ends.
        rollout: String,
        /// Why, as a sentence: it stands beside the mark, for whoever comes after a crash.
        why: String,
    },
}

/// As Kubernetes' events know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It goes as planned.
    Normal,
    /// Somebody should look.
    Warning,
}

/// A version with the workload that carries it, for messages.
impl core::fmt::Display for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.name.fmt(f)
    }
}
