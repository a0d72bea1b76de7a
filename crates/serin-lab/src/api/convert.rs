//! One stored object, several faces: the version that a client asks for, and the two forms of events.

use serde_json::{Map, Value};

use super::kinds::Kind;
use crate::store::Resource;

/// Where the kind's objects are stored. Events of both groups are the same objects, kept in the core form.
pub(super) fn stored_as(kind: &Kind) -> Resource {
    if kind.is("events.k8s.io", "events") { Resource::new("", "events") } else { kind.resource.clone() }
}

/// A stored object as the version with that index shows it.
pub(super) fn to_version(kind: &Kind, version: usize, object: &Value) -> Value {
    let mut shown = object.clone();
    if kind.is("events.k8s.io", "events") {
        rename(&mut shown, EVENT_FIELDS);
    }
    name_it(&mut shown, &kind.api_version(version), &kind.kind);
    shown
}

/// Whether the stored object can be shown as it is.
pub(super) fn is_version(kind: &Kind, version: usize, object: &Value) -> bool {
    !kind.is("events.k8s.io", "events")
        && object.get("kind").and_then(Value::as_str) == Some(kind.kind.as_str())
        && object.get("apiVersion").and_then(Value::as_str) == Some(kind.api_version(version).as_str())
}

/// What a client sent, in the form that is stored.
pub(super) fn to_stored(kind: &Kind, mut object: Value) -> Value {
    if kind.is("events.k8s.io", "events") {
        let back: Vec<(&str, &str)> = EVENT_FIELDS.iter().map(|(a, b)| (*b, *a)).collect();
        rename(&mut object, &back);
        name_it(&mut object, "v1", "Event");
    } else {
        name_it(&mut object, &kind.api_version(kind.storage_index()), &kind.kind);
    }
    object
}

fn name_it(object: &mut Value, api_version: &str, kind: &str) {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
}

/// Core field, events.k8s.io field.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(object: &mut Value, names: &[(&str, &str)]) {
    let Some(fields) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = fields.remove(*from) {
            fields.insert((*to).to_owned(), value);
        }
    }
}
