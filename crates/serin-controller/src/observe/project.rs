//! Objects as they are kept: only what an observation needs, so that ten thousand releases fit a small memory.
//!
//! Routes and rules are the exception: their JSON is kept whole but for managed fields, as patches are cut from it.
//! Deliberately no judgement and no relation between objects.

use std::sync::Arc;

use kube::core::DynamicObject;
use serde_json::{Map, Value, json};
use serin_api::names;
use serin_core::route::conflict;
use serin_core::route::host::resolve;
use serin_core::units::{ObjectName, Timestamp};

use super::hash::template_hash;

/// Labels, sorted. A tree would take six times the memory for the few that most objects have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of a label.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.binary_search_by(|(own, _)| (**own).cmp(name)).ok().and_then(|at| self.0.get(at)).map(|(_, value)| &**value)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// A CanaryRelease. Spec and status stay text until they are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    pub(crate) name: ObjectName,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) generation: i64,
    pub(crate) created: Timestamp,
    pub(crate) deleting: bool,
    /// `metadata.finalizers`, whole, as only a whole list can be written.
    pub(crate) finalizers: Vec<String>,
    /// Whether its status names a rollout that runs.
    pub(crate) rolls: bool,
    /// The Service's name.
    pub(crate) service: String,
    /// The policy that the spec names.
    pub(crate) policy: Option<Box<str>>,
    /// VirtualServices that the spec names.
    pub(crate) named_routes: Vec<String>,
    pub(crate) spec: Box<str>,
    pub(crate) status: Box<str>,
    pub(crate) request: Option<Box<str>>,
    pub(crate) abort: Option<Box<str>>,
    pub(crate) freeze: Option<Box<str>>,
}

impl Release {
    /// Whether Serin's finalizer is on it.
    pub(crate) fn holds(&self) -> bool {
        self.finalizers.iter().any(|f| f == names::FINALIZER)
    }

    /// Whether there is work in hand: a rollout runs, or somebody asks for something.
    pub(crate) fn busy(&self) -> bool {
        self.rolls || self.deleting || self.request.is_some() || self.abort.is_some()
    }
}

/// A CanaryPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) spec: Box<str>,
    pub(crate) freeze: Option<Box<str>>,
}

/// A Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deployment {
    pub(crate) labels: Labels,
    pub(crate) hash: String,
    pub(crate) replicas: u32,
    pub(crate) ready: u32,
    pub(crate) created: Timestamp,
    /// The GitOps manager that owns `spec.replicas`.
    pub(crate) replicas_owner: Option<String>,
    /// The GitOps manager that applies any of its spec.
    pub(crate) keeper: Option<Box<str>>,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) selector: Labels,
    pub(crate) external: bool,
}

/// An EndpointSlice: the pods of a Service that receive requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) service: String,
    pub(crate) pods: Vec<Box<str>>,
}

/// An object whole, as text: as a tree of maps it would take ten times the memory, and most are not looked at for days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    text: Box<str>,
    /// Its resource version.
    pub(crate) version: Box<str>,
}

impl Raw {
    fn new(value: &Value) -> Self {
        Self { text: value.to_string().into_boxed_str(), version: text(value, "/metadata/resourceVersion").unwrap_or_default().into() }
    }

    /// As it was read, number for number.
    pub(crate) fn value(&self) -> Arc<Value> {
        Arc::new(serde_json::from_str(&self.text).unwrap_or_default())
    }
}

/// A VirtualService.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VirtualService {
    pub(crate) raw: Raw,
    /// Resolved hosts that it is for.
    pub(crate) hosts: Vec<String>,
    /// Resolved hosts that it sends to.
    pub(crate) destinations: Vec<String>,
    /// VirtualServices that it delegates to.
    pub(crate) delegates: Vec<ObjectName>,
}

/// A DestinationRule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) raw: Raw,
    /// The resolved host, or pattern.
    pub(crate) host: String,
}

/// An autoscaler: which Deployment it scales, and how a person calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Autoscaler {
    pub(crate) deployment: String,
    pub(crate) label: String,
}

/// A pod with a proxy that can be scraped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyPod {
    pub(crate) ip: String,
    pub(crate) started: Option<Timestamp>,
}

pub(crate) fn name_of(object: &DynamicObject) -> ObjectName {
    let meta = &object.metadata;
    ObjectName { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
}

fn created(object: &DynamicObject) -> Timestamp {
    object.metadata.creation_timestamp.as_ref().map_or(Timestamp(0), |t| Timestamp(t.0.as_millisecond()))
}

fn labels(value: Option<&Value>) -> Labels {
    let pairs = value.and_then(Value::as_object).into_iter().flatten();
    let mut all: Vec<(Box<str>, Box<str>)> = pairs.filter_map(|(k, v)| Some((k.as_str().into(), v.as_str()?.into()))).collect();
    all.sort_unstable();
    Labels(all.into())
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn count(value: &Value, pointer: &str) -> Option<u32> {
    value.pointer(pointer).and_then(Value::as_u64).map(|n| u32::try_from(n).unwrap_or(u32::MAX))
}

pub(crate) fn release(object: &DynamicObject) -> Release {
    let meta = &object.metadata;
    let annotation = |key: &str| meta.annotations.as_ref().and_then(|a| a.get(key)).map(|text| text.as_str().into());
    let json = |field: &str| object.data.get(field).unwrap_or(&Value::Null).to_string().into_boxed_str();
    Release {
        name: name_of(object),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or(0),
        created: created(object),
        deleting: meta.deletion_timestamp.is_some(),
        finalizers: meta.finalizers.clone().unwrap_or_default(),
        rolls: object.data.pointer("/status/rollout").is_some_and(Value::is_object),
        service: text(&object.data, "/spec/service").unwrap_or_default().to_owned(),
        policy: text(&object.data, "/spec/policy").map(Into::into),
        named_routes: list(&object.data, "/spec/traffic/virtualServices").filter_map(|v| Some(text(v, "/name")?.to_owned())).collect(),
        spec: json("spec"),
        status: json("status"),
        request: annotation(names::REQUEST),
        abort: annotation(names::ABORT),
        freeze: annotation(names::FREEZE),
    }
}

pub(crate) fn policy(object: &DynamicObject) -> Policy {
    let spec = object.data.get("spec").map_or_else(|| "{}".into(), ToString::to_string);
    Policy {
        spec: spec.into_boxed_str(),
        freeze: object.metadata.annotations.as_ref().and_then(|a| a.get(names::FREEZE)).map(|text| text.as_str().into()),
    }
}

pub(crate) fn deployment(object: &DynamicObject) -> Deployment {
    let data = &object.data;
    let template = data.pointer("/spec/template").unwrap_or(&Value::Null);
    Deployment {
        labels: labels(template.pointer("/metadata/labels")),
        hash: template_hash(template),
        replicas: count(data, "/spec/replicas").unwrap_or(1),
        ready: count(data, "/status/readyReplicas").unwrap_or(0),
        created: created(object),
        replicas_owner: git_owner(object, "/f:spec/f:replicas"),
        keeper: git_owner(object, "/f:spec").map(Into::into),
    }
}

/// Field managers of the tools that put Git's content back.
const GIT: [&str; 7] = [
    "argocd-controller",
    "argocd-application-controller",
    "argocd-server",
    "kustomize-controller",
    "helm-controller",
    "flux",
    "fleetagent",
];

/// The GitOps manager that owns a field, other than through a subresource.
fn git_owner(object: &DynamicObject, field: &str) -> Option<String> {
    let entries = object.metadata.managed_fields.as_ref()?;
    let owns = |fields: &Value| fields.pointer(field).is_some();
    let entry = entries.iter().find(|entry| {
        let git = entry.manager.as_deref().is_some_and(|m| GIT.contains(&m));
        git && entry.subresource.as_deref().unwrap_or_default().is_empty() && entry.fields_v1.as_ref().is_some_and(|f| owns(&f.0))
    })?;
    entry.manager.clone()
}

pub(crate) fn service(object: &DynamicObject) -> Service {
    let data = &object.data;
    Service { selector: labels(data.pointer("/spec/selector")), external: text(data, "/spec/type") == Some("ExternalName") }
}

/// The pods of an EndpointSlice that receive requests: ready and not terminating; a condition that is not said counts as its documentation says.
pub fn receivers(slice: &Value) -> impl Iterator<Item = &str> {
    let receives = |endpoint: &&Value| {
        let condition =
            |name: &str, absent: bool| endpoint.pointer(&format!("/conditions/{name}")).and_then(Value::as_bool).unwrap_or(absent);
        condition("ready", true) && !condition("terminating", false)
    };
    list(slice, "/endpoints")
        .filter(receives)
        .filter(|e| text(e, "/targetRef/kind") == Some("Pod"))
        .filter_map(|e| text(e, "/targetRef/name"))
}

pub(crate) fn slice(object: &DynamicObject) -> Option<Slice> {
    let service = object.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?.clone();
    let mut pods: Vec<Box<str>> = receivers(&object.data).map(Into::into).collect();
    pods.sort_unstable();
    Some(Slice { service, pods })
}

pub(crate) fn virtual_service(object: &DynamicObject) -> VirtualService {
    let raw = raw(object, |fields| {
        let spec = fields.pointer("/f:spec").and_then(Value::as_object)?;
        // Who owns the routes is all that is asked of them.
        (spec.is_empty() || spec.contains_key("f:http"))
            .then(|| if spec.is_empty() { json!({"f:spec": {}}) } else { json!({"f:spec": {"f:http": {}}}) })
    });
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let mut hosts: Vec<String> = list(&raw, "/spec/hosts").filter_map(Value::as_str).map(|host| resolve(host, namespace)).collect();
    let routes = ["http", "tcp", "tls"].into_iter().flat_map(|layer| list(&raw, &format!("/spec/{layer}")));
    let mut destinations: Vec<String> = routes
        .flat_map(|route| list(route, "/route"))
        .filter_map(|d| text(d, "/destination/host"))
        .map(|host| resolve(host, namespace))
        .collect();
    for set in [&mut hosts, &mut destinations] {
        set.sort_unstable();
        set.dedup();
    }
    let delegates = list(&raw, "/spec/http").filter_map(|route| conflict::delegate_of(&raw, route)).collect();
    VirtualService { raw: Raw::new(&raw), hosts, destinations, delegates }
}

pub(crate) fn rule(object: &DynamicObject) -> Rule {
    let raw = raw(object, |_| None);
    let host = resolve(text(&raw, "/spec/host").unwrap_or_default(), object.metadata.namespace.as_deref().unwrap_or_default());
    Rule { raw: Raw::new(&raw), host }
}

/// The object as JSON, with as much of each managed-fields entry as `keep` keeps. Of annotations, the copy that kubectl makes
/// of the whole object goes; the map stays, as whether there is one decides how a patch adds to it.
fn raw(object: &DynamicObject, keep: impl Fn(&Value) -> Option<Value>) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else { return value };
    if let Some(Value::Array(entries)) = metadata.remove("managedFields") {
        let kept: Vec<Value> = entries.into_iter().filter_map(|entry| kept_entry(entry, &keep)).collect();
        if !kept.is_empty() {
            metadata.insert("managedFields".into(), Value::Array(kept));
        }
    }
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    value
}

fn kept_entry(entry: Value, keep: &impl Fn(&Value) -> Option<Value>) -> Option<Value> {
    let fields = keep(entry.get("fieldsV1")?)?;
    let mut kept: Map<String, Value> = match entry {
        Value::Object(entry) => entry,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => return None,
    };
    kept.insert("fieldsV1".into(), fields);
    Some(Value::Object(kept))
}

pub(crate) fn autoscaler(object: &DynamicObject) -> Option<Autoscaler> {
    let target = object.data.pointer("/spec/scaleTargetRef")?;
    if text(target, "/kind").unwrap_or("Deployment") != "Deployment" {
        return None;
    }
    let kind = object.types.as_ref().map_or("HorizontalPodAutoscaler", |t| t.kind.as_str());
    let name = object.metadata.name.as_deref().unwrap_or_default();
    Some(Autoscaler { deployment: text(target, "/name")?.to_owned(), label: format!("{kind} {name}") })
}

/// A pod whose proxy answers: running, with an address, and with Istio's container in either list (native sidecars stand
/// among the init containers).
pub(crate) fn proxy_pod(object: &DynamicObject) -> Option<ProxyPod> {
    let data = &object.data;
    let proxy =
        ["/spec/containers", "/spec/initContainers"].into_iter().any(|l| list(data, l).any(|c| text(c, "/name") == Some("istio-proxy")));
    if !proxy || text(data, "/status/phase") != Some("Running") || object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let started = text(data, "/status/startTime").and_then(|t| t.parse::<jiff::Timestamp>().ok()).map(|t| Timestamp(t.as_millisecond()));
    Some(ProxyPod { ip: text(data, "/status/podIP")?.to_owned(), started })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn only_ready_pods_that_stay_are_endpoints() {
        let endpoint = |name: &str, conditions: Value| json!({"addresses": ["10.0.0.1"], "conditions": conditions, "targetRef": {"kind": "Pod", "name": name}});
        let slice = slice(&object(json!({
            "metadata": {"name": "s", "namespace": "n", "labels": {"kubernetes.io/service-name": "my-app"}},
            "endpoints": [
                endpoint("ready", json!({"ready": true})), endpoint("unsaid", json!({})), endpoint("not-ready", json!({"ready": false})),
                endpoint("going", json!({"ready": true, "terminating": true})), json!({"addresses": ["10.0.0.9"]}),
            ],
        })));
        assert_eq!(slice.map(|s| s.pods), Some(vec!["ready".into(), "unsaid".into()]));
    }

    #[test]
    fn of_managed_fields_only_the_routes_owner_is_kept() {
        let vs = virtual_service(&object(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "my-app", "namespace": "n", "resourceVersion": "7", "managedFields": [
                {"manager": "kubectl", "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {"f:http": {}, "f:hosts": {}}}},
                {"manager": "labeller", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {}}}},
            ]},
            "spec": {"hosts": ["my-app"], "http": [{"route": [{"destination": {"host": "my-app", "subset": "v1"}, "weight": 100.0}], "inventedLater": 1}]},
        })));
        assert_eq!(vs.raw.value().pointer("/metadata/managedFields").and_then(Value::as_array).map(Vec::len), Some(1));
        assert_eq!(serin_core::route::owner::last_weight_manager(&vs.raw.value()), Some(("kubectl", Some("2026-01-01T00:00:00Z"))));
        assert_eq!(
            (vs.hosts.as_slice(), vs.destinations.as_slice()),
            (&["my-app.n.svc.cluster.local".to_owned()][..], &["my-app.n.svc.cluster.local".to_owned()][..])
        );
        assert_eq!(vs.raw.value().pointer("/spec/http/0/inventedLater"), Some(&json!(1)));
        assert_eq!(
            vs.raw.value().pointer("/spec/http/0/route/0/weight").map(Value::to_string),
            Some("100.0".into()),
            "as it was read, not as we would write it"
        );
    }

    #[test]
    fn a_git_tool_that_applies_replicas_owns_them() {
        let deployment_of = |manager: &str, subresource: &str, fields: Value| {
            deployment(&object(json!({"metadata": {"name": "d", "managedFields": [
                {"manager": manager, "operation": "Apply", "subresource": subresource, "fieldsType": "FieldsV1", "fieldsV1": fields}]}, "spec": {}})))
        };
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        assert_eq!(deployment_of("kustomize-controller", "", replicas.clone()).replicas_owner.as_deref(), Some("kustomize-controller"));
        assert_eq!(deployment_of("kubectl", "", replicas.clone()).replicas_owner, None);
        assert_eq!(deployment_of("argocd-controller", "", json!({"f:spec": {"f:template": {}}})).replicas_owner, None);
        assert_eq!(
            deployment_of("argocd-controller", "", json!({"f:spec": {"f:template": {}}})).keeper.as_deref(),
            Some("argocd-controller")
        );
        assert_eq!(deployment_of("argocd-controller", "status", json!({"f:status": {}})).keeper, None);
        assert_eq!(deployment_of("kubectl", "", replicas.clone()).keeper, None);
        assert_eq!(deployment_of("argocd-controller", "scale", replicas).replicas_owner, None);
    }

    #[test]
    fn native_sidecars_are_proxies_too() {
        let pod = |spec: Value, phase: &str| {
            object(json!({"metadata": {"name": "p"}, "spec": spec, "status": {"phase": phase, "podIP": "10.0.0.1"}}))
        };
        assert!(proxy_pod(&pod(json!({"initContainers": [{"name": "istio-proxy"}]}), "Running")).is_some());
        assert!(proxy_pod(&pod(json!({"containers": [{"name": "app"}, {"name": "istio-proxy"}]}), "Running")).is_some());
        assert!(proxy_pod(&pod(json!({"containers": [{"name": "istio-proxy"}]}), "Pending")).is_none());
        assert!(proxy_pod(&pod(json!({"containers": [{"name": "app"}]}), "Running")).is_none());
    }
}
