//! Get and list: one object, or all that a selection fits, in pages if asked; and containers' logs.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use base64::Engine;
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::call::Call;
use super::logs::{LogError, LogRequest};
use super::select::Selection;
use super::serve::{Accepted, Form, accepted, encode, stream, warn};
use super::status::{ApiError, ApiResult};
use super::{Api, convert, table};
use crate::store::Object;

/// The selection that a list, watch or deletecollection asks for.
///
/// # Errors
/// 400 when a selector cannot be read.
pub(super) fn selection(call: &Call) -> ApiResult<Selection> {
    let resource = &call.kind.resource;
    Selection::parse(
        call.query.get("labelSelector"),
        call.query.get("fieldSelector"),
        &call.kind_version().selectable,
        &resource.group,
        &resource.plural,
    )
}

/// An object as the client asked for it; without a copy where that is possible.
pub(super) fn shown(call: &Call, object: &Object) -> Object {
    if convert::is_version(&call.kind, call.version, object) {
        return object.clone();
    }
    Arc::new(convert::to_version(&call.kind, call.version, object))
}

/// Only kind and metadata of an object.
pub(super) fn metadata_only(object: &Value) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
}

/// Answers with one object, in the form the client accepts.
///
/// # Errors
/// 406.
pub(super) fn one(api: &Api, call: &Call, code: StatusCode, object: &Object, warnings: &[String]) -> ApiResult<Response> {
    let accepted = accepted(&call.headers)?;
    let object = shown(call, object);
    let mut response = match accepted.form {
        Form::Whole => encode(accepted, code, &object)?,
        Form::Metadata => encode(accepted, code, &metadata_only(&object))?,
        Form::Table => encode(accepted, code, &table::table(api, call, std::slice::from_ref(&object), &object["metadata"]))?,
    };
    warn(&mut response, warnings);
    Ok(response)
}

/// Warnings that belong to the version asked for.
pub(super) fn deprecations(call: &Call) -> Vec<String> {
    call.kind_version().deprecation.iter().cloned().collect()
}

/// `GET` of one object.
///
/// # Errors
/// 404, 406.
pub(super) fn get(api: &Api, call: &Call) -> ApiResult<Response> {
    let key = call.key()?;
    let found = api.store().get(&key).ok_or_else(|| ApiError::not_found(&call.kind.resource, &key.name))?;
    if call.sub.as_deref() == Some("scale") {
        let scale = Arc::new(super::scale::scale_of(call, &shown(call, &found)));
        return encode(accepted(&call.headers)?, StatusCode::OK, &scale);
    }
    one(api, call, StatusCode::OK, &found, &deprecations(call))
}

/// Where the next page begins.
#[derive(serde::Serialize, serde::Deserialize)]
struct Continue {
    /// The version of the first page, which all pages carry: a watch from there misses nothing.
    rv: u64,
    /// Namespace and name of the last object sent.
    namespace: Option<String>,
    name: String,
}

/// `GET` of many objects.
///
/// # Errors
/// 400 for a bad selector or page, 406.
pub(super) fn list(api: &Api, call: &Call) -> ApiResult<Response> {
    let accepted = accepted(&call.headers)?;
    let selection = selection(call)?;
    let after: Option<Continue> = call.query.get("continue").map(page).transpose()?;
    let (rv, after) = after.map(|page| (page.rv, (page.namespace, page.name))).unzip();
    let (all, now) = api.store().list_after(&convert::stored_as(&call.kind), call.namespace.as_deref(), after.as_ref());
    check_version(call, now)?;
    let version = rv.unwrap_or(now);
    let place = |o: &Object| {
        let meta = &o["metadata"];
        (meta["namespace"].as_str().map(str::to_owned), meta["name"].as_str().unwrap_or_default().to_owned())
    };
    let limit = call.query.number("limit")?.filter(|l| *l > 0).and_then(|l| usize::try_from(l).ok()).unwrap_or(usize::MAX);
    let everything = selection.is_everything();
    let mut fitting = all.iter().filter(|o| everything || selection.matches(&shown_for_selection(call, o)));
    let items: Vec<Object> = fitting.by_ref().take(limit).map(|o| shown(call, o)).collect();
    let left = if everything { all.len() - items.len() } else { fitting.count() };
    let mut meta = json!({"resourceVersion": version.to_string()});
    if left > 0
        && let Some(last) = items.last()
    {
        let (namespace, name) = place(last);
        let token = serde_json::to_vec(&Continue { rv: version, namespace, name }).unwrap_or_default();
        meta["continue"] = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token).into();
        if everything {
            meta["remainingItemCount"] = left.into();
        }
    }
    let mut response = match accepted {
        // Written as text, without copying the objects first.
        Accepted { form: Form::Whole, yaml: false } => {
            let text = serde_json::to_string(&List::of(call, &items, meta))
                .map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", e.to_string()))?;
            ([(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        accepted => encode(accepted, StatusCode::OK, &listed(api, call, accepted, &items, meta))?,
    };
    warn(&mut response, &deprecations(call));
    Ok(response)
}

/// A list as it is written.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    api_version: String,
    kind: &'a str,
    metadata: Value,
    items: Vec<Item<'a>>,
}

/// An object of a list. The list's kind says what its items are; only those of CRDs say it themselves, as on a cluster.
struct Item<'a> {
    object: &'a Value,
    says_its_kind: bool,
}

impl<'a> List<'a> {
    fn of(call: &'a Call, items: &'a [Object], metadata: Value) -> Self {
        let items = items.iter().map(|object| Item { object, says_its_kind: call.kind.is_custom() }).collect();
        Self { api_version: call.api_version(), kind: &call.kind.list_kind, metadata, items }
    }
}

impl serde::Serialize for Item<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.object.as_object().into_iter().flatten();
        serializer.collect_map(fields.filter(|(name, _)| self.says_its_kind || !matches!(name.as_str(), "apiVersion" | "kind")))
    }
}

fn listed(api: &Api, call: &Call, accepted: Accepted, items: &[Object], meta: Value) -> Value {
    match accepted.form {
        Form::Table => table::table(api, call, items, &meta),
        Form::Metadata => json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": meta,
            "items": items.iter().map(|o| metadata_only(o)).collect::<Vec<_>>(),
        }),
        Form::Whole => json!(List::of(call, items, meta)),
    }
}

/// Field selectors read the form that the client sees; only events have two.
pub(super) fn shown_for_selection(call: &Call, object: &Object) -> Object {
    if call.kind.is("events.k8s.io", "events") { shown(call, object) } else { object.clone() }
}

fn page(token: &str) -> ApiResult<Continue> {
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| ApiError::bad_request("continue key is not valid: it was not made by this server"))
}

/// Lists answer from now. A client that asks for an exact past version, or one that is still to come, is told so.
fn check_version(call: &Call, now: u64) -> ApiResult<()> {
    let Some(asked) = version_asked(call)? else { return Ok(()) };
    if asked > now {
        return Err(too_large(asked, now));
    }
    if call.query.get("resourceVersionMatch") == Some("Exact") && asked != now && asked != 0 {
        return Err(ApiError::expired(format!("The provided resource version is too old: {asked} ({now})")));
    }
    Ok(())
}

/// `resourceVersion` of the query; absent or empty is `None`.
///
/// # Errors
/// 400 when it is no number.
pub(super) fn version_asked(call: &Call) -> ApiResult<Option<u64>> {
    call.query
        .get("resourceVersion")
        .map(|v| {
            v.parse().map_err(|_| {
                ApiError::bad_request(format!("resourceVersion: Invalid value: {v:?}: strconv.ParseUint: parsing {v:?}: invalid syntax"))
            })
        })
        .transpose()
}

/// A version that this store never reached: the client knew another lab. It must begin anew, which 410 makes every client do.
pub(super) fn too_large(asked: u64, now: u64) -> ApiError {
    ApiError::expired(format!("Too large resource version: {asked}, current: {now}"))
}

/// `GET pods/NAME/log`.
///
/// # Errors
/// 400 for a container that is not there or not started, 404 for the pod.
pub(super) fn log(api: &Api, call: &Call) -> ApiResult<Response> {
    let key = call.key()?;
    let pod = api.store().get(&key).ok_or_else(|| ApiError::not_found(&call.kind.resource, &key.name))?;
    let names: Vec<&str> = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten())
        .filter_map(|c| c["name"].as_str())
        .collect();
    let main = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let container = match call.query.get("container") {
        Some(name) if names.contains(&name) => name,
        Some(name) => {
            return Err(ApiError::bad_request(format!("container {name} is not valid for pod {}", key.name)));
        }
        None if main == 1 => pod["spec"]["containers"][0]["name"].as_str().unwrap_or_default(),
        None => {
            let why = format!("a container name must be specified for pod {}, choose one of: [{}]", key.name, names.join(" "));
            return Err(ApiError::bad_request(why));
        }
    };
    let request = LogRequest {
        namespace: key.namespace.clone().unwrap_or_default(),
        pod: key.name.clone(),
        container: container.to_owned(),
        follow: call.query.flag("follow"),
        tail_lines: call.query.number("tailLines")?,
        previous: call.query.flag("previous"),
        timestamps: call.query.flag("timestamps"),
        since_seconds: call.query.number("sinceSeconds")?,
        limit_bytes: call.query.number("limitBytes")?,
    };
    let Some(logs) = api.logs() else {
        return Err(ApiError::not_implemented("this API server runs without a kubelet: there are no logs"));
    };
    let chunks = logs.open(request).map_err(|error| match error {
        LogError::NotThere(why) => ApiError::bad_request(why),
        LogError::Failed(why) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", why),
    })?;
    let stop = api.stopped().clone();
    let chunks = futures::StreamExt::take_until(chunks, async move { stop.cancelled().await });
    Ok(stream("text/plain", Box::pin(chunks)))
}
