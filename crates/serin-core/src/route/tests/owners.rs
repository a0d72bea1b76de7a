//! Other controllers and managers, by their signs.

use serde_json::{Value, json};

use super::super::owner::{instant, last_weight_manager, other_controller};
use super::article;

fn with(metadata: Value) -> Value {
    let mut vs = article();
    for (key, value) in metadata.as_object().expect("fields") {
        vs["metadata"][key] = value.clone();
    }
    vs
}

fn entry(manager: &str, time: &str, spec: Value) -> Value {
    json!({"manager": manager, "operation": "Update", "apiVersion": "networking.istio.io/v1", "time": time, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": spec}})
}

#[test]
fn other_controllers_are_known_by_their_signs() {
    let routes = json!({".": {}, "f:hosts": {}, "f:http": {}});
    let table = [
        (
            json!({"ownerReferences": [{"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "podinfo", "uid": "1"}]}),
            Some("Flagger (Canary podinfo)"),
        ),
        (json!({"ownerReferences": [{"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "name": "shop", "uid": "1"}]}), None),
        (json!({"annotations": {"argo-rollouts.argoproj.io/managed-by-rollouts": "cart"}}), Some("Argo Rollouts (Rollout cart)")),
        (json!({"managedFields": [entry("flagger", "2026-01-01T00:00:00Z", routes.clone())]}), Some("Flagger")),
        (json!({"managedFields": [entry("rollouts-controller", "2026-01-01T00:00:00Z", routes.clone())]}), Some("Argo Rollouts")),
        (json!({"managedFields": [entry("flagger", "2026-01-01T00:00:00Z", json!({"f:hosts": {}}))]}), None),
        (json!({"managedFields": [entry("serin-blue", "2026-01-01T00:00:00Z", routes.clone())]}), Some("serin-blue")),
        (
            json!({"managedFields": [entry("serin", "2026-01-01T00:00:00Z", routes.clone()), entry("kubectl-edit", "2026-01-01T00:00:00Z", routes)]}),
            None,
        ),
        (json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}}), None),
        (json!({}), None),
    ];
    for (metadata, name) in table {
        let vs = with(metadata);
        let found = other_controller(&vs);
        assert_eq!(found.as_ref().map(|c| c.name.as_str()), name, "{vs}");
        if let Some(found) = found {
            assert_eq!(found.problem(&vs).code(), "OtherController");
        }
    }
}

#[test]
fn the_last_manager_of_the_routes_is_named() {
    let vs = with(json!({"managedFields": [
        entry("kustomize-controller", "2026-01-01T00:00:03Z", json!({"f:http": {}, "f:hosts": {}})),
        entry("serin", "2026-01-01T00:00:02Z", json!({"f:http": {}})),
        entry("kubectl", "2026-01-01T00:00:09Z", json!({"f:gateways": {}})),
        {"manager": "istiod", "subresource": "status", "time": "2026-01-01T00:00:10Z", "fieldsV1": {"f:spec": {"f:http": {}}}},
    ]}));
    assert_eq!(last_weight_manager(&vs), Some(("kustomize-controller", Some("2026-01-01T00:00:03Z"))));
    assert_eq!(last_weight_manager(&article()), None);
    assert_eq!(
        last_weight_manager(&with(json!({"managedFields": [entry("whole", "2026-01-01T00:00:00Z", json!({}))]}))),
        Some(("whole", Some("2026-01-01T00:00:00Z")))
    );
}

#[test]
fn instants_are_read_as_the_api_server_writes_them() {
    // Expected values from Python's datetime.
    let table = [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2026-08-01T12:34:56Z", Some(1_785_587_696_000)),
        ("2026-08-01T12:34:56.789123Z", Some(1_785_587_696_789)),
        ("2026-08-01T14:34:56+02:00", Some(1_785_587_696_000)),
        ("2026-08-01T07:04:56-05:30", Some(1_785_587_696_000)),
        ("2000-02-29T23:59:59Z", Some(951_868_799_000)),
        ("2026-08-01", None),
        ("2026-08-01T12:34:56", None),
        ("2026-13-01T12:34:56Z", None),
        ("2026-08-01T12:34:99Z", None),
        ("99999999999999999999-08-01T12:34:56Z", None),
        ("2026-08-01T12:34:56+é", None),
        ("", None),
    ];
    for (text, millis) in table {
        assert_eq!(instant(text).map(|at| at.0), millis, "{text}");
    }
}
