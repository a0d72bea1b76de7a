//! DestinationRules as a caller sees them: which apply to a service, and which subsets they define together.
//!
//! The lookup is Istio's (`PushContext.destinationRule` and `mergeDestinationRule`, Istio 1.31): the caller's namespace, then
//! the service's, then the root namespace; the first that has a rule for the host replaces the others, be it by a pattern.
//! Within a namespace an exact host wins over a pattern, the longer pattern over the shorter; rules of one host are merged,
//! oldest first, and a subset name that comes twice keeps its first meaning.
//!
//! Where `exportTo` or `workloadSelector` differ, Istio merges in some orders and not in others. Here they are kept apart as
//! groups, and Serin does not add to a host that has several: what callers see would depend on creation times.
//!
//! Deliberately no Sidecar resources: they only narrow which services a caller knows.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::borrow::Borrow;

use serde_json::Value;

use super::host::{ServiceName, covers, is_wildcard, resolve};
use super::json::{age_key, list, namespace, object_name, present, text, texts};
use crate::units::ObjectName;

/// The kind of the objects that this module reads.
pub const DESTINATION_RULE: &str = "DestinationRule";

/// Istio's root namespace, unless its mesh configuration says otherwise.
pub const ROOT_NAMESPACE: &str = "istio-system";

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// One subset.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// The labels of the pods it selects, beside the service's own selector.
    pub labels: Labels,
    /// Its own traffic policy, as written.
    pub traffic_policy: Option<Value>,
    /// The rule that defines it.
    pub rule: ObjectName,
}

/// Rules that Istio merges into one.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The rules, oldest first.
    pub members: Vec<ObjectName>,
    /// `exportTo`, with `.` resolved; `*` alone when absent.
    pub export_to: BTreeSet<String>,
    /// `workloadSelector.matchLabels`.
    pub selector: Option<Labels>,
    /// All subsets, each name once.
    pub subsets: Vec<Subset>,
    /// Subsets that another rule defined first: the name, and the rule that is not heard.
    pub unheard: Vec<(String, ObjectName)>,
    /// The policy of the host as a whole: that of the oldest rule that has one.
    pub traffic_policy: Option<Value>,
}

/// What applies to a service for callers of one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Where the rules stand.
    pub namespace: String,
    /// The resolved host that they are for: the service, or a pattern that covers it.
    pub host: String,
    /// Rules that merge, in the order of their oldest member. More than one: callers may see different subsets.
    pub groups: Vec<Group>,
}

impl Rules {
    /// Whether they are for the service itself and not for a pattern.
    pub fn is_exact(&self) -> bool {
        !is_wildcard(&self.host)
    }

    /// The group that a caller uses whose labels no `workloadSelector` selects: the last one without selector, as
    /// `SidecarScope.DestinationRule` takes it.
    pub fn used(&self) -> Option<&Group> {
        self.groups.iter().rev().find(|group| group.selector.is_none())
    }

    /// A subset by name.
    pub fn find_subset(&self, name: &str) -> Option<&Subset> {
        self.used()?.subsets.iter().find(|subset| subset.name == name)
    }

    /// The subset that tells this version from others: it asks for the version label with the value that the pods have, and
    /// for nothing that they lack. The one with the fewest labels, the oldest among equals.
    pub fn subset_for(&self, version_label: &str, pod_labels: &Labels) -> Option<&Subset> {
        let version = pod_labels.get(version_label)?;
        let selects = |subset: &&Subset| {
            subset.labels.get(version_label) == Some(version) && subset.labels.iter().all(|(key, value)| pod_labels.get(key) == Some(value))
        };
        self.used()?.subsets.iter().filter(selects).min_by_key(|subset| subset.labels.len())
    }
}

/// The rules that callers in `caller_namespace` use for `service`; `None` where no rule is for its host. `rules` are all
/// DestinationRules that are known, in any order.
pub fn effective<R: Borrow<Value>>(rules: &[R], caller_namespace: &str, root_namespace: &str, service: &ServiceName) -> Option<Rules> {
    let mut sorted: Vec<&Value> = rules.iter().map(Borrow::borrow).filter(|rule| is_for(rule, service)).collect();
    sorted.sort_by_key(|rule| age_key(rule));
    // A rule of the caller's own namespace applies unless it is exported elsewhere only. The root namespace's rules for all
    // are no rules of its own gateways first: there, only what is private to it comes before the service's.
    let local = |rule: &Value| {
        let exports = export_to(rule);
        if caller_namespace == root_namespace {
            !exports.contains("*") && exports.contains(caller_namespace) && exports.len() == 1
        } else {
            exports.contains("*") || exports.contains(caller_namespace)
        }
    };
    let exported = |rule: &Value| {
        let exports = export_to(rule);
        exports.contains("*") || exports.contains(caller_namespace)
    };
    let of = |wanted: &str, heard: &dyn Fn(&Value) -> bool| {
        let candidates = sorted.iter().copied().filter(|rule| namespace(rule) == wanted && heard(rule)).collect::<Vec<_>>();
        most_specific(&candidates, wanted, service)
    };
    of(caller_namespace, &local).or_else(|| of(&service.namespace, &exported)).or_else(|| of(root_namespace, &exported))
}

/// Namespaces whose callers would not find `subset`, because a rule there replaces the service's own: they get 503 for its
/// share. Looks at the namespaces that have rules at all; every other namespace sees what the service's own sees.
pub fn callers_without<'a, R: Borrow<Value>>(rules: &'a [R], root_namespace: &str, service: &ServiceName, subset: &str) -> Vec<&'a str> {
    let rules: Vec<&'a Value> = rules.iter().map(Borrow::borrow).filter(|rule| is_for(rule, service)).collect();
    let namespaces: BTreeSet<&str> = rules.iter().map(|rule| namespace(rule)).filter(|n| *n != root_namespace).collect();
    let lacks = |n: &&str| effective(&rules, n, root_namespace, service).is_some_and(|rules| rules.find_subset(subset).is_none());
    namespaces.into_iter().filter(lacks).collect()
}

/// Whether a rule's host is the service or covers it.
fn is_for(rule: &Value, service: &ServiceName) -> bool {
    text(rule, "/spec/host").is_some_and(|host| service.is_covered_by(host, namespace(rule)))
}

/// Among rules of one namespace, those of the host that is nearest to the service, merged.
fn most_specific(rules: &[&Value], namespace: &str, service: &ServiceName) -> Option<Rules> {
    let fqdn = service.fqdn();
    let hosts = rules.iter().filter_map(|rule| text(rule, "/spec/host")).map(|host| resolve(host, namespace));
    // An exact host is longer than every pattern that covers it.
    let host = hosts.filter(|host| covers(host, &fqdn)).max_by_key(|host| (!is_wildcard(host), host.len()))?;
    let mut groups: Vec<Group> = Vec::new();
    for rule in rules.iter().filter(|rule| text(rule, "/spec/host").is_some_and(|written| resolve(written, namespace) == host)) {
        let (export_to, selector) = (export_to(rule), selector(rule));
        match groups.iter_mut().find(|group| group.export_to == export_to && group.selector == selector) {
            Some(group) => group.merge(rule),
            None => {
                let mut group =
                    Group { members: Vec::new(), export_to, selector, subsets: Vec::new(), unheard: Vec::new(), traffic_policy: None };
                group.merge(rule);
                groups.push(group);
            }
        }
    }
    Some(Rules { namespace: namespace.to_owned(), host, groups })
}

impl Group {
    fn merge(&mut self, rule: &Value) {
        let name = object_name(rule);
        for subset in list(rule, "/spec/subsets") {
            let Some(subset) = read_subset(subset, &name) else { continue };
            if self.subsets.iter().any(|known| known.name == subset.name) {
                self.unheard.push((subset.name, name.clone()));
            } else {
                self.subsets.push(subset);
            }
        }
        if self.traffic_policy.is_none() {
            self.traffic_policy = policy(rule.get("spec"));
        }
        self.members.push(name);
    }
}

pub(super) fn read_subset(subset: &Value, rule: &ObjectName) -> Option<Subset> {
    let name = text(subset, "/name")?.to_string();
    Some(Subset { name, labels: labels(subset.get("labels")), traffic_policy: policy(Some(subset)), rule: rule.clone() })
}

fn policy(holder: Option<&Value>) -> Option<Value> {
    holder.and_then(|holder| holder.get("trafficPolicy")).filter(|policy| !policy.is_null()).cloned()
}

fn labels(value: Option<&Value>) -> Labels {
    let fields = value.and_then(Value::as_object).into_iter().flatten();
    fields.filter_map(|(key, value)| value.as_str().map(|value| (key.clone(), value.to_owned()))).collect()
}

/// Who may use the rule: namespaces, or `*`. Absent means everybody.
pub(super) fn export_to(rule: &Value) -> BTreeSet<String> {
    let own = namespace(rule);
    let named: BTreeSet<String> = texts(rule, "/spec/exportTo").map(|to| if to == "." { own } else { to }.to_owned()).collect();
    if named.is_empty() { BTreeSet::from(["*".to_owned()]) } else { named }
}

fn selector(rule: &Value) -> Option<Labels> {
    present(rule, "/spec/workloadSelector").then(|| labels(rule.pointer("/spec/workloadSelector/matchLabels")))
}
