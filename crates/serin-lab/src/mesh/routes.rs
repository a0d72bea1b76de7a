//! VirtualServices as Envoy's route tables: for callers inside the mesh, and for each port of a Gateway.
//!
//! Pure. Reading order: `outbound`, `gateways`, then one http route, its match, its action.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3 as kinds;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, UInt32Value};
use envoy_types::util::pack_any;
use serde_json::Value;

use super::hosts;
use super::translate::{Complaint, OUTBOUND, Server, cluster_name, metadata};
use super::world::{World, list, text};

const KIND: &str = "VirtualService";
/// The name under which a VirtualService is bound to the sidecars.
const MESH: &str = "mesh";

/// `90s`, `1m30s`, `0.5s` as Istio writes durations.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let parsed = text.parse::<jiff::SignedDuration>().ok()?;
    Some(Duration { seconds: parsed.as_secs(), nanos: parsed.subsec_nanos() })
}

/// The table of callers inside the mesh: each service under all its names, with the oldest VirtualService for its host.
pub(super) fn outbound(world: &World, caller: &str, complaints: &mut Vec<Complaint>) -> route::RouteConfiguration {
    let mut taken: BTreeMap<String, Vec<route::Route>> = BTreeMap::new();
    for vs in world.routes.iter().filter(|vs| bound(vs).contains(MESH) && exported(vs, caller)) {
        let namespace = text(vs, "/metadata/namespace");
        for host in list(vs, "/spec/hosts").iter().filter_map(Value::as_str).map(|h| hosts::resolve(h, namespace)) {
            let covered: Vec<String> = match world.services.contains_key(&host) || !host.contains('*') {
                true => vec![host],
                false => world.services.keys().filter(|s| hosts::covers(&host, s)).cloned().collect(),
            };
            for host in covered {
                if !taken.contains_key(&host) {
                    let table = Http { world, vs, gateway: MESH, complaints, delegated: false }.routes();
                    taken.insert(host, table);
                }
            }
        }
    }
    for service in world.services.values() {
        taken.entry(service.host.clone()).or_insert_with(|| vec![plain(world, &service.host)].into_iter().flatten().collect());
    }
    let mut hosts_taken = BTreeSet::new();
    let virtual_hosts = taken.into_iter().map(|(host, routes)| {
        let domains = hosts::domains(&host, caller).into_iter().filter(|d| hosts_taken.insert(d.clone())).collect();
        route::VirtualHost { name: host, domains, routes, ..Default::default() }
    });
    table(OUTBOUND, virtual_hosts.collect())
}

/// One table per port of each Gateway: all VirtualServices that name it and share a host with it, merged.
pub(super) fn gateways(world: &World, complaints: &mut Vec<Complaint>) -> Vec<(Server, route::RouteConfiguration)> {
    let mut out = Vec::new();
    for gateway in &world.gateways {
        let (namespace, name) = (text(gateway, "/metadata/namespace"), text(gateway, "/metadata/name"));
        let full = format!("{namespace}/{name}");
        for server in list(gateway, "/spec/servers") {
            let Some(port) = server.pointer("/port/number").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok()) else { continue };
            let protocol = text(server, "/port/protocol").to_ascii_uppercase();
            if !matches!(protocol.as_str(), "HTTP" | "HTTP2" | "GRPC" | "") {
                complaints.push(Complaint::about("Gateway", gateway, format!("port {port} is {protocol}, which the lab does not play: only HTTP")));
                continue;
            }
            // `namespace/host` and `./host` say from where a VirtualService may come; the lab asks for the host alone.
            let served: Vec<String> =
                list(server, "/hosts").iter().filter_map(Value::as_str).map(|h| h.rsplit('/').next().unwrap_or(h).to_string()).collect();
            let mut merged: BTreeMap<String, Vec<route::Route>> = BTreeMap::new();
            for vs in world.routes.iter().filter(|vs| bound(vs).contains(&full)) {
                for host in list(vs, "/spec/hosts").iter().filter_map(Value::as_str) {
                    let written = hosts::resolve(host, text(vs, "/metadata/namespace"));
                    if served.iter().any(|s| *s == "*" || s == host || hosts::covers(s, &written) || hosts::covers(&written, s)) {
                        let routes = Http { world, vs, gateway: &full, complaints, delegated: false }.routes();
                        merged.entry(host.to_string()).or_default().extend(routes);
                    }
                }
            }
            let mut seen = BTreeSet::new();
            let virtual_hosts = merged.into_iter().map(|(host, routes)| {
                let mut domains = hosts::domains(&host, namespace);
                domains.retain(|d| seen.insert(d.clone()));
                route::VirtualHost { name: host, domains, routes, ..Default::default() }
            });
            let server = Server { name: format!("gateway {full}:{port}"), gateway: full.clone(), port };
            let table = table(&server.name, virtual_hosts.collect());
            out.push((server, table));
        }
    }
    out
}

fn table(name: &str, virtual_hosts: Vec<route::VirtualHost>) -> route::RouteConfiguration {
    route::RouteConfiguration {
        name: name.into(),
        virtual_hosts: virtual_hosts.into_iter().filter(|v| !v.domains.is_empty()).collect(),
        validate_clusters: Some(BoolValue { value: false }),
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}

/// The gateways that a VirtualService is bound to, as `namespace/name`; none named means the mesh.
fn bound(vs: &Value) -> BTreeSet<String> {
    let named = list(vs, "/spec/gateways");
    if named.is_empty() {
        return [MESH.to_string()].into();
    }
    let namespace = text(vs, "/metadata/namespace");
    let full = |g: &str| if g == MESH || g.contains('/') { g.to_string() } else { format!("{namespace}/{g}") };
    named.iter().filter_map(Value::as_str).map(full).collect()
}

fn exported(vs: &Value, caller: &str) -> bool {
    let exports = list(vs, "/spec/exportTo");
    let at = text(vs, "/metadata/namespace");
    exports.is_empty() || exports.iter().filter_map(Value::as_str).any(|e| e == "*" || e == caller || (e == "." && at == caller))
}

fn default_port(world: &World, host: &str) -> u16 {
    world.services.get(host).and_then(|s| s.ports.first()).map_or(80, |(p, _)| *p)
}

/// Without a VirtualService every ready pod of the service is called, whatever its version.
fn plain(world: &World, host: &str) -> Option<route::Route> {
    world.services.get(host)?.ports.first()?;
    let cluster = cluster_name(default_port(world, host), "", host);
    Some(route::Route {
        r#match: Some(everything()),
        metadata: Some(labels(host)),
        action: Some(route::route::Action::Route(route::RouteAction {
            cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster)),
            timeout: Some(Duration::default()),
            retry_policy: Some(retries(None)),
            ..Default::default()
        })),
        ..Default::default()
    })
}

fn labels(host: &str) -> core::Metadata {
    let (name, namespace) = host.strip_suffix(".svc.cluster.local").and_then(|h| h.split_once('.')).unwrap_or((host, "unknown"));
    metadata(&[("service", host), ("service_name", name), ("service_namespace", namespace)])
}

fn everything() -> route::RouteMatch {
    route::RouteMatch { path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".into())), ..Default::default() }
}

/// One VirtualService's http routes, for one gateway or the mesh.
struct Http<'a> {
    world: &'a World,
    vs: &'a Value,
    gateway: &'a str,
    complaints: &'a mut Vec<Complaint>,
    /// It is a delegate, which may not delegate again: a cycle would have no end.
    delegated: bool,
}

impl Http<'_> {
    fn complain(&mut self, what: String) {
        self.complaints.push(Complaint::about(KIND, self.vs, what));
    }

    fn namespace(&self) -> &str {
        text(self.vs, "/metadata/namespace")
    }

    fn routes(mut self) -> Vec<route::Route> {
        if !list(self.vs, "/spec/tcp").is_empty() || !list(self.vs, "/spec/tls").is_empty() {
            self.complain("tcp and tls routes are not played by the lab".into());
        }
        let vs = self.vs;
        let mut all = Vec::new();
        for (i, http) in list(vs, "/spec/http").iter().enumerate() {
            if let Some(delegate) = http.get("delegate") {
                if self.delegated {
                    self.complain(format!("http[{i}] of a delegate delegates again, which Istio does not allow: it is left out"));
                    continue;
                }
                let namespace = delegate["namespace"].as_str().unwrap_or(text(vs, "/metadata/namespace")).to_string();
                let name = text(delegate, "/name").to_string();
                let found = self.world.routes.iter().find(|v| text(v, "/metadata/namespace") == namespace && text(v, "/metadata/name") == name);
                match found {
                    Some(other) => {
                        let inner = Http { world: self.world, vs: other, gateway: self.gateway, complaints: self.complaints, delegated: true }.routes();
                        all.extend(inner.into_iter().flat_map(|r| self.under(http, r)));
                    }
                    None => self.complain(format!("http[{i}] delegates to {namespace}/{name}, which is not there")),
                }
                continue;
            }
            for matched in self.matches(http) {
                all.push(self.one(i, http, matched));
            }
        }
        all
    }

    /// A delegate's route, narrowed by the match of the route that delegates to it.
    fn under(&mut self, root: &Value, inner: route::Route) -> Vec<route::Route> {
        let narrowed = |outer: route::RouteMatch| {
            let mut route = inner.clone();
            if let Some(own) = &mut route.r#match {
                own.headers.extend(outer.headers);
                own.query_parameters.extend(outer.query_parameters);
                let any = matches!(&own.path_specifier, Some(route::route_match::PathSpecifier::Prefix(p)) if p == "/");
                if any {
                    own.path_specifier = outer.path_specifier;
                    own.case_sensitive = outer.case_sensitive;
                }
            }
            route
        };
        self.matches(root).into_iter().map(narrowed).collect()
    }

    /// Entries of `match` are alternatives; none means everything.
    fn matches(&mut self, http: &Value) -> Vec<route::RouteMatch> {
        let entries = list(http, "/match");
        if entries.is_empty() {
            return vec![everything()];
        }
        entries.iter().filter_map(|m| self.matched(m)).collect()
    }

    fn matched(&mut self, m: &Value) -> Option<route::RouteMatch> {
        let gateways = list(m, "/gateways");
        let namespace = self.namespace().to_string();
        let full = |g: &str| if g == MESH || g.contains('/') { g.to_string() } else { format!("{namespace}/{g}") };
        if !gateways.is_empty() && !gateways.iter().filter_map(Value::as_str).any(|g| full(g) == self.gateway) {
            return None;
        }
        for field in ["sourceLabels", "sourceNamespace", "port", "statPrefix"] {
            if m.get(field).is_some() {
                self.complain(format!("match.{field} is not played by the lab: it is taken to fit"));
            }
        }
        let mut out = everything();
        if let Some(uri) = m.get("uri") {
            out.path_specifier = match string_match(uri) {
                Some(StringMatch::Exact(path)) => Some(route::route_match::PathSpecifier::Path(path)),
                Some(StringMatch::Prefix(path)) => Some(route::route_match::PathSpecifier::Prefix(path)),
                Some(StringMatch::Regex(regex)) => Some(route::route_match::PathSpecifier::SafeRegex(matcher::RegexMatcher { regex, ..Default::default() })),
                None => out.path_specifier,
            };
            if m["ignoreUriCase"] == Value::Bool(true) {
                out.case_sensitive = Some(BoolValue { value: false });
            }
        }
        for (field, header) in [("method", ":method"), ("authority", ":authority"), ("scheme", ":scheme")] {
            if let Some(value) = m.get(field) {
                out.headers.push(header_match(header, value, false));
            }
        }
        for (name, value) in m["headers"].as_object().into_iter().flatten() {
            out.headers.push(header_match(name, value, false));
        }
        for (name, value) in m["withoutHeaders"].as_object().into_iter().flatten() {
            out.headers.push(header_match(name, value, true));
        }
        for (name, value) in m["queryParams"].as_object().into_iter().flatten() {
            let specifier = match string_match(value) {
                Some(kind) => route::query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch(kind.matcher()),
                None => route::query_parameter_matcher::QueryParameterMatchSpecifier::PresentMatch(true),
            };
            out.query_parameters.push(route::QueryParameterMatcher { name: name.clone(), query_parameter_match_specifier: Some(specifier) });
        }
        Some(out)
    }

    fn one(&mut self, index: usize, http: &Value, matched: route::RouteMatch) -> route::Route {
        let destinations = list(http, "/route");
        let first = destinations.first().map(|d| self.host(&d["destination"])).unwrap_or_default();
        let mut out = route::Route {
            name: http["name"].as_str().unwrap_or_default().to_string(),
            r#match: Some(matched),
            metadata: Some(labels(&first)),
            ..Default::default()
        };
        headers(http, &mut out.request_headers_to_add, &mut out.request_headers_to_remove, &mut out.response_headers_to_add, &mut out.response_headers_to_remove);
        if let Some(fault) = http.get("fault")
            && let Some(any) = self.fault(fault)
        {
            out.typed_per_filter_config.insert("envoy.filters.http.fault".into(), any);
        }
        for field in ["corsPolicy"] {
            if http.get(field).is_some() {
                self.complain(format!("http[{index}].{field} is not played by the lab"));
            }
        }
        out.action = Some(if let Some(redirect) = http.get("redirect") {
            route::route::Action::Redirect(redirected(redirect))
        } else if let Some(direct) = http.get("directResponse") {
            let body = text(direct, "/body/string").to_string();
            route::route::Action::DirectResponse(route::DirectResponseAction {
                status: direct["status"].as_u64().and_then(|s| u32::try_from(s).ok()).unwrap_or(200),
                body: Some(core::DataSource { specifier: Some(core::data_source::Specifier::InlineString(body)), ..Default::default() }),
                ..Default::default()
            })
        } else {
            route::route::Action::Route(self.action(http, destinations))
        });
        out
    }

    fn host(&self, destination: &Value) -> String {
        hosts::resolve(text(destination, "/host"), self.namespace())
    }

    fn cluster(&self, destination: &Value) -> String {
        let host = self.host(destination);
        let port = destination.pointer("/port/number").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok());
        cluster_name(port.unwrap_or_else(|| default_port(self.world, &host)), text(destination, "/subset"), &host)
    }

    fn action(&mut self, http: &Value, destinations: &[Value]) -> route::RouteAction {
        let weight = |d: &Value| UInt32Value { value: d["weight"].as_u64().and_then(|w| u32::try_from(w).ok()).unwrap_or(0) };
        let specifier = match destinations {
            [only] if only.get("headers").is_none() => route::route_action::ClusterSpecifier::Cluster(self.cluster(&only["destination"])),
            several => {
                let clusters = several.iter().map(|d| {
                    let mut out = route::weighted_cluster::ClusterWeight {
                        name: self.cluster(&d["destination"]),
                        weight: Some(if several.len() == 1 { UInt32Value { value: 1 } } else { weight(d) }),
                        ..Default::default()
                    };
                    headers(d, &mut out.request_headers_to_add, &mut out.request_headers_to_remove, &mut out.response_headers_to_add, &mut out.response_headers_to_remove);
                    out
                });
                route::route_action::ClusterSpecifier::WeightedClusters(route::WeightedCluster { clusters: clusters.collect(), ..Default::default() })
            }
        };
        let mut out = route::RouteAction {
            cluster_specifier: Some(specifier),
            // No timeout means none.
            timeout: Some(http["timeout"].as_str().and_then(duration).unwrap_or_default()),
            retry_policy: Some(retries(http.get("retries"))),
            ..Default::default()
        };
        if let Some(rewrite) = http.get("rewrite") {
            if let Some(uri) = rewrite["uri"].as_str() {
                out.prefix_rewrite = uri.to_string();
            }
            if let Some(authority) = rewrite["authority"].as_str() {
                out.host_rewrite_specifier = Some(route::route_action::HostRewriteSpecifier::HostRewriteLiteral(authority.to_string()));
            }
            if rewrite.get("uriRegexRewrite").is_some() {
                self.complain("rewrite.uriRegexRewrite is not played by the lab".into());
            }
        }
        let single = http.get("mirror").map(|m| (m, http.get("mirrorPercentage").or_else(|| http.get("mirror_percentage"))));
        let several = list(http, "/mirrors").iter().map(|m| (&m["destination"], m.get("percentage")));
        for (destination, percentage) in single.into_iter().chain(several) {
            let percent = percentage.and_then(|p| p["value"].as_f64()).unwrap_or(100.0);
            if percent <= 0.0 {
                continue;
            }
            out.request_mirror_policies.push(route::route_action::RequestMirrorPolicy {
                cluster: self.cluster(destination),
                runtime_fraction: Some(core::RuntimeFractionalPercent { default_value: Some(fraction(percent)), ..Default::default() }),
                ..Default::default()
            });
        }
        out
    }

    fn fault(&mut self, fault: &Value) -> Option<Any> {
        use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common;
        use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as filter;
        let percent = |v: &Value| fraction(v.pointer("/percentage/value").and_then(Value::as_f64).unwrap_or(100.0));
        let delay = fault.get("delay").map(|d| common::FaultDelay {
            percentage: Some(percent(d)),
            fault_delay_secifier: d["fixedDelay"].as_str().and_then(duration).map(common::fault_delay::FaultDelaySecifier::FixedDelay),
            ..Default::default()
        });
        let abort = fault.get("abort").and_then(|a| {
            let status = a["httpStatus"].as_u64().and_then(|s| u32::try_from(s).ok());
            if status.is_none() {
                self.complain("fault.abort other than httpStatus is not played by the lab".into());
            }
            Some(filter::FaultAbort { percentage: Some(percent(a)), error_type: Some(filter::fault_abort::ErrorType::HttpStatus(status?)), ..Default::default() })
        });
        Some(pack_any(filter::HttpFault { delay, abort, ..Default::default() }))
    }
}

/// Without `retries`: twice; with `retries` and no `attempts`: none. Without `retryOn`: on failures before a response; a retry stays in its subset (`docs/istio.md`).
fn retries(wanted: Option<&Value>) -> route::RetryPolicy {
    const DEFAULT: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
    let attempts = wanted.and_then(|r| r["attempts"].as_u64()).and_then(|n| u32::try_from(n).ok()).unwrap_or(if wanted.is_some() { 0 } else { 2 });
    let on = wanted.and_then(|r| r["retryOn"].as_str()).unwrap_or(DEFAULT);
    let (names, codes): (Vec<&str>, Vec<&str>) = on.split(',').map(str::trim).partition(|part| part.parse::<u32>().is_err());
    let mut names = names.join(",");
    if !codes.is_empty() && !names.contains("retriable-status-codes") {
        names.push_str(",retriable-status-codes");
    }
    let previous = envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate {};
    route::RetryPolicy {
        retry_on: names,
        num_retries: Some(UInt32Value { value: attempts }),
        per_try_timeout: wanted.and_then(|r| r["perTryTimeout"].as_str()).and_then(duration),
        retriable_status_codes: codes.iter().filter_map(|c| c.parse().ok()).collect(),
        retry_host_predicate: vec![route::retry_policy::RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".into(),
            config_type: Some(route::retry_policy::retry_host_predicate::ConfigType::TypedConfig(pack_any(previous))),
        }],
        host_selection_retry_max_attempts: 5,
        ..Default::default()
    }
}

fn fraction(percent: f64) -> kinds::FractionalPercent {
    let parts = (percent.clamp(0.0, 100.0) * 10_000.0).round();
    kinds::FractionalPercent { numerator: parts as u32, denominator: kinds::fractional_percent::DenominatorType::Million as i32 }
}

fn redirected(redirect: &Value) -> route::RedirectAction {
    use route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    let code = match redirect["redirectCode"].as_u64() {
        Some(302) => RedirectResponseCode::Found,
        Some(303) => RedirectResponseCode::SeeOther,
        Some(307) => RedirectResponseCode::TemporaryRedirect,
        Some(308) => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    route::RedirectAction {
        host_redirect: text(redirect, "/authority").into(),
        port_redirect: redirect["port"].as_u64().and_then(|p| u32::try_from(p).ok()).unwrap_or(0),
        response_code: code as i32,
        path_rewrite_specifier: redirect["uri"].as_str().map(|u| PathRewriteSpecifier::PathRedirect(u.into())),
        scheme_rewrite_specifier: redirect["scheme"].as_str().map(|s| SchemeRewriteSpecifier::SchemeRedirect(s.into())),
        ..Default::default()
    }
}

enum StringMatch {
    Exact(String),
    Prefix(String),
    Regex(String),
}

impl StringMatch {
    fn matcher(self) -> matcher::StringMatcher {
        use matcher::string_matcher::MatchPattern;
        let pattern = match self {
            Self::Exact(s) => MatchPattern::Exact(s),
            Self::Prefix(s) => MatchPattern::Prefix(s),
            Self::Regex(regex) => MatchPattern::SafeRegex(matcher::RegexMatcher { regex, ..Default::default() }),
        };
        matcher::StringMatcher { match_pattern: Some(pattern), ..Default::default() }
    }
}

fn string_match(value: &Value) -> Option<StringMatch> {
    let field = |f: &str| value[f].as_str().map(str::to_string);
    field("exact").map(StringMatch::Exact).or_else(|| field("prefix").map(StringMatch::Prefix)).or_else(|| field("regex").map(StringMatch::Regex))
}

fn header_match(name: &str, value: &Value, invert: bool) -> route::HeaderMatcher {
    use route::header_matcher::HeaderMatchSpecifier;
    let specifier = match string_match(value) {
        Some(kind) => HeaderMatchSpecifier::StringMatch(kind.matcher()),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    route::HeaderMatcher { name: name.into(), invert_match: invert, header_match_specifier: Some(specifier), ..Default::default() }
}

fn headers(
    of: &Value,
    request_add: &mut Vec<core::HeaderValueOption>,
    request_remove: &mut Vec<String>,
    response_add: &mut Vec<core::HeaderValueOption>,
    response_remove: &mut Vec<String>,
) {
    use core::header_value_option::HeaderAppendAction;
    for (side, add, remove) in [("request", request_add, request_remove), ("response", response_add, response_remove)] {
        let Some(ops) = of.pointer(&format!("/headers/{side}")) else { continue };
        for (verb, action) in [("set", HeaderAppendAction::OverwriteIfExistsOrAdd), ("add", HeaderAppendAction::AppendIfExistsOrAdd)] {
            for (key, value) in ops[verb].as_object().into_iter().flatten() {
                add.push(core::HeaderValueOption {
                    header: Some(core::HeaderValue { key: key.clone(), value: value.as_str().unwrap_or_default().into(), ..Default::default() }),
                    append_action: action as i32,
                    ..Default::default()
                });
            }
        }
        remove.extend(list(ops, "/remove").iter().filter_map(Value::as_str).map(str::to_string));
    }
}
