//! Tests of routes and rules: objects as people write them in, patches applied by an independent implementation of RFC 6902.

mod arithmetic;
mod companions;
mod indexes;
mod neighbours;
mod networks;
mod owners;
mod slugs;
mod structures;
mod surveys;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::{Arms, Patch, ServiceName};

fn my_app() -> ServiceName {
    ServiceName::new("my-app", "default")
}

fn arms(stable: &str, canary: &str) -> Arms {
    Arms::subsets(&my_app(), stable, canary)
}

/// The article's VirtualService, as an API server returns it.
fn article() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "VirtualService",
        "metadata": {"name": "my-app", "namespace": "default", "resourceVersion": "41", "uid": "u-1", "generation": 1},
        "spec": {
            "hosts": ["my-app"],
            "gateways": ["my-gateway"],
            "http": [{"route": [
                {"destination": {"host": "my-app", "subset": "v1"}, "weight": 90},
                {"destination": {"host": "my-app", "subset": "v2"}, "weight": 10},
            ]}],
        },
    })
}

/// A VirtualService of these routes.
fn of(http: Value) -> Value {
    let mut vs = article();
    vs["spec"]["http"] = http;
    vs
}

/// One route of these destinations: (host, subset or "", weight or null).
fn route(destinations: &[(&str, &str, Value)]) -> Value {
    let entry = |(host, subset, weight): &(&str, &str, Value)| {
        let mut entry = json!({"destination": {"host": host}});
        if !subset.is_empty() {
            entry["destination"]["subset"] = json!(subset);
        }
        if !weight.is_null() {
            entry["weight"] = weight.clone();
        }
        entry
    };
    json!({"route": destinations.iter().map(entry).collect::<Vec<_>>()})
}

/// Applies a patch as an API server does; `Err` if a test fails.
fn apply(object: &Value, patch: &Patch) -> Result<Value, String> {
    let ops: json_patch::Patch = serde_json::from_value(patch.to_value()).expect("a patch of RFC 6902");
    let mut patched = object.clone();
    json_patch::patch(&mut patched, &ops).map_err(|error| error.to_string())?;
    Ok(patched)
}

/// The object without any weight: what a weight patch must leave as it is.
fn without_weights(object: &Value) -> Value {
    match object {
        Value::Object(fields) => {
            fields.iter().filter(|(key, _)| *key != "weight").map(|(key, value)| (key.clone(), without_weights(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_weights).collect(),
        other => other.clone(),
    }
}
