//! CustomResourceDefinitions: judged when written, served at once.
//!
//! A real server needs a moment between accepting a CRD and serving it; here both are one step, and its conditions say so.

use std::sync::Arc;

use regex::Regex;
use serde_json::{Value, json};

use super::kinds::{Column, Kind, Origin, ScalePaths, Version};
use super::rules::Rules;
use super::status::Problem;
use super::{Api, schema};
use crate::store::{Resource, seconds};

/// Fills in what a CRD's author may leave out, sets its conditions, and finds what is wrong with it.
pub(super) fn judge(crd: &mut Value, old: Option<&Value>, now: jiff::Timestamp, problems: &mut Vec<Problem>) {
    let spec = &mut crd["spec"];
    let kind = spec["names"]["kind"].as_str().unwrap_or_default().to_owned();
    for (field, value) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
        if spec["names"][field].as_str().is_none_or(str::is_empty) && !kind.is_empty() {
            spec["names"][field] = value.into();
        }
    }
    if !spec["conversion"].is_object() {
        spec["conversion"] = json!({"strategy": "None"});
    }
    check(crd, old, problems);
    if problems.is_empty() {
        set_status(crd, old, now);
    }
}

fn check(crd: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    let spec = &crd["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    for (path, value) in [("spec.group", &group), ("spec.names.plural", &plural), ("spec.names.kind", &text(&spec["names"]["kind"]))] {
        if value.is_empty() {
            problems.push(Problem::required(path, ""));
        }
    }
    if crd["metadata"]["name"] != format!("{plural}.{group}") {
        let why = format!("must be spec.names.plural+\".\"+spec.group ({plural}.{group})");
        problems.push(Problem::invalid("metadata.name", &crd["metadata"]["name"], why));
    }
    let scopes = ["Cluster", "Namespaced"];
    match spec["scope"].as_str() {
        None | Some("") => problems.push(Problem::required("spec.scope", "")),
        Some(scope) if !scopes.contains(&scope) => problems.push(Problem::not_supported("spec.scope", &scope.into(), &scopes)),
        Some(_) => {}
    }
    match spec["conversion"]["strategy"].as_str() {
        Some("None") => {}
        Some("Webhook") => {
            problems.push(Problem::invalid("spec.conversion.strategy", &"Webhook".into(), "the lab calls no conversion webhooks; use None"))
        }
        _ => problems.push(Problem::not_supported("spec.conversion.strategy", &spec["conversion"]["strategy"], &["None", "Webhook"])),
    }
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let stored = versions.iter().filter(|v| v["storage"] == true).count();
    if stored != 1 {
        problems.push(Problem::invalid("spec.versions", &spec["versions"], "must have exactly one version marked as storage version"));
    }
    let mut names: Vec<&Value> = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{i}]");
        if names.contains(&&version["name"]) {
            problems.push(Problem::duplicate(format!("{at}.name"), &version["name"]));
        }
        names.push(&version["name"]);
        let schema = &version["schema"]["openAPIV3Schema"];
        let path = format!("{at}.schema.openAPIV3Schema");
        if schema.is_null() {
            problems.push(Problem::required(path, "schemas are required"));
            continue;
        }
        if schema["type"] != "object" {
            problems.push(Problem::invalid(format!("{path}.type"), &schema["type"], "must be object at the root"));
        }
        structure(schema, &path, false, problems);
        let (kind, version) = (text(&spec["names"]["kind"]), text(&version["name"]));
        for why in Rules::compile(schema, &group, &version, &kind).err().unwrap_or_default() {
            let (field, why) = why.split_once(": ").unwrap_or(("", &why));
            problems.push(Problem {
                field: format!("{path}.{field}"),
                fault: super::status::Fault::Invalid("rule".into()),
                detail: why.into(),
            });
        }
    }
    if let Some(old) = old {
        for field in ["group", "scope"] {
            if old["spec"][field] != spec[field] {
                problems.push(Problem::invalid(format!("spec.{field}"), &spec[field], "field is immutable"));
            }
        }
    }
}

/// Whether a schema is structural: each place has a type, and combinators only add limits.
fn structure(schema: &Value, path: &str, nested: bool, problems: &mut Vec<Problem>) {
    let Some(fields) = schema.as_object() else { return };
    let flag = |key: &str| schema[key] == true;
    let typed = schema["type"].as_str().is_some_and(|t| !t.is_empty());
    if !typed && !flag("x-kubernetes-int-or-string") && !flag("x-kubernetes-preserve-unknown-fields") {
        let what = if nested { "must not be empty for specified object fields" } else { "must not be empty at the root" };
        problems.push(Problem::required(format!("{path}.type"), what));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && let Err(error) = Regex::new(pattern)
    {
        problems.push(Problem::invalid(
            format!("{path}.pattern"),
            &schema["pattern"],
            format!("must be a valid regular expression, but isn't: {error}"),
        ));
    }
    if fields.contains_key("$ref") {
        problems.push(Problem::forbidden(format!("{path}.$ref"), "$ref is not supported"));
    }
    if flag("uniqueItems") {
        problems.push(Problem::forbidden(
            format!("{path}.uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().map_or(&[][..], Vec::as_slice);
            if keys.is_empty() {
                problems.push(Problem::required(
                    format!("{path}.x-kubernetes-list-map-keys"),
                    "must not be empty if x-kubernetes-list-type is map",
                ));
            }
            for (i, key) in keys.iter().filter_map(Value::as_str).enumerate() {
                let item = &schema["items"];
                if item["properties"][key].is_null() {
                    let why = format!("entries must all be names of item properties (no {key:?})");
                    problems.push(Problem::invalid(format!("{path}.x-kubernetes-list-map-keys[{i}]"), &key.into(), why));
                }
                let required = item["required"].as_array().is_some_and(|r| r.iter().any(|k| k == key));
                if !required && item["properties"][key]["default"].is_null() {
                    problems.push(Problem::required(
                        format!("{path}.items.properties[{key}].default"),
                        "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                    ));
                }
            }
        }
        None | Some("atomic" | "set") => {}
        Some(_) => problems.push(Problem::not_supported(
            format!("{path}.x-kubernetes-list-type"),
            &schema["x-kubernetes-list-type"],
            &["atomic", "map", "set"],
        )),
    }
    if schema["type"] == "array" && schema["items"].is_null() {
        problems.push(Problem::required(format!("{path}.items"), "must be specified"));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        structure(property, &format!("{path}.properties[{name}]"), true, problems);
    }
    if schema["properties"].is_object() && schema["additionalProperties"].is_object() {
        problems
            .push(Problem::forbidden(format!("{path}.additionalProperties"), "additionalProperties and properties are mutual exclusive"));
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            structure(&schema[key], &format!("{path}.{key}"), true, problems);
        }
    }
}

fn set_status(crd: &mut Value, old: Option<&Value>, now: jiff::Timestamp) {
    let spec = crd["spec"].clone();
    let stored = spec["versions"].as_array().into_iter().flatten().find(|v| v["storage"] == true).map(|v| v["name"].clone());
    let before = old.map_or(&Value::Null, |o| &o["status"]);
    let mut versions = before["storedVersions"].as_array().cloned().unwrap_or_default();
    if let Some(stored) = stored
        && !versions.contains(&stored)
    {
        versions.push(stored);
    }
    let was = before["conditions"].as_array().filter(|c| c.iter().any(|c| c["type"] == "Established" && c["status"] == "True"));
    let now = seconds(now);
    let conditions = was.cloned().unwrap_or_else(|| {
        vec![
            json!({"type": "NamesAccepted", "status": "True", "lastTransitionTime": now, "reason": "NoConflicts", "message": "no conflicts found"}),
            json!({"type": "Established", "status": "True", "lastTransitionTime": now, "reason": "InitialNamesAccepted", "message": "the initial names have been accepted"}),
        ]
    });
    crd["status"] = json!({"acceptedNames": spec["names"], "conditions": conditions, "storedVersions": versions});
}

/// Serves the kind that a stored CRD defines.
pub(super) fn serve(api: &Api, crd: &Value) {
    match kind_of(crd) {
        Ok(kind) => api.kinds().put(kind),
        Err(error) => tracing::error!(crd = %crd["metadata"]["name"], error, "serve a custom kind"),
    }
}

/// Ends serving a kind whose CRD is gone, and deletes its objects.
pub(super) fn forget(api: &Api, crd: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resource = Resource::new(text(&crd["spec"]["group"]), text(&crd["spec"]["names"]["plural"]));
    api.kinds().remove(&resource);
    let (objects, _) = api.store().list(&resource, None);
    for object in objects {
        let meta = &object["metadata"];
        let key = crate::store::Key {
            resource: resource.clone(),
            namespace: meta["namespace"].as_str().map(Into::into),
            name: text(&meta["name"]),
        };
        // Finalizers' owners cannot reach the object any more: it goes with its kind.
        let _ = api.store().update(&key, crate::store::Write::Whole, |old| {
            let mut new = old.clone();
            crate::store::metadata(&mut new).remove("finalizers");
            Ok::<_, crate::store::StoreError>(new)
        });
        let _ = api.store().delete(&key, None, 0);
    }
}

fn kind_of(crd: &Value) -> Result<Kind, String> {
    let spec = &crd["spec"];
    let names = &spec["names"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let (group, kind) = (text(&spec["group"]), text(&names["kind"]));
    let mut versions = Vec::new();
    let mut storage = String::new();
    for version in spec["versions"].as_array().into_iter().flatten() {
        let name = text(&version["name"]);
        if version["storage"] == true {
            storage.clone_from(&name);
        }
        let schema = version["schema"]["openAPIV3Schema"].clone();
        let rules = Rules::compile(&schema, &group, &name, &kind).map_err(|all| all.join("; "))?;
        let deprecation = (version["deprecated"] == true).then(|| {
            let default = format!("{group}/{name} {kind} is deprecated");
            version["deprecationWarning"].as_str().map_or(default, str::to_owned)
        });
        versions.push(Version {
            served: version["served"] == true,
            status: version["subresources"]["status"].is_object(),
            scale: scale_paths(&version["subresources"]["scale"]),
            schema: Arc::new(schema::custom_root(schema)),
            columns: version["additionalPrinterColumns"].as_array().into_iter().flatten().map(column).collect(),
            selectable: version["selectableFields"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|f| text(&f["jsonPath"]).trim_start_matches('.').to_owned())
                .collect(),
            rules: rules.map(Arc::new),
            deprecation,
            name,
        });
    }
    versions.sort_by_key(|v| std::cmp::Reverse(super::discovery::priority(&v.name)));
    Ok(Kind {
        resource: Resource::new(group, text(&names["plural"])),
        list_kind: names["listKind"].as_str().map_or_else(|| format!("{kind}List"), str::to_owned),
        singular: names["singular"].as_str().map_or_else(|| kind.to_lowercase(), str::to_owned),
        short: all(&names["shortNames"]),
        categories: all(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        versions,
        storage,
        origin: Origin::Crd,
        kind,
    })
}

fn scale_paths(scale: &Value) -> Option<ScalePaths> {
    let path = |field: &str| {
        let text = scale[field].as_str()?;
        Some(text.trim_start_matches('.').split('.').map(str::to_owned).collect::<Vec<_>>())
    };
    Some(ScalePaths { spec: path("specReplicasPath")?, status: path("statusReplicasPath")?, selector: path("labelSelectorPath") })
}

fn column(value: &Value) -> Column {
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    Column {
        name: text("name"),
        kind: text("type"),
        format: text("format"),
        description: text("description"),
        priority: value["priority"].as_i64().unwrap_or(0),
        path: text("jsonPath"),
    }
}
