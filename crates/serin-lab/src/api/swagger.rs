//! The Swagger document in its protobuf form, the only one that kubectl reads: it checks a `kind: List` with it before it sends one.
//!
//! Messages and field numbers are those of gnostic's OpenAPIv2.proto, as far as the lab's document goes: schemas, and no paths. Deliberately
//! knows no kind: JSON in, bytes out.

use prost::Message;
use serde_json::{Map, Value};

/// The media type in Kubernetes' answers. Clients ask for it with `@` in the place of the last `.` but one, as older ones did not.
pub(super) const MEDIA: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<Schemas>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {}

/// Definitions, or properties: schemas by name.
#[derive(Clone, PartialEq, Message)]
struct Schemas {
    #[prost(message, repeated, tag = "1")]
    all: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(message, optional, tag = "5")]
    default: Option<Any>,
    #[prost(double, tag = "7")]
    maximum: f64,
    #[prost(double, tag = "9")]
    minimum: f64,
    #[prost(int64, tag = "11")]
    max_length: i64,
    #[prost(int64, tag = "12")]
    min_length: i64,
    #[prost(string, tag = "13")]
    pattern: String,
    #[prost(int64, tag = "14")]
    max_items: i64,
    #[prost(int64, tag = "15")]
    min_items: i64,
    #[prost(int64, tag = "17")]
    max_properties: i64,
    #[prost(int64, tag = "18")]
    min_properties: i64,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, repeated, tag = "20")]
    choices: Vec<Any>,
    #[prost(message, optional, boxed, tag = "21")]
    additional: Option<Box<Additional>>,
    #[prost(message, optional, tag = "22")]
    kind: Option<Strings>,
    #[prost(message, optional, tag = "23")]
    items: Option<Items>,
    #[prost(message, optional, tag = "25")]
    properties: Option<Schemas>,
    #[prost(message, repeated, tag = "31")]
    extensions: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct Additional {
    #[prost(message, optional, boxed, tag = "1")]
    schema: Option<Box<Schema>>,
    #[prost(bool, optional, tag = "2")]
    any: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct Items {
    #[prost(message, repeated, tag = "1")]
    schema: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Strings {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

/// A value as YAML, of which JSON is a part.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "2")]
    yaml: String,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

/// Whether a caller that accepts this is answered in protobuf: it names it before anything else that would do.
pub(super) fn wanted(accept: &str) -> bool {
    let media = accept.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
    media.take_while(|media| !matches!(*media, "application/json" | "*/*")).any(|media| media == ASKED || media == MEDIA)
}

/// A Swagger document in protobuf.
pub(super) fn encoded(document: &Value) -> Vec<u8> {
    let text = |path: &str| document.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let out = Document {
        swagger: text("/swagger"),
        info: Some(Info { title: text("/info/title"), version: text("/info/version") }),
        paths: Some(Paths {}),
        definitions: document["definitions"].as_object().map(schemas),
    };
    out.encode_to_vec()
}

fn schemas(named: &Map<String, Value>) -> Schemas {
    Schemas { all: named.iter().map(|(name, value)| NamedSchema { name: name.clone(), value: Some(schema(value)) }).collect() }
}

fn schema(of: &Value) -> Schema {
    let text = |field: &str| of[field].as_str().unwrap_or_default().to_owned();
    let number = |field: &str| of[field].as_f64().unwrap_or_default();
    let count = |field: &str| of[field].as_i64().unwrap_or_default();
    let any = |value: &Value| Any { yaml: value.to_string() };
    let list = |field: &str| of[field].as_array().into_iter().flatten();
    let extensions = of.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"));
    Schema {
        reference: text("$ref"),
        format: text("format"),
        description: text("description"),
        default: of.get("default").map(any),
        maximum: number("maximum"),
        minimum: number("minimum"),
        max_length: count("maxLength"),
        min_length: count("minLength"),
        pattern: text("pattern"),
        max_items: count("maxItems"),
        min_items: count("minItems"),
        max_properties: count("maxProperties"),
        min_properties: count("minProperties"),
        required: list("required").filter_map(Value::as_str).map(str::to_owned).collect(),
        choices: list("enum").map(any).collect(),
        additional: of.get("additionalProperties").map(|more| {
            let (schema, any) = more.as_bool().map_or_else(|| (Some(Box::new(schema(more))), None), |any| (None, Some(any)));
            Box::new(Additional { schema, any })
        }),
        kind: of["type"].as_str().map(|kind| Strings { value: vec![kind.to_owned()] }),
        items: of.get("items").map(|items| Items { schema: vec![schema(items)] }),
        properties: of["properties"].as_object().map(schemas),
        extensions: extensions.map(|(name, value)| NamedAny { name: name.clone(), value: Some(any(value)) }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_for_whoever_does_not_ask_for_protobuf_first() {
        assert!(wanted(ASKED));
        assert!(wanted(&format!("application/xml, {MEDIA};q=0.9, */*")));
        assert!(!wanted(&format!("application/json, {ASKED}")));
        assert!(!wanted(""));
    }

    #[test]
    fn a_document_comes_back_as_it_was() {
        let of = json!({"type": "object", "x-a": [{"kind": "K"}], "required": ["spec"], "additionalProperties": false,
            "properties": {"spec": {"$ref": "#/definitions/S"}, "n": {"type": "array", "maxItems": 3, "items": {"type": "string", "enum": ["A"]}}}});
        let bytes = encoded(&json!({"swagger": "2.0", "info": {"title": "t", "version": "v"}, "paths": {}, "definitions": {"K": of}}));
        let read = Document::decode(bytes.as_slice()).expect("a document");
        let kind = read.definitions.expect("definitions").all.remove(0).value.expect("a schema");
        assert_eq!((kind.required.as_slice(), kind.additional.and_then(|a| a.any)), (&["spec".to_owned()][..], Some(false)));
        assert_eq!(kind.extensions[0].value.as_ref().map(|v| v.yaml.as_str()), Some(r#"[{"kind":"K"}]"#));
        let properties = kind.properties.expect("properties").all;
        let items = properties.iter().find(|p| p.name == "n").and_then(|p| p.value.clone()).expect("n");
        assert_eq!((items.max_items, items.items.map(|i| i.schema[0].choices[0].yaml.clone())), (3, Some("\"A\"".into())));
        assert_eq!(
            properties.iter().find(|p| p.name == "spec").and_then(|p| p.value.clone()).map(|s| s.reference),
            Some("#/definitions/S".into())
        );
    }
}
