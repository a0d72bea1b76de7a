//! Custom kinds: from the CRD to what a client may store, sees, and is told.

use serde_json::{Value, json};

use crate::world::World;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn crd() -> Value {
    serde_saphyr::from_str(include_str!("widgets.yaml")).unwrap()
}

async fn world() -> World {
    let world = World::new();
    let made = world.post(CRDS, crd()).await.expect(201);
    for condition in ["NamesAccepted", "Established"] {
        let all = made["status"]["conditions"].as_array().unwrap();
        assert!(all.iter().any(|c| c["type"] == condition && c["status"] == "True"), "{condition}");
    }
    world
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_custom_kind_is_served_at_once_and_gone_with_its_crd() {
    let world = World::new();
    assert_eq!(world.get(WIDGETS).await.code, 404);
    world.post(CRDS, crd()).await.expect(201);
    assert_eq!(world.get(WIDGETS).await.expect(200)["kind"], "WidgetList");
    let resources = world.get("/apis/example.com/v1").await.expect(200);
    let names: Vec<&str> = resources["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
    assert!(world.get("/openapi/v3").await.expect(200)["paths"].get("apis/example.com/v1").is_some());
    let document = world.get("/openapi/v3/apis/example.com/v1").await.expect(200);
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(schema["x-kubernetes-group-version-kind"], json!([{"group": "example.com", "version": "v1", "kind": "Widget"}]));
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["type"], "integer");
    world.post(WIDGETS, widget("a", json!({"size": 1}))).await.expect(201);
    world.delete(&format!("{CRDS}/widgets.example.com")).await.expect(200);
    assert_eq!(world.get(WIDGETS).await.code, 404);
    world.post(CRDS, crd()).await.expect(201);
    assert_eq!(world.get(WIDGETS).await.expect(200)["items"], json!([]), "the objects went with the kind");
}

#[tokio::test]
async fn objects_are_defaulted_and_pruned() {
    let world = world().await;
    let sent = widget("a", json!({"size": 3, "weight": "0.5%", "unknown": 1, "free": {"any": {"thing": 1}}, "parts": [{"name": "x"}]}));
    let answer = world.post(WIDGETS, sent).await;
    assert_eq!(answer.warnings, ["299 - \"unknown field \\\"spec.unknown\\\"\""]);
    assert_eq!(
        answer.expect(201)["spec"],
        json!({"size": 3, "weight": "0.5%", "colour": "red", "replicas": 1, "free": {"any": {"thing": 1}}, "parts": [{"name": "x", "hold": "2m"}]})
    );
}

#[tokio::test]
async fn everything_wrong_is_told_at_once_and_rules_come_after_types() {
    let world = world().await;
    let wrong = widget("a", json!({"colour": "green", "weight": [], "parts": [{"name": "x"}, {"name": "x"}, {}]}));
    let answer = world.post(WIDGETS, wrong).await;
    let causes: Vec<String> = answer.body["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| format!("{}: {}", c["field"].as_str().unwrap(), c["message"].as_str().unwrap()))
        .collect();
    for cause in [
        "spec.size: Required value",
        "spec.colour: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
        "spec.parts[1]: Duplicate value: {\"name\":\"x\"}",
        "spec.parts[2].name: Required value",
    ] {
        assert!(causes.iter().any(|c| c == cause), "{cause} in {causes:#?}");
    }
    let message = answer.refused(422, "Invalid");
    assert!(message.starts_with("Widget.example.com \"a\" is invalid: ["), "{message}");
    assert!(message.contains("some validation rules were not checked"), "{message}");
    let message = world.post(WIDGETS, widget("a", json!({"size": 9, "max": 5}))).await.refused(422, "Invalid");
    assert!(message.contains("spec.size: Invalid value: ") && message.ends_with("size must not be above max"), "{message}");
    let message = world.post(WIDGETS, widget("a", json!({"size": 13}))).await.refused(422, "Invalid");
    assert!(message.ends_with("a size of 13 brings bad luck"), "{message}");
    world.post(WIDGETS, json!({"metadata": {"name": "b"}})).await.refused(422, "Invalid");
}

#[tokio::test]
async fn transition_rules_see_the_object_before() {
    let world = world().await;
    world.post(WIDGETS, widget("a", json!({"size": 1, "colour": "blue"}))).await.expect(201);
    let message = world.patch("merge", &format!("{WIDGETS}/a"), json!({"spec": {"colour": "red"}})).await.refused(422, "Invalid");
    assert!(message.contains("colour is for life"), "{message}");
    world.patch("merge", &format!("{WIDGETS}/a"), json!({"spec": {"size": 2}})).await.expect(200);
}

#[tokio::test]
async fn status_and_scale_of_custom_kinds_are_their_own_doors() {
    let world = world().await;
    let mut sent = widget("a", json!({"size": 1}));
    sent["status"] = json!({"replicas": 9});
    let made = world.post(WIDGETS, sent).await.expect(201);
    assert!(made.get("status").is_none());
    let path = format!("{WIDGETS}/a");
    let status = json!({"spec": {"size": 7}, "metadata": {"labels": {"x": "y"}}, "status": {"replicas": 2, "selector": "app=a"}});
    let object = world.patch("merge", &format!("{path}/status"), status).await.expect(200);
    assert_eq!(
        (&object["spec"]["size"], &object["status"]["replicas"], &object["metadata"]["generation"]),
        (&1.into(), &2.into(), &1.into())
    );
    assert!(object["metadata"].get("labels").is_none());
    let scale = world.get(&format!("{path}/scale")).await.expect(200);
    assert_eq!((&scale["spec"], &scale["status"]), (&json!({"replicas": 1}), &json!({"replicas": 2, "selector": "app=a"})));
    world.patch("merge", &format!("{path}/scale"), json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!(world.get(&path).await.expect(200)["spec"]["replicas"], 5);
}

#[tokio::test]
async fn tables_have_the_columns_of_the_crd() {
    let world = world().await;
    world.post(WIDGETS, widget("a", json!({"size": 3}))).await.expect(201);
    world
        .patch("merge", &format!("{WIDGETS}/a/status"), json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}))
        .await
        .expect(200);
    let table = world.send("GET", WIDGETS, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], String::new()).await.expect(200);
    let columns: Vec<(&str, i64)> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["name"].as_str().unwrap(), c["priority"].as_i64().unwrap()))
        .collect();
    assert_eq!(columns, [("Name", 0), ("Size", 0), ("Ready", 0), ("Since", 1)]);
    let row = &table["rows"][0];
    assert_eq!((&row["cells"][0], &row["cells"][1], &row["cells"][2]), (&"a".into(), &3.into(), &"True".into()));
    assert_eq!((&row["object"]["kind"], &row["object"]["metadata"]["name"]), (&"PartialObjectMetadata".into(), &"a".into()));
}

#[tokio::test]
async fn selectable_fields_select() {
    let world = world().await;
    world.post(WIDGETS, widget("a", json!({"size": 1}))).await.expect(201);
    world.post(WIDGETS, widget("b", json!({"size": 1, "colour": "blue"}))).await.expect(201);
    let list = world.get(&format!("{WIDGETS}?fieldSelector=spec.colour%3Dblue")).await.expect(200);
    assert_eq!((list["items"].as_array().unwrap().len(), &list["items"][0]["metadata"]["name"]), (1, &"b".into()));
    world.get(&format!("{WIDGETS}?fieldSelector=spec.size%3D1")).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn lists_by_key_are_owned_item_by_item() {
    let world = world().await;
    let path = |manager: &str| format!("{WIDGETS}/a?fieldManager={manager}");
    world.patch("apply", &path("one"), widget("a", json!({"size": 1, "parts": [{"name": "x", "hold": "1m"}]}))).await.expect(201);
    let object = world.patch("apply", &path("two"), widget("a", json!({"size": 1, "parts": [{"name": "y"}]}))).await.expect(200);
    assert_eq!(object["spec"]["parts"], json!([{"name": "x", "hold": "1m"}, {"name": "y", "hold": "2m"}]));
    let object = world.patch("apply", &path("one"), widget("a", json!({"size": 1}))).await.expect(200);
    assert_eq!(object["spec"]["parts"], json!([{"name": "y", "hold": "2m"}]));
    let strategic = world.patch("strategic", &format!("{WIDGETS}/a"), json!({})).await;
    strategic.refused(415, "UnsupportedMediaType");
}

#[tokio::test]
async fn versions_of_a_kind_are_faces_of_one_object() {
    let world = World::new();
    let mut definition = crd();
    let mut old = definition["spec"]["versions"][0].clone();
    old["name"] = "v1beta1".into();
    old["storage"] = false.into();
    old["deprecated"] = true.into();
    definition["spec"]["versions"].as_array_mut().unwrap().push(old);
    world.post(CRDS, definition).await.expect(201);
    world.post(WIDGETS, widget("a", json!({"size": 1}))).await.expect(201);
    let answer = world.get("/apis/example.com/v1beta1/namespaces/default/widgets/a").await;
    assert_eq!(answer.warnings, ["299 - \"example.com/v1beta1 Widget is deprecated\""]);
    assert_eq!(answer.expect(200)["apiVersion"], "example.com/v1beta1");
    let group = world.get("/apis/example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v1");
}

#[tokio::test]
async fn a_crd_that_cannot_work_is_refused_with_all_reasons() {
    let world = World::new();
    let mut wrong = crd();
    wrong["metadata"]["name"] = "gadgets.example.com".into();
    wrong["spec"]["scope"] = "Everywhere".into();
    let version = &mut wrong["spec"]["versions"][0];
    version["storage"] = false.into();
    let spec = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"]["untyped"] = json!({"description": "x"});
    spec["properties"]["pattern"] = json!({"type": "string", "pattern": "("});
    spec["properties"]["list"] = json!({"type": "array"});
    spec["x-kubernetes-validations"] = json!([{"rule": "self.size >"}]);
    let message = world.post(CRDS, wrong).await.refused(422, "Invalid");
    for part in [
        "metadata.name: Invalid value",
        "spec.scope: Unsupported value: \"Everywhere\"",
        "exactly one version marked as storage version",
        "properties[untyped].type: Required value: must not be empty for specified object fields",
        "properties[pattern].pattern: Invalid value",
        "properties[list].items: Required value",
        "compilation failed",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[tokio::test]
async fn the_projects_own_crds_are_accepted_as_files() {
    let world = World::new();
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crd");
    let mut n = 0;
    for file in std::fs::read_dir(dir).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        world.api.apply(&text, "test").await.unwrap();
        n += 1;
    }
    assert!(n > 0);
    let path = "/apis/serin.dev/v1alpha1/namespaces/default/canaryreleases";
    let made = world.post(path, json!({"metadata": {"name": "my-app"}, "spec": {"service": "my-app"}})).await.expect(201);
    assert_eq!(made["spec"], json!({"service": "my-app"}), "nothing is written into it");
    let message = world.post(path, json!({"metadata": {"name": "x"}, "spec": {}})).await.refused(422, "Invalid");
    assert!(message.contains("spec.service: Required value"), "{message}");
}
