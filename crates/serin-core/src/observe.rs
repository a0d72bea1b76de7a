//! What was seen at one instant: the only thing a decision follows from, beside plan and state.
//!
//! Absent, stale and zero are three different values here. Deliberately no raw objects: routes come as the shares they
//! express (see `route::survey`), traffic as increments and never as counters.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::stats::{Batch, Counts};
use crate::units::{ObjectName, Timestamp, VersionName, Weight};

/// Everything that was read at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// When.
    pub at: Timestamp,
    /// All Deployments whose pods stand behind the service, in order of creation.
    pub workloads: Vec<Workload>,
    /// All VirtualServices that send to the service, oldest first. Empty: none does.
    pub routes: Vec<Route>,
    /// The subsets that callers can reach.
    pub rules: Rules,
    /// What the source of metrics said since the last decision.
    pub traffic: Traffic,
    /// People's requests that are not handled yet, oldest first.
    pub requests: Vec<Request>,
    /// The `serin.dev/abort` annotation of the object, if present.
    pub abort: Option<Request>,
    /// Set while a freeze is in force: who, and why.
    pub freeze: Option<String>,
    /// Set when something makes work on this service impossible: it is said, and nothing moves.
    pub obstacle: Option<Obstacle>,
}

/// Why nothing may be done at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// CamelCase, as conditions carry it: `OtherRelease`, `OtherController`, `NoService`.
    pub code: String,
    /// One sentence with what to do.
    pub what: String,
}

impl Obstacle {
    /// Whether so little is seen, or so little is Serin's to touch, that not even a way back may be gone: no Service to tell which
    /// Deployments stand behind it, or another release that works on it. Any other obstacle blocks the way forward only.
    pub fn stops_everything(&self) -> bool {
        matches!(self.code.as_str(), "NoService" | "NoSelector" | "OtherRelease")
    }
}

/// One Deployment behind the service.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The value of its pods' version label.
    pub version: VersionName,
    /// The Deployment's name; its namespace is the service's.
    pub name: String,
    /// Hash of its pod template, without restart annotations.
    pub hash: String,
    /// Pods asked for.
    pub replicas: u32,
    /// Pods ready, as the Deployment says.
    pub ready: u32,
    /// Addresses that would receive requests, as the EndpointSlices say.
    pub endpoints: u32,
    /// When the Deployment was created.
    pub created: Timestamp,
    /// Whoever else sets the number of replicas: an autoscaler, or a GitOps manager that owns the field.
    pub scaled_by: Option<String>,
    /// The GitOps manager that applies it, and would make it again.
    pub kept_by: Option<String>,
}

impl Workload {
    /// Pods that count as capacity: ready by the Deployment and reachable by the EndpointSlices.
    pub fn capacity(&self) -> u32 {
        self.ready.min(self.endpoints)
    }
}

/// One VirtualService, as far as it sends to the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which.
    pub object: ObjectName,
    /// Its resource version, as the forward guard needs it.
    pub resource_version: String,
    /// Its routes that send to the service.
    pub splits: Vec<Split>,
    /// Who last wrote its routes, and when, as its managed fields say.
    pub manager: Option<(String, Timestamp)>,
    /// The value of `serin.dev/aborted`: the uid of the rollout that was ended.
    pub mark: Option<String>,
    /// The value of `serin.dev/aborted-because`: why, in a sentence.
    pub because: Option<String>,
}

/// One route's shares among the versions of the service; other destinations are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// How a person finds it: `spec.http[0] "primary"`.
    pub label: String,
    /// Share of each version whose subset the route names. Sums to the whole, or is all zero.
    pub shares: Vec<(VersionName, Weight)>,
}

impl Split {
    /// The share of a version; `None` when the route does not name it.
    pub fn share(&self, version: &VersionName) -> Option<Weight> {
        self.shares.iter().find(|(v, _)| v == version).map(|(_, w)| *w)
    }
}

/// What callers can reach by subset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Versions for which the merged DestinationRules have a subset.
    pub subsets: Vec<VersionName>,
    /// Those of which Serin's own rule has it, whether or not a Deployment carries them.
    pub own: Vec<VersionName>,
    /// Those of these that no VirtualService names, whatever its routes and layers.
    pub unused: Vec<VersionName>,
    /// Why Serin may not write a subset that lacks; `None`: it may.
    pub refusal: Option<String>,
}

/// What the source said.
#[derive(Clone, Debug, PartialEq)]
pub enum Traffic {
    /// It was not asked, or nothing is due yet.
    NotAsked,
    /// Increments since the reading before.
    Read(Reading),
    /// It could not answer.
    Problem(SourceProblem),
}

/// Why the source could not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceProblem {
    /// It did not answer; what was tried and what came of it.
    Unreachable {
        /// As `http://127.0.0.5:15090: connection refused`.
        what: String,
    },
    /// It answered, with data older than three intervals.
    Stale {
        /// Age of the newest sample in seconds.
        age_s: u64,
    },
    /// It answered, and lacks what is asked for.
    Missing {
        /// What lacks, and what is there instead.
        what: String,
    },
}

/// Increments of both arms, of the same span of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Begin of the span: the reading before.
    pub from: Timestamp,
    /// End of the span.
    pub to: Timestamp,
    /// Requests to stable.
    pub stable: ArmCounts,
    /// Requests to the canary.
    pub canary: ArmCounts,
    /// Stable's increments before `from`, poll by poll and oldest first, at most 30 minutes: the first guess. Empty where the
    /// source does not know the past, and after the first reading of a rollout.
    pub history: Vec<ArmCounts>,
    /// Requests refused because no pod of a version was healthy (Envoy's UH): their version is unknown.
    pub no_healthy_upstream: f64,
    /// Requests refused because the subset's cluster does not exist (Envoy's NC): their version is unknown.
    pub no_cluster: f64,
    /// Answers to the plan's query limits, in its order; `None` where there was none.
    pub answers: Vec<Option<f64>>,
    /// What the plan's pairs of counters counted in this span, in the order of `Plan::counters`; `None` where that is not known.
    pub counted: Vec<Option<Batch>>,
}

impl Reading {
    /// What may be remembered: counts that are none, negative or without end would stay in every sum for ever (see `Counts::clean`), and an answer
    /// without end, as a query that divides by nothing gives it, is the largest number that there is.
    #[must_use]
    pub fn clean(&self) -> Self {
        let alone = |n: f64| Counts::new(n, 0.0).clean().n;
        Self {
            from: self.from,
            to: self.to,
            stable: self.stable.clean(),
            canary: self.canary.clean(),
            history: self.history.iter().map(ArmCounts::clean).collect(),
            no_healthy_upstream: alone(self.no_healthy_upstream),
            no_cluster: alone(self.no_cluster),
            answers: self.answers.iter().map(|a| a.filter(|a| !a.is_nan()).map(|a| a.clamp(f64::MIN, f64::MAX))).collect(),
            counted: self.counted.iter().map(|c| c.map(Batch::clean)).collect(),
        }
    }
}

/// Requests of one arm, as the callers saw them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArmCounts {
    /// All requests.
    pub n: f64,
    /// HTTP 5xx, and gRPC statuses other than 0.
    pub errors: f64,
    /// Requests in the histogram of durations. Not `n`: proxies merge histograms every few seconds and count requests at once, so that of one
    /// reading neither says what the other is.
    pub timed: f64,
    /// Of these, slower than an edge: (edge in milliseconds, requests). Edges as `Rollout::edges` asks for them.
    pub slower: Vec<(f64, f64)>,
}

impl ArmCounts {
    /// See `Reading::clean`.
    #[must_use]
    pub fn clean(&self) -> Self {
        let (all, timed) = (Counts::new(self.n, self.errors).clean(), Counts::new(self.timed, 0.0).clean().n);
        let slower = self.slower.iter().filter(|(edge, _)| edge.is_finite());
        Self { n: all.n, errors: all.x, timed, slower: slower.map(|(edge, slow)| (*edge, Counts::new(timed, *slow).clean().x)).collect() }
    }

    /// Adds another span's counts of the same arm, edge by edge.
    pub fn add(&mut self, more: &Self) {
        self.n += more.n;
        self.errors += more.errors;
        self.timed += more.timed;
        for (edge, slow) in &more.slower {
            match self.slower.iter_mut().find(|(e, _)| e == edge) {
                Some((_, s)) => *s += slow,
                None => self.slower.push((*edge, *slow)),
            }
        }
    }

    /// Requests slower than `edge_ms`; `None` if the source has no such edge.
    pub fn slower_than(&self, edge_ms: f64) -> Option<f64> {
        self.slower.iter().find(|(edge, _)| *edge == edge_ms).map(|(_, n)| *n)
    }
}

/// What a person asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the sender; the same id is the same request.
    pub id: String,
    /// What.
    pub action: RequestAction,
    /// The rollout that was meant; empty: whatever runs.
    pub rollout: String,
    /// The step that was seen when asking; `None`: whatever step.
    pub step: Option<usize>,
    /// Who asked.
    pub who: String,
    /// Why, in the person's words; may be empty.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// The kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestAction {
    /// Leave this step, or the pause, now.
    Promote,
    /// As `Promote`, through all remaining steps, each as long as it settles.
    PromoteFull,
    /// Stay at this weight until resumed.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Try the version again that was rolled back.
    Retry,
    /// Give the canary this share, and stay there until resumed.
    SetWeight(Weight),
    /// After a promotion: back to the version that served before, once it has pods enough.
    Rollback,
    /// As `Rollback`, without waiting for more pods than one.
    RollbackNow,
    /// Back to stable.
    Abort,
    /// Back to stable even though stable has no ready pod.
    AbortForced,
}

/// The verb that a person typed.
impl core::fmt::Display for RequestAction {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Promote => "promote",
            Self::PromoteFull => "promote --full",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Retry => "retry",
            Self::SetWeight(share) => return write!(f, "set-weight {share}"),
            Self::Rollback => "rollback",
            Self::RollbackNow => "rollback --now",
            Self::Abort => "abort",
            Self::AbortForced => "abort --force",
        })
    }
}
