//! The objects that routing depends on, read from the store at one instant.
//!
//! Deliberately keeps them as they are: what they mean is the room of `translate`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::hosts;
use super::translate::Complaint;
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

impl Endpoint {
    fn first_label(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.labels.get(*name)).map(String::as_str)
    }

    /// The name under which Istio groups workloads: from labels, else the workload's own.
    pub(super) fn canonical_service(&self) -> &str {
        let labels = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
        self.first_label(&labels).unwrap_or(&self.workload)
    }

    /// The version beside [`Self::canonical_service`].
    pub(super) fn canonical_revision(&self) -> &str {
        let labels = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
        self.first_label(&labels).unwrap_or("latest")
    }
}

/// What is spoken at a port, as far as the mesh cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1; also ports that do not say: Istio looks at the bytes.
    Http,
    /// HTTP/2 without TLS; gRPC.
    Http2,
    /// What is not looked into: HTTP rules do not apply.
    Tcp,
}

impl Protocol {
    /// From `appProtocol`, else from the port's name up to the first dash.
    fn of(port: &Value) -> Self {
        let declared = port["appProtocol"].as_str().map(str::to_ascii_lowercase);
        let name = text(port, "/name").to_ascii_lowercase();
        // `grpc-web` is the one protocol with a dash in it, and is HTTP.
        let by_name = || if name.starts_with("grpc-web") { "http" } else { name.split('-').next().unwrap_or_default() };
        match declared.as_deref().unwrap_or_else(by_name) {
            "http2" | "grpc" | "kubernetes.io/h2c" => Self::Http2,
            "tcp" | "tls" | "https" | "mongo" | "redis" | "mysql" | "udp" | "kubernetes.io/wss" => Self::Tcp,
            _ => Self::Http,
        }
    }
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// As callers know it.
    pub(super) number: u16,
    /// Its name; may be empty where there is one only.
    pub(super) name: String,
    /// What is spoken there.
    pub(super) protocol: Protocol,
}

/// A service that callers can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// Its full name.
    pub(super) host: String,
    /// Where its object is.
    pub(super) namespace: String,
    /// Its ports.
    pub(super) ports: Vec<Port>,
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
    /// What of services the lab does not play.
    pub(super) complaints: Vec<Complaint>,
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

/// A field that is there and not null.
pub(super) fn present<'a>(of: &'a Value, field: &str) -> Option<&'a Value> {
    of.get(field).filter(|v| !v.is_null())
}

/// A list at a JSON pointer; empty if it is not there.
pub(super) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// How closely an object's `exportTo` means callers of a namespace, closest first; `None`: it is not for them. Istio hears a VirtualService that
/// its own namespace keeps to itself before one that names the callers' namespace, and that before one for all, whichever is older.
pub(super) fn exported(object: &Value, to: &str) -> Option<u8> {
    let exports = list(object, "/spec/exportTo");
    let at = text(object, "/metadata/namespace");
    let has = |wanted: &str| exports.iter().filter_map(Value::as_str).any(|e| e == wanted);
    if exports.is_empty() || has("*") {
        return Some(2);
    }
    if has("~") {
        return None;
    }
    (has(to) || (at == to && has("."))).then_some(if at == to { 0 } else { 1 })
}

impl World {
    /// Reads the store.
    pub(super) fn read(store: &Store) -> Self {
        let version = store.version();
        let all = |group: &str, plural: &str| store.list(&Resource::new(group, plural), None).0;
        let aged = |mut objects: Vec<Object>| {
            objects.retain(|o| o.pointer("/metadata/deletionTimestamp").is_none());
            objects.sort_by_key(|o| {
                (
                    text(o, "/metadata/creationTimestamp").to_string(),
                    text(o, "/metadata/namespace").to_string(),
                    text(o, "/metadata/name").to_string(),
                )
            });
            objects
        };
        let pods = all("", "pods");
        let by_name: BTreeMap<(&str, &str), &Object> =
            pods.iter().map(|p| ((text(p, "/metadata/namespace"), text(p, "/metadata/name")), p)).collect();
        let mut services = BTreeMap::new();
        let mut complaints = Vec::new();
        for service in all("", "services") {
            let (namespace, name) = (text(&service, "/metadata/namespace"), text(&service, "/metadata/name"));
            if text(&service, "/spec/type") == "ExternalName" {
                complaints.push(Complaint::about(
                    "Service",
                    &service,
                    "type ExternalName is not played by the lab's mesh: callers get 404, NR",
                ));
                continue;
            }
            let port = |p: &Value| {
                Some(Port {
                    number: u16::try_from(p["port"].as_u64()?).ok()?,
                    name: text(p, "/name").to_string(),
                    protocol: Protocol::of(p),
                })
            };
            // TCP is the default, and UDP is no business of a mesh.
            let ports: Vec<Port> =
                list(&service, "/spec/ports").iter().filter(|p| matches!(text(p, "/protocol"), "" | "TCP")).filter_map(port).collect();
            for port in ports.iter().filter(|p| p.protocol == Protocol::Tcp) {
                complaints.push(Complaint::about("Service", &service, format!(
                    "port {} is TCP by its name or appProtocol, so HTTP rules do not apply to it, as with Istio: the lab forwards each request to any of its pods",
                    port.number
                )));
            }
            let host = hosts::fqdn(name, namespace);
            services.insert(host.clone(), Service { host, namespace: namespace.to_string(), ports, endpoints: BTreeMap::new() });
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
            add_entry(&mut services, &entry, &mut complaints);
        }
        Self {
            services,
            rules: aged(all("networking.istio.io", "destinationrules")),
            routes: aged(all("networking.istio.io", "virtualservices")),
            gateways: aged(all("networking.istio.io", "gateways")),
            complaints,
            version,
        }
    }
}

fn add_slice(service: &mut Service, slice: &Value, namespace: &str, pods: &BTreeMap<(&str, &str), &Object>) {
    for port in list(slice, "/ports") {
        let (name, Some(target)) = (text(port, "/name"), port["port"].as_u64().and_then(|p| u16::try_from(p).ok())) else { continue };
        // A slice's port carries the name of the service's port; a single unnamed one needs none.
        let Some(own) = service.ports.iter().find(|p| p.name == name) else { continue };
        let into = service.endpoints.entry(own.number).or_default();
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

/// A ServiceEntry with addresses of its own; names are left to DNS, which the lab does not play.
fn add_entry(services: &mut BTreeMap<String, Service>, entry: &Value, complaints: &mut Vec<Complaint>) {
    let mut complain = |what: String| complaints.push(Complaint::about("ServiceEntry", entry, what));
    let namespace = text(entry, "/metadata/namespace");
    let mut ports = Vec::new();
    for p in list(entry, "/spec/ports") {
        let Some(number) = p["number"].as_u64().and_then(|n| u16::try_from(n).ok()) else { continue };
        let protocol = match text(p, "/protocol").to_ascii_uppercase().as_str() {
            "HTTP2" | "GRPC" => Protocol::Http2,
            "HTTP" | "" => Protocol::Http,
            other => {
                complain(format!("port {number} is {other}, which the lab does not play: only HTTP, HTTP2 and GRPC"));
                continue;
            }
        };
        let target = p["targetPort"].as_u64().and_then(|t| u16::try_from(t).ok()).unwrap_or(number);
        ports.push((Port { number, name: text(p, "/name").to_string(), protocol }, target));
    }
    let endpoints = list(entry, "/spec/endpoints");
    if endpoints.is_empty() {
        let what = if entry.pointer("/spec/workloadSelector").is_some() { "workloadSelector" } else { "resolution of names" };
        complain(format!("{what} is not played by the lab: only endpoints with an IPv4 address; callers get 503, UH"));
    }
    for host in list(entry, "/spec/hosts").iter().filter_map(Value::as_str) {
        let own_ports = ports.iter().map(|(p, _)| p.clone()).collect();
        let mut service =
            Service { host: host.to_ascii_lowercase(), namespace: namespace.to_string(), ports: own_ports, endpoints: BTreeMap::new() };
        for (port, target) in &ports {
            for endpoint in endpoints {
                let Ok(ip) = text(endpoint, "/address").parse() else {
                    complain(format!(
                        "endpoint {:?} is no IPv4 address, and the lab looks up no names: it is left out",
                        text(endpoint, "/address")
                    ));
                    continue;
                };
                let own = endpoint.pointer(&format!("/ports/{}", port.name)).and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok());
                let labels = endpoint["labels"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string())))
                    .collect();
                service.endpoints.entry(port.number).or_default().push(Endpoint {
                    ip,
                    port: own.unwrap_or(*target),
                    labels,
                    workload: "unknown".into(),
                    namespace: namespace.to_string(),
                });
            }
        }
        if services.contains_key(host) {
            complain(format!("host {host} is there already, and the lab does not put its endpoints together"));
        } else {
            services.insert(service.host.clone(), service);
        }
    }
}
