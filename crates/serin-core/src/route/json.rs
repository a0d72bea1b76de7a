//! Reading of Kubernetes objects as plain JSON: nothing here fails, what is absent or of another type reads as absent.
//!
//! Deliberately knows no Istio field.

use alloc::borrow::ToOwned;
use alloc::string::String;

use serde_json::Value;

use crate::units::ObjectName;

/// The value at a JSON pointer. As `Value::pointer`, which builds two strings per token; this is asked of every object in the
/// cluster, with pointers that have nothing to unescape.
fn at<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    if pointer.contains('~') {
        return object.pointer(pointer);
    }
    pointer.split('/').skip(1).try_fold(object, |value, token| match value {
        Value::Object(fields) => fields.get(token),
        Value::Array(items) => token.parse::<usize>().ok().and_then(|index| items.get(index)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

/// The text at a JSON pointer; `None` for an empty one, as protobuf does not tell it from an absent one.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    at(object, pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The list at a JSON pointer; empty when absent.
pub(super) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    at(object, pointer).and_then(Value::as_array).map_or(&[], |list| list.as_slice())
}

/// The strings of a list of strings.
pub(super) fn texts<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a str> {
    list(object, pointer).iter().filter_map(Value::as_str)
}

/// Whether something other than `null` stands at the pointer.
pub(super) fn present(object: &Value, pointer: &str) -> bool {
    at(object, pointer).is_some_and(|value| !value.is_null())
}

/// The object's namespace; `default` when it says none, as kubectl reads a manifest.
pub(super) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace").unwrap_or("default")
}

/// Namespace and name.
pub(super) fn object_name(object: &Value) -> ObjectName {
    ObjectName { namespace: namespace(object).to_owned(), name: text(object, "/metadata/name").unwrap_or_default().to_owned() }
}

/// Creation time, name and namespace: the order in which Istio reads objects of a kind (`sortConfigByCreationTime`, Istio
/// 1.31). Kubernetes writes all times in UTC in one format, so that they sort as texts. Manifests without one come first.
pub(super) fn age_key(object: &Value) -> (&str, &str, &str) {
    (text(object, "/metadata/creationTimestamp").unwrap_or_default(), text(object, "/metadata/name").unwrap_or_default(), namespace(object))
}

/// One token of a JSON pointer (RFC 6901, section 3).
pub(super) fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

/// The token as it was before [`escape`].
pub(super) fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}
