//! Label and field selectors, as query parameters write them.
//!
//! It reads and matches; which field labels a kind supports is said in `fields_of`.

use serde_json::Value;

use super::status::{ApiError, ApiResult};

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Label {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

/// What a list, watch or deletecollection is limited to. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    labels: Vec<Label>,
    fields: Vec<(String, bool, String)>,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector` of a request to the resource `plural` of `group`.
    ///
    /// # Errors
    /// 400 for a selector that cannot be read, or a field label that the kind does not support.
    pub(super) fn parse(labels: Option<&str>, fields: Option<&str>, extra_fields: &[String], group: &str, plural: &str) -> ApiResult<Self> {
        let labels =
            parse_labels(labels.unwrap_or_default()).map_err(|why| ApiError::bad_request(format!("unable to parse requirement: {why}")))?;
        let fields = parse_fields(fields.unwrap_or_default(), group, plural, extra_fields)?;
        Ok(Self { labels, fields })
    }

    /// A selector that an object's own `spec.selector` or `scale` writes: labels only.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn labels(text: &str) -> Result<Self, String> {
        Ok(Self { labels: parse_labels(text)?, fields: Vec::new() })
    }

    /// The same, and only the object of this name.
    pub(super) fn and_name(mut self, name: &str) -> Self {
        self.fields.push(("metadata.name".into(), true, name.into()));
        self
    }

    /// Whether it selects everything.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the object is selected.
    pub(super) fn matches(&self, object: &Value) -> bool {
        let all = &object["metadata"]["labels"];
        let label = |key: &str| all.get(key).and_then(Value::as_str);
        let number = |key: &str| label(key).and_then(|v| v.parse::<i64>().ok());
        let labels = self.labels.iter().all(|requirement| match requirement {
            Label::In(key, values) => label(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Label::NotIn(key, values) => label(key).is_none_or(|v| !values.iter().any(|w| w == v)),
            Label::Exists(key) => label(key).is_some(),
            Label::Absent(key) => label(key).is_none(),
            Label::Greater(key, than) => number(key).is_some_and(|v| v > *than),
            Label::Less(key, than) => number(key).is_some_and(|v| v < *than),
        });
        labels && self.fields.iter().all(|(field, equal, wanted)| (field_text(object, field) == *wanted) == *equal)
    }
}

fn field_text(object: &Value, field: &str) -> String {
    let mut at = object;
    for part in field.split('.') {
        at = &at[part];
    }
    match at {
        Value::String(text) => text.clone(),
        Value::Null => match field {
            // Typed objects have a zero value where nothing is written.
            "spec.unschedulable" => "false".into(),
            "status.successful" | "status.replicas" => "0".into(),
            _ => String::new(),
        },
        other => other.to_string(),
    }
}

/// The field labels that a built-in kind knows besides `metadata.name` and `metadata.namespace`.
fn fields_of(group: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "events") => {
            &["regarding.kind", "regarding.namespace", "regarding.name", "regarding.uid", "reason", "type", "reportingController"]
        }
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "nodes") => &["spec.unschedulable"],
        ("apps", "replicasets") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        _ => &[],
    }
}

fn parse_fields(text: &str, group: &str, plural: &str, extra: &[String]) -> ApiResult<Vec<(String, bool, String)>> {
    let mut found = Vec::new();
    for term in split_unescaped(text, ',') {
        if term.is_empty() {
            continue;
        }
        let (field, equal, value) = if let Some((f, v)) = term.split_once("!=") {
            (f, false, v)
        } else if let Some((f, v)) = term.split_once("==") {
            (f, true, v)
        } else if let Some((f, v)) = term.split_once('=') {
            (f, true, v)
        } else {
            return Err(ApiError::bad_request(format!("invalid selector: '{text}'; can't understand '{term}'")));
        };
        let field = field.trim();
        let known = matches!(field, "metadata.name" | "metadata.namespace")
            || fields_of(group, plural).contains(&field)
            || extra.iter().any(|e| e == field);
        if !known {
            return Err(ApiError::bad_request(format!("field label not supported: {field}")));
        }
        let value = value.replace("\\=", "=").replace("\\,", ",").replace("\\\\", "\\");
        found.push((field.to_owned(), equal, value));
    }
    Ok(found)
}

fn split_unescaped(text: &str, at: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == at && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

fn parse_labels(text: &str) -> Result<Vec<Label>, String> {
    // Commas part requirements, except within parentheses.
    let (mut terms, mut depth) = (vec![String::new()], 0usize);
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or_else(|| format!("found ')' without '(' in {text:?}"))?,
            _ => {}
        }
        if c == ',' && depth == 0 {
            terms.push(String::new());
        } else if let Some(last) = terms.last_mut() {
            last.push(c);
        }
    }
    if depth > 0 {
        return Err(format!("found '(' without ')' in {text:?}"));
    }
    terms.iter().map(|t| t.trim()).filter(|t| !t.is_empty()).map(parse_label).collect()
}

fn parse_label(term: &str) -> Result<Label, String> {
    if let Some(key) = term.strip_prefix('!') {
        return Ok(Label::Absent(label_key(key)?));
    }
    if term.ends_with(')') {
        let (head, set) = term.split_once('(').ok_or_else(|| format!("found ')' without '(' in {term:?}"))?;
        let values = set.trim_end_matches(')').split(',').map(|v| label_value(v.trim())).collect::<Result<_, _>>()?;
        return match head.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => Ok(Label::In(label_key(key)?, values)),
            [key, "notin"] => Ok(Label::NotIn(label_key(key)?, values)),
            _ => Err(format!("found {head:?}, expected: a key with in or notin")),
        };
    }
    if let Some((key, value)) = term.split_once("!=") {
        return Ok(Label::NotIn(label_key(key)?, vec![label_value(value.trim())?]));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(Label::In(label_key(key)?, vec![label_value(value.trim())?]));
    }
    for (sign, greater) in [('>', true), ('<', false)] {
        if let Some((key, value)) = term.split_once(sign) {
            let n = value.trim().parse().map_err(|_| format!("for '{sign}' a whole number is needed, not {value:?}"))?;
            let key = label_key(key)?;
            return Ok(if greater { Label::Greater(key, n) } else { Label::Less(key, n) });
        }
    }
    Ok(Label::Exists(label_key(term)?))
}

fn label_key(key: &str) -> Result<String, String> {
    let key = key.trim();
    match super::names::label_key_problem(key) {
        None => Ok(key.to_owned()),
        Some(why) => Err(format!("key {key:?}: {why}")),
    }
}

fn label_value(value: &str) -> Result<String, String> {
    match super::names::label_value_problem(value) {
        None => Ok(value.to_owned()),
        Some(why) => Err(format!("value {value:?}: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_select_as_kubectl_writes_them() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front", "n": "7"}}});
        for (selector, selected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web, api),tier", true),
            ("app notin (web)", false),
            ("other notin (web)", true),
            ("!app", false),
            ("!other", true),
            ("n>6", true),
            ("n<7", false),
            ("app=", false),
        ] {
            let selection = Selection::parse(Some(selector), None, &[], "", "pods").unwrap();
            assert_eq!(selection.matches(&object), selected, "{selector}");
        }
        for bad in ["app in (web", "a b c", "=x", "n>x", "app=a b"] {
            assert!(Selection::parse(Some(bad), None, &[], "", "pods").is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors_select_known_fields_and_refuse_others() {
        let pod = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {"nodeName": "lab"}, "status": {"phase": "Running"}});
        for (selector, selected) in [
            ("metadata.name=a", true),
            ("metadata.name!=a", false),
            ("spec.nodeName=lab,status.phase==Running", true),
            ("spec.nodeName=", false),
            ("status.podIP=", true),
        ] {
            let selection = Selection::parse(None, Some(selector), &[], "", "pods").unwrap();
            assert_eq!(selection.matches(&pod), selected, "{selector}");
        }
        assert!(Selection::parse(None, Some("spec.replicas=1"), &[], "", "pods").is_err());
    }
}
