//! Kubernetes Events: one object per thing said about an object, counted when it is said again.
//!
//! It keeps the latest few thousand and no more; nothing in the lab reads them back.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::object::{name, namespace, text, uid};
use crate::store::{Key, Store, Write, seconds};

/// A real cluster keeps events for an hour; the lab keeps this many, some 1 KB each.
const KEPT: usize = 4_000;

/// Who says something, and where it goes.
#[derive(Clone)]
pub struct Recorder {
    store: Store,
    said: Arc<Mutex<Said>>,
}

#[derive(Default)]
struct Said {
    /// Where the event of a saying is kept.
    by_saying: HashMap<Saying, Key>,
    order: VecDeque<Saying>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Saying {
    uid: String,
    field: String,
    component: &'static str,
    reason: String,
    message: String,
}

/// What an event is about: the object, its kind, and within it the field.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// The object.
    pub object: &'a Value,
    /// `apps/v1` and the like.
    pub api_version: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// The part of it, such as `spec.containers{app}`; empty for the whole.
    pub field: &'a str,
}

impl<'a> About<'a> {
    /// A whole object.
    pub fn whole(api_version: &'a str, kind: &'a str, object: &'a Value) -> Self {
        Self { object, api_version, kind, field: "" }
    }
}

impl Recorder {
    /// Writes into the store.
    pub fn new(store: Store) -> Self {
        Self { store, said: Arc::default() }
    }

    /// Something went as it should.
    pub fn normal(&self, component: &'static str, about: About<'_>, reason: &str, message: &str) {
        self.record(component, about, "Normal", reason, message);
    }

    /// Something went wrong.
    pub fn warning(&self, component: &'static str, about: About<'_>, reason: &str, message: &str) {
        self.record(component, about, "Warning", reason, message);
    }

    fn record(&self, component: &'static str, about: About<'_>, kind: &str, reason: &str, message: &str) {
        let saying =
            Saying { uid: uid(about.object).into(), field: about.field.into(), component, reason: reason.into(), message: message.into() };
        let now = seconds((self.store.clock())());
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = said.by_saying.get(&saying) {
            let again = self.store.update(key, Write::Whole, |event| {
                let mut event = event.clone();
                event["count"] = (event["count"].as_i64().unwrap_or(1) + 1).into();
                event["lastTimestamp"] = now.as_str().into();
                Ok::<_, crate::store::StoreError>(event)
            });
            if again.is_ok() {
                return;
            }
            // Somebody deleted it: it is said anew.
            said.by_saying.remove(&saying);
            said.order.retain(|other| *other != saying);
        }
        let place = match namespace(about.object) {
            "" => "default",
            place => place,
        };
        let id = format!("{}.{}{}{}", name(about.object), super::object::suffix(), super::object::suffix(), super::object::suffix());
        let key = Key::namespaced("", "events", place, &id);
        let mut involved = json!({
            "apiVersion": about.api_version, "kind": about.kind, "name": name(about.object), "uid": uid(about.object),
            "resourceVersion": text(about.object, "/metadata/resourceVersion"),
        });
        if !namespace(about.object).is_empty() {
            involved["namespace"] = namespace(about.object).into();
        }
        if !about.field.is_empty() {
            involved["fieldPath"] = about.field.into();
        }
        let mut source = json!({"component": component});
        if component == "kubelet" {
            source["host"] = super::node::NAME.into();
        }
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {}, "involvedObject": involved, "type": kind,
            "reason": reason, "message": message, "source": source, "count": 1, "firstTimestamp": now,
            "lastTimestamp": now, "eventTime": null, "reportingComponent": component, "reportingInstance": "",
        });
        if self.store.create(&key, event).is_err() {
            return;
        }
        said.by_saying.insert(saying.clone(), key);
        said.order.push_back(saying);
        while said.order.len() > KEPT {
            let Some(oldest) = said.order.pop_front() else { break };
            if let Some(key) = said.by_saying.remove(&oldest) {
                // Deleted by somebody else is as good.
                let _ = self.store.delete(&key, None, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Resource;

    #[test]
    fn what_is_said_again_is_counted() {
        let store = Store::new(Arc::new(|| jiff::Timestamp::UNIX_EPOCH));
        let recorder = Recorder::new(store.clone());
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}});
        let about = About::whole("v1", "Pod", &pod);
        recorder.normal("kubelet", about, "Started", "x");
        recorder.normal("kubelet", about, "Started", "x");
        recorder.warning("kubelet", about, "BackOff", "y");
        let (events, _) = store.list(&Resource::new("", "events"), Some("n"));
        let mut counts: Vec<_> = events.iter().map(|e| (text(e, "/reason"), e["count"].as_i64())).collect();
        counts.sort_unstable();
        assert_eq!(counts, [("BackOff", Some(1)), ("Started", Some(2))]);
    }
}
