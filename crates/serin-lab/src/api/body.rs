//! Request bodies to values: JSON or YAML, with fields that are written twice noticed.
//!
//! It does not know kinds; unknown fields are found in `structural`.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::status::{ApiError, ApiResult};

/// A body, and the paths of the fields that it has more than once (the last one counts).
#[derive(Debug)]
pub(super) struct Body {
    /// What it says.
    pub value: Value,
    /// `spec.replicas`.
    pub duplicates: Vec<String>,
}

/// Reads a JSON body.
///
/// # Errors
/// 400 when it is no JSON.
pub(super) fn json(bytes: &[u8]) -> ApiResult<Body> {
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Seed { path: String::new(), duplicates: &mut duplicates }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|e| ApiError::bad_request(format!("the object provided is unrecognized: couldn't parse it as JSON: {e}")))?;
    Ok(Body { value, duplicates })
}

/// Reads a body in Kubernetes' protobuf encoding.
///
/// # Errors
/// 400 when it is none.
pub(super) fn protobuf(bytes: &[u8]) -> ApiResult<Body> {
    let value = super::protobuf::decode(bytes).map_err(|why| ApiError::bad_request(format!("error decoding protobuf: {why}")))?;
    Ok(Body { value, duplicates: Vec::new() })
}

/// Reads a YAML body (one document); JSON is YAML too.
///
/// # Errors
/// 400 when it is no YAML.
pub(super) fn yaml(bytes: &[u8]) -> ApiResult<Body> {
    let refuse = |why: String| ApiError::bad_request(format!("error decoding YAML: {why}"));
    let text = std::str::from_utf8(bytes).map_err(|e| refuse(e.to_string()))?;
    let value: Value = serde_saphyr::from_str(text).map_err(|e| refuse(e.to_string()))?;
    Ok(Body { value, duplicates: Vec::new() })
}

/// Reads a file of YAML documents; empty ones are left out.
///
/// # Errors
/// What the parser says, with the number of the document.
pub(super) fn documents(text: &str) -> Result<Vec<Value>, String> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|e| e.to_string())?;
    Ok(all.into_iter().filter(|d| !d.is_null()).collect())
}

struct Seed<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        loop {
            let seed = Seed { path: format!("{}[{}]", self.path, all.len()), duplicates: &mut *self.duplicates };
            match seq.next_element_seed(seed)? {
                Some(value) => all.push(value),
                None => return Ok(Value::Array(all)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = super::structural::join(&self.path, &key);
            let value = map.next_value_seed(Seed { path: path.clone(), duplicates: &mut *self.duplicates })?;
            if all.insert(key, value).is_some() && !self.duplicates.contains(&path) {
                self.duplicates.push(path);
            }
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_written_twice_is_noticed_and_the_last_one_counts() {
        let body = json(br#"{"spec": {"a": 1, "b": [{"c": 1, "c": 2}], "a": 3}}"#).unwrap();
        assert_eq!(body.value["spec"]["a"], 3);
        assert_eq!(body.duplicates, ["spec.b[0].c", "spec.a"]);
        assert!(json(b"{} x").is_err());
        assert!(json(b"").is_err());
    }
}
