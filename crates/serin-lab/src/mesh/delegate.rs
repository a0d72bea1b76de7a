//! VirtualServices that hand a part of their routes to others: the routes of both as one list, with Istio's merge.
//!
//! Pure. A delegate's routes get what the root says of match, timeout and the like where they say nothing themselves; a route with an
//! entry of `match` that lies within no entry of the root's is dropped as a whole. A delegate cannot delegate further.

use serde_json::{Map, Value};

use super::translate::Complaint;
use super::world::{World, exported, list, present, text};

/// One http route as it applies.
pub(super) struct Http<'w> {
    /// Its fields, those of a root merged in.
    pub(super) fields: Value,
    /// The VirtualService that it stands in: short names are of its namespace.
    pub(super) from: &'w Value,
    /// Where in it: `http[2]`.
    pub(super) path: String,
}

/// What a delegate's route takes over from its root where it has nothing of its own.
const INHERITED: [&str; 12] = [
    "rewrite",
    "directResponse",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirrorPercentage",
    "mirrorPercent",
    "mirrors",
    "corsPolicy",
    "headers",
    "redirect",
];

/// The http routes of a VirtualService, its delegates' in the places where they are named.
pub(super) fn routes<'w>(world: &'w World, vs: &'w Value, complaints: &mut Vec<Complaint>) -> Vec<Http<'w>> {
    let mut out = Vec::new();
    for (i, http) in list(vs, "/spec/http").iter().enumerate() {
        let Some(delegate) = present(http, "delegate") else {
            out.push(Http { fields: http.clone(), from: vs, path: format!("http[{i}]") });
            continue;
        };
        let own = text(vs, "/metadata/namespace");
        let namespace = delegate["namespace"].as_str().unwrap_or(own);
        let name = text(delegate, "/name");
        let mut complain = |what: String| {
            complaints.push(Complaint::about("VirtualService", vs, format!("http[{i}] delegates to {namespace}/{name}, {what}")))
        };
        let found = world.routes.iter().find(|v| text(v, "/metadata/namespace") == namespace && text(v, "/metadata/name") == name);
        let Some(leaf) = found else {
            complain("which is not there: the route is left out, as Istio does".into());
            continue;
        };
        if !list(leaf, "/spec/hosts").is_empty() {
            complain("which has hosts of its own and so is no delegate: the route is left out, as Istio does".into());
            continue;
        }
        if exported(leaf, own).is_none() {
            complain("which is not exported to this namespace: the route is left out, as Istio does".into());
            continue;
        }
        for (j, inner) in list(leaf, "/spec/http").iter().enumerate() {
            if present(inner, "delegate").is_some() {
                complain(format!("whose http[{j}] delegates further, which Istio does not do: it is left out"));
                continue;
            }
            match merged(http, inner) {
                Some(fields) => out.push(Http { fields, from: leaf, path: format!("http[{j}]") }),
                None => {
                    complain(format!("whose http[{j}] has a match that lies within no match of http[{i}]: it is left out, as Istio does"))
                }
            }
        }
    }
    out
}

fn merged(root: &Value, leaf: &Value) -> Option<Value> {
    let mut out = leaf.clone();
    let fields = out.as_object_mut()?;
    for field in INHERITED {
        if let (Some(value), None) = (root.get(field), present(leaf, field)) {
            fields.insert(field.into(), value.clone());
        }
    }
    if let Some(name) = joined(root, leaf) {
        fields.insert("name".into(), name.into());
    }
    let (outer, inner) = (list(root, "/match"), list(leaf, "/match"));
    let matches: Vec<Value> = match (outer.is_empty(), inner.is_empty()) {
        (true, _) => inner.to_vec(),
        (false, true) => outer.to_vec(),
        (false, false) => {
            let mut all = Vec::new();
            for i in inner {
                let within: Vec<Value> = outer.iter().filter_map(|o| both(o, i)).collect();
                if within.is_empty() {
                    return None;
                }
                all.extend(within);
            }
            all
        }
    };
    if !matches.is_empty() {
        fields.insert("match".into(), matches.into());
    }
    Some(out)
}

/// The names of both, as Istio writes them.
fn joined(root: &Value, leaf: &Value) -> Option<String> {
    match (root["name"].as_str().unwrap_or_default(), leaf["name"].as_str().unwrap_or_default()) {
        ("", "") => None,
        (one, "") | ("", one) => Some(one.to_string()),
        (outer, inner) => Some(format!("{outer}-{inner}")),
    }
}

/// What fits both of two entries of `match`; `None` where nothing can.
fn both(outer: &Value, inner: &Value) -> Option<Value> {
    if (outer["ignoreUriCase"] == Value::Bool(true)) != (inner["ignoreUriCase"] == Value::Bool(true)) {
        return None;
    }
    let mut out = inner.as_object()?.clone();
    if let Some(name) = joined(outer, inner) {
        out.insert("name".into(), name.into());
    }
    for (field, value) in outer.as_object()? {
        match field.as_str() {
            "headers" | "withoutHeaders" | "queryParams" | "sourceLabels" => {
                let mut all: Map<String, Value> = value.as_object().cloned().unwrap_or_default();
                for (name, own) in inner[field.as_str()].as_object().into_iter().flatten() {
                    if let Some(there) = all.get(name)
                        && contradict(there, own)
                    {
                        return None;
                    }
                    all.insert(name.clone(), own.clone());
                }
                out.insert(field.clone(), all.into());
            }
            "uri" | "scheme" | "method" | "authority" => {
                if let Some(own) = inner.get(field) {
                    if contradict(value, own) {
                        return None;
                    }
                } else {
                    out.insert(field.clone(), value.clone());
                }
            }
            "name" => {}
            "port" | "sourceNamespace" if inner.get(field).is_some_and(|own| own != value) => return None,
            _ => {
                out.entry(field.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    Some(out.into())
}

/// Whether a delegate's string match cannot lie within its root's. Regular expressions are not compared: beside another they contradict.
fn contradict(root: &Value, leaf: &Value) -> bool {
    if root.is_string() || leaf.is_string() {
        // Labels of the source.
        return root != leaf;
    }
    let field = |v: &Value, f: &str| v[f].as_str().map(str::to_string);
    let any = |v: &Value| ["exact", "prefix", "regex"].iter().any(|f| v[*f].is_string());
    if !any(root) || !any(leaf) {
        return false;
    }
    if root["regex"].is_string() || leaf["regex"].is_string() {
        return true;
    }
    match (field(root, "exact"), field(root, "prefix"), field(leaf, "exact"), field(leaf, "prefix")) {
        (Some(root), _, leaf, _) => leaf.is_none_or(|leaf| leaf != root),
        (None, Some(root), Some(leaf), _) | (None, Some(root), None, Some(leaf)) => !leaf.starts_with(&root),
        _ => false,
    }
}
