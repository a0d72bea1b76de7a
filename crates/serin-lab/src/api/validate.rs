//! What built-in kinds refuse beyond wrong types, in Kubernetes' words; and the metadata of all kinds.
//!
//! The common mistakes of people and of controllers, not every rule that Kubernetes has.

use serde_json::Value;

use super::kinds::Kind;
use super::names;
use super::status::{Fault, Problem};

/// All annotations of an object together, in bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Judges the metadata of any object.
pub(super) fn metadata(kind: &Kind, new: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    let meta = &new["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    if old.is_none() {
        if let Some(prefix) = meta["generateName"].as_str().filter(|p| !p.is_empty())
            && let Some(why) = names::name_problem(kind.name_rule(), prefix, true)
        {
            problems.push(Problem::invalid("metadata.generateName", &meta["generateName"], why));
        }
        if name.is_empty() {
            problems.push(Problem::required("metadata.name", "name or generateName is required"));
        } else if let Some(why) = names::name_problem(kind.name_rule(), name, false) {
            problems.push(Problem::invalid("metadata.name", &meta["name"], why));
        }
    }
    labels(&meta["labels"], "metadata.labels", problems);
    let mut size = 0;
    for (key, value) in meta["annotations"].as_object().into_iter().flatten() {
        if let Some(why) = names::label_key_problem(&key.to_lowercase()) {
            problems.push(Problem::invalid("metadata.annotations", &key.as_str().into(), why));
        }
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > MAX_ANNOTATIONS {
        let detail = format!("may not be more than {MAX_ANNOTATIONS} bytes");
        problems.push(Problem { field: "metadata.annotations".into(), fault: Fault::TooLong, detail });
    }
    for (i, owner) in meta["ownerReferences"].as_array().into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                let detail = format!("{field} must not be empty");
                problems.push(Problem::invalid(format!("metadata.ownerReferences[{i}].{field}"), &"".into(), detail));
            }
        }
    }
    let controllers = meta["ownerReferences"].as_array().into_iter().flatten().filter(|o| o["controller"] == true).count();
    if controllers > 1 {
        let detail = "Only one reference can have Controller set to true.";
        problems.push(Problem::invalid("metadata.ownerReferences", &meta["ownerReferences"], detail));
    }
    if let Some(old) = old.filter(|o| o["metadata"].get("deletionTimestamp").is_some()) {
        let was = old["metadata"]["finalizers"].as_array().map_or(&[][..], Vec::as_slice);
        let added: Vec<&Value> = meta["finalizers"].as_array().into_iter().flatten().filter(|f| !was.contains(f)).collect();
        if !added.is_empty() {
            let detail = format!("no new finalizers can be added if the object is being deleted, found new finalizers {added:?}");
            problems.push(Problem::forbidden("metadata.finalizers", detail));
        }
    }
}

fn labels(labels: &Value, path: &str, problems: &mut Vec<Problem>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        if let Some(why) = names::label_key_problem(key) {
            problems.push(Problem::invalid(path, &key.as_str().into(), why));
        }
        if let Some(why) = value.as_str().and_then(names::label_value_problem) {
            problems.push(Problem::invalid(path, value, why));
        }
    }
}

/// Judges a built-in object.
pub(super) fn object(kind: &Kind, new: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    match (kind.resource.group.as_str(), kind.resource.plural.as_str()) {
        ("", "pods") => pod(new, old, problems),
        ("", "services") => service(new, old, problems),
        ("", "configmaps") => config_map(new, old, problems),
        ("", "secrets") => secret(new, old, problems),
        ("apps", "deployments") => deployment(new, old, problems),
        ("apps", "replicasets") => {
            replicas(new, problems);
            selected_template(new, old, problems);
        }
        ("batch", "jobs") => job(new, old, problems),
        ("batch", "cronjobs") => cron_job(new, problems),
        ("autoscaling", "horizontalpodautoscalers") => autoscaler(new, problems),
        ("policy", "poddisruptionbudgets") => {
            let spec = &new["spec"];
            if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
                problems.push(Problem::invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"));
            }
        }
        ("discovery.k8s.io", "endpointslices") => endpoint_slice(new, old, problems),
        ("events.k8s.io", "events") => new_event(new, problems),
        ("coordination.k8s.io", "leases") => {
            for field in ["leaseDurationSeconds", "leaseTransitions"] {
                let least = i64::from(field == "leaseDurationSeconds");
                if new["spec"][field].as_i64().is_some_and(|n| n < least) {
                    let detail = if least == 1 { "must be greater than 0" } else { "must be greater than or equal to 0" };
                    problems.push(Problem::invalid(format!("spec.{field}"), &new["spec"][field], detail));
                }
            }
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            if new["roleRef"]["name"].as_str().unwrap_or_default().is_empty() {
                problems.push(Problem::required("roleRef.name", ""));
            }
            if old.is_some_and(|o| o["roleRef"] != new["roleRef"]) {
                problems.push(Problem::invalid("roleRef", &new["roleRef"], "cannot change roleRef"));
            }
        }
        _ => {}
    }
}

fn replicas(new: &Value, problems: &mut Vec<Problem>) {
    if new["spec"]["replicas"].as_i64().is_some_and(|n| n < 0) {
        problems.push(Problem::invalid("spec.replicas", &new["spec"]["replicas"], "must be greater than or equal to 0"));
    }
}

fn deployment(new: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    replicas(new, problems);
    selected_template(new, old, problems);
    let spec = &new["spec"];
    let strategy = &spec["strategy"];
    match strategy["type"].as_str().unwrap_or_default() {
        "Recreate" => {
            if !strategy["rollingUpdate"].is_null() {
                problems.push(Problem::forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'"));
            }
        }
        "RollingUpdate" => {
            let rolling = &strategy["rollingUpdate"];
            let mut zero = true;
            for field in ["maxUnavailable", "maxSurge"] {
                let path = format!("spec.strategy.rollingUpdate.{field}");
                match int_or_percent(&rolling[field]) {
                    Some(n) => zero &= n == 0,
                    None => {
                        let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                        problems.push(Problem::invalid(path, &rolling[field], why));
                        zero = false;
                    }
                }
            }
            let unavailable = &rolling["maxUnavailable"];
            if unavailable.is_string() && int_or_percent(unavailable).is_some_and(|n| n > 100) {
                problems.push(Problem::invalid("spec.strategy.rollingUpdate.maxUnavailable", unavailable, "must not be greater than 100%"));
            }
            if zero {
                problems.push(Problem::invalid(
                    "spec.strategy.rollingUpdate.maxUnavailable",
                    unavailable,
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
        }
        _ => problems.push(Problem::not_supported("spec.strategy.type", &strategy["type"], &["Recreate", "RollingUpdate"])),
    }
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        if spec[field].as_i64().is_some_and(|n| n < 0) {
            problems.push(Problem::invalid(format!("spec.{field}"), &spec[field], "must be greater than or equal to 0"));
        }
    }
    if let Some(deadline) = spec["progressDeadlineSeconds"].as_i64()
        && deadline <= spec["minReadySeconds"].as_i64().unwrap_or(0)
    {
        problems.push(Problem::invalid("spec.progressDeadlineSeconds", &deadline.into(), "must be greater than minReadySeconds"));
    }
}

/// A count, or the number before the percent sign; `None` if it is neither.
fn int_or_percent(value: &Value) -> Option<u64> {
    match value {
        Value::Number(n) => n.as_u64(),
        Value::String(text) => text.strip_suffix('%')?.parse().ok(),
        _ => None,
    }
}

/// An event by the new API, whose rules are stricter than the old one's.
fn new_event(new: &Value, problems: &mut Vec<Problem>) {
    let text = |field: &str| new[field].as_str().unwrap_or_default();
    for field in ["reportingController", "reportingInstance", "action", "reason"] {
        if text(field).is_empty() {
            problems.push(Problem::required(field, ""));
        } else if text(field).len() > 128 {
            problems.push(Problem::invalid(field, &"".into(), "can have at most 128 characters"));
        }
    }
    if new["eventTime"].is_null() {
        problems.push(Problem::required("eventTime", ""));
    }
    // The limit is in bytes, whatever the message says.
    if text("note").len() > 1024 {
        problems.push(Problem::invalid("message", &"".into(), "can have at most 1024 characters"));
    }
    if !matches!(text("type"), "Normal" | "Warning") {
        problems.push(Problem::invalid("type", &"".into(), format!("has invalid value: {}", text("type"))));
    }
}

/// Selector and template of a controller: both there, in agreement, and the selector as it always was.
fn selected_template(new: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    let selector = &new["spec"]["selector"];
    let template = &new["spec"]["template"];
    let empty = selector
        .as_object()
        .is_none_or(|s| s.values().all(|v| v.as_object().is_none_or(serde_json::Map::is_empty) && v.as_array().is_none_or(Vec::is_empty)));
    if selector.is_null() {
        problems.push(Problem::required("spec.selector", ""));
    } else if empty {
        problems.push(Problem::invalid("spec.selector", selector, "empty selector is invalid for a controller of pods"));
    } else {
        selector_is_valid(selector, "spec.selector", problems);
    }
    if (selector.is_null() || !empty) && template.is_object() {
        let text = super::scale::selector_text(selector);
        // What is not there selects nothing.
        let matches = !selector.is_null() && super::select::Selection::labels(&text).is_ok_and(|s| s.matches(template));
        if !matches {
            let labels = &template["metadata"]["labels"];
            let shown = if labels.is_null() { Value::Object(serde_json::Map::new()) } else { labels.clone() };
            problems.push(Problem::invalid("spec.template.metadata.labels", &shown, "`selector` does not match template `labels`"));
        }
    }
    if old.is_some_and(|o| o["spec"]["selector"] != *selector) {
        problems.push(Problem::invalid("spec.selector", selector, "field is immutable"));
    }
    labels(&template["metadata"]["labels"], "spec.template.labels", problems);
    pod_spec(&template["spec"], "spec.template.spec", problems);
    let policy = template["spec"]["restartPolicy"].as_str().unwrap_or("Always");
    if policy != "Always" {
        problems.push(Problem::not_supported("spec.template.spec.restartPolicy", &policy.into(), &["Always"]));
    }
}

fn selector_is_valid(selector: &Value, path: &str, problems: &mut Vec<Problem>) {
    labels(&selector["matchLabels"], &format!("{path}.matchLabels"), problems);
    for (i, term) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{i}]");
        let n = term["values"].as_array().map_or(0, Vec::len);
        match term["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if n == 0 => {
                problems.push(Problem::required(format!("{path}.values"), "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if n > 0 => {
                problems.push(Problem::forbidden(
                    format!("{path}.values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => problems.push(Problem::invalid(format!("{path}.operator"), &term["operator"], "not a valid selector operator")),
        }
    }
}

fn pod(new: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    pod_spec(&new["spec"], "spec", problems);
    let Some(old) = old else { return };
    // What may change of a running pod is put aside; the rest must be as it was.
    let frozen = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for list in ["containers", "initContainers"] {
            if let Value::Array(items) = &mut spec[list] {
                items.iter_mut().filter_map(Value::as_object_mut).for_each(|c| {
                    c.remove("image");
                    // Follows the tag of an image that was set by itself.
                    c.remove("imagePullPolicy");
                });
            }
        }
        if let Some(fields) = spec.as_object_mut() {
            for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"] {
                fields.remove(field);
            }
            if pod["spec"]["nodeName"].is_null() || old["spec"]["nodeName"].is_null() {
                fields.remove("nodeName");
            }
            fields.retain(|_, v| !v.is_null());
        }
        spec
    };
    if frozen(new) != frozen(old) {
        problems.push(Problem::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
}

fn pod_spec(spec: &Value, path: &str, problems: &mut Vec<Problem>) {
    let containers = spec["containers"].as_array().map_or(&[][..], Vec::as_slice);
    if containers.is_empty() {
        problems.push(Problem::required(format!("{path}.containers"), ""));
    }
    let policies = ["Always", "OnFailure", "Never"];
    if let Some(policy) = spec["restartPolicy"].as_str().filter(|p| !policies.contains(p)) {
        problems.push(Problem::not_supported(format!("{path}.restartPolicy"), &policy.into(), &policies));
    }
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|n| n < 0) {
        let field = format!("{path}.terminationGracePeriodSeconds");
        problems.push(Problem::invalid(field, &spec["terminationGracePeriodSeconds"], "must be greater than or equal to 0"));
    }
    let volumes: Vec<&str> = spec["volumes"].as_array().into_iter().flatten().filter_map(|v| v["name"].as_str()).collect();
    for (i, volume) in spec["volumes"].as_array().into_iter().flatten().enumerate() {
        dns_label(&volume["name"], &format!("{path}.volumes[{i}].name"), problems);
    }
    let mut names: Vec<&Value> = Vec::new();
    for list in ["initContainers", "containers"] {
        for (i, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let at = format!("{path}.{list}[{i}]");
            dns_label(&container["name"], &format!("{at}.name"), problems);
            if names.contains(&&container["name"]) {
                problems.push(Problem::duplicate(format!("{at}.name"), &container["name"]));
            }
            names.push(&container["name"]);
            check_container(container, &at, &volumes, problems);
        }
    }
}

fn check_container(container: &Value, at: &str, volumes: &[&str], problems: &mut Vec<Problem>) {
    match container["image"].as_str() {
        None | Some("") => problems.push(Problem::required(format!("{at}.image"), "")),
        Some(image) if image.trim() != image => {
            problems.push(Problem::invalid(format!("{at}.image"), &container["image"], "must not have leading or trailing whitespace"));
        }
        Some(_) => {}
    }
    let pull = ["Always", "IfNotPresent", "Never"];
    if let Some(policy) = container["imagePullPolicy"].as_str().filter(|p| !pull.contains(p)) {
        problems.push(Problem::not_supported(format!("{at}.imagePullPolicy"), &policy.into(), &pull));
    }
    let mut port_names: Vec<&str> = Vec::new();
    for (i, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{at}.ports[{i}]");
        port_number(&port["containerPort"], &format!("{at}.containerPort"), problems);
        if let Some(name) = port["name"].as_str().filter(|n| !n.is_empty()) {
            if let Some(why) = names::port_name_problem(name) {
                problems.push(Problem::invalid(format!("{at}.name"), &name.into(), why));
            }
            if port_names.contains(&name) {
                problems.push(Problem::duplicate(format!("{at}.name"), &name.into()));
            }
            port_names.push(name);
        }
        protocol(&port["protocol"], &format!("{at}.protocol"), problems);
    }
    for (i, variable) in container["env"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{at}.env[{i}]");
        match variable["name"].as_str() {
            None | Some("") => problems.push(Problem::required(format!("{at}.name"), "")),
            Some(name) if name.contains('=') => {
                problems.push(Problem::invalid(
                    format!("{at}.name"),
                    &name.into(),
                    "a valid environment variable name must consist only of printable ASCII characters other than '='",
                ));
            }
            Some(_) => {}
        }
        if !variable["valueFrom"].is_null() && variable["value"].as_str().is_some_and(|v| !v.is_empty()) {
            problems.push(Problem::invalid(format!("{at}.valueFrom"), &"".into(), "may not be specified when `value` is not empty"));
        }
    }
    for (i, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{at}.volumeMounts[{i}]");
        let name = mount["name"].as_str().unwrap_or_default();
        if !volumes.contains(&name) {
            problems.push(Problem { field: format!("{at}.name"), fault: Fault::Invalid(format!("{name:?}")), detail: "Not found".into() });
        }
        if mount["mountPath"].as_str().unwrap_or_default().is_empty() {
            problems.push(Problem::required(format!("{at}.mountPath"), ""));
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[name];
        if probe.is_null() {
            continue;
        }
        let handlers = ["httpGet", "tcpSocket", "exec", "grpc"].iter().filter(|h| !probe[**h].is_null()).count();
        let at = format!("{at}.{name}");
        match handlers {
            0 => problems.push(Problem::required(at.clone(), "must specify a handler type")),
            1 => {}
            _ => problems.push(Problem::forbidden(at.clone(), "may not specify more than 1 handler type")),
        }
        for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
            if probe[field].as_i64().is_some_and(|n| n < 0) {
                problems.push(Problem::invalid(format!("{at}.{field}"), &probe[field], "must be greater than or equal to 0"));
            }
        }
    }
}

fn dns_label(name: &Value, path: &str, problems: &mut Vec<Problem>) {
    match name.as_str() {
        None | Some("") => problems.push(Problem::required(path, "")),
        Some(text) => {
            if let Some(why) = names::label_problem(text) {
                problems.push(Problem::invalid(path, name, why));
            }
        }
    }
}

fn port_number(value: &Value, path: &str, problems: &mut Vec<Problem>) {
    match value.as_i64() {
        None | Some(0) => problems.push(Problem::required(path, "")),
        Some(1..=65535) => {}
        Some(_) => problems.push(Problem::invalid(path, value, "must be between 1 and 65535, inclusive")),
    }
}

fn protocol(value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let known = ["SCTP", "TCP", "UDP"];
    if value.as_str().is_some_and(|p| !known.contains(&p)) {
        problems.push(Problem::not_supported(path, value, &known));
    }
}

fn service(new: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    let spec = &new["spec"];
    let kind = spec["type"].as_str().unwrap_or_default();
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !kinds.contains(&kind) {
        problems.push(Problem::not_supported("spec.type", &spec["type"], &kinds));
    }
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let headless = spec["clusterIP"] == "None";
    if ports.is_empty() && kind != "ExternalName" && !headless {
        problems.push(Problem::required("spec.ports", ""));
    }
    if kind == "ExternalName" && spec["externalName"].as_str().unwrap_or_default().is_empty() {
        problems.push(Problem::required("spec.externalName", ""));
    }
    labels(&spec["selector"], "spec.selector", problems);
    let mut seen: Vec<(&Value, &Value)> = Vec::new();
    let mut seen_names: Vec<&str> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        port_number(&port["port"], &format!("{at}.port"), problems);
        protocol(&port["protocol"], &format!("{at}.protocol"), problems);
        match port["name"].as_str().filter(|n| !n.is_empty()) {
            None if ports.len() > 1 => problems.push(Problem::required(format!("{at}.name"), "")),
            None => {}
            Some(name) => {
                dns_label(&port["name"], &format!("{at}.name"), problems);
                if seen_names.contains(&name) {
                    problems.push(Problem::duplicate(format!("{at}.name"), &port["name"]));
                }
                seen_names.push(name);
            }
        }
        match &port["targetPort"] {
            Value::String(name) => {
                if let Some(why) = names::port_name_problem(name) {
                    problems.push(Problem::invalid(format!("{at}.targetPort"), &port["targetPort"], why));
                }
            }
            Value::Null => {}
            number => {
                if !number.as_i64().is_some_and(|n| (1..=65535).contains(&n)) {
                    problems.push(Problem::invalid(format!("{at}.targetPort"), number, "must be between 1 and 65535, inclusive"));
                }
            }
        }
        let identity = (&port["port"], &port["protocol"]);
        if seen.contains(&identity) {
            problems.push(Problem::duplicate(at, &serde_json::json!({"port": port["port"], "protocol": port["protocol"]})));
        }
        seen.push(identity);
    }
    if let Some(address) = spec["clusterIP"].as_str().filter(|a| !a.is_empty() && *a != "None")
        && address.parse::<std::net::IpAddr>().is_err()
    {
        problems.push(Problem::invalid(
            "spec.clusterIPs[0]",
            &address.into(),
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
    }
    if let Some(old) = old {
        let (was, is) = (&old["spec"]["clusterIP"], &spec["clusterIP"]);
        let both = kind != "ExternalName" && old["spec"]["type"] != "ExternalName";
        if both && was.as_str().is_some_and(|a| !a.is_empty()) && was != is {
            problems.push(Problem::invalid("spec.clusterIPs[0]", &serde_json::json!([is]), "may not change once set"));
        }
    }
}

fn config_map(new: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    for field in ["data", "binaryData"] {
        for (key, _) in new[field].as_object().into_iter().flatten() {
            config_key(key, &format!("{field}[{key}]"), problems);
        }
    }
    immutable(new, old, &["data", "binaryData"], problems);
}

fn secret(new: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    for (key, _) in new["data"].as_object().into_iter().flatten() {
        config_key(key, &format!("data[{key}]"), problems);
    }
    if old.is_some_and(|o| o["type"] != new["type"]) {
        problems.push(Problem::invalid("type", &new["type"], "field is immutable"));
    }
    immutable(new, old, &["data"], problems);
}

fn immutable(new: &Value, old: Option<&Value>, fields: &[&str], problems: &mut Vec<Problem>) {
    let Some(old) = old.filter(|o| o["immutable"] == true) else { return };
    if new["immutable"] != true {
        problems.push(Problem::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in fields {
        if old[*field] != new[*field] {
            problems.push(Problem::forbidden(*field, "field is immutable when `immutable` is set"));
        }
    }
}

fn config_key(key: &str, path: &str, problems: &mut Vec<Problem>) {
    let fine = !key.is_empty() && key.len() <= 253 && key.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
    if !fine || key == "." || key == ".." {
        problems.push(Problem::invalid(path, &key.into(), "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"));
    }
}

fn job(new: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    let spec = &new["spec"];
    for field in ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"] {
        if spec[field].as_i64().is_some_and(|n| n < 0) {
            problems.push(Problem::invalid(format!("spec.{field}"), &spec[field], "must be greater than or equal to 0"));
        }
    }
    pod_spec(&spec["template"]["spec"], "spec.template.spec", problems);
    restart_policy_of_job(&spec["template"], "spec.template.spec.restartPolicy", problems);
    if let Some(old) = old {
        for field in ["selector", "template", "completionMode"] {
            if old["spec"][field] != spec[field] {
                problems.push(Problem::invalid(format!("spec.{field}"), &spec[field], "field is immutable"));
            }
        }
    }
}

fn restart_policy_of_job(template: &Value, path: &str, problems: &mut Vec<Problem>) {
    let policy = &template["spec"]["restartPolicy"];
    if !matches!(policy.as_str(), Some("OnFailure" | "Never")) {
        problems.push(Problem { field: path.into(), fault: Fault::Required, detail: "valid values: \"OnFailure\", \"Never\"".into() });
    }
}

fn cron_job(new: &Value, problems: &mut Vec<Problem>) {
    let spec = &new["spec"];
    let schedule = spec["schedule"].as_str().unwrap_or_default();
    if schedule.is_empty() {
        problems.push(Problem::required("spec.schedule", ""));
    } else if !schedule.starts_with('@') && schedule.split_whitespace().count() != 5 {
        let n = schedule.split_whitespace().count();
        problems.push(Problem::invalid("spec.schedule", &spec["schedule"], format!("expected exactly 5 fields, found {n}: {schedule}")));
    }
    let policies = ["Allow", "Forbid", "Replace"];
    if let Some(policy) = spec["concurrencyPolicy"].as_str().filter(|p| !policies.contains(p)) {
        problems.push(Problem::not_supported("spec.concurrencyPolicy", &policy.into(), &policies));
    }
    let template = &spec["jobTemplate"]["spec"]["template"];
    pod_spec(&template["spec"], "spec.jobTemplate.spec.template.spec", problems);
    restart_policy_of_job(template, "spec.jobTemplate.spec.template.spec.restartPolicy", problems);
}

fn autoscaler(new: &Value, problems: &mut Vec<Problem>) {
    let spec = &new["spec"];
    for field in ["kind", "name"] {
        if spec["scaleTargetRef"][field].as_str().unwrap_or_default().is_empty() {
            problems.push(Problem::required(format!("spec.scaleTargetRef.{field}"), ""));
        }
    }
    let (least, most) = (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(0));
    if most < 1 {
        problems.push(Problem::invalid("spec.maxReplicas", &most.into(), "must be greater than 0"));
    } else if most < least {
        problems.push(Problem::invalid("spec.maxReplicas", &most.into(), "must be greater than or equal to `minReplicas`"));
    }
}

fn endpoint_slice(new: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    let kinds = ["FQDN", "IPv4", "IPv6"];
    match new["addressType"].as_str() {
        None | Some("") => problems.push(Problem::required("addressType", "")),
        Some(kind) if !kinds.contains(&kind) => problems.push(Problem::not_supported("addressType", &kind.into(), &kinds)),
        Some(_) => {}
    }
    if old.is_some_and(|o| o["addressType"] != new["addressType"]) {
        problems.push(Problem::invalid("addressType", &new["addressType"], "field is immutable"));
    }
    for (i, endpoint) in new["endpoints"].as_array().into_iter().flatten().enumerate() {
        if endpoint["addresses"].as_array().is_none_or(Vec::is_empty) {
            problems.push(Problem::required(format!("endpoints[{i}].addresses"), "must contain at least 1 address"));
        }
    }
}
