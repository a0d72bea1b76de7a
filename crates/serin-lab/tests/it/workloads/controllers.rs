//! The controllers against the store, on a paused clock, with a played node.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use serin_lab::store::{EventKind, Key, Resource, Store, Write};
use serin_lab::workloads::run_controllers;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::world::*;

const LONG: Duration = Duration::from_secs(3_600);

struct World {
    store: Store,
    _stop: DropGuard,
}

fn world(manners: &[(&str, Manner)]) -> World {
    let store = Store::new(clock());
    let stop = CancellationToken::new();
    tokio::spawn(run_controllers(store.clone(), stop.clone()));
    let manners: HashMap<String, Manner> = manners.iter().map(|(image, manner)| ((*image).to_owned(), *manner)).collect();
    play_kubelet(store.clone(), manners, stop.clone());
    World { store, _stop: stop.drop_guard() }
}

/// What `kubectl rollout status` waits for.
fn rolled_out(d: &Value) -> bool {
    let n = |f: &str| d["status"][f].as_i64().unwrap_or(0);
    let replicas = d["spec"]["replicas"].as_i64().unwrap();
    n("observedGeneration") >= d["metadata"]["generation"].as_i64().unwrap()
        && n("updatedReplicas") == replicas
        && n("replicas") == replicas
        && n("availableReplicas") == replicas
}

async fn until_rolled_out(store: &Store, name: &str) -> std::sync::Arc<Value> {
    until(store, "rolled out", LONG, || store.get(&deployments(name)).filter(|d| rolled_out(d))).await
}

fn reason(d: &Value, kind: &str) -> String {
    let all = d["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == kind);
    found.map_or("-".into(), |c| format!("{} {}", c["status"].as_str().unwrap(), c["reason"].as_str().unwrap()))
}

#[tokio::test(start_paused = true)]
async fn a_deployment_becomes_ready_pods_and_says_so() {
    let world = world(&[]);
    world.store.create(&deployments("d"), deployment("d", "v1", 3)).unwrap();
    let d = until_rolled_out(&world.store, "d").await;
    assert_eq!(reason(&d, "Available"), "True MinimumReplicasAvailable");
    assert_eq!(reason(&d, "Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(d["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    let [set] = list(&world.store, "apps", "replicasets").try_into().unwrap();
    let hash = set["metadata"]["labels"]["pod-template-hash"].as_str().unwrap();
    assert_eq!(set["metadata"]["name"], format!("d-{hash}"));
    assert_eq!(set["spec"]["selector"]["matchLabels"]["pod-template-hash"], hash);
    assert_eq!(set["metadata"]["ownerReferences"][0]["kind"], "Deployment");
    for pod in pods(&world.store) {
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], set["metadata"]["uid"]);
        assert_eq!(pod["metadata"]["labels"]["pod-template-hash"], hash);
    }
}

/// Every change of any pod, in order, checked against the limits.
fn watch_limits(store: &Store, max_total: usize, min_available: usize) -> tokio::task::JoinHandle<(usize, usize)> {
    let mut watch = store.watch(Some(Resource::new("", "pods")), None, None).unwrap();
    let mut there: HashMap<Key, Value> = pods(store)
        .into_iter()
        .map(|p| (Key::namespaced("", "pods", "default", p["metadata"]["name"].as_str().unwrap()), (*p).clone()))
        .collect();
    tokio::spawn(async move {
        let (mut most, mut least) = (0, usize::MAX);
        while let Ok(event) = watch.next().await {
            match event.kind {
                EventKind::Deleted => there.remove(&event.key),
                EventKind::Added | EventKind::Modified => there.insert(event.key.clone(), (*event.object).clone()),
            };
            let living = there.values().filter(|p| p["metadata"].get("deletionTimestamp").is_none());
            let (living, available) = living.fold((0, 0), |(n, a), p| (n + 1, a + usize::from(is_ready(p))));
            (most, least) = (most.max(living), least.min(available));
            assert!(living <= max_total, "{living} pods of {max_total}");
            assert!(available >= min_available, "{available} available of {min_available}");
            if there.values().all(|p| p["metadata"]["labels"]["stop"] == "yes") {
                break;
            }
        }
        (most, least)
    })
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_keeps_its_limits_at_every_moment() {
    for (replicas, surge, unavailable, max_total, min_available) in [
        (3, json!("25%"), json!("25%"), 4, 3),
        (10, json!("25%"), json!("25%"), 13, 8),
        (4, json!(0), json!(1), 4, 3),
        (5, json!("100%"), json!(0), 10, 5),
        (2, json!(0), json!("10%"), 2, 1),
    ] {
        let world = world(&[]);
        let mut d = deployment("d", "v1", replicas);
        d["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
        world.store.create(&deployments("d"), d).unwrap();
        until_rolled_out(&world.store, "d").await;
        let limits = watch_limits(&world.store, max_total, min_available);
        change(&world.store, &deployments("d"), Write::Spec, |d| {
            d["spec"]["template"]["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/restartedAt": "now"});
        });
        until_rolled_out(&world.store, "d").await;
        until(&world.store, "old pods are gone", LONG, || (pods(&world.store).len() == usize::try_from(replicas).unwrap()).then_some(()))
            .await;
        for pod in pods(&world.store) {
            let key = Key::namespaced("", "pods", "default", pod["metadata"]["name"].as_str().unwrap());
            change(&world.store, &key, Write::Spec, |p| p["metadata"]["labels"]["stop"] = "yes".into());
        }
        let (most, _) = limits.await.unwrap();
        assert!(most > 0);
        assert_eq!(list(&world.store, "apps", "replicasets").len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_never_comes_up_leaves_the_old_one_serving_and_times_out() {
    let world = world(&[("registry/d:bad", Manner { ready_after: None, ends_after: Duration::from_secs(1) })]);
    let mut d = deployment("d", "v1", 3);
    d["spec"]["progressDeadlineSeconds"] = 60.into();
    world.store.create(&deployments("d"), d).unwrap();
    until_rolled_out(&world.store, "d").await;
    let set_image = |image: &str| {
        change(&world.store, &deployments("d"), Write::Spec, |d| d["spec"]["template"]["spec"]["containers"][0]["image"] = image.into());
    };
    set_image("registry/d:bad");
    let d = until(&world.store, "deadline", LONG, || {
        world.store.get(&deployments("d")).filter(|d| reason(d, "Progressing") == "False ProgressDeadlineExceeded")
    })
    .await;
    assert_eq!(d["status"]["availableReplicas"], 3);
    assert_eq!(reason(&d, "Available"), "True MinimumReplicasAvailable");

    // Back: the old ReplicaSet is used again, as the newest revision.
    set_image("registry/d:v1");
    let d = until_rolled_out(&world.store, "d").await;
    assert_eq!(d["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    let sets = list(&world.store, "apps", "replicasets");
    assert_eq!(sets.len(), 2);
    let used = sets.iter().find(|s| s["spec"]["replicas"] == 3).unwrap();
    assert_eq!(used["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(used["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1");
}

#[tokio::test(start_paused = true)]
async fn recreate_starts_nothing_before_the_last_old_pod_is_gone() {
    let world = world(&[]);
    let mut d = deployment("d", "v1", 2);
    d["spec"]["strategy"] = json!({"type": "Recreate"});
    world.store.create(&deployments("d"), d).unwrap();
    until_rolled_out(&world.store, "d").await;
    let mut watch = world.store.watch(Some(Resource::new("", "pods")), None, None).unwrap();
    change(&world.store, &deployments("d"), Write::Spec, |d| d["spec"]["template"]["metadata"]["labels"]["again"] = "1".into());
    let mut gone = 0;
    loop {
        let event = watch.next().await.unwrap();
        match event.kind {
            EventKind::Deleted => gone += 1,
            EventKind::Added => break,
            EventKind::Modified => {}
        }
    }
    assert_eq!(gone, 2);
    until_rolled_out(&world.store, "d").await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_scales_and_does_not_roll() {
    let world = world(&[]);
    world.store.create(&deployments("d"), deployment("d", "v1", 2)).unwrap();
    until_rolled_out(&world.store, "d").await;
    change(&world.store, &deployments("d"), Write::Spec, |d| {
        d["spec"]["paused"] = true.into();
        d["spec"]["replicas"] = 4.into();
        d["spec"]["template"]["metadata"]["labels"]["again"] = "1".into();
    });
    until(&world.store, "four pods", LONG, || (pods(&world.store).iter().filter(|p| is_ready(p)).count() == 4).then_some(())).await;
    let d = until(&world.store, "says so", LONG, || {
        world.store.get(&deployments("d")).filter(|d| reason(d, "Progressing") == "Unknown DeploymentPaused")
    })
    .await;
    assert_eq!(d["status"].get("updatedReplicas"), None);
    assert_eq!(list(&world.store, "apps", "replicasets").len(), 1);
    change(&world.store, &deployments("d"), Write::Spec, |d| d["spec"]["paused"] = false.into());
    until_rolled_out(&world.store, "d").await;
    assert_eq!(list(&world.store, "apps", "replicasets").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn min_ready_seconds_hold_availability_back() {
    let world = world(&[]);
    let mut d = deployment("d", "v1", 1);
    d["spec"]["minReadySeconds"] = 30.into();
    let before = tokio::time::Instant::now();
    world.store.create(&deployments("d"), d).unwrap();
    until(&world.store, "ready", LONG, || world.store.get(&deployments("d")).filter(|d| d["status"]["readyReplicas"] == 1)).await;
    let d = world.store.get(&deployments("d")).unwrap();
    assert_eq!(reason(&d, "Available"), "False MinimumReplicasUnavailable");
    until_rolled_out(&world.store, "d").await;
    assert!(before.elapsed() >= Duration::from_secs(29));
}

#[tokio::test(start_paused = true)]
async fn history_beyond_the_limit_goes() {
    let world = world(&[]);
    let mut d = deployment("d", "v1", 1);
    d["spec"]["revisionHistoryLimit"] = 2.into();
    world.store.create(&deployments("d"), d).unwrap();
    for n in 0..5 {
        until_rolled_out(&world.store, "d").await;
        change(&world.store, &deployments("d"), Write::Spec, |d| {
            d["spec"]["template"]["metadata"]["annotations"] = json!({"n": n.to_string()});
        });
    }
    until_rolled_out(&world.store, "d").await;
    until(&world.store, "three sets", LONG, || (list(&world.store, "apps", "replicasets").len() == 3).then_some(())).await;
    let mut revisions: Vec<String> = list(&world.store, "apps", "replicasets")
        .iter()
        .map(|s| s["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str().unwrap().to_owned())
        .collect();
    revisions.sort();
    assert_eq!(revisions, ["4", "5", "6"]);
}

#[tokio::test(start_paused = true)]
async fn pods_are_adopted_released_and_replaced() {
    let world = world(&[]);
    world.store.create(&deployments("d"), deployment("d", "v1", 2)).unwrap();
    until_rolled_out(&world.store, "d").await;
    let [set] = list(&world.store, "apps", "replicasets").try_into().unwrap();
    let first = pods(&world.store)[0].clone();
    let key = Key::namespaced("", "pods", "default", first["metadata"]["name"].as_str().unwrap());
    change(&world.store, &key, Write::Spec, |p| p["metadata"]["labels"]["version"] = "mine".into());
    until(&world.store, "released and replaced", LONG, || {
        let released = world.store.get(&key)?["metadata"].get("ownerReferences").is_none();
        (released && pods(&world.store).iter().filter(|p| is_ready(p)).count() == 3).then_some(())
    })
    .await;
    change(&world.store, &key, Write::Spec, |p| p["metadata"]["labels"] = set["spec"]["template"]["metadata"]["labels"].clone());
    // Adopted again, and one too many: one of the three goes.
    until(&world.store, "two again", LONG, || (pods(&world.store).len() == 2).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_ready_pods_and_leave_at_once_when_they_are_to_end() {
    let slow = Manner { ready_after: Some(Duration::from_millis(500)), ends_after: Duration::from_secs(60) };
    let world = world(&[("registry/d:v1", slow)]);
    world.store.create(&service("my-app"), my_service()).unwrap();
    world.store.create(&deployments("d"), deployment("d", "v1", 2)).unwrap();
    until_rolled_out(&world.store, "d").await;
    let slice = || -> Option<Value> {
        let [slice] = list(&world.store, "discovery.k8s.io", "endpointslices").try_into().ok()?;
        Some((*slice).clone())
    };
    let ready = |slice: &Value| slice["endpoints"].as_array().unwrap().iter().filter(|e| e["conditions"]["ready"] == true).count();
    let found = until(&world.store, "two ready", LONG, || slice().filter(|s| ready(s) == 2)).await;
    assert_eq!(found["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(found["metadata"]["labels"]["kubernetes.io/service-name"], "my-app");

    let pod = pods(&world.store)[0].clone();
    let key = Key::namespaced("", "pods", "default", pod["metadata"]["name"].as_str().unwrap());
    world.store.delete(&key, None, 30).unwrap();
    let found = until(&world.store, "one leaves", Duration::from_secs(1), || {
        slice().filter(|s| s["endpoints"].as_array().unwrap().iter().any(|e| e["conditions"]["terminating"] == true))
    })
    .await;
    let leaving = found["endpoints"].as_array().unwrap().iter().find(|e| e["conditions"]["terminating"] == true).unwrap().clone();
    assert_eq!(leaving["conditions"], json!({"ready": false, "serving": true, "terminating": true}));
    assert_eq!(leaving["targetRef"]["uid"], pod["metadata"]["uid"]);

    // Named ports are looked up in each pod; a service without pods has an empty slice.
    change(&world.store, &service("my-app"), Write::Spec, |s| s["spec"]["selector"] = json!({"app": "nobody"}));
    until(&world.store, "empty", LONG, || slice().filter(|s| s["endpoints"] == json!([]))).await;
}

#[tokio::test(start_paused = true)]
async fn dependents_go_after_their_owner_in_each_manner() {
    let world = world(&[]);
    let start = |name: &str| {
        let mut d = deployment(name, name, 2);
        d["metadata"]["labels"] = json!({});
        world.store.create(&deployments(name), d).unwrap()
    };
    let mine = |name: &str| pods(&world.store).iter().filter(|p| p["metadata"]["labels"]["version"] == name).count();

    start("background");
    until_rolled_out(&world.store, "background").await;
    world.store.delete(&deployments("background"), None, 0).unwrap();
    until(&world.store, "background", LONG, || (mine("background") == 0).then_some(())).await;

    start("foreground");
    until_rolled_out(&world.store, "foreground").await;
    change(&world.store, &deployments("foreground"), Write::Spec, |d| d["metadata"]["finalizers"] = json!(["foregroundDeletion"]));
    world.store.delete(&deployments("foreground"), None, 0).unwrap();
    until(&world.store, "foreground", LONG, || {
        let owner = world.store.get(&deployments("foreground")).is_some();
        assert!(owner || mine("foreground") == 0, "the owner went before its pods");
        (!owner).then_some(())
    })
    .await;

    start("orphan");
    until_rolled_out(&world.store, "orphan").await;
    change(&world.store, &deployments("orphan"), Write::Spec, |d| d["metadata"]["finalizers"] = json!(["orphan"]));
    world.store.delete(&deployments("orphan"), None, 0).unwrap();
    until(&world.store, "orphan", LONG, || world.store.get(&deployments("orphan")).is_none().then_some(())).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(mine("orphan"), 2);
    let [set] = list(&world.store, "apps", "replicasets").try_into().unwrap();
    assert_eq!(set["metadata"].get("ownerReferences"), None);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_when_all_in_it_is_gone() {
    let world = world(&[]);
    let key = Key::cluster("", "namespaces", "default");
    world.store.create(&key, json!({"spec": {"finalizers": ["kubernetes"]}, "metadata": {"finalizers": ["kubernetes"]}})).unwrap();
    world.store.create(&deployments("d"), deployment("d", "v1", 2)).unwrap();
    world.store.create(&service("my-app"), my_service()).unwrap();
    let job =
        json!({"spec": {"completions": 1, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}}});
    world.store.create(&Key::namespaced("batch", "jobs", "default", "j"), job).unwrap();
    until_rolled_out(&world.store, "d").await;
    until(&world.store, "the job runs", LONG, || (pods(&world.store).iter().filter(|p| is_ready(p)).count() == 3).then_some(())).await;
    world.store.delete(&key, None, 0).unwrap();
    until(&world.store, "gone", LONG, || world.store.get(&key).is_none().then_some(())).await;
    for resource in world.store.resources() {
        assert_eq!(world.store.list(&resource, Some("default")).0.len(), 0, "{resource}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_world_at_rest_writes_nothing() {
    let world = world(&[]);
    world
        .store
        .create(
            &Key::namespaced("autoscaling", "horizontalpodautoscalers", "default", "h"),
            json!({"spec": {"scaleTargetRef": {"name": "d"}}}),
        )
        .unwrap();
    world.store.create(&Key::namespaced("batch", "cronjobs", "default", "c"), json!({"spec": {"schedule": "* * * * *"}})).unwrap();
    world.store.create(&service("my-app"), my_service()).unwrap();
    world.store.create(&deployments("d"), deployment("d", "v1", 3)).unwrap();
    until_rolled_out(&world.store, "d").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let version = world.store.version();
    tokio::time::sleep(LONG).await;
    assert_eq!(world.store.version(), version);
    let events = list(&world.store, "", "events");
    assert!(events.iter().any(|e| e["reason"] == "NotSupported" && e["involvedObject"]["kind"] == "CronJob"));
}

#[tokio::test(start_paused = true)]
async fn scaling_in_the_middle_of_a_rollout_grows_both_versions_and_still_ends() {
    let never = Manner { ready_after: None, ends_after: Duration::from_secs(1) };
    let world = world(&[("registry/d:bad", never)]);
    let mut d = deployment("d", "v1", 10);
    d["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
    world.store.create(&deployments("d"), d).unwrap();
    until_rolled_out(&world.store, "d").await;
    change(&world.store, &deployments("d"), Write::Spec, |d| {
        d["spec"]["template"]["spec"]["containers"][0]["image"] = "registry/d:bad".into()
    });
    let sizes = || {
        let mut all: Vec<i64> = list(&world.store, "apps", "replicasets").iter().map(|s| s["spec"]["replicas"].as_i64().unwrap()).collect();
        all.sort_unstable();
        all
    };
    // The example of Kubernetes' documentation: 8 and 5 of 10 become 11 and 7 of 15.
    until(&world.store, "stuck at 8 and 5", LONG, || (sizes() == [5, 8]).then_some(())).await;
    change(&world.store, &deployments("d"), Write::Spec, |d| d["spec"]["replicas"] = 15.into());
    until(&world.store, "11 and 7", LONG, || (sizes() == [7, 11]).then_some(())).await;
    change(&world.store, &deployments("d"), Write::Spec, |d| {
        d["spec"]["template"]["spec"]["containers"][0]["image"] = "registry/d:v1".into()
    });
    until_rolled_out(&world.store, "d").await;
    assert_eq!(sizes(), [0, 15]);
}
