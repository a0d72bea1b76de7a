//! Namespaces that are being deleted: everything in them goes first.

use serde_json::Value;

use super::object::{deleting, edit, grace_seconds, items, map, name, uid};
use super::queue::{Context, Requeue};
use crate::store::{Key, Write, metadata};

/// The finalizer that keeps a namespace until it is empty. Kubernetes has it in `spec.finalizers`; a namespace that was only
/// marked as deleted, or has it in its metadata, is finished all the same.
const FINALIZER: &str = "kubernetes";

/// Empties a namespace that is being deleted, and lets it go when it is empty.
pub fn reconcile(context: &Context, place: &str) -> Requeue {
    let key = Key::cluster("", "namespaces", place);
    let Some(namespace) = context.store.get(&key).filter(|n| deleting(n)) else { return Requeue::No };
    edit(&context.store, &key, uid(&namespace), Write::Status, |namespace| {
        map(namespace, "status").insert("phase".into(), "Terminating".into());
    });
    let mut left = 0;
    for resource in context.store.resources() {
        // Events last: they tell of the others' end.
        let events = resource.plural == "events";
        for object in context.store.list(&resource, Some(place)).0 {
            left += usize::from(!events);
            if deleting(&object) || events {
                continue;
            }
            let grace = if resource.group.is_empty() && resource.plural == "pods" { grace_seconds(&object) } else { 0 };
            let key = Key { resource: resource.clone(), namespace: Some(place.to_owned()), name: name(&object).to_owned() };
            // Gone already is as good.
            let _ = context.store.delete(&key, Some(uid(&object)), grace);
            left -= usize::from(context.store.get(&key).is_none());
        }
    }
    if left > 0 {
        return Requeue::No;
    }
    for resource in context.store.resources().into_iter().filter(|r| r.plural == "events") {
        for event in context.store.list(&resource, Some(place)).0 {
            let key = Key { resource: resource.clone(), namespace: Some(place.to_owned()), name: name(&event).to_owned() };
            let _ = context.store.delete(&key, Some(uid(&event)), 0);
        }
    }
    edit(&context.store, &key, uid(&namespace), Write::Spec, |namespace| {
        let keep = |finalizers: &[Value]| -> Vec<Value> { finalizers.iter().filter(|f| *f != FINALIZER).cloned().collect() };
        let spec = keep(items(namespace, "/spec/finalizers"));
        map(namespace, "spec").insert("finalizers".into(), spec.into());
        let own = keep(items(namespace, "/metadata/finalizers"));
        if own.is_empty() {
            metadata(namespace).remove("finalizers");
        } else {
            metadata(namespace).insert("finalizers".into(), own.into());
        }
    });
    // One that was only marked has no finalizer whose removal would end it. Gone already is as good.
    let _ = context.store.delete(&key, Some(uid(&namespace)), 0);
    Requeue::No
}
