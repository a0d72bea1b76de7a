//! The committed CRD is the one that the code prints, and schema and types know the same fields.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use serin_api::CanaryReleaseSpec;

#[test]
fn the_committed_crds_are_what_the_code_prints() {
    for definition in serin_api::definitions() {
        let name = definition.metadata.name.clone().unwrap_or_default();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../deploy/crd/{name}.yaml"));
        let printed = serin_api::schema::yaml(&definition);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
            std::fs::write(&path, &printed).expect("the file can be written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == printed, "{} is out of date: UPDATE=1 cargo test --workspace", path.display());
    }
}

#[test]
fn the_printed_yaml_reads_as_the_definitions() {
    let read: Vec<Value> = serin_api::crds().split("\n---\n").map(|d| serde_saphyr::from_str(d).expect("YAML")).collect();
    let made: Vec<Value> = serin_api::definitions().iter().map(|d| serde_json::to_value(d).expect("JSON")).collect();
    assert_eq!(read, made);
}

/// Every path of properties below a schema, with `[]` for items.
fn paths(schema: &Value, at: &str, out: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, inner) in properties {
            let here = format!("{at}.{name}");
            paths(inner, &here, out);
            out.insert(here);
        }
    }
    if schema["items"].is_object() {
        paths(&schema["items"], &format!("{at}[]"), out);
    }
}

fn value_paths(value: &Value, at: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let here = format!("{at}.{name}");
                value_paths(inner, &here, out);
                out.insert(here);
            }
        }
        Value::Array(items) => items.iter().for_each(|v| value_paths(v, &format!("{at}[]"), out)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn schema_and_types_know_the_same_fields() {
    let every_field = json!({
        "service": "s", "policy": "p", "version": {"label": "l", "desired": "v2"}, "trigger": "Manual", "suspend": true, "mode": "Observe",
        "deletionPolicy": "ReturnToStable",
        "traffic": {"settle": "1s", "virtualServices": [{"name": "n", "routes": ["r"]}], "destinationRule": "Existing", "manageRoute": true,
            "match": [], "mirror": "10%", "destinations": {}},
        "scaling": {"canary": "Full", "retireAfter": "24h"},
        "steps": [{"weight": 1, "hold": "2m", "confirm": true, "graded": true, "maxWait": "1h", "pause": {"for": "1h"}}],
        "promotion": {"bake": "1m"},
        "analysis": {"interval": "1s", "source": "s", "confidence": "95%", "onInconclusive": "Hold", "onNoTraffic": "Hold", "metrics": [
            {"name": "n", "errorRate": {"margin": "1%", "ratio": "2", "max": "2%"}, "latency": {"slowerThan": "1s", "margin": "1%", "quantile": "0.9", "mayGrow": "2", "strict": true},
             "promql": {"query": "up", "min": "1", "max": "2", "failureLimit": 3, "bad": "b", "total": "t", "margin": "1%", "ratio": "2"}, "warmup": "30s"}]},
        "hooks": [], "notify": [],
    });
    let spec: CanaryReleaseSpec = serde_json::from_value(every_field.clone()).expect("a spec");
    assert_eq!(serde_json::to_value(&spec).expect("JSON"), every_field, "a field that the types lose");
    let schema = serde_json::to_value(serin_api::crd()).expect("JSON");
    let schema = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let (mut known, mut used) = (BTreeSet::new(), BTreeSet::new());
    paths(schema, "spec", &mut known);
    value_paths(&every_field, "spec", &mut used);
    assert_eq!(known, used);
}

#[test]
fn everything_in_the_schema_has_a_bound() {
    fn check(schema: &Value, at: &str) {
        let bounded = schema.get("enum").is_some() || schema.get("maxLength").is_some() || schema.get("format").is_some();
        let top = at.matches('.').count() <= 1;
        match schema["type"].as_str() {
            Some("string") => assert!(bounded || top, "{at}: a string without maxLength"),
            Some("array") => assert!(schema.get("maxItems").is_some(), "{at}: an array without maxItems"),
            _ => {}
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            check(inner, &format!("{at}.{name}"));
        }
        if schema["items"].is_object() {
            check(&schema["items"], &format!("{at}[]"));
        }
    }
    for definition in serin_api::definitions() {
        let schema = serde_json::to_value(definition).expect("JSON");
        check(&schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "");
    }
}

/// A default of the schema would be written into each release by the API server, and win over every policy.
#[test]
fn the_schemas_write_nothing_into_an_object() {
    fn defaults(schema: &Value, at: &str, out: &mut Vec<String>) {
        if schema.get("default").is_some() {
            out.push(at.to_owned());
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            defaults(inner, &format!("{at}.{name}"), out);
        }
    }
    for definition in serin_api::definitions() {
        let schema = serde_json::to_value(definition).expect("JSON");
        let mut found = Vec::new();
        defaults(&schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "", &mut found);
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn a_policy_may_say_what_a_release_may_but_for_what_is_its_own() {
    let fields = |definition: &serin_api::schema::Definition| {
        let schema = serde_json::to_value(definition).expect("JSON");
        let mut known = BTreeSet::new();
        paths(&schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec", &mut known);
        known
    };
    let [release, policy] = serin_api::definitions().map(|d| fields(&d));
    let own: Vec<&str> = release.difference(&policy).map(String::as_str).collect();
    assert_eq!(
        own,
        [
            "spec.policy",
            "spec.service",
            "spec.traffic.destinations",
            "spec.traffic.virtualServices",
            "spec.traffic.virtualServices[].name",
            "spec.traffic.virtualServices[].routes",
            "spec.version.desired",
        ]
    );
    let more: Vec<&str> = policy.difference(&release).map(String::as_str).collect();
    assert_eq!(
        more,
        [
            "spec.freeze",
            "spec.sources",
            "spec.sources[].name",
            "spec.sources[].prometheus",
            "spec.sources[].prometheus.delay",
            "spec.sources[].prometheus.headers",
            "spec.sources[].prometheus.replicaLabels",
            "spec.sources[].prometheus.timeout",
            "spec.sources[].prometheus.url",
            "spec.windows",
            "spec.windows[].days",
            "spec.windows[].from",
            "spec.windows[].timeZone",
            "spec.windows[].to",
        ]
    );
}
