//! DestinationRules: which apply to a service for a caller, what their merge is, and what policy a subset has.
//!
//! Pure. Deliberately knows no Envoy: that is the room of `clusters`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::fields;
use super::hosts;
use super::translate::{Caller, Complaint};
use super::world::{ROOT_NAMESPACE, Service, World, exported, list, present, text};

/// A version's name, the labels that select its pods, and its own traffic policy.
pub(super) type Subset = (String, BTreeMap<String, String>, Option<Value>);

/// What DestinationRules say of a service, for one caller.
#[derive(Default)]
pub(super) struct Rule<'a> {
    /// Subsets of all rules that merge; the first of two equal names.
    pub(super) subsets: Vec<Subset>,
    /// The policy of the oldest rule that has one.
    pub(super) policy: Option<&'a Value>,
}

/// Rules that merge: those of one namespace and host, with the same `exportTo` and `workloadSelector`.
type Group<'a> = (BTreeSet<String>, Option<&'a Value>, Vec<&'a Value>);

impl<'a> Rule<'a> {
    /// The caller's namespace first, then the service's, then the root's; the first that has a rule for the host replaces the others,
    /// and in it the most specific host. Rules with a `workloadSelector` are for callers of their own namespace whom it selects.
    pub(super) fn of(world: &'a World, caller: &Caller, service: &Service, complaints: &mut Vec<Complaint>) -> Self {
        let own = hosts::service(&service.host).map_or(service.namespace.as_str(), |(_, namespace)| namespace);
        let mut places = vec![caller.namespace.as_str(), own, ROOT_NAMESPACE];
        if caller.namespace == ROOT_NAMESPACE {
            // Rules of the root are for all, so that a caller there hears the service's own first.
            places.remove(0);
        }
        for place in places {
            let here: Vec<(&Value, String)> = world.rules.iter().map(|r| &**r).filter_map(|r| heard(r, place, caller, service)).collect();
            // An exact host before a pattern, a longer pattern before a shorter one.
            let Some(host) = here.iter().map(|(_, host)| host).max_by_key(|host| hosts::closeness(host)) else { continue };
            let mut groups: Vec<Group<'a>> = Vec::new();
            for (rule, _) in here.iter().filter(|(_, h)| h == host) {
                let exports: BTreeSet<String> = list(rule, "/spec/exportTo").iter().filter_map(Value::as_str).map(str::to_string).collect();
                let selector = present(&rule["spec"], "workloadSelector");
                match groups.iter_mut().find(|(e, s, _)| *e == exports && *s == selector) {
                    Some((_, _, rules)) => rules.push(rule),
                    None => groups.push((exports, selector, vec![rule])),
                }
            }
            let selected = groups.iter().find(|(_, selector, rules)| {
                selector.is_some_and(|s| caller.has(&s["matchLabels"]))
                    && rules.first().is_some_and(|r| text(r, "/metadata/namespace") == caller.namespace)
            });
            let group = selected.or_else(|| groups.iter().rev().find(|(_, selector, _)| selector.is_none()));
            // Rules for other callers alone still take the place of those of the next namespace.
            return group.map(|(_, _, rules)| Self::merge(rules, complaints)).unwrap_or_default();
        }
        Self::default()
    }

    fn merge(rules: &[&'a Value], complaints: &mut Vec<Complaint>) -> Self {
        let mut out = Self::default();
        for rule in rules {
            let policy = present(&rule["spec"], "trafficPolicy");
            unplayed(rule, "trafficPolicy", policy, complaints);
            out.policy = out.policy.or(policy);
            for subset in list(rule, "/spec/subsets") {
                let name = text(subset, "/name").to_string();
                if out.subsets.iter().any(|(n, ..)| *n == name) {
                    complaints.push(Complaint::about(
                        "DestinationRule",
                        rule,
                        format!("subset {name:?} is defined before, so this definition is dropped"),
                    ));
                    continue;
                }
                let policy = present(subset, "trafficPolicy");
                unplayed(rule, &format!("subset {name:?}: trafficPolicy"), policy, complaints);
                let labels =
                    subset["labels"].as_object().into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string())));
                out.subsets.push((name, labels.collect(), policy.cloned()));
            }
        }
        out
    }

    /// The policy of a subset (`""`: of the host as a whole) at a port.
    pub(super) fn policy_of(&self, subset: &str, port: u16) -> Policy<'_> {
        let own = self.subsets.iter().find(|(name, ..)| name == subset).and_then(|(_, _, policy)| policy.as_ref());
        Policy::default().under(self.policy, port).under(own, port)
    }
}

/// The rule and its host, if callers of `caller` hear it in namespace `place` and it is for the service.
fn heard<'a>(rule: &'a Value, place: &str, caller: &Caller, service: &Service) -> Option<(&'a Value, String)> {
    let at = text(rule, "/metadata/namespace");
    let host = hosts::resolve(text(rule, "/spec/host"), at);
    (at == place && exported(rule, &caller.namespace).is_some() && hosts::covers(&host, &service.host)).then_some((rule, host))
}

/// A traffic policy after merging: each part is of the port if the port has a policy, else of the subset, else of the host.
#[derive(Clone, Copy, Default)]
pub(super) struct Policy<'v> {
    pub(super) balancer: Option<&'v Value>,
    pub(super) pool: Option<&'v Value>,
    pub(super) outlier: Option<&'v Value>,
    pub(super) tls: Option<&'v Value>,
}

impl<'v> Policy<'v> {
    /// This policy with a more specific one on top. Parts are replaced as a whole; a policy for the port inherits nothing.
    fn under(self, policy: Option<&'v Value>, port: u16) -> Self {
        let Some(policy) = policy else { return self };
        let levels = list(policy, "/portLevelSettings");
        let level = levels.iter().find(|l| l.pointer("/port/number").and_then(Value::as_u64) == Some(port.into()));
        match level {
            Some(level) => Self {
                balancer: present(level, "loadBalancer"),
                pool: present(level, "connectionPool"),
                outlier: present(level, "outlierDetection"),
                tls: present(level, "tls"),
            },
            None => Self {
                balancer: present(policy, "loadBalancer").or(self.balancer),
                pool: present(policy, "connectionPool").or(self.pool),
                outlier: present(policy, "outlierDetection").or(self.outlier),
                tls: present(policy, "tls").or(self.tls),
            },
        }
    }
}

/// Complains about what of a policy the lab does not play.
fn unplayed(rule: &Value, path: &str, policy: Option<&Value>, complaints: &mut Vec<Complaint>) {
    let Some(policy) = policy else { return };
    let mut about = |what: String| complaints.push(Complaint::about("DestinationRule", rule, what));
    let levels = list(policy, "/portLevelSettings");
    for one in std::iter::once(policy).chain(levels) {
        for (part, known) in [
            ("", fields::POLICY),
            ("/loadBalancer", fields::BALANCER),
            ("/loadBalancer/consistentHash", fields::HASH),
            ("/connectionPool/tcp", fields::POOL_TCP),
            ("/connectionPool/http", fields::POOL_HTTP),
            ("/outlierDetection", fields::OUTLIER),
        ] {
            for field in one.pointer(part).map(|v| fields::others(v, known)).unwrap_or_default() {
                about(format!("{path}{}.{field} is not played by the lab", part.replace('/', ".")));
            }
        }
        if let Some(mode) = one.pointer("/tls/mode").and_then(Value::as_str).filter(|m| !matches!(*m, "DISABLE" | "ISTIO_MUTUAL")) {
            about(format!("{path}.tls.mode {mode} is not played by the lab: its pods are called in plain text"));
        }
        if let Some(simple) = one.pointer("/loadBalancer/simple").and_then(Value::as_str)
            && !matches!(simple, "UNSPECIFIED" | "LEAST_REQUEST" | "LEAST_CONN" | "ROUND_ROBIN" | "RANDOM")
        {
            about(format!("{path}.loadBalancer.simple {simple} is not played by the lab: LEAST_REQUEST is used"));
        }
    }
}
