//! What Kubernetes fills into built-in objects when a client leaves it out, as far as clients see and use it.
//!
//! Values after Kubernetes 1.35's `defaults.go` files and registries' strategies. It judges nothing.

use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

use super::Api;
use super::kinds::Kind;
use crate::store::Resource;

/// Service addresses: 10.96.0.0/16, as kubeadm's default begins.
const SERVICE_NET: [u8; 2] = [10, 96];
/// Node ports as Kubernetes hands them out.
const NODE_PORTS: std::ops::RangeInclusive<u64> = 30_000..=32_767;

/// Fills in what is absent. `old` is the object before, if there is one.
pub(super) fn apply(api: &Api, kind: &Kind, new: &mut Value, old: Option<&Value>) {
    let plural = kind.resource.plural.as_str();
    match (kind.resource.group.as_str(), plural) {
        ("", "namespaces") => namespace(new, old),
        ("", "pods") => pod(new, old),
        ("", "services") => service(api, new, old),
        ("", "secrets") => {
            set(new, "type", "Opaque");
            string_data(new);
        }
        ("", "events") => {
            set(new, "type", "Normal");
        }
        ("apps", "deployments") => deployment(new, old),
        ("apps", "replicasets") => {
            set(&mut new["spec"], "replicas", 1);
            labels_from_template(new);
            template(&mut new["spec"]["template"]);
            if old.is_none() {
                set_object(new, "status");
                set(&mut new["status"], "replicas", 0);
            }
        }
        ("batch", "jobs") => job(new, old),
        ("batch", "cronjobs") => {
            let spec = &mut new["spec"];
            set(spec, "concurrencyPolicy", "Allow");
            set(spec, "suspend", false);
            set(spec, "successfulJobsHistoryLimit", 3);
            set(spec, "failedJobsHistoryLimit", 1);
            template(&mut spec["jobTemplate"]["spec"]["template"]);
        }
        ("autoscaling", "horizontalpodautoscalers") => {
            set(&mut new["spec"], "minReplicas", 1);
        }
        ("discovery.k8s.io", "endpointslices") => each(&mut new["ports"], |port| {
            set(port, "name", "");
            set(port, "protocol", "TCP");
        }),
        ("", "endpoints") => each(&mut new["subsets"], |subset| each(&mut subset["ports"], |port| set(port, "protocol", "TCP"))),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            each(&mut new["subjects"], |subject| {
                if subject["kind"] != "ServiceAccount" {
                    set(subject, "apiGroup", "rbac.authorization.k8s.io");
                }
            });
            set(&mut new["roleRef"], "apiGroup", "rbac.authorization.k8s.io");
        }
        _ => {}
    }
    sweep(new);
}

fn set(at: &mut Value, field: &str, value: impl Into<Value>) {
    if at.is_null() {
        *at = Value::Object(Map::new());
    }
    if let Some(fields) = at.as_object_mut()
        && fields.get(field).is_none_or(|v| v.is_null())
    {
        fields.insert(field.into(), value.into());
    }
}

fn set_object(at: &mut Value, field: &str) {
    set(at, field, Value::Object(Map::new()));
}

/// Does it to each item of a list, if it is one; makes none.
fn each(list: &mut Value, change: impl Fn(&mut Value)) {
    if let Value::Array(items) = list {
        items.iter_mut().for_each(change);
    }
}

fn is_unset(at: &Value, field: &str) -> bool {
    at.get(field).is_none_or(Value::is_null)
}

/// Removes the nulls that indexing a mutable value leaves behind; decoded built-in objects have none of their own.
fn sweep(at: &mut Value) {
    match at {
        Value::Object(fields) => {
            fields.retain(|_, v| !v.is_null());
            fields.values_mut().for_each(sweep);
        }
        Value::Array(items) => items.iter_mut().for_each(sweep),
        _ => {}
    }
}

fn namespace(new: &mut Value, old: Option<&Value>) {
    let name = new["metadata"]["name"].clone();
    if name.is_string() {
        let labels = &mut new["metadata"]["labels"];
        if !labels.is_object() {
            *labels = json!({});
        }
        labels["kubernetes.io/metadata.name"] = name;
    }
    if old.is_none() {
        set(&mut new["spec"], "finalizers", json!(["kubernetes"]));
        new["status"] = json!({"phase": "Active"});
    }
}

fn string_data(new: &mut Value) {
    use base64::Engine;
    let Some(Value::Object(plain)) = new.as_object_mut().and_then(|o| o.remove("stringData")) else { return };
    set_object(new, "data");
    for (name, value) in plain {
        let text = value.as_str().unwrap_or_default();
        new["data"][name] = base64::engine::general_purpose::STANDARD.encode(text).into();
    }
}

fn deployment(new: &mut Value, old: Option<&Value>) {
    let spec = &mut new["spec"];
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set(spec, "progressDeadlineSeconds", 600);
    set_object(spec, "strategy");
    set(&mut spec["strategy"], "type", "RollingUpdate");
    if spec["strategy"]["type"] == "RollingUpdate" {
        let rolling = &mut spec["strategy"]["rollingUpdate"];
        set(rolling, "maxUnavailable", "25%");
        set(rolling, "maxSurge", "25%");
    }
    template(&mut spec["template"]);
    if old.is_none() {
        new["status"] = json!({});
    }
}

/// A ReplicaSet without labels takes those of its pods.
fn labels_from_template(new: &mut Value) {
    let labels = new["spec"]["template"]["metadata"]["labels"].clone();
    if is_unset(&new["metadata"], "labels") && labels.is_object() {
        new["metadata"]["labels"] = labels;
    }
}

fn job(new: &mut Value, old: Option<&Value>) {
    let spec = &mut new["spec"];
    set(spec, "backoffLimit", 6);
    set(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    set(spec, "manualSelector", false);
    set(spec, "podReplacementPolicy", "TerminatingOrFailed");
    if is_unset(spec, "completions") && is_unset(spec, "parallelism") {
        set(spec, "completions", 1);
    }
    set(spec, "parallelism", 1);
    template(&mut spec["template"]);
    if old.is_some() {
        return;
    }
    new["status"] = json!({});
    if new["spec"]["manualSelector"] == true {
        return;
    }
    // The job finds its pods by an id of its own, in the selector and in the pods' labels.
    let uid = crate::store::uid();
    let name = new["metadata"]["name"].clone();
    let meta = &mut new["spec"]["template"]["metadata"];
    set_object(meta, "labels");
    for (label, value) in [
        ("batch.kubernetes.io/controller-uid", Value::from(uid.as_str())),
        ("controller-uid", uid.as_str().into()),
        ("batch.kubernetes.io/job-name", name.clone()),
        ("job-name", name),
    ] {
        meta["labels"][label] = value;
    }
    new["spec"]["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
}

/// A pod template's defaults.
fn template(template: &mut Value) {
    if template.is_object() {
        set_object(template, "metadata");
        pod_spec(&mut template["spec"]);
    }
}

fn pod(new: &mut Value, old: Option<&Value>) {
    pod_spec(&mut new["spec"]);
    let spec = &mut new["spec"];
    set(spec, "enableServiceLinks", true);
    set(spec, "preemptionPolicy", "PreemptLowerPriority");
    set(spec, "priority", 0);
    set(spec, "serviceAccountName", "default");
    let account = spec["serviceAccountName"].clone();
    set(spec, "serviceAccount", account);
    if old.is_some() {
        return;
    }
    set(
        spec,
        "tolerations",
        json!([
            {"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300},
            {"effect": "NoExecute", "key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300},
        ]),
    );
    let class = quality(spec);
    new["status"] = json!({"phase": "Pending", "qosClass": class});
}

fn quality(spec: &Value) -> &'static str {
    let containers = spec["containers"].as_array().map_or(&[][..], Vec::as_slice);
    let any =
        containers.iter().any(|c| ["limits", "requests"].iter().any(|r| c["resources"][*r].as_object().is_some_and(|o| !o.is_empty())));
    let all_limited = containers.iter().all(|c| {
        let limits = &c["resources"]["limits"];
        let requests = &c["resources"]["requests"];
        ["cpu", "memory"].iter().all(|r| !limits[*r].is_null() && (requests[*r].is_null() || requests[*r] == limits[*r]))
    });
    match (any, all_limited) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set(spec, "restartPolicy", "Always");
    set(spec, "terminationGracePeriodSeconds", 30);
    set(spec, "dnsPolicy", "ClusterFirst");
    set_object(spec, "securityContext");
    set(spec, "schedulerName", "default-scheduler");
    let account = spec.get("serviceAccountName").filter(|a| a.is_string()).cloned();
    if let Some(account) = account {
        set(spec, "serviceAccount", account);
    }
    for list in ["containers", "initContainers"] {
        if is_unset(spec, list) {
            continue;
        }
        each(&mut spec[list], container);
    }
    if !is_unset(spec, "volumes") {
        each(&mut spec["volumes"], volume);
    }
}

fn container(container: &mut Value) {
    set(container, "terminationMessagePath", "/dev/termination-log");
    set(container, "terminationMessagePolicy", "File");
    set_object(container, "resources");
    let image = container["image"].as_str().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let latest = !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
    set(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    // Requests follow limits where only those are given.
    if let Some(limits) = container["resources"]["limits"].as_object().cloned() {
        for (resource, limit) in limits {
            set(&mut container["resources"]["requests"], &resource, limit);
        }
    }
    if !is_unset(container, "ports") {
        each(&mut container["ports"], |port| set(port, "protocol", "TCP"));
    }
    if !is_unset(container, "env") {
        each(&mut container["env"], |variable| {
            let from = &variable["valueFrom"]["fieldRef"];
            if from.is_object() {
                set(&mut variable["valueFrom"]["fieldRef"], "apiVersion", "v1");
            }
        });
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if is_unset(container, probe) {
            continue;
        }
        let probe = &mut container[probe];
        set(probe, "timeoutSeconds", 1);
        set(probe, "periodSeconds", 10);
        set(probe, "successThreshold", 1);
        set(probe, "failureThreshold", 3);
        handler(probe);
    }
    if !is_unset(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if !is_unset(&container["lifecycle"], hook) {
                handler(&mut container["lifecycle"][hook]);
            }
        }
    }
}

fn handler(at: &mut Value) {
    if !is_unset(at, "httpGet") {
        set(&mut at["httpGet"], "path", "/");
        set(&mut at["httpGet"], "scheme", "HTTP");
    }
    if !is_unset(at, "grpc") {
        set(&mut at["grpc"], "service", "");
    }
}

fn volume(volume: &mut Value) {
    let named = volume.as_object().is_some_and(|v| v.len() > 1);
    if !named {
        set_object(volume, "emptyDir");
    }
    for (source, mode) in [("configMap", 0o644), ("secret", 0o644), ("projected", 0o644), ("downwardAPI", 0o644)] {
        if !is_unset(volume, source) {
            set(&mut volume[source], "defaultMode", mode);
        }
    }
}

fn service(api: &Api, new: &mut Value, old: Option<&Value>) {
    let spec = &mut new["spec"];
    set(spec, "sessionAffinity", "None");
    set(spec, "type", "ClusterIP");
    if spec["sessionAffinity"] == "ClientIP" {
        set(&mut spec["sessionAffinityConfig"]["clientIP"], "timeoutSeconds", 10_800);
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if !is_unset(spec, "ports") {
        each(&mut spec["ports"], |port| {
            set(port, "protocol", "TCP");
            let number = port["port"].clone();
            let unset = is_unset(port, "targetPort") || port["targetPort"] == 0 || port["targetPort"] == "";
            if unset && !number.is_null() {
                port["targetPort"] = number;
            }
        });
    }
    if kind == "ExternalName" {
        return;
    }
    set(spec, "internalTrafficPolicy", "Cluster");
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        set(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
    // What was given out stays.
    if let Some(old) = old {
        for field in ["clusterIP", "clusterIPs"] {
            let was = &old["spec"][field];
            if (is_unset(spec, field) || spec[field] == "") && !was.is_null() {
                spec[field] = was.clone();
            }
        }
        keep_node_ports(spec, &old["spec"]);
    }
    let services = Resource::new("", "services");
    let (name, namespace) = (new["metadata"]["name"].clone(), new["metadata"]["namespace"].clone());
    let spec = &mut new["spec"];
    let wants_address = is_unset(spec, "clusterIP") || spec["clusterIP"] == "";
    let wants_ports = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        && spec["ports"].as_array().is_some_and(|all| all.iter().any(|p| is_unset(p, "nodePort")));
    if wants_address || wants_ports {
        let (others, _) = api.store().list(&services, None);
        let others: Vec<&Value> =
            others.iter().map(|o| &**o).filter(|o| o["metadata"]["name"] != name || o["metadata"]["namespace"] != namespace).collect();
        if wants_address && let Some(address) = free_address(&others, &format!("{namespace}/{name}")) {
            spec["clusterIP"] = address.into();
        }
        if wants_ports {
            let mut used: Vec<u64> = others.iter().flat_map(|o| node_ports(&o["spec"])).chain(node_ports(spec)).collect();
            if let Value::Array(ports) = &mut spec["ports"] {
                for port in ports.iter_mut().filter(|p| is_unset(p, "nodePort")) {
                    if let Some(free) = NODE_PORTS.into_iter().find(|p| !used.contains(p)) {
                        used.push(free);
                        port["nodePort"] = free.into();
                    }
                }
            }
        }
    }
    let address = spec["clusterIP"].clone();
    if address.as_str().is_some_and(|a| !a.is_empty()) {
        set(spec, "clusterIPs", json!([address]));
        set(spec, "ipFamilies", json!(["IPv4"]));
        set(spec, "ipFamilyPolicy", "SingleStack");
    }
    if old.is_none() {
        new["status"] = json!({"loadBalancer": {}});
    }
}

fn node_ports(spec: &Value) -> Vec<u64> {
    spec["ports"].as_array().into_iter().flatten().filter_map(|p| p["nodePort"].as_u64()).collect()
}

fn keep_node_ports(spec: &mut Value, old: &Value) {
    if !matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer")) {
        return;
    }
    each(&mut spec["ports"], |port| {
        let same = old["ports"].as_array().into_iter().flatten().find(|o| o["port"] == port["port"] && o["protocol"] == port["protocol"]);
        if let Some(number) = same.map(|o| o["nodePort"].clone()).filter(|n| !n.is_null()) {
            set(port, "nodePort", number);
        }
    });
}

/// A free service address: where the name's hash points, or the next one that is free, so that the same manifests get the
/// same addresses in each lab.
fn free_address(others: &[&Value], name: &str) -> Option<String> {
    let used: std::collections::BTreeSet<&str> = others.iter().filter_map(|o| o["spec"]["clusterIP"].as_str()).collect();
    // FNV-1a: small and the same on every machine.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let start = u16::try_from(hash % 0xff00).unwrap_or_default();
    (0..0xff00_u16).map(|i| 10 + (start.wrapping_add(i) % 0xff00)).find_map(|n| {
        let [hi, lo] = n.to_be_bytes();
        let address = Ipv4Addr::new(SERVICE_NET[0], SERVICE_NET[1], hi, lo).to_string();
        (!used.contains(address.as_str())).then_some(address)
    })
}
