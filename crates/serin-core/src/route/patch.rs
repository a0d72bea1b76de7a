//! JSON Patch (RFC 6902) as a value, and what it changes in words.
//!
//! Deliberately never applies a patch: that is the API server's work.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;
use serde_json::{Value, json};

use super::json::{escape, text, unescape};
use super::problem::{Place, RouteProblem};

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Op {
    /// The patch as a whole fails unless the value at `path` equals `value`.
    Test {
        /// JSON pointer.
        path: String,
        /// Cut from the object as it was read.
        value: Value,
    },
    /// Puts `value` where something stands.
    Replace {
        /// JSON pointer.
        path: String,
        /// The new value.
        value: Value,
    },
    /// Puts `value` where nothing stands; `-` appends to a list.
    Add {
        /// JSON pointer.
        path: String,
        /// The new value.
        value: Value,
    },
    /// Takes out what stands there.
    Remove {
        /// JSON pointer.
        path: String,
    },
}

/// What a patch is pinned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Forward: to the object's resourceVersion and to each edited route as a whole. A stale reader changes nothing.
    Forward,
    /// Back to stable: to each edited route alone, so that changes elsewhere in the object do not delay it.
    Back,
}

/// Operations for one object: tests first, then changes.
#[must_use = "a patch does nothing until it is sent"]
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Patch {
    ops: Vec<Op>,
}

impl Patch {
    /// The operations, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Whether it holds no change: the object is as wanted already, and nothing need be sent.
    pub fn is_noop(&self) -> bool {
        self.ops.iter().all(|op| matches!(op, Op::Test { .. }))
    }

    /// The body of a request with content type `application/json-patch+json`.
    pub fn to_value(&self) -> Value {
        self.ops.iter().map(Op::to_value).collect()
    }

    pub(super) fn test(&mut self, path: impl Into<String>, value: Value) {
        let op = Op::Test { path: path.into(), value };
        let at = self.ops.iter().position(|op| !matches!(op, Op::Test { .. })).unwrap_or(self.ops.len());
        if !self.ops.contains(&op) {
            self.ops.insert(at, op);
        }
    }

    /// `replace` where something stands in `object`, `add` elsewhere.
    pub(super) fn put(&mut self, object: &Value, path: String, value: Value) {
        self.ops.push(if object.pointer(&path).is_some() { Op::Replace { path, value } } else { Op::Add { path, value } });
    }

    pub(super) fn add(&mut self, path: impl Into<String>, value: Value) {
        self.ops.push(Op::Add { path: path.into(), value });
    }

    pub(super) fn remove(&mut self, path: impl Into<String>) {
        self.ops.push(Op::Remove { path: path.into() });
    }

    /// The operations of both, tests first. Both were made from the same object, and change different parts of it.
    pub(super) fn append(&mut self, other: Self) {
        for op in other.ops {
            match op {
                Op::Test { path, value } => self.test(path, value),
                change => self.ops.push(change),
            }
        }
    }

    /// Pins the patch to the object's resourceVersion.
    pub(super) fn pin(&mut self, kind: &'static str, object: &Value) -> Result<(), RouteProblem> {
        match text(object, "/metadata/resourceVersion") {
            Some(version) => {
                self.test("/metadata/resourceVersion", Value::from(version));
                Ok(())
            }
            None => Err(RouteProblem::NoResourceVersion { at: Place::whole(kind, object) }),
        }
    }
}

impl Op {
    fn to_value(&self) -> Value {
        match self {
            Self::Test { path, value } => json!({"op": "test", "path": path, "value": value}),
            Self::Replace { path, value } => json!({"op": "replace", "path": path, "value": value}),
            Self::Add { path, value } => json!({"op": "add", "path": path, "value": value}),
            Self::Remove { path } => json!({"op": "remove", "path": path}),
        }
    }

    fn path(&self) -> &str {
        match self {
            Self::Test { path, .. } | Self::Replace { path, .. } | Self::Add { path, .. } | Self::Remove { path } => path,
        }
    }

    fn value(&self) -> Option<&Value> {
        match self {
            Self::Test { value, .. } | Self::Replace { value, .. } | Self::Add { value, .. } => Some(value),
            Self::Remove { .. } => None,
        }
    }
}

/// What a patch changes, a line per route or field: `spec.http[0] "primary" route: v1 90 → 75, v2 10 → 25`.
///
/// The old values come from the patch's own tests, so that the lines say what will be replaced and not what somebody read.
pub fn describe(patch: &Patch) -> Vec<String> {
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for op in patch.ops.iter().filter(|op| !matches!(op, Op::Test { .. })) {
        let (place, change) = change_of(patch, op);
        match lines.iter_mut().find(|(known, _)| *known == place) {
            Some((_, changes)) => changes.push(change),
            None => lines.push((place, [change].into())),
        }
    }
    lines.into_iter().map(|(place, changes)| format!("{place}: {}", changes.join(", "))).collect()
}

/// Where an operation works, and what it does there.
fn change_of(patch: &Patch, op: &Op) -> (String, String) {
    let path = op.path();
    let tokens: Vec<&str> = path.split('/').skip(1).collect();
    match (tokens.as_slice(), op) {
        (["spec", "http", index, "route", position, rest @ ..], _) => {
            let route = tested(patch, &format!("/spec/http/{index}"));
            let place = match text(route, "/name") {
                Some(name) => format!("spec.http[{index}] {name:?} route"),
                None => format!("spec.http[{index}] route"),
            };
            let entry = route.pointer(&format!("/route/{position}")).unwrap_or(&Value::Null);
            let added = op.value().unwrap_or(&Value::Null);
            let change = match rest {
                ["weight"] => format!("{} {} → {}", label(route, entry), shown(entry.get("weight")), shown(op.value())),
                ["destination", "subset"] => format!("{} becomes its subset {}", label(route, entry), bare(added)),
                [] if matches!(op, Op::Remove { .. }) => {
                    format!("without {}, which has {}", label(route, entry), shown(entry.get("weight")))
                }
                [] => format!("with {} at {}", label(route, added), shown(added.get("weight"))),
                _ => fallback(op, path),
            };
            (place, change)
        }
        (["spec", "gateways", ..], Op::Add { value, .. }) => ("spec.gateways".to_owned(), format!("with {value}")),
        (["spec", "subsets", position], op) => {
            let old = tested(patch, "/spec/subsets").pointer(&format!("/{position}")).unwrap_or(&Value::Null);
            let change = match op {
                Op::Remove { .. } => format!("without {}", bare(old.get("name").unwrap_or(&Value::Null))),
                Op::Add { value, .. } | Op::Replace { value, .. } | Op::Test { value, .. } => {
                    format!("with {} {}", bare(value.get("name").unwrap_or(&Value::Null)), value.get("labels").unwrap_or(&Value::Null))
                }
            };
            ("spec.subsets".to_owned(), change)
        }
        (["metadata", "annotations"], Op::Add { value: Value::Object(added), .. }) => {
            let pairs: Vec<String> = added.iter().map(|(key, value)| format!("{key} = {}", bare(value))).collect();
            ("metadata.annotations".to_owned(), pairs.join(", "))
        }
        (["metadata", "annotations", key], op) => {
            let change = match op.value() {
                Some(value) => format!("{} = {}", unescape(key), bare(value)),
                None => format!("without {}", unescape(key)),
            };
            ("metadata.annotations".to_owned(), change)
        }
        (_, op) => (path.trim_start_matches('/').replace('/', "."), fallback(op, path)),
    }
}

fn fallback(op: &Op, path: &str) -> String {
    match op {
        Op::Remove { .. } => format!("removes {path}"),
        Op::Add { value, .. } | Op::Replace { value, .. } | Op::Test { value, .. } => format!("{path} = {value}"),
    }
}

/// The value that the patch expects at `path`.
fn tested<'a>(patch: &'a Patch, path: &str) -> &'a Value {
    let found = patch.ops.iter().find(|op| matches!(op, Op::Test { path: tested, .. } if tested == path));
    found.and_then(Op::value).unwrap_or(&Value::Null)
}

/// How a person tells the destinations of this route apart: by subset, and by host where there are several hosts.
fn label(route: &Value, entry: &Value) -> String {
    let host = text(entry, "/destination/host").unwrap_or("?");
    let entries = route.get("route").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let one_host = entries.iter().all(|other| text(other, "/destination/host") == Some(host));
    match text(entry, "/destination/subset") {
        Some(subset) if one_host => subset.to_owned(),
        Some(subset) => format!("{host}/{subset}"),
        None => host.to_owned(),
    }
}

fn shown(weight: Option<&Value>) -> String {
    weight.filter(|w| !w.is_null()).map_or_else(|| "no weight".to_owned(), ToString::to_string)
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// The pointer to an annotation.
pub(super) fn annotation_path(key: &str) -> String {
    format!("/metadata/annotations/{}", escape(key))
}
