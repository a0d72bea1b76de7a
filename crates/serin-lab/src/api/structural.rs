//! Objects against schemas: unknown fields, defaults, and everything that is wrong, at once and in Kubernetes' words.
//!
//! Rules between fields (CEL) are in `rules`; what built-in kinds check beyond types is in `validate`.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;
use serde_json::{Map, Value};

use super::schema::{ListType, Node};
use super::status::{Fault, Problem};

/// `spec` and `replicas` to `spec.replicas`.
pub(super) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// A key of a map below `path`, as Kubernetes prints it.
fn key_path(path: &str, key: &str) -> String {
    format!("{path}[{key}]")
}

/// Decodes a built-in kind as Go's decoder does: nulls are absent, unknown fields are dropped and told, quantities become
/// strings.
///
/// # Errors
/// The first field of a wrong type, in Go's words.
pub(super) fn decode(node: Node<'_>, value: &mut Value, kind: &str, path: &str, unknown: &mut Vec<String>) -> Result<(), String> {
    if node.is_int_or_string() {
        return match value {
            Value::Number(n) if node.is_quantity() => {
                *value = n.to_string().into();
                Ok(())
            }
            Value::Number(n) if n.is_f64() => Err(unmarshal(value, kind, path, "int32")),
            Value::Number(_) | Value::String(_) | Value::Null => Ok(()),
            other => Err(unmarshal(other, kind, path, "intstr.IntOrString")),
        };
    }
    match (node.type_name(), &mut *value) {
        (Some("object"), Value::Object(fields)) => {
            let is_map = node.additional().is_some();
            let closed = node.schema().get("properties").is_some() && !node.is_open();
            fields.retain(|_, v| !v.is_null());
            let mut dropped = Vec::new();
            for (name, field) in fields.iter_mut() {
                let at = if is_map { key_path(path, name) } else { join(path, name) };
                match node.child(name) {
                    Some(child) => decode(child, field, kind, &at, unknown)?,
                    None if closed => {
                        unknown.push(at);
                        dropped.push(name.clone());
                    }
                    None => {}
                }
            }
            dropped.iter().for_each(|name| {
                fields.remove(name);
            });
            Ok(())
        }
        (Some("array"), Value::Array(items)) => {
            let Some(item) = node.items() else { return Ok(()) };
            for (i, value) in items.iter_mut().enumerate() {
                decode(item, value, kind, &format!("{path}[{i}]"), unknown)?;
            }
            Ok(())
        }
        (_, Value::Null) | (None, _) => Ok(()),
        (Some("string"), Value::String(text)) => match node.schema().get("format").and_then(Value::as_str) {
            Some("date-time") if !text.is_empty() && text.parse::<jiff::Timestamp>().is_err() => {
                Err(format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""))
            }
            Some("byte") if base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text.as_bytes()).is_err() => {
                Err(format!("illegal base64 data in {path}"))
            }
            _ => Ok(()),
        },
        (Some("boolean"), Value::Bool(_)) | (Some("number"), Value::Number(_)) => Ok(()),
        (Some("integer"), Value::Number(n)) if !n.is_f64() => Ok(()),
        (Some(wanted), other) => {
            let format = node.schema().get("format").and_then(Value::as_str);
            let go = match (wanted, format) {
                ("integer", Some(format)) => format,
                ("integer", None) => "int64",
                ("boolean", _) => "bool",
                ("number", _) => "float64",
                ("array", _) => "[]",
                ("object", _) => "map[string]",
                (other, _) => other,
            };
            Err(unmarshal(other, kind, path, go))
        }
    }
}

fn unmarshal(value: &Value, kind: &str, path: &str, into: &str) -> String {
    let what = match value {
        Value::Number(n) if n.is_f64() => format!("number {n}"),
        other => json_type(other).to_owned(),
    };
    let plain = strip_indices(path);
    format!("json: cannot unmarshal {what} into Go struct field {kind}.{plain} of type {into}")
}

fn strip_indices(path: &str) -> String {
    let mut depth = 0;
    path.chars()
        .filter(|c| {
            match c {
                '[' => depth += 1,
                ']' => {
                    depth -= 1;
                    return false;
                }
                _ => {}
            }
            depth == 0
        })
        .collect()
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Drops the fields of a custom object that its schema does not name, and tells their paths.
pub(super) fn prune(node: Node<'_>, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            // An embedded object always has these, whether or not the schema names them.
            let embedded = |name: &str| node.is_embedded() && matches!(name, "apiVersion" | "kind" | "metadata");
            let untyped = node.type_name().is_none() && node.schema().get("properties").is_none();
            let open = node.is_open() || untyped || node.is_int_or_string();
            let is_map = node.additional().is_some();
            let mut dropped = Vec::new();
            for (name, field) in fields.iter_mut() {
                let at = if is_map { key_path(path, name) } else { join(path, name) };
                match node.child(name) {
                    Some(child) => prune(child, field, &at, unknown),
                    None if open || embedded(name) => {}
                    None => {
                        unknown.push(at);
                        dropped.push(name.clone());
                    }
                }
            }
            dropped.iter().for_each(|name| {
                fields.remove(name);
            });
        }
        Value::Array(items) => {
            let Some(item) = node.items() else { return };
            for (i, value) in items.iter_mut().enumerate() {
                prune(item, value, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Writes a custom kind's defaults into an object. A null where none is allowed counts as absent if there is a default.
pub(super) fn apply_defaults(node: Node<'_>, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(properties) = node.schema().get("properties").and_then(Value::as_object) {
                for (name, schema) in properties {
                    let Some(default) = schema.get("default") else { continue };
                    let nullable = schema.get("nullable") == Some(&Value::Bool(true));
                    match fields.get(name) {
                        None => {}
                        Some(Value::Null) if !nullable => {}
                        Some(_) => continue,
                    }
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, field) in fields.iter_mut() {
                if let Some(child) = node.child(name) {
                    apply_defaults(child, field);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = node.items() {
                items.iter_mut().for_each(|value| apply_defaults(item, value));
            }
        }
        _ => {}
    }
}

/// Everything in `value` that its schema does not allow.
pub(super) fn validate(node: Node<'_>, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let schema = node.schema();
    if value.is_null() && node.get("nullable") == Some(&Value::Bool(true)) {
        return;
    }
    if !has_type(node, value) {
        let wanted = if node.is_int_or_string() { "integer,string" } else { node.type_name().unwrap_or_default() };
        let found = json_type(value);
        problems.push(Problem {
            field: path.to_owned(),
            fault: Fault::Type(format!("{found:?}")),
            detail: format!("{path} in body must be of type {wanted}: {found:?}"),
        });
        return;
    }
    values(node, value, path, problems);
    match value {
        Value::Object(fields) => object(node, fields, path, problems),
        Value::Array(items) => array(node, items, path, problems),
        _ => {}
    }
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        validate(Node::new(part), value, path, problems);
    }
    let passes = |schema: &Value| {
        let mut found = Vec::new();
        validate(Node::new(schema), value, path, &mut found);
        found.is_empty()
    };
    let refuse = |why: &str| Problem::invalid(path, &"".into(), format!("{path:?} {why}"));
    if let Some(any) = schema.get("anyOf").and_then(Value::as_array)
        && !any.iter().any(passes)
    {
        problems.push(refuse("must validate at least one schema (anyOf)"));
    }
    if let Some(one) = schema.get("oneOf").and_then(Value::as_array) {
        match one.iter().filter(|s| passes(s)).count() {
            1 => {}
            0 => problems.push(refuse("must validate one and only one schema (oneOf). Found none valid")),
            n => problems.push(refuse(&format!("must validate one and only one schema (oneOf). Found {n} valid alternatives"))),
        }
    }
    if schema.get("not").is_some_and(passes) {
        problems.push(refuse("must not validate the schema (not)"));
    }
}

fn has_type(node: Node<'_>, value: &Value) -> bool {
    if node.is_int_or_string() {
        return matches!(json_type(value), "integer" | "string");
    }
    match node.type_name() {
        None => true,
        Some("number") => value.is_number(),
        // 1.0 is an integer in JSON schema.
        Some("integer") => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0),
        Some(wanted) => json_type(value) == wanted,
    }
}

fn values(node: Node<'_>, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let schema = node.schema();
    let limit = |key: &str| schema.get(key).and_then(Value::as_u64);
    if let Some(known) = schema.get("enum").and_then(Value::as_array)
        && !known.contains(value)
    {
        let names: Vec<String> = known.iter().map(Value::to_string).collect();
        problems.push(Problem {
            field: path.to_owned(),
            fault: Fault::NotSupported(value.to_string()),
            detail: format!("supported values: {}", names.join(", ")),
        });
    }
    match value {
        Value::String(text) => {
            let chars = text.chars().count() as u64;
            if limit("maxLength").is_some_and(|max| chars > max) {
                let max = limit("maxLength").unwrap_or_default();
                problems.push(Problem { field: path.into(), fault: Fault::TooLong, detail: format!("may not be more than {max} bytes") });
            }
            if let Some(min) = limit("minLength").filter(|min| chars < *min) {
                problems.push(Problem::invalid(path, value, format!("{path} in body should be at least {min} chars long")));
            }
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                && !matches_pattern(pattern, text)
            {
                problems.push(Problem::invalid(path, value, format!("{path} in body should match '{pattern}'")));
            }
            if let Some(format) = schema.get("format").and_then(Value::as_str)
                && !has_format(format, text)
            {
                problems.push(Problem {
                    field: path.into(),
                    fault: Fault::Invalid(value.to_string()),
                    detail: format!("{path} in body must be of type {format}: {text:?}"),
                });
            }
        }
        Value::Number(number) => {
            let n = number.as_f64().unwrap_or_default();
            let flag = |key: &str| schema.get(key) == Some(&Value::Bool(true));
            if let Some(min) = schema.get("minimum").filter(|_| !node.is_int_or_string()) {
                let (exclusive, least) = (flag("exclusiveMinimum"), min.as_f64().unwrap_or(f64::MIN));
                if n < least || (exclusive && n <= least) {
                    let or_equal = if exclusive { "" } else { " or equal to" };
                    problems.push(Problem::invalid(path, value, format!("{path} in body should be greater than{or_equal} {min}")));
                }
            }
            if let Some(max) = schema.get("maximum").filter(|_| !node.is_int_or_string()) {
                let (exclusive, most) = (flag("exclusiveMaximum"), max.as_f64().unwrap_or(f64::MAX));
                if n > most || (exclusive && n >= most) {
                    let or_equal = if exclusive { "" } else { " or equal to" };
                    problems.push(Problem::invalid(path, value, format!("{path} in body should be less than{or_equal} {max}")));
                }
            }
            if let Some(unit) = schema.get("multipleOf").and_then(Value::as_f64).filter(|u| *u > 0.0)
                && (n / unit).fract().abs() > f64::EPSILON
            {
                problems.push(Problem::invalid(path, value, format!("{path} in body should be a multiple of {unit}")));
            }
            let fits = match schema.get("format").and_then(Value::as_str) {
                Some("int32") => (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&n),
                _ => true,
            };
            if !fits {
                problems.push(Problem::invalid(path, value, format!("{path} in body must be of type int32: {number}")));
            }
        }
        _ => {}
    }
}

fn object(node: Node<'_>, fields: &Map<String, Value>, path: &str, problems: &mut Vec<Problem>) {
    let schema = node.schema();
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            problems.push(Problem::required(join(path, name), ""));
        }
    }
    if let Some(max) = schema.get("maxProperties").and_then(Value::as_u64).filter(|max| fields.len() as u64 > *max) {
        let fault = Fault::TooMany(fields.len());
        problems.push(Problem { field: path.into(), fault, detail: format!("must have at most {max} items") });
    }
    if let Some(min) = schema.get("minProperties").and_then(Value::as_u64).filter(|min| (fields.len() as u64) < *min) {
        let detail = format!("{path} in body should have at least {min} properties");
        problems.push(Problem::invalid(path, &fields.len().into(), detail));
    }
    for (name, value) in fields {
        if let Some(child) = node.property(name) {
            // Metadata has rules of its own, the same for all kinds.
            if !(path.is_empty() && name == "metadata") {
                validate(child, value, &join(path, name), problems);
            }
        } else if let Some(child) = node.additional() {
            validate(child, value, &join(path, name), problems);
        }
    }
}

fn array(node: Node<'_>, items: &[Value], path: &str, problems: &mut Vec<Problem>) {
    let schema = node.schema();
    if let Some(max) = schema.get("maxItems").and_then(Value::as_u64).filter(|max| items.len() as u64 > *max) {
        let fault = Fault::TooMany(items.len());
        problems.push(Problem { field: path.into(), fault, detail: format!("must have at most {max} items") });
    }
    if let Some(min) = schema.get("minItems").and_then(Value::as_u64).filter(|min| (items.len() as u64) < *min) {
        problems.push(Problem::invalid(path, &items.len().into(), format!("{path} in body should have at least {min} items")));
    }
    if let Some(item) = node.items() {
        for (i, value) in items.iter().enumerate() {
            validate(item, value, &format!("{path}[{i}]"), problems);
        }
    }
    let unique = schema.get("uniqueItems") == Some(&Value::Bool(true));
    let key_of = |item: &Value| match node.list_type() {
        ListType::Atomic if !unique => None,
        ListType::Atomic | ListType::Set => Some(item.clone()),
        ListType::Map(keys) => {
            let keys = keys.iter().filter_map(|k| item.get(k).map(|v| (k.clone(), v.clone())));
            Some(Value::Object(keys.collect()))
        }
    };
    let mut seen: Vec<Value> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let Some(key) = key_of(item) else { break };
        if seen.contains(&key) {
            problems.push(Problem::duplicate(format!("{path}[{i}]"), &key));
        } else {
            seen.push(key);
        }
    }
}

/// Whether `text` matches; a pattern that is no regular expression matches nothing (CRDs with one are refused).
pub(super) fn matches_pattern(pattern: &str, text: &str) -> bool {
    static COMPILED: LazyLock<Mutex<HashMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let regex = compiled.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
    regex.as_ref().is_some_and(|r| r.is_match(text))
}

/// Formats that Kubernetes checks; an unknown one allows anything.
fn has_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => is_go_duration(text),
        "byte" => base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text
            .split_once('/')
            .is_some_and(|(ip, bits)| ip.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|b| b <= 128)),
        "uuid" => matches_pattern("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$", text),
        "hostname" => super::names::subdomain_problem(&text.to_ascii_lowercase()).is_none(),
        "uri" => text.parse::<http::Uri>().is_ok_and(|u| u.scheme().is_some()),
        "email" => text.split_once('@').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()),
        _ => true,
    }
}

/// `1h30m`, `10s`, `0.5m`: what Go's `time.ParseDuration` reads.
fn is_go_duration(text: &str) -> bool {
    text == "0" || matches_pattern(r"^[-+]?((\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h))+$", text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(schema: &Value, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        validate(Node::new(schema), value, "", &mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_problems_are_told_at_once_in_kubernetes_words() {
        let schema = json!({"type": "object", "properties": {"spec": {
            "type": "object",
            "required": ["service"],
            "properties": {
                "service": {"type": "string"},
                "replicas": {"type": "integer", "minimum": 1},
                "mode": {"type": "string", "enum": ["Act", "Observe"]},
                "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
                "weight": {"x-kubernetes-int-or-string": true},
                "steps": {"type": "array", "maxItems": 1, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                          "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
            },
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        }}});
        let value = json!({"spec": {"replicas": 0, "mode": "Other", "name": "TOOLONG", "weight": [],
            "steps": [{"name": "x"}, {"name": "x"}]}});
        assert_eq!(
            problems(&schema, &value),
            [
                "spec.service: Required value",
                "spec.mode: Unsupported value: \"Other\": supported values: \"Act\", \"Observe\"",
                "spec.name: Too long: may not be more than 5 bytes",
                "spec.name: Invalid value: \"TOOLONG\": spec.name in body should match '^[a-z]+$'",
                "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1",
                "spec.steps: Too many: 2: must have at most 1 items",
                "spec.steps[1]: Duplicate value: {\"name\":\"x\"}",
                "spec.weight: Invalid value: \"array\": spec.weight in body must be of type integer,string: \"array\"",
                "spec: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
            ]
        );
        assert_eq!(
            problems(&json!({"type": "object", "properties": {"n": {"type": "integer"}}}), &json!({"n": "1"})),
            ["n: Invalid value: \"string\": n in body must be of type integer: \"string\""]
        );
    }

    #[test]
    fn pruning_keeps_what_is_open_and_tells_the_rest() {
        let schema = json!({"type": "object", "properties": {
            "closed": {"type": "object", "properties": {"a": {"type": "string"}}},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"in": {"type": "object", "properties": {}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
        }});
        let mut value = json!({"closed": {"a": "x", "b": 1}, "open": {"any": {"thing": 1}, "in": {"z": 1}}, "map": {"k": {"a": "x", "q": 1}}, "top": 1});
        let mut unknown = Vec::new();
        prune(Node::new(&schema), &mut value, "", &mut unknown);
        assert_eq!(value, json!({"closed": {"a": "x"}, "open": {"any": {"thing": 1}, "in": {}}, "map": {"k": {"a": "x"}}}));
        assert_eq!(unknown, ["closed.b", "map[k].q", "open.in.z", "top"]);
    }

    #[test]
    fn defaults_fill_what_is_absent_only() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
            "mode": {"type": "string", "default": "Act"},
            "steps": {"type": "array", "items": {"type": "object", "properties": {"hold": {"type": "string", "default": "2m"}}}},
        }}}});
        let mut value = json!({"spec": {"mode": null, "steps": [{}, {"hold": "1s"}]}});
        apply_defaults(Node::new(&schema), &mut value);
        assert_eq!(value, json!({"spec": {"mode": "Act", "steps": [{"hold": "2m"}, {"hold": "1s"}]}}));
        let mut value = json!({});
        apply_defaults(Node::new(&schema), &mut value);
        assert_eq!(value, json!({"spec": {"mode": "Act"}}));
    }

    #[test]
    fn built_in_kinds_are_decoded_as_go_does() {
        let root = super::super::schema::built_in_root("io.k8s.api.apps.v1.Deployment");
        let mut value = json!({"metadata": {"creationTimestamp": null, "name": "a"}, "spec": {"replicas": 1, "foo": 1, "template": {"spec": {
            "containers": [{"name": "c", "resources": {"limits": {"cpu": 2}}, "bar": 1, "ports": [{"containerPort": 80}]}]}}}});
        let mut unknown = Vec::new();
        decode(Node::new(&root), &mut value, "Deployment", "", &mut unknown).unwrap();
        assert_eq!(unknown, ["spec.foo", "spec.template.spec.containers[0].bar"]);
        assert_eq!(value["metadata"], json!({"name": "a"}));
        assert_eq!(value["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
        let mut value = json!({"spec": {"replicas": "1"}});
        let error = decode(Node::new(&root), &mut value, "Deployment", "", &mut unknown).unwrap_err();
        assert_eq!(error, "json: cannot unmarshal string into Go struct field Deployment.spec.replicas of type int32");
    }
}
