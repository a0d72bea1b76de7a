//! What a pod's status says, from what its containers do: phase, conditions, container statuses. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::object::{annotation, condition, condition_true, items, new_condition, set_condition, text};
use crate::store::seconds;

/// What one container does.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Not started, and why.
    Waiting {
        /// CamelCase: `ContainerCreating`, `CrashLoopBackOff`.
        reason: String,
        /// A sentence; may be empty.
        message: String,
    },
    /// Its process runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// Its process has ended.
    Terminated(End),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Exit code; 128 + N for signal N.
    pub code: i32,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `StartError`.
    pub reason: String,
    /// A sentence; may be empty.
    pub message: String,
    /// When it had started.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

/// One container of a pod as its status shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerState {
    /// Its name.
    pub name: String,
    /// The image as the manifest names it.
    pub image: String,
    /// What plays it, as an image id.
    pub played_by: String,
    /// What it does.
    pub state: State,
    /// How it ended the last time.
    pub last: Option<End>,
    /// How often it was started again.
    pub restarts: u32,
    /// Whether it may get requests.
    pub ready: bool,
    /// Whether its startup is over.
    pub started: bool,
    /// An init container that keeps running beside the others.
    pub sidecar: bool,
}

impl ContainerState {
    /// A container that has not started.
    pub fn new(spec: &Value, sidecar: bool) -> Self {
        Self {
            name: text(spec, "/name").into(),
            image: text(spec, "/image").into(),
            played_by: String::new(),
            state: State::Waiting { reason: "ContainerCreating".into(), message: String::new() },
            last: None,
            restarts: 0,
            ready: false,
            started: false,
            sidecar,
        }
    }

    /// An init container that has done its part: ended well, or (a sidecar) started.
    pub fn init_done(&self) -> bool {
        match &self.state {
            State::Terminated(end) => end.code == 0 && !self.sidecar,
            State::Running { .. } => self.sidecar && self.started,
            State::Waiting { .. } => false,
        }
    }
}

impl ContainerState {
    /// Whether it has ever run.
    fn begun(&self) -> bool {
        self.last.is_some() || !matches!(self.state, State::Waiting { .. })
    }
}

/// The status of a pod. `old` is the one that stands: its transition times and the conditions of others are kept.
pub fn pod_status(pod: &Value, init: &[ContainerState], main: &[ContainerState], ip: Option<&str>, now: Timestamp) -> Value {
    let old = &pod["status"];
    let phase = phase(pod, init, main);
    let mut status = json!({
        "phase": phase,
        "qosClass": qos_class(&pod["spec"]),
        "hostIP": super::super::node::ADDRESS,
        "hostIPs": [{"ip": super::super::node::ADDRESS}],
        "startTime": old.get("startTime").cloned().unwrap_or_else(|| seconds(now).into()),
        "observedGeneration": pod.pointer("/metadata/generation").cloned().unwrap_or_else(|| 1.into()),
        "containerStatuses": main.iter().map(|c| container_status(pod, c)).collect::<Vec<_>>(),
    });
    if let Some(ip) = ip {
        status["podIP"] = ip.into();
        status["podIPs"] = json!([{"ip": ip}]);
    }
    if !init.is_empty() {
        status["initContainerStatuses"] = init.iter().map(|c| container_status(pod, c)).collect::<Vec<_>>().into();
    }
    for field in ["reason", "message", "nominatedNodeName", "ephemeralContainerStatuses", "resize"] {
        if let Some(value) = old.get(field) {
            status[field] = value.clone();
        }
    }
    status["conditions"] = conditions(pod, phase, init, main, now).into();
    status
}

fn phase(pod: &Value, init: &[ContainerState], main: &[ContainerState]) -> &'static str {
    let policy = restart_policy(pod);
    if let Some(first) = init.iter().find(|c| !(c.init_done() || c.sidecar && main.iter().any(ContainerState::begun))) {
        let failed = matches!(&first.state, State::Terminated(end) if end.code != 0);
        return if failed && policy == "Never" && !first.sidecar { "Failed" } else { "Pending" };
    }
    let ended = |c: &ContainerState| match (&c.state, &c.last) {
        (State::Terminated(end), _) => Some(end.code),
        (State::Waiting { .. }, Some(end)) => Some(end.code),
        _ => None,
    };
    let waiting = main.iter().any(|c| matches!(c.state, State::Waiting { .. }) && c.last.is_none());
    // A pod has not ended while a sidecar still runs.
    let running = main.iter().chain(init).any(|c| matches!(c.state, State::Running { .. }));
    let stopped: Vec<i32> = main.iter().filter_map(ended).collect();
    match () {
        () if waiting => "Pending",
        () if running || policy == "Always" && !stopped.is_empty() => "Running",
        () if stopped.is_empty() => "Pending",
        () if stopped.iter().all(|code| *code == 0) => "Succeeded",
        () if policy == "Never" => "Failed",
        () => "Running",
    }
}

/// `spec.restartPolicy`, by default `Always`.
pub fn restart_policy(pod: &Value) -> &str {
    match text(pod, "/spec/restartPolicy") {
        "" => "Always",
        policy => policy,
    }
}

const OURS: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

fn conditions(pod: &Value, phase: &str, init: &[ContainerState], main: &[ContainerState], now: Timestamp) -> Vec<Value> {
    let old = &pod["status"];
    let yes = |kind: &str| {
        let mut condition = new_condition(kind, "True", "", "", now);
        if let Some(fields) = condition.as_object_mut() {
            fields.retain(|_, v| v != "");
        }
        condition
    };
    let no = |kind: &str, reason: &str, message: &str| {
        let mut condition = new_condition(kind, "False", reason, message, now);
        if message.is_empty()
            && let Some(fields) = condition.as_object_mut()
        {
            fields.remove("message");
        }
        condition
    };
    let names = |what: &[&ContainerState]| what.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(" ");

    let undone: Vec<&ContainerState> =
        init.iter().filter(|c| !(c.init_done() || c.sidecar && (c.last.is_some() || main.iter().any(ContainerState::begun)))).collect();
    let initialized = match () {
        () if phase == "Succeeded" => {
            let mut condition = yes("Initialized");
            condition["reason"] = "PodCompleted".into();
            condition
        }
        () if undone.is_empty() || matches!(phase, "Running" | "Failed") && main.iter().any(ContainerState::begun) => yes("Initialized"),
        () => no("Initialized", "ContainersNotInitialized", &format!("containers with incomplete status: [{}]", names(&undone))),
    };
    let unready: Vec<&ContainerState> = main.iter().chain(init.iter().filter(|c| c.sidecar)).filter(|c| !c.ready).collect();
    let containers_ready = match phase {
        "Succeeded" => no("ContainersReady", "PodCompleted", ""),
        "Failed" => no("ContainersReady", "PodFailed", ""),
        _ if !unready.is_empty() => {
            no("ContainersReady", "ContainersNotReady", &format!("containers with unready status: [{}]", names(&unready)))
        }
        _ => yes("ContainersReady"),
    };
    let gates = items(pod, "/spec/readinessGates").iter().map(|gate| text(gate, "/conditionType"));
    let closed: Vec<&str> = gates.filter(|gate| !condition_true(old, gate)).collect();
    let ready = if containers_ready["status"] != "True" {
        let mut condition = containers_ready.clone();
        condition["type"] = "Ready".into();
        condition
    } else if let [first, ..] = closed.as_slice() {
        let what = match condition(old, first) {
            Some(_) => "is not true",
            None => "does not exist",
        };
        no("Ready", "ReadinessGatesNotReady", &format!("corresponding condition of pod readiness gate \"{first}\" {what}."))
    } else {
        yes("Ready")
    };
    let mut all: Vec<Value> = items(old, "/conditions").to_vec();
    let ours = [yes("PodReadyToStartContainers"), initialized, ready, containers_ready, yes("PodScheduled")];
    debug_assert!(ours.iter().all(|c| OURS.contains(&text(c, "/type"))));
    for condition in ours {
        set_condition(&mut all, condition);
    }
    all
}

fn container_status(pod: &Value, c: &ContainerState) -> Value {
    let id = |n: u32| format!("serin://{}/{}/{n}", text(pod, "/metadata/uid"), c.name);
    let ran = c.last.is_some() || !matches!(c.state, State::Waiting { .. });
    let mut status = json!({
        "name": c.name, "image": c.image, "imageID": c.played_by, "ready": c.ready, "started": c.started,
        "restartCount": c.restarts,
        "state": match &c.state {
            State::Waiting { reason, message } if message.is_empty() => json!({"waiting": {"reason": reason}}),
            State::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
            State::Running { since } => json!({"running": {"startedAt": seconds(*since)}}),
            State::Terminated(end) => json!({"terminated": ended(end, &id(c.restarts))}),
        },
        "lastState": match &c.last {
            Some(end) => json!({"terminated": ended(end, &id(c.restarts.saturating_sub(1)))}),
            None => json!({}),
        },
    });
    if ran {
        status["containerID"] = id(c.restarts).into();
    }
    status
}

fn ended(end: &End, id: &str) -> Value {
    let mut ended = json!({
        "exitCode": end.code, "reason": end.reason, "startedAt": seconds(end.started), "finishedAt": seconds(end.finished),
        "containerID": id,
    });
    if let Some(signal) = end.signal {
        ended["signal"] = signal.into();
    }
    if !end.message.is_empty() {
        ended["message"] = end.message.as_str().into();
    }
    ended
}

/// Whether all of a pod's containers have ended, or none had ever started.
pub fn all_ended(pod: &Value) -> bool {
    items(pod, "/status/containerStatuses").iter().all(|c| c.pointer("/state/running").is_none())
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by the requests and limits of cpu and memory.
pub fn qos_class(spec: &Value) -> &'static str {
    let containers = || items(spec, "/containers").iter().chain(items(spec, "/initContainers"));
    let get = |c: &Value, kind: &str, what: &str| c.pointer("/resources").and_then(|r| r.get(kind)).and_then(|r| r.get(what)).cloned();
    let any =
        containers().any(|c| ["requests", "limits"].iter().any(|kind| ["cpu", "memory"].iter().any(|what| get(c, kind, what).is_some())));
    if !any {
        return "BestEffort";
    }
    let guaranteed = containers().all(|c| {
        ["cpu", "memory"].iter().all(|what| {
            let limit = get(c, "limits", what);
            limit.is_some() && get(c, "requests", what).is_none_or(|request| Some(request) == limit)
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

/// A pod that some other part of the lab plays; the kubelet neither starts nor describes it.
pub fn mirrored(pod: &Value) -> bool {
    annotation(pod, super::MIRROR).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn container(state: State, ready: bool) -> ContainerState {
        let started = matches!(state, State::Running { .. });
        ContainerState { state, ready, started, ..ContainerState::new(&json!({"name": "app"}), false) }
    }

    fn ended(code: i32) -> End {
        End { code, signal: None, reason: "Error".into(), message: String::new(), started: at(0), finished: at(1) }
    }

    fn waiting(reason: &str) -> State {
        State::Waiting { reason: reason.into(), message: String::new() }
    }

    #[test]
    fn phases_are_those_of_kubernetes() {
        let crashed = || ContainerState { last: Some(ended(1)), ..container(waiting("CrashLoopBackOff"), false) };
        let running = || container(State::Running { since: at(0) }, true);
        let done = |code| container(State::Terminated(ended(code)), false);
        let check = |policy: &str, main: Vec<ContainerState>, expect: &str| {
            let pod = json!({"spec": {"restartPolicy": policy}});
            assert_eq!(phase(&pod, &[], &main), expect, "{policy} {main:?}");
        };
        check("Always", vec![container(waiting("ContainerCreating"), false)], "Pending");
        check("Always", vec![running()], "Running");
        check("Always", vec![crashed()], "Running");
        check("Always", vec![running(), container(waiting("ContainerCreating"), false)], "Pending");
        check("Never", vec![done(0)], "Succeeded");
        check("Never", vec![done(0), done(3)], "Failed");
        check("OnFailure", vec![done(0)], "Succeeded");
        check("OnFailure", vec![crashed()], "Running");
        check("Never", vec![done(0), running()], "Running");
    }

    #[test]
    fn an_init_container_holds_the_pod_back() {
        let pod = json!({"spec": {"restartPolicy": "Always"}});
        let init = [container(State::Running { since: at(0) }, false)];
        let status = pod_status(&pod, &init, &[container(waiting("PodInitializing"), false)], None, at(5));
        assert_eq!(status["phase"], "Pending");
        assert_eq!(condition(&status, "Initialized").unwrap()["reason"], "ContainersNotInitialized");
    }

    #[test]
    fn transition_times_move_only_with_the_status_and_foreign_conditions_stay() {
        let mut pod = json!({"spec": {"readinessGates": [{"conditionType": "gate"}]}, "status": {"conditions": [{"type": "gate", "status": "True"}]}});
        let main = [container(State::Running { since: at(0) }, true)];
        pod["status"] = pod_status(&pod, &[], &main, Some("127.1.0.2"), at(5));
        assert!(condition_true(&pod["status"], "Ready"));
        assert!(condition_true(&pod["status"], "gate"));
        let again = pod_status(&pod, &[], &main, Some("127.1.0.2"), at(9));
        assert_eq!(again, pod["status"]);
        let unready = pod_status(&pod, &[], &[container(State::Running { since: at(0) }, false)], None, at(9));
        let ready = condition(&unready, "Ready").unwrap();
        assert_eq!((text(ready, "/status"), text(ready, "/lastTransitionTime")), ("False", "1970-01-01T00:00:09Z"));
        assert_eq!(ready["message"], "containers with unready status: [app]");
    }

    #[test]
    fn a_closed_readiness_gate_keeps_the_pod_unready() {
        let pod = json!({"spec": {"readinessGates": [{"conditionType": "gate"}]}, "status": {}});
        let status = pod_status(&pod, &[], &[container(State::Running { since: at(0) }, true)], None, at(5));
        assert!(condition_true(&status, "ContainersReady"));
        assert_eq!(condition(&status, "Ready").unwrap()["reason"], "ReadinessGatesNotReady");
    }
}
