//! The columns of built-in kinds, as kubectl's users know them. After Kubernetes' `printers/internalversion`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::kinds::Kind;
use super::scale::selector_text;
use super::table::{age, definition, duration};

/// A kind's columns and how to fill them.
pub(super) struct Table {
    /// Header, and whether it is only for wide output (`+`).
    columns: &'static str,
    /// The cells of one object.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

impl Table {
    /// The column definitions.
    pub(super) fn definitions(&self) -> Vec<Value> {
        let column = |text: &str| {
            let (name, priority) = text.strip_prefix('+').map_or((text, 0), |name| (name, 1));
            let format = if name == "Name" { "name" } else { "" };
            definition(name, "string", format, "", priority)
        };
        self.columns.split(',').map(column).collect()
    }
}

/// The table of a built-in kind that has columns of its own.
pub(super) fn of(kind: &Kind) -> Option<&'static Table> {
    if kind.is_custom() {
        return None;
    }
    let key = (kind.resource.group.as_str(), kind.resource.plural.as_str());
    TABLES.iter().find(|(group, plural, _)| (*group, *plural) == key).map(|(_, _, table)| table)
}

static TABLES: &[(&str, &str, Table)] = &[
    ("", "configmaps", Table { columns: "Name,Data,Age", cells: config_map }),
    ("", "endpoints", Table { columns: "Name,Endpoints,Age", cells: endpoints }),
    ("", "events", Table { columns: "Last Seen,Type,Reason,Object,+Subobject,+Source,Message,+First Seen,+Count,+Name", cells: event }),
    ("", "namespaces", Table { columns: "Name,Status,Age", cells: namespace }),
    (
        "",
        "nodes",
        Table {
            columns: "Name,Status,Roles,Age,Version,+Internal-IP,+External-IP,+OS-Image,+Kernel-Version,+Container-Runtime",
            cells: node,
        },
    ),
    ("", "pods", Table { columns: "Name,Ready,Status,Restarts,Age,+IP,+Node,+Nominated Node,+Readiness Gates", cells: pod }),
    ("", "secrets", Table { columns: "Name,Type,Data,Age", cells: secret }),
    ("", "serviceaccounts", Table { columns: "Name,Age", cells: |o, now| vec![name(o), created(o, now)] }),
    ("", "services", Table { columns: "Name,Type,Cluster-IP,External-IP,Port(s),Age,+Selector", cells: service }),
    ("apiextensions.k8s.io", "customresourcedefinitions", Table { columns: "Name,Created At", cells: created_at }),
    ("apps", "deployments", Table { columns: "Name,Ready,Up-to-date,Available,Age,+Containers,+Images,+Selector", cells: deployment }),
    ("apps", "replicasets", Table { columns: "Name,Desired,Current,Ready,Age,+Containers,+Images,+Selector", cells: replica_set }),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        Table { columns: "Name,Reference,Targets,MinPods,MaxPods,Replicas,Age", cells: autoscaler },
    ),
    (
        "batch",
        "cronjobs",
        Table { columns: "Name,Schedule,Timezone,Suspend,Active,Last Schedule,Age,+Containers,+Images,+Selector", cells: cron_job },
    ),
    ("batch", "jobs", Table { columns: "Name,Status,Completions,Duration,Age,+Containers,+Images,+Selector", cells: job }),
    (
        "coordination.k8s.io",
        "leases",
        Table {
            columns: "Name,Holder,Age",
            cells: |o, now| vec![name(o), o["spec"]["holderIdentity"].as_str().unwrap_or_default().into(), created(o, now)],
        },
    ),
    ("discovery.k8s.io", "endpointslices", Table { columns: "Name,AddressType,Ports,Endpoints,Age", cells: endpoint_slice }),
    (
        "events.k8s.io",
        "events",
        Table { columns: "Last Seen,Type,Reason,Object,+Subobject,+Source,Message,+First Seen,+Count,+Name", cells: event },
    ),
    ("policy", "poddisruptionbudgets", Table { columns: "Name,Min Available,Max Unavailable,Allowed Disruptions,Age", cells: budget }),
    (
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        Table { columns: "Name,Role,Age,+Users,+Groups,+ServiceAccounts", cells: binding },
    ),
    ("rbac.authorization.k8s.io", "clusterroles", Table { columns: "Name,Created At", cells: created_at }),
    ("rbac.authorization.k8s.io", "rolebindings", Table { columns: "Name,Role,Age,+Users,+Groups,+ServiceAccounts", cells: binding }),
    ("rbac.authorization.k8s.io", "roles", Table { columns: "Name,Created At", cells: created_at }),
];

fn name(o: &Value) -> Value {
    o["metadata"]["name"].clone()
}

fn created(o: &Value, now: Timestamp) -> Value {
    age(&o["metadata"]["creationTimestamp"], now).into()
}

fn created_at(o: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(o), o["metadata"]["creationTimestamp"].clone()]
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn or_none(text: String) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn keys(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

fn config_map(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(o), (keys(&o["data"]) + keys(&o["binaryData"])).into(), created(o, now)]
}

fn secret(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(o), o["type"].clone(), keys(&o["data"]).into(), created(o, now)]
}

fn namespace(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(o), o["status"]["phase"].clone(), created(o, now)]
}

fn node(o: &Value, now: Timestamp) -> Vec<Value> {
    let ready = list(&o["status"]["conditions"]).iter().find(|c| c["type"] == "Ready").map(|c| c["status"] == "True");
    let mut status = match ready {
        Some(true) => "Ready".to_owned(),
        Some(false) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if o["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let labels = o["metadata"]["labels"].as_object();
    let roles: Vec<&str> = labels.into_iter().flatten().filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/")).collect();
    let info = &o["status"]["nodeInfo"];
    let address = |kind: &str| {
        let found = list(&o["status"]["addresses"]).iter().find(|a| a["type"] == kind);
        or_none(found.and_then(|a| a["address"].as_str()).unwrap_or_default().to_owned())
    };
    let text = |field: &str| Value::from(info[field].as_str().unwrap_or("<unknown>"));
    vec![
        name(o),
        status.into(),
        or_none(roles.join(",")),
        created(o, now),
        info["kubeletVersion"].as_str().unwrap_or_default().into(),
        address("InternalIP"),
        address("ExternalIP"),
        text("osImage"),
        text("kernelVersion"),
        text("containerRuntimeVersion"),
    ]
}

fn pod(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let mut reason = status["reason"].as_str().filter(|r| !r.is_empty()).or(status["phase"].as_str()).unwrap_or("Unknown").to_owned();
    let gated = list(&status["conditions"]).iter().any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated");
    if gated {
        reason = "SchedulingGated".into();
    }
    let mut restarts: i64 = 0;
    let mut last_restart: Option<Timestamp> = None;
    let mut count = |c: &Value| {
        restarts += number(&c["restartCount"]);
        let ended = c["lastState"]["terminated"]["finishedAt"].as_str().and_then(|t| t.parse().ok());
        last_restart = last_restart.max(ended);
    };
    let mut initializing = false;
    let n_init = list(&spec["initContainers"]).len();
    for (i, c) in list(&status["initContainerStatuses"]).iter().enumerate() {
        count(c);
        let terminated = &c["state"]["terminated"];
        if initializing || (!terminated.is_null() && number(&terminated["exitCode"]) == 0) {
            continue;
        }
        initializing = true;
        let waiting = c["state"]["waiting"]["reason"].as_str().unwrap_or_default();
        reason = if terminated.is_object() {
            format!("Init:{}", end_of(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{n_init}")
        };
    }
    let mut ready = 0;
    if !initializing {
        let mut running = false;
        for c in list(&status["containerStatuses"]).iter().rev() {
            count(c);
            let (waiting, terminated) = (c["state"]["waiting"]["reason"].as_str().unwrap_or_default(), &c["state"]["terminated"]);
            if !waiting.is_empty() {
                reason = waiting.to_owned();
            } else if terminated.is_object() {
                reason = end_of(terminated);
            } else if c["ready"] == true && c["state"]["running"].is_object() {
                running = true;
                ready += 1;
            }
        }
        // Some container ended while another runs: the pod's readiness says what it is.
        if reason == "Completed" && running {
            let is_ready = list(&status["conditions"]).iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            reason = if is_ready { "Running".into() } else { "NotReady".into() };
        }
    }
    if o["metadata"]["deletionTimestamp"].is_string() {
        reason = "Terminating".into();
    }
    let restarts = match last_restart {
        Some(at) if restarts > 0 => format!("{restarts} ({} ago)", duration(now.as_second() - at.as_second())),
        _ => restarts.to_string(),
    };
    let gates = list(&spec["readinessGates"]);
    let gates = if gates.is_empty() {
        "<none>".into()
    } else {
        let open =
            gates.iter().filter(|g| list(&status["conditions"]).iter().any(|c| c["type"] == g["conditionType"] && c["status"] == "True"));
        Value::from(format!("{}/{}", open.count(), gates.len()))
    };
    let text = |value: &Value| or_none(value.as_str().unwrap_or_default().to_owned());
    vec![
        name(o),
        format!("{ready}/{}", list(&spec["containers"]).len()).into(),
        reason.into(),
        restarts.into(),
        created(o, now),
        text(&status["podIP"]),
        text(&spec["nodeName"]),
        text(&status["nominatedNodeName"]),
        gates,
    ]
}

fn end_of(terminated: &Value) -> String {
    match terminated["reason"].as_str() {
        Some(reason) if !reason.is_empty() => reason.to_owned(),
        _ if number(&terminated["signal"]) != 0 => format!("Signal:{}", terminated["signal"]),
        _ => format!("ExitCode:{}", number(&terminated["exitCode"])),
    }
}

fn service(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &o["spec"];
    let kind = spec["type"].as_str().unwrap_or("ClusterIP");
    let external: Vec<&str> = list(&spec["externalIPs"]).iter().filter_map(Value::as_str).collect();
    let ingress: Vec<&str> =
        list(&o["status"]["loadBalancer"]["ingress"]).iter().filter_map(|i| i["ip"].as_str().or(i["hostname"].as_str())).collect();
    let external = match kind {
        "ExternalName" => spec["externalName"].as_str().unwrap_or_default().to_owned(),
        "LoadBalancer" if ingress.is_empty() && external.is_empty() => "<pending>".into(),
        _ => ingress.into_iter().chain(external).collect::<Vec<_>>().join(","),
    };
    let ports: Vec<String> = list(&spec["ports"])
        .iter()
        .map(|p| {
            let protocol = p["protocol"].as_str().unwrap_or("TCP");
            match number(&p["nodePort"]) {
                0 => format!("{}/{protocol}", number(&p["port"])),
                node => format!("{}:{node}/{protocol}", number(&p["port"])),
            }
        })
        .collect();
    vec![
        name(o),
        kind.into(),
        or_none(spec["clusterIP"].as_str().unwrap_or_default().to_owned()),
        or_none(external),
        or_none(ports.join(",")),
        created(o, now),
        or_none(selector_text(&spec["selector"])),
    ]
}

fn containers(template: &Value) -> [Value; 2] {
    let names = |field: &str| list(&template["spec"]["containers"]).iter().filter_map(|c| c[field].as_str()).collect::<Vec<_>>().join(",");
    [names("name").into(), names("image").into()]
}

fn deployment(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let [names, images] = containers(&spec["template"]);
    vec![
        name(o),
        format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"])).into(),
        number(&status["updatedReplicas"]).into(),
        number(&status["availableReplicas"]).into(),
        created(o, now),
        names,
        images,
        selector_text(&spec["selector"]).into(),
    ]
}

fn replica_set(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let [names, images] = containers(&spec["template"]);
    vec![
        name(o),
        number(&spec["replicas"]).into(),
        number(&status["replicas"]).into(),
        number(&status["readyReplicas"]).into(),
        created(o, now),
        names,
        images,
        selector_text(&spec["selector"]).into(),
    ]
}

/// The first three, and how many more there are.
fn some(all: &[String]) -> Value {
    match all.len() {
        0 => "<none>".into(),
        n if n > 3 => format!("{} + {} more...", all[..3].join(","), n - 3).into(),
        _ => all.join(",").into(),
    }
}

fn endpoints(o: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list(&o["subsets"]) {
        for address in list(&subset["addresses"]) {
            let ip = address["ip"].as_str().unwrap_or_default();
            let ports = list(&subset["ports"]);
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            all.extend(ports.iter().map(|p| format!("{ip}:{}", number(&p["port"]))));
        }
    }
    vec![name(o), some(&all), created(o, now)]
}

fn endpoint_slice(o: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> =
        list(&o["ports"]).iter().map(|p| p["port"].as_i64().map_or_else(|| "*".to_owned(), |n| n.to_string())).collect();
    let ports = if ports.is_empty() { Value::from("<unset>") } else { some(&ports) };
    let addresses: Vec<String> =
        list(&o["endpoints"]).iter().flat_map(|e| list(&e["addresses"])).filter_map(Value::as_str).map(str::to_owned).collect();
    let addresses = if addresses.is_empty() { Value::from("<unset>") } else { some(&addresses) };
    vec![name(o), o["addressType"].clone(), ports, addresses, created(o, now)]
}

/// Events of both groups: the fields of either form.
fn event(o: &Value, now: Timestamp) -> Vec<Value> {
    let either = |a: &str, b: &str| if o[a].is_null() { o[b].clone() } else { o[a].clone() };
    let (object, source) = (either("involvedObject", "regarding"), either("source", "deprecatedSource"));
    let time = |value: Value| if value.is_null() { o["eventTime"].clone() } else { value };
    let first = time(either("firstTimestamp", "deprecatedFirstTimestamp"));
    let series = &o["series"];
    let last = match series["lastObservedTime"].is_string() {
        true => series["lastObservedTime"].clone(),
        false => time(either("lastTimestamp", "deprecatedLastTimestamp")),
    };
    let count = match series["count"].as_i64() {
        Some(n) => n,
        None => either("count", "deprecatedCount").as_i64().filter(|n| *n > 0).unwrap_or(1),
    };
    let from = source["component"].as_str().filter(|s| !s.is_empty());
    let from = from.or(o["reportingComponent"].as_str()).or(o["reportingController"].as_str()).unwrap_or_default();
    let host = source["host"].as_str().map(|h| format!(", {h}")).unwrap_or_default();
    let target = format!("{}/{}", object["kind"].as_str().unwrap_or_default().to_lowercase(), object["name"].as_str().unwrap_or_default());
    vec![
        age(&last, now).into(),
        o["type"].clone(),
        o["reason"].clone(),
        target.into(),
        object["fieldPath"].as_str().unwrap_or_default().into(),
        format!("{from}{host}").into(),
        either("message", "note").as_str().unwrap_or_default().trim().into(),
        age(&first, now).into(),
        count.into(),
        name(o),
    ]
}

fn job(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let condition = |kind: &str| list(&status["conditions"]).iter().any(|c| c["type"] == kind && c["status"] == "True");
    let state = ["Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|k| condition(k));
    let state = match state {
        Some("SuccessCriteriaMet") => "SuccessCriteriaMet",
        Some("FailureTarget") => "FailureTarget",
        Some(state) => state,
        None if o["metadata"]["deletionTimestamp"].is_string() => "Terminating",
        None => "Running",
    };
    let done = number(&status["succeeded"]);
    let completions = match (spec["completions"].as_i64(), spec["parallelism"].as_i64()) {
        (Some(n), _) => format!("{done}/{n}"),
        (None, Some(n)) if n > 1 => format!("{done}/1 of {n}"),
        (None, _) => format!("{done}/1"),
    };
    let time = |v: &Value| v.as_str().and_then(|t| t.parse::<Timestamp>().ok());
    let took = match (time(&status["startTime"]), time(&status["completionTime"])) {
        (Some(start), Some(end)) => duration(end.as_second() - start.as_second()),
        (Some(start), None) => duration(now.as_second() - start.as_second()),
        (None, _) => String::new(),
    };
    let [names, images] = containers(&spec["template"]);
    vec![name(o), state.into(), completions.into(), took.into(), created(o, now), names, images, selector_text(&spec["selector"]).into()]
}

fn cron_job(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let last = status["lastScheduleTime"].as_str().map_or_else(|| "<none>".to_owned(), |_| age(&status["lastScheduleTime"], now));
    let suspended = if spec["suspend"] == true { "True" } else { "False" };
    let [names, images] = containers(&spec["jobTemplate"]["spec"]["template"]);
    vec![
        name(o),
        spec["schedule"].clone(),
        or_none(spec["timeZone"].as_str().unwrap_or_default().to_owned()),
        suspended.into(),
        list(&status["active"]).len().into(),
        last.into(),
        created(o, now),
        names,
        images,
        "<none>".into(),
    ]
}

fn autoscaler(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let target = &spec["scaleTargetRef"];
    let reference = format!("{}/{}", target["kind"].as_str().unwrap_or_default(), target["name"].as_str().unwrap_or_default());
    let targets: Vec<String> = list(&spec["metrics"])
        .iter()
        .map(|m| {
            let resource = &m["resource"];
            match resource["target"]["averageUtilization"].as_i64() {
                Some(n) => format!("{}: <unknown>/{n}%", resource["name"].as_str().unwrap_or_default()),
                None => "<unknown>".to_owned(),
            }
        })
        .collect();
    let least = spec["minReplicas"].as_i64().map_or_else(|| "<unset>".to_owned(), |n| n.to_string());
    vec![
        name(o),
        reference.into(),
        or_none(targets.join(", ")),
        least.into(),
        number(&spec["maxReplicas"]).into(),
        number(&status["currentReplicas"]).into(),
        created(o, now),
    ]
}

fn budget(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &o["spec"];
    let text = |v: &Value| match v {
        Value::Null => json!("N/A"),
        Value::String(s) => json!(s),
        other => json!(other.to_string()),
    };
    vec![
        name(o),
        text(&spec["minAvailable"]),
        text(&spec["maxUnavailable"]),
        number(&o["status"]["disruptionsAllowed"]).into(),
        created(o, now),
    ]
}

fn binding(o: &Value, now: Timestamp) -> Vec<Value> {
    let role = &o["roleRef"];
    let subjects = |kind: &str| {
        let names = list(&o["subjects"]).iter().filter(|s| s["kind"] == kind).map(|s| {
            let name = s["name"].as_str().unwrap_or_default();
            s["namespace"].as_str().map_or_else(|| name.to_owned(), |ns| format!("{ns}/{name}"))
        });
        Value::from(names.collect::<Vec<_>>().join(", "))
    };
    let role = format!("{}/{}", role["kind"].as_str().unwrap_or_default(), role["name"].as_str().unwrap_or_default());
    vec![name(o), role.into(), created(o, now), subjects("User"), subjects("Group"), subjects("ServiceAccount")]
}
