//! Istio's kinds, which the lab knows without CRDs: names, versions, columns.
//!
//! What their fields mean is the room of `mesh`. Each is served in three versions from one stored object, as Istio's
//! own CRDs do (their conversion changes nothing but apiVersion).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::kinds::{Column, Kind, Origin, Version};
use super::schema;
use crate::store::Resource;

const VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];

/// group, plural, kind, short name, versions, columns (header=path).
type Row = (&'static str, &'static str, &'static str, &'static str, &'static [&'static str], &'static str);

const KINDS: &[Row] = &[
    ("networking.istio.io", "destinationrules", "DestinationRule", "dr", VERSIONS, "Host=.spec.host"),
    ("networking.istio.io", "gateways", "Gateway", "gw", VERSIONS, ""),
    (
        "networking.istio.io",
        "serviceentries",
        "ServiceEntry",
        "se",
        VERSIONS,
        "Hosts=.spec.hosts Location=.spec.location Resolution=.spec.resolution",
    ),
    ("networking.istio.io", "sidecars", "Sidecar", "", VERSIONS, ""),
    ("networking.istio.io", "virtualservices", "VirtualService", "vs", VERSIONS, "Gateways=.spec.gateways Hosts=.spec.hosts"),
    ("networking.istio.io", "workloadentries", "WorkloadEntry", "we", VERSIONS, "Address=.spec.address"),
    ("security.istio.io", "authorizationpolicies", "AuthorizationPolicy", "ap", &["v1", "v1beta1"], "Action=.spec.action"),
    ("security.istio.io", "peerauthentications", "PeerAuthentication", "pa", &["v1", "v1beta1"], "Mode=.spec.mtls.mode"),
    ("security.istio.io", "requestauthentications", "RequestAuthentication", "ra", &["v1", "v1beta1"], ""),
    ("telemetry.istio.io", "telemetries", "Telemetry", "telemetry", &["v1", "v1alpha1"], ""),
];

/// The kinds as Istio's CRDs would define them.
pub(super) fn kinds() -> Vec<Kind> {
    KINDS
        .iter()
        .map(|(group, plural, kind, short, versions, columns)| {
            let spec = format!("{}{}", schema::PREFIX, definition(&format!("{kind}Spec")));
            let schema = Arc::new(schema::custom_root(json!({
                "type": "object",
                "properties": {"spec": {"$ref": spec}, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            })));
            let versions = versions.iter().map(|name| Version {
                name: (*name).into(),
                served: true,
                status: true,
                scale: None,
                schema: schema.clone(),
                columns: columns_of(columns),
                selectable: Vec::new(),
                rules: None,
                deprecation: None,
            });
            Kind {
                resource: Resource::new(*group, *plural),
                kind: (*kind).into(),
                list_kind: format!("{kind}List"),
                singular: kind.to_lowercase(),
                short: if short.is_empty() { Vec::new() } else { vec![(*short).into()] },
                categories: vec!["istio-io".into(), format!("{}-istio-io", group.split('.').next().unwrap_or_default())],
                namespaced: true,
                versions: versions.collect(),
                storage: "v1".into(),
                origin: Origin::Istio,
            }
        })
        .collect()
}

fn columns_of(text: &str) -> Vec<Column> {
    let column = |name: &str, kind: &str, path: &str| Column {
        name: name.into(),
        kind: kind.into(),
        format: String::new(),
        description: String::new(),
        priority: 0,
        path: path.into(),
    };
    let mut all: Vec<Column> = text
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(_, path)| !path.is_empty())
        .map(|(name, path)| column(name, "string", path))
        .collect();
    if !all.is_empty() {
        all.push(column("Age", "date", ".metadata.creationTimestamp"));
    }
    all
}

/// The OpenAPI name of one of Istio's messages.
fn definition(message: &str) -> String {
    format!("io.istio.{message}")
}

/// The schemas of all messages that the kinds are made of, by OpenAPI name.
pub(super) fn definitions() -> Map<String, Value> {
    let lines = include_str!("istio.txt").lines().filter(|l| !l.starts_with('#'));
    lines.filter_map(message).collect()
}

fn message(line: &str) -> Option<(String, Value)> {
    let mut words = line.split(' ');
    let name = definition(words.next()?);
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (field, kind) in words.filter_map(|w| w.split_once('=')) {
        let plain = kind.strip_suffix('!');
        if plain.is_some() {
            required.push(field);
        }
        properties.insert(field.to_owned(), field_schema(plain.unwrap_or(kind)));
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    Some((name, schema))
}

fn field_schema(kind: &str) -> Value {
    if let Some(items) = kind.strip_prefix('[') {
        return json!({"type": "array", "items": field_schema(items)});
    }
    if let Some(values) = kind.strip_prefix('{') {
        return json!({"type": "object", "additionalProperties": field_schema(values)});
    }
    if let Some(message) = kind.strip_prefix('*') {
        return json!({"$ref": format!("{}{}", schema::PREFIX, definition(message))});
    }
    if let Some(names) = kind.strip_prefix("e:") {
        return json!({"type": "string", "enum": names.split('|').collect::<Vec<_>>()});
    }
    match kind {
        "b" => json!({"type": "boolean"}),
        "i" => json!({"type": "integer"}),
        "n" => json!({"type": "number"}),
        "x" => json!({"x-kubernetes-int-or-string": true}),
        _ => json!({"type": "string"}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_that_is_named_is_there() {
        let all = definitions();
        for kind in kinds() {
            assert!(all.contains_key(&definition(&format!("{}Spec", kind.kind))), "{}", kind.kind);
        }
        let text = Value::Object(all.clone()).to_string();
        for part in text.split(schema::PREFIX).skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(all.contains_key(name), "{name}");
        }
    }
}
