//! Istio's kinds, which the lab knows without CRDs: names, versions, columns.
//!
//! What their fields mean is the room of `mesh`. Each is served in three versions from one stored object, as Istio's
//! own CRDs do (their conversion changes nothing but apiVersion).

use std::sync::Arc;

use serde_json::json;

use super::kinds::{Column, Kind, Origin, Version};
use super::schema;
use crate::store::Resource;

const VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];

/// group, plural, kind, short name, versions, columns (header=path).
const KINDS: &[(&str, &str, &str, &str, &[&str], &str)] = &[
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
            let schema = Arc::new(schema::custom_root(json!({})));
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
