//! The `scale` subresource: an object's replicas, wherever its kind keeps them, as an autoscaling/v1 Scale.
//!
//! Deliberately writes nothing itself: a change of the scale is a change of the object, through `write`'s pipeline.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::call::Call;
use super::serve::{accepted, encode};
use super::status::{ApiError, ApiResult, Problem};
use super::write::{Change, Options, modify, preconditions};
use super::{Api, convert};

fn dig<'a>(object: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(object, |at, part| &at[part.as_str()])
}

/// The scale of an object, as the subresource shows it.
pub(super) fn scale_of(call: &Call, object: &Value) -> Value {
    let meta = &object["metadata"];
    let mut scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"name": meta["name"], "resourceVersion": meta["resourceVersion"], "uid": meta["uid"], "creationTimestamp": meta["creationTimestamp"]},
        "spec": {}, "status": {"replicas": 0},
    });
    if !meta["namespace"].is_null() {
        scale["metadata"]["namespace"] = meta["namespace"].clone();
    }
    let Some(paths) = &call.kind_version().scale else { return scale };
    // Left out where it is 0, as the Go type has it.
    if let Some(wanted) = dig(object, &paths.spec).as_i64().filter(|n| *n != 0) {
        scale["spec"]["replicas"] = wanted.into();
    }
    if let Some(seen) = dig(object, &paths.status).as_i64() {
        scale["status"]["replicas"] = seen.into();
    }
    let selector = match &paths.selector {
        Some(path) => dig(object, path).as_str().map(str::to_owned),
        None => Some(selector_text(&object["spec"]["selector"])),
    };
    if let Some(selector) = selector.filter(|s| !s.is_empty()) {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// A label selector object as kubectl writes it: `app=web,tier in (a,b)`.
pub(super) fn selector_text(selector: &Value) -> String {
    let mut parts: Vec<String> = Vec::new();
    let plain = selector.get("matchLabels").or_else(|| selector.get("matchExpressions").is_none().then_some(selector));
    for (key, value) in plain.and_then(Value::as_object).into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for term in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = term["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = term["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match term["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.join(",")
}

/// Changes an object's replicas through its scale.
///
/// # Errors
/// What is wrong with the scale, 404, 409.
pub(super) fn change(api: &Api, call: &Call, options: &Options, wanted: &dyn Fn(&Value) -> ApiResult<Value>) -> ApiResult<Response> {
    let paths = call.kind_version().scale.clone().ok_or_else(ApiError::no_such_path)?;
    let name = call.name.clone().unwrap_or_default();
    let whole = Call { sub: None, ..call.clone() };
    let sent = |old: &Value| {
        let now = scale_of(call, old);
        let scale = wanted(&now)?;
        preconditions(call, &name, old, &scale)?;
        let replicas = match &scale["spec"]["replicas"] {
            Value::Null => 0,
            value => value.as_i64().ok_or_else(|| {
                ApiError::bad_request(format!("Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal {value} into Go struct field ScaleSpec.spec.replicas of type int32"))
            })?,
        };
        if replicas < 0 {
            let problem = Problem::invalid("spec.replicas", &replicas.into(), "must be greater than or equal to 0");
            return Err(ApiError::invalid("autoscaling", "Scale", &name, &[problem]));
        }
        let mut new = old.clone();
        let mut at = &mut new;
        for part in &paths.spec {
            if !at.is_object() {
                *at = json!({});
            }
            at = &mut at[part.as_str()];
        }
        *at = replicas.into();
        Ok(new)
    };
    let change = Change { sent: &sent, duplicates: &[], patched: false, subresource: "scale" };
    let (object, _) = modify(api, &whole, options, &change)?;
    let scale = scale_of(call, &convert::to_version(&call.kind, call.version, &object));
    encode(accepted(&call.headers)?, StatusCode::OK, &scale)
}
