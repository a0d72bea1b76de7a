//! What Istio's validating webhook refuses of its kinds: the mistakes that matter to routing.
//!
//! Types and enums are in the schemas; what a rule does is the room of `mesh`. Sentences follow Istio's `pkg/config/validation`.

use http::StatusCode;
use serde_json::Value;

use super::names::{label_key_problem, label_problem, label_value_problem};
use super::status::ApiError;

/// A webhook's refusal of an object with these faults.
pub(super) fn denied(faults: &[String]) -> ApiError {
    let all = match faults {
        [one] => one.clone(),
        many => format!("{} errors occurred:\n\t* {}\n", many.len(), many.join("\n\t* ")),
    };
    let message = format!("admission webhook \"rev.validation.istio.io\" denied the request: configuration is invalid: {all}");
    ApiError::new(StatusCode::BAD_REQUEST, "", message)
}

/// What is wrong with the spec of a kind.
pub(super) fn check(kind: &str, spec: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    match kind {
        "VirtualService" => virtual_service(spec, &mut faults),
        "DestinationRule" => destination_rule(spec, &mut faults),
        "Gateway" => gateway(spec, &mut faults),
        "ServiceEntry" => service_entry(spec, &mut faults),
        _ => {}
    }
    faults
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn virtual_service(spec: &Value, faults: &mut Vec<String>) {
    let hosts = list(&spec["hosts"]);
    let delegate = hosts.is_empty();
    if delegate {
        if !list(&spec["gateways"]).is_empty() {
            faults.push("delegate virtual service must have no gateways specified".into());
        }
        if !list(&spec["tls"]).is_empty() || !list(&spec["tcp"]).is_empty() {
            faults.push("delegate virtual service must have no tls or tcp routes".into());
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for host in hosts.iter().map(text) {
        domain(host, faults);
        if seen.contains(&host) {
            faults.push(format!("duplicate hosts in virtual service: {host}"));
        }
        seen.push(host);
    }
    let routes = ["http", "tls", "tcp"].map(|kind| list(&spec[kind]));
    if routes.iter().all(|r| r.is_empty()) {
        faults.push("http, tcp or tls must be provided in virtual service".into());
    }
    for route in routes[0] {
        http_route(route, delegate, faults);
    }
    for route in routes[1].iter().chain(routes[2]) {
        let to = list(&route["route"]);
        if to.is_empty() {
            faults.push("TCP or TLS route is required".into());
        }
        destinations(to, faults);
    }
    for tls in routes[1] {
        if list(&tls["match"]).is_empty() {
            faults.push("TLS match must have at least one match condition".into());
        }
        for sni in list(&tls["match"]).iter().flat_map(|m| list(&m["sniHosts"])).map(text) {
            domain(sni, faults);
        }
    }
}

fn http_route(route: &Value, delegate: bool, faults: &mut Vec<String>) {
    let has = |field: &str| !route[field].is_null();
    let to = list(&route["route"]);
    match (to.is_empty(), has("redirect"), has("directResponse"), has("delegate")) {
        (true, false, false, false) => faults.push("HTTP route, redirect or direct_response is required".into()),
        (false, true, _, _) => faults.push("HTTP route cannot contain both route and redirect".into()),
        (false, _, true, _) => faults.push("HTTP route cannot contain both route and direct_response".into()),
        (false, _, _, true) => faults.push("root HTTP route cannot contain both route and delegate".into()),
        (true, true, true, _) => faults.push("HTTP route cannot contain both redirect and direct_response".into()),
        _ => {}
    }
    if has("delegate") && delegate {
        faults.push("delegate HTTP route cannot contain delegate".into());
    }
    if has("redirect") && has("rewrite") {
        faults.push("HTTP route rule cannot contain both rewrite and redirect".into());
    }
    destinations(to, faults);
    for status in [&route["fault"]["abort"]["httpStatus"], &route["directResponse"]["status"]] {
        if status.as_i64().is_some_and(|s| !(200..600).contains(&s)) {
            faults.push(format!("HTTP status {status} is not in range 200-599"));
        }
    }
    for (what, share) in [
        ("fault.abort", &route["fault"]["abort"]["percentage"]["value"]),
        ("fault.delay", &route["fault"]["delay"]["percentage"]["value"]),
        ("mirrorPercentage", &route["mirrorPercentage"]["value"]),
    ] {
        percentage(what, share, faults);
    }
    for mirror in list(&route["mirrors"]) {
        percentage("mirrors.percentage", &mirror["percentage"]["value"], faults);
        destination(&mirror["destination"], faults);
    }
    if has("mirror") {
        destination(&route["mirror"], faults);
        if has("mirrors") {
            faults.push("HTTP route cannot contain both mirror and mirrors".into());
        }
    }
    duration("timeout", &route["timeout"], 0, faults);
    duration("fixed_delay", &route["fault"]["delay"]["fixedDelay"], 1, faults);
    let retries = &route["retries"];
    if retries["attempts"].as_i64().is_some_and(|n| n < 0) {
        faults.push("attempts cannot be negative".into());
    }
    if retries["attempts"].as_i64().unwrap_or(0) == 0 && (!retries["retryOn"].is_null() || !retries["perTryTimeout"].is_null()) {
        faults.push("http retry policy configured when attempts are set to 0 (disabled)".into());
    }
    duration("perTryTimeout", &retries["perTryTimeout"], 1, faults);
    for matched in list(&route["match"]) {
        let headers = ["headers", "withoutHeaders", "queryParams"].iter().flat_map(|f| matched[*f].as_object().into_iter().flatten());
        let plain = ["uri", "scheme", "method", "authority"].iter().map(|f| ((*f).to_owned(), &matched[*f]));
        for (name, condition) in headers.map(|(n, c)| (n.clone(), c)).chain(plain) {
            let kinds = ["exact", "prefix", "regex"].iter().filter(|k| !condition[**k].is_null()).count();
            if kinds > 1 {
                faults.push(format!("match of {name}: only one of exact, prefix and regex may be set"));
            }
        }
    }
}

fn destinations(all: &[Value], faults: &mut Vec<String>) {
    let mut total = 0_i64;
    for weighted in all {
        destination(&weighted["destination"], faults);
        let weight = weighted["weight"].as_i64().unwrap_or(0);
        if weight < 0 {
            faults.push(format!("weight {weight} < 0"));
        }
        total = total.saturating_add(weight);
    }
    if all.len() > 1 && total == 0 {
        faults.push("total destination weight = 0".into());
    }
}

fn destination(destination: &Value, faults: &mut Vec<String>) {
    match text(&destination["host"]) {
        "*" => faults.push("invalid destination host *".into()),
        host => domain(host, faults),
    }
    if let Some(subset) = destination["subset"].as_str().filter(|s| !s.is_empty()) {
        subset_name(subset, faults);
    }
    if let Some(port) = destination["port"]["number"].as_i64()
        && !(1..=65_535).contains(&port)
    {
        faults.push(format!("port number {port} must be in the range 1..65535"));
    }
}

fn subset_name(name: &str, faults: &mut Vec<String>) {
    if name.is_empty() {
        faults.push("subset name cannot be empty".into());
    } else if label_problem(name).is_some() {
        faults.push(format!("subset name is invalid: {name}"));
    }
}

/// A name, perhaps with a wildcard in front.
fn domain(name: &str, faults: &mut Vec<String>) {
    if name.is_empty() {
        faults.push("domain name \"\" invalid (empty domain name not allowed)".into());
        return;
    }
    if name == "*" || name.parse::<std::net::IpAddr>().is_ok() {
        return;
    }
    if name.len() > 255 {
        faults.push(format!("domain name {name:?} too long (max 255)"));
    }
    let rest = name.strip_prefix("*.").or_else(|| name.strip_prefix("*-")).unwrap_or(name);
    for label in rest.trim_end_matches('.').split('.') {
        if label_problem(&label.to_ascii_lowercase()).is_some() {
            faults.push(format!("domain name {name:?} invalid (label {label:?} invalid)"));
            return;
        }
    }
}

fn percentage(what: &str, share: &Value, faults: &mut Vec<String>) {
    if share.as_f64().is_some_and(|s| !(0.0..=100.0).contains(&s)) {
        faults.push(format!("{what}: percentage {share} is not in range 0..100"));
    }
}

/// A duration such as `1.5s`; `least` in milliseconds.
fn duration(what: &str, value: &Value, least: i128, faults: &mut Vec<String>) {
    let Some(text) = value.as_str() else { return };
    match text.parse::<jiff::SignedDuration>() {
        Err(_) => faults.push(format!("{what}: invalid duration {text:?}")),
        Ok(found) if found.as_millis() < least => faults.push(format!("{what}: duration must be greater than 1ms")),
        Ok(_) => {}
    }
}

fn destination_rule(spec: &Value, faults: &mut Vec<String>) {
    domain(text(&spec["host"]), faults);
    for subset in list(&spec["subsets"]) {
        subset_name(text(&subset["name"]), faults);
        for (key, value) in subset["labels"].as_object().into_iter().flatten() {
            if label_key_problem(key).is_some() {
                faults.push(format!("invalid label key: {key:?}"));
            }
            if label_value_problem(text(value)).is_some() {
                faults.push(format!("invalid label value: {value}"));
            }
        }
        traffic_policy(&subset["trafficPolicy"], faults);
    }
    traffic_policy(&spec["trafficPolicy"], faults);
}

fn traffic_policy(policy: &Value, faults: &mut Vec<String>) {
    let outliers = &policy["outlierDetection"];
    for field in ["interval", "baseEjectionTime"] {
        duration(field, &outliers[field], 1, faults);
    }
    for field in ["maxEjectionPercent", "minHealthPercent"] {
        percentage(field, &outliers[field], faults);
    }
    let pool = &policy["connectionPool"];
    duration("connectTimeout", &pool["tcp"]["connectTimeout"], 1, faults);
    if pool["tcp"]["maxConnections"].as_i64().is_some_and(|n| n < 0) {
        faults.push("max connections must be non-negative".into());
    }
    if !policy["loadBalancer"]["simple"].is_null() && !policy["loadBalancer"]["consistentHash"].is_null() {
        faults.push("only one of simple or consistentHash can be set".into());
    }
}

fn gateway(spec: &Value, faults: &mut Vec<String>) {
    let servers = list(&spec["servers"]);
    if servers.is_empty() {
        faults.push("gateway must have at least one server".into());
    }
    for server in servers {
        let port = &server["port"];
        if !port["number"].as_i64().is_some_and(|n| (1..=65_535).contains(&n)) {
            faults.push(format!("port number {} must be in the range 1..65535", port["number"]));
        }
        let protocol = text(&port["protocol"]).to_ascii_uppercase();
        if !["HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "TCP", "TLS"].contains(&protocol.as_str()) {
            faults.push(format!("unsupported protocol: {}", text(&port["protocol"])));
        }
        if list(&server["hosts"]).is_empty() {
            faults.push("server config must contain at least one host".into());
        }
        for host in list(&server["hosts"]).iter().map(text) {
            // A namespace may stand before it.
            domain(host.rsplit('/').next().unwrap_or_default(), faults);
        }
        let tls = matches!(protocol.as_str(), "HTTPS" | "TLS");
        if tls && server["tls"].is_null() {
            faults.push("server must have TLS settings for HTTPS/TLS protocols".into());
        }
        if !tls && !server["tls"].is_null() && protocol != "HTTP" {
            faults.push(format!("server cannot have TLS settings for plain text {protocol} ports"));
        }
    }
}

fn service_entry(spec: &Value, faults: &mut Vec<String>) {
    let hosts = list(&spec["hosts"]);
    if hosts.is_empty() {
        faults.push("service entry must have at least one host".into());
    }
    for host in hosts.iter().map(text) {
        if host == "*" {
            faults.push("invalid host *".into());
        } else {
            domain(host, faults);
        }
    }
    for port in list(&spec["ports"]) {
        if !port["number"].as_i64().is_some_and(|n| (1..=65_535).contains(&n)) {
            faults.push(format!("port number {} must be in the range 1..65535", port["number"]));
        }
    }
    let endpoints = list(&spec["endpoints"]);
    match spec["resolution"].as_str().unwrap_or("NONE") {
        "NONE" if !endpoints.is_empty() => faults.push("no endpoints should be provided for resolution type none".into()),
        "STATIC" if endpoints.is_empty() && spec["workloadSelector"].is_null() => {
            faults.push("endpoints must be provided if service entry resolution mode is static".into());
        }
        _ => {}
    }
    if !endpoints.is_empty() && !spec["workloadSelector"].is_null() {
        faults.push("only one of WorkloadSelector or Endpoints is allowed in Service Entry".into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn routes_that_istio_refuses_are_refused() {
        let to = |weights: &[i64]| {
            let routes: Vec<Value> = weights.iter().map(|w| json!({"destination": {"host": "a"}, "weight": w})).collect();
            json!({"hosts": ["a"], "http": [{"route": routes}]})
        };
        for (spec, faults) in [
            (to(&[90, 10]), vec![]),
            (to(&[90, 20]), vec![]),
            (to(&[0]), vec![]),
            (to(&[0, 0]), vec!["total destination weight = 0"]),
            (to(&[-1, 101]), vec!["weight -1 < 0"]),
            (json!({"hosts": ["a"]}), vec!["http, tcp or tls must be provided in virtual service"]),
            (json!({"hosts": ["a", "a"], "http": [{"redirect": {"uri": "/"}}]}), vec!["duplicate hosts in virtual service: a"]),
            (
                json!({"hosts": ["a_b"], "http": [{"route": [{"destination": {"host": "*"}}]}]}),
                vec!["domain name \"a_b\" invalid (label \"a_b\" invalid)", "invalid destination host *"],
            ),
            (
                json!({"hosts": ["a"], "http": [{"timeout": "soon"}]}),
                vec!["HTTP route, redirect or direct_response is required", "timeout: invalid duration \"soon\""],
            ),
            (json!({"http": [{"route": [{"destination": {"host": "a", "subset": "2.0.0"}}]}]}), vec!["subset name is invalid: 2.0.0"]),
        ] {
            assert_eq!(check("VirtualService", &spec), faults, "{spec}");
        }
        assert_eq!(check("DestinationRule", &json!({"host": "a", "subsets": [{"name": "v1", "labels": {"version": "v1"}}]})), [""; 0]);
        assert_eq!(
            check("Gateway", &json!({"servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]})),
            [""; 0]
        );
    }
}
