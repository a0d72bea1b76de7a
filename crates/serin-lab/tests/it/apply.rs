//! Server-side apply: who owns what, what conflicts, and what goes when nobody wants it any more.

use serde_json::{Value, json};

use crate::world::{World, deployment};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const ROUTES: &str = "/apis/networking.istio.io/v1/namespaces/default/virtualservices";

fn entry<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries.iter().find(|e| e["manager"] == manager).unwrap_or_else(|| panic!("no manager {manager} in {entries:#?}"))
}

async fn apply(world: &World, manager: &str, path: &str, config: Value) -> crate::world::Answer {
    world.patch("apply", &format!("{path}?fieldManager={manager}"), config).await
}

#[tokio::test]
async fn an_applied_object_is_made_and_its_fields_are_owned() {
    let world = World::new();
    let path = format!("{DEPLOYMENTS}/web");
    let made = apply(&world, "alice", &path, deployment("web")).await.expect(201);
    let alice = entry(&made, "alice");
    assert_eq!((&alice["operation"], &alice["apiVersion"], &alice["fieldsType"]), (&"Apply".into(), &"apps/v1".into(), &"FieldsV1".into()));
    assert!(alice["time"].is_string());
    assert_eq!(
        alice["fieldsV1"],
        json!({"f:spec": {"f:selector": {}, "f:template": {"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:containers": {
            "k:{\"name\":\"app\"}": {".": {}, "f:image": {}, "f:name": {},
                "f:ports": {"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}})
    );
    // Once more is no change at all.
    let again = apply(&world, "alice", &path, deployment("web")).await.expect(200);
    assert_eq!(again, made);
}

#[tokio::test]
async fn two_managers_of_one_field_conflict_unless_they_agree_or_force() {
    let world = World::new();
    let path = format!("{DEPLOYMENTS}/web");
    let with = |replicas: i64| {
        let mut config = deployment("web");
        config["spec"]["replicas"] = replicas.into();
        config
    };
    apply(&world, "alice", &path, with(2)).await.expect(201);
    let answer = apply(&world, "bob", &path, with(3)).await;
    assert_eq!(
        answer.body["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"alice\"", "field": ".spec.replicas"}])
    );
    assert_eq!(answer.refused(409, "Conflict"), "Apply failed with 1 conflict: conflict with \"alice\": .spec.replicas");
    // The same value is no conflict: both own it.
    let both = apply(&world, "bob", &path, with(2)).await.expect(200);
    assert_eq!(entry(&both, "bob")["fieldsV1"]["f:spec"]["f:replicas"], json!({}));
    assert_eq!(entry(&both, "alice")["fieldsV1"]["f:spec"]["f:replicas"], json!({}));
    let forced = world.patch("apply", &format!("{path}?fieldManager=bob&force=true"), with(5)).await.expect(200);
    assert_eq!(forced["spec"]["replicas"], 5);
    assert!(entry(&forced, "alice")["fieldsV1"]["f:spec"].get("f:replicas").is_none());
    // An update asks nobody.
    let updated = world.patch("merge", &format!("{path}?fieldManager=carol"), json!({"spec": {"replicas": 7}})).await.expect(200);
    assert_eq!(entry(&updated, "carol")["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(entry(&updated, "carol")["operation"], "Update");
    assert!(entry(&updated, "bob")["fieldsV1"]["f:spec"].get("f:replicas").is_none());
    let message = apply(&world, "bob", &path, with(5)).await.refused(409, "Conflict");
    assert!(message.starts_with("Apply failed with 1 conflict: conflict with \"carol\" using apps/v1 at 2"), "{message}");
}

#[tokio::test]
async fn what_is_no_longer_applied_and_nobodys_goes() {
    let world = World::new();
    let path = format!("{DEPLOYMENTS}/web");
    let mut config = deployment("web");
    config["metadata"]["labels"] = json!({"mine": "1", "shared": "1"});
    config["spec"]["minReadySeconds"] = 5.into();
    let containers = config["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({"name": "side", "image": "side:1"}));
    apply(&world, "alice", &path, config.clone()).await.expect(201);
    let bobs = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"labels": {"shared": "1", "bobs": "1"}}});
    apply(&world, "bob", &path, bobs).await.expect(200);
    let less = deployment("web");
    let object = apply(&world, "alice", &path, less).await.expect(200);
    assert_eq!(object["metadata"]["labels"], json!({"shared": "1", "bobs": "1"}));
    assert!(object["spec"].get("minReadySeconds").is_none());
    let names: Vec<&str> =
        object["spec"]["template"]["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["app"]);
    assert_eq!(object["spec"]["progressDeadlineSeconds"], 600, "a default stays");
}

#[tokio::test]
async fn objects_from_before_are_nobodys_to_drop() {
    let world = World::new();
    let key = serin_lab::store::Key::namespaced("", "configmaps", "default", "c");
    world.api.store().create(&key, json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1", "b": "2"}})).unwrap();
    let path = "/api/v1/namespaces/default/configmaps/c";
    let config = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data});
    let message = apply(&world, "alice", path, config(json!({"a": "9"}))).await.refused(409, "Conflict");
    assert!(message.contains("before-first-apply"), "{message}");
    let object = apply(&world, "alice", path, config(json!({"a": "1", "c": "3"}))).await.expect(200);
    assert_eq!(object["data"], json!({"a": "1", "b": "2", "c": "3"}));
}

#[tokio::test]
async fn istio_routes_are_one_value_to_their_managers() {
    let world = World::new();
    let path = format!("{ROUTES}/my-app");
    let config = |weight: i64| {
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "my-app"}, "spec": {"hosts": ["my-app"],
            "http": [{"route": [{"destination": {"host": "my-app", "subset": "v1"}, "weight": weight}, {"destination": {"host": "my-app", "subset": "v2"}, "weight": 100 - weight}]}]}})
    };
    let made = apply(&world, "argocd", &path, config(90)).await.expect(201);
    let spec = &entry(&made, "argocd")["fieldsV1"]["f:spec"];
    assert_eq!((&spec["f:http"], &spec["f:hosts"]), (&json!({}), &json!({})));
    // A patch of one weight takes the whole list.
    let patched = world
        .patch(
            "json",
            &format!("{path}?fieldManager=serin"),
            json!([{"op": "replace", "path": "/spec/http/0/route/0/weight", "value": 80}]),
        )
        .await
        .expect(200);
    assert_eq!(entry(&patched, "serin")["fieldsV1"], json!({"f:spec": {"f:http": {}}}));
    let message = apply(&world, "argocd", &path, config(90)).await.refused(409, "Conflict");
    assert!(message.contains("conflict with \"serin\" using networking.istio.io/v1"), "{message}");
}

#[tokio::test]
async fn a_status_is_owned_through_its_own_door() {
    let world = World::new();
    let path = format!("{DEPLOYMENTS}/web");
    world.post(&format!("{DEPLOYMENTS}?fieldManager=maker"), deployment("web")).await.expect(201);
    let object =
        world.patch("merge", &format!("{path}/status?fieldManager=controller"), json!({"status": {"replicas": 1}})).await.expect(200);
    let controller = entry(&object, "controller");
    assert_eq!((&controller["subresource"], &controller["fieldsV1"]), (&"status".into(), &json!({"f:status": {"f:replicas": {}}})));
    assert!(entry(&object, "maker")["fieldsV1"].get("f:status").is_none());
    world.patch("merge", &format!("{path}/scale?fieldManager=scaler"), json!({"spec": {"replicas": 4}})).await.expect(200);
    let object = world.get(&path).await.expect(200);
    let scaler = entry(&object, "scaler");
    assert_eq!((&scaler["subresource"], &scaler["fieldsV1"]), (&"scale".into(), &json!({"f:spec": {"f:replicas": {}}})));
    let mut config = deployment("web");
    config["spec"]["replicas"] = 1.into();
    let message = apply(&world, "x", &path, config).await.refused(409, "Conflict");
    assert!(message.contains("\"scaler\" with subresource \"scale\" using apps/v1 at "), "{message}");
}

#[tokio::test]
async fn an_apply_must_say_who_and_what() {
    let world = World::new();
    let path = format!("{DEPLOYMENTS}/web");
    world.patch("apply", &path, deployment("web")).await.refused(422, "Invalid");
    apply(&world, "a", &path, json!({"metadata": {"name": "web"}})).await.refused(400, "BadRequest");
    let mut other = deployment("web");
    other["apiVersion"] = "v1".into();
    apply(&world, "a", &path, other).await.refused(400, "BadRequest");
    let mut managed = deployment("web");
    managed["metadata"]["managedFields"] = json!([{}]);
    apply(&world, "a", &path, managed).await.refused(400, "BadRequest");
    let mut typo = deployment("web");
    typo["spec"]["replica"] = 1.into();
    world.patch("apply", &format!("{path}?fieldManager=a&fieldValidation=Strict"), typo).await.refused(400, "BadRequest");
}
