//! SARIF output against OASIS' own schema (`tests/data/sarif-schema-2.1.0.json`, without its descriptions and defaults).
//!
//! The validator knows the keywords of that schema and panics at any other: it cannot pass by not looking.

use regex::Regex;
use serde_json::Value;
use serin_check::{all, render};

use super::check_text;

const SCHEMA: &str = include_str!("../data/sarif-schema-2.1.0.json");

fn validate(root: &Value, schema: &Value, value: &Value, path: &str, out: &mut Vec<String>) {
    for (keyword, want) in schema.as_object().expect("a schema is an object") {
        let mut bad = |what: String| out.push(format!("{path}: {what}"));
        match keyword.as_str() {
            "$schema" | "$id" | "title" | "definitions" => {}
            // Formats are annotations in draft 7; those of the output are made by code that is tested.
            "format" => {}
            "$ref" => {
                let target = want.as_str().and_then(|r| r.strip_prefix('#')).and_then(|p| root.pointer(p)).expect("a definition");
                validate(root, target, value, path, out);
            }
            "type" => {
                let fits = match want.as_str().expect("one type") {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    other => panic!("type {other}"),
                };
                if !fits {
                    bad(format!("no {want}"));
                }
            }
            "required" => {
                for key in want.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if value.is_object() && value.get(key).is_none() {
                        bad(format!("lacks {key}"));
                    }
                }
            }
            "properties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = want.get(key) {
                        validate(root, schema, inner, &format!("{path}.{key}"), out);
                    }
                }
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                for (key, inner) in value.as_object().into_iter().flatten() {
                    if known.is_some_and(|k| k.contains_key(key)) {
                        continue;
                    }
                    match want {
                        Value::Bool(true) => {}
                        Value::Bool(false) => out.push(format!("{path}: knows no {key}")),
                        schema => validate(root, schema, inner, &format!("{path}.{key}"), out),
                    }
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(root, want, item, &format!("{path}[{n}]"), out);
                }
            }
            "minItems" => {
                if value.as_array().is_some_and(|a| (a.len() as u64) < want.as_u64().expect("a number")) {
                    bad(format!("fewer than {want}"));
                }
            }
            "uniqueItems" => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                if items.iter().enumerate().any(|(n, i)| items[..n].contains(i)) {
                    bad("an item twice".to_owned());
                }
            }
            "minimum" | "maximum" => {
                let (n, limit) = (value.as_f64(), want.as_f64().expect("a number"));
                if n.is_some_and(|n| if keyword == "minimum" { n < limit } else { n > limit }) {
                    bad(format!("beyond {want}"));
                }
            }
            "enum" => {
                if !want.as_array().is_some_and(|w| w.contains(value)) {
                    bad(format!("not one of {want}"));
                }
            }
            "pattern" => {
                let pattern = Regex::new(want.as_str().expect("text")).expect("a pattern");
                if value.as_str().is_some_and(|s| !pattern.is_match(s)) {
                    bad(format!("does not match {want}"));
                }
            }
            "anyOf" | "oneOf" => {
                let fits = |schema: &&Value| {
                    let mut problems = Vec::new();
                    validate(root, schema, value, path, &mut problems);
                    problems.is_empty()
                };
                let n = want.as_array().into_iter().flatten().filter(fits).count();
                if n == 0 || keyword == "oneOf" && n > 1 {
                    bad(format!("fits {n} of {keyword}"));
                }
            }
            other => panic!("the schema uses {other}, which this validator does not know"),
        }
    }
}

fn problems(text: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    let value: Value = serde_json::from_str(text).expect("JSON");
    let mut out = Vec::new();
    validate(&schema, &schema, &value, "$", &mut out);
    out
}

#[test]
fn reports_of_every_rule_fit_the_schema() {
    for rule in all() {
        for example in rule.page().examples() {
            let text = render::sarif(&check_text(&example.yaml, example.complete));
            assert_eq!(problems(&text), Vec::<String>::new(), "{}", rule.code);
        }
    }
    assert_eq!(problems(include_str!("../outputs/report.sarif")), Vec::<String>::new());
}

#[test]
fn the_validator_refuses_what_does_not_fit() {
    let good: Value = serde_json::from_str(include_str!("../outputs/report.sarif")).expect("JSON");
    let broken = |pointer: &str, value: Value| {
        let mut text = good.clone();
        *text.pointer_mut(pointer).expect("a place") = value;
        !problems(&text.to_string()).is_empty()
    };
    assert!(broken("/version", "2.0.0".into()));
    assert!(broken("/runs/0/results/0/level", "fatal".into()));
    assert!(broken("/runs/0/results/0/message", Value::Null));
    assert!(broken("/runs/0/results/0/locations/0/physicalLocation/region/startLine", 0.into()));
    assert!(broken("/runs/0/tool/driver", serde_json::json!({})));
}
