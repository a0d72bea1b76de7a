//! Services with a selector: their EndpointSlices, and the older Endpoints object.
//!
//! A pod that somebody has asked to end leaves the ready ones at once, in the same write that others see; whether
//! its process still runs does not matter here. Services without a selector are left alone, as in Kubernetes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::object::{
    add_owner, controlled_by, deleting, edit, flag, items, label, labels, map, name, namespace, number, owner_reference, pod_finished,
    pod_ready, pods, selects_map, text, trimmed, uid,
};
use super::queue::{Context, Requeue};
use crate::store::{Key, Object, Resource, Write, metadata};

/// The label that tells to which Service a slice belongs.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const COMPONENT: &str = "endpointslice-controller.k8s.io";

/// The largest slice that the API allows. Kubernetes splits at 100 to save bandwidth; in memory there is none to save,
/// and a pod that moves between slices is seen twice or not at all for a moment.
const SLICE_LENGTH: usize = 1_000;

/// Brings one Service's slices up to date.
pub fn reconcile(context: &Context, key: &Key) -> Requeue {
    let place = key.namespace.as_deref().unwrap_or_default();
    let Some(service) = context.store.get(key) else {
        // Its slices go with their owner.
        return Requeue::No;
    };
    let selector = service.pointer("/spec/selector");
    if deleting(&service)
        || selector.is_none_or(|s| s.as_object().is_none_or(serde_json::Map::is_empty))
        || text(&service, "/spec/type") == "ExternalName"
    {
        return Requeue::No;
    }
    let mut selected = pods(&context.store, place);
    selected.retain(|pod| selects_map(selector, labels(pod)) && !pod_finished(pod) && !text(pod, "/status/podIP").is_empty());
    write_slices(context, &service, &selected);
    write_endpoints(context, &service, &selected);
    Requeue::No
}

/// The ports of a Service as one pod has them: numbers resolved from names.
fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let resolve = |port: &Value| -> Option<Value> {
        let protocol = Some(text(port, "/protocol")).filter(|p| !p.is_empty()).unwrap_or("TCP");
        let target = match port.get("targetPort") {
            None | Some(Value::Null) => number(port, "/port", 0),
            Some(Value::String(target)) => match target.parse() {
                Ok(number) => number,
                Err(_) => named_port(pod, target, protocol)?,
            },
            Some(target) => match target.as_i64() {
                Some(0) | None => number(port, "/port", 0),
                Some(target) => target,
            },
        };
        let mut resolved = json!({"name": text(port, "/name"), "port": target, "protocol": protocol});
        if let Some(app) = port.get("appProtocol") {
            resolved["appProtocol"] = app.clone();
        }
        Some(resolved)
    };
    items(service, "/spec/ports").iter().filter_map(resolve).collect()
}

/// The number of a container port with a name.
fn named_port(pod: &Value, wanted: &str, protocol: &str) -> Option<i64> {
    let containers = items(pod, "/spec/initContainers").iter().filter(|c| text(c, "/restartPolicy") == "Always");
    containers.chain(items(pod, "/spec/containers")).flat_map(|c| items(c, "/ports")).find_map(|port| {
        let same_protocol = Some(text(port, "/protocol")).filter(|p| !p.is_empty()).unwrap_or("TCP") == protocol;
        (text(port, "/name") == wanted && same_protocol).then(|| number(port, "/containerPort", 0))
    })
}

fn write_slices(context: &Context, service: &Value, selected: &[Object]) {
    let publish = flag(service, "/spec/publishNotReadyAddresses");
    let mut groups: BTreeMap<String, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for pod in selected {
        let ports = ports(service, pod);
        let group = groups.entry(Value::from(ports.clone()).to_string()).or_insert_with(|| (ports, Vec::new()));
        let serving = pod_ready(pod);
        let ending = deleting(pod);
        let mut endpoint = json!({
            "addresses": [text(pod, "/status/podIP")],
            "conditions": {"ready": publish || serving && !ending, "serving": publish || serving, "terminating": ending},
            "targetRef": {"kind": "Pod", "name": name(pod), "namespace": namespace(pod), "uid": uid(pod)},
        });
        if let Some(node) = pod.pointer("/spec/nodeName") {
            endpoint["nodeName"] = node.clone();
        }
        if !text(pod, "/spec/hostname").is_empty() && text(pod, "/spec/subdomain") == name(service) {
            endpoint["hostname"] = pod["spec"]["hostname"].clone();
        }
        group.1.push(endpoint);
    }
    if groups.is_empty() {
        // An empty slice says "nobody"; no slice at all says "not looked at yet".
        groups.insert(String::new(), (Vec::new(), Vec::new()));
    }

    let resource = Resource::new("discovery.k8s.io", "endpointslices");
    let mut existing = context.store.list(&resource, Some(namespace(service))).0;
    existing.retain(|slice| {
        label(slice, SERVICE_NAME) == Some(name(service)) && label(slice, MANAGED_BY) == Some(COMPONENT) && controlled_by(slice, service)
    });
    let mut wanted: Vec<Value> = Vec::new();
    for (ports, mut endpoints) in groups.into_values() {
        endpoints.sort_by(|a, b| text(a, "/targetRef/name").cmp(text(b, "/targetRef/name")));
        if endpoints.is_empty() {
            wanted.push(slice(service, &ports, &[]));
        }
        for chunk in endpoints.chunks(SLICE_LENGTH) {
            wanted.push(slice(service, &ports, chunk));
        }
    }
    // Slices keep their ports where they can, so that a pod does not wander. Additions come before removals.
    let mut unmatched = Vec::new();
    for slice in wanted {
        match existing.iter().position(|old| trimmed(&old["ports"]) == trimmed(&slice["ports"])) {
            Some(at) => rewrite(context, &existing.remove(at), slice),
            None => unmatched.push(slice),
        }
    }
    for slice in unmatched {
        match existing.pop() {
            Some(old) => rewrite(context, &old, slice),
            None => {
                let id = format!("{}-{}", name(service), super::object::suffix());
                let key = Key::namespaced("discovery.k8s.io", "endpointslices", namespace(service), &id);
                // A name that is taken is tried again with the next change; five letters make that rare.
                if let Err(error) = context.store.create(&key, slice) {
                    tracing::warn!(service = name(service), %error, "create EndpointSlice");
                }
            }
        }
    }
    for old in existing {
        let key = Key::namespaced("discovery.k8s.io", "endpointslices", namespace(service), name(&old));
        // Gone already is as good.
        let _ = context.store.delete(&key, Some(uid(&old)), 0);
    }
}

fn slice(service: &Value, ports: &[Value], endpoints: &[Value]) -> Value {
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"generateName": format!("{}-", name(service)), "labels": copied_labels(service)},
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
    });
    add_owner(&mut slice, owner_reference("v1", "Service", service));
    slice
}

fn copied_labels(service: &Value) -> Value {
    let mut all = labels(service).cloned().unwrap_or_else(|| json!({}));
    all[SERVICE_NAME] = name(service).into();
    all[MANAGED_BY] = COMPONENT.into();
    if text(service, "/spec/clusterIP") == "None" {
        all["service.kubernetes.io/headless"] = "".into();
    }
    all
}

fn rewrite(context: &Context, old: &Value, new: Value) {
    let key = Key::namespaced("discovery.k8s.io", "endpointslices", namespace(old), name(old));
    edit(&context.store, &key, uid(old), Write::Whole, |slice| {
        slice["endpoints"] = new["endpoints"].clone();
        slice["ports"] = new["ports"].clone();
        metadata(slice).insert("labels".into(), new["metadata"]["labels"].clone());
    });
}

/// The object that EndpointSlices replaced; some clients still read it. Ready and not ready addresses per set of ports.
fn write_endpoints(context: &Context, service: &Value, selected: &[Object]) {
    let publish = flag(service, "/spec/publishNotReadyAddresses");
    #[derive(Default)]
    struct Group {
        ports: Vec<Value>,
        ready: Vec<Value>,
        not_ready: Vec<Value>,
    }
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for pod in selected.iter().filter(|pod| publish || !deleting(pod)) {
        let ports = ports(service, pod);
        let group = groups.entry(Value::from(ports.clone()).to_string()).or_insert_with(|| Group { ports, ..Group::default() });
        let address = json!({
            "ip": text(pod, "/status/podIP"), "nodeName": text(pod, "/spec/nodeName"),
            "targetRef": {"kind": "Pod", "name": name(pod), "namespace": namespace(pod), "uid": uid(pod)},
        });
        if publish || pod_ready(pod) { group.ready.push(address) } else { group.not_ready.push(address) }
    }
    let subsets: Vec<Value> = groups
        .into_values()
        .map(|Group { ports, ready, not_ready }| {
            let mut subset = json!({"ports": ports});
            if !ready.is_empty() {
                subset["addresses"] = ready.into();
            }
            if !not_ready.is_empty() {
                subset["notReadyAddresses"] = not_ready.into();
            }
            subset
        })
        .collect();
    let key = Key::namespaced("", "endpoints", namespace(service), name(service));
    let mut copied = labels(service).cloned().unwrap_or_else(|| json!({}));
    copied["endpoints.kubernetes.io/managed-by"] = "endpoint-controller".into();
    match context.store.get(&key) {
        Some(old) => {
            edit(&context.store, &key, uid(&old), Write::Whole, |endpoints| {
                endpoints["subsets"] = subsets.into();
                map(endpoints, "metadata").insert("labels".into(), copied);
                let owned = controlled_by(endpoints, service);
                if !owned {
                    metadata(endpoints).remove("ownerReferences");
                    add_owner(endpoints, owner_reference("v1", "Service", service));
                }
            });
        }
        None => {
            let mut endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"labels": copied}, "subsets": subsets});
            // A real cluster deletes it by name; an owner reference does the same without another watch.
            add_owner(&mut endpoints, owner_reference("v1", "Service", service));
            if let Err(error) = context.store.create(&key, endpoints) {
                tracing::warn!(service = name(service), %error, "create Endpoints");
            }
        }
    }
}
