//! What the cluster holds, kept current by watches: one cache per kind, projected to what a look needs.
//!
//! Deliberately reads no pod specs and polls nothing. Istio's objects stay as the JSON they came as, since patches are cut from it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::Value;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Serin's own.
    Release,
    /// `apps/v1`.
    Deployment,
    /// `v1`.
    Service,
    /// `discovery.k8s.io/v1`.
    EndpointSlice,
    /// Istio's routes.
    VirtualService,
    /// Istio's subsets.
    DestinationRule,
    /// `autoscaling/v2`.
    Autoscaler,
    /// Pods with a proxy, for the source that reads proxies.
    Pod,
}

/// Every kind, in the order in which their watches begin.
pub const KINDS: [Kind; 8] = [
    Kind::Release,
    Kind::Service,
    Kind::Deployment,
    Kind::EndpointSlice,
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::Autoscaler,
    Kind::Pod,
];

/// Namespace and name.
pub type Key = (String, String);

type Objects = BTreeMap<Key, Arc<Value>>;

#[derive(Default)]
struct Cache {
    objects: Objects,
    ready: bool,
}

/// The caches of all kinds; clones share them.
#[derive(Clone)]
pub struct Cluster {
    caches: Arc<Mutex<HashMap<Kind, Cache>>>,
    changed: broadcast::Sender<Change>,
}

/// What changed: everything of a namespace is to be looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The namespace; `None`: all.
    pub namespace: Option<String>,
}

impl Cluster {
    /// Empty caches, and the tasks that fill them until `stop`.
    pub fn watch(client: &kube::Client, namespace: Option<String>, istio: &str, stop: &CancellationToken) -> Self {
        let cluster = Self { caches: Arc::default(), changed: broadcast::channel(4096).0 };
        for kind in KINDS {
            let (client, cluster, stop, namespace) = (client.clone(), cluster.clone(), stop.clone(), namespace.clone());
            let resource = resource(kind, istio);
            tokio::spawn(async move {
                tokio::select! {
                    () = cluster.fill(kind, client, resource, namespace) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        cluster
    }

    async fn fill(&self, kind: Kind, client: kube::Client, resource: ApiResource, namespace: Option<String>) {
        let api: Api<DynamicObject> = match &namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut fresh = Objects::new();
        loop {
            match events.try_next().await {
                Ok(None) => return,
                Err(error) => tracing::debug!(?kind, %error, "watch"),
                Ok(Some(watcher::Event::Init)) => fresh.clear(),
                Ok(Some(watcher::Event::InitApply(object))) => {
                    let (key, value) = projected(kind, object);
                    fresh.insert(key, value);
                }
                Ok(Some(watcher::Event::InitDone)) => {
                    let mut caches = self.lock();
                    let cache = caches.entry(kind).or_default();
                    cache.objects = std::mem::take(&mut fresh);
                    cache.ready = true;
                    drop(caches);
                    self.tell(None);
                }
                Ok(Some(watcher::Event::Apply(object))) => {
                    let (key, value) = projected(kind, object);
                    let namespace = key.0.clone();
                    self.lock().entry(kind).or_default().objects.insert(key, value);
                    self.tell(Some(namespace));
                }
                Ok(Some(watcher::Event::Delete(object))) => {
                    let (key, _) = projected(kind, object);
                    self.lock().entry(kind).or_default().objects.remove(&key);
                    self.tell(Some(key.0));
                }
            }
        }
    }

    /// Whether the kind's objects have been listed.
    pub fn ready(&self, kind: Kind) -> bool {
        self.lock().get(&kind).is_some_and(|c| c.ready)
    }

    /// One object.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.lock().get(&kind)?.objects.get(&(namespace.to_string(), name.to_string())).cloned()
    }

    /// All objects of a kind in a namespace, or in all.
    pub fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let caches = self.lock();
        let all = caches.get(&kind).into_iter().flat_map(|c| &c.objects);
        all.filter(|((ns, _), _)| namespace.is_none_or(|n| n == ns)).map(|(_, o)| o.clone()).collect()
    }

    /// The keys of a kind.
    pub fn keys(&self, kind: Kind) -> Vec<Key> {
        self.lock().get(&kind).into_iter().flat_map(|c| c.objects.keys().cloned()).collect()
    }

    /// Changes from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changed.subscribe()
    }

    fn tell(&self, namespace: Option<String>) {
        // Nobody listening is no error.
        let _ = self.changed.send(Change { namespace });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Kind, Cache>> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a kind is served.
pub fn resource(kind: Kind, istio: &str) -> ApiResource {
    let (group, version, kind, plural) = match kind {
        Kind::Release => (serin_api::names::GROUP, serin_api::names::VERSION, serin_api::names::KIND, serin_api::names::PLURAL),
        Kind::Deployment => ("apps", "v1", "Deployment", "deployments"),
        Kind::Service => ("", "v1", "Service", "services"),
        Kind::EndpointSlice => ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        Kind::VirtualService => ("networking.istio.io", istio, "VirtualService", "virtualservices"),
        Kind::DestinationRule => ("networking.istio.io", istio, "DestinationRule", "destinationrules"),
        Kind::Autoscaler => ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
        Kind::Pod => ("", "v1", "Pod", "pods"),
    };
    let api_version = if group.is_empty() { version.to_string() } else { format!("{group}/{version}") };
    ApiResource { group: group.into(), version: version.into(), api_version, kind: kind.into(), plural: plural.into() }
}

/// What is kept of an object: the route's managed fields, and of pods only name, address and phase.
fn projected(kind: Kind, object: DynamicObject) -> (Key, Arc<Value>) {
    let key = (object.metadata.namespace.clone().unwrap_or_default(), object.metadata.name.clone().unwrap_or_default());
    let mut value = serde_json::to_value(object).unwrap_or_default();
    let keeps_managers = matches!(kind, Kind::VirtualService | Kind::Deployment);
    if !keeps_managers && let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        metadata.remove("managedFields");
    }
    if kind == Kind::Pod {
        let names = |list: &str| {
            let containers = value.pointer(&format!("/spec/{list}")).and_then(Value::as_array).into_iter().flatten();
            containers.filter_map(|c| c["name"].as_str()).any(|n| n == "istio-proxy")
        };
        let proxy = names("containers") || names("initContainers");
        value = serde_json::json!({
            "metadata": {"name": value["metadata"]["name"], "namespace": value["metadata"]["namespace"]},
            "proxy": proxy, "ip": value["status"]["podIP"], "phase": value["status"]["phase"], "started": value["status"]["startTime"],
        });
    }
    (key, Arc::new(value))
}
