//! Schemas of kinds, one representation for built-in and custom ones: OpenAPI v3 as JSON, with Kubernetes' extensions.
//!
//! The built-in schemas come from k8s-openapi's types; what their Go source says in struct tags (merge keys, list and map
//! types) is added from the table at the end, taken from Kubernetes 1.35's published OpenAPI document. It says what a
//! field is; judging objects by it is the room of `structural`, merging that of `strategic` and `fields`.

use std::sync::LazyLock;

use k8s_openapi::api;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// Where `$ref`s point.
pub(super) const PREFIX: &str = "#/components/schemas/";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(built_in);

/// All built-in definitions, by their OpenAPI name (`io.k8s.api.apps.v1.Deployment`).
pub(super) fn definitions() -> &'static Map<String, Value> {
    &DEFINITIONS
}

/// The schema of a whole built-in object.
pub(super) fn built_in_root(definition: &str) -> Value {
    json!({"$ref": format!("{PREFIX}{definition}")})
}

/// The schema of an object of which only the metadata is known.
pub(super) fn meta_root() -> Value {
    json!({"type": "object", "properties": {"metadata": {"$ref": format!("{PREFIX}{META}")}}})
}

/// Completes a custom kind's schema with what every object has: apiVersion, kind, metadata.
pub(super) fn custom_root(mut schema: Value) -> Value {
    let open = schema.as_object().is_none_or(Map::is_empty);
    if open {
        schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    }
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    schema["properties"]["apiVersion"] =
        json!({"type": "string", "description": "APIVersion defines the versioned schema of this representation of an object."});
    schema["properties"]["kind"] =
        json!({"type": "string", "description": "Kind is a string value representing the REST resource this object represents."});
    schema["properties"]["metadata"] = json!({"$ref": format!("{PREFIX}{META}")});
    schema
}

/// How a list's items are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListType {
    /// The list is one value.
    Atomic,
    /// Items are scalars, each at most once.
    Set,
    /// Items are objects with these keys.
    Map(Vec<String>),
}

/// One place in a schema. `field` is what the parent says of it, `schema` what it refers to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    field: &'a Value,
    schema: &'a Value,
}

impl<'a> Node<'a> {
    /// The node at a schema, references followed.
    pub(super) fn new(field: &'a Value) -> Self {
        let mut schema = field;
        // References of built-in types are a chain of one; the bound is for broken documents.
        for _ in 0..8 {
            let target = schema.get("$ref").or_else(|| match schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
                Some([one]) if schema.get("type").is_none() => one.get("$ref"),
                _ => None,
            });
            let Some(name) = target.and_then(Value::as_str).and_then(|r| r.strip_prefix(PREFIX)) else { break };
            match definitions().get(name) {
                Some(found) => schema = found,
                None => break,
            }
        }
        Self { field, schema }
    }

    /// The schema itself.
    pub(super) fn schema(self) -> &'a Value {
        self.schema
    }

    /// A keyword or extension: the field's own first, then that of the type.
    pub(super) fn get(self, key: &str) -> Option<&'a Value> {
        self.field.get(key).or_else(|| self.schema.get(key))
    }

    /// The definition that the field refers to.
    pub(super) fn reference(self) -> Option<&'a str> {
        let direct = self.field.get("$ref");
        let wrapped = || self.field.get("allOf")?.get(0)?.get("$ref");
        direct.or_else(wrapped)?.as_str()?.strip_prefix(PREFIX)
    }

    /// `type`, if one is named.
    pub(super) fn type_name(self) -> Option<&'a str> {
        self.schema.get("type").and_then(Value::as_str)
    }

    /// The named field of an object, or the value of a map's key.
    pub(super) fn child(self, name: &str) -> Option<Self> {
        self.property(name).or_else(|| self.additional())
    }

    /// The named field.
    pub(super) fn property(self, name: &str) -> Option<Self> {
        self.schema.get("properties")?.get(name).map(Self::new)
    }

    /// What a map's values are.
    pub(super) fn additional(self) -> Option<Self> {
        match self.schema.get("additionalProperties") {
            Some(schema @ Value::Object(_)) => Some(Self::new(schema)),
            _ => None,
        }
    }

    /// What a list's items are.
    pub(super) fn items(self) -> Option<Self> {
        self.schema.get("items").map(Self::new)
    }

    /// Whether fields that are not named are kept.
    pub(super) fn is_open(self) -> bool {
        self.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
            || self.schema.get("additionalProperties") == Some(&Value::Bool(true))
    }

    /// Integer or string, whichever the client writes.
    pub(super) fn is_int_or_string(self) -> bool {
        self.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
            || self.schema.get("format").and_then(Value::as_str) == Some("int-or-string")
    }

    /// A resource quantity (`500m`): always a string once stored.
    pub(super) fn is_quantity(self) -> bool {
        self.reference().is_some_and(|r| r.ends_with(".api.resource.Quantity"))
    }

    /// Another whole object within this one.
    pub(super) fn is_embedded(self) -> bool {
        self.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true))
    }

    /// How the list's items are told apart; a list of which nothing is said is atomic.
    pub(super) fn list_type(self) -> ListType {
        match self.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(
                self.get("x-kubernetes-list-map-keys")
                    .and_then(Value::as_array)
                    .map(|keys| keys.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                    .unwrap_or_default(),
            ),
            _ => ListType::Atomic,
        }
    }

    /// Whether the object is one value to field managers.
    pub(super) fn is_atomic_map(self) -> bool {
        self.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic")
    }

    /// The key by which a strategic merge patch merges this list.
    pub(super) fn merge_key(self) -> Option<&'a str> {
        self.get("x-kubernetes-patch-merge-key").and_then(Value::as_str)
    }

    /// Whether a strategic merge patch has this strategy (`merge`, `retainKeys`, `replace`) here.
    pub(super) fn has_strategy(self, name: &str) -> bool {
        self.get("x-kubernetes-patch-strategy").and_then(Value::as_str).is_some_and(|s| s.split(',').any(|part| part == name))
    }
}

fn built_in() -> Map<String, Value> {
    let mut generator = SchemaSettings::openapi3().with(|s| s.definitions_path = "/components/schemas".into()).into_generator();
    macro_rules! add {
        ($($path:path),* $(,)?) => { $( let _ = generator.subschema_for::<$path>(); )* };
    }
    add!(
        api::core::v1::Namespace,
        api::core::v1::Pod,
        api::core::v1::Service,
        api::core::v1::Endpoints,
        api::core::v1::ConfigMap,
        api::core::v1::Secret,
        api::core::v1::ServiceAccount,
        api::core::v1::Event,
        api::core::v1::Node,
        api::apps::v1::Deployment,
        api::apps::v1::ReplicaSet,
        api::autoscaling::v1::Scale,
        api::autoscaling::v2::HorizontalPodAutoscaler,
        api::batch::v1::Job,
        api::batch::v1::CronJob,
        api::coordination::v1::Lease,
        api::discovery::v1::EndpointSlice,
        api::events::v1::Event,
        api::policy::v1::PodDisruptionBudget,
        api::policy::v1::Eviction,
        api::rbac::v1::Role,
        api::rbac::v1::RoleBinding,
        api::rbac::v1::ClusterRole,
        api::rbac::v1::ClusterRoleBinding,
        api::authorization::v1::SelfSubjectAccessReview,
        api::authorization::v1::SelfSubjectRulesReview,
        api::authorization::v1::SubjectAccessReview,
        api::authorization::v1::LocalSubjectAccessReview,
        api::authentication::v1::SelfSubjectReview,
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
        k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions,
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Status,
    );
    let mut all: Map<String, Value> = generator.take_definitions(true).into_iter().collect();
    for (name, extension, value) in STRUCTS {
        if let Some(definition) = all.get_mut(*name) {
            definition[*extension] = Value::from(*value);
        }
    }
    for line in FIELDS.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let mut words = line.split(' ');
        let (Some(definition), Some(field)) = (words.next(), words.next()) else { continue };
        let definition = definition
            .replace("core/", "io.k8s.api.core.v1.")
            .replace("apps/", "io.k8s.api.apps.v1.")
            .replace("meta/", "io.k8s.apimachinery.pkg.apis.meta.v1.")
            .replace("crd/", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.");
        let definition = if definition.starts_with("io.") { definition } else { format!("io.k8s.api.{definition}") };
        let Some(property) = all.get_mut(&definition).and_then(|d| d.get_mut("properties")?.get_mut(field)) else { continue };
        for word in words {
            match word.split_once('=') {
                Some(("map", keys)) => {
                    property["x-kubernetes-list-type"] = "map".into();
                    property["x-kubernetes-list-map-keys"] = keys.split(',').collect();
                }
                Some(("merge", key)) => {
                    property["x-kubernetes-patch-merge-key"] = key.into();
                    property["x-kubernetes-patch-strategy"] = "merge".into();
                }
                Some(("strategy", strategy)) => property["x-kubernetes-patch-strategy"] = strategy.into(),
                _ if word == "set" => property["x-kubernetes-list-type"] = "set".into(),
                _ if word == "atomic" => property["x-kubernetes-map-type"] = "atomic".into(),
                _ => {}
            }
        }
    }
    // Schemas that hold anything are empty in JSON schema; Kubernetes says so with an extension.
    for definition in all.values_mut() {
        tidy(definition);
    }
    for open in ["io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "io.k8s.apimachinery.pkg.runtime.RawExtension"] {
        if let Some(definition) = all.get_mut(open) {
            definition["type"] = "object".into();
            definition["x-kubernetes-preserve-unknown-fields"] = true.into();
        }
    }
    // These hold any JSON; they are published without a type.
    for any in ["JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray"] {
        if let Some(definition) = all.get_mut(&format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{any}")) {
            *definition = json!({"description": definition["description"], "x-kubernetes-preserve-unknown-fields": true});
        }
    }
    all.extend(super::istio::definitions());
    all
}

/// JSON schema as schemars writes it to what Kubernetes publishes: no `title`, no `$schema`, references with siblings in `allOf`.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("$ref") && fields.len() > 1 {
                let reference = fields.remove("$ref").unwrap_or_default();
                fields.insert("allOf".into(), json!([{"$ref": reference}]));
            }
            for (key, value) in fields.iter_mut() {
                match (key.as_str(), &*value) {
                    ("properties", Value::Object(_)) => {
                        if let Value::Object(properties) = value {
                            properties.values_mut().for_each(tidy);
                        }
                    }
                    // `true` is "anything" in JSON schema.
                    ("additionalProperties" | "items", Value::Bool(true)) => *value = json!({"x-kubernetes-preserve-unknown-fields": true}),
                    ("additionalProperties" | "items" | "allOf" | "anyOf" | "oneOf" | "not", _) => tidy(value),
                    _ => {}
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(tidy),
        Value::Bool(true) => *schema = json!({"x-kubernetes-preserve-unknown-fields": true}),
        _ => {}
    }
}

const STRUCTS: &[(&str, &str, &str)] = &[
    ("io.k8s.api.core.v1.ConfigMapKeySelector", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.core.v1.EndpointAddress", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.core.v1.EndpointPort", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.core.v1.FileKeySelector", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.core.v1.LocalObjectReference", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.core.v1.NodeSelector", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.core.v1.NodeSelectorTerm", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.core.v1.ObjectFieldSelector", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.core.v1.ObjectReference", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.core.v1.ResourceFieldSelector", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.core.v1.SecretKeySelector", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.core.v1.TypedLocalObjectReference", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.discovery.v1.EndpointPort", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.rbac.v1.RoleRef", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.api.rbac.v1.Subject", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector", "x-kubernetes-map-type", "atomic"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference", "x-kubernetes-map-type", "atomic"),
];

/// Definition, field, then: `map=KEYS` (list type map), `set`, `atomic` (map type), `merge=KEY` (patch merge key), `strategy=S`.
/// A list that is not here is atomic.
const FIELDS: &str = "
apps/DeploymentSpec strategy strategy=retainKeys
apps/DeploymentStatus conditions map=type merge=type
apps/ReplicaSetStatus conditions map=type merge=type
autoscaling.v2.HorizontalPodAutoscalerStatus conditions map=type merge=type
batch.v1.JobStatus conditions merge=type
batch.v1.PodFailurePolicyOnExitCodesRequirement values set
batch.v1.UncountedTerminatedPods failed set
batch.v1.UncountedTerminatedPods succeeded set
core/Container env map=name merge=name
core/Container ports map=containerPort,protocol merge=containerPort
core/Container volumeDevices map=devicePath merge=devicePath
core/Container volumeMounts map=mountPath merge=mountPath
core/ContainerRestartRuleOnExitCodes values set
core/ContainerStatus allocatedResourcesStatus map=name merge=name
core/ContainerStatus volumeMounts map=mountPath merge=mountPath
core/EphemeralContainer env map=name merge=name
core/EphemeralContainer ports map=containerPort,protocol merge=containerPort
core/EphemeralContainer volumeDevices map=devicePath merge=devicePath
core/EphemeralContainer volumeMounts map=mountPath merge=mountPath
core/NamespaceStatus conditions map=type merge=type
core/NodeSpec podCIDRs set strategy=merge
core/NodeStatus addresses map=type merge=type
core/NodeStatus conditions map=type merge=type
core/PodSpec containers map=name merge=name
core/PodSpec ephemeralContainers map=name merge=name
core/PodSpec hostAliases map=ip merge=ip
core/PodSpec imagePullSecrets map=name merge=name
core/PodSpec initContainers map=name merge=name
core/PodSpec nodeSelector atomic
core/PodSpec resourceClaims map=name merge=name strategy=merge,retainKeys
core/PodSpec schedulingGates map=name merge=name
core/PodSpec topologySpreadConstraints map=topologyKey,whenUnsatisfiable merge=topologyKey
core/PodSpec volumes map=name merge=name strategy=merge,retainKeys
core/PodStatus conditions map=type merge=type
core/PodStatus hostIPs merge=ip
core/PodStatus podIPs map=ip merge=ip
core/PodStatus resourceClaimStatuses map=name merge=name strategy=merge,retainKeys
core/ResourceRequirements claims map=name
core/ResourceStatus resources map=resourceID
core/ServiceAccount secrets map=name merge=name
core/ServiceSpec ports map=port,protocol merge=port
core/ServiceSpec selector atomic
core/ServiceStatus conditions map=type merge=type
discovery.v1.Endpoint addresses set
policy.v1.PodDisruptionBudgetSpec selector strategy=replace
policy.v1.PodDisruptionBudgetStatus conditions map=type merge=type
crd/CustomResourceDefinitionStatus conditions map=type
crd/JSONSchemaProps x-kubernetes-validations map=rule merge=rule
meta/ObjectMeta finalizers set strategy=merge
meta/ObjectMeta ownerReferences map=uid merge=uid
";
