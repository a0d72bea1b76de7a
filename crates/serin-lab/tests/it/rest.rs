//! Create, read, update, patch, delete, list and watch, with the answers that Kubernetes gives.

use serde_json::json;

use crate::world::{World, deployment, read_lines};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const CONFIG: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_deployment_is_stored_with_its_defaults() {
    let world = World::new();
    let made = world.post(DEPLOYMENTS, deployment("web")).await.expect(201);
    assert_eq!(made["spec"]["replicas"], 1);
    assert_eq!(made["spec"]["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}));
    let container = &made["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["ports"][0]["protocol"], "TCP");
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["creationTimestamp"].is_string());
    let read = world.get(&format!("{DEPLOYMENTS}/web")).await.expect(200);
    assert_eq!(read, made);
}

#[tokio::test]
async fn refusals_are_status_objects_with_kubernetes_reasons() {
    let world = World::new();
    world.post(DEPLOYMENTS, deployment("web")).await.expect(201);
    assert_eq!(world.post(DEPLOYMENTS, deployment("web")).await.refused(409, "AlreadyExists"), "deployments.apps \"web\" already exists");
    assert_eq!(world.get(&format!("{DEPLOYMENTS}/none")).await.refused(404, "NotFound"), "deployments.apps \"none\" not found");
    assert_eq!(
        world.post("/apis/apps/v1/namespaces/none/deployments", deployment("web")).await.refused(404, "NotFound"),
        "namespaces \"none\" not found"
    );
    assert_eq!(world.get("/apis/apps/v1/nothings").await.refused(404, "NotFound"), "the server could not find the requested resource");
    assert_eq!(
        world.put(DEPLOYMENTS, json!({})).await.refused(405, "MethodNotAllowed"),
        "the server does not allow this method on the requested resource"
    );
    let wrong_kind = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}});
    assert!(world.post(CONFIG, wrong_kind).await.refused(400, "BadRequest").contains("does not match the expected kind"));
    world.send("POST", CONFIG, &[("content-type", "text/plain")], "x".into()).await.refused(415, "UnsupportedMediaType");
    world.send("POST", CONFIG, &[("content-type", "application/vnd.kubernetes.protobuf")], "x".into()).await.refused(400, "BadRequest");
    world.send("POST", CONFIG, &[], "{".into()).await.refused(400, "BadRequest");
    let mut typo = deployment("typo");
    typo["spec"]["replicas"] = "three".into();
    assert_eq!(
        world.post(DEPLOYMENTS, typo).await.refused(400, "BadRequest"),
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field Deployment.spec.replicas of type int32"
    );
}

/// Each was held against a real API server (1.20).
#[tokio::test]
async fn small_things_are_as_on_a_real_server() {
    let world = World::new();
    let map = world
        .post(CONFIG, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}))
        .await
        .expect(201);
    assert_eq!(map["metadata"]["generation"], json!(null), "kinds without a controller have no generation");
    assert_eq!(world.post(DEPLOYMENTS, deployment("web")).await.expect(201)["metadata"]["generation"], 1);
    let list = world.get(CONFIG).await.expect(200);
    assert_eq!(
        (&list["kind"], &list["items"][0]["kind"], &list["items"][0]["apiVersion"]),
        (&json!("ConfigMapList"), &json!(null), &json!(null))
    );

    let one = format!("{CONFIG}/c");
    assert!(world.patch("merge", &one, json!({"data": {"a": 5}})).await.refused(422, "Invalid").contains("patch: Invalid value"));
    assert_eq!(
        world.patch("merge", &one, json!({"metadata": {"name": "d"}})).await.refused(400, "BadRequest"),
        "the name of the object (d) does not match the name on the URL (c)"
    );
    world
        .post(&format!("{CONFIG}?dryRun=Some"), json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "e"}}))
        .await
        .refused(422, "Invalid");
    let nameless = world.post(CONFIG, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}})).await;
    assert_eq!(nameless.body["details"]["name"], json!(null));

    let event = |note: &str, reason: &str| {
        json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"generateName": "e-"}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal",
            "reason": reason, "action": "A", "reportingController": "c", "reportingInstance": "i", "note": note})
    };
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    world.post(events, event("n", "R")).await.expect(201);
    world.post(events, event("n", "")).await.refused(422, "Invalid");
    world.post(events, event(&"é".repeat(513), "R")).await.refused(422, "Invalid");
}

/// The server for kinds of CRDs, which sits behind the real one, knows no `Status` for a path that it does not serve.
#[tokio::test]
async fn what_no_crd_serves_is_refused_in_plain_text() {
    let world = World::new();
    for path in [
        "/apis/keda.sh",
        "/apis/keda.sh/v1alpha1",
        "/apis/keda.sh/v1alpha1/scaledobjects",
        "/apis/networking.istio.io/v7",
        "/apis/networking.istio.io/v1/things",
    ] {
        let answer = world.get(path).await;
        assert_eq!((answer.code, answer.body.as_str()), (404, Some("404 page not found\n")), "{path}");
    }
    for path in ["/apis/apps/v9", "/api/v2", "/apis/authorization.k8s.io/v9"] {
        world.get(path).await.refused(404, "NotFound");
    }
    world.get("/apis/networking.istio.io/v1/namespaces/default/virtualservices/none").await.refused(404, "NotFound");
}

#[tokio::test]
async fn an_invalid_object_is_refused_with_all_problems_at_once() {
    let world = World::new();
    let mut wrong = deployment("Web_1");
    wrong["spec"]["selector"]["matchLabels"]["app"] = "other".into();
    wrong["spec"]["template"]["spec"]["containers"][0]["image"] = "".into();
    wrong["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = 70_000.into();
    wrong["spec"]["replicas"] = (-1).into();
    let answer = world.post(DEPLOYMENTS, wrong).await;
    let fields: Vec<&str> = answer.body["details"]["causes"].as_array().unwrap().iter().map(|c| c["field"].as_str().unwrap()).collect();
    assert_eq!(
        fields,
        [
            "metadata.name",
            "spec.replicas",
            "spec.template.metadata.labels",
            "spec.template.spec.containers[0].image",
            "spec.template.spec.containers[0].ports[0].containerPort",
        ]
    );
    let message = answer.refused(422, "Invalid");
    assert!(
        message
            .starts_with("Deployment.apps \"Web_1\" is invalid: [metadata.name: Invalid value: \"Web_1\": a lowercase RFC 1123 subdomain"),
        "{message}"
    );
    assert!(message.contains("`selector` does not match template `labels`"), "{message}");
}

#[tokio::test]
async fn a_selector_may_not_change() {
    let world = World::new();
    let mut object = world.post(DEPLOYMENTS, deployment("web")).await.expect(201);
    object["spec"]["selector"]["matchLabels"]["more"] = "x".into();
    object["spec"]["template"]["metadata"]["labels"]["more"] = "x".into();
    let message = world.put(&format!("{DEPLOYMENTS}/web"), object).await.refused(422, "Invalid");
    assert!(message.ends_with("field is immutable"), "{message}");
}

#[tokio::test]
async fn unknown_fields_are_told_ignored_or_refused() {
    let world = World::new();
    let mut typo = deployment("web");
    typo["spec"]["replica"] = 3.into();
    let strict = world.post(&format!("{DEPLOYMENTS}?fieldValidation=Strict"), typo.clone()).await;
    assert_eq!(
        strict.refused(400, "BadRequest"),
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.replica\""
    );
    let warn = world.post(DEPLOYMENTS, typo.clone()).await;
    assert_eq!(warn.warnings, ["299 - \"unknown field \\\"spec.replica\\\"\""]);
    assert!(warn.expect(201)["spec"].get("replica").is_none());
    typo["metadata"]["name"] = "web2".into();
    let ignore = world.post(&format!("{DEPLOYMENTS}?fieldValidation=Ignore"), typo).await;
    assert!(ignore.warnings.is_empty());
    ignore.expect(201);
    let twice = r#"{"metadata": {"name": "c"}, "data": {"a": "1", "a": "2"}}"#;
    let answer = world.send("POST", &format!("{CONFIG}?fieldValidation=Strict"), &[], twice.into()).await;
    assert!(answer.refused(400, "BadRequest").ends_with("strict decoding error: duplicate field \"data.a\""));
}

#[tokio::test]
async fn updates_of_old_versions_conflict_and_nothing_is_lost() {
    let world = World::new();
    let first = world.post(CONFIG, json!({"metadata": {"name": "c"}, "data": {"n": "1"}})).await.expect(201);
    let mut second = first.clone();
    second["data"]["n"] = "2".into();
    let second = world.put(&format!("{CONFIG}/c"), second).await.expect(200);
    assert_ne!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(world.put(&format!("{CONFIG}/c"), first.clone()).await.refused(409, "Conflict").contains("the object has been modified"));
    // Without a version a built-in kind is simply replaced; a custom one is not.
    world.put(&format!("{CONFIG}/c"), json!({"metadata": {"name": "c"}, "data": {"n": "3"}})).await.expect(200);
    let mut other_uid = first;
    other_uid["metadata"]["uid"] = "not-this".into();
    other_uid["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    world.put(&format!("{CONFIG}/c"), other_uid).await.refused(409, "Conflict");
    let gateways = "/apis/networking.istio.io/v1/namespaces/default/sidecars";
    world.post(gateways, json!({"metadata": {"name": "g"}, "spec": {}})).await.expect(201);
    let message = world.put(&format!("{gateways}/g"), json!({"metadata": {"name": "g"}, "spec": {}})).await.refused(422, "Invalid");
    assert!(message.contains("must be specified for an update"), "{message}");
}

#[tokio::test]
async fn each_kind_of_patch_does_what_its_name_says() {
    let world = World::new();
    world.post(DEPLOYMENTS, deployment("web")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web");
    let patched = world.patch("strategic", &path, json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "app:2"}, {"name": "side", "image": "side:1"}]}}}})).await.expect(200);
    assert_eq!(patched["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
    assert_eq!(patched["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"], 8080);
    assert_eq!(patched["metadata"]["generation"], 2);
    let patched = world.patch("merge", &path, json!({"spec": {"replicas": 3, "minReadySeconds": 5}})).await.expect(200);
    assert_eq!((&patched["spec"]["replicas"], &patched["spec"]["minReadySeconds"]), (&3.into(), &5.into()));
    let patched = world.patch("merge", &path, json!({"spec": {"minReadySeconds": null}})).await.expect(200);
    assert!(patched["spec"].get("minReadySeconds").is_none());
    let patched = world
        .patch(
            "json",
            &path,
            json!([{"op": "test", "path": "/spec/replicas", "value": 3}, {"op": "replace", "path": "/spec/replicas", "value": 4}]),
        )
        .await
        .expect(200);
    assert_eq!(patched["spec"]["replicas"], 4);
    let failed = world
        .patch(
            "json",
            &path,
            json!([{"op": "test", "path": "/spec/replicas", "value": 3}, {"op": "replace", "path": "/spec/replicas", "value": 9}]),
        )
        .await;
    let message = failed.refused(422, "Invalid");
    assert!(message.contains("testing value /spec/replicas failed"), "{message}");
    assert_eq!(world.get(&path).await.expect(200)["spec"]["replicas"], 4);
    world.patch("json", &path, json!([{"op": "replace", "path": "/spec/nothing/here", "value": 9}])).await.refused(422, "Invalid");
    world.patch("merge", &path, json!({"metadata": {"resourceVersion": "1"}})).await.refused(409, "Conflict");
    world.patch("merge", &format!("{DEPLOYMENTS}/none"), json!({})).await.refused(404, "NotFound");
    let gateways = "/apis/networking.istio.io/v1/namespaces/default/sidecars";
    world.post(gateways, json!({"metadata": {"name": "g"}, "spec": {}})).await.expect(201);
    world.patch("strategic", &format!("{gateways}/g"), json!({})).await.refused(415, "UnsupportedMediaType");
}

#[tokio::test]
async fn status_and_scale_are_doors_of_their_own() {
    let world = World::new();
    world.post(DEPLOYMENTS, deployment("web")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web");
    let patched = world.patch("merge", &path, json!({"status": {"replicas": 7}, "spec": {"replicas": 2}})).await.expect(200);
    assert!(patched["status"].get("replicas").is_none());
    let patched = world
        .patch("merge", &format!("{path}/status"), json!({"status": {"replicas": 7, "readyReplicas": 7}, "spec": {"replicas": 9}}))
        .await
        .expect(200);
    assert_eq!(
        (&patched["status"]["replicas"], &patched["spec"]["replicas"], &patched["metadata"]["generation"]),
        (&7.into(), &2.into(), &2.into())
    );
    let scale = world.get(&format!("{path}/scale")).await.expect(200);
    assert_eq!(scale["kind"], "Scale");
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]), (&2.into(), &json!({"replicas": 7, "selector": "app=web"})));
    let scaled = world.patch("merge", &format!("{path}/scale"), json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 5);
    let mut scale = world.get(&format!("{path}/scale")).await.expect(200);
    scale["spec"]["replicas"] = 6.into();
    world.put(&format!("{path}/scale"), scale.clone()).await.expect(200);
    world.put(&format!("{path}/scale"), scale).await.refused(409, "Conflict");
    assert_eq!(world.get(&path).await.expect(200)["spec"]["replicas"], 6);
    world.get(&format!("{path}/nothing")).await.refused(404, "NotFound");
}

#[tokio::test]
async fn lists_are_selected_and_paged() {
    let world = World::new();
    for i in 0..7 {
        let labels = json!({"parity": if i % 2 == 0 { "even" } else { "odd" }});
        world.post(CONFIG, json!({"metadata": {"name": format!("c{i}"), "labels": labels}})).await.expect(201);
    }
    let names = |list: &serde_json::Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let odd = world.get(&format!("{CONFIG}?labelSelector=parity%3Dodd")).await.expect(200);
    assert_eq!(names(&odd), ["c1", "c3", "c5"]);
    assert_eq!((&odd["kind"], &odd["apiVersion"]), (&"ConfigMapList".into(), &"v1".into()));
    let one = world.get("/api/v1/configmaps?fieldSelector=metadata.name%3Dc4,metadata.namespace%3Ddefault").await.expect(200);
    assert_eq!(names(&one), ["c4"]);
    world.get(&format!("{CONFIG}?fieldSelector=data.x%3D1")).await.refused(400, "BadRequest");
    let mut found = Vec::new();
    let mut page = world.get(&format!("{CONFIG}?limit=3")).await.expect(200);
    assert_eq!(page["metadata"]["remainingItemCount"], 4);
    let version = page["metadata"]["resourceVersion"].clone();
    loop {
        found.extend(names(&page));
        assert_eq!(page["metadata"]["resourceVersion"], version);
        let Some(token) = page["metadata"]["continue"].as_str() else { break };
        page = world.get(&format!("{CONFIG}?limit=3&continue={token}")).await.expect(200);
    }
    assert_eq!(found, ["c0", "c1", "c2", "c3", "c4", "c5", "c6"]);
    world.get(&format!("{CONFIG}?continue=rubbish")).await.refused(400, "BadRequest");
    world.get(&format!("{CONFIG}?resourceVersion=99999")).await.refused(410, "Expired");
}

#[tokio::test]
async fn a_watch_tells_what_enters_changes_and_leaves_its_selection() {
    let world = World::new();
    let list = world.get(CONFIG).await.expect(200);
    let from = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let request = http::Request::get(format!("{CONFIG}?watch=true&resourceVersion={from}&labelSelector=on%3Dyes"))
        .body(axum::body::Body::empty())
        .unwrap();
    let mut stream = world.raw(request).await.into_body().into_data_stream();
    world.post(CONFIG, json!({"metadata": {"name": "c"}})).await.expect(201);
    world.patch("merge", &format!("{CONFIG}/c"), json!({"metadata": {"labels": {"on": "yes"}}})).await.expect(200);
    world.patch("merge", &format!("{CONFIG}/c"), json!({"data": {"a": "1"}})).await.expect(200);
    world.patch("merge", &format!("{CONFIG}/c"), json!({"metadata": {"labels": {"on": "no"}}})).await.expect(200);
    world.patch("merge", &format!("{CONFIG}/c"), json!({"metadata": {"labels": {"on": "yes"}}})).await.expect(200);
    world.delete(&format!("{CONFIG}/c")).await.expect(200);
    let lines = read_lines(&mut stream, 5).await;
    let kinds: Vec<&str> = lines.iter().map(|l| l["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]);
    let versions: Vec<u64> = lines.iter().map(|l| l["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    assert_eq!(lines[2]["object"]["metadata"]["labels"]["on"], "yes");
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there_when_asked_without_a_version() {
    let world = World::new();
    world.post(CONFIG, json!({"metadata": {"name": "a"}})).await.expect(201);
    let lines = world
        .watch(&format!("{CONFIG}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"), 2)
        .await;
    assert_eq!((&lines[0]["type"], &lines[1]["type"]), (&"ADDED".into(), &"BOOKMARK".into()));
    assert_eq!(lines[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let lines = world.watch(&format!("{CONFIG}?watch=true"), 1).await;
    assert_eq!(lines[0]["object"]["metadata"]["name"], "a");
    // A timeout ends it, with a last bookmark for those who asked.
    let lines = world.watch(&format!("{CONFIG}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion=1"), 99).await;
    assert_eq!(lines.last().unwrap()["type"], "BOOKMARK");
}

#[tokio::test]
async fn istio_objects_are_one_in_all_their_versions() {
    let world = World::new();
    let path = |v: &str| format!("/apis/networking.istio.io/{v}/namespaces/default/virtualservices");
    let made = world
        .post(
            &path("v1alpha3"),
            json!({"metadata": {"name": "a"}, "spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]}}),
        )
        .await
        .expect(201);
    assert_eq!(made["apiVersion"], "networking.istio.io/v1alpha3");
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let read = world.get(&format!("{}/a", path(version))).await.expect(200);
        assert_eq!(read["apiVersion"], format!("networking.istio.io/{version}"));
        assert_eq!((&read["spec"], &read["metadata"]), (&made["spec"], &made["metadata"]));
    }
    let wrong = json!({"apiVersion": "networking.istio.io/v1", "metadata": {"name": "b"}});
    world.post(&path("v1beta1"), wrong).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn istio_objects_are_checked_as_by_its_crds_and_webhook() {
    let world = World::new();
    let path = "/apis/networking.istio.io/v1/namespaces/default/virtualservices?fieldValidation=Strict";
    let route = |weights: [i64; 2]| {
        let to: Vec<_> = weights.iter().map(|w| json!({"destination": {"host": "a"}, "weight": w})).collect();
        json!({"metadata": {"name": "a"}, "spec": {"hosts": ["a"], "http": [{"route": to}]}})
    };
    let mut typo = route([90, 10]);
    typo["spec"]["http"][0]["route"][0]["wieght"] = 90.into();
    let message = world.post(path, typo).await.refused(400, "BadRequest");
    assert!(message.ends_with("strict decoding error: unknown field \"spec.http[0].route[0].wieght\""), "{message}");
    let mut text = route([90, 10]);
    text["spec"]["http"][0]["route"][0]["weight"] = "90".into();
    let message = world.post(path, text).await.refused(422, "Invalid");
    assert!(message.contains("spec.http[0].route[0].weight in body must be of type integer"), "{message}");
    let message = world.post(path, route([0, 0])).await.refused(400, "");
    assert_eq!(
        message,
        "admission webhook \"rev.validation.istio.io\" denied the request: configuration is invalid: total destination weight = 0"
    );
    world.post(path, route([90, 10])).await.expect(201);
}

#[tokio::test]
async fn events_of_both_groups_are_the_same_objects() {
    let world = World::new();
    let event = json!({
        "metadata": {"name": "e.1"}, "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "note": "hello", "reason": "Started",
        "type": "Normal", "reportingController": "x", "reportingInstance": "x-1", "action": "Start", "eventTime": "2026-01-01T00:00:00.000000Z",
    });
    world.post("/apis/events.k8s.io/v1/namespaces/default/events", event).await.expect(201);
    let list = world.get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp").await.expect(200);
    let seen = &list["items"][0];
    assert_eq!(
        (&seen["message"], &seen["involvedObject"]["kind"], &seen["reportingComponent"]),
        (&"hello".into(), &"Pod".into(), &"x".into())
    );
    let list = world.get("/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Dp").await.expect(200);
    assert_eq!(list["items"][0]["note"], "hello");
}

#[tokio::test]
async fn a_dry_run_answers_and_stores_nothing() {
    let world = World::new();
    let made = world.post(&format!("{DEPLOYMENTS}?dryRun=All"), deployment("web")).await.expect(201);
    assert!(made["metadata"]["uid"].is_string());
    world.get(&format!("{DEPLOYMENTS}/web")).await.refused(404, "NotFound");
    world.post(DEPLOYMENTS, deployment("web")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web");
    assert_eq!(
        world.patch("merge", &format!("{path}?dryRun=All"), json!({"spec": {"replicas": 9}})).await.expect(200)["spec"]["replicas"],
        9
    );
    assert_eq!(world.get(&path).await.expect(200)["spec"]["replicas"], 1);
    world.delete(&format!("{path}?dryRun=All")).await.expect(200);
    world.get(&path).await.expect(200);
}

#[tokio::test]
async fn services_get_addresses_and_keep_them() {
    let world = World::new();
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}});
    let a = world.post(path, service("a")).await.expect(201);
    let b = world.post(path, service("b")).await.expect(201);
    let address = |s: &serde_json::Value| s["spec"]["clusterIP"].as_str().unwrap().parse::<std::net::Ipv4Addr>().unwrap();
    assert_ne!(address(&a), address(&b));
    assert_eq!(
        (&a["spec"]["type"], &a["spec"]["ports"][0]),
        (&"ClusterIP".into(), &json!({"port": 80, "protocol": "TCP", "targetPort": 80}))
    );
    // What a client leaves out of an update stays.
    let again = world.put(&format!("{path}/a"), service("a")).await.expect(200);
    assert_eq!(address(&again), address(&a));
    world.patch("merge", &format!("{path}/a"), json!({"spec": {"clusterIP": "10.96.9.9"}})).await.refused(422, "Invalid");
    let mut two = service("c");
    two["spec"]["ports"] = json!([{"port": 80}, {"port": 81}]);
    world.post(path, two).await.refused(422, "Invalid");
}

#[tokio::test]
async fn generated_names_begin_as_asked() {
    let world = World::new();
    let made = world.post(CONFIG, json!({"metadata": {"generateName": "run-"}})).await.expect(201);
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("run-") && name.len() == 9, "{name}");
}

#[tokio::test]
async fn preconditions_guard_deletion() {
    let world = World::new();
    let made = world.post(CONFIG, json!({"metadata": {"name": "c"}})).await.expect(201);
    let wrong = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}});
    world.send("DELETE", &format!("{CONFIG}/c"), &[], wrong.to_string()).await.refused(409, "Conflict");
    let right = json!({"preconditions": {"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}});
    let done = world.send("DELETE", &format!("{CONFIG}/c"), &[], right.to_string()).await.expect(200);
    assert_eq!(
        (&done["status"], &done["details"]["name"], &done["details"]["kind"]),
        (&"Success".into(), &"c".into(), &"configmaps".into())
    );
    world.delete(&format!("{CONFIG}/c")).await.refused(404, "NotFound");
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let world = World::new();
    world.post(CONFIG, json!({"metadata": {"name": "c", "finalizers": ["example.com/hold"]}})).await.expect(201);
    let dying = world.delete(&format!("{CONFIG}/c")).await.expect(200);
    assert!(dying["metadata"]["deletionTimestamp"].is_string());
    world.patch("merge", &format!("{CONFIG}/c"), json!({"data": {"a": "1"}})).await.expect(200);
    world.get(&format!("{CONFIG}/c")).await.expect(200);
    world
        .patch("merge", &format!("{CONFIG}/c"), json!({"metadata": {"finalizers": ["example.com/hold", "example.com/new"]}}))
        .await
        .refused(422, "Invalid");
    world.patch("merge", &format!("{CONFIG}/c"), json!({"metadata": {"finalizers": null}})).await.expect(200);
    world.get(&format!("{CONFIG}/c")).await.refused(404, "NotFound");
}
