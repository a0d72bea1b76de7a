//! One http route of a VirtualService as Envoy's routes: its match, its destinations, and everything else it asks for.
//!
//! Pure. Reading order: `routes`, `matched`, `one`, `action`, then the parts.

use base64::Engine as _;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3 as kinds;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, UInt32Value};
use envoy_types::util::pack_any;
use serde_json::Value;

use super::delegate;
use super::fields;
use super::hosts;
use super::routes::{MESH, View, full_gateway};
use super::translate::{Complaint, cluster_name};
use super::world::{Port, Service, list, present, text};

/// `90s`, `1m30s`, `0.5s` as Istio writes durations.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let parsed = text.parse::<jiff::SignedDuration>().ok()?;
    Some(Duration { seconds: parsed.as_secs(), nanos: parsed.subsec_nanos() })
}

/// Where a route is to apply.
pub(super) struct Place<'w> {
    /// What it is made from.
    pub(super) view: View<'w>,
    /// `mesh`, or a Gateway as `namespace/name`.
    pub(super) gateway: &'w str,
    /// The service's or the gateway's port, as written.
    pub(super) port: u16,
}

/// Without a VirtualService every ready pod of the service is called, whatever its version.
pub(super) fn plain(view: &View<'_>, service: &Service, port: &Port) -> route::Route {
    let balancer = view.rules.get(service.host.as_str()).and_then(|r| r.policy_of("", port.number).balancer);
    route::Route {
        name: "default".into(),
        r#match: Some(everything()),
        action: Some(route::route::Action::Route(route::RouteAction {
            cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster_name(port.number, "", &service.host))),
            timeout: Some(Duration::default()),
            retry_policy: retries(None, balancer.is_some_and(|b| present(b, "consistentHash").is_some())),
            hash_policy: hash_policy(balancer).into_iter().collect(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// Envoy's routes for one http route: one for each entry of `match` that can fit here.
pub(super) fn routes(place: &Place<'_>, http: &delegate::Http<'_>, complaints: &mut Vec<Complaint>) -> Vec<route::Route> {
    let mut one = One { place, http, complaints };
    one.unplayed();
    one.matches().into_iter().map(|(name, m)| one.one(&name, m)).collect()
}

fn everything() -> route::RouteMatch {
    route::RouteMatch { path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".into())), ..Default::default() }
}

struct One<'a> {
    place: &'a Place<'a>,
    http: &'a delegate::Http<'a>,
    complaints: &'a mut Vec<Complaint>,
}

impl<'a> One<'a> {
    fn complain(&mut self, what: &str) {
        let what = format!("{}.{what}", self.http.path);
        self.complaints.push(Complaint::about("VirtualService", self.http.from, what));
    }

    fn fields(&self) -> &'a Value {
        &self.http.fields
    }

    fn namespace(&self) -> &'a str {
        text(self.http.from, "/metadata/namespace")
    }

    /// Names every field that the lab does not carry out.
    fn unplayed(&mut self) {
        let http = self.fields();
        let mut said = |at: String, value: Option<&Value>, known: &[&str]| {
            for field in value.map(|v| fields::others(v, known)).unwrap_or_default() {
                self.complain(&format!("{at}{field} is not played by the lab"));
            }
        };
        said(String::new(), Some(http), fields::HTTP);
        for (i, m) in list(http, "/match").iter().enumerate() {
            said(format!("match[{i}]."), Some(m), fields::MATCH);
        }
        for (i, r) in list(http, "/route").iter().enumerate() {
            said(format!("route[{i}]."), Some(r), fields::ROUTE);
        }
        said("retries.".into(), http.get("retries"), fields::RETRIES);
        said("fault.".into(), http.get("fault"), fields::FAULT);
        said("fault.delay.".into(), http.pointer("/fault/delay"), fields::DELAY);
        said("fault.abort.".into(), http.pointer("/fault/abort"), fields::ABORT);
        said("corsPolicy.".into(), http.get("corsPolicy"), fields::CORS);
    }

    /// Entries of `match` are alternatives, each under the name of its route; none at all means everything.
    fn matches(&self) -> Vec<(String, route::RouteMatch)> {
        let own = text(self.fields(), "/name").to_string();
        let entries = list(self.fields(), "/match");
        if entries.is_empty() {
            return vec![(own, everything())];
        }
        let named = |m: &Value| match text(m, "/name") {
            "" => own.clone(),
            name => format!("{own}.{name}"),
        };
        entries.iter().filter(|m| self.is_here(m)).map(|m| (named(m), matched(m))).collect()
    }

    /// Whether an entry of `match` is for this place at all. One that names gateways is asked for nothing else of the source, as with Istio.
    fn is_here(&self, m: &Value) -> bool {
        let place = self.place;
        if m["port"].as_u64().is_some_and(|p| p != 0 && p != u64::from(place.port)) {
            return false;
        }
        let gateways = list(m, "/gateways");
        if !gateways.is_empty() {
            return gateways.iter().filter_map(Value::as_str).any(|g| full_gateway(g, self.namespace()) == place.gateway);
        }
        // At a gateway the source is the gateway's own pod, not who calls it.
        let caller = if place.gateway == MESH { place.view.caller } else { place.view.gateway };
        caller.has(&m["sourceLabels"]) && m["sourceNamespace"].as_str().is_none_or(|n| n.is_empty() || n == caller.namespace)
    }

    fn one(&mut self, name: &str, matched: route::RouteMatch) -> route::Route {
        let http = self.fields();
        let mut out = route::Route { name: name.to_string(), r#match: Some(matched), ..Default::default() };
        let own = Headers::of(http);
        (out.request_headers_to_add, out.request_headers_to_remove) = (own.request_add, own.request_remove);
        (out.response_headers_to_add, out.response_headers_to_remove) = (own.response_add, own.response_remove);
        if let Some(fault) = present(http, "fault") {
            let fault = self.fault(fault);
            out.typed_per_filter_config.insert("envoy.filters.http.fault".into(), fault);
        }
        if let Some(policy) = present(http, "corsPolicy") {
            out.typed_per_filter_config.insert("envoy.filters.http.cors".into(), pack_any(cors_policy(policy)));
        }
        out.action = Some(if let Some(redirect) = present(http, "redirect") {
            route::route::Action::Redirect(redirected(redirect, self.place.port))
        } else if let Some(direct) = present(http, "directResponse") {
            route::route::Action::DirectResponse(direct_response(direct))
        } else {
            route::route::Action::Route(self.action(own.authority))
        });
        out
    }

    fn host(&self, destination: &Value) -> String {
        hosts::resolve(text(destination, "/host"), self.namespace())
    }

    /// The port as written; else the only one of the service; else that of the place.
    fn port(&self, destination: &Value, host: &str) -> u16 {
        let written = destination.pointer("/port/number").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok());
        let only = || match self.place.view.world.services.get(host).map(|s| s.ports.as_slice()) {
            Some([one]) => one.number,
            _ => self.place.port,
        };
        written.unwrap_or_else(only)
    }

    fn cluster(&self, destination: &Value) -> String {
        let host = self.host(destination);
        cluster_name(self.port(destination, &host), text(destination, "/subset"), &host)
    }

    /// How a destination wants its pod chosen, if by hash.
    fn hash(&self, destination: &Value) -> Option<route::route_action::HashPolicy> {
        let host = self.host(destination);
        let rule = self.place.view.rules.get(host.as_str())?;
        hash_policy(rule.policy_of(text(destination, "/subset"), self.port(destination, &host)).balancer)
    }

    fn action(&mut self, authority: Option<String>) -> route::RouteAction {
        use route::route_action::{ClusterSpecifier, HostRewriteSpecifier};
        let http = self.fields();
        let destinations = list(http, "/route");
        let weight = |d: &Value| d["weight"].as_u64().and_then(|w| u32::try_from(w).ok()).unwrap_or(0);
        let specifier = match destinations {
            [only] if only.get("headers").is_none() => ClusterSpecifier::Cluster(self.cluster(&only["destination"])),
            several => {
                let clusters = several.iter().map(|d| {
                    let own = Headers::of(d);
                    route::weighted_cluster::ClusterWeight {
                        name: self.cluster(&d["destination"]),
                        // A single destination has it all, whatever its weight.
                        weight: Some(UInt32Value { value: if several.len() == 1 { 1 } else { weight(d) } }),
                        request_headers_to_add: own.request_add,
                        request_headers_to_remove: own.request_remove,
                        response_headers_to_add: own.response_add,
                        response_headers_to_remove: own.response_remove,
                        host_rewrite_specifier: own
                            .authority
                            .map(route::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
                        ..Default::default()
                    }
                });
                ClusterSpecifier::WeightedClusters(route::WeightedCluster { clusters: clusters.collect(), ..Default::default() })
            }
        };
        let hashes: Vec<_> =
            destinations.iter().filter(|d| destinations.len() == 1 || weight(d) > 0).filter_map(|d| self.hash(&d["destination"])).collect();
        let mut out = route::RouteAction {
            cluster_specifier: Some(specifier),
            // No timeout means none.
            timeout: Some(http["timeout"].as_str().and_then(duration).unwrap_or_default()),
            // Chosen by hash, the same pod is tried again.
            retry_policy: retries(present(http, "retries"), !hashes.is_empty()),
            hash_policy: hashes,
            ..Default::default()
        };
        let mut authority = authority;
        if let Some(rewrite) = present(http, "rewrite") {
            if let Some(regex) = present(rewrite, "uriRegexRewrite") {
                out.regex_rewrite = Some(matcher::RegexMatchAndSubstitute {
                    pattern: Some(matcher::RegexMatcher { regex: text(regex, "/match").into(), ..Default::default() }),
                    substitution: text(regex, "/rewrite").into(),
                });
            } else {
                out.prefix_rewrite = text(rewrite, "/uri").into();
            }
            authority = rewrite["authority"].as_str().filter(|a| !a.is_empty()).map(str::to_string).or(authority);
        }
        out.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);
        let whole = || http.pointer("/mirrorPercentage/value").or_else(|| http.get("mirrorPercent")).and_then(Value::as_f64);
        let single = present(http, "mirror").map(|m| (m, whole()));
        let several = list(http, "/mirrors").iter().map(|m| (&m["destination"], m.pointer("/percentage/value").and_then(Value::as_f64)));
        for (destination, percent) in single.into_iter().chain(several) {
            let percent = percent.unwrap_or(100.0);
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

    fn fault(&mut self, fault: &Value) -> Any {
        use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common;
        use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as filter;
        // As Istio's reference says: without a percentage no request is delayed or aborted.
        let percent =
            |v: &Value| fraction(v.pointer("/percentage/value").or_else(|| v.get("percent")).and_then(Value::as_f64).unwrap_or(0.0));
        let delay = present(fault, "delay").map(|d| common::FaultDelay {
            percentage: Some(percent(d)),
            fault_delay_secifier: d["fixedDelay"].as_str().and_then(duration).map(common::fault_delay::FaultDelaySecifier::FixedDelay),
        });
        let abort = present(fault, "abort").and_then(|a| {
            let status = a["httpStatus"].as_u64().and_then(|s| u32::try_from(s).ok()).map(filter::fault_abort::ErrorType::HttpStatus);
            let error = status.or_else(|| a["grpcStatus"].as_str().and_then(grpc_code).map(filter::fault_abort::ErrorType::GrpcStatus));
            if error.is_none() {
                self.complain("fault.abort has no httpStatus and no known grpcStatus: it aborts nothing");
            }
            Some(filter::FaultAbort { percentage: Some(percent(a)), error_type: Some(error?), ..Default::default() })
        });
        pack_any(filter::HttpFault { delay, abort, ..Default::default() })
    }
}

/// One entry of `match`: all of its fields must fit.
fn matched(m: &Value) -> route::RouteMatch {
    let mut out = everything();
    if let Some(uri) = m.get("uri") {
        out.path_specifier = match string_match(uri) {
            Some(StringMatch::Exact(path)) => Some(route::route_match::PathSpecifier::Path(path)),
            Some(StringMatch::Prefix(path)) => Some(route::route_match::PathSpecifier::Prefix(path)),
            Some(StringMatch::Regex(regex)) => {
                Some(route::route_match::PathSpecifier::SafeRegex(matcher::RegexMatcher { regex, ..Default::default() }))
            }
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
        use route::query_parameter_matcher::QueryParameterMatchSpecifier;
        let specifier = match string_match(value) {
            Some(kind) => QueryParameterMatchSpecifier::StringMatch(kind.matcher()),
            None => QueryParameterMatchSpecifier::PresentMatch(true),
        };
        out.query_parameters.push(route::QueryParameterMatcher { name: name.clone(), query_parameter_match_specifier: Some(specifier) });
    }
    out
}

/// Without `retries`: twice, on failures before a response; a retry stays in its subset (`docs/istio.md`). No attempts, no retries.
fn retries(wanted: Option<&Value>, by_hash: bool) -> Option<route::RetryPolicy> {
    const DEFAULT: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
    let attempts = match wanted {
        None => 2,
        Some(retries) => retries["attempts"].as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)?,
    };
    let field = |name: &str| wanted.and_then(|r| r[name].as_str());
    let on = field("retryOn").filter(|on| !on.is_empty()).unwrap_or(DEFAULT);
    let (names, codes): (Vec<&str>, Vec<&str>) = on.split(',').map(str::trim).partition(|part| part.parse::<u32>().is_err());
    let mut names = names.join(",");
    if !codes.is_empty() && !names.contains("retriable-status-codes") {
        names = if names.is_empty() { "retriable-status-codes".into() } else { format!("{names},retriable-status-codes") };
    }
    let elsewhere = wanted.and_then(|r| r["retryIgnorePreviousHosts"].as_bool()).unwrap_or(!by_hash);
    let previous = envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate {};
    let predicate = || route::retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".into(),
        config_type: Some(route::retry_policy::retry_host_predicate::ConfigType::TypedConfig(pack_any(previous))),
    };
    Some(route::RetryPolicy {
        retry_on: names,
        num_retries: Some(UInt32Value { value: attempts }),
        per_try_timeout: field("perTryTimeout").and_then(duration),
        retriable_status_codes: codes.iter().filter_map(|c| c.parse().ok()).collect(),
        retry_back_off: field("backoff")
            .and_then(duration)
            .map(|d| route::retry_policy::RetryBackOff { base_interval: Some(d), max_interval: None }),
        retry_host_predicate: elsewhere.then(predicate).into_iter().collect(),
        host_selection_retry_max_attempts: 5,
        ..Default::default()
    })
}

/// What of a request chooses the pod, where a DestinationRule says `consistentHash`.
fn hash_policy(balancer: Option<&Value>) -> Option<route::route_action::HashPolicy> {
    use route::route_action::hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter};
    let hash = present(balancer?, "consistentHash")?;
    let specifier = if let Some(name) = hash["httpHeaderName"].as_str() {
        PolicySpecifier::Header(Header { header_name: name.into(), ..Default::default() })
    } else if let Some(cookie) = present(hash, "httpCookie") {
        PolicySpecifier::Cookie(Cookie {
            name: text(cookie, "/name").into(),
            path: text(cookie, "/path").into(),
            ttl: cookie["ttl"].as_str().and_then(duration),
            ..Default::default()
        })
    } else if let Some(name) = hash["httpQueryParameterName"].as_str() {
        PolicySpecifier::QueryParameter(QueryParameter { name: name.into() })
    } else if hash["useSourceIp"] == Value::Bool(true) {
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
    } else {
        return None;
    };
    Some(route::route_action::HashPolicy { policy_specifier: Some(specifier), ..Default::default() })
}

fn cors_policy(policy: &Value) -> cors::CorsPolicy {
    let joined = |field: &str| policy[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let exact = |origin: &str| if origin == "*" { StringMatch::Regex(".*".into()) } else { StringMatch::Exact(origin.into()) };
    let old = list(policy, "/allowOrigin").iter().filter_map(Value::as_str).map(exact);
    let origins = list(policy, "/allowOrigins").iter().filter_map(string_match).chain(old);
    let unmatched = policy["unmatchedPreflights"].as_str() != Some("IGNORE");
    cors::CorsPolicy {
        allow_origin_string_match: origins.map(StringMatch::matcher).collect(),
        allow_methods: joined("allowMethods"),
        allow_headers: joined("allowHeaders"),
        expose_headers: joined("exposeHeaders"),
        max_age: policy["maxAge"].as_str().and_then(duration).map(|d| d.seconds.to_string()).unwrap_or_default(),
        allow_credentials: policy["allowCredentials"].as_bool().map(|value| BoolValue { value }),
        filter_enabled: Some(core::RuntimeFractionalPercent { default_value: Some(fraction(100.0)), ..Default::default() }),
        forward_not_matching_preflights: Some(BoolValue { value: unmatched }),
        ..Default::default()
    }
}

fn fraction(percent: f64) -> kinds::FractionalPercent {
    let parts = (percent.clamp(0.0, 100.0) * 10_000.0).round();
    kinds::FractionalPercent { numerator: parts as u32, denominator: kinds::fractional_percent::DenominatorType::Million as i32 }
}

fn redirected(redirect: &Value, port: u16) -> route::RedirectAction {
    use route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    let code = match redirect["redirectCode"].as_u64() {
        Some(302) => RedirectResponseCode::Found,
        Some(303) => RedirectResponseCode::SeeOther,
        Some(307) => RedirectResponseCode::TemporaryRedirect,
        Some(308) => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let written = redirect["port"].as_u64().and_then(|p| u32::try_from(p).ok());
    let from_request = (redirect["derivePort"].as_str() == Some("FROM_REQUEST_PORT")).then_some(u32::from(port));
    let scheme = redirect["scheme"].as_str().filter(|s| !s.is_empty());
    // The scheme's own port is not written.
    let own = if scheme == Some("https") { 443 } else { 80 };
    route::RedirectAction {
        host_redirect: text(redirect, "/authority").into(),
        port_redirect: written.or(from_request).filter(|p| *p != own).unwrap_or(0),
        response_code: code as i32,
        path_rewrite_specifier: redirect["uri"].as_str().map(|u| PathRewriteSpecifier::PathRedirect(u.into())),
        scheme_rewrite_specifier: scheme.map(|s| SchemeRewriteSpecifier::SchemeRedirect(s.into())),
        ..Default::default()
    }
}

fn direct_response(direct: &Value) -> route::DirectResponseAction {
    use core::data_source::Specifier;
    let bytes =
        || direct.pointer("/body/bytes").and_then(Value::as_str).and_then(|b| base64::engine::general_purpose::STANDARD.decode(b).ok());
    let written = direct.pointer("/body/string").and_then(Value::as_str).map(|s| Specifier::InlineString(s.into()));
    let body = written.or_else(|| bytes().map(Specifier::InlineBytes));
    route::DirectResponseAction {
        status: direct["status"].as_u64().and_then(|s| u32::try_from(s).ok()).unwrap_or(200),
        body: body.map(|specifier| core::DataSource { specifier: Some(specifier), ..Default::default() }),
        ..Default::default()
    }
}

/// A gRPC status by its name (`UNAVAILABLE`) or number.
fn grpc_code(name: &str) -> Option<u32> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let by_name = NAMES.iter().position(|n| *n == name).and_then(|n| u32::try_from(n).ok());
    by_name.or_else(|| name.parse().ok().filter(|n| *n < 17))
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

/// `None`: it is enough that something is there. So Istio reads an empty match, and the regular expression `*`.
fn string_match(value: &Value) -> Option<StringMatch> {
    let field = |f: &str| value[f].as_str().map(str::to_string);
    let regex = || field("regex").filter(|r| r != "*").map(StringMatch::Regex);
    field("exact").map(StringMatch::Exact).or_else(|| field("prefix").map(StringMatch::Prefix)).or_else(regex)
}

fn header_match(name: &str, value: &Value, invert: bool) -> route::HeaderMatcher {
    use route::header_matcher::HeaderMatchSpecifier;
    let wanted = string_match(value);
    // A header that is not there has not the value that is not wanted.
    let absent_is_empty = invert && wanted.is_some();
    let specifier = match wanted {
        Some(kind) => HeaderMatchSpecifier::StringMatch(kind.matcher()),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    route::HeaderMatcher {
        name: name.into(),
        invert_match: invert,
        treat_missing_header_as_empty: absent_is_empty,
        header_match_specifier: Some(specifier),
    }
}

/// What `headers` asks for, of a route or a destination.
#[derive(Default)]
struct Headers {
    request_add: Vec<core::HeaderValueOption>,
    request_remove: Vec<String>,
    response_add: Vec<core::HeaderValueOption>,
    response_remove: Vec<String>,
    /// The host, which Envoy rewrites in its own way.
    authority: Option<String>,
}

impl Headers {
    fn of(object: &Value) -> Self {
        use core::header_value_option::HeaderAppendAction;
        let mut out = Self::default();
        let is_host = |name: &str| name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority");
        for side in ["request", "response"] {
            let Some(ops) = object.pointer(&format!("/headers/{side}")) else { continue };
            let mut add = Vec::new();
            for (verb, action) in [("set", HeaderAppendAction::OverwriteIfExistsOrAdd), ("add", HeaderAppendAction::AppendIfExistsOrAdd)] {
                for (key, value) in ops[verb].as_object().into_iter().flatten() {
                    let value = value.as_str().unwrap_or_default();
                    if side == "request" && is_host(key) {
                        out.authority.get_or_insert_with(|| value.to_string());
                    }
                    if is_host(key) || key.starts_with(':') {
                        continue;
                    }
                    add.push(core::HeaderValueOption {
                        header: Some(core::HeaderValue { key: key.clone(), value: value.into(), ..Default::default() }),
                        append_action: action as i32,
                        ..Default::default()
                    });
                }
            }
            let remove = list(ops, "/remove").iter().filter_map(Value::as_str).filter(|n| !is_host(n) && !n.starts_with(':'));
            let remove = remove.map(str::to_string).collect();
            if side == "request" {
                (out.request_add, out.request_remove) = (add, remove);
            } else {
                (out.response_add, out.response_remove) = (add, remove);
            }
        }
        out
    }
}
