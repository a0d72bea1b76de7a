//! Reading and building untyped Kubernetes objects: metadata, selectors, owners, conditions, pods' states.
//!
//! Plain functions over JSON. They write nothing to the store, and an absent field reads as Kubernetes' default.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::store::{Key, Object, Resource, Store, StoreError, Write, seconds};

/// The label that tells the pods of one template from those of another.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// `/a/b/c` as text; empty when absent or no text.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// `/a/b/c` as a whole number, or the default.
pub fn number(object: &Value, pointer: &str, default: i64) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(default)
}

/// `/a/b/c` as a truth value; absent is false.
pub fn flag(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
}

/// The elements of a list; none when absent.
pub fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.namespace`, empty for cluster-scoped objects.
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Whether somebody has asked for its deletion.
pub fn deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null())
}

/// One label's value.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// One annotation's value.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

/// A time in an object.
pub fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    object.pointer(pointer)?.as_str()?.parse().ok()
}

/// The field of an object as a map, made if absent.
pub fn map<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let slot = &mut object[field];
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut().unwrap_or_else(|| unreachable!("made an object above"))
}

/// The owner that controls the object.
pub fn controller(object: &Value) -> Option<&Value> {
    items(object, "/metadata/ownerReferences").iter().find(|owner| flag(owner, "/controller"))
}

/// Whether `owner` controls `object`.
pub fn controlled_by(object: &Value, owner: &Value) -> bool {
    controller(object).is_some_and(|c| text(c, "/uid") == uid(owner))
}

/// The reference that makes `owner` the controller of an object.
pub fn owner_reference(api_version: &str, kind: &str, owner: &Value) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// Adds an owner reference to an object.
pub fn add_owner(object: &mut Value, reference: Value) {
    let metadata = crate::store::metadata(object);
    match metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) {
        Some(owners) => owners.push(reference),
        None => {
            metadata.insert("ownerReferences".into(), json!([reference]));
        }
    }
}

/// Takes the references to one owner away.
pub fn remove_owner(object: &mut Value, owner_uid: &str) {
    let metadata = crate::store::metadata(object);
    if let Some(owners) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) {
        owners.retain(|owner| text(owner, "/uid") != owner_uid);
        if owners.is_empty() {
            metadata.remove("ownerReferences");
        }
    }
}

/// A percentage of `total`, or a plain number. `up` says how Kubernetes rounds this field.
pub fn int_or_percent(value: Option<&Value>, default: &str, total: i64, up: bool) -> i64 {
    let parse = |text: &str| -> Option<i64> {
        match text.strip_suffix('%') {
            Some(percent) => {
                let product = percent.trim().parse::<i64>().ok()?.checked_mul(total)?;
                Some(if up { (product + 99).div_euclid(100) } else { product.div_euclid(100) })
            }
            None => text.parse().ok(),
        }
    };
    let given = match value {
        Some(Value::Number(n)) => n.as_i64(),
        Some(Value::String(text)) => parse(text),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => None,
    };
    given.or_else(|| parse(default)).unwrap_or_default().max(0)
}

/// Whether labels fit a LabelSelector (`matchLabels` and `matchExpressions`); an absent or empty one selects nothing here,
/// since every workload must have one.
pub fn selects(selector: Option<&Value>, labels: Option<&Value>) -> bool {
    let Some(selector) = selector else { return false };
    let labels = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
    let exact = selector.get("matchLabels").and_then(Value::as_object);
    let expressions = items(selector, "/matchExpressions");
    if exact.is_none_or(Map::is_empty) && expressions.is_empty() {
        return false;
    }
    exact.into_iter().flatten().all(|(key, value)| labels(key) == value.as_str())
        && expressions.iter().all(|expression| {
            let found = labels(text(expression, "/key"));
            let listed = || found.is_some_and(|f| items(expression, "/values").iter().any(|v| v.as_str() == Some(f)));
            match text(expression, "/operator") {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

/// Whether labels fit a Service's selector, a plain map; an absent or empty one selects nothing.
pub fn selects_map(selector: Option<&Value>, labels: Option<&Value>) -> bool {
    let Some(selector) = selector.and_then(Value::as_object).filter(|s| !s.is_empty()) else { return false };
    selector.iter().all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
}

/// `metadata.labels`.
pub fn labels(object: &Value) -> Option<&Value> {
    object.pointer("/metadata/labels")
}

/// The condition of a type in a status.
pub fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    items(status, "/conditions").iter().find(|c| text(c, "/type") == kind)
}

/// Whether the condition of a type is `True`.
pub fn condition_true(status: &Value, kind: &str) -> bool {
    condition(status, kind).is_some_and(|c| text(c, "/status") == "True")
}

/// A pod that still counts: not finished, and nobody has asked for its end.
pub fn pod_active(pod: &Value) -> bool {
    !pod_finished(pod) && !deleting(pod)
}

/// A pod that has ended for good.
pub fn pod_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// A pod whose condition Ready is true.
pub fn pod_ready(pod: &Value) -> bool {
    condition_true(&pod["status"], "Ready")
}

/// How long a ready pod still has to stay ready until it counts as available; `None` when it is not ready.
pub fn until_available(pod: &Value, min_ready_seconds: i64, now: Timestamp) -> Option<jiff::SignedDuration> {
    if !pod_ready(pod) {
        return None;
    }
    let zero = jiff::SignedDuration::ZERO;
    if min_ready_seconds <= 0 {
        return Some(zero);
    }
    let since = condition(&pod["status"], "Ready").and_then(|c| time(c, "/lastTransitionTime"))?;
    let left = jiff::SignedDuration::from_secs(min_ready_seconds) - now.duration_since(since);
    Some(left.max(zero))
}

/// A pod that has been ready for long enough.
pub fn pod_available(pod: &Value, min_ready_seconds: i64, now: Timestamp) -> bool {
    until_available(pod, min_ready_seconds, now).is_some_and(|left| left.is_zero())
}

/// The time that a pod has to end after it was asked to, in seconds.
pub fn grace_seconds(pod: &Value) -> u64 {
    u64::try_from(number(pod, "/spec/terminationGracePeriodSeconds", 30)).unwrap_or(0)
}

/// A condition as most kinds write it.
pub fn new_condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": seconds(now)})
}

/// Puts a condition into a list; the time of the last transition stays when the status does.
pub fn set_condition(conditions: &mut Vec<Value>, mut new: Value) {
    match conditions.iter_mut().find(|c| c["type"] == new["type"]) {
        Some(old) => {
            if old["status"] == new["status"] && old.get("lastTransitionTime").is_some() {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// Ends a pod: marks it with its grace period, so that the kubelet stops its processes.
pub fn delete_pod(store: &Store, pod: &Value) {
    // Gone already is as good.
    let _ = store.delete(&Key::namespaced("", "pods", namespace(pod), name(pod)), Some(uid(pod)), grace_seconds(pod));
}

/// Changes an object in place, if it is still the same one (by uid). `Ok(None)` when it is gone.
pub fn edit(store: &Store, key: &Key, uid_of: &str, write: Write, change: impl FnOnce(&mut Value)) -> Option<Object> {
    let result = store.update(key, write, |old| {
        if uid(old) != uid_of {
            return Err(StoreError::UidMismatch(key.resource.clone(), key.name.clone()));
        }
        let mut new = old.clone();
        change(&mut new);
        Ok::<_, StoreError>(new)
    });
    result.ok()
}

/// The resource version of an object.
pub fn version(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion").parse().unwrap_or_default()
}

/// Pods of a namespace.
pub fn pods(store: &Store, namespace: &str) -> Vec<Object> {
    store.list(&Resource::new("", "pods"), Some(namespace)).0
}

/// Whether a namespace is on its way out, so that nothing new may be made in it.
pub fn namespace_ending(store: &Store, namespace: &str) -> bool {
    store.get(&Key::cluster("", "namespaces", namespace)).is_some_and(|ns| deleting(&ns))
}

/// The last letters of generated names: no vowels, no look-alikes, so that no word results.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Five random letters, as the API server appends to `generateName`.
pub fn suffix() -> String {
    use std::hash::{BuildHasher, RandomState};
    let mut n = RandomState::new().hash_one(0u8);
    (0..5)
        .map(|_| {
            let letter = ALPHABET[usize::try_from(n % 27).unwrap_or_default()];
            n /= 27;
            char::from(letter)
        })
        .collect()
}

/// A number as Kubernetes spells template hashes: its decimal digits, in safe letters.
pub fn safe_letters(n: u32) -> String {
    n.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// A value with everything empty taken away, so that two writers of the same thing compare equal:
/// clients write `creationTimestamp: null` and `resources: {}` or leave them out.
pub fn trimmed(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().map(|(k, v)| (k.clone(), trimmed(v)));
            let mut kept: Vec<_> = kept.filter(|(_, v)| !v.is_null() && v.as_object().is_none_or(|o| !o.is_empty())).collect();
            kept.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(kept.into_iter().collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(trimmed).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_kubernetes_rounds_them() {
        let check = |value: Value, total, up, expect| {
            assert_eq!(int_or_percent(Some(&value), "25%", total, up), expect, "{value} of {total}, up: {up}");
        };
        check(json!("25%"), 3, true, 1);
        check(json!("25%"), 3, false, 0);
        check(json!("25%"), 10, true, 3);
        check(json!("25%"), 10, false, 2);
        check(json!("100%"), 7, false, 7);
        check(json!(2), 7, true, 2);
        check(json!("2"), 7, true, 2);
        check(json!(null), 8, true, 2);
        check(json!("0%"), 8, true, 0);
    }

    #[test]
    fn selectors_need_every_requirement_and_never_select_all() {
        let labels = json!({"app": "a", "version": "v1"});
        let check = |selector: Value, expect| assert_eq!(selects(Some(&selector), Some(&labels)), expect, "{selector}");
        check(json!({"matchLabels": {"app": "a"}}), true);
        check(json!({"matchLabels": {"app": "a", "version": "v2"}}), false);
        check(json!({}), false);
        check(json!({"matchExpressions": [{"key": "version", "operator": "In", "values": ["v1", "v2"]}]}), true);
        check(json!({"matchExpressions": [{"key": "version", "operator": "NotIn", "values": ["v1"]}]}), false);
        check(json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}), true);
        check(json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}), false);
        assert!(!selects_map(Some(&json!({})), Some(&labels)));
        assert!(selects_map(Some(&json!({"app": "a"})), Some(&labels)));
    }

    #[test]
    fn what_clients_leave_out_or_write_as_empty_is_the_same_template() {
        let a = json!({"metadata": {"creationTimestamp": null, "labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "resources": {}}]}});
        let b = json!({"spec": {"containers": [{"name": "c"}]}, "metadata": {"labels": {"a": "b"}}});
        assert_eq!(trimmed(&a).to_string(), trimmed(&b).to_string());
    }
}
