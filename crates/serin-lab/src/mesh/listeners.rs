//! Listeners: one for callers inside the mesh, one per port of each Gateway. Both log every request as Istio's proxies count it.
//!
//! Pure.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, AccessLogFilter, HeaderFilter, ResponseFlagFilter, access_log};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::access_loggers::stats::v3 as stats;
use envoy_types::pb::envoy::extensions::filters::http as http_filters;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3::Scope;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, UInt64Value};
use envoy_types::util::pack_any;

use super::telemetry::{self, Spoken};
use super::translate::{OUTBOUND, ads, socket_address};

/// A listener at `address` that routes by the table of the same name; `proxy` is the workload, and its namespace, that calls.
pub(super) fn listener(name: &str, address: SocketAddr, proxy: (&str, &str)) -> listener::Listener {
    let manager = hcm::HttpConnectionManager {
        stat_prefix: name.replace([' ', '/', ':', '.'], "_"),
        http_filters: vec![
            filter("envoy.filters.http.fault", pack_any(http_filters::fault::v3::HttpFault::default())),
            filter("envoy.filters.http.cors", pack_any(http_filters::cors::v3::Cors::default())),
            filter("envoy.filters.http.router", pack_any(http_filters::router::v3::Router::default())),
        ],
        access_log: [Spoken::Http, Spoken::Grpc].map(|spoken| logger(proxy, spoken)).into(),
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds {
            route_config_name: name.into(),
            config_source: Some(ads()),
        })),
        local_reply_config: Some(hcm::LocalReplyConfig { mappers: vec![no_route(name)], ..Default::default() }),
        upgrade_configs: vec![hcm::http_connection_manager::UpgradeConfig { upgrade_type: "websocket".into(), ..Default::default() }],
        // Istio's gateways call themselves so; a sidecar is plain `envoy`.
        server_name: if name == OUTBOUND { String::new() } else { "istio-envoy".into() },
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

/// Istio answers a host that it does not know with 404 and no body (flag NR) where only registered services may be called, and
/// passes the request on where any may. The lab has nowhere to pass it to, so it is 404, with a sentence.
fn no_route(name: &str) -> hcm::ResponseMapper {
    let what = if name == OUTBOUND { "callers inside the mesh" } else { name };
    let text = format!("the lab has no route for host %REQ(:AUTHORITY)% and path %REQ(:PATH)% at {what}\n");
    let format = core::SubstitutionFormatString {
        format: Some(core::substitution_format_string::Format::TextFormatSource(core::DataSource {
            specifier: Some(core::data_source::Specifier::InlineString(text)),
            ..Default::default()
        })),
        ..Default::default()
    };
    hcm::ResponseMapper {
        filter: Some(AccessLogFilter {
            filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter { flags: vec!["NR".into()] })),
        }),
        body_format_override: Some(format),
        ..Default::default()
    }
}

/// The access logger for requests of one protocol: gRPC is told by its content type, as Istio does. `application/grpc-web` is none.
fn logger(proxy: (&str, &str), spoken: Spoken) -> AccessLog {
    let regex = matcher::RegexMatcher { regex: r"application/grpc(\+.*)?".into(), ..Default::default() };
    let grpc =
        matcher::StringMatcher { match_pattern: Some(matcher::string_matcher::MatchPattern::SafeRegex(regex)), ..Default::default() };
    let header = route::HeaderMatcher {
        name: "content-type".into(),
        invert_match: spoken == Spoken::Http,
        treat_missing_header_as_empty: true,
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(grpc)),
    };
    AccessLog {
        name: "envoy.access_loggers.stats".into(),
        filter: Some(AccessLogFilter { filter_specifier: Some(FilterSpecifier::HeaderFilter(HeaderFilter { header: Some(header) })) }),
        config_type: Some(access_log::ConfigType::TypedConfig(pack_any(counting(telemetry::labels(proxy, spoken))))),
    }
}

/// Istio's counter and histogram, with Istio's labels.
fn counting(labels: Vec<(&'static str, String)>) -> stats::Config {
    let tags: Vec<stats::config::Tag> = labels
        .into_iter()
        .map(|(name, value_format)| stats::config::Tag { name: name.into(), value_format, ..Default::default() })
        .collect();
    let stat = |name: &str| Some(stats::config::Stat { name: name.into(), tags: tags.clone() });
    stats::Config {
        // Scope and name are joined: `envoy_istio_requests_total`.
        stats_scope: Some(Scope { prefix: "istio".into(), ..Default::default() }),
        counters: vec![stats::config::Counter {
            stat: stat("requests_total"),
            value_fixed: Some(UInt64Value { value: 1 }),
            ..Default::default()
        }],
        histograms: vec![stats::config::Histogram {
            stat: stat("request_duration_milliseconds"),
            unit: stats::config::histogram::Unit::Milliseconds as i32,
            value_format: "%DURATION%".into(),
        }],
        ..Default::default()
    }
}
