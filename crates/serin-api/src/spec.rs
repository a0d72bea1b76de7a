//! The CanaryRelease as people write it.
//!
//! All fields but `service` may be absent; what absence means stands in `convert`, and in the schema as a default.
//! Fields that the design names and nothing carries out yet are kept here as they come, so that they can be refused by
//! name instead of being dropped in silence.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::status::CanaryReleaseStatus;

/// What the owner of a Service asks for.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "serin.dev",
    version = "v1alpha1",
    kind = "CanaryRelease",
    plural = "canaryreleases",
    namespaced,
    status = "CanaryReleaseStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct CanaryReleaseSpec {
    /// The Service that both versions stand behind.
    pub service: String,
    /// How versions are told apart, and which one is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionSpec>,
    /// What starts a rollout while no version is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<TriggerSpec>,
    /// The owner's brake: nothing moves forward, and no request overrides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Whether Serin acts or only records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeSpec>,
    /// What happens to traffic when this object is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicySpec>,
    /// Where and how weights are set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficSpec>,
    /// How the canary gets its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingSpec>,
    /// The way from no weight to the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<StepSpec>>,
    /// The last stretch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<PromotionSpec>,
    /// How it is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisSpec>,
    /// The CanaryPolicy of the namespace that says what this release does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Value>,
    /// Not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Value>,
}

/// See `CanaryReleaseSpec::version`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VersionSpec {
    /// The label of pods whose value is the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The version wanted; absent: the trigger decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
}

/// See `CanaryReleaseSpec::trigger`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TriggerSpec {
    /// A Deployment that appears behind the Service, or changes its template.
    Automatic,
    /// Only `version.desired`.
    Manual,
}

/// See `CanaryReleaseSpec::mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModeSpec {
    /// Weights are set.
    Act,
    /// All is decided and recorded, and no weight is touched.
    Observe,
}

/// See `CanaryReleaseSpec::deletion_policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletionPolicySpec {
    /// Traffic stays exactly where it is.
    Leave,
    /// A rollout that runs is taken back first.
    ReturnToStable,
}

/// See `CanaryReleaseSpec::traffic`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficSpec {
    /// After a weight change, requests count for harm only, this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<String>,
    /// The VirtualServices to edit; absent: all in the namespace that send to the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_services: Option<Vec<VirtualServiceRef>>,
    /// Where a subset that lacks is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_rule: Option<DestinationRuleSpec>,
    /// Whether the structure of routes may be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manage_route: Option<bool>,
    /// Not supported yet.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<Value>,
    /// Not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Value>,
    /// Not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destinations: Option<Value>,
}

/// One VirtualService to edit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VirtualServiceRef {
    /// Its name, in the namespace of the release.
    pub name: String,
    /// Names of its http routes; absent: all that send to the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<String>>,
}

/// See `TrafficSpec::destination_rule`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DestinationRuleSpec {
    /// Into Serin's own rule for the same host.
    Companion,
    /// Nowhere: wait until somebody adds it.
    Existing,
}

/// See `CanaryReleaseSpec::scaling`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingSpec {
    /// How the canary gets the pods for its share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryScalingSpec>,
    /// So long after a promotion the version that was replaced is deleted; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire_after: Option<String>,
}

/// See `ScalingSpec::canary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CanaryScalingSpec {
    /// Replicas are raised to what the next step needs.
    ByWeight,
    /// Replicas are never written.
    Wait,
    /// Replicas are raised to stable's number before the first step.
    Full,
}

/// One step: a weight, or a pause.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepSpec {
    /// The canary's share: a whole number of percent, or a string as `0.5%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<IntOrString>,
    /// The least time at this weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// Leave only once the canary is shown fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<bool>,
    /// For a confirm step with `maxWait`: a coarser margin may do, the smallest that can be shown in that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graded: Option<bool>,
    /// For a confirm step: after this long `onInconclusive` applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<String>,
    /// Stay at the weight of the step before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseSpec>,
}

/// See `StepSpec::pause`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PauseSpec {
    /// Absent: until someone promotes.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// See `CanaryReleaseSpec::promotion`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PromotionSpec {
    /// How long the canary is watched with the whole weight before it is the new stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<String>,
}

/// See `CanaryReleaseSpec::analysis`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisSpec {
    /// How often the source is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// Which source of metrics; absent: the controller's only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// One number for the whole rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<String>,
    /// At a confirm step's `maxWait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_inconclusive: Option<OnInconclusiveSpec>,
    /// When a step's hold is over and no request came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_no_traffic: Option<OnNoTrafficSpec>,
    /// The questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<MetricSpec>>,
}

/// See `AnalysisSpec::on_inconclusive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnInconclusiveSpec {
    /// Stay and say so.
    Hold,
    /// Go on without proof if nothing speaks against it.
    Promote,
    /// Back to stable.
    Rollback,
}

/// See `AnalysisSpec::on_no_traffic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnNoTrafficSpec {
    /// Stay and say so.
    Hold,
    /// Go on, as nobody can be harmed.
    Proceed,
}

/// One question asked of the traffic: exactly one of the kinds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricSpec {
    /// Its name, unique in the list.
    pub name: String,
    /// Share of requests that fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<ErrorRateSpec>,
    /// Share of requests that are slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencySpec>,
    /// A number that a query answers, with a limit (no test, and no promise about errors); or two counters, compared as requests are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promql: Option<PromqlSpec>,
    /// Requests are left out this long after a new weight is seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<String>,
}

/// See `MetricSpec::promql`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromqlSpec {
    /// The query, with `{{ canary.workload }}` and the like in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// A selector of the counter of bad ones, with `{{ arm.workload }}` or `{{ arm.version }}` in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad: Option<String>,
    /// A selector of the counter of all, the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<String>,
    /// With counters: points by which the canary may be worse than `ratio` times stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<String>,
    /// With counters: factor on stable's share, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<String>,
    /// Answers below are bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<String>,
    /// Answers above are bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
    /// Bad answers in a row that take the canary back, and good ones that a step needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_limit: Option<u32>,
}

/// See `MetricSpec::error_rate`: either compared with stable (`margin`, `ratio`), or a limit of its own (`max`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorRateSpec {
    /// Points by which the canary may be worse than `ratio` times stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<String>,
    /// Factor on stable's share, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<String>,
    /// The highest share allowed, whatever stable does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
}

/// See `MetricSpec::latency`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencySpec {
    /// A bucket edge: requests that took longer are slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slower_than: Option<String>,
    /// Points by which the canary's share of slow requests may exceed stable's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<String>,
    /// From 0 to 1, as `0.99`: edges and margins are chosen by stable's own latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantile: Option<String>,
    /// By how much that quantile may grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_grow: Option<String>,
    /// Only claims that need no interpolation between bucket edges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}
