//! From Kubernetes' and Istio's objects to Envoy's configuration, with Istio's semantics, its traps included.
//!
//! Pure. What is not understood is returned as a complaint about the object, never left out in silence.
//!
//! - Weights are relative; a single destination has it all; a total of 0 is sent as it is, and Envoy refuses it as Istio's does.
//! - A VirtualService without `mesh` among its gateways does nothing for callers inside.
//! - At sidecars the oldest VirtualService for a host wins entirely; at gateways they are merged.
//! - A subset that no DestinationRule has becomes a cluster that does not exist: 503, NC.
//! - A port whose name says TCP is not routed by HTTP rules.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::google::protobuf::{Struct, Value as PbValue, value::Kind};
use serde_json::Value;

use super::GATEWAY;
use super::clusters;
use super::routes;
use super::rules::Rule;
use super::world::{Endpoint, Port, Service, World, text};

/// Envoy's configuration, by kind and name. Compared by value: what did not change is not sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// Clusters.
    pub clusters: BTreeMap<String, cluster::Cluster>,
    /// Their endpoints.
    pub endpoints: BTreeMap<String, endpoint::ClusterLoadAssignment>,
    /// Route tables: `outbound`, and one per gateway port.
    pub routes: BTreeMap<String, route::RouteConfiguration>,
    /// Servers of gateways: `gateway NAMESPACE/NAME:PORT`.
    pub servers: Vec<Server>,
}

/// A port of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name of its route table and listener.
    pub name: String,
    /// The Gateway, as `namespace/name`.
    pub gateway: String,
    /// The port as written; the real one is of the kernel's choice.
    pub port: u16,
}

/// Who calls: what rules say of callers is held against it.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Its namespace.
    pub(super) namespace: String,
    /// Labels of its pod.
    pub(super) labels: BTreeMap<String, String>,
    /// The port where it calls, whatever port the service has.
    pub(super) port: u16,
}

impl Caller {
    /// A proxy of the lab, whose pod has the labels of [`Caller::labels`].
    pub(super) fn new(workload: &str, namespace: &str, port: u16) -> Self {
        Self { namespace: namespace.into(), labels: Self::labels(workload), port }
    }

    /// The labels of a proxy's pod.
    pub(super) fn labels(workload: &str) -> BTreeMap<String, String> {
        let mut labels: BTreeMap<String, String> =
            [("app", workload), ("serin.dev/lab", "proxy")].map(|(k, v)| (k.to_string(), v.to_string())).into();
        if workload == GATEWAY.0 {
            // By which Gateways select it: Istio's own has it.
            labels.insert("istio".into(), "ingressgateway".into());
        }
        labels
    }

    /// Whether the pod has all of these labels; none asked for means yes.
    pub(super) fn has(&self, wanted: &Value) -> bool {
        wanted.as_object().into_iter().flatten().all(|(name, value)| self.labels.get(name).map(String::as_str) == value.as_str())
    }
}

/// What the lab cannot do, about which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// `VirtualService`, ….
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is left out, and what it means.
    pub what: String,
}

impl Complaint {
    pub(super) fn about(kind: &str, object: &Value, what: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            namespace: text(object, "/metadata/namespace").into(),
            name: text(object, "/metadata/name").into(),
            what: what.into(),
        }
    }
}

/// The route table of callers inside the mesh.
pub const OUTBOUND: &str = "outbound";

/// The name that Istio gives to a cluster: `outbound|80|v1|my-app.default.svc.cluster.local`.
pub fn cluster_name(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// Everything: services and inside routes for `caller`, and all gateways, played by `gateway`. Both use the clusters as `caller` sees them.
pub(super) fn translate(world: &World, caller: &Caller, gateway: &Caller) -> (Resources, Vec<Complaint>) {
    let mut out = Resources::default();
    let mut complaints = world.complaints.clone();
    let rules: BTreeMap<&str, Rule<'_>> =
        world.services.values().map(|service| (service.host.as_str(), Rule::of(world, caller, service, &mut complaints))).collect();
    for service in world.services.values() {
        let rule = &rules[service.host.as_str()];
        for port in &service.ports {
            add(&mut out, service, port, rule, "", &BTreeMap::new());
            for (subset, labels, _) in &rule.subsets {
                add(&mut out, service, port, rule, subset, labels);
            }
        }
    }
    let view = routes::View { world, caller, gateway, rules: &rules };
    out.routes.insert(OUTBOUND.into(), routes::outbound(&view, &mut complaints));
    for (server, table) in routes::gateways(&view, &mut complaints) {
        out.routes.insert(server.name.clone(), table);
        out.servers.push(server);
    }
    complaints.sort();
    complaints.dedup();
    (out, complaints)
}

/// One cluster with its endpoints: those that have all of the subset's labels.
fn add(out: &mut Resources, service: &Service, port: &Port, rule: &Rule<'_>, subset: &str, labels: &BTreeMap<String, String>) {
    let selects = |e: &&Endpoint| labels.iter().all(|(k, v)| e.labels.get(k) == Some(v));
    let endpoints: Vec<&Endpoint> = service.endpoints.get(&port.number).into_iter().flatten().filter(selects).collect();
    let name = cluster_name(port.number, subset, &service.host);
    // A number may stand twice, for TCP and for UDP: the first is called.
    out.endpoints.entry(name.clone()).or_insert_with(|| clusters::load_assignment(&name, &endpoints));
    out.clusters.entry(name.clone()).or_insert_with(|| clusters::cluster(&name, service, port, rule.policy_of(subset, port.number)));
}

/// Metadata under `istio`, from which the access logger takes its labels.
pub(super) fn metadata(fields: &[(&str, &str)]) -> core::Metadata {
    let value = |v: &str| PbValue { kind: Some(Kind::StringValue(v.to_string())) };
    let fields = fields.iter().map(|(k, v)| ((*k).to_string(), value(v))).collect();
    core::Metadata { filter_metadata: [("istio".to_string(), Struct { fields })].into(), ..Default::default() }
}

/// An IPv4 or IPv6 address and port.
pub(super) fn socket_address(ip: &str, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: ip.into(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

/// Configuration that comes over the same stream.
pub(super) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})),
        resource_api_version: core::ApiVersion::V3 as i32,
        ..Default::default()
    }
}
