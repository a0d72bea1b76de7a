//! Kinds that the lab keeps and nobody in it acts on: whoever makes one is told.

use super::kinds::Kind;

/// What to tell whoever makes an object of this kind, if it does nothing here.
pub(super) fn warning(kind: &Kind) -> Option<&'static str> {
    match (kind.resource.group.as_str(), kind.resource.plural.as_str()) {
        ("autoscaling", _) => Some("the lab keeps autoscalers and does not act on them: replicas stay as they are set"),
        ("batch", "cronjobs") => {
            Some("the lab keeps cron jobs as templates and does not start them on schedule; `kubectl create job --from` does")
        }
        ("rbac.authorization.k8s.io", _) => Some("the lab keeps roles and does not enforce them: its one user may do everything"),
        ("security.istio.io" | "telemetry.istio.io", _) => Some("the lab keeps this kind and its mesh does not act on it"),
        ("policy", "poddisruptionbudgets") => Some("the lab keeps disruption budgets and does not count them: evictions go through"),
        ("networking.istio.io", "workloadentries") => Some("the lab keeps workload entries and its mesh does not act on them"),
        _ => None,
    }
}
