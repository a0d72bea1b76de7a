//! What is remembered between two looks: the phase with the data that belongs to it, and what must survive it.
//!
//! The whole of it is the checkpoint in the object's status, and the only thing read back from there.
//! Deliberately nothing here was *seen*: what was seen is an `Observation`.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observe::{RequestAction, SourceProblem};
use crate::reason::Reason;
use crate::stats::{Analysis, Counts, NumberReadings, Split};
use crate::units::{ObjectName, Timestamp, VersionName, Weight};

/// Everything remembered of one CanaryRelease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Counts the writes: no action happens before the write with the next number was accepted.
    pub seq: u64,
    /// Where the release stands.
    pub phase: Phase,
    /// The version serving now; `None` before adoption.
    pub stable: Option<Version>,
    /// Versions that were there at adoption, or have been through a rollout: they start none until they change.
    pub judged: Vec<Version>,
    /// `desired` as it was when it was last looked at: only a change of it is news.
    pub desired: Option<VersionName>,
    /// The versions that were taken back, not tried again until they change or someone retries.
    pub failed: Vec<Version>,
    /// Versions that serve nobody any more, and since when.
    pub retirable: Vec<(VersionName, Timestamp)>,
    /// The last ten requests.
    pub handled: Vec<Handled>,
    /// The last ten rollouts, newest last.
    pub history: Vec<Past>,
    /// Rollouts begun so far: makes the next uid.
    pub rollouts: u64,
    /// A weight at rest that led to too few pods, and was put back.
    #[serde(default)]
    pub put_back: Option<PutBack>,
    /// Versions that Serin made callers able to reach: what it added is taken away again when they are gone.
    #[serde(default)]
    pub added: Vec<Added>,
}

/// A version that Serin named on routes, or whose subset stands in its own rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The version.
    pub version: VersionName,
    /// The routes that Serin named it on, and nobody since.
    pub routes: Vec<ObjectName>,
    /// Since when it is taken off these. Whoever names it again after that is not fought.
    pub asked: Option<Timestamp>,
    /// Since when no Deployment carries it.
    pub gone: Option<Timestamp>,
    /// Since when, besides, no route names it.
    pub unnamed: Option<Timestamp>,
}

impl Added {
    /// Nothing of it is known yet.
    pub fn new(version: VersionName) -> Self {
        Self { version, routes: Vec::new(), asked: None, gone: None, unnamed: None }
    }
}

/// What was put back at rest. It is done once: who writes it again is named, and nobody fights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBack {
    /// The version that had too few pods.
    pub version: VersionName,
    /// Who had given it the weight.
    pub manager: String,
    /// When it was first asked for.
    pub at: Timestamp,
    /// Whether the routes have shown it since.
    pub seen: bool,
}

/// A version: what the label says, which Deployment, and which template.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// The label's value.
    pub name: VersionName,
    /// The Deployment.
    pub workload: String,
    /// Hash of the pod template.
    pub hash: String,
}

/// Where a release stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// One version has it all; or nothing is known yet.
    Idle,
    /// Waits for what the first weight needs: pods, subset, destination, metrics.
    Preparing(Rollout),
    /// At a step.
    Progressing(Rollout),
    /// At a step, and asked to stay.
    Paused(Rollout, PauseCause),
    /// Every step is passed: canary to full size, weight 100, bake.
    Promoting(Rollout),
    /// Weight goes back to stable.
    RollingBack(Rollout, EndCause),
    /// All on stable; the failed version is remembered.
    RolledBack {
        /// Which.
        version: Version,
        /// Why.
        cause: EndCause,
        /// Since when.
        since: Timestamp,
    },
}

/// A running rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Names this rollout in requests, marks and history.
    pub uid: String,
    /// The version on trial.
    pub canary: Version,
    /// The version it is compared with.
    pub stable: Version,
    /// When it began.
    pub started: Timestamp,
    /// Index of the step in the plan.
    pub step: usize,
    /// When the step began, which is when its weight was first seen on every route; the rollout's start before that.
    pub step_since: Timestamp,
    /// The share that the canary shall have.
    pub weight: Target,
    /// The highest that any route was seen to give it.
    #[serde(default = "nothing")]
    pub highest: Weight,
    /// Stable's ready pods when the rollout began: what full size means.
    pub full_size: u32,
    /// The canary's replicas when the rollout began: never scaled below.
    pub found_replicas: u32,
    /// The evidence so far.
    pub analysis: Analysis,
    /// The share that is seen against the share that is set, of this step.
    pub split: Split,
    /// Requests (all, failed) of canary and stable since the rollout began.
    pub served: Served,
    /// How many seconds the readings span in which these were counted.
    #[serde(default)]
    pub read_s: f64,
    /// How many of these seconds were judged, since the evidence began.
    #[serde(default)]
    pub judged_s: f64,
    /// Requests a second to stable before this rollout, where the source remembers.
    #[serde(default)]
    pub past_rate: Option<f64>,
    /// Whether it was said that a step will hardly be answered in its time.
    #[serde(default)]
    pub warned: bool,
    /// When a request to the service was last counted.
    pub last_traffic: Option<Timestamp>,
    /// When requests were last refused for want of a healthy pod though both versions had ready pods: nobody's fault that is known.
    pub refused_at: Option<Timestamp>,
    /// Who was without a ready pod at a look since the last reading.
    #[serde(default)]
    pub down: Down,
    /// The end of the last reading of the source.
    pub last_reading: Option<Timestamp>,
    /// Why the source does not answer, since when, while it does not.
    pub source: Option<(SourceProblem, Timestamp)>,
    /// Whether a person asked to go on without waiting for evidence.
    pub hurry: Hurry,
    /// At 100 %: the limits that stand in for stable, one per metric, and since when.
    pub bake: Option<Bake>,
    /// What is known of each quantile that the plan asks about, in its order.
    #[serde(default)]
    pub learnt: Vec<Learnt>,
    /// How each of the plan's query limits fares, in its order.
    #[serde(default)]
    pub answers: Vec<Answers>,
    /// The margins of this step's fitness where they are coarser than the plan's, one per metric; empty: none is.
    #[serde(default)]
    pub graded: Vec<Option<f64>>,
    /// The questions that the evidence answers (`Plan::questions`); empty: written before that was noted.
    #[serde(default)]
    pub questions: String,
}

fn nothing() -> Weight {
    Weight::ZERO
}

/// What is known of a quantile of stable's latency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Learnt {
    /// Stable's requests are gathered; latency gives no verdict yet.
    Gathering {
        /// Since when.
        since: Option<Timestamp>,
        /// Requests.
        n: f64,
        /// Those slower than an edge, in milliseconds.
        slower: Vec<(f64, f64)>,
    },
    /// The edges at which it is tested, for the whole rollout.
    Fixed {
        /// Below the quantile; `None`: there is nothing to test.
        lower: Option<Edge>,
        /// At or above it.
        upper: Option<Edge>,
    },
}

impl Learnt {
    /// Nothing is known.
    pub const NOTHING: Self = Self::Gathering { since: None, n: 0.0, slower: Vec::new() };
}

/// Where slow begins: for a strict claim at a higher edge for the canary than for stable.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// The canary's slow requests are those above, in milliseconds.
    pub canary_ms: f64,
    /// Stable's are those above, in milliseconds.
    pub stable_ms: f64,
    /// Points by which the canary's share may be higher, as a fraction.
    pub margin: f64,
}

/// The answers to a query with a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// Good, bad and missing ones in a row.
    pub readings: NumberReadings,
    /// The last one that there was.
    pub last: Option<f64>,
}

/// Versions without a ready pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// Stable.
    pub stable: bool,
    /// The canary.
    pub canary: bool,
}

/// Whether a step is left without waiting for evidence. Harm takes the canary back all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hurry {
    /// No.
    No,
    /// This step, or pause, only.
    Step {
        /// Who asked.
        who: String,
    },
    /// All remaining steps.
    All {
        /// Who asked.
        who: String,
    },
}

/// The share that shall be, and whether it has been seen yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// What shall be.
    pub share: Weight,
    /// What was before; seeing it is no drift, only a write that is not done or not visible yet.
    pub before: Weight,
    /// When all routes were first seen to have it.
    pub seen: Option<Timestamp>,
}

impl Target {
    /// Of a rollout that has not begun its first step.
    pub const UNBEGUN: Self = Self { share: Weight::ZERO, before: Weight::ZERO, seen: None };

    /// The share that the routes have while the target is not seen: what was before.
    pub fn stands(&self) -> Weight {
        if self.seen.is_some() { self.share } else { self.before }
    }
}

/// Requests of both arms since a rollout began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// The canary's requests and errors.
    pub canary: Counts,
    /// Stable's requests and errors.
    pub stable: Counts,
    /// Requests refused for want of any healthy pod.
    pub unattributed: f64,
}

/// The last stretch of a promotion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bake {
    /// When the whole weight was seen.
    pub since: Timestamp,
    /// The highest share of bad requests that each metric allows, whatever stable did.
    pub limits: Vec<f64>,
}

/// Why a rollout stays where it is on purpose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PauseCause {
    /// The plan says so; until then, or until someone goes on.
    Plan {
        /// `None`: until a person goes on.
        until: Option<Timestamp>,
    },
    /// A person asked.
    Person {
        /// Who.
        who: String,
        /// Why, may be empty.
        why: String,
        /// When.
        at: Timestamp,
    },
    /// A person set this weight.
    WeightSet {
        /// Who.
        who: String,
        /// Why, may be empty.
        why: String,
        /// The share that was asked for.
        to: Weight,
        /// When.
        at: Timestamp,
    },
    /// The split was there when Serin came.
    Adopted,
    /// Somebody else changed the weights.
    Drift {
        /// Field manager, or "somebody".
        manager: String,
        /// To which share of the canary.
        to: Weight,
        /// When, as the managed fields say, or when it was seen.
        at: Timestamp,
    },
    /// Callers were refused right after Serin's change (NC): it was taken back.
    Unreachable,
}

/// Why a rollout ends without promotion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EndCause {
    /// Evidence; the reason carries the numbers.
    Harm(Reason),
    /// A person's abort.
    Abort {
        /// Who.
        who: String,
        /// Why, may be empty.
        why: String,
        /// Even though stable has no ready pod.
        force: bool,
    },
    /// The route carries the mark of an abort that was made without the controller.
    Mark,
    /// The same, and the mark says why.
    Marked {
        /// As a sentence.
        why: String,
    },
    /// The canary has no ready pod.
    CanaryDown,
    /// The canary's Deployment is gone.
    CanaryGone,
    /// Another version is wanted.
    Superseded {
        /// Which.
        by: VersionName,
    },
    /// A confirm step ran out of its time, and the plan says to go back.
    Inconclusive,
    /// After its promotion a person wants back what served before, which is `Rollout::stable` here.
    Rollback {
        /// Who.
        who: String,
        /// Why, may be empty.
        why: String,
        /// Without waiting for more than one ready pod.
        now: bool,
    },
}

/// A request that was dealt with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handled {
    /// The request's id.
    pub id: String,
    /// What was asked.
    pub action: RequestAction,
    /// Who asked.
    pub who: String,
    /// When it was dealt with.
    pub at: Timestamp,
    /// `None`: done; else why not.
    pub refused: Option<String>,
    /// Whether it was seen to be off the object since: the same text after that is another request.
    #[serde(default)]
    pub gone: bool,
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The canary is the new stable.
    Promoted,
    /// All weight went back.
    RolledBack,
    /// Another version took its place.
    Superseded,
}

/// A rollout that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// Its uid.
    pub uid: String,
    /// The version that was serving.
    pub stable: VersionName,
    /// The version on trial.
    pub canary: VersionName,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in a sentence.
    pub why: String,
    /// When it began.
    pub started: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// What each version served.
    pub served: Served,
    /// The highest share that the canary had.
    pub highest: Weight,
}

/// How many requests and rollouts are remembered.
pub const REMEMBERED: usize = 10;

impl State {
    /// Nothing is known yet: the next decision adopts what it finds.
    pub fn new() -> Self {
        Self {
            seq: 0,
            phase: Phase::Idle,
            stable: None,
            judged: Vec::new(),
            desired: None,
            failed: Vec::new(),
            retirable: Vec::new(),
            handled: Vec::new(),
            history: Vec::new(),
            rollouts: 0,
            put_back: None,
            added: Vec::new(),
        }
    }

    /// The rollout that runs, if one does.
    pub fn rollout(&self) -> Option<&Rollout> {
        match &self.phase {
            Phase::Idle | Phase::RolledBack { .. } => None,
            Phase::Preparing(r) | Phase::Progressing(r) | Phase::Paused(r, _) | Phase::Promoting(r) | Phase::RollingBack(r, _) => Some(r),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl Phase {
    /// The word of the status: `Idle`, `Progressing`, ….
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Preparing(_) => "Preparing",
            Self::Progressing(_) => "Progressing",
            Self::Paused(..) => "Paused",
            Self::Promoting(_) => "Promoting",
            Self::RollingBack(..) => "RollingBack",
            Self::RolledBack { .. } => "RolledBack",
        }
    }
}

/// Why it stays, as a sentence.
impl fmt::Display for PauseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan { until: None } => f.write_str("paused by the plan, until someone promotes"),
            Self::Plan { until: Some(_) } => f.write_str("paused by the plan, for a time"),
            Self::Person { who, why, .. } if why.is_empty() => write!(f, "paused by {who}, until someone resumes"),
            Self::Person { who, why, .. } => write!(f, "paused by {who} ({why}), until someone resumes"),
            Self::WeightSet { who, why, to, .. } if why.is_empty() => write!(f, "{to} was set by {who}, until someone resumes"),
            Self::WeightSet { who, why, to, .. } => write!(f, "{to} was set by {who} ({why}), until someone resumes"),
            Self::Adopted => f.write_str("the split was there when Serin came: paused until someone resumes"),
            Self::Drift { manager, to, .. } => {
                write!(f, "paused: weights were changed by {manager} to {}/{}; resume sets the step's weight again", to.rest(), to)
            }
            Self::Unreachable => {
                f.write_str("paused: callers were refused after the last change (no such cluster at their proxy), which was taken back")
            }
        }
    }
}

/// Why it ended, as a sentence.
impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Harm(reason) => reason.fmt(f),
            Self::Abort { who, why, .. } if why.is_empty() => write!(f, "aborted by {who}"),
            Self::Abort { who, why, .. } => write!(f, "aborted by {who}: {why}"),
            Self::Mark => f.write_str("aborted on the route itself, as its mark says"),
            Self::Marked { why } => f.write_str(why),
            Self::CanaryDown => f.write_str("it has no ready pod"),
            Self::CanaryGone => f.write_str("its Deployment is gone"),
            Self::Superseded { by } => write!(f, "{by} is wanted instead"),
            Self::Inconclusive => f.write_str("the step had no answer in its time, and the plan says to go back"),
            Self::Rollback { who, why, .. } if why.is_empty() => write!(f, "rolled back by {who}"),
            Self::Rollback { who, why, .. } => write!(f, "rolled back by {who}: {why}"),
        }
    }
}
