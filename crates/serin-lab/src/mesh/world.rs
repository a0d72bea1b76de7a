//! The objects that routing depends on, read from the store at one instant.
//!
//! Deliberately keeps them as they are: what they mean is the room of `translate`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::hosts;
use crate::store::{Object, Resource, Store};

/// Where Istio's own objects for all live.
pub(super) const ROOT_NAMESPACE: &str = "istio-system";

/// One address behind a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Endpoint {
    /// Its address.
    pub(super) ip: Ipv4Addr,
    /// Its port.
    pub(super) port: u16,
    /// Labels of its pod.
    pub(super) labels: BTreeMap<String, String>,
    /// The Deployment that owns its pod.
    pub(super) workload: String,
    /// The pod's namespace.
    pub(super) namespace: String,
}

/// A service that callers can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// Its full name.
    pub(super) host: String,
    /// Its ports: number and name.
    pub(super) ports: Vec<(u16, String)>,
    /// Ready addresses by port number.
    pub(super) endpoints: BTreeMap<u16, Vec<Endpoint>>,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    /// Services by host.
    pub(super) services: BTreeMap<String, Service>,
    /// DestinationRules, oldest first.
    pub(super) rules: Vec<Object>,
    /// VirtualServices, oldest first.
    pub(super) routes: Vec<Object>,
    /// Gateways.
    pub(super) gateways: Vec<Object>,
    /// Version of the store.
    pub(super) version: u64,
}

/// The kinds that a change of routing can come from.
pub(super) const KINDS: [(&str, &str); 7] = [
    ("", "services"),
    ("", "pods"),
    ("discovery.k8s.io", "endpointslices"),
    ("networking.istio.io", "virtualservices"),
    ("networking.istio.io", "destinationrules"),
    ("networking.istio.io", "gateways"),
    ("networking.istio.io", "serviceentries"),
];

/// A string at a JSON pointer; empty if it is not there.
pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// A list at a JSON pointer; empty if it is not there.
pub(super) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl World {
    /// Reads the store.
    pub(super) fn read(store: &Store) -> Self {
        let version = store.version();
        let all = |group: &str, plural: &str| store.list(&Resource::new(group, plural), None).0;
        let aged = |mut objects: Vec<Object>| {
            objects.retain(|o| o.pointer("/metadata/deletionTimestamp").is_none());
            objects.sort_by_key(|o| (text(o, "/metadata/creationTimestamp").to_string(), text(o, "/metadata/namespace").to_string(), text(o, "/metadata/name").to_string()));
            objects
        };
        let pods = all("", "pods");
        let by_name: BTreeMap<(&str, &str), &Object> = pods.iter().map(|p| ((text(p, "/metadata/namespace"), text(p, "/metadata/name")), p)).collect();
        let mut services = BTreeMap::new();
        for service in all("", "services") {
            let (namespace, name) = (text(&service, "/metadata/namespace"), text(&service, "/metadata/name"));
            let port = |p: &Value| Some((u16::try_from(p["port"].as_u64()?).ok()?, text(p, "/name").to_string()));
            let ports: Vec<(u16, String)> = list(&service, "/spec/ports").iter().filter_map(port).collect();
            services.insert(hosts::fqdn(name, namespace), Service { host: hosts::fqdn(name, namespace), ports, endpoints: BTreeMap::new() });
        }
        for slice in all("discovery.k8s.io", "endpointslices") {
            let namespace = text(&slice, "/metadata/namespace");
            let owner = slice.pointer("/metadata/labels/kubernetes.io~1service-name").and_then(Value::as_str).unwrap_or_default();
            if let Some(service) = services.get_mut(&hosts::fqdn(owner, namespace)) {
                add_slice(service, &slice, namespace, &by_name);
            }
        }
        for service in services.values_mut() {
            for endpoints in service.endpoints.values_mut() {
                endpoints.sort();
                endpoints.dedup();
            }
        }
        for entry in all("networking.istio.io", "serviceentries") {
            add_entry(&mut services, &entry);
        }
        Self {
            services,
            rules: aged(all("networking.istio.io", "destinationrules")),
            routes: aged(all("networking.istio.io", "virtualservices")),
            gateways: aged(all("networking.istio.io", "gateways")),
            version,
        }
    }
}

fn add_slice(service: &mut Service, slice: &Value, namespace: &str, pods: &BTreeMap<(&str, &str), &Object>) {
    for port in list(slice, "/ports") {
        let (name, Some(target)) = (text(port, "/name"), port["port"].as_u64().and_then(|p| u16::try_from(p).ok())) else { continue };
        // A slice's port carries the name of the service's port; a single unnamed one needs none.
        let Some((number, _)) = service.ports.iter().find(|(_, n)| n == name) else { continue };
        let into = service.endpoints.entry(*number).or_default();
        for endpoint in list(slice, "/endpoints") {
            let condition = |c: &str| endpoint.pointer(&format!("/conditions/{c}")).and_then(Value::as_bool);
            if condition("ready") == Some(false) || condition("terminating") == Some(true) {
                continue;
            }
            let pod = pods.get(&(namespace, text(endpoint, "/targetRef/name")));
            let labels = pod.and_then(|p| p.pointer("/metadata/labels")).and_then(Value::as_object);
            let labels: BTreeMap<String, String> =
                labels.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string()))).collect();
            for address in list(endpoint, "/addresses") {
                if let Some(ip) = address.as_str().and_then(|a| a.parse().ok()) {
                    let workload = pod.map_or_else(|| "unknown".to_string(), |p| workload(p, &labels));
                    into.push(Endpoint { ip, port: target, labels: labels.clone(), workload, namespace: namespace.to_string() });
                }
            }
        }
    }
}

/// The Deployment above a pod's ReplicaSet, by its name without the template's hash; another owner by its own name.
fn workload(pod: &Value, labels: &BTreeMap<String, String>) -> String {
    let owner = list(pod, "/metadata/ownerReferences").iter().find(|o| o["controller"] == Value::Bool(true));
    let Some(owner) = owner else { return text(pod, "/metadata/name").to_string() };
    let name = text(owner, "/name");
    let hash = labels.get("pod-template-hash");
    hash.and_then(|h| name.strip_suffix(h.as_str())).and_then(|n| n.strip_suffix('-')).unwrap_or(name).to_string()
}

/// A ServiceEntry with addresses of its own; others are left to DNS, which the lab does not play.
fn add_entry(services: &mut BTreeMap<String, Service>, entry: &Value) {
    let ports: Vec<(u16, String, u16)> = list(entry, "/spec/ports")
        .iter()
        .filter_map(|p| {
            let number = u16::try_from(p["number"].as_u64()?).ok()?;
            let target = p["targetPort"].as_u64().and_then(|t| u16::try_from(t).ok()).unwrap_or(number);
            Some((number, text(p, "/name").to_string(), target))
        })
        .collect();
    for host in list(entry, "/spec/hosts").iter().filter_map(Value::as_str) {
        let mut service = Service { host: host.to_string(), ports: ports.iter().map(|(n, name, _)| (*n, name.clone())).collect(), endpoints: BTreeMap::new() };
        for (number, name, target) in &ports {
            for endpoint in list(entry, "/spec/endpoints") {
                let Ok(ip) = text(endpoint, "/address").parse() else { continue };
                let own = endpoint.pointer(&format!("/ports/{name}")).and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok());
                let labels = endpoint["labels"].as_object().into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string()))).collect();
                service.endpoints.entry(*number).or_default().push(Endpoint {
                    ip,
                    port: own.unwrap_or(*target),
                    labels,
                    workload: "unknown".into(),
                    namespace: text(entry, "/metadata/namespace").to_string(),
                });
            }
        }
        services.entry(host.to_string()).or_insert(service);
    }
}
