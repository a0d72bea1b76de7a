//! The demo's objects: the example files, embedded, and how they get into a cluster.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::pinned_kind;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::exit::Failure;

/// The version that serves, and the Service.
pub(crate) const V1: &str = include_str!("../../../../examples/article/my-app-v1.yaml");
/// The version on trial.
pub(crate) const V2: &str = include_str!("../../../../examples/article/my-app-v2.yaml");
/// The subsets.
pub(crate) const DESTINATION_RULE: &str = include_str!("../../../../examples/article/my-app-destination-rule.yaml");
/// The split.
pub(crate) const VIRTUAL_SERVICE: &str = include_str!("../../../../examples/article/my-app-virtual-service.yaml");
/// The release.
pub(crate) const RELEASE: &str = include_str!("../../../../examples/demo/canary-release.yaml");
/// The version with a fault.
pub(crate) const V3: &str = include_str!("../../../../examples/demo/my-app-v3.yaml");

/// What `serin check` says of the article's files: each certain error with its place, and how many findings there are.
pub(crate) fn judged() -> String {
    let files = [
        ("my-app-destination-rule.yaml", DESTINATION_RULE),
        ("my-app-v1.yaml", V1),
        ("my-app-v2.yaml", V2),
        ("my-app-virtual-service.yaml", VIRTUAL_SERVICE),
    ];
    let inputs = files.map(|(path, text)| serin_check::Input { path: path.to_string(), bytes: text.into(), live: false });
    let report = serin_check::check(inputs.into(), &serin_check::Options::default());
    let errors =
        report.findings.iter().filter(|f| f.severity == serin_check::Severity::Error && f.certainty == serin_check::Certainty::Certain);
    let mut parts: Vec<String> = errors
        .map(|f| {
            let file = report.file(f.primary.loc);
            let (line, column) = file.line_col(f.primary.loc.span.start);
            format!("{}:{line}:{column}: error[{}]: {}", file.path, f.code, f.title)
        })
        .collect();
    parts.push(format!("serin check: {}", serin_check::render::summary(&report).trim_end()));
    parts.join("; ")
}

/// Who the demo is in managed fields: a person at a keyboard, and not Serin.
pub(crate) const MANAGER: &str = "demo";

/// The objects of a file.
///
/// # Errors
/// It is no YAML.
pub(crate) fn read(text: &str) -> Result<Vec<Value>, Failure> {
    serde_saphyr::from_multiple(text).map_err(|e| Failure::new(format!("cannot read a file of the demo: {e}")))
}

/// The split, bound to the mesh alone, with everything on v1: a service before its first canary.
///
/// # Errors
/// The file is not what it is meant to be.
pub(crate) fn all_to_v1() -> Result<Vec<Value>, Failure> {
    let mut routes = read(VIRTUAL_SERVICE)?;
    for route in &mut routes {
        route["spec"]["gateways"] = json!(["mesh"]);
        route["spec"]["http"][0]["route"][0]["weight"] = 100.into();
        route["spec"]["http"][0]["route"][1]["weight"] = 0.into();
    }
    Ok(routes)
}

/// The faulty version, with another share of errors and a seed for its draws.
///
/// # Errors
/// The file is not what it is meant to be.
pub(crate) fn faulty(share: &str, seed: u64) -> Result<Vec<Value>, Failure> {
    let mut objects = read(V3)?;
    let env = objects.iter_mut().find_map(|o| o.pointer_mut("/spec/template/spec/containers/0/env")).and_then(Value::as_array_mut);
    let env = env.ok_or_else(|| Failure::new("my-app-v3.yaml has no environment"))?;
    for variable in env.iter_mut().filter(|v| v["name"] == "ERROR_RATE") {
        variable["value"] = share.into();
    }
    env.push(serde_json::json!({"name": "SEED", "value": seed.to_string()}));
    Ok(objects)
}

/// The version on trial under another name.
///
/// # Errors
/// The file is not what it is meant to be.
pub(crate) fn version(name: &str) -> Result<Value, Failure> {
    let deployment = read(V2)?.into_iter().next().ok_or_else(|| Failure::new("my-app-v2.yaml is empty"))?;
    serde_json::from_str(&deployment.to_string().replace("v2", name)).map_err(|e| Failure::new(format!("cannot make {name}: {e}")))
}

/// Makes the objects, in order.
///
/// # Errors
/// The cluster refuses one.
pub(crate) async fn create(cluster: &Cluster, objects: &[Value]) -> Result<(), Failure> {
    for object in objects {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string();
        let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let tried = format!("create {kind} {name}");
        let (resource, capabilities) = pinned_kind(&cluster.client, &GroupVersionKind::gvk(group, version, &kind))
            .await
            .map_err(|e| cluster.failed(&format!("find kind {kind}"), &e))?;
        let api: Api<DynamicObject> = match capabilities.scope {
            kube::discovery::Scope::Namespaced => Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource),
            kube::discovery::Scope::Cluster => Api::all_with(cluster.client.clone(), &resource),
        };
        let parsed: DynamicObject = serde_json::from_value(object.clone()).map_err(|e| Failure::new(format!("cannot {tried}: {e}")))?;
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        api.create(&params, &parsed).await.map_err(|e| cluster.failed(&tried, &e))?;
    }
    Ok(())
}

/// Waits until a Deployment has all of its pods ready.
///
/// # Errors
/// It has not after a minute.
pub(crate) async fn ready(cluster: &Cluster, name: &str) -> Result<(), Failure> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let all = |d: Option<&Deployment>| {
        d.is_some_and(|d| {
            d.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0) >= d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
        })
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), await_condition(api, name, all)).await;
    waited
        .map_err(|_| Failure::new(format!("Deployment {name} is not ready after a minute")))?
        .map(drop)
        .map_err(|e| Failure::new(format!("cannot watch {name}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_articles_files_are_judged_in_one_sentence() {
        assert_eq!(
            judged(),
            "my-app-virtual-service.yaml:10:3: error[SRN301]: callers inside the mesh bypass this route; serin check: 4 files, 5 objects: 1 error, 2 warnings, 2 depend on the cluster"
        );
    }
}
