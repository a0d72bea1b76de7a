//! From Kubernetes' and Istio's objects to Envoy's configuration, with Istio's semantics, its traps included.
//!
//! Pure. What is not understood is returned as a complaint about the object, never left out in silence.
//!
//! - Weights are relative; a single destination has it all; a total of 0 is sent as it is, and Envoy refuses it as Istio's does.
//! - A VirtualService without `mesh` among its gateways does nothing for callers inside.
//! - At sidecars the oldest VirtualService for a host wins entirely; at gateways they are merged.
//! - A subset that no DestinationRule has becomes a cluster that does not exist: 503, NC.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::google::protobuf::{Struct, UInt32Value, Value as PbValue, value::Kind};
use serde_json::Value;

use super::hosts;
use super::routes;
use super::world::{Endpoint, ROOT_NAMESPACE, Service, World, list, text};

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
        Self { kind: kind.into(), namespace: text(object, "/metadata/namespace").into(), name: text(object, "/metadata/name").into(), what: what.into() }
    }
}

/// The route table of callers inside the mesh.
pub const OUTBOUND: &str = "outbound";

/// The name that Istio gives to a cluster: `outbound|80|v1|my-app.default.svc.cluster.local`.
pub fn cluster_name(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// Everything for callers in namespace `caller`.
pub(super) fn translate(world: &World, caller: &str) -> (Resources, Vec<Complaint>) {
    let mut out = Resources::default();
    let mut complaints = Vec::new();
    for service in world.services.values() {
        let rule = Rule::of(world, caller, service, &mut complaints);
        for (port, _) in &service.ports {
            for (subset, labels, policy) in std::iter::once((String::new(), BTreeMap::new(), None)).chain(rule.subsets.iter().cloned()) {
                let name = cluster_name(*port, &subset, &service.host);
                let selects = |e: &&Endpoint| labels.iter().all(|(k, v)| e.labels.get(k) == Some(v));
                let endpoints: Vec<&Endpoint> = service.endpoints.get(port).into_iter().flatten().filter(selects).collect();
                out.endpoints.insert(name.clone(), load_assignment(&name, &endpoints));
                let policies = [policy.as_ref(), rule.policy.as_ref()];
                out.clusters.insert(name.clone(), eds_cluster(&name, *port, &policies, &rule, &mut complaints));
            }
        }
    }
    out.routes.insert(OUTBOUND.into(), routes::outbound(world, caller, &mut complaints));
    for (server, table) in routes::gateways(world, &mut complaints) {
        out.routes.insert(server.name.clone(), table);
        out.servers.push(server);
    }
    complaints.sort();
    complaints.dedup();
    (out, complaints)
}

type Subset = (String, BTreeMap<String, String>, Option<Value>);

/// What DestinationRules say of a service, for these callers.
#[derive(Default)]
struct Rule<'a> {
    subsets: Vec<Subset>,
    policy: Option<Value>,
    object: Option<&'a Value>,
}

impl<'a> Rule<'a> {
    /// The caller's namespace first, then the service's, then the root's; the first that has a rule replaces the others. Within
    /// it subsets are put together, and the first of two equal names is heard.
    fn of(world: &'a World, caller: &str, service: &Service, complaints: &mut Vec<Complaint>) -> Self {
        let namespace = service.host.strip_suffix(".svc.cluster.local").and_then(|h| h.split_once('.')).map_or("", |(_, n)| n);
        let fits = |rule: &&Value, place: &str| {
            let at = text(rule, "/metadata/namespace");
            let exports = list(rule, "/spec/exportTo");
            let heard = exports.is_empty() || exports.iter().filter_map(Value::as_str).any(|e| e == "*" || e == caller || (e == "." && at == caller));
            at == place && heard && hosts::covers(&hosts::resolve(text(rule, "/spec/host"), at), &service.host)
        };
        for place in [caller, namespace, ROOT_NAMESPACE] {
            let rules: Vec<&Value> = world.rules.iter().map(|r| &**r).filter(|r| fits(r, place)).collect();
            if rules.is_empty() {
                continue;
            }
            let mut found = Self { object: rules.first().copied(), ..Self::default() };
            for rule in rules {
                if rule.pointer("/spec/workloadSelector").is_some() {
                    complaints.push(Complaint::about("DestinationRule", rule, "workloadSelector is not played by the lab: the rule holds for every caller"));
                }
                found.policy = found.policy.or_else(|| rule.pointer("/spec/trafficPolicy").cloned());
                for subset in list(rule, "/spec/subsets") {
                    let name = text(subset, "/name").to_string();
                    if found.subsets.iter().any(|(n, ..)| *n == name) {
                        complaints.push(Complaint::about("DestinationRule", rule, format!("subset {name:?} is defined before, so this definition is dropped")));
                        continue;
                    }
                    let labels = subset["labels"].as_object().into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string())));
                    found.subsets.push((name, labels.collect(), subset.get("trafficPolicy").cloned()));
                }
            }
            return found;
        }
        Self::default()
    }
}

fn load_assignment(name: &str, endpoints: &[&Endpoint]) -> endpoint::ClusterLoadAssignment {
    let lb = endpoints.iter().map(|e| endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(socket_address(&e.ip.to_string(), e.port)),
            ..Default::default()
        })),
        metadata: Some(metadata(&[
            ("workload", &e.workload),
            ("namespace", &e.namespace),
            ("app", e.labels.get("app").map_or("unknown", String::as_str)),
            ("version", e.labels.get("version").map_or("unknown", String::as_str)),
        ])),
        ..Default::default()
    });
    let locality = endpoint::LocalityLbEndpoints { lb_endpoints: lb.collect(), ..Default::default() };
    // Sent even when empty, or the cluster would wait 15 s for it.
    endpoint::ClusterLoadAssignment { cluster_name: name.into(), endpoints: vec![locality], ..Default::default() }
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

/// The first of the policies that has a field: a subset's own, then the rule's.
fn policy<'v>(policies: &[Option<&'v Value>], port: u16, path: &str) -> Option<&'v Value> {
    policies.iter().flatten().find_map(|p| {
        let levels = list(p, "/portLevelSettings").iter().find(|l| l.pointer("/port/number").and_then(Value::as_u64) == Some(port.into()));
        levels.and_then(|l| l.pointer(path)).or_else(|| p.pointer(path))
    })
}

fn eds_cluster(name: &str, port: u16, policies: &[Option<&Value>], rule: &Rule<'_>, complaints: &mut Vec<Complaint>) -> cluster::Cluster {
    use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy};
    let get = |path: &str| policy(policies, port, path);
    let number = |path: &str| get(path).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let u32_value = |path: &str| number(path).map(|value| UInt32Value { value });
    let mut complain = |what: String| {
        if let Some(object) = rule.object {
            complaints.push(Complaint::about("DestinationRule", object, what));
        }
    };
    let lb_policy = match get("/loadBalancer/simple").and_then(Value::as_str) {
        _ if get("/loadBalancer/consistentHash").is_some() => LbPolicy::RingHash,
        None | Some("UNSPECIFIED" | "LEAST_REQUEST" | "LEAST_CONN") => LbPolicy::LeastRequest,
        Some("ROUND_ROBIN") => LbPolicy::RoundRobin,
        Some("RANDOM") => LbPolicy::Random,
        Some(other) => {
            complain(format!("load balancer {other} is not played by the lab: LEAST_REQUEST is used"));
            LbPolicy::LeastRequest
        }
    };
    if get("/connectionPool/http/maxRequestsPerConnection").is_some() {
        complain("connectionPool.http.maxRequestsPerConnection is not played by the lab".into());
    }
    if let Some(mode) = get("/tls/mode").and_then(Value::as_str).filter(|m| !matches!(*m, "DISABLE" | "ISTIO_MUTUAL")) {
        complain(format!("TLS mode {mode} is not played by the lab: its pods are called in plain text"));
    }
    let thresholds = cluster::circuit_breakers::Thresholds {
        max_connections: u32_value("/connectionPool/tcp/maxConnections").or(Some(UInt32Value { value: u32::MAX })),
        max_pending_requests: u32_value("/connectionPool/http/http1MaxPendingRequests").or(Some(UInt32Value { value: u32::MAX })),
        max_requests: u32_value("/connectionPool/http/http2MaxRequests").or(Some(UInt32Value { value: u32::MAX })),
        max_retries: u32_value("/connectionPool/http/maxRetries").or(Some(UInt32Value { value: u32::MAX })),
        track_remaining: true,
        ..Default::default()
    };
    let outlier = get("/outlierDetection").map(|o| {
        let duration = |field: &str| o[field].as_str().and_then(routes::duration);
        let count = |field: &str| o[field].as_u64().and_then(|n| u32::try_from(n).ok()).map(|value| UInt32Value { value });
        cluster::OutlierDetection {
            consecutive_5xx: count("consecutive5xxErrors").or_else(|| count("consecutiveErrors")),
            enforcing_consecutive_5xx: Some(UInt32Value { value: 100 }),
            consecutive_gateway_failure: count("consecutiveGatewayErrors"),
            enforcing_consecutive_gateway_failure: count("consecutiveGatewayErrors").map(|_| UInt32Value { value: 100 }),
            interval: duration("interval"),
            base_ejection_time: duration("baseEjectionTime"),
            max_ejection_percent: count("maxEjectionPercent"),
            enforcing_success_rate: Some(UInt32Value { value: 0 }),
            ..Default::default()
        }
    });
    // Istio turns the panic threshold off where outliers are ejected: an ejected one-pod canary is no upstream at all.
    let min_health = get("/outlierDetection").map(|o| f64::from(u32::try_from(o["minHealthPercent"].as_u64().unwrap_or(0)).unwrap_or(0)));
    cluster::Cluster {
        name: name.into(),
        alt_stat_name: name.replace(['|', '.'], "_"),
        connect_timeout: get("/connectionPool/tcp/connectTimeout").and_then(Value::as_str).and_then(routes::duration).or_else(|| routes::duration("10s")),
        lb_policy: lb_policy as i32,
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), ..Default::default() }),
        circuit_breakers: Some(cluster::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }),
        outlier_detection: outlier,
        common_lb_config: min_health.map(|value| cluster::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(envoy_types::pb::envoy::r#type::v3::Percent { value }),
            ..Default::default()
        }),
        // A pod that is taken out of the list is not called again, even on a connection that stands.
        ignore_health_on_host_removal: true,
        ..Default::default()
    }
}
