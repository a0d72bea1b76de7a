//! The kinds that are served: the built-in ones from a table, custom ones from their CRDs.
//!
//! What a kind is called, in which versions it exists, what its schema is. How its objects are stored, changed and
//! printed is said elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use super::names::NameRule;
use super::schema::{self, Node};
use crate::store::Resource;

/// What stands behind a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Compiled into a Kubernetes server: typed, strategic merge patch.
    BuiltIn,
    /// Istio's, known to the lab without a CRD; behaves as a custom kind.
    Istio,
    /// From a CustomResourceDefinition.
    Crd,
}

/// Where a scale subresource finds its numbers (JSON paths as dotted names).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScalePaths {
    /// Wanted replicas, below `.spec`.
    pub spec: Vec<String>,
    /// Seen replicas, below `.status`.
    pub status: Vec<String>,
    /// The selector as a string (custom kinds), below `.spec` or `.status`.
    pub selector: Option<Vec<String>>,
}

/// A printed column of a custom kind.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Its header.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// OpenAPI format, may be empty.
    pub format: String,
    /// For the column definition.
    pub description: String,
    /// Above 0: only in wide output.
    pub priority: i64,
    /// Simple JSONPath.
    pub path: String,
}

/// One version of a kind.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// `v1`, `v1beta1`.
    pub name: String,
    /// Whether requests for it are answered.
    pub served: bool,
    /// Whether there is a status subresource.
    pub status: bool,
    /// Its scale subresource, if any.
    pub scale: Option<ScalePaths>,
    /// The schema of the whole object.
    pub schema: Arc<Value>,
    /// Columns of a custom kind.
    pub columns: Vec<Column>,
    /// Field labels for selectors, besides name and namespace (`spec.color`).
    pub selectable: Vec<String>,
    /// The CEL rules, compiled once; `None` where there are none.
    pub rules: Option<Arc<super::rules::Rules>>,
    /// Warned of on each use, if deprecated.
    pub deprecation: Option<String>,
}

impl Version {
    /// The root of its schema.
    pub(super) fn node(&self) -> Node<'_> {
        Node::new(&self.schema)
    }
}

/// One kind of object, in all its versions.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    /// Group and plural: where its objects are stored.
    pub resource: Resource,
    /// `Deployment`.
    pub kind: String,
    /// `DeploymentList`.
    pub list_kind: String,
    /// `deployment`.
    pub singular: String,
    /// `deploy`.
    pub short: Vec<String>,
    /// `all`.
    pub categories: Vec<String>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Preferred version first.
    pub versions: Vec<Version>,
    /// The version objects are stored in.
    pub storage: String,
    /// What stands behind it.
    pub origin: Origin,
}

impl Kind {
    /// Whether it behaves as custom kinds do (no strategic merge, resourceVersion wanted in updates).
    pub(super) fn is_custom(&self) -> bool {
        self.origin != Origin::BuiltIn
    }

    /// `apps/v1` of the version with that index.
    pub(super) fn api_version(&self, version: usize) -> String {
        api_version(&self.resource.group, &self.versions[version].name)
    }

    /// The index of a served version.
    pub(super) fn version(&self, name: &str) -> Option<usize> {
        self.versions.iter().position(|v| v.name == name && v.served)
    }

    /// The index of the version objects are stored in.
    pub(super) fn storage_index(&self) -> usize {
        self.versions.iter().position(|v| v.name == self.storage).unwrap_or_default()
    }

    /// The rule its objects' names follow.
    pub(super) fn name_rule(&self) -> NameRule {
        match (self.resource.group.as_str(), self.resource.plural.as_str()) {
            ("", "namespaces") => NameRule::Label,
            // Kubernetes 1.34 began to relax this to RFC 1123; 1.35's default is still the strict rule.
            ("", "services") => NameRule::Label1035,
            ("rbac.authorization.k8s.io", _) => NameRule::PathSegment,
            _ => NameRule::Subdomain,
        }
    }

    /// A built-in kind with this plural in this group.
    pub(super) fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }
}

/// `v1`, or `apps/v1`.
pub(super) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// All kinds that are served now.
#[derive(Debug)]
pub(super) struct Registry {
    kinds: RwLock<BTreeMap<Resource, Arc<Kind>>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// The built-in kinds and Istio's.
    pub(super) fn new() -> Self {
        let kinds = built_in().into_iter().chain(super::istio::kinds());
        Self { kinds: RwLock::new(kinds.map(|k| (k.resource.clone(), Arc::new(k))).collect()) }
    }

    /// The kind with this group and plural, and the index of the version, if it is served.
    pub(super) fn find(&self, group: &str, version: &str, plural: &str) -> Option<(Arc<Kind>, usize)> {
        let kind = self.get(&Resource::new(group, plural))?;
        let index = kind.version(version)?;
        Some((kind, index))
    }

    /// The kind stored under this resource.
    pub(super) fn get(&self, resource: &Resource) -> Option<Arc<Kind>> {
        self.kinds.read().unwrap_or_else(PoisonError::into_inner).get(resource).cloned()
    }

    /// The kind of this name in this group.
    pub(super) fn by_kind(&self, group: &str, kind: &str) -> Option<Arc<Kind>> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        kinds.values().find(|k| k.resource.group == group && k.kind == kind).cloned()
    }

    /// All kinds, by group and plural.
    pub(super) fn all(&self) -> Vec<Arc<Kind>> {
        self.kinds.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Adds or replaces a kind.
    pub(super) fn put(&self, kind: Kind) {
        self.kinds.write().unwrap_or_else(PoisonError::into_inner).insert(kind.resource.clone(), Arc::new(kind));
    }

    /// Takes a custom kind away; an Istio kind that a CRD had replaced is itself again.
    pub(super) fn remove(&self, resource: &Resource) {
        let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
        if kinds.get(resource).is_none_or(|k| k.origin != Origin::Crd) {
            return;
        }
        kinds.remove(resource);
        if let Some(own) = super::istio::kinds().into_iter().find(|k| k.resource == *resource) {
            kinds.insert(resource.clone(), Arc::new(own));
        }
    }
}

/// group, version, plural, kind, short names, flags: `n`amespaced, `s`tatus, s`c`ale, `a`ll category; OpenAPI package.
const BUILT_IN: &[(&str, &str, &str, &str, &str, &str, &str)] = &[
    ("", "v1", "configmaps", "ConfigMap", "cm", "n", "io.k8s.api.core.v1"),
    ("", "v1", "endpoints", "Endpoints", "ep", "n", "io.k8s.api.core.v1"),
    ("", "v1", "events", "Event", "ev", "n", "io.k8s.api.core.v1"),
    ("", "v1", "namespaces", "Namespace", "ns", "s", "io.k8s.api.core.v1"),
    ("", "v1", "nodes", "Node", "no", "s", "io.k8s.api.core.v1"),
    ("", "v1", "pods", "Pod", "po", "nsa", "io.k8s.api.core.v1"),
    ("", "v1", "secrets", "Secret", "", "n", "io.k8s.api.core.v1"),
    ("", "v1", "serviceaccounts", "ServiceAccount", "sa", "n", "io.k8s.api.core.v1"),
    ("", "v1", "services", "Service", "svc", "nsa", "io.k8s.api.core.v1"),
    (
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        "crd,crds",
        "s",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
    ),
    ("apps", "v1", "deployments", "Deployment", "deploy", "nsca", "io.k8s.api.apps.v1"),
    ("apps", "v1", "replicasets", "ReplicaSet", "rs", "nsca", "io.k8s.api.apps.v1"),
    ("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", "nsa", "io.k8s.api.autoscaling.v2"),
    ("batch", "v1", "cronjobs", "CronJob", "cj", "nsa", "io.k8s.api.batch.v1"),
    ("batch", "v1", "jobs", "Job", "", "nsa", "io.k8s.api.batch.v1"),
    ("coordination.k8s.io", "v1", "leases", "Lease", "", "n", "io.k8s.api.coordination.v1"),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", "", "n", "io.k8s.api.discovery.v1"),
    ("events.k8s.io", "v1", "events", "Event", "ev", "n", "io.k8s.api.events.v1"),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", "pdb", "ns", "io.k8s.api.policy.v1"),
    ("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", "", "", "io.k8s.api.rbac.v1"),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", "", "", "io.k8s.api.rbac.v1"),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", "", "n", "io.k8s.api.rbac.v1"),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role", "", "n", "io.k8s.api.rbac.v1"),
];

/// The OpenAPI definition of a built-in kind.
pub(super) fn definition_of(kind: &Kind) -> Option<String> {
    BUILT_IN.iter().find(|row| row.0 == kind.resource.group && row.2 == kind.resource.plural).map(|row| format!("{}.{}", row.6, row.3))
}

/// Whether Kubernetes itself brings kinds of this group; all others' are defined by CRDs on a cluster.
pub(super) fn is_built_in_group(group: &str) -> bool {
    BUILT_IN.iter().any(|(g, ..)| *g == group) || super::discovery::is_review_group(group)
}

fn built_in() -> Vec<Kind> {
    BUILT_IN
        .iter()
        .map(|(group, version, plural, kind, short, flags, package)| {
            let replicas = |root: &str| vec![root.to_owned(), "replicas".to_owned()];
            let scale = flags.contains('c').then(|| ScalePaths { spec: replicas("spec"), status: replicas("status"), selector: None });
            Kind {
                resource: Resource::new(*group, *plural),
                kind: (*kind).into(),
                list_kind: format!("{kind}List"),
                singular: kind.to_lowercase(),
                short: short.split(',').filter(|s| !s.is_empty()).map(Into::into).collect(),
                categories: if flags.contains('a') { vec!["all".into()] } else { Vec::new() },
                namespaced: flags.contains('n'),
                versions: vec![Version {
                    name: (*version).into(),
                    served: true,
                    status: flags.contains('s'),
                    scale,
                    schema: Arc::new(schema::built_in_root(&format!("{package}.{kind}"))),
                    columns: Vec::new(),
                    selectable: Vec::new(),
                    rules: None,
                    deprecation: None,
                }],
                storage: (*version).into(),
                origin: Origin::BuiltIn,
            }
        })
        .collect()
}
