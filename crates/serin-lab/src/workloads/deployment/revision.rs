//! Which ReplicaSet belongs to which revision of a Deployment: template hashes, revision annotations, history.

use serde_json::Value;

use super::super::object::{POD_TEMPLATE_HASH, annotation, label, map, name, number, safe_letters, time, trimmed};
use crate::store::{Object, metadata};

/// The revision that a ReplicaSet (or a Deployment's newest) is; `kubectl rollout history` reads it.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revisions of a ReplicaSet that was rolled back to.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's replicas when the set was last sized.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Those and its surge.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of the Deployment that its ReplicaSets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// The template without the label that the controller itself adds, in a form that compares.
pub fn comparable(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(POD_TEMPLATE_HASH);
    }
    trimmed(&template)
}

/// The hash of a template, as the label's value. The letters are Kubernetes', the number is this lab's own:
/// Kubernetes hashes Go's print of the struct, which nobody outside can reproduce.
pub fn template_hash(template: &Value, collisions: i64) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    let text = comparable(template).to_string();
    let collisions = if collisions > 0 { collisions.to_string() } else { String::new() };
    for byte in text.bytes().chain(collisions.bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    safe_letters(hash)
}

/// Sorts from the oldest to the newest.
pub fn by_age(sets: &mut [Object]) {
    sets.sort_by(|a, b| {
        let age = |o: &Value| (time(o, "/metadata/creationTimestamp"), super::super::object::version(o));
        age(a).0.cmp(&age(b).0).then_with(|| revision(a).cmp(&revision(b))).then_with(|| name(a).cmp(name(b)))
    });
}

/// The set of the Deployment's present template: the oldest, should several have it.
pub fn find_new<'a>(template: &Value, sets: &'a [Object]) -> Option<&'a Object> {
    let template = comparable(template);
    sets.iter().find(|set| comparable(&set["spec"]["template"]) == template)
}

/// A set's revision, 0 when it has none.
pub fn revision(set: &Value) -> i64 {
    annotation(set, REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// Writes the annotations that a new set has of its Deployment, and its revision, into `set`.
pub fn annotate(deployment: &Value, set: &mut Value, new_revision: i64, existed: bool) {
    let old = annotation(set, REVISION).map(str::to_owned);
    let history = annotation(set, REVISION_HISTORY).unwrap_or_default().to_owned();
    let mut copied: Vec<(String, Value)> = Vec::new();
    if let Some(all) = deployment.pointer("/metadata/annotations").and_then(Value::as_object) {
        copied.extend(all.iter().filter(|(k, _)| !NOT_COPIED.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())));
    }
    metadata(set);
    let annotations = map(&mut set["metadata"], "annotations");
    annotations.extend(copied);
    if old.as_deref().and_then(|r| r.parse::<i64>().ok()).unwrap_or(0) < new_revision {
        annotations.insert(REVISION.into(), new_revision.to_string().into());
        if let Some(old) = old.filter(|_| existed) {
            let history = if history.is_empty() { old } else { format!("{history},{old}") };
            annotations.insert(REVISION_HISTORY.into(), history.into());
        }
    }
}

/// Writes the sizes that scaling in proportion needs to know.
pub fn annotate_sizes(set: &mut Value, replicas: i64, max_replicas: i64) {
    metadata(set);
    let annotations = map(&mut set["metadata"], "annotations");
    annotations.insert(DESIRED_REPLICAS.into(), replicas.to_string().into());
    annotations.insert(MAX_REPLICAS.into(), max_replicas.to_string().into());
}

/// A size annotation.
pub fn size(set: &Value, which: &str) -> Option<i64> {
    annotation(set, which)?.parse().ok()
}

/// Which old sets go, so that only `limit` of them remain: those without pods, oldest revisions first.
pub fn surplus(old: &[Object], limit: i64) -> Vec<&Object> {
    let Ok(limit) = usize::try_from(limit) else { return Vec::new() };
    if old.len() <= limit {
        return Vec::new();
    }
    let mut candidates: Vec<&Object> = old
        .iter()
        .filter(|set| {
            number(set, "/spec/replicas", 1) == 0
                && number(set, "/status/replicas", 0) == 0
                && number(set, "/status/observedGeneration", 0) >= number(set, "/metadata/generation", 0)
                && !super::super::object::deleting(set)
        })
        .collect();
    candidates.sort_by_key(|set| revision(set));
    candidates.truncate(old.len() - limit);
    candidates
}

/// The template hash that a set's pods carry.
pub fn hash_of(set: &Value) -> Option<&str> {
    label(set, POD_TEMPLATE_HASH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn the_label_that_the_controller_adds_is_no_change() {
        let plain = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": []}});
        let labelled =
            json!({"metadata": {"creationTimestamp": null, "labels": {"app": "a", "pod-template-hash": "x"}}, "spec": {"containers": []}});
        assert_eq!(template_hash(&plain, 0), template_hash(&labelled, 0));
        assert_ne!(template_hash(&plain, 0), template_hash(&plain, 1));
        assert!(find_new(&plain, &[Arc::new(json!({"spec": {"template": labelled}}))]).is_some());
    }

    #[test]
    fn a_set_rolled_back_to_remembers_its_earlier_revisions() {
        let deployment = json!({"metadata": {"annotations": {"kubernetes.io/change-cause": "why", REVISION: "3"}}});
        let mut set = json!({"metadata": {"annotations": {REVISION: "1"}}});
        annotate(&deployment, &mut set, 4, true);
        assert_eq!(set["metadata"]["annotations"], json!({REVISION: "4", REVISION_HISTORY: "1", "kubernetes.io/change-cause": "why"}));
        let before = set.clone();
        annotate(&deployment, &mut set, 4, true);
        assert_eq!(set, before);
    }
}
