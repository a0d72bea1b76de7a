//! What clients read of a Deployment: counts, and the conditions that `kubectl rollout status` waits for.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::super::object::{condition, edit, flag, items, map, name, number, text, time, uid};
use super::super::queue::{Context, Requeue};
use super::{View, deployment_key, limits};
use crate::store::{Key, Write, seconds};

/// The numbers of a Deployment's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Living pods of all sets.
    pub replicas: i64,
    /// Of the present template.
    pub updated: i64,
    /// Ready ones of all sets.
    pub ready: i64,
    /// Available ones of all sets.
    pub available: i64,
    /// Asked for, and not available.
    pub unavailable: i64,
    /// On their way out.
    pub terminating: i64,
}

/// Counts a Deployment's pods.
pub fn counts(view: &View) -> Counts {
    let sum = |of: fn(&super::SetInUse) -> i64| view.sets.iter().map(of).sum::<i64>();
    let available = sum(|s| s.available);
    Counts {
        replicas: sum(|s| s.living),
        updated: view.new_set().map_or(0, |s| s.living),
        ready: sum(|s| s.ready),
        available,
        unavailable: (sum(|s| s.asked) - available).max(0),
        terminating: sum(|s| s.not_ended - s.living).max(0),
    }
}

/// Whether the rollout is done: all pods are of the present template and available.
pub fn complete(view: &View, counts: &Counts) -> bool {
    let replicas = number(&view.deployment, "/spec/replicas", 1);
    counts.updated == replicas && counts.replicas == replicas && counts.available == replicas
}

/// `spec.progressDeadlineSeconds`; Kubernetes' largest number means none.
pub fn progress_deadline(deployment: &Value) -> Option<SignedDuration> {
    let seconds = number(deployment, "/spec/progressDeadlineSeconds", 600);
    (seconds < i64::from(i32::MAX)).then(|| SignedDuration::from_secs(seconds))
}

/// Writes the condition Progressing on its own, outside the usual round.
pub fn set_progressing(context: &Context, deployment: &Value, status: &str, reason: &str, message: &str, now: Timestamp) {
    edit(&context.store, &deployment_key(deployment), uid(deployment), Write::Status, |deployment| {
        let mut conditions = items(&deployment["status"], "/conditions").to_vec();
        set(&mut conditions, new(now, "Progressing", status, reason, message), Refresh::WhenChanged);
        map(deployment, "status").insert("conditions".into(), conditions.into());
    });
}

/// Writes the status, and says when to look again without a change.
pub fn write(context: &Context, key: &Key, view: &View, now: Timestamp) -> Requeue {
    let counts = counts(view);
    let deployment = &view.deployment;
    let conditions = conditions(view, &counts, now);
    edit(&context.store, key, uid(deployment), Write::Status, |deployment| {
        let generation = number(deployment, "/metadata/generation", 1);
        let status = map(deployment, "status");
        status.insert("observedGeneration".into(), generation.into());
        for (field, n) in [
            ("replicas", counts.replicas),
            ("updatedReplicas", counts.updated),
            ("readyReplicas", counts.ready),
            ("availableReplicas", counts.available),
            ("unavailableReplicas", counts.unavailable),
            ("terminatingReplicas", counts.terminating),
        ] {
            put_count(status, field, n);
        }
        status.insert("conditions".into(), conditions.clone().into());
    });
    let mut again = view.next_available;
    if !flag(deployment, "/spec/paused")
        && !complete(view, &counts)
        && let Some(deadline) = progress_deadline(deployment)
        && let Some(progressing) = conditions.iter().find(|c| c["type"] == "Progressing" && c["reason"] != "ProgressDeadlineExceeded")
        && let Some(since) = time(progressing, "/lastUpdateTime")
    {
        // A second more: stamps are whole seconds, and the deadline must have passed.
        let left = (since + deadline).duration_since(now) + SignedDuration::from_secs(1);
        let left = left.max(SignedDuration::from_secs(1));
        again = Some(again.map_or(left, |a| a.min(left)));
    }
    Requeue::from(again)
}

/// Zeros are left out, as the API server's own encoding does; `kubectl` prints them as `<none>` or 0 accordingly.
pub fn put_count(status: &mut Map<String, Value>, field: &str, n: i64) {
    if n == 0 {
        status.remove(field);
    } else {
        status.insert(field.into(), n.into());
    }
}

fn conditions(view: &View, counts: &Counts, now: Timestamp) -> Vec<Value> {
    let deployment = &view.deployment;
    let old = &deployment["status"];
    let mut conditions = items(old, "/conditions").to_vec();

    let limits = limits(deployment);
    let enough = counts.available >= limits.replicas - limits.max_unavailable;
    let available = if enough {
        new(now, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        new(now, "Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut conditions, available, Refresh::WhenChanged);

    let Some(deadline) = progress_deadline(deployment) else {
        conditions.retain(|c| c["type"] != "Progressing");
        return conditions;
    };
    let present = condition(old, "Progressing");
    let reason = present.map_or("", |c| text(c, "/reason"));
    if flag(deployment, "/spec/paused") {
        if reason != "DeploymentPaused" && reason != "ProgressDeadlineExceeded" {
            set(&mut conditions, new(now, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused"), Refresh::WhenChanged);
        }
        return conditions;
    }
    if reason == "DeploymentPaused" {
        set(&mut conditions, new(now, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed"), Refresh::WhenChanged);
        return conditions;
    }
    let what = view
        .new_set()
        .map_or_else(|| format!("Deployment \"{}\"", name(deployment)), |set| format!("ReplicaSet \"{}\"", name(&set.object)));
    let done_before = counts.replicas == counts.updated && reason == "NewReplicaSetAvailable";
    if done_before {
        return conditions;
    }
    if complete(view, counts) {
        let message = format!("{what} has successfully progressed.");
        set(&mut conditions, new(now, "Progressing", "True", "NewReplicaSetAvailable", &message), Refresh::WhenChanged);
    } else if progressed(old, counts) {
        let message = format!("{what} is progressing.");
        set(&mut conditions, new(now, "Progressing", "True", "ReplicaSetUpdated", &message), Refresh::Always);
    } else if timed_out(present, deadline, now) {
        let message = format!("{what} has timed out progressing.");
        set(&mut conditions, new(now, "Progressing", "False", "ProgressDeadlineExceeded", &message), Refresh::WhenChanged);
    }
    conditions
}

/// Whether anything has come nearer to the end since the last status.
fn progressed(old: &Value, counts: &Counts) -> bool {
    let was = |field: &str| number(old, field, 0);
    counts.updated > was("/updatedReplicas")
        || counts.replicas - counts.updated < was("/replicas") - was("/updatedReplicas")
        || counts.ready > was("/readyReplicas")
        || counts.available > was("/availableReplicas")
}

fn timed_out(progressing: Option<&Value>, deadline: SignedDuration, now: Timestamp) -> bool {
    let Some(progressing) = progressing else { return false };
    match text(progressing, "/reason") {
        "NewReplicaSetAvailable" => false,
        "ProgressDeadlineExceeded" => true,
        _ => time(progressing, "/lastUpdateTime").is_some_and(|since| since + deadline < now),
    }
}

fn new(now: Timestamp, kind: &str, status: &str, reason: &str, message: &str) -> Value {
    let now = seconds(now);
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastUpdateTime": now, "lastTransitionTime": now})
}

/// Whether a condition that says the same again gets a new time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refresh {
    Always,
    WhenChanged,
}

fn set(conditions: &mut Vec<Value>, mut new: Value, refresh: Refresh) {
    match conditions.iter_mut().find(|c| c["type"] == new["type"]) {
        Some(old) => {
            if refresh == Refresh::WhenChanged && old["status"] == new["status"] && old["reason"] == new["reason"] {
                return;
            }
            if old["status"] == new["status"] {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}
