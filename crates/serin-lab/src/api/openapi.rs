//! OpenAPI: the schemas of all kinds, so that `kubectl explain` and `kubectl apply` know them.
//!
//! One document per group and version, as Kubernetes serves them at `/openapi/v3`. Paths are listed only as far as clients
//! read them: which parameters a write takes.

use std::collections::BTreeSet;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use super::Api;
use super::kinds::{Kind, Origin, definition_of};
use super::schema::{PREFIX, definitions};
use super::status::{ApiError, ApiResult, respond};
use super::swagger;

/// `/openapi/v3`: where the documents are.
pub(super) fn index(api: &Api) -> Response {
    let mut paths = Map::new();
    for group in super::discovery::groups(api) {
        for version in super::discovery::versions(api, &group) {
            let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            // Clients cache documents by this hash: it changes when the kinds' schemas do.
            let hash = fingerprint(api, &group, &version);
            paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash:016X}")}));
        }
    }
    respond(StatusCode::OK, &json!({"paths": paths}))
}

fn fingerprint(api: &Api, group: &str, version: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for kind in of(api, group, version) {
        let schema = kind.version(version).map(|i| kind.versions[i].schema.to_string()).unwrap_or_default();
        for byte in kind.kind.bytes().chain(schema.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

fn of(api: &Api, group: &str, version: &str) -> Vec<std::sync::Arc<Kind>> {
    api.kinds().all().into_iter().filter(|k| k.resource.group == group && k.version(version).is_some()).collect()
}

/// `/openapi/v3/apis/GROUP/VERSION`.
///
/// # Errors
/// 404 for a group that is not served.
pub(super) fn group_version(api: &Api, segments: &[&str]) -> ApiResult<Response> {
    let (group, version) = match segments {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return Err(ApiError::no_such_path()),
    };
    if !super::discovery::versions(api, group).iter().any(|v| v == version) {
        return Err(ApiError::no_such_path());
    }
    let kinds = of(api, group, version);
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for kind in &kinds {
        let name = schema_name(kind, version);
        let mut schema = match kind.origin {
            Origin::BuiltIn => definitions().get(&name).cloned().unwrap_or_else(|| json!({"type": "object"})),
            Origin::Istio | Origin::Crd => kind.version(version).map(|i| (*kind.versions[i].schema).clone()).unwrap_or_default(),
        };
        let gvk = json!({"group": group, "version": version, "kind": kind.kind});
        schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        add_references(&schema, &mut schemas);
        schemas.insert(name.clone(), schema);
        add_paths(kind, version, &name, &gvk, &mut paths);
    }
    add_references(&json!({"$ref": format!("{PREFIX}io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")}), &mut schemas);
    let document = json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.35.0"},
        "paths": paths, "components": {"schemas": schemas},
    });
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], document.to_string()).into_response())
}

fn schema_name(kind: &Kind, version: &str) -> String {
    definition_of(kind).filter(|_| kind.origin == Origin::BuiltIn).unwrap_or_else(|| {
        let group: Vec<&str> = kind.resource.group.split('.').rev().collect();
        format!("{}.{version}.{}", group.join("."), kind.kind)
    })
}

/// Adds the definitions that a schema refers to, and those that they refer to.
fn add_references(schema: &Value, into: &mut Map<String, Value>) {
    let mut open: BTreeSet<String> = BTreeSet::new();
    collect(schema, &mut open);
    while let Some(name) = open.pop_first() {
        if into.contains_key(&name) {
            continue;
        }
        let Some(definition) = definitions().get(&name) else { continue };
        collect(definition, &mut open);
        into.insert(name, definition.clone());
    }
}

fn collect(schema: &Value, into: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("$ref", Value::String(reference)) => {
                        into.extend(reference.strip_prefix(PREFIX).map(str::to_owned));
                    }
                    _ => collect(value, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
        _ => {}
    }
}

/// The paths of a kind, with the parameters that clients look for before they use them.
fn add_paths(kind: &Kind, version: &str, schema: &str, gvk: &Value, paths: &mut Map<String, Value>) {
    let group = &kind.resource.group;
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let plural = &kind.resource.plural;
    let all = if kind.namespaced { format!("{root}/namespaces/{{namespace}}/{plural}") } else { format!("{root}/{plural}") };
    let one = format!("{all}/{{name}}");
    let query = |name: &str, description: &str| json!({"name": name, "in": "query", "description": description, "schema": {"type": "string", "uniqueItems": true}});
    let write = json!([
        query("dryRun", "When present, indicates that modifications should not be persisted. The only value is All."),
        query("fieldManager", "The name of the actor that makes these changes."),
        query("fieldValidation", "What to do with unknown or duplicate fields: Ignore, Warn or Strict."),
    ]);
    let reference = json!({"$ref": format!("{PREFIX}{schema}")});
    let json_body = json!({"required": true, "content": {"application/json": {"schema": reference}}});
    let responses = json!({"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}});
    let operation = |action: &str, parameters: &Value, body: &Value| {
        let mut operation = json!({
            "operationId": format!("{action}{}{}", version, kind.kind), "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk, "responses": responses, "parameters": parameters,
        });
        if !body.is_null() {
            operation["requestBody"] = body.clone();
        }
        operation
    };
    let none = json!([]);
    let patch_types = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    let patch_types = patch_types.iter().filter(|t| !(kind.is_custom() && t.contains("strategic")));
    let patch_body: Map<String, Value> = patch_types.map(|t| ((*t).to_owned(), json!({"schema": {"type": "object"}}))).collect();
    let patch_body = json!({"required": true, "content": patch_body});
    let path_parameter = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    let mut parameters = vec![path_parameter("name")];
    if kind.namespaced {
        parameters.push(path_parameter("namespace"));
    }
    let mut patch_parameters = write.clone();
    if let Some(list) = patch_parameters.as_array_mut() {
        list.push(query("force", "Take fields from other managers (server-side apply)."));
    }
    paths.insert(one, json!({
        "parameters": parameters,
        "get": operation("get", &none, &Value::Null),
        "put": operation("put", &write, &json_body),
        "patch": operation("patch", &patch_parameters, &patch_body),
        "delete": operation("delete", &json!([query("dryRun", ""), query("gracePeriodSeconds", ""), query("propagationPolicy", "")]), &Value::Null),
    }));
    paths.insert(all, json!({
        "parameters": parameters.split_off(1),
        "get": operation("list", &json!([query("labelSelector", ""), query("fieldSelector", ""), query("limit", ""), query("continue", ""), query("watch", ""), query("resourceVersion", "")]), &Value::Null),
        "post": operation("post", &write, &json_body),
        "delete": operation("deletecollection", &json!([query("labelSelector", ""), query("fieldSelector", "")]), &Value::Null),
    }));
}

/// `/openapi/v2`: Swagger, for clients that do not know version 3, and for kubectl when it is given a `kind: List`.
pub(super) fn v2(api: &Api, headers: &HeaderMap) -> Response {
    let mut schemas: Map<String, Value> = definitions().clone();
    for kind in api.kinds().all() {
        for version in kind.versions.iter().filter(|v| v.served) {
            let name = schema_name(&kind, &version.name);
            let mut schema = match kind.origin {
                Origin::BuiltIn => schemas.remove(&name).unwrap_or_else(|| json!({"type": "object"})),
                Origin::Istio | Origin::Crd => (*version.schema).clone(),
            };
            schema["x-kubernetes-group-version-kind"] = json!([{"group": kind.resource.group, "version": version.name, "kind": kind.kind}]);
            schemas.insert(name, schema);
        }
    }
    let mut definitions = Value::Object(schemas);
    downgrade(&mut definitions, true);
    let document = json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.35.0"}, "paths": {}, "definitions": definitions,
    });
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if swagger::wanted(accept) {
        return ([(header::CONTENT_TYPE, swagger::MEDIA)], swagger::encoded(&document)).into_response();
    }
    respond(StatusCode::OK, &document)
}

/// OpenAPI 3 schemas to Swagger 2: other references, no combinators.
fn downgrade(schema: &mut Value, is_map: bool) {
    match schema {
        Value::Object(fields) => {
            if !is_map {
                if let Some(only) = fields.get("allOf").and_then(|a| a.get(0)).and_then(|a| a.get("$ref")).cloned() {
                    fields.remove("allOf");
                    fields.insert("$ref".into(), only);
                }
                for gone in ["oneOf", "anyOf", "not", "nullable"] {
                    fields.remove(gone);
                }
                if let Some(Value::String(reference)) = fields.get_mut("$ref") {
                    *reference = reference.replace(PREFIX, "#/definitions/");
                }
            }
            for (key, value) in fields.iter_mut() {
                downgrade(value, !is_map && key == "properties");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| downgrade(item, false)),
        _ => {}
    }
}
