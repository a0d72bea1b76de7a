//! What the mesh has to say about objects, as Events on them: what the lab does not play, and what Envoy refused.
//!
//! Deliberately decides nothing: complaints come from `translate`, refusals from `session`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::session::Type;
use super::translate::Complaint;
use super::world::text;
use crate::store::{Key, Object, Resource, Store, StoreError, Write, seconds};

const ISTIO: &str = "networking.istio.io";

/// An object: kind, namespace, name.
type Subject = (String, String, String);

/// What was told of each object, so that it is told once.
#[derive(Default)]
pub(super) struct Told(BTreeMap<Subject, String>);

impl Told {
    /// Puts what the lab does not play of an object into one Event on it, unless that was said already.
    pub(super) fn tell(&mut self, store: &Store, complaints: &[Complaint]) {
        let mut now: BTreeMap<Subject, String> = BTreeMap::new();
        for complaint in complaints {
            let said = now.entry((complaint.kind.clone(), complaint.namespace.clone(), complaint.name.clone())).or_default();
            if !said.is_empty() {
                said.push_str("; ");
            }
            said.push_str(&complaint.what);
        }
        for (subject, message) in &now {
            if self.0.get(subject) != Some(message) {
                event(store, subject, "NotPlayed", message);
            }
        }
        self.0 = now;
    }
}

/// Envoy's refusal of an update, told on the objects that changed since it took one (`taken`, a version of the store): one of
/// them is the cause. Where none changed, on all of the kind.
pub(super) fn refused(store: &Store, refused: Type, error: &str, taken: u64) {
    tracing::warn!(?refused, error, "Envoy refused the update; the old configuration goes on");
    let (kind, plural) = match refused {
        Type::Cluster | Type::Endpoint => ("DestinationRule", "destinationrules"),
        Type::Listener => ("Gateway", "gateways"),
        Type::Route => ("VirtualService", "virtualservices"),
    };
    let all = store.list(&Resource::new(ISTIO, plural), None).0;
    let newer = |o: &&Object| text(o, "/metadata/resourceVersion").parse::<u64>().is_ok_and(|v| v > taken);
    let mut suspects: Vec<&Object> = all.iter().filter(newer).collect();
    if suspects.is_empty() {
        suspects = all.iter().collect();
    }
    for object in suspects {
        let subject = (kind.to_string(), text(object, "/metadata/namespace").to_string(), text(object, "/metadata/name").to_string());
        event(store, &subject, "Refused", &format!("Envoy refused the update, and what it had before goes on: {error}"));
    }
}

/// An Event about an object; the same again counts up.
pub(super) fn event(store: &Store, (kind, namespace, name): &Subject, reason: &str, message: &str) {
    let now = seconds((store.clock())());
    let plural =
        format!("{}s", kind.to_ascii_lowercase().strip_suffix('y').map_or_else(|| kind.to_ascii_lowercase(), |stem| format!("{stem}ie")));
    let (group, version) = if matches!(kind.as_str(), "Service" | "Pod") { ("", "v1") } else { (ISTIO, "networking.istio.io/v1") };
    let uid = store.get(&Key::namespaced(group, &plural, namespace, name)).map(|o| o["metadata"]["uid"].clone()).unwrap_or_default();
    let message: String = message.chars().take(1024).collect();
    let key = Key::namespaced("", "events", namespace, &format!("{name}.{}.{}", kind.to_ascii_lowercase(), reason.to_ascii_lowercase()));
    let body = json!({
        "apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": reason, "message": message, "count": 1,
        "firstTimestamp": now, "lastTimestamp": now, "source": {"component": "serin-lab"}, "reportingComponent": "serin-lab",
        "involvedObject": {"apiVersion": version, "kind": kind, "namespace": namespace, "name": name, "uid": uid},
    });
    if let Err(StoreError::AlreadyExists(..)) = store.create(&key, body) {
        let again = store.update(&key, Write::Whole, |old| {
            let mut new = old.clone();
            new["count"] = (old["count"].as_u64().unwrap_or(1) + 1).into();
            new["lastTimestamp"] = now.as_str().into();
            new["message"] = message.as_str().into();
            new["involvedObject"]["uid"] = uid.clone();
            Ok::<Value, StoreError>(new)
        });
        if let Err(error) = again {
            tracing::debug!(%error, "event");
        }
    }
}
