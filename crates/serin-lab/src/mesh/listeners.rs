//! Listeners: one for callers inside the mesh, one per port of each Gateway. Both log every request as Istio's proxies count it.
//!
//! Pure.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, access_log};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::access_loggers::stats::v3 as stats;
use envoy_types::pb::envoy::extensions::filters::http as http_filters;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::r#type::v3::Scope;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, UInt64Value};
use envoy_types::util::pack_any;

use super::telemetry::LABELS;
use super::translate::{ads, socket_address};

/// A listener at `address` that routes by the table of the same name; `workload` in `namespace` is who calls.
pub(super) fn listener(name: &str, address: SocketAddr, workload: &str, namespace: &str) -> listener::Listener {
    let manager = hcm::HttpConnectionManager {
        stat_prefix: name.replace([' ', '/', ':', '.'], "_"),
        http_filters: vec![
            filter("envoy.filters.http.fault", pack_any(http_filters::fault::v3::HttpFault::default())),
            filter("envoy.filters.http.router", pack_any(http_filters::router::v3::Router::default())),
        ],
        access_log: vec![AccessLog {
            name: "envoy.access_loggers.stats".into(),
            config_type: Some(access_log::ConfigType::TypedConfig(pack_any(counting(workload, namespace)))),
            ..Default::default()
        }],
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds { route_config_name: name.into(), config_source: Some(ads()) })),
        stream_idle_timeout: Some(Duration::default()),
        use_remote_address: Some(BoolValue { value: false }),
        generate_request_id: Some(BoolValue { value: true }),
        ..Default::default()
    };
    let network = listener::Filter {
        name: "envoy.filters.network.http_connection_manager".into(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(pack_any(manager))),
    };
    listener::Listener {
        name: name.into(),
        address: Some(socket_address(&address.ip().to_string(), address.port())),
        filter_chains: vec![listener::FilterChain { filters: vec![network], ..Default::default() }],
        traffic_direction: core::TrafficDirection::Outbound as i32,
        ..Default::default()
    }
}

fn filter(name: &str, config: Any) -> hcm::HttpFilter {
    hcm::HttpFilter { name: name.into(), config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)), ..Default::default() }
}

/// Istio's counter and histogram, with Istio's labels.
fn counting(workload: &str, namespace: &str) -> stats::Config {
    let value = |format: &str| format.replace("{proxy}", workload).replace("{namespace}", namespace);
    let tags = || LABELS.iter().map(|(name, format)| stats::config::Tag { name: (*name).into(), value_format: value(format), ..Default::default() }).collect();
    let stat = |name: &str| Some(stats::config::Stat { name: name.into(), tags: tags() });
    stats::Config {
        // Scope and name are joined: `envoy_istio_requests_total`.
        stats_scope: Some(Scope { prefix: "istio".into(), ..Default::default() }),
        counters: vec![stats::config::Counter { stat: stat("requests_total"), value_fixed: Some(UInt64Value { value: 1 }), ..Default::default() }],
        histograms: vec![stats::config::Histogram {
            stat: stat("request_duration_milliseconds"),
            unit: stats::config::histogram::Unit::Milliseconds as i32,
            value_format: "%DURATION%".into(),
        }],
        ..Default::default()
    }
}
