//! Services and their subsets as Envoy's clusters and endpoint lists, with the traffic policies that DestinationRules set.
//!
//! Pure.

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream;
use envoy_types::pb::google::protobuf::{Any, UInt32Value, UInt64Value};
use envoy_types::util::pack_any;
use serde_json::Value;

use super::http::duration;
use super::rules::Policy;
use super::telemetry;
use super::translate::{ads, metadata, socket_address};
use super::world::{Endpoint, Port, Protocol, Service, present};

const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The ready endpoints of a cluster. Sent even when there are none, or the cluster would wait 15 s for them.
pub(super) fn load_assignment(name: &str, endpoints: &[&Endpoint]) -> endpoint::ClusterLoadAssignment {
    let lb = endpoints.iter().map(|e| endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(socket_address(&e.ip.to_string(), e.port)),
            ..Default::default()
        })),
        // What the access log tells of who answered.
        metadata: Some(metadata(&[
            ("workload", &e.workload),
            ("namespace", &e.namespace),
            ("app", label(e, "app", "unknown")),
            ("version", label(e, "version", "unknown")),
            ("canonical_service", e.canonical_service()),
            ("canonical_revision", e.canonical_revision()),
            ("cluster", telemetry::CLUSTER),
        ])),
        ..Default::default()
    });
    let locality = endpoint::LocalityLbEndpoints { lb_endpoints: lb.collect(), ..Default::default() };
    endpoint::ClusterLoadAssignment { cluster_name: name.into(), endpoints: vec![locality], ..Default::default() }
}

fn label<'e>(endpoint: &'e Endpoint, name: &str, otherwise: &'e str) -> &'e str {
    endpoint.labels.get(name).map_or(otherwise, String::as_str)
}

/// The cluster of a service's port, as a whole or a subset.
pub(super) fn cluster(name: &str, service: &Service, port: &Port, policy: Policy<'_>) -> cluster::Cluster {
    use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
    let pool = |path: &str| policy.pool.and_then(|p| p.pointer(path));
    let limit = |path: &str| Some(UInt32Value { value: pool(path).and_then(number).filter(|n| *n > 0).unwrap_or(u32::MAX) });
    let (lb_policy, lb_config) = balancer(policy.balancer);
    let thresholds = cluster::circuit_breakers::Thresholds {
        max_connections: limit("/tcp/maxConnections"),
        max_pending_requests: limit("/http/http1MaxPendingRequests"),
        max_requests: limit("/http/http2MaxRequests"),
        max_retries: limit("/http/maxRetries"),
        track_remaining: true,
        ..Default::default()
    };
    // Istio turns the panic threshold off where outliers are ejected: an ejected one-pod canary is no upstream at all.
    let health = policy.outlier.map(|o| f64::from(number(&o["minHealthPercent"]).unwrap_or(0)));
    // A host that is no Kubernetes Service is counted under the host itself.
    let short = super::hosts::service(&service.host).map_or(service.host.as_str(), |(name, _)| name);
    cluster::Cluster {
        name: name.into(),
        alt_stat_name: name.replace(['|', '.'], "_"),
        connect_timeout: pool("/tcp/connectTimeout").and_then(Value::as_str).and_then(duration).or_else(|| duration("10s")),
        lb_policy: lb_policy as i32,
        lb_config,
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), ..Default::default() }),
        circuit_breakers: Some(cluster::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }),
        outlier_detection: policy.outlier.map(outlier),
        common_lb_config: health.map(|value| cluster::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(envoy_types::pb::envoy::r#type::v3::Percent { value }),
            ..Default::default()
        }),
        typed_extension_protocol_options: protocol(port, policy.pool).map(|any| (PROTOCOL_OPTIONS.to_string(), any)).into_iter().collect(),
        metadata: Some(metadata(&[("service", &service.host), ("service_name", short)])),
        // A pod that is taken out of the list is not called again, even on a connection that stands.
        ignore_health_on_host_removal: true,
        ..Default::default()
    }
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|n| u32::try_from(n).ok())
}

fn balancer(policy: Option<&Value>) -> (cluster::cluster::LbPolicy, Option<cluster::cluster::LbConfig>) {
    use cluster::cluster::{LbConfig, LbPolicy, MaglevLbConfig, RingHashLbConfig};
    let Some(policy) = policy else { return (LbPolicy::LeastRequest, None) };
    let size = |path: &str| policy.pointer(path).and_then(Value::as_u64).map(|value| UInt64Value { value });
    if policy.pointer("/consistentHash/maglev").is_some() {
        let config = MaglevLbConfig { table_size: size("/consistentHash/maglev/tableSize") };
        return (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(config)));
    }
    if present(policy, "consistentHash").is_some() {
        let ring = size("/consistentHash/ringHash/minimumRingSize").or_else(|| size("/consistentHash/minimumRingSize"));
        let config = RingHashLbConfig { minimum_ring_size: ring, ..Default::default() };
        return (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config)));
    }
    let kind = match policy["simple"].as_str() {
        Some("ROUND_ROBIN") => LbPolicy::RoundRobin,
        Some("RANDOM") => LbPolicy::Random,
        // LEAST_REQUEST is Istio's default; what else is written was complained about.
        _ => LbPolicy::LeastRequest,
    };
    (kind, None)
}

fn outlier(o: &Value) -> cluster::OutlierDetection {
    let time = |field: &str| o[field].as_str().and_then(duration);
    let count = |field: &str| number(&o[field]).map(|value| UInt32Value { value });
    // A count of 0 turns the check off.
    let enforced = |count: &Option<UInt32Value>| count.as_ref().map(|c| UInt32Value { value: if c.value == 0 { 0 } else { 100 } });
    let errors = count("consecutive5xxErrors").or_else(|| count("consecutiveErrors"));
    let (gateway, local) = (count("consecutiveGatewayErrors"), count("consecutiveLocalOriginFailures"));
    let split = o["splitExternalLocalOriginErrors"] == Value::Bool(true);
    cluster::OutlierDetection {
        enforcing_consecutive_5xx: enforced(&errors),
        consecutive_5xx: errors.filter(|c| c.value > 0),
        enforcing_consecutive_gateway_failure: enforced(&gateway),
        consecutive_gateway_failure: gateway.filter(|c| c.value > 0),
        enforcing_consecutive_local_origin_failure: split.then(|| enforced(&local)).flatten(),
        consecutive_local_origin_failure: local.filter(|c| split && c.value > 0),
        split_external_local_origin_errors: split,
        interval: time("interval"),
        base_ejection_time: time("baseEjectionTime"),
        max_ejection_percent: count("maxEjectionPercent").filter(|c| c.value > 0),
        enforcing_success_rate: Some(UInt32Value { value: 0 }),
        enforcing_local_origin_success_rate: split.then_some(UInt32Value { value: 0 }),
        ..Default::default()
    }
}

/// The protocol towards the pods: as the port's name says, as the caller speaks if asked so, else HTTP/1.1.
fn protocol(port: &Port, pool: Option<&Value>) -> Option<Any> {
    use upstream::http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
    };
    let http = pool.and_then(|p| p.get("http"));
    let field = |name: &str| http.and_then(|h| h.get(name));
    let streams = field("maxConcurrentStreams").and_then(number).filter(|n| *n > 0).map(|value| UInt32Value { value });
    let http2 = core::Http2ProtocolOptions { max_concurrent_streams: streams, ..Default::default() };
    let http1 = core::Http1ProtocolOptions::default();
    let upgrade = field("h2UpgradePolicy").and_then(Value::as_str) == Some("UPGRADE");
    let options = if field("useClientProtocol") == Some(&Value::Bool(true)) {
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(http1),
            http2_protocol_options: Some(http2),
            ..Default::default()
        })
    } else {
        let config = if port.protocol == Protocol::Http2 || upgrade {
            ProtocolConfig::Http2ProtocolOptions(http2)
        } else {
            ProtocolConfig::HttpProtocolOptions(http1)
        };
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
    };
    let requests = field("maxRequestsPerConnection").and_then(number).filter(|n| *n > 0);
    let idle = field("idleTimeout").and_then(Value::as_str).and_then(duration);
    let common = (requests.is_some() || idle.is_some()).then(|| core::HttpProtocolOptions {
        max_requests_per_connection: requests.map(|value| UInt32Value { value }),
        idle_timeout: idle,
        ..Default::default()
    });
    Some(pack_any(upstream::HttpProtocolOptions {
        upstream_protocol_options: Some(options),
        common_http_protocol_options: common,
        ..Default::default()
    }))
}
