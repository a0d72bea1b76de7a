//! Create, update, patch and the subresources: one pipeline from what a client sent to what is stored.
//!
//! Each write reads the object, computes the new one outside the store's lock, and stores it only if nobody wrote in
//! between; else it begins again. What objects must look like is said in `defaults`, `validate`, `structural`, `rules`.

use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::apply::{self, Managed, Manager};
use super::call::Call;
use super::fields::Set;
use super::kinds::{Kind, Origin};
use super::serve::{accepted, encode};
use super::status::{ApiError, ApiResult, Problem};
use super::{Api, body, convert, crd, defaults, istio_rules, names, patch, read, rules, scale, structural, validate};
use crate::store::{Key, Object, SERVERS_OWN, StoreError, Write, keep, metadata};

/// How often a write begins again when others write to the same object.
const ATTEMPTS: usize = 8;

/// What to do with fields that the schema does not know, or that are written twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// What the query asks of a write.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Judge and answer, but store nothing.
    pub dry_run: bool,
    fields: FieldValidation,
    /// The field manager.
    pub manager: String,
    /// Take fields from other managers (server-side apply).
    pub force: bool,
}

impl Options {
    /// Reads the query.
    ///
    /// # Errors
    /// 400 or 422 for values that do not exist.
    pub(super) fn of(call: &Call) -> ApiResult<Self> {
        let dry_run = match call.query.get("dryRun") {
            None => false,
            Some("All") => true,
            Some(other) => {
                let problem = Problem::not_supported("dryRun", &json!([other]), &["All"]);
                return Err(ApiError::invalid("meta.k8s.io", "Options", "", &[problem]));
            }
        };
        let fields = match call.query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        Ok(Self { dry_run, fields, manager: call.manager(), force: call.query.flag("force") })
    }
}

/// The media type of a body.
pub(super) fn content_type(headers: &HeaderMap) -> &str {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    text.split(';').next().unwrap_or_default().trim()
}

/// Reads the body of a create or update.
///
/// # Errors
/// 415, 400.
pub(super) fn read_body(headers: &HeaderMap, bytes: &[u8]) -> ApiResult<body::Body> {
    match content_type(headers) {
        "" | "application/json" => body::json(bytes),
        "application/yaml" => body::yaml(bytes),
        "application/vnd.kubernetes.protobuf" => body::protobuf(bytes),
        _ => Err(ApiError::unsupported_media_type(&["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"])),
    }
}

/// `POST` of a new object.
///
/// # Errors
/// What is wrong with it, 409 if it is there, 404 without its namespace.
pub(super) fn create(api: &Api, call: &Call, bytes: &[u8]) -> ApiResult<Response> {
    let options = Options::of(call)?;
    let body = read_body(&call.headers, bytes)?;
    let mut sent = body.value;
    check_type(call, &mut sent)?;
    check_namespace(call, &mut sent)?;
    if call.kind.namespaced && call.namespace.is_none() {
        return Err(ApiError::method_not_allowed());
    }
    if sent["metadata"]["resourceVersion"].as_str().is_some_and(|v| !v.is_empty()) {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let (object, warnings) = make(api, call, &options, sent, &body.duplicates)?;
    read::one(api, call, StatusCode::CREATED, &object, &warnings)
}

/// Stores a new object that carries its name or the beginning of one.
fn make(api: &Api, call: &Call, options: &Options, sent: Value, duplicates: &[String]) -> ApiResult<(Object, Vec<String>)> {
    let name = sent["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let prefix = sent["metadata"]["generateName"].as_str().unwrap_or_default().to_owned();
    let generated = name.is_empty() && !prefix.is_empty();
    // A generated name that is taken is drawn again, as by Kubernetes since 1.31.
    for _ in 0..ATTEMPTS {
        let mut new = sent.clone();
        if generated {
            metadata(&mut new).insert("name".into(), format!("{prefix}{}", names::suffix()).into());
        }
        let mut pending = Pending::new(api, call, options, None);
        pending.duplicates(duplicates)?;
        match insert(api, call, options, pending, new) {
            Err(StoreOr::Store(StoreError::AlreadyExists(..))) if generated => {}
            Err(StoreOr::Store(StoreError::AlreadyExists(_, name))) => return Err(ApiError::already_exists(&call.kind.resource, &name)),
            Err(StoreOr::Store(error)) => return Err(error.into()),
            Err(StoreOr::Api(error)) => return Err(error),
            Ok(done) => return Ok(done),
        }
    }
    Err(ApiError::already_exists(&call.kind.resource, &prefix))
}

fn as_if_created(api: &Api, key: &Key, mut object: Value) -> Value {
    let now = crate::store::seconds((api.store().clock())());
    let meta = metadata(&mut object);
    if let Some(namespace) = &key.namespace {
        meta.insert("namespace".into(), namespace.as_str().into());
    }
    meta.insert("uid".into(), crate::store::uid().into());
    meta.insert("creationTimestamp".into(), now.into());
    if crate::store::counts_generations(&key.resource) {
        meta.insert("generation".into(), 1.into());
    }
    object
}

fn needs_allocation(kind: &Kind) -> bool {
    kind.is("", "services")
}

/// What other parts of the API must know of at once.
fn after_write(api: &Api, call: &Call, object: &Object) {
    if call.kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
        crd::serve(api, object);
    }
}

/// `PUT` of an object or its `status`, `scale`, `finalize`.
///
/// # Errors
/// What is wrong with it, 404, 409 when it is not the latest.
pub(super) fn update(api: &Api, call: &Call, bytes: &[u8]) -> ApiResult<Response> {
    let options = Options::of(call)?;
    let body = read_body(&call.headers, bytes)?;
    let mut sent = body.value;
    if call.sub.as_deref() == Some("scale") {
        return scale::change(api, call, &options, &|_| Ok(sent.clone()));
    }
    check_type(call, &mut sent)?;
    check_namespace(call, &mut sent)?;
    let key = call.key()?;
    let meta = metadata(&mut sent);
    match meta.get("name").and_then(Value::as_str) {
        Some(name) if !name.is_empty() && name != key.name => {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                key.name
            )));
        }
        _ => meta.insert("name".into(), key.name.as_str().into()),
    };
    let unconditional = sent["metadata"]["resourceVersion"].as_str().is_none_or(str::is_empty);
    if unconditional && (call.kind.is_custom() || call.kind.is("coordination.k8s.io", "leases")) && api.store().get(&key).is_some() {
        let problem = Problem::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
        return Err(invalid(call, &key.name, &[problem]));
    }
    if api.store().get(&key).is_none() && creates_on_update(&call.kind) && call.sub.is_none() {
        if !unconditional {
            return Err(ApiError::conflict(
                &call.kind.resource,
                &key.name,
                "StorageError: invalid object, Code: 4: the object was deleted",
            ));
        }
        let (object, warnings) = make(api, call, &options, sent, &body.duplicates)?;
        return read::one(api, call, StatusCode::CREATED, &object, &warnings);
    }
    let change = Change {
        sent: &|_| Ok(sent.clone()),
        duplicates: &body.duplicates,
        patched: false,
        subresource: call.sub.as_deref().unwrap_or_default(),
    };
    let (object, warnings) = modify(api, call, &options, &change)?;
    read::one(api, call, StatusCode::OK, &object, &warnings)
}

fn creates_on_update(kind: &Kind) -> bool {
    kind.is("", "endpoints")
        || kind.is("", "events")
        || kind.is("coordination.k8s.io", "leases")
        || kind.is("rbac.authorization.k8s.io", "roles")
}

/// `PATCH` of an object or its `status` or `scale`.
///
/// # Errors
/// What is wrong with it, 404, 409, 415 for a kind of patch that this kind does not take.
pub(super) fn patch(api: &Api, call: &Call, bytes: &[u8]) -> ApiResult<Response> {
    let options = Options::of(call)?;
    let patch = patch::Patch::read(call, bytes)?;
    if call.sub.as_deref() == Some("scale") {
        if patch.is_apply() {
            return Err(ApiError::not_implemented("the lab does not apply scales; patch them, or apply the object"));
        }
        return scale::change(api, call, &options, &|scale| patch.apply_plain(scale));
    }
    if let patch::Patch::Apply(body) = patch {
        return apply_config(api, call, &options, body);
    }
    let node = call.kind_version().node();
    let sent = |old: &Value| {
        let mut new = patch.apply_to(node, old)?;
        let named = new["metadata"]["name"].as_str().unwrap_or_default();
        if old["metadata"]["name"] != named {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({named}) does not match the name on the URL ({})",
                call.name.as_deref().unwrap_or_default()
            )));
        }
        // A patch may do anything but make another kind of thing of it.
        check_type(call, &mut new)?;
        Ok(new)
    };
    let change =
        Change { sent: &sent, duplicates: patch.duplicates(), patched: true, subresource: call.sub.as_deref().unwrap_or_default() };
    let (object, warnings) = modify(api, call, &options, &change)?;
    read::one(api, call, StatusCode::OK, &object, &warnings)
}

/// A change that may have to be computed several times.
pub(super) struct Change<'a> {
    /// From the object as the client sees it to what it wants.
    pub sent: &'a dyn Fn(&Value) -> ApiResult<Value>,
    /// Fields that the client wrote twice.
    pub duplicates: &'a [String],
    /// Whether the object results from a patch, which then is to blame for what cannot be decoded.
    pub patched: bool,
    /// The subresource that field managers are told of: the call's, or `scale`, which writes the object itself.
    pub subresource: &'a str,
}

/// Why the store did not take a change.
enum Refused {
    Raced,
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Changes an object, again from the beginning when somebody wrote in between.
///
/// # Errors
/// 404, 409 after too many attempts, or what is wrong with the result.
pub(super) fn modify(api: &Api, call: &Call, options: &Options, change: &Change<'_>) -> ApiResult<(Object, Vec<String>)> {
    let key = call.key()?;
    for _ in 0..ATTEMPTS {
        let stored = api.store().get(&key).ok_or_else(|| ApiError::not_found(&call.kind.resource, &key.name))?;
        let old = convert::to_version(&call.kind, call.version, &stored);
        let sent = (change.sent)(&old)?;
        preconditions(call, &key.name, &old, &sent)?;
        let mut pending = Pending::new(api, call, options, Some(&old));
        pending.subresource = change.subresource;
        pending.duplicates(change.duplicates)?;
        pending.patched = change.patched;
        if let Some(done) = put(api, call, options, &key, &stored, pending, sent)? {
            return Ok(done);
        }
    }
    Err(StoreError::Conflict(call.kind.resource.clone(), key.name).into())
}

/// Stores what becomes of `sent`, unless somebody wrote since `stored` was read: then `None`.
fn put(
    api: &Api,
    call: &Call,
    options: &Options,
    key: &Key,
    stored: &Object,
    mut pending: Pending<'_>,
    sent: Value,
) -> ApiResult<Option<(Object, Vec<String>)>> {
    let guard = needs_allocation(&call.kind).then(|| api.allocation());
    let new = pending.settle(sent)?;
    let write = match call.sub.as_deref() {
        Some("status") => Write::Status,
        // Its status is computed with each write of its spec.
        None if call.kind.is("apiextensions.k8s.io", "customresourcedefinitions") => Write::Whole,
        None if call.kind_version().status => Write::Spec,
        _ => Write::Whole,
    };
    let new = convert::to_stored(&call.kind, new);
    if options.dry_run {
        return Ok(Some((std::sync::Arc::new(as_if_updated(stored, new)), pending.warnings)));
    }
    let result = api.store().update(key, write, |now| {
        if now["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"] {
            return Err(Refused::Raced);
        }
        Ok(new)
    });
    drop(guard);
    match result {
        Ok(object) => {
            after_write(api, call, &object);
            Ok(Some((object, pending.warnings)))
        }
        Err(Refused::Raced) => Ok(None),
        Err(Refused::Store(error)) => Err(error.into()),
    }
}

/// Server-side apply: merges a configuration into the object, or creates it.
fn apply_config(api: &Api, call: &Call, options: &Options, body: body::Body) -> ApiResult<Response> {
    let mut config = body.value;
    let key = call.key()?;
    if call.query.get("fieldManager").is_none() {
        let problem = Problem::required("fieldManager", "is required for apply patch");
        return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[problem]));
    }
    for field in ["apiVersion", "kind"] {
        if config[field].as_str().is_none_or(str::is_empty) {
            return Err(ApiError::bad_request(format!("invalid object type: {field} must be set in an applied configuration")));
        }
    }
    check_type(call, &mut config)?;
    check_namespace(call, &mut config)?;
    let meta = metadata(&mut config);
    match meta.get("name").and_then(Value::as_str) {
        None => {
            meta.insert("name".into(), key.name.as_str().into());
        }
        Some(name) if name != key.name => {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                key.name
            )));
        }
        Some(_) => {}
    }
    if meta.get("managedFields").is_some_and(|m| m.as_array().is_none_or(|m| !m.is_empty())) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    meta.remove("managedFields");
    let subresource = call.sub.as_deref().unwrap_or_default();
    let manager = Manager::applying(&options.manager, &call.api_version(), subresource);
    let limit = limits(call, subresource);
    for _ in 0..ATTEMPTS {
        let stored = api.store().get(&key);
        if stored.is_none() && !subresource.is_empty() {
            return Err(ApiError::not_found(&call.kind.resource, &key.name));
        }
        let old = stored.as_ref().map(|s| convert::to_version(&call.kind, call.version, s));
        let mut pending = Pending::new(api, call, options, old.as_ref());
        pending.subresource = subresource;
        pending.duplicates(&body.duplicates)?;
        let mut wanted = config.clone();
        pending.decode(&mut wanted)?;
        if let Some(old) = &old {
            preconditions(call, &key.name, old, &wanted)?;
        }
        let node = call.kind_version().node();
        let now = crate::store::seconds((api.store().clock())());
        let live = old.as_ref().unwrap_or(&Value::Null);
        let applied = apply::apply(&manager, node, live, &wanted, options.force, &limit, &now)?;
        pending.managed = Some(applied.managed);
        match &stored {
            None => {
                let (object, warnings) = insert(api, call, options, pending, applied.object).map_err(|error| match error {
                    // Somebody was faster, and this loop goes round no more: the client may try again.
                    StoreOr::Store(error) => error.into(),
                    StoreOr::Api(error) => error,
                })?;
                return read::one(api, call, StatusCode::CREATED, &object, &warnings);
            }
            Some(stored) => {
                if let Some((object, warnings)) = put(api, call, options, &key, stored, pending, applied.object)? {
                    return read::one(api, call, StatusCode::OK, &object, &warnings);
                }
            }
        }
    }
    Err(StoreError::Conflict(call.kind.resource.clone(), key.name).into())
}

/// What a field manager may own through this door: not the status through the object's, nothing else through the status'.
fn limits(call: &Call, subresource: &str) -> impl Fn(&mut Set) + use<> {
    let (has_status, custom) = (call.kind_version().status, call.kind.is_custom());
    let status_door = subresource == "status";
    move |set: &mut Set| {
        set.retain_fields(|field| match field {
            "status" => status_door || !has_status,
            "metadata" => !(status_door && custom),
            _ => !status_door,
        });
    }
}

/// Who refused a new object.
enum StoreOr {
    Store(StoreError),
    Api(ApiError),
}

impl From<ApiError> for StoreOr {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// Stores a new object that has its name.
fn insert(api: &Api, call: &Call, options: &Options, mut pending: Pending<'_>, new: Value) -> Result<(Object, Vec<String>), StoreOr> {
    namespace_open(api, call)?;
    // One writer at a time picks addresses that must be unique.
    let guard = needs_allocation(&call.kind).then(|| api.allocation());
    let new = pending.settle(new)?;
    let key = call.key_of(new["metadata"]["name"].as_str().unwrap_or_default());
    let stored = convert::to_stored(&call.kind, new);
    let created = if options.dry_run {
        match api.store().get(&key) {
            Some(_) => Err(StoreError::AlreadyExists(call.kind.resource.clone(), key.name.clone())),
            None => Ok(std::sync::Arc::new(as_if_created(api, &key, stored))),
        }
    } else {
        api.store().create(&key, stored)
    };
    drop(guard);
    let object = created.map_err(StoreOr::Store)?;
    if !options.dry_run {
        after_write(api, call, &object);
    }
    let mut warnings = pending.warnings;
    warnings.extend(super::inert::warning(&call.kind).map(str::to_owned));
    Ok((object, warnings))
}

fn as_if_updated(old: &Value, mut new: Value) -> Value {
    let old_meta = old["metadata"].clone();
    let meta = metadata(&mut new);
    for field in ["uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        match old_meta.get(field) {
            Some(value) => meta.insert(field.into(), value.clone()),
            None => meta.remove(field),
        };
    }
    new
}

/// Whether the object is still the one that the client means.
///
/// # Errors
/// 409, 422.
pub(super) fn preconditions(call: &Call, name: &str, old: &Value, sent: &Value) -> ApiResult<()> {
    let (was, wants) = (&old["metadata"], &sent["metadata"]);
    if let Some(version) = wants["resourceVersion"].as_str().filter(|v| !v.is_empty()) {
        if version.parse::<u64>().is_err() {
            let why = format!("strconv.ParseUint: parsing {version:?}: invalid syntax");
            return Err(invalid(call, name, &[Problem::invalid("metadata.resourceVersion", &version.into(), why)]));
        }
        if Some(version) != was["resourceVersion"].as_str() {
            return Err(StoreError::Conflict(call.kind.resource.clone(), name.to_owned()).into());
        }
    }
    if let Some(uid) = wants["uid"].as_str().filter(|u| !u.is_empty() && Some(*u) != was["uid"].as_str()) {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", was["uid"].as_str().unwrap_or_default());
        return Err(ApiError::conflict(&call.kind.resource, name, &why));
    }
    for field in ["name", "namespace"] {
        if was[field] != wants[field] && !(wants[field].is_null()) {
            let problem = Problem::invalid(format!("metadata.{field}"), &wants[field], "field is immutable");
            return Err(invalid(call, name, &[problem]));
        }
    }
    Ok(())
}

/// 422 about an object of this call.
pub(super) fn invalid(call: &Call, name: &str, problems: &[Problem]) -> ApiError {
    ApiError::invalid(&call.kind.resource.group, &call.kind.kind, name, problems)
}

/// apiVersion and kind must be those of the path; absent ones are filled in.
///
/// # Errors
/// 400.
pub(super) fn check_type(call: &Call, sent: &mut Value) -> ApiResult<()> {
    if !sent.is_object() {
        return Err(ApiError::bad_request("the object provided is unrecognized (must be of type Object)"));
    }
    let (version, kind) = (call.api_version(), &call.kind.kind);
    match sent["apiVersion"].as_str() {
        None | Some("") => sent["apiVersion"] = version.clone().into(),
        Some(sent) if sent != version => {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({sent}) does not match the expected API version ({version})"
            )));
        }
        Some(_) => {}
    }
    match sent["kind"].as_str() {
        None | Some("") => sent["kind"] = kind.as_str().into(),
        Some(sent) if sent != kind => {
            return Err(ApiError::bad_request(format!("the kind in the data ({sent}) does not match the expected kind ({kind})")));
        }
        Some(_) => {}
    }
    Ok(())
}

fn check_namespace(call: &Call, sent: &mut Value) -> ApiResult<()> {
    let meta = metadata(sent);
    let named = meta.get("namespace").and_then(Value::as_str).filter(|n| !n.is_empty());
    match (&call.namespace, named) {
        (Some(namespace), Some(named)) if named != namespace => {
            Err(ApiError::bad_request("the namespace of the provided object does not match the namespace sent on the request"))
        }
        (Some(namespace), _) => {
            meta.insert("namespace".into(), namespace.as_str().into());
            Ok(())
        }
        (None, Some(_)) if !call.kind.namespaced => Err(ApiError::bad_request("namespace may not be set for cluster-scoped objects")),
        (None, _) => Ok(()),
    }
}

/// New objects need a namespace that is there and is not going away.
fn namespace_open(api: &Api, call: &Call) -> ApiResult<()> {
    let Some(name) = &call.namespace else { return Ok(()) };
    let key = Key::cluster("", "namespaces", name);
    let Some(namespace) = api.store().get(&key) else {
        return Err(ApiError::not_found(&key.resource, name));
    };
    if namespace["metadata"].get("deletionTimestamp").is_some() {
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let cause = json!({"reason": "NamespaceTerminating", "message": format!("namespace {name} is being terminated"), "field": "metadata.namespace"});
        return Err(ApiError::forbidden(&call.kind.resource, "", &why).with_causes(vec![cause]));
    }
    Ok(())
}

/// An object on its way into the store.
pub(super) struct Pending<'a> {
    api: &'a Api,
    call: &'a Call,
    options: &'a Options,
    old: Option<&'a Value>,
    /// What the client is told besides.
    pub(super) warnings: Vec<String>,
    /// The door it came through, as field managers are told.
    subresource: &'a str,
    /// Everybody's fields, where an apply has computed them already.
    managed: Option<Managed>,
    /// Whether the object results from a patch.
    patched: bool,
}

impl<'a> Pending<'a> {
    /// `old` is the object as it is, in the version of the call; `None` for a new one.
    pub(super) fn new(api: &'a Api, call: &'a Call, options: &'a Options, old: Option<&'a Value>) -> Self {
        Self { api, call, options, old, warnings: read::deprecations(call), subresource: "", managed: None, patched: false }
    }

    fn duplicates(&mut self, paths: &[String]) -> ApiResult<()> {
        self.fields(paths.iter().map(|p| format!("duplicate field {p:?}")).collect())
    }

    fn fields(&mut self, findings: Vec<String>) -> ApiResult<()> {
        match self.options.fields {
            _ if findings.is_empty() => Ok(()),
            FieldValidation::Ignore => Ok(()),
            FieldValidation::Warn => {
                self.warnings.extend(findings);
                Ok(())
            }
            FieldValidation::Strict => Err(self.undecodable(&format!("strict decoding error: {}", findings.join(", ")))),
        }
    }

    fn undecodable(&self, why: &str) -> ApiError {
        let kind = &self.call.kind.kind;
        if self.patched {
            // What a patch makes of an object is invalid, where what a client sends whole is a bad request.
            return ApiError::invalid("", "", "", &[Problem::invalid("patch", &Value::Null, why)]);
        }
        ApiError::bad_request(format!("{kind} in version {:?} cannot be handled as a {kind}: {why}", self.call.kind_version().name))
    }

    /// Decodes: types, and fields that the schema does not know, which are dropped and told or refused.
    fn decode(&mut self, new: &mut Value) -> ApiResult<()> {
        let kind = &*self.call.kind;
        let version = self.call.kind_version();
        let mut unknown = Vec::new();
        metadata(new);
        if kind.origin == Origin::BuiltIn {
            structural::decode(version.node(), new, &kind.kind, "", &mut unknown).map_err(|why| self.undecodable(&why))?;
        } else {
            structural::prune(version.node(), new, "", &mut unknown);
            let mut meta = json!({"metadata": new["metadata"].take()});
            let root = super::schema::meta_root();
            structural::decode(super::schema::Node::new(&root), &mut meta, &kind.kind, "", &mut Vec::new())
                .map_err(|why| self.undecodable(&why))?;
            new["metadata"] = meta["metadata"].take();
        }
        self.fields(unknown.iter().map(|p| format!("unknown field {p:?}")).collect())
    }

    /// Decodes, drops unknown fields, keeps what this request may not change, sets defaults, records who owns what, and
    /// judges the whole.
    ///
    /// # Errors
    /// 400 for what cannot be decoded, 422 with all problems.
    pub(super) fn settle(&mut self, mut new: Value) -> ApiResult<Value> {
        let call = self.call;
        let kind = &*call.kind;
        let version = call.kind_version();
        self.decode(&mut new)?;
        let claimed = new["metadata"].get("managedFields").cloned();
        self.keep(&mut new);
        if kind.origin == Origin::BuiltIn {
            defaults::apply(self.api, kind, &mut new, self.old);
        } else {
            structural::apply_defaults(version.node(), &mut new);
        }
        self.manage(&mut new, claimed.as_ref());
        let mut problems = Vec::new();
        validate::metadata(kind, &new, self.old, &mut problems);
        if kind.origin == Origin::BuiltIn {
            validate::object(kind, &new, self.old, &mut problems);
            if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
                crd::judge(&mut new, self.old, (self.api.store().clock())(), &mut problems);
            }
        } else {
            structural::validate(version.node(), &new, "", &mut problems);
            // Rules read fields by type: they are asked once the types are right.
            match &version.rules {
                Some(rules) if problems.is_empty() => rules::Rules::check(rules, &new, self.old, &mut problems),
                Some(_) => problems.push(Problem::unchecked()),
                None => {}
            }
        }
        if problems.is_empty() {
            // Istio checks its kinds in a webhook, which is asked last.
            let found = if kind.resource.group.ends_with(".istio.io") { istio_rules::check(&kind.kind, &new["spec"]) } else { Vec::new() };
            return if found.is_empty() { Ok(new) } else { Err(istio_rules::denied(&found)) };
        }
        let name = new["metadata"]["name"].as_str().or(new["metadata"]["generateName"].as_str()).unwrap_or_default();
        Err(invalid(call, name, &problems))
    }

    /// Records in `metadata.managedFields` what this write owns.
    fn manage(&mut self, new: &mut Value, claimed: Option<&Value>) {
        let managed = match self.managed.take() {
            Some(managed) => managed,
            None => {
                let old = self.old.unwrap_or(&Value::Null);
                // A client may rewrite the record itself (kubectl does, moving from client-side to server-side apply), or
                // drop it with one empty entry.
                let reset = claimed
                    .and_then(Value::as_array)
                    .is_some_and(|c| matches!(c.as_slice(), [one] if one.as_object().is_some_and(serde_json::Map::is_empty)));
                let rewritten = claimed
                    .map(|c| Managed::of(&json!({"metadata": {"managedFields": c}})))
                    .filter(|m| !m.is_empty() && self.subresource.is_empty());
                let mut managed = match rewritten {
                    _ if reset => Managed::default(),
                    Some(rewritten) => rewritten,
                    None => Managed::of(old),
                };
                let manager = Manager::updating(&self.options.manager, &self.call.api_version(), self.subresource);
                let now = crate::store::seconds((self.api.store().clock())());
                managed.update(&manager, self.call.kind_version().node(), old, new, &limits(self.call, self.subresource), &now);
                managed
            }
        };
        if managed.is_empty() {
            metadata(new).remove("managedFields");
        } else {
            metadata(new).insert("managedFields".into(), managed.to_value());
        }
    }

    /// What a request may not change stays as it was: the server's own metadata, status in a write of the object, everything
    /// else in a write of its status.
    fn keep(&self, new: &mut Value) {
        let has_status = self.call.kind_version().status;
        let Some(old) = self.old else {
            let meta = metadata(new);
            for field in [
                "uid",
                "resourceVersion",
                "creationTimestamp",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "generation",
                "selfLink",
                "managedFields",
            ] {
                meta.remove(field);
            }
            if has_status && let Some(fields) = new.as_object_mut() {
                fields.remove("status");
            }
            return;
        };
        match self.call.sub.as_deref() {
            Some("status") => {
                let mut whole = old.clone();
                match new.get("status") {
                    Some(status) => whole["status"] = status.clone(),
                    None => {
                        if let Some(fields) = whole.as_object_mut() {
                            fields.remove("status");
                        }
                    }
                }
                // Built-in kinds take annotations, labels and finalizers along with their status; custom kinds nothing.
                if !self.call.kind.is_custom() {
                    whole["metadata"] = new["metadata"].clone();
                }
                *new = whole;
            }
            _ if has_status => match (old.get("status"), new.as_object_mut()) {
                (Some(status), Some(fields)) => {
                    fields.insert("status".into(), status.clone());
                }
                (None, Some(fields)) => {
                    fields.remove("status");
                }
                (_, None) => {}
            },
            _ => {}
        }
        let was = old["metadata"].clone();
        let meta = metadata(new);
        keep(meta, &was, &SERVERS_OWN);
        keep(meta, &was, &["generateName", "managedFields"]);
        meta.remove("selfLink");
    }
}

/// `POST pods/NAME/eviction` and `/binding`.
///
/// # Errors
/// 404, 409.
pub(super) fn pod_action(api: &Api, call: &Call, bytes: &[u8]) -> ApiResult<Response> {
    let body = read_body(&call.headers, bytes)?.value;
    let options = Options::of(call)?;
    let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    if call.sub.as_deref() == Some("eviction") {
        super::delete::evict(api, call, &body["deleteOptions"], &options)?;
    } else {
        let node = body["target"]["name"].clone();
        let whole = Call { sub: None, ..call.clone() };
        let sent = |old: &Value| {
            if old["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty()) {
                return Err(ApiError::conflict(
                    &call.kind.resource,
                    call.name.as_deref().unwrap_or_default(),
                    "pod is already assigned to a node",
                ));
            }
            let mut new = old.clone();
            new["spec"]["nodeName"] = node.clone();
            Ok(new)
        };
        modify(
            api,
            &whole,
            &options,
            &Change { sent: &sent, duplicates: &[], patched: false, subresource: call.sub.as_deref().unwrap_or_default() },
        )?;
    }
    encode(accepted(&call.headers)?, StatusCode::CREATED, &success)
}
