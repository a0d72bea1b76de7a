//! Who owns which field: `metadata.managedFields`, kept by every write, and server-side apply built on it.
//!
//! After Kubernetes' field manager: an update takes what it changes from everybody; an apply that would change what
//! another manager owns is a conflict, unless forced; what a manager no longer applies and nobody else owns goes.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value, json};

use super::fields::{self, Set};
use super::schema::Node;
use super::status::ApiError;

/// Manager of an object that was there before anybody's fields were recorded.
const BEFORE: &str = "before-first-apply";

/// Who a set belongs to. Applies sort before updates, as in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    operation: &'static str,
    name: String,
    api_version: String,
    subresource: String,
}

impl Manager {
    /// Somebody who creates, updates or patches.
    pub(super) fn updating(name: &str, api_version: &str, subresource: &str) -> Self {
        Self { operation: "Update", name: name.into(), api_version: api_version.into(), subresource: subresource.into() }
    }

    /// Somebody who applies.
    pub(super) fn applying(name: &str, api_version: &str, subresource: &str) -> Self {
        Self { operation: "Apply", ..Self::updating(name, api_version, subresource) }
    }
}

/// Everybody's fields of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Managed(BTreeMap<Manager, (Set, String)>);

impl Managed {
    /// Reads `metadata.managedFields`; entries of an unknown form are dropped.
    pub(super) fn of(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"].as_array().map_or(&[][..], Vec::as_slice);
        let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let read = |entry: &Value| {
            let operation = match entry["operation"].as_str()? {
                "Apply" => "Apply",
                "Update" => "Update",
                _ => return None,
            };
            if entry["fieldsType"] != "FieldsV1" {
                return None;
            }
            let manager = Manager {
                operation,
                name: text(entry, "manager"),
                api_version: text(entry, "apiVersion"),
                subresource: text(entry, "subresource"),
            };
            Some((manager, (Set::parse(&entry["fieldsV1"]), text(entry, "time"))))
        };
        Self(entries.iter().filter_map(read).collect())
    }

    /// Writes `metadata.managedFields`: applies first, then by time.
    pub(super) fn to_value(&self) -> Value {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by(|(a, (_, at)), (b, (_, bt))| (a.operation, at, &a.name).cmp(&(b.operation, bt, &b.name)));
        let entries = all.into_iter().map(|(manager, (set, time))| {
            let mut entry = json!({
                "manager": manager.name, "operation": manager.operation, "apiVersion": manager.api_version,
                "fieldsType": "FieldsV1", "fieldsV1": set.to_value(),
            });
            if !time.is_empty() {
                entry["time"] = time.as_str().into();
            }
            if !manager.subresource.is_empty() {
                entry["subresource"] = manager.subresource.as_str().into();
            }
            entry
        });
        Value::Array(entries.collect())
    }

    /// Whether nobody owns anything.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Records an update: what changed is the manager's, and nobody else's.
    pub(super) fn update(&mut self, manager: &Manager, node: Node<'_>, old: &Value, new: &Value, limit: &dyn Fn(&mut Set), now: &str) {
        let mut changes = fields::compare(Some(node), old, new);
        for set in [&mut changes.written, &mut changes.removed] {
            set.strip();
            limit(set);
        }
        for (other, (set, _)) in &mut self.0 {
            if other != manager {
                set.remove(&changes.written);
            }
            set.remove(&changes.removed);
        }
        if !changes.written.is_empty() {
            let (set, time) = self.0.entry(manager.clone()).or_default();
            let before = set.clone();
            set.union(&changes.written);
            if *set != before {
                now.clone_into(time);
            }
        }
        self.0.retain(|_, (set, _)| !set.is_empty());
    }
}

/// What an apply comes to.
#[derive(Debug)]
pub(super) struct Applied {
    /// The merged object.
    pub(super) object: Value,
    /// Everybody's fields after it.
    pub(super) managed: Managed,
}

/// Applies a manager's configuration to an object (`Null` if there is none yet).
///
/// # Errors
/// 409 naming each manager and field, when others own what would change and it is not forced.
pub(super) fn apply(
    manager: &Manager,
    node: Node<'_>,
    live: &Value,
    config: &Value,
    force: bool,
    limit: &dyn Fn(&mut Set),
    now: &str,
) -> Result<Applied, ApiError> {
    let mut managed = Managed::of(live);
    if managed.is_empty() && !live.is_null() {
        let mut everything = fields::of_config(Some(node), live);
        everything.strip();
        let before = Manager::updating(BEFORE, &manager.api_version, "");
        let since = live["metadata"]["creationTimestamp"].as_str().unwrap_or(now).to_owned();
        managed.0.insert(before, (everything, since));
    }
    let mut wanted = fields::of_config(Some(node), config);
    wanted.strip();
    limit(&mut wanted);
    let mut object = if live.is_null() { json!({}) } else { live.clone() };
    fields::merge(Some(node), &mut object, config);
    let last = managed.0.remove(manager);
    let mut owned = wanted.clone();
    for (set, _) in managed.0.values() {
        owned.union(set);
    }
    if let Some((last, _)) = &last {
        last.prune(Some(&owned), Some(node), &mut object);
    }
    let changes = fields::compare(Some(node), live, &object);
    // On a new object nothing was anybody's.
    if !live.is_null() {
        let conflicts: Vec<(Manager, Set, String)> = managed
            .0
            .iter()
            .map(|(other, (set, time))| (other.clone(), set.intersection(&changes.written), time.clone()))
            .filter(|(_, set, _)| !set.is_empty())
            .collect();
        if !conflicts.is_empty() && !force {
            return Err(conflict(&conflicts));
        }
        for (other, taken, _) in &conflicts {
            if let Some((set, _)) = managed.0.get_mut(other) {
                set.remove(taken);
            }
        }
        for (set, _) in managed.0.values_mut() {
            set.remove(&changes.removed);
        }
    }
    if !wanted.is_empty() {
        let time = last.filter(|(set, _)| *set == wanted).map_or_else(|| now.to_owned(), |(_, time)| time);
        managed.0.insert(manager.clone(), (wanted, time));
    }
    managed.0.retain(|_, (set, _)| !set.is_empty());
    Ok(Applied { object, managed })
}

fn conflict(conflicts: &[(Manager, Set, String)]) -> ApiError {
    let who = |manager: &Manager, time: &str| {
        let subresource =
            if manager.subresource.is_empty() { String::new() } else { format!(" with subresource {:?}", manager.subresource) };
        // Only of an update the version and the time are told: an apply is there for good, whenever it was.
        let using = match (manager.operation, time) {
            ("Update", "") => format!(" using {}", manager.api_version),
            ("Update", time) => format!(" using {} at {time}", manager.api_version),
            _ => String::new(),
        };
        format!("{:?}{subresource}{using}", manager.name)
    };
    let causes: Vec<Value> = conflicts
        .iter()
        .flat_map(|(manager, set, time)| {
            let message = format!("conflict with {}", who(manager, time));
            set.paths().into_iter().map(move |path| json!({"reason": "FieldManagerConflict", "message": message, "field": path}))
        })
        .collect();
    let mut parts = Vec::new();
    for (manager, set, time) in conflicts {
        match set.paths().as_slice() {
            [one] => parts.push(format!("conflict with {}: {one}", who(manager, time))),
            many => parts.push(format!("conflicts with {}:\n- {}", who(manager, time), many.join("\n- "))),
        }
    }
    let plural = if causes.len() == 1 { "" } else { "s" };
    let message = format!("Apply failed with {} conflict{plural}: {}", causes.len(), parts.join("\n"));
    ApiError::new(StatusCode::CONFLICT, "Conflict", message).with_causes(causes)
}
