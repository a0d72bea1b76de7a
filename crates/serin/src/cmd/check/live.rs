//! The cluster's own objects as texts for the linter: one for each object, as a person would write it.
//!
//! Pods are read by their labels alone, and only those count that no kind of this list makes: what an operator runs
//! stands behind Services too. All namespaces are read if that is allowed, as a route may lead to another; else the one of `-n`, and what was not
//! read counts as unknown.

use futures::future::join_all;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, ObjectMeta};
use kube::core::{GroupVersionKind, TypeMeta};
use serin_check::Input;

use crate::cluster::{Cluster, ClusterArgs};
use crate::exit::Failure;

/// What was read.
pub(super) struct Seen {
    /// The objects.
    pub(super) inputs: Vec<Input>,
    /// The namespace of `-n`, else the context's.
    pub(super) namespace: String,
    /// What could not be read, as sentences.
    pub(super) unread: Vec<String>,
}

/// A kind that rules look at: group, versions from the best, kind, plural, whether it lies in namespaces.
struct Wanted(&'static str, &'static [&'static str], &'static str, &'static str, bool);

const ISTIO: &[&str] = &["v1", "v1beta1", "v1alpha3"];

const WANTED: &[Wanted] = &[
    Wanted("", &["v1"], "Namespace", "namespaces", false),
    Wanted("", &["v1"], "Service", "services", true),
    Wanted("apps", &["v1"], "Deployment", "deployments", true),
    Wanted("apps", &["v1"], "StatefulSet", "statefulsets", true),
    Wanted("apps", &["v1"], "DaemonSet", "daemonsets", true),
    Wanted("networking.k8s.io", &["v1"], "NetworkPolicy", "networkpolicies", true),
    Wanted("policy", &["v1"], "PodDisruptionBudget", "poddisruptionbudgets", true),
    Wanted("autoscaling", &["v2"], "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    Wanted("networking.istio.io", ISTIO, "VirtualService", "virtualservices", true),
    Wanted("networking.istio.io", ISTIO, "DestinationRule", "destinationrules", true),
    Wanted("networking.istio.io", ISTIO, "Gateway", "gateways", true),
    Wanted("networking.istio.io", ISTIO, "ServiceEntry", "serviceentries", true),
    Wanted("networking.istio.io", ISTIO, "WorkloadEntry", "workloadentries", true),
    Wanted("networking.istio.io", ISTIO, "Sidecar", "sidecars", true),
    Wanted("networking.istio.io", &["v1alpha3"], "EnvoyFilter", "envoyfilters", true),
    Wanted("security.istio.io", &["v1", "v1beta1"], "AuthorizationPolicy", "authorizationpolicies", true),
    Wanted("security.istio.io", &["v1", "v1beta1"], "PeerAuthentication", "peerauthentications", true),
    Wanted("security.istio.io", &["v1", "v1beta1"], "RequestAuthentication", "requestauthentications", true),
    Wanted("telemetry.istio.io", &["v1", "v1alpha1"], "Telemetry", "telemetries", true),
    Wanted("gateway.networking.k8s.io", &["v1", "v1beta1"], "HTTPRoute", "httproutes", true),
    Wanted("gateway.networking.k8s.io", &["v1", "v1alpha2"], "GRPCRoute", "grpcroutes", true),
    Wanted("serin.dev", &["v1alpha1"], "CanaryRelease", "canaryreleases", true),
    Wanted("argoproj.io", &["v1alpha1"], "Rollout", "rollouts", true),
    Wanted("argoproj.io", &["v1alpha1"], "Application", "applications", true),
    Wanted("helm.toolkit.fluxcd.io", &["v2", "v2beta2"], "HelmRelease", "helmreleases", true),
    Wanted("flagger.app", &["v1beta1"], "Canary", "canaries", true),
    Wanted("keda.sh", &["v1alpha1"], "ScaledObject", "scaledobjects", true),
    Wanted("monitoring.coreos.com", &["v1"], "ServiceMonitor", "servicemonitors", true),
    Wanted("monitoring.coreos.com", &["v1"], "PodMonitor", "podmonitors", true),
];

/// A page of a list: what an API server hands out without strain.
const PAGE: u32 = 500;

enum Answer {
    Objects(Vec<DynamicObject>),
    /// Only the namespace's own were handed out.
    Partly(Vec<DynamicObject>),
    Refused(String),
}

/// Reads them.
///
/// # Errors
/// The cluster does not answer.
pub(super) async fn read(args: &ClusterArgs) -> Result<Seen, Failure> {
    let cluster = args.connect().await?;
    let (answers, pods) = tokio::join!(join_all(WANTED.iter().map(|w| one(&cluster, w))), pods(&cluster));
    let mut seen = Seen { inputs: Vec::new(), namespace: cluster.namespace.clone(), unread: Vec::new() };
    for (wanted, answer) in WANTED.iter().zip(answers) {
        let objects = match answer? {
            Answer::Objects(objects) => objects,
            Answer::Partly(objects) => {
                seen.unread.push(format!("may not list {} of all namespaces, only of {}", wanted.3, cluster.namespace));
                objects
            }
            Answer::Refused(why) => {
                seen.unread.push(format!("may not list {}: {why}", wanted.3));
                continue;
            }
        };
        seen.inputs.extend(objects.into_iter().map(text));
    }
    match pods? {
        Some(pods) => seen.inputs.extend(pods.into_iter().map(text)),
        None => seen.unread.push("may not list pods of all namespaces".to_owned()),
    }
    Ok(seen)
}

/// Makers of pods that are read themselves, or whose pods stand behind no Service.
const MAKERS: [&str; 4] = ["ReplicaSet", "StatefulSet", "DaemonSet", "Job"];

/// Pods that stand for themselves; `None`: may not be listed.
async fn pods(cluster: &Cluster) -> Result<Option<Vec<DynamicObject>>, Failure> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Pod"), "pods");
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    let mut found = Vec::new();
    let mut token = None;
    loop {
        let page = match api.list_metadata(&ListParams { limit: Some(PAGE), continue_token: token, ..ListParams::default() }).await {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.code == 403 => return Ok(None),
            Err(e) => return Err(cluster.failed("list pods", &e)),
        };
        let made =
            |m: &ObjectMeta| m.owner_references.iter().flatten().any(|o| o.controller == Some(true) && MAKERS.contains(&o.kind.as_str()));
        found.extend(page.items.into_iter().filter(|p| !made(&p.metadata)).map(|p| DynamicObject {
            types: Some(TypeMeta { api_version: "v1".to_owned(), kind: "Pod".to_owned() }),
            metadata: p.metadata,
            data: serde_json::json!({}),
        }));
        token = page.metadata.continue_.filter(|t| !t.is_empty());
        if token.is_none() {
            return Ok(Some(found));
        }
    }
}

async fn one(cluster: &Cluster, wanted: &Wanted) -> Result<Answer, Failure> {
    let Wanted(group, versions, kind, plural, namespaced) = wanted;
    for version in *versions {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        match list(Api::all_with(cluster.client.clone(), &resource)).await {
            Ok(objects) => return Ok(Answer::Objects(objects)),
            // Unknown in this version: the next, or a kind that this cluster does not have.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(kube::Error::Api(status)) if status.code == 403 && *namespaced => {
                return match list(Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource)).await {
                    Ok(objects) => Ok(Answer::Partly(objects)),
                    Err(kube::Error::Api(status)) if status.code == 403 => Ok(Answer::Refused(status.message.clone())),
                    Err(e) => Err(cluster.failed(&format!("list {plural} in namespace {}", cluster.namespace), &e)),
                };
            }
            Err(kube::Error::Api(status)) if status.code == 403 => return Ok(Answer::Refused(status.message.clone())),
            Err(e) => return Err(cluster.failed(&format!("list {plural}"), &e)),
        }
    }
    Ok(Answer::Objects(Vec::new()))
}

async fn list(api: Api<DynamicObject>) -> Result<Vec<DynamicObject>, kube::Error> {
    let mut found = Vec::new();
    let mut token = None;
    loop {
        let params = ListParams { limit: Some(PAGE), continue_token: token, ..ListParams::default() };
        let page = api.list(&params).await?;
        let types = page.types;
        found.extend(page.items.into_iter().map(|mut o| {
            // Items of a list do not say their kind themselves; the list does, as `ServiceList`.
            if o.types.as_ref().is_none_or(|t| t.kind.is_empty()) {
                let kind = types.kind.trim_end_matches("List").to_owned();
                o.types = Some(TypeMeta { kind, api_version: types.api_version.clone() });
            }
            o
        }));
        token = page.metadata.continue_.filter(|t| !t.is_empty());
        if token.is_none() {
            return Ok(found);
        }
    }
}

/// The object as its owner wrote it: without what the server adds.
fn text(mut object: DynamicObject) -> Input {
    object.metadata.managed_fields = None;
    if let Some(data) = object.data.as_object_mut() {
        data.remove("status");
    }
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    let kind = object.types.as_ref().map(|t| t.kind.to_lowercase()).unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    let place = object.metadata.namespace.clone().map_or_else(|| name.clone(), |ns| format!("{ns}/{name}"));
    Input { path: format!("live:{kind}/{place}"), bytes: yaml(&object).into_bytes(), live: true }
}

fn yaml(object: &DynamicObject) -> String {
    // An object that came as JSON can be written as YAML; if not, JSON is YAML too.
    serde_saphyr::to_string(object).or_else(|_| serde_json::to_string_pretty(object)).unwrap_or_default()
}
