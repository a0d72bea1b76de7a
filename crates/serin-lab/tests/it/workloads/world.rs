//! What the tests of workloads share: objects, a clock that follows tokio's, waiting for conditions, a played kubelet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use serin_lab::store::{Clock, Key, Object, Resource, Store, StoreError, Write, seconds};
use tokio_util::sync::CancellationToken;

/// Wall time that moves with tokio's clock, paused or not.
pub(super) fn clock() -> Clock {
    let (start, wall) = (tokio::time::Instant::now(), jiff::Timestamp::from_second(1_700_000_000).unwrap());
    Arc::new(move || wall + jiff::SignedDuration::try_from(start.elapsed()).unwrap())
}

pub(super) fn deployments(name: &str) -> Key {
    Key::namespaced("apps", "deployments", "default", name)
}

pub(super) fn service(name: &str) -> Key {
    Key::namespaced("", "services", "default", name)
}

/// A Deployment as the article writes one.
pub(super) fn deployment(name: &str, version: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"labels": {"app": "my-app"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "my-app", "version": version}},
            "template": {
                "metadata": {"labels": {"app": "my-app", "version": version}},
                "spec": {"containers": [{
                    "name": "my-app", "image": format!("registry/{name}:{version}"), "ports": [{"containerPort": 8080}],
                }]},
            },
        },
    })
}

pub(super) fn my_service() -> Value {
    json!({"spec": {"selector": {"app": "my-app"}, "ports": [{"port": 80, "targetPort": 8080, "name": "http"}]}})
}

pub(super) fn list(store: &Store, group: &str, plural: &str) -> Vec<Object> {
    store.list(&Resource::new(group, plural), Some("default")).0
}

pub(super) fn pods(store: &Store) -> Vec<Object> {
    list(store, "", "pods")
}

pub(super) fn change(store: &Store, key: &Key, write: Write, change: impl FnOnce(&mut Value)) -> Object {
    store
        .update(key, write, |old| {
            let mut new = old.clone();
            change(&mut new);
            Ok::<_, StoreError>(new)
        })
        .unwrap_or_else(|e| panic!("{key:?}: {e}"))
}

/// Waits until something holds, looking at each change; fails with the last state after `limit` of tokio's time.
pub(super) async fn until<T>(store: &Store, what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            let mut watch = store.watch(None, None, None).unwrap();
            if let Some(found) = look() {
                return found;
            }
            // Time alone may make it true as well.
            let _ = tokio::time::timeout(Duration::from_millis(100), watch.next()).await;
        }
    };
    match tokio::time::timeout(limit, wait).await {
        Ok(found) => found,
        Err(_) => panic!("not within {limit:?}: {what}\n{}", dump(store)),
    }
}

/// All objects but events, short.
pub(super) fn dump(store: &Store) -> String {
    let mut text = String::new();
    for resource in store.resources().into_iter().filter(|r| r.plural != "nodes") {
        for object in store.list(&resource, None).0 {
            let said = match resource.plural.as_str() {
                "events" => format!("{} {}", object["reason"], object["message"]),
                _ => format!(
                    "spec.replicas {} status {} meta {}",
                    object["spec"]["replicas"], object["status"], object["metadata"]["deletionTimestamp"]
                ),
            };
            text += &format!("{resource} {}: {said}\n", object["metadata"]["name"]);
        }
    }
    text
}

pub(super) fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// How the played kubelet treats the pods of an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) ready_after: Option<Duration>,
    pub(super) ends_after: Duration,
}

/// Plays a node: pods become ready, and go, as their image's manner says.
pub(super) fn play_kubelet(store: Store, manners: HashMap<String, Manner>, stop: CancellationToken) {
    // Before the controllers run for the first time.
    let mut watch = store.watch(Some(Resource::new("", "pods")), None, Some(store.version())).unwrap();
    tokio::spawn(async move {
        let mut seen: HashMap<String, bool> = HashMap::new();
        let mut ip = 1u8;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = watch.next() => event.unwrap(),
            };
            let pod = event.object.clone();
            let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
            let manner = *manners
                .get(&image)
                .unwrap_or(&Manner { ready_after: Some(Duration::from_millis(500)), ends_after: Duration::from_secs(1) });
            let ending = pod["metadata"].get("deletionTimestamp").is_some();
            let known = seen.get(&uid).copied();
            if event.kind == serin_lab::store::EventKind::Deleted || known == Some(true) || known == Some(false) && !ending {
                continue;
            }
            seen.insert(uid.clone(), ending);
            let (store, key) = (store.clone(), event.key.clone());
            ip = ip.wrapping_add(1);
            let address = format!("127.0.1.{ip}");
            tokio::spawn(async move {
                if ending {
                    tokio::time::sleep(manner.ends_after).await;
                    let _ = store.delete(&key, Some(&uid), 0);
                    return;
                }
                if let Some(time) = manner.ready_after {
                    tokio::time::sleep(time).await;
                    let now = seconds((store.clock())());
                    let _ = store.update(&key, Write::Status, |pod| {
                        let mut pod = pod.clone();
                        pod["status"] = json!({
                            "phase": "Running", "podIP": address,
                            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
                        });
                        Ok::<_, StoreError>(pod)
                    });
                }
            });
        }
    });
}
