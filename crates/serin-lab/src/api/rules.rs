//! CEL rules of custom kinds (`x-kubernetes-validations`), compiled once and run on each write.
//!
//! The language and Kubernetes' functions come from kube-cel. Rules are read by it from the schema, so this room only
//! keeps the compiled form and turns its findings into problems.

use kube_cel::{CompiledSchema, RootContext, Validator};
use serde_json::Value;

use super::status::{Fault, Problem};

/// The compiled rules of one version.
pub(super) struct Rules {
    compiled: CompiledSchema,
    context: RootContext,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("context", &self.context).finish_non_exhaustive()
    }
}

impl Rules {
    /// Compiles the rules of a schema, if it has any.
    ///
    /// # Errors
    /// What does not compile, one sentence for each rule.
    pub(super) fn compile(schema: &Value, group: &str, version: &str, kind: &str) -> Result<Option<Self>, Vec<String>> {
        let mut errors = Vec::new();
        let mut found = 0;
        find(schema, "", &mut |path, rule| {
            found += 1;
            let text = rule["rule"].as_str().unwrap_or_default();
            if let Err(why) = kube_cel::cel::Program::compile(text) {
                errors.push(format!("{path}: Invalid value: {text:?}: compilation failed: {why}"));
            }
        });
        if !errors.is_empty() {
            return Err(errors);
        }
        if found == 0 {
            return Ok(None);
        }
        let context = RootContext { api_version: super::kinds::api_version(group, version), api_group: group.into(), kind: kind.into() };
        Ok(Some(Self { compiled: kube_cel::compile_schema(schema), context }))
    }

    /// What the rules say against `new`; `old` is the object before, for rules on transitions.
    pub(super) fn check(&self, new: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
        let verdict = Validator::new().validate_compiled_with_context(&self.compiled, new, old, Some(&self.context));
        for error in verdict.err().into_iter().flatten() {
            let value = at(new, &error.field_path);
            let shown = match value {
                // As Kubernetes prints them: objects and lists by their type only.
                Some(Value::Object(_)) => "\"object\"".to_owned(),
                Some(Value::Array(_)) => "\"array\"".to_owned(),
                Some(value) => value.to_string(),
                None => "null".to_owned(),
            };
            let fault = match error.reason.as_deref() {
                Some("FieldValueForbidden") => Fault::Forbidden,
                Some("FieldValueRequired") => Fault::Required,
                Some("FieldValueDuplicate") => Fault::Duplicate(shown),
                _ => Fault::Invalid(shown),
            };
            problems.push(Problem { field: error.field_path.clone(), fault, detail: error.message.clone() });
        }
    }
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = object;
    for part in path.split(['.', '[']).map(|p| p.trim_end_matches(']')).filter(|p| !p.is_empty()) {
        value = match part.parse::<usize>() {
            Ok(index) if value.is_array() => value.get(index)?,
            _ => value.get(part)?,
        };
    }
    Some(value)
}

/// Calls `each` for every rule in a schema.
fn find(schema: &Value, path: &str, each: &mut impl FnMut(&str, &Value)) {
    let Some(fields) = schema.as_object() else { return };
    for (i, rule) in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten().enumerate() {
        each(&format!("{path}x-kubernetes-validations[{i}].rule"), rule);
    }
    for (name, property) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
        find(property, &format!("{path}properties[{name}]."), each);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get(key) {
            find(inner, &format!("{path}{key}."), each);
        }
    }
}
