//! What clients ask before they ask for objects, and tables of built-in kinds.

use serde_json::{Value, json};

use crate::world::{World, deployment};

const TABLE: (&str, &str) =
    ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json");

#[tokio::test]
async fn both_forms_of_discovery_name_the_same_kinds() {
    let world = World::new();
    let mut legacy: Vec<String> = Vec::new();
    let groups = world.get("/apis").await.expect(200);
    let mut versions = vec!["/api/v1".to_owned()];
    for group in groups["groups"].as_array().unwrap() {
        versions.extend(group["versions"].as_array().unwrap().iter().map(|v| format!("/apis/{}", v["groupVersion"].as_str().unwrap())));
    }
    for path in versions {
        let list = world.get(&path).await.expect(200);
        let version = list["groupVersion"].as_str().unwrap();
        legacy.extend(list["resources"].as_array().unwrap().iter().map(|r| format!("{version} {}", r["name"].as_str().unwrap())));
    }
    let mut aggregated = Vec::new();
    for path in ["/api", "/apis"] {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let list = world.send("GET", path, &[("accept", accept)], String::new()).await.expect(200);
        assert_eq!(list["kind"], "APIGroupDiscoveryList");
        for group in list["items"].as_array().unwrap() {
            for version in group["versions"].as_array().unwrap() {
                let of = [group["metadata"]["name"].as_str().unwrap(), version["version"].as_str().unwrap()];
                let of = of.iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join("/");
                for resource in version["resources"].as_array().unwrap() {
                    let name = resource["resource"].as_str().unwrap();
                    aggregated.push(format!("{of} {name}"));
                    let subs = resource["subresources"].as_array().into_iter().flatten();
                    aggregated.extend(subs.map(|s| format!("{of} {name}/{}", s["subresource"].as_str().unwrap())));
                }
            }
        }
    }
    legacy.sort();
    aggregated.sort();
    assert_eq!(legacy, aggregated);
    for expected in ["v1 pods/log", "apps/v1 deployments/scale", "networking.istio.io/v1beta1 virtualservices"] {
        assert!(legacy.iter().any(|k| k == expected), "{expected}");
    }
}

#[tokio::test]
async fn openapi_says_that_writes_take_field_validation() {
    let world = World::new();
    let index = world.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = world.get(&url).await.expect(200);
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"));
    assert_eq!(patch["x-kubernetes-group-version-kind"], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let spec = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!((&spec["x-kubernetes-patch-merge-key"], &spec["x-kubernetes-list-type"]), (&"name".into(), &"map".into()));
    // Every reference leads somewhere within the document.
    let text = document.to_string();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
    assert_eq!(world.get("/openapi/v2").await.expect(200)["swagger"], "2.0");
    world.get("/openapi/v3/apis/none/v1").await.refused(404, "NotFound");
}

#[tokio::test]
async fn health_version_and_reviews_answer() {
    let world = World::new();
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(world.get(path).await.expect(200), "ok");
    }
    assert_eq!(world.get("/version").await.expect(200)["major"], "1");
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let answer = world.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await.expect(201);
    assert_eq!((&answer["kind"], &answer["status"]["allowed"]), (&"SelfSubjectAccessReview".into(), &true.into()));
    world.get("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").await.refused(405, "MethodNotAllowed");
}

async fn rows(world: &World, path: &str) -> (Vec<String>, Vec<Value>) {
    let table = world.send("GET", path, &[TABLE], String::new()).await.expect(200);
    let names = table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect();
    (names, table["rows"].as_array().unwrap().iter().map(|r| r["cells"].clone()).collect())
}

#[tokio::test]
async fn tables_show_what_kubectl_users_know() {
    let world = World::new();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    world.post(deployments, deployment("web")).await.expect(201);
    world
        .patch(
            "merge",
            &format!("{deployments}/web/status"),
            json!({"status": {"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "availableReplicas": 1}}),
        )
        .await
        .expect(200);
    let (columns, cells) = rows(&world, deployments).await;
    assert_eq!(columns, ["Name", "Ready", "Up-to-date", "Available", "Age", "Containers", "Images", "Selector"]);
    let age = cells[0][4].clone();
    assert_eq!(cells, [json!(["web", "1/1", 1, 1, age, "app", "app:1", "app=web"])]);

    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}});
    for (name, status, shown) in [
        ("p1", json!({"phase": "Pending"}), ["0/2", "Pending", "0"]),
        (
            "p2",
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
                {"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}}, {"name": "b", "ready": true, "restartCount": 0, "state": {"running": {}}}]}),
            ["2/2", "Running", "0"],
        ),
        (
            "p3",
            json!({"phase": "Running", "containerStatuses": [
                {"name": "a", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}, {"name": "b", "ready": true, "restartCount": 1, "state": {"running": {}}}]}),
            ["1/2", "CrashLoopBackOff", "4"],
        ),
        (
            "p4",
            json!({"phase": "Failed", "containerStatuses": [{"name": "a", "restartCount": 0, "state": {"terminated": {"exitCode": 3}}}]}),
            ["0/2", "ExitCode:3", "0"],
        ),
        (
            "p5",
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            ["0/2", "Init:Error", "0"],
        ),
    ] {
        world.post(pods, pod(name)).await.expect(201);
        world.patch("merge", &format!("{pods}/{name}/status"), json!({"status": status})).await.expect(200);
        let (_, cells) = rows(&world, &format!("{pods}?fieldSelector=metadata.name%3D{name}")).await;
        assert_eq!([&cells[0][1], &cells[0][2], &cells[0][3]], shown.map(Value::from).each_ref(), "{name}");
    }
    let services = "/api/v1/namespaces/default/services";
    world
        .post(services, json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}}))
        .await
        .expect(201);
    let (_, cells) = rows(&world, services).await;
    assert_eq!((&cells[0][1], &cells[0][3], &cells[0][4]), (&"NodePort".into(), &"<none>".into(), &"80:30080/TCP".into()));
    // Every kind has a table.
    for path in [
        "/api/v1/nodes",
        "/api/v1/namespaces",
        "/api/v1/endpoints",
        "/api/v1/events",
        "/api/v1/secrets",
        "/api/v1/serviceaccounts",
        "/apis/batch/v1/jobs",
        "/apis/batch/v1/cronjobs",
        "/apis/coordination.k8s.io/v1/leases",
        "/apis/discovery.k8s.io/v1/endpointslices",
        "/apis/policy/v1/poddisruptionbudgets",
        "/apis/networking.istio.io/v1/gateways",
        "/apis/autoscaling/v2/horizontalpodautoscalers",
        "/apis/rbac.authorization.k8s.io/v1/roles",
    ] {
        assert!(rows(&world, path).await.0.iter().any(|c| c == "Name"), "{path}");
    }
}

#[tokio::test]
async fn metadata_alone_is_served_to_those_who_want_no_more() {
    let world = World::new();
    world.post("/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "c"}, "data": {"a": "1"}})).await.expect(201);
    let accept = ("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let list = world.send("GET", "/api/v1/configmaps", &[accept], String::new()).await.expect(200);
    assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&"PartialObjectMetadataList".into(), &"PartialObjectMetadata".into()));
    assert!(list["items"][0].get("data").is_none());
    let yaml = world.send("GET", "/api/v1/namespaces/default/configmaps/c", &[("accept", "application/yaml")], String::new()).await;
    assert!(yaml.body.as_str().is_some_and(|t| t.contains("kind: ConfigMap")), "{:?}", yaml.body);
    let none = world.send("GET", "/api/v1/configmaps", &[("accept", "text/html")], String::new()).await;
    none.refused(406, "NotAcceptable");
}
