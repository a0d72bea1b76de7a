//! Jobs: pods that run to their end, so many times, with so many failures allowed.
//!
//! Carries out completions, parallelism, backoffLimit, activeDeadlineSeconds, suspend, ttlSecondsAfterFinished and the
//! Indexed mode. Not carried out, and said so in an event: podFailurePolicy, successPolicy, backoffLimitPerIndex.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::deployment::status::put_count;
use super::events::About;
use super::object::{
    annotation, condition_true, controlled_by, controller, delete_pod, deleting, edit, flag, items, map, name, namespace, namespace_ending,
    new_condition, number, owner_reference, pod_active, pod_ready, pods, set_condition, suffix, text, time, uid,
};
use super::queue::{Context, Requeue};
use super::replicaset::new_pod;
use crate::store::{Key, Object, Write, metadata, seconds};

const COMPONENT: &str = "job-controller";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Marks a pod as not yet counted, so that a finished one that somebody deletes still counts.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// Brings one Job nearer to its end.
pub fn reconcile(context: &Context, key: &Key) -> Requeue {
    let Some(job) = context.store.get(key) else {
        release_orphans(context, key);
        return Requeue::No;
    };
    let now = (context.store.clock())();
    let mut mine = pods(&context.store, namespace(&job));
    mine.retain(|pod| controlled_by(pod, &job));
    if deleting(&job) {
        mine.iter().for_each(|pod| untrack(context, pod));
        return Requeue::No;
    }
    if condition_true(&job["status"], "Complete") || condition_true(&job["status"], "Failed") {
        mine.iter().for_each(|pod| untrack(context, pod));
        return expire(context, key, &job, now);
    }
    for field in ["podFailurePolicy", "successPolicy", "backoffLimitPerIndex"] {
        if job["spec"].get(field).is_some() && job["status"].get("startTime").is_none() {
            context.events.warning(COMPONENT, about(&job), "NotSupported", &format!("the lab does not carry out spec.{field}"));
        }
    }
    count_finished(context, key, &job, &mine);
    let Some(job) = context.store.get(key) else { return Requeue::No };
    let active: Vec<Object> = mine.into_iter().filter(|pod| pod_active(pod)).collect();
    match step(&job, &active, now) {
        Step::Finish { status, reason, message } => {
            active.iter().for_each(|pod| delete_pod(&context.store, pod));
            finish(context, key, &job, status, reason, &message, now);
            Requeue::from(Some(SignedDuration::ZERO))
        }
        Step::Suspend => {
            active.iter().for_each(|pod| delete_pod(&context.store, pod));
            write_status(context, key, &job, &[], Some(new_condition("Suspended", "True", "JobSuspended", "Job suspended", now)), now);
            Requeue::No
        }
        Step::Run { start, stop, wait } => {
            for pod in active.iter().rev().take(stop) {
                delete_pod(&context.store, pod);
            }
            let mut indexes = free_indexes(&job, &active).into_iter();
            for _ in 0..start {
                make_pod(context, &job, indexes.next());
            }
            let mut now_active = pods(&context.store, namespace(&job));
            now_active.retain(|pod| controlled_by(pod, &job) && pod_active(pod));
            let resumed = super::object::condition(&job["status"], "Suspended")
                .map(|_| new_condition("Suspended", "False", "JobResumed", "Job resumed", now));
            write_status(context, key, &job, &now_active, resumed, now);
            Requeue::from(wait)
        }
    }
}

fn about(job: &Value) -> About<'_> {
    About::whole("batch/v1", "Job", job)
}

/// What a Job needs now.
#[derive(Debug, PartialEq)]
enum Step {
    Finish { status: &'static str, reason: &'static str, message: String },
    Suspend,
    Run { start: usize, stop: usize, wait: Option<SignedDuration> },
}

/// Decides from the counts; pure. Failed pods are made again after 10 s, doubling up to 6 minutes.
fn step(job: &Value, active: &[Object], now: Timestamp) -> Step {
    let succeeded = number(job, "/status/succeeded", 0);
    let failed = number(job, "/status/failed", 0);
    let limit = number(job, "/spec/backoffLimit", 6);
    let restarts: i64 = match text(job, "/spec/template/spec/restartPolicy") {
        "OnFailure" => active
            .iter()
            .flat_map(|pod| items(pod, "/status/containerStatuses").iter().chain(items(pod, "/status/initContainerStatuses")))
            .map(|c| number(c, "/restartCount", 0))
            .sum(),
        _ => 0,
    };
    if failed > limit || (restarts > 0 && restarts >= limit.max(1)) {
        let message = "Job has reached the specified backoff limit".to_owned();
        return Step::Finish { status: "Failed", reason: "BackoffLimitExceeded", message };
    }
    let mut wait = None;
    if let (Some(deadline), Some(start)) =
        (job.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64), time(job, "/status/startTime"))
    {
        let left = SignedDuration::from_secs(deadline) - now.duration_since(start);
        if left <= SignedDuration::ZERO {
            let message = "Job was active longer than specified deadline".to_owned();
            return Step::Finish { status: "Failed", reason: "DeadlineExceeded", message };
        }
        wait = Some(left);
    }
    let completions = job.pointer("/spec/completions").and_then(Value::as_i64);
    let running = i64::try_from(active.len()).unwrap_or(i64::MAX);
    let done = match completions {
        Some(completions) => succeeded >= completions,
        // Work-queue mode: one success says that the queue is empty; the others are left to end by themselves.
        None => succeeded > 0 && running == 0,
    };
    if done {
        let message = "Reached expected number of succeeded pods".to_owned();
        return Step::Finish { status: "Complete", reason: "CompletionsReached", message };
    }
    if flag(job, "/spec/suspend") {
        return Step::Suspend;
    }
    let parallelism = number(job, "/spec/parallelism", 1);
    let wanted = match completions {
        Some(completions) => parallelism.min(completions - succeeded),
        None if succeeded > 0 => running.min(parallelism),
        None => parallelism,
    };
    let stop = usize::try_from(running - wanted).unwrap_or(0);
    let start = usize::try_from(wanted - running).unwrap_or(0);
    if start > 0 && failed > 0 {
        let doublings = u32::try_from(failed - 1).unwrap_or(0).min(10);
        let pause = SignedDuration::from_secs((10i64 << doublings).min(360));
        if let Some(last) = time(job, "/metadata/annotations/serin.dev~1last-failure") {
            let left = pause - now.duration_since(last);
            if left > SignedDuration::ZERO {
                return Step::Run { start: 0, stop, wait: Some(wait.map_or(left, |w| w.min(left))) };
            }
        }
    }
    Step::Run { start, stop, wait }
}

/// Counts each finished pod once: its mark goes when it has been counted.
fn count_finished(context: &Context, key: &Key, job: &Value, mine: &[Object]) {
    for pod in mine {
        let tracked = items(pod, "/metadata/finalizers").iter().any(|f| f == TRACKING);
        let ended = match text(pod, "/status/phase") {
            "Succeeded" => "succeeded",
            "Failed" => "failed",
            // Ended by somebody before it finished: Kubernetes counts it as failed.
            _ if deleting(pod) && super::kubelet::status::all_ended(pod) => "failed",
            _ => continue,
        };
        if !tracked {
            continue;
        }
        let indexed = text(job, "/spec/completionMode") == "Indexed";
        let index = annotation(pod, INDEX).and_then(|i| i.parse::<i64>().ok());
        edit(&context.store, key, uid(job), Write::Status, |job| {
            let n = number(job, &format!("/status/{ended}"), 0);
            if ended == "failed" {
                metadata(job);
                let stamp = seconds((context.store.clock())());
                map(&mut job["metadata"], "annotations").insert("serin.dev/last-failure".into(), stamp.into());
            }
            let status = map(job, "status");
            match index.filter(|_| indexed && ended == "succeeded") {
                Some(index) => {
                    let mut all = parse_indexes(status.get("completedIndexes").and_then(Value::as_str).unwrap_or_default());
                    all.insert(index);
                    status.insert("succeeded".into(), all.len().into());
                    status.insert("completedIndexes".into(), print_indexes(&all).into());
                }
                None => {
                    status.insert(ended.into(), (n + 1).into());
                }
            }
        });
        untrack(context, pod);
    }
}

/// Pods of a Job that is gone have nobody left to count them.
fn release_orphans(context: &Context, key: &Key) {
    for pod in pods(&context.store, key.namespace.as_deref().unwrap_or_default()) {
        let owner = controller(&pod).filter(|owner| text(owner, "/kind") == "Job" && text(owner, "/name") == key.name);
        if owner.is_some() {
            untrack(context, &pod);
        }
    }
}

fn untrack(context: &Context, pod: &Value) {
    let key = Key::namespaced("", "pods", namespace(pod), name(pod));
    edit(&context.store, &key, uid(pod), Write::Spec, |pod| {
        let rest: Vec<Value> = items(pod, "/metadata/finalizers").iter().filter(|f| *f != TRACKING).cloned().collect();
        match rest.is_empty() {
            true => metadata(pod).remove("finalizers"),
            false => metadata(pod).insert("finalizers".into(), rest.into()),
        };
    });
}

/// Indexes that neither succeeded nor run; empty in the mode without indexes.
fn free_indexes(job: &Value, active: &[Object]) -> Vec<i64> {
    if text(job, "/spec/completionMode") != "Indexed" {
        return Vec::new();
    }
    let done = parse_indexes(text(job, "/status/completedIndexes"));
    let running: BTreeSet<i64> = active.iter().filter_map(|pod| annotation(pod, INDEX)?.parse().ok()).collect();
    (0..number(job, "/spec/completions", 0)).filter(|i| !done.contains(i) && !running.contains(i)).collect()
}

/// `1,3-5` as Kubernetes writes completed indexes.
fn parse_indexes(text: &str) -> BTreeSet<i64> {
    let range = |part: &str| match part.split_once('-') {
        Some((from, to)) => Some(from.parse().ok()?..=to.parse().ok()?),
        None => part.parse().ok().map(|n: i64| n..=n),
    };
    text.split(',').filter_map(range).flatten().collect()
}

fn print_indexes(indexes: &BTreeSet<i64>) -> String {
    let mut parts: Vec<(i64, i64)> = Vec::new();
    for &index in indexes {
        match parts.last_mut() {
            Some((_, to)) if *to + 1 == index => *to = index,
            _ => parts.push((index, index)),
        }
    }
    let print = |(from, to): (i64, i64)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    parts.into_iter().map(print).collect::<Vec<_>>().join(",")
}

fn make_pod(context: &Context, job: &Value, index: Option<i64>) {
    if namespace_ending(&context.store, namespace(job)) {
        return;
    }
    let prefix = match index {
        Some(index) => format!("{}-{index}-", name(job)),
        None => format!("{}-", name(job)),
    };
    let key = Key::namespaced("", "pods", namespace(job), &format!("{prefix}{}", suffix()));
    let mut pod = new_pod(&job["spec"]["template"], &prefix, owner_reference("batch/v1", "Job", job));
    let labels = map(&mut pod["metadata"], "labels");
    for (key, value) in [
        ("batch.kubernetes.io/job-name", name(job)),
        ("job-name", name(job)),
        ("batch.kubernetes.io/controller-uid", uid(job)),
        ("controller-uid", uid(job)),
    ] {
        labels.insert(key.into(), value.into());
    }
    pod["metadata"]["finalizers"] = json!([TRACKING]);
    if let Some(index) = index {
        map(&mut pod["metadata"], "annotations").insert(INDEX.into(), index.to_string().into());
        map(&mut pod["metadata"], "labels").insert(INDEX.into(), index.to_string().into());
        for containers in ["containers", "initContainers"] {
            for container in pod["spec"].get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
                let variable = json!({"name": "JOB_COMPLETION_INDEX", "value": index.to_string()});
                match container.get_mut("env").and_then(Value::as_array_mut) {
                    Some(env) => env.push(variable),
                    None => container["env"] = json!([variable]),
                }
            }
        }
    }
    match context.store.create(&key, pod) {
        Ok(pod) => context.events.normal(COMPONENT, about(job), "SuccessfulCreate", &format!("Created pod: {}", name(&pod))),
        Err(error) => tracing::warn!(job = name(job), %error, "create Pod"),
    }
}

fn write_status(context: &Context, key: &Key, job: &Value, active: &[Object], condition: Option<Value>, now: Timestamp) {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    edit(&context.store, key, uid(job), Write::Status, |job| {
        let mut conditions = items(job, "/status/conditions").to_vec();
        let suspended = condition.as_ref().is_some_and(|c| c["status"] == "True");
        if let Some(condition) = condition {
            set_condition(&mut conditions, condition);
        }
        let status = map(job, "status");
        put_count(status, "active", count(active.len()));
        status.insert("ready".into(), count(active.iter().filter(|p| pod_ready(p)).count()).into());
        status.insert("terminating".into(), 0.into());
        if suspended {
            status.remove("startTime");
        } else {
            status.entry("startTime").or_insert_with(|| seconds(now).into());
        }
        if !conditions.is_empty() {
            status.insert("conditions".into(), conditions.into());
        }
    });
}

fn finish(context: &Context, key: &Key, job: &Value, kind: &str, reason: &str, message: &str, now: Timestamp) {
    edit(&context.store, key, uid(job), Write::Status, |job| {
        let mut conditions = items(job, "/status/conditions").to_vec();
        let before = if kind == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
        for kind in [before, kind] {
            let mut condition = new_condition(kind, "True", reason, message, now);
            condition["lastProbeTime"] = seconds(now).into();
            set_condition(&mut conditions, condition);
        }
        let status = map(job, "status");
        status.insert("conditions".into(), conditions.into());
        status.remove("active");
        status.insert("ready".into(), 0.into());
        if kind == "Complete" {
            status.insert("completionTime".into(), seconds(now).into());
        }
    });
    match kind {
        "Complete" => context.events.normal(COMPONENT, about(job), "Completed", "Job completed"),
        _ => context.events.warning(COMPONENT, about(job), reason, message),
    }
}

/// A finished Job goes after its time to live, and its pods with it.
fn expire(context: &Context, key: &Key, job: &Value, now: Timestamp) -> Requeue {
    let Some(ttl) = job.pointer("/spec/ttlSecondsAfterFinished").and_then(Value::as_i64) else { return Requeue::No };
    let finished = items(job, "/status/conditions")
        .iter()
        .find(|c| matches!(text(c, "/type"), "Complete" | "Failed") && text(c, "/status") == "True")
        .and_then(|c| time(c, "/lastTransitionTime"));
    let Some(finished) = finished else { return Requeue::No };
    let left = SignedDuration::from_secs(ttl) - now.duration_since(finished);
    if left > SignedDuration::ZERO {
        return Requeue::from(Some(left));
    }
    // Gone already is as good.
    let _ = context.store.delete(key, Some(uid(job)), 0);
    Requeue::No
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn run(start: usize, stop: usize) -> Step {
        Step::Run { start, stop, wait: None }
    }

    #[test]
    fn so_many_run_as_are_still_needed() {
        let job = |spec: Value, status: Value| json!({"spec": spec, "status": status});
        let active = |n: usize| vec![Object::new(json!({})); n];
        let five = json!({"completions": 5, "parallelism": 2});
        assert_eq!(step(&job(five.clone(), json!({})), &[], at(0)), run(2, 0));
        assert_eq!(step(&job(five.clone(), json!({"succeeded": 4})), &active(2), at(0)), run(0, 1));
        assert!(matches!(step(&job(five, json!({"succeeded": 5})), &[], at(0)), Step::Finish { status: "Complete", .. }));
        let queue = json!({"parallelism": 3});
        assert_eq!(step(&job(queue.clone(), json!({"succeeded": 1})), &active(2), at(0)), run(0, 0));
        assert!(matches!(step(&job(queue, json!({"succeeded": 1})), &[], at(0)), Step::Finish { status: "Complete", .. }));
        let failing = json!({"completions": 1, "backoffLimit": 0});
        assert!(matches!(step(&job(failing, json!({"failed": 1})), &[], at(0)), Step::Finish { status: "Failed", .. }));
    }

    #[test]
    fn a_failed_pod_is_made_again_after_a_pause_that_doubles() {
        let mut job = json!({"spec": {"completions": 1}, "status": {"failed": 2}});
        job["metadata"]["annotations"]["serin.dev/last-failure"] = "1970-01-01T00:00:00Z".into();
        assert_eq!(step(&job, &[], at(15)), Step::Run { start: 0, stop: 0, wait: Some(SignedDuration::from_secs(5)) });
        assert_eq!(step(&job, &[], at(20)), run(1, 0));
    }

    #[test]
    fn indexes_print_as_ranges() {
        let all = parse_indexes("0,2-4,7");
        assert_eq!(print_indexes(&all), "0,2-4,7");
        let job = json!({"spec": {"completionMode": "Indexed", "completions": 9}, "status": {"completedIndexes": "0,2-4,7"}});
        assert_eq!(free_indexes(&job, &[]), [1, 5, 6, 8]);
    }
}
