//! ReplicaSets: as many pods as asked for, and which one goes when there are too many.

use std::cmp::Reverse;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::deployment::status::put_count;
use super::events::About;
use super::object::{
    add_owner, condition, controlled_by, controller, delete_pod, deleting, edit, labels, map, name, namespace, namespace_ending, number,
    owner_reference, pod_active, pod_available, pod_ready, pods, remove_owner, selects, suffix, text, time, uid, until_available,
};
use super::queue::{Context, Requeue};
use crate::store::{Key, Object, Resource, StoreError, Write};

const COMPONENT: &str = "replicaset-controller";

/// Makes or ends pods until the set has as many as it is asked to have.
pub fn reconcile(context: &Context, key: &Key) -> Requeue {
    let Some(set) = context.store.get(key) else { return Requeue::No };
    let now = (context.store.clock())();
    let ending = deleting(&set);
    if !ending {
        claim(context, &set);
    }
    let mut active = active_pods(context, &set);
    if !ending {
        let asked = usize::try_from(number(&set, "/spec/replicas", 1)).unwrap_or(0);
        if active.len() < asked && !namespace_ending(&context.store, namespace(&set)) {
            for _ in active.len()..asked {
                make_pod(context, &set);
            }
        } else if active.len() > asked {
            let surplus = active.len() - asked;
            active.sort_by_cached_key(|pod| deletion_order(pod));
            for pod in active.iter().take(surplus) {
                delete_pod(&context.store, pod);
                context.events.normal(COMPONENT, about(&set), "SuccessfulDelete", &format!("Deleted pod: {}", name(pod)));
            }
        }
        active = active_pods(context, &set);
    }
    write_status(context, key, &set, &active, now)
}

fn about(set: &Value) -> About<'_> {
    About::whole("apps/v1", "ReplicaSet", set)
}

fn active_pods(context: &Context, set: &Value) -> Vec<Object> {
    let mut active = pods(&context.store, namespace(set));
    active.retain(|pod| controlled_by(pod, set) && pod_active(pod));
    active
}

fn pod_key(pod: &Value) -> Key {
    Key::namespaced("", "pods", namespace(pod), name(pod))
}

/// Takes in pods that fit and have no owner, and lets go of those that no longer fit.
fn claim(context: &Context, set: &Value) {
    let selector = set.pointer("/spec/selector");
    for pod in pods(&context.store, namespace(set)) {
        let fits = selects(selector, labels(&pod));
        if controlled_by(&pod, set) && !fits {
            edit(&context.store, &pod_key(&pod), uid(&pod), Write::Spec, |pod| remove_owner(pod, uid(set)));
        } else if controller(&pod).is_none() && fits && pod_active(&pod) {
            edit(&context.store, &pod_key(&pod), uid(&pod), Write::Spec, |pod| {
                add_owner(pod, owner_reference("apps/v1", "ReplicaSet", set));
            });
        }
    }
}

fn make_pod(context: &Context, set: &Value) {
    let template = &set["spec"]["template"];
    // A collision of five random letters is rare enough that three tries are plenty; the next change tries again.
    for _ in 0..3 {
        let prefix = format!("{}-", name(set));
        let key = Key::namespaced("", "pods", namespace(set), &format!("{prefix}{}", suffix()));
        let pod = new_pod(template, &prefix, owner_reference("apps/v1", "ReplicaSet", set));
        match context.store.create(&key, pod) {
            Ok(pod) => {
                context.events.normal(COMPONENT, about(set), "SuccessfulCreate", &format!("Created pod: {}", name(&pod)));
                return;
            }
            Err(StoreError::AlreadyExists(..)) => {}
            Err(error) => {
                tracing::warn!(set = name(set), %error, "create Pod");
                return;
            }
        }
    }
}

/// A pod of a template, with what the API server would fill in.
pub fn new_pod(template: &Value, prefix: &str, owner: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": prefix}, "spec": template["spec"],
        "status": {"phase": "Pending", "qosClass": super::kubelet::status::qos_class(&template["spec"])},
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.pointer("/metadata").and_then(|m| m.get(field)) {
            pod["metadata"][field] = value.clone();
        }
    }
    let defaults = [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("enableServiceLinks", json!(true)),
        ("serviceAccountName", json!("default")),
    ];
    let spec = map(&mut pod, "spec");
    for (field, value) in defaults {
        spec.entry(field).or_insert(value);
    }
    add_owner(&mut pod, owner);
    pod
}

/// What makes one pod go before another, smallest first: without a node, not running, not ready, cheap to delete
/// (`controller.kubernetes.io/pod-deletion-cost`), ready only recently, often restarted, young
/// (`ActivePodsWithRanks` of `pkg/controller/controller_utils.go`; the rank by node is equal on one node).
fn deletion_order(pod: &Value) -> impl Ord + use<> {
    let phase = match text(pod, "/status/phase") {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let cost = super::object::annotation(pod, "controller.kubernetes.io/pod-deletion-cost").and_then(|c| c.parse::<i32>().ok());
    let ready_since = condition(&pod["status"], "Ready").and_then(|c| time(c, "/lastTransitionTime"));
    let restarts = super::object::items(pod, "/status/containerStatuses").iter().map(|c| number(c, "/restartCount", 0)).max();
    (
        !text(pod, "/spec/nodeName").is_empty(),
        phase,
        pod_ready(pod),
        cost.unwrap_or(0),
        Reverse(ready_since),
        Reverse(restarts.unwrap_or(0)),
        Reverse(time(pod, "/metadata/creationTimestamp")),
        Reverse(super::object::version(pod)),
    )
}

fn write_status(context: &Context, key: &Key, set: &Value, active: &[Object], now: Timestamp) -> Requeue {
    let min_ready = number(set, "/spec/minReadySeconds", 0);
    let template_labels = set.pointer("/spec/template/metadata/labels");
    let count = |fits: &dyn Fn(&Value) -> bool| i64::try_from(active.iter().filter(|p| fits(p)).count()).unwrap_or(i64::MAX);
    let counts = [
        ("fullyLabeledReplicas", count(&|p| super::object::selects_map(template_labels, labels(p)))),
        ("readyReplicas", count(&pod_ready)),
        ("availableReplicas", count(&|p| pod_available(p, min_ready, now))),
    ];
    let ending = pods(&context.store, namespace(set));
    let ending = ending.iter().filter(|p| controlled_by(p, set) && deleting(p) && !super::object::pod_finished(p)).count();
    edit(&context.store, key, uid(set), Write::Status, |object| {
        let generation = number(object, "/metadata/generation", 1);
        let status = map(object, "status");
        status.insert("replicas".into(), active.len().into());
        status.insert("observedGeneration".into(), generation.into());
        put_count(status, "terminatingReplicas", i64::try_from(ending).unwrap_or(i64::MAX));
        for (field, n) in counts {
            put_count(status, field, n);
        }
    });
    let waits = active.iter().filter_map(|p| until_available(p, min_ready, now)).filter(|left| !left.is_zero());
    Requeue::from(waits.min())
}

/// The kind.
pub fn resource() -> Resource {
    Resource::new("apps", "replicasets")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_useful_pod_goes_first() {
        let pod = |name: &str, phase: &str, ready: &str, since: &str, cost: &str| {
            json!({
                "metadata": {"name": name, "annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}},
                "spec": {"nodeName": "n"},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]},
            })
        };
        let early = "2026-01-01T00:00:00Z";
        let late = "2026-01-01T00:01:00Z";
        let mut pods = [
            pod("old", "Running", "True", early, "0"),
            pod("dear", "Running", "True", late, "10"),
            pod("recent", "Running", "True", late, "0"),
            pod("unready", "Running", "False", early, "50"),
            pod("pending", "Pending", "False", early, "50"),
        ];
        pods.sort_by_cached_key(deletion_order);
        assert_eq!(pods.each_ref().map(name), ["pending", "unready", "recent", "old", "dear"]);
    }
}
