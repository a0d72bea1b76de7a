//! The kinds that the controller reads, and how each is found in the cluster.
//!
//! All of them are read as raw JSON: a field that Serin does not know must survive, and a value that a patch tests must be
//! the one that was read. Deliberately no typed structs here.

use kube::Client;
use kube::core::{ApiResource, GroupVersionKind};

/// A kind that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Serin's own object.
    Release,
    /// What holds for many of them.
    Policy,
    /// apps/v1 Deployment.
    Deployment,
    /// v1 Service.
    Service,
    /// EndpointSlice, in the newest version that is served.
    EndpointSlice,
    /// Istio's VirtualService, in the newest version that is served.
    VirtualService,
    /// Istio's DestinationRule, likewise.
    DestinationRule,
    /// HorizontalPodAutoscaler, in the newest version that is served.
    Autoscaler,
    /// KEDA's ScaledObject, where that is installed.
    ScaledObject,
    /// v1 Pod: only those that run a proxy count, and only where proxies are the source.
    Pod,
}

/// Versions of Istio's API, best first.
const ISTIO_VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha3"];

impl Kind {
    /// What every installation reads.
    pub const ALWAYS: [Self; 9] = [
        Self::Release,
        Self::Policy,
        Self::Deployment,
        Self::Service,
        Self::EndpointSlice,
        Self::VirtualService,
        Self::DestinationRule,
        Self::Autoscaler,
        Self::ScaledObject,
    ];

    /// Whether the controller does its work where this kind is not served, or may not be read.
    pub fn is_optional(self) -> bool {
        matches!(self, Self::Autoscaler | Self::ScaledObject | Self::Policy)
    }

    fn group_and_kind(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Release => (serin_api::names::GROUP, serin_api::names::KIND, serin_api::names::PLURAL),
            Self::Policy => (serin_api::names::GROUP, serin_api::names::POLICY_KIND, serin_api::names::POLICY_PLURAL),
            Self::Deployment => ("apps", "Deployment", "deployments"),
            Self::Service => ("", "Service", "services"),
            Self::EndpointSlice => ("discovery.k8s.io", "EndpointSlice", "endpointslices"),
            Self::VirtualService => ("networking.istio.io", "VirtualService", "virtualservices"),
            Self::DestinationRule => ("networking.istio.io", "DestinationRule", "destinationrules"),
            Self::Autoscaler => ("autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
            Self::ScaledObject => ("keda.sh", "ScaledObject", "scaledobjects"),
            Self::Pod => ("", "Pod", "pods"),
        }
    }

    fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Release | Self::Policy | Self::ScaledObject => &["v1alpha1"],
            Self::Deployment | Self::Service | Self::Pod => &["v1"],
            // Addresses, readiness and ports are alike in both; before Kubernetes 1.21 there is only the latter.
            Self::EndpointSlice => &["v1", "v1beta1"],
            Self::VirtualService | Self::DestinationRule => &ISTIO_VERSIONS,
            // What is read of it, `scaleTargetRef`, is the same in both; before Kubernetes 1.23 there is only the latter.
            Self::Autoscaler => &["v2", "v1"],
        }
    }

    fn resource(self, version: &str) -> ApiResource {
        let (group, kind, plural) = self.group_and_kind();
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }

    /// The resource of a kind that every API server has.
    pub fn builtin(self) -> ApiResource {
        self.resource(self.versions().first().unwrap_or(&"v1"))
    }

    /// How a person names it, with what to do where it lacks.
    pub fn missing(self) -> String {
        match self {
            Self::Release | Self::Policy => {
                format!("kind {} is not installed: run serin install --crds | kubectl apply -f -", self.group_and_kind().1)
            }
            Self::VirtualService | Self::DestinationRule => {
                format!(
                    "Istio's kind {} is not installed, so there are no routes to split: install Istio, or its CRDs",
                    self.group_and_kind().1
                )
            }
            Self::Deployment | Self::Service | Self::EndpointSlice | Self::Autoscaler | Self::ScaledObject | Self::Pod => {
                let (group, kind, _) = self.group_and_kind();
                format!("kind {kind} of group {group:?} is not served")
            }
        }
    }
}

/// Finds the best version of a kind that the cluster serves; `None` where it serves none.
///
/// # Errors
/// The API server does not answer, or refuses.
pub async fn discover(client: &Client, kind: Kind) -> Result<Option<ApiResource>, kube::Error> {
    let (group, name, _) = kind.group_and_kind();
    if matches!(kind, Kind::Deployment | Kind::Service | Kind::Pod) {
        return Ok(Some(kind.builtin()));
    }
    for version in kind.versions() {
        match client.list_api_group_resources(&format!("{group}/{version}")).await {
            Ok(list) if list.resources.iter().any(|r| r.kind == name) => return Ok(Some(kind.resource(version))),
            Ok(_) => {}
            // By the code: what no CRD serves is refused in plain text, without a reason.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
