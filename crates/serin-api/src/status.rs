//! The status of a CanaryRelease: what a person or a tool reads, and the checkpoint that the controller reads back.
//!
//! The status is a file format. `checkpoint` alone is ever read back; every other field is rendered from it. Fields that
//! this version does not know are kept. Shares are strings and counts are whole, as Kubernetes' conventions want no floats.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryReleaseStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Idle`, `Preparing`, `Progressing`, `Paused`, `Promoting`, `RollingBack`, `RolledBack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The sentence that a person reads first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Every reason of the last decision, the first being the message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<ReasonStatus>,
    /// The rollout that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// The version that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<VersionStatus>,
    /// The version on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<VersionStatus>,
    /// The canary's share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<WeightStatus>,
    /// What the metrics show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisStatus>,
    /// What the controller remembers; opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// The last ten requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handled: Vec<HandledStatus>,
    /// The last ten rollouts, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PastStatus>,
    /// Old versions that serve nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retirable: Vec<RetirableStatus>,
    /// `Ready`, `Progressing`, `Stalled`, `Promoted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonStatus {
    /// CamelCase, for machines.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// The rollout that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// Names it in requests, marks and history.
    pub uid: String,
    /// Counted from 1.
    pub step: i64,
    /// Steps of the plan.
    pub steps: i64,
    /// When the step began, RFC 3339.
    pub since: String,
    /// When the rollout began, RFC 3339.
    pub started: String,
    /// How long until the canary is the new stable, by the forecast; absent: not known yet, or a person is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<String>,
}

/// A version and its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionStatus {
    /// The label's value.
    pub version: String,
    /// The Deployment.
    pub workload: String,
    /// Hash of its pod template, without restart annotations.
    pub hash: String,
    /// Pods that are ready and reachable; absent: not looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<i64>,
    /// Pods that its share needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<i64>,
}

/// The canary's share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightStatus {
    /// As the routes have it: `10%`.
    pub set: String,
    /// As the requests of this step show it: `9.8%`; absent: not measured yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// Both, with counts, for people.
    pub text: String,
    /// Requests that `seen` rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RequestsStatus>,
}

/// Requests of both versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestsStatus {
    /// Requests to the canary.
    pub canary: i64,
    /// Requests to stable.
    pub stable: i64,
}

/// What the metrics show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisStatus {
    /// Chance, valid at any time, of evidence as strong as this against a canary that is not worse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<String>,
    /// Per metric.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricStatus>,
    /// Per query with a limit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitStatus>,
}

/// A query with a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitStatus {
    /// Its name.
    pub name: String,
    /// `Pass`, `Fail`, `Inconclusive`, or `Missing` where it has no answer.
    pub verdict: String,
    /// The last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// So many answers in a row were within the limit.
    pub good: i64,
    /// So many have to be.
    pub needed: i64,
}

/// One metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricStatus {
    /// Its name.
    pub name: String,
    /// `Pass`, `Fail` or `Inconclusive`.
    pub verdict: String,
    /// The canary's counts in this step.
    pub canary: CountsStatus,
    /// Stable's counts in this step.
    pub stable: CountsStatus,
    /// The canary's share of bad requests lies between these, at the plan's confidence: `0.05%`, `1.4%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_interval: Option<[String; 2]>,
    /// Stable's, the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_interval: Option<[String; 2]>,
    /// Requests to the canary still needed for an answer, at the median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_requests: Option<i64>,
    /// How long these take, at the rate of this rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_needed: Option<String>,
}

/// Requests, and those of them that are bad.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsStatus {
    /// All.
    pub requests: i64,
    /// Bad ones.
    pub bad: i64,
}

/// What the controller remembers between two looks, opaque to everybody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// How to read `data`.
    pub format: i64,
    /// The rest.
    pub data: String,
}

/// A request that was dealt with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandledStatus {
    /// The request's id.
    pub id: String,
    /// What was asked.
    pub action: String,
    /// By whom.
    pub who: String,
    /// When it was dealt with, RFC 3339.
    pub at: String,
    /// Absent: done; else why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A rollout that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastStatus {
    /// Its uid.
    pub uid: String,
    /// The version that was serving.
    pub stable: String,
    /// The version on trial.
    pub canary: String,
    /// `Promoted`, `RolledBack`, `Superseded`.
    pub outcome: String,
    /// Why, in a sentence.
    pub why: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long it took: `1h30m`.
    pub took: String,
    /// What each version served.
    pub served: ServedStatus,
    /// The highest share that the canary had: `25%`.
    pub highest: String,
}

/// What each version served during a rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedStatus {
    /// By the canary.
    pub canary: CountsStatus,
    /// By stable.
    pub stable: CountsStatus,
}

/// An old version that may be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetirableStatus {
    /// Which.
    pub version: String,
    /// Since when it serves nobody, RFC 3339.
    pub since: String,
}
