//! The part of JSONPath that printer columns use: fields, quoted fields, indices, `[*]`, and filters on equality.
//!
//! `.status.conditions[?(@.type=="Ready")].status`, `.metadata.annotations.example\.com/x`, `.spec.hosts[0]`.

use serde_json::Value;

/// All values at `path`; a path that cannot be read finds nothing.
pub(super) fn find<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    let Some(steps) = parse(path) else { return Vec::new() };
    steps.iter().fold(vec![object], |at, step| at.into_iter().flat_map(|value| step.apply(value)).collect())
}

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Equals { path: String, equal: bool, value: String },
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(n) => {
                let Some(items) = value.as_array() else { return Vec::new() };
                let at = if *n < 0 { items.len().checked_sub(n.unsigned_abs() as usize) } else { usize::try_from(*n).ok() };
                at.and_then(|i| items.get(i)).into_iter().collect()
            }
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            },
            Self::Equals { path, equal, value: wanted } => {
                let is = |item: &&Value| find(item, path).first().is_some_and(|v| text(v) == *wanted) == *equal;
                value.as_array().into_iter().flatten().filter(is).collect()
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn parse(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut chars = path.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '.' => {}
            '[' => {
                let mut inner = String::new();
                let mut quote = None;
                loop {
                    let c = chars.next()?;
                    match (c, quote) {
                        (']', None) => break,
                        ('\'' | '"', None) => quote = Some(c),
                        (c, Some(q)) if c == q => quote = None,
                        _ => {}
                    }
                    inner.push(c);
                }
                steps.push(bracket(inner.trim())?);
            }
            '*' => steps.push(Step::All),
            c => {
                let mut name = String::new();
                let mut next = Some(c);
                while let Some(c) = next {
                    if c == '\\' {
                        name.push(chars.next()?);
                    } else {
                        name.push(c);
                    }
                    next = chars.next_if(|c| *c != '.' && *c != '[');
                }
                steps.push(Step::Field(name));
            }
        }
    }
    Some(steps)
}

fn bracket(inner: &str) -> Option<Step> {
    let unquoted = |text: &str| {
        let text = text.trim();
        let quoted = |q: char| text.len() > 1 && text.starts_with(q) && text.ends_with(q);
        (quoted('\'') || quoted('"')).then(|| text[1..text.len() - 1].to_owned())
    };
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(inner) {
        return Some(Step::Field(name));
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        let (left, equal, right) = match filter.split_once("==") {
            Some((left, right)) => (left, true, right),
            None => filter.split_once("!=").map(|(left, right)| (left, false, right))?,
        };
        let path = left.trim().strip_prefix('@')?.to_owned();
        let value = unquoted(right).unwrap_or_else(|| right.trim().to_owned());
        return Some(Step::Equals { path, equal, value });
    }
    inner.parse().ok().map(Step::Index)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_printer_columns_find_their_values() {
        let object = json!({
            "metadata": {"annotations": {"example.com/x": "y"}},
            "spec": {"hosts": ["a", "b"], "n": 3},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        for (path, found) in [
            (".spec.n", vec![json!(3)]),
            ("{.spec.n}", vec![json!(3)]),
            (".spec.hosts", vec![json!(["a", "b"])]),
            (".spec.hosts[1]", vec![json!("b")]),
            (".spec.hosts[-1]", vec![json!("b")]),
            (".spec.hosts[*]", vec![json!("a"), json!("b")]),
            (".spec.hosts[9]", vec![]),
            (".status.conditions[?(@.type==\"Ready\")].status", vec![json!("True")]),
            (".status.conditions[?(@.type!='Ready')].status", vec![json!("False")]),
            (".metadata.annotations.example\\.com/x", vec![json!("y")]),
            (".metadata.annotations['example.com/x']", vec![json!("y")]),
            (".none.at.all", vec![]),
            (".spec[", vec![]),
        ] {
            assert_eq!(find(&object, path).into_iter().cloned().collect::<Vec<_>>(), found, "{path}");
        }
    }
}
