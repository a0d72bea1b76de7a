//! The kubelet and the scheduler of the lab's one node: a Pod becomes processes of this machine.
//!
//! One task per pod (`pod`), one per container within it (`container`). It reads pods from a watch and writes nothing
//! but their binding and status, and events. Volumes, resources, users and namespaces of the kernel do not exist here.

pub mod backoff;
pub mod container;
pub mod env;
pub mod health;
pub mod images;
pub mod ip;
pub mod logs;
pub mod pod;
pub mod probe;
pub mod process;
pub mod status;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::WorkloadConfig;
use super::events::{About, Recorder};
use super::object::{deleting, edit, items, labels, name, namespace, pod_finished, selects_map, text, uid};
use crate::store::{EventKind, Key, Object, Resource, Store, Write};
use pod::Seen;

const COMPONENT: &str = "kubelet";

/// A pod with this annotation is played by another part of the lab (the mesh's own caller and gateway): the kubelet
/// starts nothing for it and leaves its status alone. The name is that of Kubernetes' mirror pods.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Containers that the mesh plays: they count as running and ready, and have no process.
pub const NOT_RUN: [&str; 3] = ["istio-proxy", "istio-init", "istio-validation"];

/// What the tasks of the kubelet share.
pub struct Kubelet {
    /// All objects.
    pub store: Store,
    /// Where events go.
    pub events: Recorder,
    /// How this lab runs pods.
    pub config: WorkloadConfig,
}

impl Kubelet {
    fn now(&self) -> jiff::Timestamp {
        (self.store.clock())()
    }

    /// The numeric target ports of the Services that select a pod.
    fn service_targets(&self, pod: &Value) -> Vec<u16> {
        let services = self.store.list(&Resource::new("", "services"), Some(namespace(pod))).0;
        let fitting = services.iter().filter(|s| selects_map(s.pointer("/spec/selector"), labels(pod)));
        let target = |port: &Value| match port.get("targetPort") {
            None | Some(Value::Null) => port["port"].as_u64(),
            Some(Value::String(name)) => name.parse().ok(),
            Some(number) => number.as_u64(),
        };
        fitting
            .flat_map(|s| items(s, "/spec/ports"))
            .filter(|port| matches!(text(port, "/protocol"), "" | "TCP"))
            // Below 1024 a plain process may not bind.
            .filter_map(|port| u16::try_from(target(port)?).ok().filter(|p| *p >= 1024))
            .collect()
    }
}

/// Runs all pods until told to stop; then kills every process and returns when the last one is gone.
pub async fn run(kubelet: Arc<Kubelet>, stop: CancellationToken) {
    let mut pods: HashMap<String, watch::Sender<Seen>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let resource = Resource::new("", "pods");
    'list: loop {
        let from = kubelet.store.version();
        let present = kubelet.store.list(&resource, None).0;
        let there: std::collections::HashSet<&str> = present.iter().map(|p| uid(p)).collect();
        for (uid, pod) in &pods {
            if !there.contains(uid.as_str()) {
                pod.send_replace(Seen::Gone);
            }
        }
        for object in &present {
            notice(&kubelet, &mut pods, &mut tasks, &stop, object);
        }
        let Ok(mut watch) = kubelet.store.watch(Some(resource.clone()), None, Some(from)) else { continue };
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break 'list,
                event = watch.next() => match event {
                    Ok(event) => match event.kind {
                        EventKind::Added | EventKind::Modified => notice(&kubelet, &mut pods, &mut tasks, &stop, &event.object),
                        EventKind::Deleted => {
                            if let Some(pod) = pods.get(uid(&event.object)) {
                                pod.send_replace(Seen::Gone);
                            }
                        }
                    },
                    Err(_) => continue 'list,
                },
                Some(ended) = tasks.join_next() => match ended {
                    Ok(uid) => drop(pods.remove(&uid)),
                    Err(error) => tracing::error!(%error, "a pod's task"),
                },
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Takes in a pod as it is now: binds it, starts it, or passes the change on.
fn notice(
    kubelet: &Arc<Kubelet>,
    pods: &mut HashMap<String, watch::Sender<Seen>>,
    tasks: &mut JoinSet<String>,
    stop: &CancellationToken,
    object: &Object,
) {
    let key = Key::namespaced("", "pods", namespace(object), name(object));
    if let Some(pod) = pods.get(uid(object)) {
        pod.send_replace(Seen::There(object.clone()));
        return;
    }
    if status::mirrored(object) {
        if deleting(object) {
            // Nobody else would let it go. Gone already is as good.
            let _ = kubelet.store.delete(&key, Some(uid(object)), 0);
        }
        return;
    }
    match text(object, "/spec/nodeName") {
        "" if deleting(object) => {
            let _ = kubelet.store.delete(&key, Some(uid(object)), 0);
        }
        "" if pod_finished(object) || !items(object, "/spec/schedulingGates").is_empty() => {}
        "" => bind(kubelet, &key, object),
        super::node::NAME => {
            let (tell, seen) = watch::channel(Seen::There(object.clone()));
            let mut seen = seen;
            if deleting(object) {
                // Its task is to see this as a change.
                seen.mark_changed();
            }
            let id = uid(object).to_owned();
            pods.insert(id.clone(), tell);
            let task = pod::run(kubelet.clone(), key, object.clone(), seen, stop.clone());
            tasks.spawn(async move {
                task.await;
                id
            });
        }
        // Another node's, which does not exist.
        _ => {}
    }
}

/// There is one node, and it has room.
fn bind(kubelet: &Kubelet, key: &Key, object: &Value) {
    let bound = edit(&kubelet.store, key, uid(object), Write::Spec, |pod| {
        pod["spec"]["nodeName"] = super::node::NAME.into();
    });
    if bound.is_some() {
        let message = format!("Successfully assigned {}/{} to {}", namespace(object), name(object), super::node::NAME);
        kubelet.events.normal("default-scheduler", About::whole("v1", "Pod", object), "Scheduled", &message);
    }
}
