//! Deleting: preconditions, grace, and what becomes of the dependents.
//!
//! Dependents and namespaces' contents are deleted by `gc`, which acts on what is written here: finalizers and
//! deletion times.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::call::Call;
use super::kinds::Kind;
use super::serve::{accepted, encode};
use super::status::{ApiError, ApiResult, Problem};
use super::write::{Options, read_body};
use super::{Api, convert, crd, read};
use crate::store::{Key, Object, StoreError, Write, metadata};

/// Finalizer of an object that waits for its dependents to go.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents are to stay.
pub(super) const ORPHAN: &str = "orphan";

/// What becomes of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Propagation {
    /// They go after the owner.
    Background,
    /// They go before the owner.
    Foreground,
    /// They stay.
    Orphan,
}

struct Wish {
    dry_run: bool,
    propagation: Option<Propagation>,
    grace: Option<u64>,
    uid: Option<String>,
    version: Option<String>,
}

impl Wish {
    fn read(call: &Call, bytes: &[u8]) -> ApiResult<Self> {
        let body = if bytes.is_empty() { Value::Null } else { read_body(&call.headers, bytes)?.value };
        Self::of(call, &body)
    }

    fn of(call: &Call, body: &Value) -> ApiResult<Self> {
        let kind = body["kind"].as_str().unwrap_or("DeleteOptions");
        if !matches!(kind, "DeleteOptions" | "") {
            return Err(ApiError::bad_request(format!("decoded object cannot be converted to DeleteOptions: it is a {kind}")));
        }
        let text = |name: &str| body[name].as_str().map(str::to_owned).or_else(|| call.query.get(name).map(str::to_owned));
        let orphan = body["orphanDependents"].as_bool().or_else(|| call.query.get("orphanDependents").map(|v| v == "true"));
        let propagation = match (text("propagationPolicy").as_deref(), orphan) {
            (None, None) => None,
            (None, Some(true)) | (Some("Orphan"), None) => Some(Propagation::Orphan),
            (None, Some(false)) | (Some("Background"), None) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some(other), None) => {
                let problem = Problem::not_supported("propagationPolicy", &other.into(), &["Foreground", "Background", "Orphan", "nil"]);
                return Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &[problem]));
            }
            (Some(_), Some(_)) => {
                let problem = Problem::invalid(
                    "propagationPolicy",
                    &text("propagationPolicy").into(),
                    "orphanDependents and deletionPropagation cannot be both set",
                );
                return Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &[problem]));
            }
        };
        let grace = match &body["gracePeriodSeconds"] {
            Value::Null => call.query.number("gracePeriodSeconds")?,
            value => match value.as_i64() {
                // A negative period means the object's own, as Kubernetes reads it.
                Some(seconds) => u64::try_from(seconds).ok(),
                None => return Err(ApiError::bad_request(format!("gracePeriodSeconds must be a whole number, not {value}"))),
            },
        };
        Ok(Self {
            dry_run: Options::of(call)?.dry_run || body["dryRun"].as_array().is_some_and(|all| all.iter().any(|d| d == "All")),
            propagation,
            grace,
            uid: body["preconditions"]["uid"].as_str().map(str::to_owned),
            version: body["preconditions"]["resourceVersion"].as_str().map(str::to_owned),
        })
    }
}

/// `DELETE` of one object.
///
/// # Errors
/// 404, 409 when a precondition does not hold.
pub(super) fn delete(api: &Api, call: &Call, bytes: &[u8]) -> ApiResult<Response> {
    let wish = Wish::read(call, bytes)?;
    let key = call.key()?;
    let (object, gone) = remove(api, call, &key, &wish)?;
    // Kinds that Kubernetes answers with the deleted object; others get a Status once they are gone.
    let whole = !gone || ["pods", "services", "serviceaccounts"].iter().any(|plural| call.kind.is("", plural));
    if whole {
        return read::one(api, call, StatusCode::OK, &object, &[]);
    }
    let mut details = json!({"name": key.name, "kind": call.kind.resource.plural, "uid": object["metadata"]["uid"]});
    if !call.kind.resource.group.is_empty() {
        details["group"] = call.kind.resource.group.as_str().into();
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    encode(super::serve::Accepted { form: super::serve::Form::Whole, yaml: accepted(&call.headers)?.yaml }, StatusCode::OK, &status)
}

/// `DELETE` of all objects of a kind that a selection fits, in one namespace or in the cluster.
///
/// # Errors
/// 400 for a bad selector.
pub(super) fn delete_collection(api: &Api, call: &Call, bytes: &[u8]) -> ApiResult<Response> {
    if call.kind.namespaced && call.namespace.is_none() {
        return Err(ApiError::method_not_allowed());
    }
    let wish = Wish::read(call, bytes)?;
    let selection = read::selection(call)?;
    let (all, version) = api.store().list(&convert::stored_as(&call.kind), call.namespace.as_deref());
    let mut deleted = Vec::new();
    for object in all {
        if !selection.matches(&read::shown_for_selection(call, &object)) {
            continue;
        }
        let key = call.key_of(object["metadata"]["name"].as_str().unwrap_or_default());
        match remove(api, call, &key, &wish) {
            Ok((object, _)) => deleted.push((*read::shown(call, &object)).clone()),
            // Somebody else was faster: it is gone, which is what was asked for.
            Err(error) if error.code() == StatusCode::NOT_FOUND => {}
            Err(error) => return Err(error),
        }
    }
    let list = json!({
        "apiVersion": call.api_version(), "kind": call.kind.list_kind,
        "metadata": {"resourceVersion": version.to_string()}, "items": deleted,
    });
    encode(super::serve::Accepted { form: super::serve::Form::Whole, yaml: false }, StatusCode::OK, &list)
}

/// An eviction is a deletion that a disruption budget may refuse.
///
/// # Errors
/// 404, 429 when a budget allows no disruption now.
pub(super) fn evict(api: &Api, call: &Call, options: &Value, write: &Options) -> ApiResult<()> {
    let key = call.key()?;
    let pod = api.store().get(&key).ok_or_else(|| ApiError::not_found(&call.kind.resource, &key.name))?;
    let budgets = crate::store::Resource::new("policy", "poddisruptionbudgets");
    let (budgets, _) = api.store().list(&budgets, key.namespace.as_deref());
    for budget in budgets {
        let selector = super::scale::selector_text(&budget["spec"]["selector"]);
        let selected = super::select::Selection::labels(&selector).is_ok_and(|s| s.matches(&pod));
        if selected && budget["status"]["disruptionsAllowed"].as_i64() == Some(0) {
            let name = budget["metadata"]["name"].as_str().unwrap_or_default();
            let why = "Cannot evict pod as it would violate the pod's disruption budget.";
            let cause = json!({"reason": "DisruptionBudget", "message": format!("The disruption budget {name} allows no disruption now")});
            return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", why).with_causes(vec![cause]));
        }
    }
    let mut wish = Wish::of(call, options)?;
    wish.dry_run |= write.dry_run;
    remove(api, call, &key, &wish).map(|_| ())
}

/// Deletes or marks; says whether the object is gone already.
fn remove(api: &Api, call: &Call, key: &Key, wish: &Wish) -> ApiResult<(Object, bool)> {
    let store = api.store();
    let old = store.get(key).ok_or_else(|| ApiError::not_found(&call.kind.resource, &key.name))?;
    let meta = &old["metadata"];
    if let Some(uid) = wish.uid.as_deref().filter(|u| Some(*u) != meta["uid"].as_str()) {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta["uid"].as_str().unwrap_or_default());
        return Err(ApiError::conflict(&call.kind.resource, &key.name, &why));
    }
    if let Some(version) = wish.version.as_deref().filter(|v| Some(*v) != meta["resourceVersion"].as_str()) {
        let now = meta["resourceVersion"].as_str().unwrap_or_default();
        let why = format!("Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {now}");
        return Err(ApiError::conflict(&call.kind.resource, &key.name, &why));
    }
    if wish.dry_run {
        return Ok((old.clone(), true));
    }
    let uid = meta["uid"].as_str().map(str::to_owned);
    if call.kind.is("", "namespaces") {
        return remove_namespace(api, key).map(|object| (object, false));
    }
    let add = match wish.propagation.unwrap_or(default_propagation(&call.kind)) {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    set_propagation(api, key, add)?;
    let grace = grace_of(api, &call.kind, &old, wish.grace);
    let object = store.delete(key, uid.as_deref(), grace)?;
    let gone = store.get(key).is_none_or(|now| now["metadata"]["uid"] != object["metadata"]["uid"]);
    if gone && call.kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
        crd::forget(api, &object);
    }
    Ok((object, gone))
}

/// Jobs keep their pods unless the client says otherwise, for old clients' sake; kubectl always says.
fn default_propagation(kind: &Kind) -> Propagation {
    if kind.is("batch", "jobs") { Propagation::Orphan } else { Propagation::Background }
}

/// Sets the one finalizer that says what becomes of dependents.
fn set_propagation(api: &Api, key: &Key, add: Option<&str>) -> ApiResult<()> {
    let result = api.store().update(key, Write::Whole, |old| {
        let mut new = old.clone();
        let meta = metadata(&mut new);
        let mut finalizers: Vec<Value> = meta.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
        // An object that is being deleted already keeps waiting for its dependents.
        if old["metadata"].get("deletionTimestamp").is_none() {
            finalizers.retain(|f| f != FOREGROUND && f != ORPHAN);
        }
        if let Some(add) = add
            && !finalizers.iter().any(|f| f == add)
        {
            finalizers.push(add.into());
        }
        if finalizers.is_empty() {
            meta.remove("finalizers")
        } else {
            meta.insert("finalizers".into(), finalizers.into())
        };
        Ok::<_, StoreError>(new)
    });
    result.map(|_| ()).map_err(Into::into)
}

/// Seconds that the object has to end: pods that run on a node that is there have theirs, everything else ends at once.
fn grace_of(api: &Api, kind: &Kind, object: &Value, asked: Option<u64>) -> u64 {
    if !kind.is("", "pods") {
        return 0;
    }
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let node = object["spec"]["nodeName"].as_str().filter(|n| !n.is_empty());
    let placed = node.is_some_and(|n| api.store().get(&Key::cluster("", "nodes", n)).is_some());
    if ended || !placed {
        return 0;
    }
    asked.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(30)
}

fn remove_namespace(api: &Api, key: &Key) -> ApiResult<Object> {
    if matches!(key.name.as_str(), "default" | "kube-system" | "kube-public") {
        let why = "this namespace may not be deleted";
        return Err(ApiError::forbidden(&key.resource, &key.name, why));
    }
    api.store().mark_deleted(key)?;
    let terminating = api.store().update(key, Write::Status, |old| {
        let mut new = old.clone();
        new["status"]["phase"] = "Terminating".into();
        Ok::<_, StoreError>(new)
    });
    terminating.map_err(Into::into)
}
