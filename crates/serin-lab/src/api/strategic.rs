//! Strategic merge patch: a merge that knows which lists are keyed and obeys the directives that kubectl writes.
//!
//! `$patch: replace|delete|merge`, `$retainKeys`, `$setElementOrder/FIELD`, `$deleteFromPrimitiveList/FIELD`.
//! Semantics after Kubernetes' design document "strategic merge patch".

use serde_json::{Map, Value};

use super::schema::Node;

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// Merges `patch` into `target`.
///
/// # Errors
/// Why the patch makes no sense: an item without its key, an unknown directive.
pub(super) fn merge(node: Node<'_>, target: &mut Value, patch: &Value) -> Result<(), String> {
    let (Value::Object(fields), Value::Object(changes)) = (&mut *target, patch) else {
        *target = patch.clone();
        return Ok(());
    };
    merge_object(node, fields, changes)
}

fn merge_object(node: Node<'_>, target: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), String> {
    match patch.get(PATCH).map(|d| d.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("replace") => {
            *target = patch.iter().filter(|(k, _)| *k != PATCH).map(|(k, v)| (k.clone(), v.clone())).collect();
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some(other) => return Err(format!("Unknown patch type found: {other}")),
    }
    if let Some(keep) = patch.get(RETAIN) {
        let keep = keep.as_array().ok_or("$retainKeys must be a list")?;
        target.retain(|name, _| keep.iter().any(|k| k.as_str() == Some(name)));
    }
    for (name, change) in patch {
        if let Some(field) = name.strip_prefix(DELETE) {
            if let Some(Value::Array(items)) = target.get_mut(field) {
                let gone = change.as_array().map_or(&[][..], Vec::as_slice);
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if name.starts_with(ORDER) || name == PATCH || name == RETAIN {
            continue;
        }
        merge_field(node, target, name, change, patch.get(&format!("{ORDER}{name}")))?;
    }
    // An order without a change of the list itself.
    for (name, order) in patch.iter().filter_map(|(k, v)| k.strip_prefix(ORDER).map(|f| (f, v))) {
        if !patch.contains_key(name)
            && let Some(Value::Array(items)) = target.get_mut(name)
        {
            let key = node.child(name).and_then(Node::merge_key);
            let before = items.clone();
            *items = ordered(std::mem::take(items), &before, order, key);
        }
    }
    Ok(())
}

fn merge_field(node: Node<'_>, target: &mut Map<String, Value>, name: &str, change: &Value, order: Option<&Value>) -> Result<(), String> {
    let child = node.child(name);
    let replaces = child.is_some_and(|c| c.has_strategy("replace"));
    match (target.get_mut(name), change) {
        (_, Value::Null) => {
            target.remove(name);
        }
        (Some(Value::Object(fields)), Value::Object(changes)) if !replaces => {
            let nothing = Value::Null;
            merge_object(child.unwrap_or_else(|| Node::new(&nothing)), fields, changes)?;
        }
        (Some(Value::Array(items)), Value::Array(changes)) if child.is_some_and(|c| c.has_strategy("merge")) => {
            let child = child.ok_or("a merged list has a schema")?;
            let before = items.clone();
            merge_list(child, items, changes)?;
            *items = ordered(std::mem::take(items), &before, order.unwrap_or(change), child.merge_key());
        }
        (_, change) => {
            let mut fresh = change.clone();
            clean(&mut fresh);
            target.insert(name.to_owned(), fresh);
        }
    }
    Ok(())
}

fn merge_list(node: Node<'_>, items: &mut Vec<Value>, changes: &[Value]) -> Result<(), String> {
    let Some(key) = node.merge_key() else {
        for change in changes {
            if !items.contains(change) {
                items.push(change.clone());
            }
        }
        return Ok(());
    };
    if changes.iter().any(|c| c.get(PATCH).and_then(Value::as_str) == Some("replace") && c.get(key).is_none()) {
        *items = changes.iter().filter(|c| c.get(PATCH).is_none()).cloned().collect();
        items.iter_mut().for_each(clean);
        return Ok(());
    }
    for change in changes {
        let Some(value) = change.get(key) else {
            return Err(format!("map: {change} does not contain declared merge key: {key}"));
        };
        if change.get(PATCH).and_then(Value::as_str) == Some("delete") {
            items.retain(|item| item.get(key) != Some(value));
            continue;
        }
        match items.iter_mut().find(|item| item.get(key) == Some(value)) {
            Some(item) => {
                let inner = node.items().ok_or("a merged list has items")?;
                merge(inner, item, change)?;
            }
            None => {
                let mut fresh = change.clone();
                clean(&mut fresh);
                items.push(fresh);
            }
        }
    }
    Ok(())
}

/// What a patch adds whole: without its directives and without what it deletes.
fn clean(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields
                .retain(|name, v| !v.is_null() && name != PATCH && name != RETAIN && !name.starts_with(ORDER) && !name.starts_with(DELETE));
            fields.values_mut().for_each(clean);
        }
        Value::Array(items) => {
            items.retain(|i| i.get(PATCH).and_then(Value::as_str) != Some("delete"));
            items.iter_mut().for_each(clean);
        }
        _ => {}
    }
}

/// Items in the order that the patch names; those it does not name stay before the named ones that they were before.
fn ordered(items: Vec<Value>, before: &[Value], order: &Value, key: Option<&str>) -> Vec<Value> {
    let order = order.as_array().map_or(&[][..], Vec::as_slice);
    let id = |item: &Value| key.map_or_else(|| item.clone(), |k| item.get(k).cloned().unwrap_or_default());
    let wanted: Vec<Value> = order.iter().map(id).collect();
    let was: Vec<Value> = before.iter().map(id).collect();
    let place = |item: &Value| wanted.iter().position(|w| *w == id(item));
    let (mut named, others): (Vec<Value>, Vec<Value>) = items.into_iter().partition(|i| place(i).is_some());
    named.sort_by_key(|i| place(i));
    let was_at = |item: &Value| was.iter().position(|w| *w == id(item));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    let mut all = Vec::new();
    loop {
        let take_named = match (named.peek(), others.peek()) {
            (Some(a), Some(b)) => !matches!((was_at(a), was_at(b)), (Some(a), Some(b)) if b < a),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return all,
        };
        all.extend(if take_named { named.next() } else { others.next() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::schema::built_in_root;
    use super::*;

    fn merged(kind: &str, target: Value, patch: Value) -> Value {
        let root = built_in_root(kind);
        let mut target = target;
        merge(Node::new(&root), &mut target, &patch).unwrap();
        target
    }

    // The orders are those that a real API server (1.20) gave for the same patches.
    #[test]
    fn keyed_lists_merge_and_others_are_replaced() {
        let pod = json!({"spec": {"containers": [
            {"name": "a", "image": "a:1", "args": ["x", "y"], "env": [{"name": "K", "value": "1"}, {"name": "L", "value": "2"}]},
            {"name": "b", "image": "b:1"}]}});
        let patch = json!({"spec": {"containers": [
            {"name": "a", "image": "a:2", "args": ["z"], "env": [{"name": "K", "$patch": "delete"}, {"name": "M", "value": "3"}]},
            {"name": "c", "image": "c:1"}]}});
        assert_eq!(
            merged("io.k8s.api.core.v1.Pod", pod, patch),
            json!({"spec": {"containers": [
                {"name": "a", "image": "a:2", "args": ["z"], "env": [{"name": "M", "value": "3"}, {"name": "L", "value": "2"}]},
                {"name": "c", "image": "c:1"},
                {"name": "b", "image": "b:1"}]}})
        );
    }

    #[test]
    fn directives_replace_delete_retain_and_order() {
        let deployment = "io.k8s.api.apps.v1.Deployment";
        assert_eq!(
            merged(
                deployment,
                json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
                json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            ),
            json!({"spec": {"strategy": {"type": "Recreate"}}})
        );
        let service = "io.k8s.api.core.v1.Service";
        let ports = json!({"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "b"}, {"port": 3, "name": "c"}]}});
        assert_eq!(
            merged(service, ports.clone(), json!({"spec": {"ports": [{"port": 9, "name": "z"}, {"$patch": "replace"}]}})),
            json!({"spec": {"ports": [{"port": 9, "name": "z"}]}})
        );
        assert_eq!(
            merged(
                service,
                ports.clone(),
                json!({"spec": {"$setElementOrder/ports": [{"port": 4}, {"port": 3}, {"port": 1}], "ports": [{"port": 4, "name": "d"}]}})
            ),
            json!({"spec": {"ports": [{"port": 4, "name": "d"}, {"port": 2, "name": "b"}, {"port": 3, "name": "c"}, {"port": 1, "name": "a"}]}})
        );
        assert_eq!(
            merged(service, ports, json!({"spec": {"ports": [{"port": 2, "$patch": "delete"}], "selector": null}})),
            json!({"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 3, "name": "c"}]}})
        );
        assert_eq!(
            merged(
                service,
                json!({"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1", "y": "2"}}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c", "b"], "labels": {"x": null, "z": "3"}}})
            ),
            json!({"metadata": {"finalizers": ["c", "b"], "labels": {"y": "2", "z": "3"}}})
        );
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        let root = built_in_root("io.k8s.api.core.v1.Pod");
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        assert!(merge(Node::new(&root), &mut pod, &json!({"spec": {"containers": [{"image": "x"}]}})).is_err());
    }
}
