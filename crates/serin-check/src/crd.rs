//! Serin's own objects against their CRDs: the structural schema, the CEL rules, and what the
//! plan itself refuses, each at the place it is about.
//!
//! The CRD is the file that is installed, so what is refused here is what an API server would
//! refuse, and what the controller would call an invalid plan.

use std::sync::OnceLock;

use kube_cel::{CompiledSchema, Validator, compile_schema};
use regex::Regex;
use serde_json::Value as Json;

use crate::object::{Kind, Object};
use crate::rules::nearest;
use crate::schema::{Issue, Problem};
use crate::source::{FileId, Loc, SourceFile};
use crate::yaml::{Type, View, parse};

const RELEASES: &str = include_str!("../../../deploy/crd/canaryreleases.serin.dev.yaml");
const POLICIES: &str = include_str!("../../../deploy/crd/canarypolicies.serin.dev.yaml");

struct Definition {
    /// Served versions.
    versions: Vec<String>,
    schema: Json,
    rules: CompiledSchema,
}

fn definition(kind: Kind) -> &'static Definition {
    static RELEASE: OnceLock<Definition> = OnceLock::new();
    static POLICY: OnceLock<Definition> = OnceLock::new();
    let (definition, text) = if kind == Kind::CanaryPolicy { (&POLICY, POLICIES) } else { (&RELEASE, RELEASES) };
    definition.get_or_init(|| {
        let file = parse(FileId(0), SourceFile::new("crd", text));
        let crd = file.docs().next().map(View::to_json).unwrap_or_default();
        let versions = crd["spec"]["versions"].as_array().cloned().unwrap_or_default();
        let schema = versions.last().map(|v| v["schema"]["openAPIV3Schema"].clone()).unwrap_or_default();
        Definition {
            versions: versions.iter().filter_map(|v| v["name"].as_str().map(str::to_owned)).collect(),
            rules: compile_schema(&schema),
            schema,
        }
    })
}

/// Whether a kind is one of Serin's own.
pub(crate) fn is_own(kind: Kind) -> bool {
    matches!(kind, Kind::CanaryRelease | Kind::CanaryPolicy)
}

/// Versions of the kind that are served.
pub(crate) fn versions(kind: Kind) -> &'static [String] {
    &definition(kind).versions
}

/// What the plan says of a spec that can be read.
fn of_the_plan(kind: Kind, spec: Json) -> Vec<serin_core::plan::Problem> {
    if kind == Kind::CanaryPolicy {
        return serde_json::from_value::<serin_api::CanaryPolicySpec>(spec).map(|p| serin_api::policy::problems(&p)).unwrap_or_default();
    }
    let read = serde_json::from_value::<serin_api::CanaryReleaseSpec>(spec);
    read.ok().and_then(|spec| serin_api::plan_of(&spec).err()).unwrap_or_default()
}

/// Compares a release or a policy with its CRD.
pub(crate) fn check(obj: &Object<'_>, out: &mut Vec<Issue>) {
    let definition = definition(obj.kind);
    if !definition.versions.iter().any(|v| v == obj.version) {
        return;
    }
    let before = out.len();
    structure(obj.view, &definition.schema, obj.kind_name, out);
    let json = obj.view.to_json();
    let mut refused: Vec<(String, String)> = Vec::new();
    if let Err(errors) = Validator::new().validate_compiled(&definition.rules, &json, None) {
        refused.extend(errors.iter().map(|e| (e.field_path.clone(), e.message.clone())));
    }
    // Only what can be read is a plan; what cannot has been told already.
    if out.len() == before {
        let problems = of_the_plan(obj.kind, json["spec"].clone());
        // Of a release a rule of its own tells of these.
        let down = if obj.kind == Kind::CanaryRelease { lower_steps(obj.view) } else { Vec::new() };
        refused.extend(
            problems
                .into_iter()
                .filter(|p| !down.iter().any(|(i, ..)| p.path == format!("spec.steps[{i}].weight")))
                .map(|p| (p.path, p.what)),
        );
    }
    for (path, message) in refused {
        let loc = locate(obj.view, &path);
        // What a misspelt field was meant to say cannot be missed by a rule on what holds it.
        let misspelt = |i: &Issue| {
            let inside = value_at(obj.view, &path).is_some_and(|v| v.loc().span.contains(i.loc.span));
            matches!(i.problem, Problem::Unknown { hint: Some(_), .. }) && inside
        };
        if out[before..].iter().any(|i| i.loc == loc || misspelt(i)) {
            continue;
        }
        out.push(Issue { problem: Problem::Refused, loc, label: message, help: None, fix: None });
    }
}

/// Steps whose weight is below that of a step before them: number, the weight, the higher one.
pub(crate) fn lower_steps(release: View<'_>) -> Vec<(usize, View<'_>, View<'_>)> {
    let mut found = Vec::new();
    let mut highest: Option<(u32, View<'_>)> = None;
    for (i, step) in release.get("spec").into_iter().flat_map(|s| s.list("steps")).enumerate() {
        let weight = step.get("weight");
        // A number with a fraction is refused by its type already.
        let parts = weight
            .filter(|w| w.ty() != Type::Float)
            .and_then(View::scalar)
            .and_then(|t| serin_core::units::Weight::parse(t).ok())
            .map(|w| w.parts());
        let (Some(weight), Some(parts)) = (weight, parts) else { continue };
        match highest {
            Some((top, high)) if parts < top => found.push((i, weight, high)),
            _ => highest = Some((parts, weight)),
        }
    }
    found
}

/// The value at a path, if all of the path is there.
fn value_at<'a>(root: View<'a>, path: &str) -> Option<View<'a>> {
    path.split(['.', '[']).map(|p| p.trim_end_matches(']')).filter(|p| !p.is_empty()).try_fold(root, |v, part| {
        match (v.ty(), part.parse::<usize>()) {
            (Type::Seq, Ok(n)) => v.items().nth(n),
            _ => v.get(part),
        }
    })
}

/// The place of a path such as `spec.steps[1].weight`: the deepest part that is there.
pub(crate) fn locate(root: View<'_>, path: &str) -> Loc {
    let mut view = root;
    let mut loc = root.get("spec").map_or_else(|| root.loc(), |_| root.key_loc("spec"));
    for part in path.split(['.', '[']).map(|p| p.trim_end_matches(']')).filter(|p| !p.is_empty()) {
        let next = match (view.ty(), part.parse::<usize>()) {
            (Type::Seq, Ok(n)) => view.items().nth(n).map(|v| (v, first_line(v))),
            _ => view.field(part).map(|f| (f.value, f.key_loc)),
        };
        let Some((v, l)) = next else { break };
        view = v;
        loc = l;
    }
    // A scalar is pointed at itself.
    if view.scalar().is_some() { view.loc() } else { loc }
}

fn first_line(v: View<'_>) -> Loc {
    v.fields().next().map_or_else(|| v.loc(), |f| f.key_loc)
}

fn bad(out: &mut Vec<Issue>, problem: Problem, loc: Loc, label: String, help: Option<String>) {
    out.push(Issue { problem, loc, label, help, fix: None });
}

fn structure(view: View<'_>, schema: &Json, name: &str, out: &mut Vec<Issue>) {
    if view.is_null() {
        return;
    }
    let int_or_string = schema["x-kubernetes-int-or-string"] == Json::Bool(true);
    let wanted = schema["type"].as_str().unwrap_or("");
    let fits = match (wanted, view.ty()) {
        _ if int_or_string => matches!(view.ty(), Type::Int | Type::Str),
        ("object", t) => t == Type::Map,
        ("array", t) => t == Type::Seq,
        ("string", t) => t == Type::Str,
        ("boolean", t) => t == Type::Bool,
        ("integer", t) => t == Type::Int,
        ("number", t) => matches!(t, Type::Int | Type::Float),
        _ => true,
    };
    if !fits {
        let (what, help, fix) = wrong_type(view, wanted, int_or_string);
        out.push(Issue {
            problem: Problem::WrongType,
            loc: if view.scalar().is_some() { view.loc() } else { first_line(view) },
            label: what,
            help,
            fix,
        });
        return;
    }
    match view.ty() {
        Type::Map => fields(view, schema, name, out),
        Type::Seq => items(view, schema, name, out),
        _ => value(view, schema, out),
    }
}

fn wrong_type(view: View<'_>, wanted: &str, int_or_string: bool) -> (String, Option<String>, Option<crate::diag::Fix>) {
    let word = match wanted {
        _ if int_or_string => "a whole number or text",
        "object" => "a mapping",
        "array" => "a list",
        "string" => "text",
        "boolean" => "true or false",
        "integer" => "a whole number",
        other => other,
    };
    let raw = view.scalar().filter(|_| !view.is_quoted() && (wanted == "string" || int_or_string));
    let help = raw.map(|r| format!("quote it: \"{r}\""));
    let fix = raw.and_then(|r| crate::diag::fix(format!("quote \"{r}\""), [crate::diag::replace(view, format!("\"{r}\""))]));
    (format!("{word} is wanted"), help, fix)
}

fn fields(view: View<'_>, schema: &Json, name: &str, out: &mut Vec<Issue>) {
    let properties = schema["properties"].as_object();
    let open = schema["x-kubernetes-preserve-unknown-fields"] == Json::Bool(true) || properties.is_none();
    for field in view.fields() {
        if name == "CanaryRelease" && field.key == "status" {
            continue;
        }
        match properties.and_then(|p| p.get(field.key)) {
            Some(inner) => structure(field.value, inner, field.key, out),
            None if schema["additionalProperties"].is_object() => structure(field.value, &schema["additionalProperties"], field.key, out),
            None if open => {}
            None => {
                let known = properties.into_iter().flat_map(|p| p.keys()).map(String::as_str);
                let hint = nearest(field.key, known.clone()).filter(|h| view.field(h).is_none());
                let all: Vec<&str> = known.collect();
                out.push(Issue {
                    problem: Problem::Unknown { hint: hint.map(str::to_owned), sure: true },
                    loc: field.key_loc,
                    label: format!("{name} has no field `{}`", field.key),
                    help: Some(hint.map_or_else(|| format!("it has {}", crate::rules::list(&all)), |h| format!("did you mean `{h}`?"))),
                    fix: hint.filter(|_| !view.is_shared()).map(|h| crate::diag::Fix {
                        title: format!("rename `{}` to `{h}`", field.key),
                        edits: vec![crate::diag::replace_at(field.key_loc, h)],
                    }),
                });
            }
        }
    }
    for need in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
        let misspelt = out
            .iter()
            .any(|i| matches!(&i.problem, Problem::Unknown { hint: Some(h), .. } if h == need) && view.loc().span.contains(i.loc.span));
        if view.get(need).is_none() && !misspelt {
            bad(out, Problem::Missing, first_line(view), format!("{name} needs `{need}`"), None);
        }
    }
}

fn items(view: View<'_>, schema: &Json, name: &str, out: &mut Vec<Issue>) {
    let n = view.items().len() as u64;
    if let Some(min) = schema["minItems"].as_u64().filter(|m| n < *m) {
        bad(out, Problem::BadValue, view.loc(), format!("at least {min} of them"), None);
    }
    if let Some(max) = schema["maxItems"].as_u64().filter(|m| n > *m) {
        bad(out, Problem::BadValue, first_line(view), format!("{n} of them; at most {max}"), None);
    }
    for item in view.items() {
        structure(item, &schema["items"], name, out);
    }
    // Lists that people patch are keyed: two items of one key are refused.
    for key in schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Json::as_str) {
        let mut seen: Vec<&str> = Vec::new();
        for item in view.items() {
            let Some(v) = item.get(key) else { continue };
            let Some(text) = v.scalar() else { continue };
            if seen.contains(&text) {
                bad(out, Problem::BadValue, v.loc(), format!("`{text}` stands twice: each {key} is unique in the list"), None);
            }
            seen.push(text);
        }
    }
}

fn value(view: View<'_>, schema: &Json, out: &mut Vec<Issue>) {
    let text = view.scalar().unwrap_or("");
    let say = |label: String| Issue { problem: Problem::BadValue, loc: view.loc(), label, help: None, fix: None };
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<&str> = words.iter().filter_map(Json::as_str).collect();
        if !words.contains(&text) {
            let near = nearest(text, words.iter().copied()).or_else(|| words.iter().find(|w| w.eq_ignore_ascii_case(text)).copied());
            let mut issue = say(format!("not one of {}", words.join(", ")));
            issue.help = near.map(|n| format!("did you mean `{n}`?"));
            issue.fix = near.and_then(|n| crate::diag::fix(format!("write `{n}`"), [crate::diag::replace(view, n)]));
            out.push(issue);
            return;
        }
    }
    if view.ty() == Type::Str {
        let n = text.chars().count() as u64;
        if let Some(min) = schema["minLength"].as_u64().filter(|m| n < *m) {
            out.push(say(format!("shorter than {min} characters")));
            return;
        }
        if let Some(max) = schema["maxLength"].as_u64().filter(|m| n > *m) {
            out.push(say(format!("longer than {max} characters")));
            return;
        }
        let pattern = schema["pattern"].as_str();
        if let Some(pattern) = pattern.filter(|p| Regex::new(p).is_ok_and(|r| !r.is_match(text))) {
            let mut issue = say(match pattern {
                p if p.contains("ms") => "not a duration",
                p if p.ends_with("%?$") => "not a weight",
                p if p.ends_with("%$") => "not a share",
                _ => "not allowed here",
            }
            .to_owned());
            issue.help = Some(match pattern {
                p if p.contains("ms") => "write it like 500ms, 10s, 5m or 1h30m".to_owned(),
                p if p.ends_with("%?$") => "write a whole number of percent, as 10, or text, as \"0.5%\"".to_owned(),
                p if p.ends_with("%$") => "write it like \"0.5%\"".to_owned(),
                p => format!("it must match {p}"),
            });
            out.push(issue);
        }
    } else if let Some(number) = view.number() {
        if let Some(min) = schema["minimum"].as_f64().filter(|m| number < *m) {
            out.push(say(format!("below {min}")));
        }
        if let Some(max) = schema["maximum"].as_f64().filter(|m| number > *m) {
            out.push(say(format!("above {max}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use crate::object::Kind;
    use crate::{Input, Options, check, render};

    fn found(spec: &str, kind: &str) -> String {
        let text = format!("apiVersion: serin.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: p}}\nspec: {spec}\n");
        let input = Input { path: "p.yaml".into(), bytes: text.into_bytes(), live: false };
        render::short(&check(vec![input], &Options::default()))
    }

    /// Every leaf of a schema: its path, items as 0, and a value of a type that it does not take.
    fn leaves(schema: &Json, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, &'static str)>) {
        let below = |name: &str, inner: &Json, path: &mut Vec<String>, found: &mut Vec<_>| {
            path.push(name.to_owned());
            leaves(inner, path, found);
            path.pop();
        };
        let refused_anyway = schema["x-kubernetes-preserve-unknown-fields"] == Json::Bool(true);
        match (schema["properties"].as_object(), schema["type"].as_str()) {
            _ if refused_anyway => found.push((path.clone(), "{}")),
            (Some(properties), _) => {
                found.push((path.clone(), "true"));
                properties.iter().for_each(|(name, inner)| below(name, inner, path, found));
            }
            (None, Some("array")) => {
                found.push((path.clone(), "true"));
                // Items of any shape belong to a field that is refused by its name.
                if schema["items"]["x-kubernetes-preserve-unknown-fields"] != Json::Bool(true) {
                    below("0", &schema["items"], path, found);
                }
            }
            (None, Some("boolean")) => found.push((path.clone(), "\"maybe\"")),
            (None, _) => found.push((path.clone(), "true")),
        }
    }

    /// An object that holds nothing but a way to one place, there `@@`.
    fn way_to(path: &[String]) -> Json {
        match path.split_first() {
            None => Json::from("@@"),
            Some((first, rest)) if first == "0" => Json::Array(vec![way_to(rest)]),
            Some((first, rest)) => Json::Object([(first.clone(), way_to(rest))].into_iter().collect()),
        }
    }

    /// Each field of both kinds is wrong in turn, and the line that it stands on is told.
    #[test]
    fn every_field_that_is_wrong_is_told_where_it_stands() {
        for kind in [Kind::CanaryRelease, Kind::CanaryPolicy] {
            let name = if kind == Kind::CanaryRelease { "CanaryRelease" } else { "CanaryPolicy" };
            let mut all = Vec::new();
            leaves(&super::definition(kind).schema["properties"]["spec"], &mut Vec::new(), &mut all);
            assert!(all.len() > 60, "{name} has {} fields", all.len());
            for (path, wrong) in all.iter().filter(|(path, _)| !path.is_empty()) {
                let mut spec = way_to(path);
                if kind == Kind::CanaryRelease && path[0] != "service" {
                    spec["service"] = "my-app".into();
                }
                let object = serde_json::json!({"apiVersion": "serin.dev/v1alpha1", "kind": name, "metadata": {"name": "p"}, "spec": spec});
                let text = serde_json::to_string_pretty(&object).expect("JSON");
                let line = text.lines().position(|l| l.contains("@@")).expect("the place") + 1;
                let input = Input { path: "p.yaml".into(), bytes: text.replace("\"@@\"", wrong).into_bytes(), live: false };
                let told = render::short(&check(vec![input], &Options::default()));
                assert!(
                    told.lines().any(|l| l.starts_with(&format!("p.yaml:{line}:")) && l.contains("error")),
                    "{name} {}: {wrong}\n{told}",
                    path.join(".")
                );
            }
        }
    }

    #[test]
    fn a_policy_is_held_against_its_own_definition_and_its_plan() {
        for (spec, said) in [
            ("{stepz: [{weight: 5}]}", "spec has no field `stepz`"),
            ("{freeze: true}", "text is wanted"),
            ("{steps: []}", "at least 1 of them"),
            ("{steps: [{weight: 50}, {weight: 10}]}", "lower than a step before it"),
            ("{windows: [{from: '9', to: '16:00'}]}", "SRN014"),
            ("{windows: [{from: '09:00', to: '16:00', timeZone: Mars/Base}]}", "Mars/Base"),
            ("{sources: [{name: a, prometheus: {url: 'ftp://p'}}]}", "SRN014"),
            ("{service: my-app}", "no field `service`"),
        ] {
            let told = found(spec, "CanaryPolicy");
            assert!(told.contains(said), "{spec}: {told:?}");
        }
        let good = "{steps: [{weight: 5}], freeze: INC-1, windows: [{from: '09:00', to: '16:00'}], sources: [{name: a, prometheus: {url: 'http://p:9090'}}]}";
        assert_eq!(found(good, "CanaryPolicy"), "");
        assert!(found("{}", "CanaryRelase").contains("has no kind CanaryRelase"), "{}", found("{}", "CanaryRelase"));
    }
}
