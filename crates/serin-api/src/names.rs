//! Names that stand in other people's objects: group, annotations, the field manager.
//!
//! Changing one of them orphans what earlier versions wrote.

/// API group of Serin's kinds.
pub const GROUP: &str = "serin.dev";
/// Served and stored version.
pub const VERSION: &str = "v1alpha1";
/// The kind.
pub const KIND: &str = "CanaryRelease";
/// Its plural, as in paths and `kubectl get`.
pub const PLURAL: &str = "canaryreleases";
/// The kind of policies.
pub const POLICY_KIND: &str = "CanaryPolicy";
/// Its plural.
pub const POLICY_PLURAL: &str = "canarypolicies";
/// The field manager of all that Serin writes, controller and command line alike.
pub const FIELD_MANAGER: &str = "serin";

/// On a CanaryRelease: nothing moves forward until it is taken off; its value says who froze it and why.
pub const FREEZE: &str = "serin.dev/freeze";

/// On a CanaryRelease: what a person asks for; see `request`.
pub const REQUEST: &str = "serin.dev/request";
/// On a CanaryRelease: a person's abort. It wins over any request.
pub const ABORT: &str = "serin.dev/abort";
/// On a CanaryRelease with `deletionPolicy: ReturnToStable`: it goes once stable has every request, or nothing is left to do it with.
pub const FINALIZER: &str = "serin.dev/return-to-stable";
/// On a VirtualService: the uid of the rollout that an abort ended. Only this mark means abort; other changes are drift.
pub const ABORTED: &str = "serin.dev/aborted";
/// On objects that Serin made: the CanaryRelease they serve.
pub const RELEASE: &str = "serin.dev/release";
/// The usual label that tells who manages an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// On pod templates: set by `kubectl rollout restart`; no change of version.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Name of the DestinationRule that Serin writes for a Service of that name.
pub fn companion_rule(service: &str) -> String {
    format!("{service}-serin")
}
