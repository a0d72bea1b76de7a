//! Serin's own DestinationRule for a service: the place of subsets that nobody else wrote.
//!
//! Somebody else's rule is never edited: their next apply would take the subset away, and with it every request to it. A
//! rule of its own for the same host is merged by Istio as long as `exportTo` and `workloadSelector` agree, so it copies
//! both. It holds subsets only.
//!
//! Deliberately says what to create, change or delete, and does none of it.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::borrow::Borrow;

use serde_json::{Map, Value, json};

use super::host::ServiceName;
use super::json::{list, namespace, object_name, text};
use super::patch::Patch;
use super::problem::{Place, RouteProblem};
use super::rules::{DESTINATION_RULE, Group, Labels, Rules, effective, read_subset};
use super::slug::slug;
use super::survey::{Target, VIRTUAL_SERVICE, read_route};
use crate::units::ObjectName;

/// The label of objects that Serin wrote.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "serin");

/// A version, as a subset is to select it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The label that tells versions apart: `version`.
    pub label: String,
    /// The labels of its pods, that one among them.
    pub pod_labels: Labels,
}

impl Version {
    /// A version of which nothing is known but its label.
    pub fn new(label: impl Into<String>, value: impl Into<String>) -> Self {
        let label = label.into();
        Self { pod_labels: Labels::from([(label.clone(), value.into())]), label }
    }

    /// The label's value; empty if the pods lack it.
    pub fn value(&self) -> &str {
        self.pod_labels.get(&self.label).map_or("", String::as_str)
    }

    fn labels(&self) -> Labels {
        Labels::from([(self.label.clone(), self.value().to_owned())])
    }
}

/// How far Serin may go to make a subset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// `destinationRule: Existing`: never write a rule.
    Nothing,
    /// `destinationRule: Companion`: join the rule that the host has.
    Join,
    /// `manageRoute: true`: also write the host's first rule.
    First,
}

/// Which versions callers must be able to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The canary: routes name stable's subset already.
    Canary,
    /// Both: a route without subsets is to become a split.
    Both,
}

/// What to do so that callers can reach a version.
#[derive(Clone, Debug, PartialEq)]
pub enum SubsetPlan {
    /// Nothing: this subset selects it already.
    Present {
        /// The subset's name.
        subset: String,
    },
    /// Create this rule.
    Create {
        /// The subset's name.
        subset: String,
        /// The object.
        rule: Value,
    },
    /// Patch Serin's own rule.
    Extend {
        /// The subset's name.
        subset: String,
        /// Its rule.
        rule: ObjectName,
        /// What adds the subset.
        patch: Patch,
    },
}

impl SubsetPlan {
    /// The name by which routes reach the version, once the plan is carried out.
    pub fn subset(&self) -> &str {
        match self {
            Self::Present { subset } | Self::Create { subset, .. } | Self::Extend { subset, .. } => subset,
        }
    }
}

/// The name of Serin's own rule for a service.
pub fn companion_name(service: &ServiceName) -> String {
    format!("{}-serin", service.name)
}

/// Whether a rule is Serin's own for the service: by name and label.
pub fn is_companion(rule: &Value, service: &ServiceName) -> bool {
    namespace(rule) == service.namespace && text(rule, "/metadata/name") == Some(&companion_name(service)) && is_ours(rule)
}

/// What makes `canary` reachable for callers of the service's own namespace, and `stable` beside it where `reach` asks for both
/// or the rule is the host's first. `rules` are all DestinationRules that are known.
///
/// A subset that selects a version already is used under the name it has. A new one is named by [`slug`], asks for the
/// version label alone, and copies the traffic policy of the subset that selects `stable`.
///
/// # Errors
/// The rules differ among callers, the host has no rule of its own and `permission` does not reach that far, or a name is taken.
pub fn ensure_subset<R: Borrow<Value>>(
    rules: &[R],
    root_namespace: &str,
    service: &ServiceName,
    stable: &Version,
    canary: &Version,
    reach: Reach,
    permission: Permission,
) -> Result<SubsetPlan, RouteProblem> {
    let fqdn = service.fqdn();
    let found = effective(rules, &service.namespace, root_namespace, service);
    let existing = |version: &Version| found.as_ref().and_then(|rules| rules.subset_for(&version.label, &version.pod_labels));
    let asked: &[&Version] = match reach {
        Reach::Canary => &[canary],
        Reach::Both => &[stable, canary],
    };
    let lacking: Vec<&Version> = asked.iter().copied().filter(|version| existing(version).is_none()).collect();
    let subset = existing(canary).map_or_else(|| slug(canary.value()), |subset| subset.name.clone());
    let Some(first) = lacking.first() else { return Ok(SubsetPlan::Present { subset }) };
    if permission == Permission::Nothing {
        return Err(RouteProblem::NoSubset { service: fqdn, subset: slug(first.value()), labels: shown(&first.labels()) });
    }
    let own = companion_name(service);
    let mut known = rules.iter().map(Borrow::borrow);
    let own = known.find(|rule| namespace(rule) == service.namespace && text(rule, "/metadata/name") == Some(&own));
    if let Some(foreign) = own.filter(|rule| !is_ours(rule)) {
        return Err(RouteProblem::NotOurs { at: Place::whole(DESTINATION_RULE, foreign) });
    }
    let Some(found) = found.as_ref().filter(|found| found.namespace == service.namespace && found.is_exact()) else {
        return match (permission, found, own) {
            // It exists and does not apply, as its host or export was changed: what is added to it reaches nobody.
            (Permission::First, _, Some(own)) => Err(RouteProblem::NotOurs { at: Place::whole(DESTINATION_RULE, own) }),
            (Permission::First, found, None) => {
                let replaced = found.as_ref().and_then(Rules::used);
                Ok(SubsetPlan::Create { subset: slug(canary.value()), rule: first_rule(service, replaced, &[stable, canary]) })
            }
            (_, None, _) => Err(RouteProblem::NoRule { service: fqdn, namespace: service.namespace.clone() }),
            (_, Some(found), _) => Err(elsewhere(&found, fqdn)),
        };
    };
    let group = match found.groups.as_slice() {
        [group] if group.selector.is_none() => group,
        groups => {
            let names: Vec<String> = groups.iter().flat_map(|group| &group.members).map(|rule| rule.name.clone()).collect();
            return Err(RouteProblem::RulesDiffer { service: fqdn, rules: names.join(", ") });
        }
    };
    let like = found.subset_for(&stable.label, &stable.pod_labels);
    let mut subsets = Vec::with_capacity(lacking.len());
    for version in lacking {
        let name = slug(version.value());
        if let Some(taken) = group.subsets.iter().find(|subset| subset.name == name) {
            let at = Box::new(Place { kind: DESTINATION_RULE, object: taken.rule.clone(), field: "spec.subsets".to_owned(), name: None });
            return Err(RouteProblem::SubsetTaken { at, subset: name, found: shown(&taken.labels), wanted: shown(&version.labels()) });
        }
        subsets.push(subset_value(&name, &version.labels(), like.and_then(|subset| subset.traffic_policy.as_ref())));
    }
    if let Some(own) = own {
        return extend(own, subset, subsets);
    }
    // The rule to join is the one that defines stable's subset, else the oldest.
    let joined = like.map(|subset| &subset.rule).or_else(|| group.members.first());
    match rules.iter().map(Borrow::borrow).find(|rule| Some(&object_name(rule)) == joined) {
        Some(joined) => Ok(SubsetPlan::Create { subset, rule: companion(joined, service, subsets) }),
        None => Err(RouteProblem::NoRule { service: fqdn, namespace: service.namespace.clone() }),
    }
}

/// Serin's own rule, joined to `rule`: host as that one writes it, its `exportTo` and `workloadSelector`, and these subsets.
pub fn companion(rule: &Value, service: &ServiceName, subsets: Vec<Value>) -> Value {
    let mut spec = Map::new();
    for field in ["host", "exportTo", "workloadSelector"] {
        if let Some(value) = rule.get("spec").and_then(|spec| spec.get(field)).filter(|value| !value.is_null()) {
            spec.insert(field.to_owned(), value.clone());
        }
    }
    spec.insert("subsets".to_owned(), Value::from(subsets));
    let version = text(rule, "/apiVersion").unwrap_or("networking.istio.io/v1");
    object(version, service, spec)
}

/// What to do about a subset of Serin's own rule that is no longer needed.
#[derive(Clone, Debug, PartialEq)]
pub enum SubsetRemoval {
    /// It is not there.
    Absent,
    /// Patch the rule.
    Patch(Patch),
    /// Delete the rule, as it stood then: it was the last subset.
    Delete {
        /// Its resource version.
        resource_version: String,
    },
}

/// Takes a subset out of Serin's own rule. To be carried out only after the weight has been 0 for the settle time, and the
/// destination is gone: pass all VirtualServices that are known, and the route that still names it is an error.
///
/// # Errors
/// The rule is not Serin's, or a route or mirror names the subset.
pub fn remove_subset<R: Borrow<Value>>(
    rule: &Value,
    service: &ServiceName,
    subset: &str,
    virtual_services: &[R],
) -> Result<SubsetRemoval, RouteProblem> {
    if !is_companion(rule, service) {
        return Err(RouteProblem::NotOurs { at: Place::whole(DESTINATION_RULE, rule) });
    }
    let subsets = list(rule, "/spec/subsets");
    let Some(position) = subsets.iter().position(|s| text(s, "/name") == Some(subset)) else {
        return Ok(SubsetRemoval::Absent);
    };
    if let Some(at) = uses(virtual_services, &Target::subset(service, subset)).into_iter().next() {
        return Err(RouteProblem::SubsetInUse { at: Box::new(at), subset: subset.to_owned() });
    }
    if subsets.len() == 1 {
        return Ok(SubsetRemoval::Delete { resource_version: text(rule, "/metadata/resourceVersion").unwrap_or_default().to_owned() });
    }
    let mut patch = Patch::default();
    patch.pin(DESTINATION_RULE, rule)?;
    patch.test("/spec/subsets", Value::from(subsets.to_vec()));
    patch.remove(format!("/spec/subsets/{position}"));
    Ok(SubsetRemoval::Patch(patch))
}

/// Every http route and mirror, tcp and tls route that names a destination, whatever its weight.
pub fn uses<R: Borrow<Value>>(virtual_services: &[R], target: &Target) -> Vec<Place> {
    let mut places = Vec::new();
    for vs in virtual_services.iter().map(Borrow::borrow) {
        let is = |destination: &Value| {
            let host = text(destination, "/host").map(|host| super::host::resolve(host, namespace(vs)));
            host.as_ref() == Some(&target.host) && text(destination, "/subset") == target.subset.as_deref()
        };
        for (index, route) in list(vs, "/spec/http").iter().enumerate() {
            let routed = read_route(vs, index, "").destinations.iter().any(|d| d.is(target));
            let mirrors = list(route, "/mirrors").iter().filter_map(|mirror| mirror.get("destination"));
            if routed || route.get("mirror").into_iter().chain(mirrors).any(is) {
                places.push(*Place::route(vs, index));
            }
        }
        for layer in ["tcp", "tls"] {
            for (index, route) in list(vs, &format!("/spec/{layer}")).iter().enumerate() {
                if list(route, "/route").iter().filter_map(|entry| entry.get("destination")).any(is) {
                    places.push(Place::field(VIRTUAL_SERVICE, vs, format!("spec.{layer}[{index}]")));
                }
            }
        }
    }
    places
}

/// The first rule of the host itself: a subset for each version, and what a less specific rule asked for, as the new one
/// replaces it for all callers.
fn first_rule(service: &ServiceName, replaced: Option<&Group>, versions: &[&Version]) -> Value {
    let mut spec = Map::new();
    spec.insert("host".to_owned(), Value::from(service.fqdn()));
    if let Some(policy) = replaced.and_then(|group| group.traffic_policy.clone()) {
        spec.insert("trafficPolicy".to_owned(), policy);
    }
    let subsets: Vec<Value> = versions.iter().map(|version| subset_value(&slug(version.value()), &version.labels(), None)).collect();
    spec.insert("subsets".to_owned(), Value::from(subsets));
    object("networking.istio.io/v1", service, spec)
}

fn elsewhere(found: &Rules, service: String) -> RouteProblem {
    let object = found.groups.iter().flat_map(|group| &group.members).next().cloned();
    let object = object.unwrap_or_else(|| ObjectName { namespace: found.namespace.clone(), name: String::new() });
    let at = Box::new(Place { kind: DESTINATION_RULE, object, field: String::new(), name: None });
    let why = match found.is_exact() {
        true => format!("it stands in namespace {}", found.namespace),
        false => format!("its host is the pattern {}", found.host),
    };
    RouteProblem::RuleElsewhere { at, service, why }
}

fn extend(own: &Value, subset: String, added: Vec<Value>) -> Result<SubsetPlan, RouteProblem> {
    let mut patch = Patch::default();
    patch.pin(DESTINATION_RULE, own)?;
    match own.pointer("/spec/subsets").filter(|subsets| subsets.is_array()) {
        Some(subsets) => {
            patch.test("/spec/subsets", subsets.clone());
            added.into_iter().for_each(|value| patch.add("/spec/subsets/-", value));
        }
        None => patch.add("/spec/subsets", Value::from(added)),
    }
    Ok(SubsetPlan::Extend { subset, rule: object_name(own), patch })
}

fn object(api_version: &str, service: &ServiceName, spec: Map<String, Value>) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": DESTINATION_RULE,
        "metadata": {"name": companion_name(service), "namespace": service.namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "spec": spec,
    })
}

fn subset_value(name: &str, labels: &Labels, policy: Option<&Value>) -> Value {
    let mut subset = Map::new();
    subset.insert("name".to_owned(), Value::from(name));
    subset.insert("labels".to_owned(), json!(labels));
    if let Some(policy) = policy {
        subset.insert("trafficPolicy".to_owned(), policy.clone());
    }
    Value::Object(subset)
}

fn is_ours(rule: &Value) -> bool {
    rule.pointer("/metadata/labels").and_then(|labels| labels.get(MANAGED_BY.0)).and_then(Value::as_str) == Some(MANAGED_BY.1)
}

fn shown(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "every pod".to_string() } else { pairs.join(",") }
}

/// The labels of a subset of a rule, by name.
pub fn subset_labels(rule: &Value, subset: &str) -> Option<Labels> {
    let found = list(rule, "/spec/subsets").iter().find(|s| text(s, "/name") == Some(subset))?;
    read_subset(found, &object_name(rule)).map(|subset| subset.labels)
}
