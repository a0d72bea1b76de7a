//! Istio's objects as plain JSON, in whichever API version the cluster serves.
//!
//! Fields that Serin does not know survive, as nothing here reads them into structs.

use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::Value;
use serin_api::names::FIELD_MANAGER;
use serin_core::route::rules::{Labels, ROOT_NAMESPACE, Rules, effective};
use serin_core::route::{self, ServiceName, Share};

use crate::cluster::Cluster;
use crate::exit::Failure;

/// Versions of `networking.istio.io`, best first.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha3"];

/// What routes and rules of a namespace say, as read at once.
pub(crate) struct Mesh {
    /// All VirtualServices of the namespace.
    pub(crate) virtual_services: Vec<Value>,
    /// All DestinationRules of the namespace, and of Istio's root namespace as far as they may be read.
    pub(crate) rules: Vec<Value>,
    version: &'static str,
}

fn resource(version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("networking.istio.io", version, kind), plural)
}

fn api(cluster: &Cluster, namespace: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    Api::namespaced_with(cluster.client.clone(), namespace, &resource(version, kind, plural))
}

fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

async fn list(cluster: &Cluster, namespace: &str, version: &str, kind: &str, plural: &str) -> Result<Vec<Value>, kube::Error> {
    let found = api(cluster, namespace, version, kind, plural).list(&ListParams::default()).await?;
    Ok(found.iter().map(value).collect())
}

impl Mesh {
    /// Reads routes and rules of the cluster's namespace.
    ///
    /// # Errors
    /// Istio's kinds are not there, or may not be read.
    pub(crate) async fn read(cluster: &Cluster) -> Result<Self, Failure> {
        let namespace = &cluster.namespace;
        for version in VERSIONS {
            match list(cluster, namespace, version, "VirtualService", "virtualservices").await {
                Ok(virtual_services) => {
                    let rules = list(cluster, namespace, version, "DestinationRule", "destinationrules");
                    let root = list(cluster, ROOT_NAMESPACE, version, "DestinationRule", "destinationrules");
                    let (rules, root) = futures::future::join(rules, root).await;
                    let mut rules = rules.map_err(|e| cluster.failed(&format!("list DestinationRules in namespace {namespace}"), &e))?;
                    if namespace != ROOT_NAMESPACE {
                        rules.extend(root.unwrap_or_default());
                    }
                    return Ok(Self { virtual_services, rules, version });
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(e) => return Err(cluster.failed(&format!("list VirtualServices in namespace {namespace}"), &e)),
            }
        }
        Err(Failure::new(format!("{} does not know VirtualServices: is Istio there?", cluster.server))
            .hint("kubectl api-resources --api-group networking.istio.io"))
    }

    /// The rules that callers of the service's own namespace use.
    pub(crate) fn rules_for(&self, service: &ServiceName) -> Option<Rules> {
        effective(&self.rules, &service.namespace, ROOT_NAMESPACE, service)
    }

    /// The subset of a version, by the labels of its pods.
    pub(crate) fn subset(&self, service: &ServiceName, label: &str, pod_labels: &Labels) -> Option<String> {
        self.rules_for(service)?.subset_for(label, pod_labels).map(|s| s.name.clone())
    }

    /// The highest share, from 0 to 1, that any of the routes gives to a version, by the labels of its pods; `None`: it has no subset.
    pub(crate) fn share(
        &self,
        service: &ServiceName,
        label: &str,
        pod_labels: &Labels,
        routes: &[(&Value, Option<&[String]>)],
    ) -> Option<f64> {
        let subset = self.subset(service, label, pod_labels)?;
        Some(routes.iter().map(|(vs, only)| share_of(vs, service, *only, &subset).fraction()).fold(0.0, f64::max))
    }

    /// The VirtualServices that send to the service, and names of the routes of each that count; all, if none are named.
    pub(crate) fn routes<'a>(
        &'a self,
        service: &ServiceName,
        named: Option<&'a [serin_api::spec::VirtualServiceRef]>,
    ) -> Vec<(&'a Value, Option<&'a [String]>)> {
        let name = |vs: &Value| vs.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_string();
        match named {
            Some(named) => named
                .iter()
                .filter_map(|n| self.virtual_services.iter().find(|vs| name(vs) == n.name).map(|vs| (vs, n.routes.as_deref())))
                .collect(),
            None => {
                self.virtual_services.iter().filter(|vs| !route::look(vs, service, None).splits.is_empty()).map(|vs| (vs, None)).collect()
            }
        }
    }

    /// Reads one VirtualService again.
    pub(crate) async fn again(&self, cluster: &Cluster, name: &str) -> Result<Value, kube::Error> {
        self.virtual_service_api(cluster).get(name).await.map(|o| value(&o))
    }

    /// Sends a patch for one VirtualService.
    pub(crate) async fn patch(&self, cluster: &Cluster, name: &str, patch: &route::Patch) -> Result<Value, kube::Error> {
        let body: json_patch::Patch = serde_json::from_value(patch.to_value()).map_err(kube::Error::SerdeError)?;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        self.virtual_service_api(cluster).patch(name, &params, &Patch::<Value>::Json(body)).await.map(|o| value(&o))
    }

    fn virtual_service_api(&self, cluster: &Cluster) -> Api<DynamicObject> {
        api(cluster, &cluster.namespace, self.version, "VirtualService", "virtualservices")
    }
}

/// The labels of a Deployment's pods.
pub(crate) fn pod_labels(deployment: &Deployment) -> Labels {
    let template = deployment.spec.as_ref().and_then(|s| s.template.metadata.as_ref());
    template.and_then(|m| m.labels.clone()).unwrap_or_default()
}

/// The highest share that a subset has on the routes of one VirtualService.
pub(crate) fn share_of(vs: &Value, service: &ServiceName, only: Option<&[String]>, subset: &str) -> Share {
    let shares = route::look(vs, service, only).splits.into_iter().map(|s| s.share_of(subset));
    shares.max_by(|a, b| a.fraction().total_cmp(&b.fraction())).unwrap_or(Share::NONE)
}

/// Reads VirtualServices again, all at once.
pub(crate) async fn all_again(mesh: &Mesh, cluster: &Cluster, names: &[String]) -> Vec<Result<Value, kube::Error>> {
    join_all(names.iter().map(|n| mesh.again(cluster, n))).await
}
