//! What the demo saw of the release and its route, with times: the raw material of the summary.
//!
//! Only watches, as any client can.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt, watcher};
use serde::Serialize;
use serin_api::CanaryReleaseStatus;
use serin_core::route::{self, ServiceName};
use serin_lab::mesh::traffic::Traffic;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::cmd::get::changes_of;

/// A status as it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// When, since the traffic began.
    pub(crate) at: Duration,
    /// The status.
    pub(crate) status: CanaryReleaseStatus,
}

/// The weights of the route, as they were seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Weights {
    /// When, since the traffic began.
    pub(crate) at: Duration,
    /// Share of each subset, from 0 to 1.
    pub(crate) shares: BTreeMap<String, f64>,
}

/// All of it.
#[derive(Clone)]
pub(crate) struct Record {
    statuses: Arc<Mutex<Vec<Seen>>>,
    weights: Arc<Mutex<Vec<Weights>>>,
    changed: watch::Receiver<u64>,
}

impl Record {
    /// Begins to watch the release `name` and the VirtualService of the same name.
    pub(crate) fn start(cluster: &Cluster, name: &str, traffic: &Traffic) -> Self {
        let (tell, changed) = watch::channel(0_u64);
        let tell = Arc::new(tell);
        let record = Self { statuses: Arc::default(), weights: Arc::default(), changed };
        tokio::spawn(watch_release(cluster.clone(), name.to_string(), traffic.clone(), Arc::clone(&record.statuses), Arc::clone(&tell)));
        tokio::spawn(watch_route(cluster.clone(), name.to_string(), traffic.clone(), Arc::clone(&record.weights), tell));
        record
    }

    /// The statuses so far.
    pub(crate) fn statuses(&self) -> Vec<Seen> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The weights so far.
    pub(crate) fn weights(&self) -> Vec<Weights> {
        self.weights.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last status.
    pub(crate) fn last(&self) -> Option<Seen> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    /// Waits for a status that fits; `None`: none came in time.
    pub(crate) async fn wait(&self, most: Duration, mut fits: impl FnMut(&CanaryReleaseStatus) -> bool) -> Option<Seen> {
        let mut changed = self.changed.clone();
        let search = async {
            loop {
                if let Some(seen) = self.last().filter(|s| fits(&s.status)) {
                    return Some(seen);
                }
                changed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(most, search).await.ok().flatten()
    }
}

async fn watch_release(cluster: Cluster, name: String, traffic: Traffic, into: Arc<Mutex<Vec<Seen>>>, tell: Arc<watch::Sender<u64>>) {
    let changes = changes_of(cluster.releases(), &name);
    pin_mut!(changes);
    while let Some(change) = changes.next().await {
        let Ok(release) = change else { continue };
        let Some(status) = release.status else { continue };
        let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.last().is_none_or(|s| s.status != status) {
            seen.push(Seen { at: traffic.now(), status });
        }
        drop(seen);
        tell.send_modify(|n| *n += 1);
    }
}

async fn watch_route(cluster: Cluster, name: String, traffic: Traffic, into: Arc<Mutex<Vec<Weights>>>, tell: Arc<watch::Sender<u64>>) {
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("networking.istio.io", "v1", "VirtualService"), "virtualservices");
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource);
    let service = ServiceName::new(&name, &cluster.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let changes = watcher(api, config).default_backoff().applied_objects();
    pin_mut!(changes);
    while let Some(change) = changes.next().await {
        let Ok(object) = change else { continue };
        let at = traffic.now();
        let vs = serde_json::to_value(&object).unwrap_or_default();
        let splits = route::look(&vs, &service, None).splits;
        let Some(split) = splits.first() else { continue };
        let shares: BTreeMap<String, f64> = split.subsets().into_iter().map(|s| (s.to_string(), split.share_of(s).fraction())).collect();
        let mut weights = into.lock().unwrap_or_else(PoisonError::into_inner);
        if weights.last().is_none_or(|w| w.shares != shares) {
            weights.push(Weights { at, shares });
        }
        drop(weights);
        tell.send_modify(|n| *n += 1);
    }
}
