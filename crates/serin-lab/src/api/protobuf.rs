//! Bodies in Kubernetes' protobuf encoding, which kubectl and Go's typed clients send for built-in kinds.
//!
//! Read only: answers are JSON, which these clients accept as well. Types come from the OpenAPI schemas, field numbers from
//! the table beside this file; custom kinds have no protobuf form.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine;
use serde_json::{Map, Value};

use super::schema::{Node, definitions};

const MAGIC: &[u8] = b"k8s\0";
/// Deeper messages are refused: none of the built-in kinds nests half as deep.
const MAX_DEPTH: usize = 40;

/// Message (OpenAPI definition) to its fields by number.
static MESSAGES: LazyLock<HashMap<String, HashMap<u64, Field>>> =
    LazyLock::new(|| include_str!("protobuf.txt").lines().filter(|l| !l.starts_with('#')).filter_map(message).collect());

#[derive(Debug)]
enum Field {
    /// A JSON field of this name.
    Named(String),
    /// A message whose fields stand in the same JSON object.
    Inline(String),
}

fn message(line: &str) -> Option<(String, HashMap<u64, Field>)> {
    let mut words = line.split(' ');
    let short = words.next()?;
    let name = match short.strip_prefix("meta.") {
        Some(meta) => format!("io.k8s.apimachinery.pkg.apis.meta.v1.{meta}"),
        None => format!("io.k8s.api.{short}"),
    };
    let package = name.rsplit_once('.')?.0.to_owned();
    let fields = words.filter_map(|word| {
        let (field, number) = word.split_once('=')?;
        let field = match field.strip_prefix('+') {
            Some(inline) => Field::Inline(format!("{package}.{inline}")),
            None => Field::Named(field.to_owned()),
        };
        Some((number.parse().ok()?, field))
    });
    let fields = fields.collect();
    Some((name, fields))
}

/// Fields that Go holds behind a pointer: their zero was written by the client and is kept. All other zeros are what a Go
/// struct has where nothing was said.
const ZERO_COUNTS: &[&str] = &[
    "activeDeadlineSeconds",
    "allowPrivilegeEscalation",
    "allocateLoadBalancerNodePorts",
    "automountServiceAccountToken",
    "averageUtilization",
    "backoffLimit",
    "completions",
    "controller",
    "defaultMode",
    "enableServiceLinks",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "hostUsers",
    "immutable",
    "leaseDurationSeconds",
    "leaseTransitions",
    "minReplicas",
    "mode",
    "optional",
    "orphanDependents",
    "parallelism",
    "priority",
    "privileged",
    "progressDeadlineSeconds",
    "readOnlyRootFilesystem",
    "ready",
    "replicas",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "serving",
    "stabilizationWindowSeconds",
    "successfulJobsHistoryLimit",
    "suspend",
    "terminating",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
];

/// Reads an enveloped object.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, String> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or("the body does not begin as Kubernetes' protobuf does")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(inner)) => raw = inner,
            _ => {}
        }
    }
    let definition =
        definition(&api_version, &kind).ok_or_else(|| format!("{kind} of {api_version} has no protobuf form here; send JSON"))?;
    let mut object = Map::new();
    message_into(&definition, &root(&definition), raw, &mut object, 0)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

fn definition(api_version: &str, kind: &str) -> Option<String> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let name = match (group, kind) {
        (_, "DeleteOptions") => format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"),
        ("", _) => format!("io.k8s.api.core.{version}.{kind}"),
        // `rbac.authorization.k8s.io` is package rbac, `apps` is package apps.
        (group, _) => format!("io.k8s.api.{}.{version}.{kind}", group.split('.').next().unwrap_or_default()),
    };
    (MESSAGES.contains_key(&name) && definitions().contains_key(&name)).then_some(name)
}

fn root(definition: &str) -> Value {
    super::schema::built_in_root(definition)
}

fn message_into(definition: &str, schema: &Value, bytes: &[u8], into: &mut Map<String, Value>, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("the message nests too deep".into());
    }
    let Some(fields) = MESSAGES.get(definition) else { return Err(format!("{definition} has no protobuf form here; send JSON")) };
    let node = Node::new(schema);
    for field in Fields(bytes) {
        let (number, wire) = field?;
        match (fields.get(&number), &wire) {
            (None, _) => {}
            (Some(Field::Inline(inline)), Wire::Bytes(inner)) => message_into(inline, schema, inner, into, depth + 1)?,
            (Some(Field::Inline(_)), _) => return Err(format!("field {number} of {definition} is no message")),
            (Some(Field::Named(name)), wire) => {
                let Some(child) = node.property(name) else { continue };
                add(into, name, child, wire, node, depth + 1)?;
            }
        }
    }
    Ok(())
}

fn add(into: &mut Map<String, Value>, name: &str, child: Node<'_>, wire: &Wire<'_>, parent: Node<'_>, depth: usize) -> Result<(), String> {
    if let Some(item) = child.items().filter(|_| child.type_name() == Some("array")) {
        let list = into.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        let Value::Array(list) = list else { return Err(format!("{name} is no list")) };
        // Numbers may come packed.
        if let (Wire::Bytes(packed), Some("integer")) = (wire, item.type_name()) {
            let mut rest = *packed;
            while !rest.is_empty() {
                list.push(integer(varint(&mut rest)?));
            }
            return Ok(());
        }
        list.push(value(item, wire, depth)?);
        return Ok(());
    }
    if let Some(item) = child.additional() {
        let Wire::Bytes(entry) = wire else { return Err(format!("{name} is no map")) };
        let (mut key, mut of) = (String::new(), Value::Null);
        let mut seen = false;
        for field in Fields(entry) {
            match field? {
                (1, Wire::Bytes(text)) => key = utf8(text)?,
                (2, wire) => {
                    of = value(item, &wire, depth)?;
                    seen = true;
                }
                _ => {}
            }
        }
        if !seen && item.type_name() == Some("string") {
            of = "".into();
        }
        if let Value::Object(map) = into.entry(name).or_insert_with(|| Value::Object(Map::new())) {
            map.insert(key, of);
        }
        return Ok(());
    }
    let found = value(child, wire, depth)?;
    let required = parent.schema().get("required").and_then(Value::as_array).is_some_and(|r| r.iter().any(|k| k == name));
    let zero = match &found {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Bool(b) => !b && !required && !ZERO_COUNTS.contains(&name),
        Value::Number(n) => n.as_i64() == Some(0) && !required && !ZERO_COUNTS.contains(&name),
        Value::Array(_) | Value::Object(_) => false,
    };
    if !zero {
        into.insert(name.to_owned(), found);
    }
    Ok(())
}

fn value(node: Node<'_>, wire: &Wire<'_>, depth: usize) -> Result<Value, String> {
    let reference = node.reference().unwrap_or_default();
    match (reference.rsplit('.').next().unwrap_or_default(), wire) {
        ("Time" | "MicroTime", Wire::Bytes(bytes)) => return time(bytes, reference.ends_with("MicroTime")),
        ("Quantity", Wire::Bytes(bytes)) => return first_text(bytes),
        ("IntOrString", Wire::Bytes(bytes)) => return int_or_string(bytes),
        ("FieldsV1" | "RawExtension", Wire::Bytes(bytes)) => {
            let mut raw = &[][..];
            for field in Fields(bytes) {
                if let (1, Wire::Bytes(inner)) = field? {
                    raw = inner;
                }
            }
            return serde_json::from_slice(raw).map_err(|e| format!("raw JSON within protobuf: {e}"));
        }
        _ => {}
    }
    match (node.type_name(), wire) {
        (Some("string"), Wire::Bytes(bytes)) if node.schema().get("format").and_then(Value::as_str) == Some("byte") => {
            Ok(base64::engine::general_purpose::STANDARD.encode(bytes).into())
        }
        (Some("string"), Wire::Bytes(bytes)) => utf8(bytes).map(Into::into),
        (Some("boolean"), Wire::Varint(n)) => Ok((*n != 0).into()),
        (Some("integer"), Wire::Varint(n)) => Ok(integer(*n)),
        (Some("number"), Wire::Fixed64(n)) => Ok(f64::from_bits(*n).into()),
        (_, Wire::Bytes(bytes)) if !reference.is_empty() => {
            let mut object = Map::new();
            message_into(reference, node.schema(), bytes, &mut object, depth)?;
            Ok(Value::Object(object))
        }
        // A list within a map: `ExtraValue` and the like wrap it in a message.
        (Some("array"), Wire::Bytes(bytes)) => {
            let mut items = Vec::new();
            for field in Fields(bytes) {
                if let (1, Wire::Bytes(text)) = field? {
                    items.push(Value::from(utf8(text)?));
                }
            }
            Ok(Value::Array(items))
        }
        (wanted, _) => Err(format!("a field of type {wanted:?} has the wrong wire type")),
    }
}

fn integer(n: u64) -> Value {
    // Negative numbers are written as 64-bit two's complement.
    i64::from_ne_bytes(n.to_ne_bytes()).into()
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|e| e.to_string())
}

fn first_text(bytes: &[u8]) -> Result<Value, String> {
    for field in Fields(bytes) {
        if let (1, Wire::Bytes(text)) = field? {
            return utf8(text).map(Into::into);
        }
    }
    Ok(Value::Null)
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Varint(n)) => is_text = n == 1,
            (2, Wire::Varint(n)) => number = n,
            (3, Wire::Bytes(bytes)) => text = utf8(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { integer(number) })
}

fn time(bytes: &[u8], micro: bool) -> Result<Value, String> {
    let (mut seconds, mut nanos) = (None, 0);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Varint(n)) => seconds = Some(i64::from_ne_bytes(n.to_ne_bytes())),
            (2, Wire::Varint(n)) => nanos = i32::try_from(n).unwrap_or(0),
            _ => {}
        }
    }
    // An empty message is Go's zero time.
    let Some(seconds) = seconds else { return Ok(Value::Null) };
    let at = jiff::Timestamp::new(seconds, nanos).map_err(|e| e.to_string())?;
    let text = if micro { at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string() } else { crate::store::seconds(at) };
    Ok(text.into())
}

/// One value on the wire.
#[derive(Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// The fields of a message, in their order.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = read_field(&mut self.0);
        if read.is_err() {
            self.0 = &[];
        }
        Some(read)
    }
}

fn read_field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Wire<'a>), String> {
    let tag = varint(rest)?;
    let wire = match tag & 7 {
        0 => Wire::Varint(varint(rest)?),
        1 => Wire::Fixed64(u64::from_le_bytes(take(rest, 8)?.try_into().map_err(|_| "short read")?)),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|e| e.to_string())?;
            Wire::Bytes(take(rest, length)?)
        }
        5 => {
            take(rest, 4)?;
            Wire::Fixed32
        }
        other => return Err(format!("unknown protobuf wire type {other}")),
    };
    Ok((tag >> 3, wire))
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], String> {
    let (taken, left) = rest.split_at_checked(n).ok_or("the protobuf message ends too early")?;
    *rest = left;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut n = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, left) = rest.split_first().ok_or("the protobuf message ends too early")?;
        *rest = left;
        n |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err("a protobuf number is too long".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_message_of_the_table_is_a_definition_or_stands_inline() {
        let inline: Vec<&String> =
            MESSAGES.values().flat_map(HashMap::values).filter_map(|f| if let Field::Inline(n) = f { Some(n) } else { None }).collect();
        for name in inline {
            assert!(MESSAGES.contains_key(name), "{name}");
        }
        assert!(MESSAGES.len() > 200);
    }

    #[test]
    fn an_object_is_read_and_rubbish_is_refused() {
        // ConfigMap {metadata: {name: "c"}, data: {"a": "b"}} in its envelope, written by hand after the encoding's rules.
        let raw: &[u8] = &[0x0a, 3, 0x0a, 1, b'c', 0x12, 6, 0x0a, 1, b'a', 0x12, 1, b'b'];
        let mut body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12".to_vec();
        body.push(u8::try_from(raw.len()).unwrap());
        body.extend(raw);
        assert_eq!(decode(&body).unwrap(), json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}));
        for n in 0..body.len() {
            // Never a panic, whatever is cut off.
            let _ = decode(&body[..n]);
        }
        assert!(decode(b"{}").is_err());
    }
}
