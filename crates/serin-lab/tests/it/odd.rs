//! Requests that nobody should send: each gets an answer with a reason, none breaks the server, none half-writes.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::world::World;

/// Where each kind's objects are made.
async fn collections(world: &World) -> Vec<String> {
    let mut versions = vec![("/api/v1".to_owned(), "/api/v1".to_owned())];
    let groups = world.get("/apis").await.expect(200);
    for group in groups["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            let path = format!("/apis/{}", version["groupVersion"].as_str().unwrap());
            versions.push((path.clone(), path));
        }
    }
    let mut all = Vec::new();
    for (path, root) in versions {
        let list = world.get(&path).await.expect(200);
        for resource in list["resources"].as_array().unwrap() {
            let name = resource["name"].as_str().unwrap();
            if !name.contains('/') {
                let place = if resource["namespaced"] == true { "/namespaces/default" } else { "" };
                all.push(format!("{root}{place}/{name}"));
            }
        }
    }
    all
}

fn odd_objects() -> Vec<Value> {
    let mut nested = json!(1);
    for _ in 0..60 {
        nested = json!({"a": [nested]});
    }
    vec![
        Value::Null,
        json!(3),
        json!("x"),
        json!([]),
        json!({}),
        json!({"metadata": 3}),
        json!({"metadata": {"name": 3}}),
        json!({"metadata": {"name": ""}}),
        json!({"metadata": {"name": "../x"}}),
        json!({"metadata": {"name": "x", "labels": []}}),
        json!({"metadata": {"name": "x", "annotations": {"k": 3}}}),
        json!({"metadata": {"name": "x", "ownerReferences": [{}]}}),
        json!({"metadata": {"name": "x", "finalizers": "f"}}),
        json!({"metadata": {"name": "x", "managedFields": [{"fieldsV1": 3}, 4]}}),
        json!({"metadata": {"name": "x"}, "spec": 3}),
        json!({"metadata": {"name": "x"}, "spec": []}),
        json!({"metadata": {"name": "x"}, "spec": null, "status": null}),
        json!({"metadata": {"name": "x"}, "spec": {"template": 3, "selector": "s", "ports": {}, "names": []}}),
        json!({"metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": [{}], "volumes": [{}]}}, "selector": {}, "ports": [{}]}}),
        json!({"metadata": {"name": "x"}, "spec": {"http": [{"route": [{}]}], "versions": [{}], "subsets": [{}], "servers": [{}]}}),
        json!({"metadata": {"name": "x"}, "data": {"a": 3}, "stringData": [], "status": "s", "roleRef": 1, "endpoints": {}}),
        json!({"metadata": {"name": "x"}, "spec": nested}),
    ]
}

#[tokio::test]
async fn odd_objects_are_answered_and_never_break_the_server() {
    let world = Arc::new(World::new());
    for path in collections(&world).await {
        for body in odd_objects() {
            for (method, path, kind) in [
                ("POST", path.clone(), "application/json"),
                ("POST", path.clone(), "application/vnd.kubernetes.protobuf"),
                ("PUT", format!("{path}/x"), "application/json"),
                ("PATCH", format!("{path}/x"), "application/merge-patch+json"),
                ("PATCH", format!("{path}/x"), "application/strategic-merge-patch+json"),
                ("PATCH", format!("{path}/x?fieldManager=m&force=true"), "application/apply-patch+yaml"),
                ("PATCH", format!("{path}/x/status"), "application/merge-patch+json"),
                ("PATCH", format!("{path}/x/scale"), "application/merge-patch+json"),
                ("DELETE", format!("{path}/x?dryRun=All"), "application/json"),
            ] {
                let mut sent = body.clone();
                if kind.contains("apply") && sent.is_object() {
                    // So that it gets past the first gate.
                    sent["apiVersion"] = path.split('/').skip_while(|s| *s != "apis").skip(1).take(2).collect::<Vec<_>>().join("/").into();
                    sent["kind"] = "Deployment".into();
                }
                let of = (world.clone(), path.clone(), sent.to_string());
                let answer = tokio::spawn(async move { of.0.send(method, &of.1, &[("content-type", kind)], of.2).await }).await;
                let answer = answer.unwrap_or_else(|_| panic!("{method} {path} {kind} {sent}"));
                assert!((200..500).contains(&answer.code) || answer.code == 501, "{method} {path} {sent}: {:#}", answer.body);
                if answer.code >= 400 {
                    assert_eq!(answer.body["kind"], "Status", "{method} {path} {sent}: {:#}", answer.body);
                    assert!(answer.body["message"].as_str().is_some_and(|m| !m.is_empty()), "{method} {path} {sent}");
                }
            }
        }
    }
}

#[tokio::test]
async fn odd_patches_of_a_real_object_leave_it_an_object() {
    let world = World::new();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    world.post(path, crate::world::deployment("web")).await.expect(201);
    let path = format!("{path}/web");
    for patch in [
        json!([{"op": "replace", "path": "", "value": 3}]),
        json!([{"op": "remove", "path": "/metadata"}, {"op": "remove", "path": "/spec"}]),
        json!([{"op": "replace", "path": "/kind", "value": "Pod"}]),
        json!([{"op": "replace", "path": "/metadata/name", "value": "other"}]),
        json!([{"op": "add", "path": "/spec/template/spec/containers/9", "value": {}}]),
        json!([{"op": "nothing", "path": "/"}]),
        json!({"op": "add"}),
    ] {
        let answer = world.patch("json", &path, patch.clone()).await;
        assert!((400..500).contains(&answer.code), "{patch}: {answer:?}");
    }
    for patch in [json!({"spec": {"template": null}}), json!({"spec": {"selector": null}}), json!({"metadata": null, "spec": null})] {
        let answer = world.patch("merge", &path, patch.clone()).await;
        assert!((400..500).contains(&answer.code), "{patch}: {answer:?}");
    }
    let read = world.get(&path).await.expect(200);
    assert_eq!((&read["metadata"]["generation"], &read["spec"]["replicas"]), (&1.into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_at_the_same_time_are_all_kept() {
    let world = Arc::new(World::new());
    let path = "/api/v1/namespaces/default/configmaps";
    world.post(path, json!({"metadata": {"name": "c"}})).await.expect(201);
    let writers = (0..64).map(|i| {
        let world = world.clone();
        tokio::spawn(async move {
            loop {
                let answer = world.patch("merge", &format!("{path}/c?fieldManager=m{i}"), json!({"data": {format!("k{i}"): "v"}})).await;
                match answer.code {
                    200 => return,
                    // Refused after many tries: a client tries again.
                    409 => {}
                    code => panic!("{code}: {:#}", answer.body),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let object = world.get(&format!("{path}/c")).await.expect(200);
    assert_eq!(object["data"].as_object().unwrap().len(), 64);
    assert_eq!(object["metadata"]["managedFields"].as_array().unwrap().len(), 64);
}

#[tokio::test]
async fn a_watch_from_before_what_is_remembered_is_told_to_begin_anew() {
    let world = World::new();
    let path = "/api/v1/namespaces/default/configmaps";
    world.post(path, json!({"metadata": {"name": "c"}})).await.expect(201);
    let key = serin_lab::store::Key::namespaced("", "configmaps", "default", "c");
    for i in 0..17_000 {
        let changed = world.api.store().update(&key, serin_lab::store::Write::Whole, |old| {
            let mut new = old.clone();
            new["data"] = json!({"n": i.to_string()});
            Ok::<_, serin_lab::store::StoreError>(new)
        });
        changed.unwrap();
    }
    world.get(&format!("{path}?watch=true&resourceVersion=3")).await.refused(410, "Expired");
    world.get(&format!("{path}?watch=true&resourceVersion=9999999")).await.refused(410, "Expired");
    // One that lags too far behind is told in the stream.
    let from = world.api.store().version();
    let request = http::Request::get(format!("{path}?watch=true&resourceVersion={from}")).body(axum::body::Body::empty()).unwrap();
    let mut stream = world.raw(request).await.into_body().into_data_stream();
    for i in 0..40_000 {
        let changed = world.api.store().update(&key, serin_lab::store::Write::Whole, |old| {
            let mut new = old.clone();
            new["data"] = json!({"m": i.to_string()});
            Ok::<_, serin_lab::store::StoreError>(new)
        });
        changed.unwrap();
    }
    let lines = crate::world::read_lines(&mut stream, 1).await;
    assert_eq!((&lines[0]["type"], &lines[0]["object"]["code"]), (&"ERROR".into(), &410.into()));
}
