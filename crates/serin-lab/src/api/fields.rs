//! Sets of fields, as `metadata.managedFields` writes them, and what a change touches.
//!
//! The rules are those of Kubernetes' structured-merge-diff: maps by key, lists by their list type, everything else is a
//! leaf. Who owns a set, and what happens when two want the same field, is the room of `apply`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::schema::{ListType, Node};

/// A set of field paths. Children are named in `FieldsV1` notation: `f:NAME`, `k:{KEYS}`, `v:VALUE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    /// Whether the path that leads here is in the set.
    member: bool,
    children: BTreeMap<String, Set>,
}

impl Set {
    /// Reads `fieldsV1`.
    pub(super) fn parse(value: &Value) -> Self {
        let mut set = Self::default();
        for (name, inner) in value.as_object().into_iter().flatten() {
            if name == "." {
                set.member = true;
                continue;
            }
            let mut child = Self::parse(inner);
            child.member |= child.children.is_empty();
            set.children.insert(name.clone(), child);
        }
        set
    }

    /// Writes `fieldsV1`.
    pub(super) fn to_value(&self) -> Value {
        let mut fields = Map::new();
        for (name, child) in &self.children {
            let mut inner = child.to_value();
            if child.member && !child.children.is_empty() {
                inner["."] = Value::Object(Map::new());
            }
            fields.insert(name.clone(), inner);
        }
        Value::Object(fields)
    }

    /// Whether no path is in it.
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// All paths of either.
    pub(super) fn union(&mut self, other: &Self) {
        self.member |= other.member;
        for (name, child) in &other.children {
            self.children.entry(name.clone()).or_default().union(child);
        }
    }

    /// Takes away the paths of another.
    pub(super) fn remove(&mut self, other: &Self) {
        self.member &= !other.member;
        for (name, child) in &other.children {
            if let Some(own) = self.children.get_mut(name) {
                own.remove(child);
            }
        }
        self.children.retain(|_, child| !child.is_empty());
    }

    /// The paths that both have.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self { member: self.member && other.member, children: BTreeMap::new() };
        for (name, child) in &self.children {
            if let Some(inner) = other.children.get(name).map(|o| child.intersection(o)).filter(|s| !s.is_empty()) {
                both.children.insert(name.clone(), inner);
            }
        }
        both
    }

    /// Keeps only what lies below these top-level fields.
    pub(super) fn retain_fields(&mut self, keep: impl Fn(&str) -> bool) {
        self.children.retain(|name, _| name.strip_prefix("f:").is_some_and(&keep));
    }

    /// Takes away what managers never own: the object's identity and what the server itself keeps.
    pub(super) fn strip(&mut self) {
        for name in ["f:apiVersion", "f:kind"] {
            self.children.remove(name);
        }
        if let Some(meta) = self.children.get_mut("f:metadata") {
            meta.member = false;
            for name in [
                "name",
                "namespace",
                "creationTimestamp",
                "selfLink",
                "uid",
                "generation",
                "managedFields",
                "resourceVersion",
                "generateName",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
            ] {
                meta.children.remove(&format!("f:{name}"));
            }
        }
        self.children.retain(|_, child| !child.is_empty());
    }

    /// The paths as people read them: `.spec.containers[name="a"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.collect(String::new(), &mut all);
        all
    }

    fn collect(&self, path: String, into: &mut Vec<String>) {
        if self.member {
            into.push(path.clone());
        }
        for (name, child) in &self.children {
            child.collect(format!("{path}{}", readable(name)), into);
        }
    }

    fn at(&mut self, name: String) -> &mut Self {
        self.children.entry(name).or_default()
    }

    /// Removes from `value` what `self` (owned before) has and `owned` (owned by anybody now) lacks. Fields of a struct
    /// count as owned with anything below them; keys of maps and items of lists only by themselves.
    pub(super) fn prune(&self, owned: Option<&Self>, node: Option<Node<'_>>, value: &mut Value) {
        for (name, child) in &self.children {
            let still = owned.and_then(|o| o.children.get(name)).filter(|o| !o.is_empty());
            let named = name.strip_prefix("f:").is_some_and(|field| node.is_some_and(|n| n.property(field).is_some()));
            if still.is_none() && (child.member || named) {
                take_out(node, value, name);
                continue;
            }
            if let Some((inner, inner_node)) = descend(node, value, name) {
                child.prune(still, inner_node, inner);
            }
        }
    }
}

fn readable(name: &str) -> String {
    match name.split_at_checked(2) {
        Some(("f:", field)) => format!(".{field}"),
        Some(("k:", keys)) => {
            let keys: Value = serde_json::from_str(keys).unwrap_or_default();
            let pairs: Vec<String> = keys.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", pairs.join(","))
        }
        Some(("v:", value)) => format!("[={value}]"),
        Some((_, rest)) => format!("[{rest}]"),
        None => name.to_owned(),
    }
}

/// The name of a list's item in a set; `None` where items have none.
pub(super) fn item_name(node: Node<'_>, item: &Value) -> Option<String> {
    match node.list_type() {
        ListType::Atomic => None,
        ListType::Set => Some(format!("v:{item}")),
        ListType::Map(keys) => {
            let mut id = Map::new();
            for key in keys {
                // A key that is left out has its default.
                let default =
                    || node.items()?.property(&key)?.get("default").cloned().or_else(|| (key == "protocol").then(|| "TCP".into()));
                if let Some(value) = item.get(&key).cloned().or_else(default) {
                    id.insert(key, value);
                }
            }
            Some(format!("k:{}", Value::Object(id)))
        }
    }
}

fn position(node: Option<Node<'_>>, items: &[Value], name: &str) -> Option<usize> {
    let node = node?;
    items.iter().position(|item| item_name(node, item).as_deref() == Some(name))
}

fn take_out(node: Option<Node<'_>>, value: &mut Value, name: &str) {
    match value {
        Value::Object(fields) => {
            if let Some(field) = name.strip_prefix("f:") {
                fields.remove(field);
            }
        }
        Value::Array(items) => {
            if let Some(at) = position(node, items, name) {
                items.remove(at);
            }
        }
        _ => {}
    }
}

fn descend<'v, 'n>(node: Option<Node<'n>>, value: &'v mut Value, name: &str) -> Option<(&'v mut Value, Option<Node<'n>>)> {
    match value {
        Value::Object(fields) => {
            let field = name.strip_prefix("f:")?;
            Some((fields.get_mut(field)?, node.and_then(|n| n.child(field))))
        }
        Value::Array(items) => {
            let at = position(node, items, name)?;
            Some((&mut items[at], node.and_then(Node::items)))
        }
        _ => None,
    }
}

/// Whether the value is one to its owners: a scalar, or a map or list declared so (or of unknown list type).
fn is_leaf(node: Option<Node<'_>>, value: &Value) -> bool {
    match value {
        Value::Object(_) => node.is_some_and(Node::is_atomic_map),
        Value::Array(_) => node.is_none_or(|n| n.list_type() == ListType::Atomic),
        _ => true,
    }
}

/// The fields that a configuration sets.
pub(super) fn of_config(node: Option<Node<'_>>, value: &Value) -> Set {
    let mut set = Set::default();
    add_config(node, value, &mut set);
    set.member = false;
    set
}

fn add_config(node: Option<Node<'_>>, value: &Value, set: &mut Set) {
    if is_leaf(node, value) {
        set.member = true;
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let named = node.is_some_and(|n| n.property(name).is_some());
                let child = set.at(format!("f:{name}"));
                add_config(node.and_then(|n| n.child(name)), field, child);
                let empty = field.as_object().is_some_and(Map::is_empty);
                child.member |= field.is_null() || empty || !named;
            }
        }
        Value::Array(items) => {
            for item in items {
                let Some(name) = node.and_then(|n| item_name(n, item)) else { continue };
                let child = set.at(name);
                add_config(node.and_then(Node::items), item, child);
                child.member = true;
            }
        }
        _ => {}
    }
}

/// What a change touches.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Fields with a new value, or that were not there.
    pub(super) written: Set,
    /// Fields that are gone.
    pub(super) removed: Set,
}

/// The fields in which two objects differ.
pub(super) fn compare(node: Option<Node<'_>>, old: &Value, new: &Value) -> Changes {
    let mut changes = Changes::default();
    // There was no object: everything is new.
    walk(node, Some(old).filter(|o| !o.is_null()), Some(new), &mut changes.written, &mut changes.removed);
    changes.written.member = false;
    changes.removed.member = false;
    changes
}

fn walk(node: Option<Node<'_>>, old: Option<&Value>, new: Option<&Value>, written: &mut Set, removed: &mut Set) {
    if old == new {
        return;
    }
    let leaf = |value: Option<&Value>| value.is_none_or(|v| is_leaf(node, v));
    match (old, new) {
        (Some(Value::Object(_)) | None, Some(Value::Object(_)) | None) if !(leaf(old) && leaf(new)) => {
            let fields = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
            let (was, is) = (fields(old), fields(new));
            for name in was.keys().chain(is.keys().filter(|k| !was.contains_key(*k))) {
                let named = node.is_some_and(|n| n.property(name).is_some());
                let child = node.and_then(|n| n.child(name));
                let key = format!("f:{name}");
                step(child, was.get(name), is.get(name), named, &key, written, removed);
            }
        }
        (Some(Value::Array(_)) | None, Some(Value::Array(_)) | None) if !(leaf(old) && leaf(new)) => {
            let named_items = |value: Option<&Value>| -> Vec<(String, Value)> {
                let items = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                items.iter().filter_map(|i| Some((item_name(node?, i)?, i.clone()))).collect()
            };
            let (was, is) = (named_items(old), named_items(new));
            let find = |all: &[(String, Value)], name: &str| all.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
            let item = node.and_then(Node::items);
            for (name, value) in &was {
                step(item, Some(value), find(&is, name).as_ref(), false, name, written, removed);
            }
            for (name, value) in is.iter().filter(|(n, _)| find(&was, n).is_none()) {
                step(item, None, Some(value), false, name, written, removed);
            }
        }
        (Some(_), None) => removed.member = true,
        // New, changed, or of another type than before.
        _ => written.member = true,
    }
}

fn step(node: Option<Node<'_>>, old: Option<&Value>, new: Option<&Value>, named: bool, key: &str, written: &mut Set, removed: &mut Set) {
    let (mut inner_written, mut inner_removed) = (Set::default(), Set::default());
    walk(node, old, new, &mut inner_written, &mut inner_removed);
    let map = node.is_some_and(|n| n.additional().is_some());
    let empty = |value: Option<&Value>| value.is_some_and(|v| v.as_object().is_some_and(Map::is_empty));
    inner_written.member |= old.is_none() && (!named || map || empty(new));
    inner_removed.member |= new.is_none();
    if !inner_written.is_empty() {
        written.at(key.to_owned()).union(&inner_written);
    }
    if !inner_removed.is_empty() {
        removed.at(key.to_owned()).union(&inner_removed);
    }
}

/// Merges a configuration into an object: its values win, keyed lists are merged item by item, in its order.
pub(super) fn merge(node: Option<Node<'_>>, target: &mut Value, config: &Value) {
    let mergeable = match (&*target, config) {
        (Value::Object(_), Value::Object(_)) => !node.is_some_and(Node::is_atomic_map),
        (Value::Array(_), Value::Array(_)) => node.is_some_and(|n| n.list_type() != ListType::Atomic),
        _ => false,
    };
    match (target, config) {
        (Value::Object(fields), Value::Object(wanted)) if mergeable => {
            for (name, value) in wanted {
                match fields.get_mut(name) {
                    Some(field) => merge(node.and_then(|n| n.child(name)), field, value),
                    None => {
                        fields.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(items), Value::Array(wanted)) if mergeable => {
            let Some(node) = node else { return };
            let before: Vec<Option<String>> = items.iter().map(|i| item_name(node, i)).collect();
            let mut others: Vec<(Option<usize>, Value)> =
                std::mem::take(items).into_iter().enumerate().map(|(i, v)| (Some(i), v)).collect();
            let mut named = Vec::new();
            for value in wanted {
                let name = item_name(node, value);
                match others.iter().position(|(at, _)| at.is_some_and(|at| before[at] == name)) {
                    Some(at) => {
                        let (place, mut item) = others.remove(at);
                        merge(node.items(), &mut item, value);
                        named.push((place, item));
                    }
                    None => named.push((None, value.clone())),
                }
            }
            // Items of others stay beside the neighbours they had.
            let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
            loop {
                let take_named = match (named.peek(), others.peek()) {
                    (Some((Some(a), _)), Some((Some(b), _))) => a < b,
                    (Some(_), Some(_)) => false,
                    (Some(_), None) => true,
                    (None, Some(_)) => false,
                    (None, None) => break,
                };
                items.extend(if take_named { named.next() } else { others.next() }.map(|(_, v)| v));
            }
        }
        (target, config) => *target = config.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::schema::built_in_root;
    use super::*;

    #[test]
    fn sets_are_written_and_read_as_fields_v1() {
        let text = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}});
        assert_eq!(Set::parse(&text).to_value(), text);
        assert_eq!(
            Set::parse(&text).paths(),
            [
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.template.spec.containers[name=\"a\"]",
                ".spec.template.spec.containers[name=\"a\"].image",
                ".spec.template.spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.template.spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ]
        );
    }

    #[test]
    fn a_configuration_owns_its_leaves_and_items() {
        let root = built_in_root("io.k8s.api.apps.v1.Deployment");
        let config = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [{"name": "a", "args": ["x"], "resources": {}, "ports": [{"containerPort": 80}]}]}}}});
        assert_eq!(
            of_config(Some(Node::new(&root)), &config).to_value(),
            json!({"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:args": {}, "f:resources": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}})
        );
    }

    #[test]
    fn sets_add_subtract_and_meet() {
        let mut a = Set::parse(&json!({"f:a": {}, "f:b": {"f:c": {}, "f:d": {}}}));
        let b = Set::parse(&json!({"f:b": {"f:d": {}, "f:e": {}}}));
        assert_eq!(a.intersection(&b).to_value(), json!({"f:b": {"f:d": {}}}));
        a.remove(&b);
        assert_eq!(a.to_value(), json!({"f:a": {}, "f:b": {"f:c": {}}}));
        a.union(&b);
        assert_eq!(a.to_value(), json!({"f:a": {}, "f:b": {"f:c": {}, "f:d": {}, "f:e": {}}}));
    }

    #[test]
    fn a_comparison_tells_what_was_written_and_what_is_gone() {
        let root = built_in_root("io.k8s.api.core.v1.Pod");
        let old = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"containers": [{"name": "x", "image": "1"}, {"name": "y", "image": "1"}]}});
        let new = json!({"metadata": {"labels": {"a": "9", "c": "3"}}, "spec": {"containers": [{"name": "x", "image": "2"}, {"name": "z", "image": "1"}]}});
        let changes = compare(Some(Node::new(&root)), &old, &new);
        assert_eq!(
            changes.written.to_value(),
            json!({"f:metadata": {"f:labels": {"f:a": {}, "f:c": {}}}, "f:spec": {"f:containers": {
                "k:{\"name\":\"x\"}": {"f:image": {}}, "k:{\"name\":\"z\"}": {".": {}, "f:image": {}, "f:name": {}}}}})
        );
        assert_eq!(
            changes.removed.to_value(),
            json!({"f:metadata": {"f:labels": {"f:b": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"y\"}": {".": {}, "f:image": {}, "f:name": {}}}}})
        );
    }
}
