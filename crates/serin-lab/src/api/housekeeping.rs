//! What a server does without being asked: serves CRDs however they came into the store, and forgets old events.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Api, crd};
use crate::store::{EventKind, Key, Resource};

/// How long events are kept, as by Kubernetes' default.
const EVENT_LIFE: Duration = Duration::from_secs(3600);
/// How often old ones are looked for. Twice as long only keeps them a little longer.
const SWEEP: Duration = Duration::from_secs(300);

impl Api {
    /// Runs until `stop`. The API answers without it; only what is said above then does not happen.
    pub async fn run(&self, stop: CancellationToken) {
        let definitions = Resource::new("apiextensions.k8s.io", "customresourcedefinitions");
        loop {
            let (present, version) = self.store().list(&definitions, None);
            present.iter().for_each(|definition| crd::serve(self, definition));
            let Ok(mut changes) = self.store().watch(Some(definitions.clone()), None, Some(version)) else { continue };
            let mut sweep = tokio::time::interval(SWEEP);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = sweep.tick() => self.forget_events(),
                    change = changes.next() => match change {
                        Ok(change) if change.kind == EventKind::Deleted => {
                            // One of the same name may be there again.
                            if self.store().get(&change.key).is_none() {
                                crd::forget(self, &change.object);
                            }
                        }
                        Ok(change) => crd::serve(self, &change.object),
                        Err(_) => break,
                    },
                }
            }
        }
    }

    fn forget_events(&self) {
        let before = (self.store().clock())() - EVENT_LIFE;
        let resource = Resource::new("", "events");
        for event in self.store().list(&resource, None).0 {
            let meta = &event["metadata"];
            let times = [&event["series"]["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"], &meta["creationTimestamp"]];
            let last = times.iter().find_map(|t| t.as_str()?.parse::<jiff::Timestamp>().ok());
            if last.is_none_or(|last| last >= before) {
                continue;
            }
            let key = Key {
                resource: resource.clone(),
                namespace: meta["namespace"].as_str().map(Into::into),
                name: meta["name"].as_str().unwrap_or_default().into(),
            };
            // Gone already is as good.
            let _ = self.store().delete(&key, meta["uid"].as_str(), 0);
        }
    }
}
