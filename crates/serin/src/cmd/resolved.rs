//! `serin get NAME --resolved`: the spec that is worked with, and where each value of it comes from.
//!
//! The same merging as the controller's. Deliberately asks no controller: what is printed follows from the objects alone.

use kube::ResourceExt;
use serde_json::{Value, json};
use serin_api::convert::defaults;
use serin_api::policy::{DEFAULT_POLICY, Merged, Origin};

use super::{Format, print};
use crate::cluster::Cluster;
use crate::exit::{Exit, Failure, Outcome};
use crate::out;

/// Prints it.
pub(crate) async fn run(cluster: &Cluster, name: &str, controller_namespace: &str, format: Format) -> Outcome {
    let release = cluster.release(name).await?;
    let (namespace, policy) = match &release.spec.policy {
        Some(policy) => (cluster.namespace.clone(), policy.as_str()),
        None => (controller_namespace.to_string(), DEFAULT_POLICY),
    };
    let found = cluster.policies(&namespace).get_opt(policy).await;
    let found = match found {
        Ok(found) => found,
        // Without the kind, or the right to look where nothing was named, there is none.
        Err(kube::Error::Api(status)) if release.spec.policy.is_none() && matches!(status.code, 403 | 404) => None,
        Err(e) => return Err(cluster.failed(&format!("read CanaryPolicy {namespace}/{policy}"), &e)),
    };
    if found.is_none() && release.spec.policy.is_some() {
        return Err(Failure::new(format!("no CanaryPolicy {policy} in namespace {namespace}"))
            .hint(format!("kubectl get canarypolicies -n {namespace}")));
    }
    let own = serde_json::to_value(&release.spec).map_err(|e| Failure::new(format!("cannot read CanaryRelease {name}: {e}")))?;
    let merged = complete(Merged::new(&own, found.as_ref().map(|p| &p.spec)));
    let from = |origin: Origin| match (origin, &found) {
        (Origin::Policy, Some(p)) => format!("CanaryPolicy {namespace}/{}", p.name_any()),
        (Origin::Release, _) => "release".to_string(),
        _ => "default".to_string(),
    };
    match format {
        Format::Json => {
            let origins: serde_json::Map<String, Value> =
                merged.origins.iter().map(|(path, origin)| (path.clone(), from(*origin).into())).collect();
            print(Format::Json, &json!({"spec": merged.spec, "from": origins}))?;
        }
        Format::Yaml => {
            let mut text = String::from("spec:\n");
            yaml(&merged, "", &merged.spec, 1, &from, &mut text);
            out::answer(&text)?;
        }
    }
    Ok(Exit::Done)
}

/// Adds what absence means.
fn complete(mut merged: Merged) -> Merged {
    let usual = json!({
        "version": {"label": defaults::LABEL},
        "trigger": "Automatic", "suspend": false, "mode": "Act", "deletionPolicy": "Leave",
        "traffic": {"settle": defaults::SETTLE, "destinationRule": "Companion", "manageRoute": false},
        "scaling": {"canary": "ByWeight"},
        "steps": defaults::steps(),
        "promotion": {"bake": defaults::BAKE},
        "analysis": {"interval": defaults::INTERVAL, "confidence": defaults::CONFIDENCE, "onInconclusive": "Hold", "onNoTraffic": "Hold", "metrics": defaults::metrics()},
    });
    add(&mut merged, "", &usual);
    merged
}

fn add(merged: &mut Merged, at: &str, usual: &Value) {
    for (name, value) in usual.as_object().into_iter().flatten() {
        let path = format!("{at}/{name}");
        match merged.spec.pointer(&path) {
            Some(there) if there.is_object() && value.is_object() => add(merged, &path, value),
            Some(_) => {}
            None => {
                if let Some(parent) = merged.spec.pointer_mut(at).and_then(Value::as_object_mut) {
                    parent.insert(name.clone(), if value.is_object() { json!({}) } else { value.clone() });
                }
                if value.is_object() {
                    add(merged, &path, value);
                } else {
                    merged.origins.insert(path, Origin::Default);
                }
            }
        }
    }
}

/// A line for each value, with its origin as a comment. Lists are written as JSON, which is YAML too.
fn yaml(merged: &Merged, at: &str, value: &Value, depth: usize, from: &impl Fn(Origin) -> String, text: &mut String) {
    let indent = "  ".repeat(depth);
    for (name, inner) in value.as_object().into_iter().flatten() {
        let path = format!("{at}/{name}");
        if inner.as_object().is_some_and(|o| !o.is_empty()) {
            text.push_str(&format!("{indent}{name}:\n"));
            yaml(merged, &path, inner, depth + 1, from, text);
            continue;
        }
        let origin = merged.origins.get(&path).copied().map_or_else(String::new, from);
        let items = inner.as_array().filter(|items| !items.is_empty());
        if let Some(items) = items {
            text.push_str(&format!("{indent}{name}:  # {origin}\n"));
            items.iter().for_each(|item| text.push_str(&format!("{indent}- {item}\n")));
        } else {
            text.push_str(&format!("{indent}{name}: {inner}  # {origin}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_told_with_its_origin_and_the_text_is_yaml() {
        let policy = serde_json::from_value(json!({"analysis": {"interval": "30s"}, "steps": [{"weight": 5}]})).expect("a policy");
        let merged = complete(Merged::new(&json!({"service": "cart", "analysis": {"confidence": "99%"}}), Some(&policy)));
        let mut text = String::from("spec:\n");
        yaml(&merged, "", &merged.spec, 1, &|o| format!("{o:?}"), &mut text);
        let lines = [
            "  service: \"cart\"  # Release",
            "    interval: \"30s\"  # Policy",
            "    confidence: \"99%\"  # Release",
            "  steps:  # Policy",
            "  - {\"weight\":5}",
            "    bake: \"10m\"  # Default",
        ];
        for line in lines {
            assert!(text.lines().any(|l| l == line), "{line:?} in\n{text}");
        }
        let read: Value = serde_saphyr::from_str(&text).expect("YAML");
        assert_eq!(read["spec"], merged.spec);
    }
}
