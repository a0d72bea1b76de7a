//! Kubernetes objects in the input: what stands in a document, and how hosts and namespaces
//! are named. Judging them is the rules' task.

use crate::source::Loc;
use crate::yaml::{Type, View};

/// The kinds that Serin has an opinion on, told apart by API group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Pod,
    Job,
    CronJob,
    Rollout,
    Service,
    Namespace,
    ServiceAccount,
    ConfigMap,
    NetworkPolicy,
    PodDisruptionBudget,
    HorizontalPodAutoscaler,
    ScaledObject,
    Ingress,
    VirtualService,
    DestinationRule,
    Gateway,
    ServiceEntry,
    WorkloadEntry,
    Sidecar,
    EnvoyFilter,
    AuthorizationPolicy,
    PeerAuthentication,
    RequestAuthentication,
    Telemetry,
    ServiceMonitor,
    PodMonitor,
    HttpRoute,
    GrpcRoute,
    FlaggerCanary,
    CanaryRelease,
    CanaryPolicy,
    ArgoApplication,
    FluxKustomization,
    FluxHelmRelease,
    Other,
}

/// Number of variants of [`Kind`].
pub(crate) const N_KINDS: usize = Kind::Other as usize + 1;

pub(crate) fn kind_of(group: &str, kind: &str) -> Kind {
    use Kind as K;
    match (group, kind) {
        ("apps" | "extensions", "Deployment") => K::Deployment,
        ("apps", "StatefulSet") => K::StatefulSet,
        ("apps" | "extensions", "DaemonSet") => K::DaemonSet,
        ("apps" | "extensions", "ReplicaSet") => K::ReplicaSet,
        ("", "Pod") => K::Pod,
        ("batch", "Job") => K::Job,
        ("batch", "CronJob") => K::CronJob,
        ("argoproj.io", "Rollout") => K::Rollout,
        ("argoproj.io", "Application") => K::ArgoApplication,
        ("kustomize.toolkit.fluxcd.io", "Kustomization") => K::FluxKustomization,
        ("helm.toolkit.fluxcd.io", "HelmRelease") => K::FluxHelmRelease,
        ("", "Service") => K::Service,
        ("", "Namespace") => K::Namespace,
        ("", "ServiceAccount") => K::ServiceAccount,
        ("", "ConfigMap") => K::ConfigMap,
        ("networking.k8s.io" | "extensions", "NetworkPolicy") => K::NetworkPolicy,
        ("networking.k8s.io" | "extensions", "Ingress") => K::Ingress,
        ("policy", "PodDisruptionBudget") => K::PodDisruptionBudget,
        ("autoscaling", "HorizontalPodAutoscaler") => K::HorizontalPodAutoscaler,
        ("keda.sh", "ScaledObject") => K::ScaledObject,
        ("networking.istio.io", "VirtualService") => K::VirtualService,
        ("networking.istio.io", "DestinationRule") => K::DestinationRule,
        ("networking.istio.io", "Gateway") => K::Gateway,
        ("networking.istio.io", "ServiceEntry") => K::ServiceEntry,
        ("networking.istio.io", "WorkloadEntry") => K::WorkloadEntry,
        ("networking.istio.io", "Sidecar") => K::Sidecar,
        ("networking.istio.io", "EnvoyFilter") => K::EnvoyFilter,
        ("security.istio.io", "AuthorizationPolicy") => K::AuthorizationPolicy,
        ("security.istio.io", "PeerAuthentication") => K::PeerAuthentication,
        ("security.istio.io", "RequestAuthentication") => K::RequestAuthentication,
        ("telemetry.istio.io", "Telemetry") => K::Telemetry,
        ("monitoring.coreos.com", "ServiceMonitor") => K::ServiceMonitor,
        ("monitoring.coreos.com", "PodMonitor") => K::PodMonitor,
        ("gateway.networking.k8s.io", "HTTPRoute") => K::HttpRoute,
        ("gateway.networking.k8s.io", "GRPCRoute") => K::GrpcRoute,
        ("flagger.app", "Canary") => K::FlaggerCanary,
        ("serin.dev", "CanaryRelease") => K::CanaryRelease,
        ("serin.dev", "CanaryPolicy") => K::CanaryPolicy,
        _ => K::Other,
    }
}

/// A namespace as the input names it. Absent: the one of whoever applies the file.
pub(crate) type Ns<'a> = Option<&'a str>;

/// Stands for the namespace of objects that name none, where the input names several: it is
/// one of its own then, and guesses would mix other people's objects.
pub(crate) const UNSAID: &str = "";

/// The namespace, where the input says one.
pub(crate) fn known(ns: Ns<'_>) -> Ns<'_> {
    ns.filter(|n| *n != UNSAID)
}

/// How a namespace is said; `default` where nothing is known.
pub(crate) fn said(ns: Ns<'_>) -> &str {
    known(ns).unwrap_or("default")
}

/// Whether two namespaces may be the same; an absent one may be any.
pub(crate) fn may_be_same(a: Ns<'_>, b: Ns<'_>) -> bool {
    a == b || a.is_none() || b.is_none()
}

/// Index of an object in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjId(pub(crate) u32);

/// One object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object<'a> {
    /// Its number in the run.
    pub(crate) id: ObjId,
    /// Its kind, [`Kind::Other`] if Serin has no opinion on it.
    pub(crate) kind: Kind,
    /// The kind as written.
    pub(crate) kind_name: &'a str,
    /// API group, empty for core.
    pub(crate) group: &'a str,
    /// API version without the group.
    pub(crate) version: &'a str,
    /// Its name; empty if it has none (generateName).
    pub(crate) name: &'a str,
    /// Its namespace, as written or as given by the user for files without one.
    pub(crate) ns: Ns<'a>,
    /// The whole object.
    pub(crate) view: View<'a>,
}

impl<'a> Object<'a> {
    /// `spec`, if there is one.
    pub(crate) fn spec(&self) -> Option<View<'a>> {
        self.view.get("spec")
    }

    /// Where its name stands, else the object.
    pub(crate) fn name_loc(&self) -> Loc {
        self.view.at(&["metadata", "name"]).map_or_else(|| self.view.loc(), View::loc)
    }

    /// An annotation.
    pub(crate) fn annotation(&self, key: &str) -> Option<&'a str> {
        self.view.at(&["metadata", "annotations"])?.get(key)?.scalar()
    }

    /// A label.
    pub(crate) fn label(&self, key: &str) -> Option<&'a str> {
        self.view.at(&["metadata", "labels"])?.get(key)?.scalar()
    }

    /// `Kind name`, as messages say it.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.kind_name, self.name)
    }
}

/// Where further objects begin in a document, for want of a `---` between them: each
/// `apiVersion` (or `kind`, if that alone repeats) after the first.
pub(crate) fn glued(doc: View<'_>) -> Vec<Loc> {
    let starts = |key: &str| doc.fields().filter(|f| f.key == key).skip(1).map(|f| f.key_loc).collect::<Vec<_>>();
    let (versions, kinds) = (starts("apiVersion"), starts("kind"));
    if versions.is_empty() { kinds } else { versions }
}

/// Splits a file's documents into objects; `List`s are unfolded. What is no object (a
/// values file, a pipeline) is counted by the caller and left alone.
pub(crate) fn objects_in<'a>(doc: View<'a>, out: &mut Vec<View<'a>>) -> bool {
    if doc.ty() != Type::Map {
        return doc.is_null();
    }
    // Several objects run into one another: which field belongs to which is a guess.
    if !glued(doc).is_empty() {
        return true;
    }
    let (Some(api), Some(kind)) = (doc.str_at("apiVersion"), doc.str_at("kind")) else {
        return false;
    };
    if kind.ends_with("List") && doc.get("items").is_some_and(|i| i.ty() == Type::Seq) {
        for item in doc.list("items") {
            if item.str_at("kind").is_some() && item.str_at("apiVersion").is_some() {
                out.push(item);
            }
        }
        return true;
    }
    if api.is_empty() || kind.is_empty() {
        return false;
    }
    out.push(doc);
    true
}

pub(crate) fn object<'a>(id: ObjId, view: View<'a>, default_ns: Ns<'a>) -> Object<'a> {
    let api = view.str_at("apiVersion").unwrap_or("");
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    let kind_name = view.str_at("kind").unwrap_or("");
    let kind = kind_of(group, kind_name);
    let meta = view.get("metadata");
    let text = |key| meta.and_then(|m| m.get(key)).and_then(View::scalar);
    let ns = match kind {
        Kind::Namespace => None,
        _ => text("namespace").filter(|n| !n.is_empty()).or(default_ns),
    };
    Object { id, kind, kind_name, group, version, name: text("name").unwrap_or(""), ns, view }
}

/// A host as Istio reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Host<'a> {
    /// A Kubernetes service: a short name in the namespace of the object that says it, or
    /// `name.namespace.svc.DOMAIN`.
    Service {
        /// The Service's name.
        name: &'a str,
        /// Its namespace.
        ns: Ns<'a>,
    },
    /// Anything else with a dot, taken literally.
    Literal(&'a str),
    /// `*` or `*.suffix`.
    Wildcard(&'a str),
}

/// Reads a host said by an object of namespace `ns`. Istio expands names without a dot and
/// takes all others literally.
pub(crate) fn host<'a>(text: &'a str, ns: Ns<'a>) -> Host<'a> {
    if text.starts_with('*') {
        return Host::Wildcard(text);
    }
    if !text.contains('.') {
        return Host::Service { name: text, ns };
    }
    let mut labels = text.splitn(4, '.');
    match (labels.next(), labels.next(), labels.next(), labels.next()) {
        (Some(name), Some(space), Some("svc"), Some(domain)) if !name.is_empty() && !space.is_empty() && domain.contains('.') => {
            Host::Service { name, ns: Some(space) }
        }
        _ => Host::Literal(text),
    }
}

/// Whether two hosts may name the same thing.
pub(crate) fn same_host(a: Host<'_>, b: Host<'_>) -> bool {
    match (a, b) {
        (Host::Service { name: x, ns: m }, Host::Service { name: y, ns: n }) => x == y && may_be_same(m, n),
        (Host::Literal(x), Host::Literal(y)) | (Host::Wildcard(x), Host::Wildcard(y)) => x == y,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_istio_reads_them() {
        let shop = Some("shop");
        let svc = |name, ns| Host::Service { name, ns };
        assert_eq!(host("cart", shop), svc("cart", shop));
        assert_eq!(host("cart.pay.svc.cluster.local", shop), svc("cart", Some("pay")));
        assert_eq!(host("cart.shop", shop), Host::Literal("cart.shop"));
        assert_eq!(host("cart.shop.svc", shop), Host::Literal("cart.shop.svc"));
        assert_eq!(host("*.example.com", shop), Host::Wildcard("*.example.com"));
    }
}
