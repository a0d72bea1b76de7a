//! What share of requests each version gets, measured, against what the routes say.
//!
//! One look at a bounded number of requests, by an exact binomial test. Deliberately knows no clock and sends nothing.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serin_core::binomial::two_sided;
use serin_core::reason::count;
use serin_core::route::structure::{in_mesh, serves};
use serin_core::route::{self, ServiceName};

use crate::exit::Failure;
use crate::istio::Mesh;

/// A measured split is said to contradict the weights when a chance of less than this speaks for them: one false alarm in a million
/// verifications, shared by the versions, as pipelines and the demo stand on the answer. What is meant to be found is far beyond it:
/// 25 % instead of 10 % of 200 requests has a chance of 1e-9.
pub(crate) const ALPHA: f64 = 1e-6;

/// What the routes say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected {
    /// The VirtualService that says it.
    pub(crate) virtual_service: String,
    /// The gateways it names; empty: none are named, which means the mesh.
    pub(crate) gateways: Vec<String>,
    /// Whether callers inside the mesh use it.
    pub(crate) in_mesh: bool,
    /// Share of each version, from 0 to 1. Sums to 1.
    pub(crate) shares: BTreeMap<String, f64>,
    /// As written: `90/10`.
    pub(crate) written: String,
}

/// Reads the split of plain requests to a service: that of the first route without match conditions that sends to it by subset.
///
/// # Errors
/// No VirtualService splits the service, or a subset is not defined.
pub(crate) fn expected(mesh: &Mesh, service: &ServiceName, label: &str) -> Result<Expected, Failure> {
    let rules = mesh.rules_for(service);
    let version_of = |subset: &str| rules.as_ref().and_then(|r| r.find_subset(subset)).and_then(|s| s.labels.get(label)).cloned();
    let bound = |vs: &&Value| (in_mesh(vs) && serves(vs, service), serves(vs, service));
    let mut candidates: Vec<&Value> = mesh.virtual_services.iter().filter(|vs| !route::look(vs, service, None).splits.is_empty()).collect();
    candidates.sort_by_key(|vs| std::cmp::Reverse(bound(vs)));
    let Some(vs) = candidates.first() else {
        return Err(Failure::new(format!(
            "no VirtualService in namespace {} sends to Service {} by subset, so no share is set",
            service.namespace, service.name
        ))
        .hint(format!("kubectl get virtualservice -n {} -o yaml", service.namespace)));
    };
    let name = vs.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_string();
    let splits = route::look(vs, service, None).splits;
    let split = splits.iter().find(|s| !s.matched && s.shadowed_by.is_none()).or_else(|| splits.first());
    let Some(split) = split else { return Err(Failure::new(format!("VirtualService {name} has no route to Service {}", service.name))) };
    let mut shares = BTreeMap::new();
    let mut written = Vec::new();
    for destination in split.destinations.iter().filter(|d| d.ours) {
        let subset = destination.subset.clone().unwrap_or_default();
        let version = version_of(&subset).ok_or_else(|| {
            Failure::new(format!("VirtualService {name} sends to subset {subset:?}, which no DestinationRule defines by label {label}"))
                .hint(format!("kubectl get destinationrule -n {} -o yaml", service.namespace))
        })?;
        let weight = split.weight_of(destination);
        written.push(weight.to_string());
        *shares.entry(version).or_insert(0.0) += weight as f64;
    }
    let total: f64 = shares.values().sum();
    if total <= 0.0 {
        return Err(Failure::new(format!("VirtualService {name} gives no weight to Service {}", service.name)));
    }
    shares.values_mut().for_each(|s| *s /= total);
    let gateways = vs
        .pointer("/spec/gateways")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(ToString::to_string)
        .collect();
    Ok(Expected { virtual_service: name, gateways, in_mesh: in_mesh(vs), shares, written: written.join("/") })
}

/// A version's part of the measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Part {
    /// The version.
    pub(crate) version: String,
    /// The share that is set, from 0 to 1.
    pub(crate) set: f64,
    /// Requests it answered.
    pub(crate) requests: u64,
    /// The share that was seen, from 0 to 1.
    pub(crate) seen: f64,
    /// Chance of a count as unlikely as this one, if the share were as set.
    pub(crate) p: f64,
}

/// The measurement, judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// Whether the counts are in keeping with the weights.
    pub(crate) agrees: bool,
    /// Requests that a version answered.
    pub(crate) requests: u64,
    /// The versions, those with a weight and those that were seen.
    pub(crate) versions: Vec<Part>,
}

/// Holds counts by version against the shares.
pub(crate) fn judge(expected: &BTreeMap<String, f64>, counts: &BTreeMap<String, u64>) -> Verdict {
    let total: u64 = counts.values().sum();
    let names: std::collections::BTreeSet<&String> = expected.keys().chain(counts.keys()).collect();
    let part = |version: &&String| {
        let (set, requests) = (expected.get(*version).copied().unwrap_or(0.0), counts.get(*version).copied().unwrap_or(0));
        let seen = if total > 0 { requests as f64 / total as f64 } else { 0.0 };
        Part { version: (*version).clone(), set, requests, seen, p: two_sided(requests, total, set) }
    };
    let versions: Vec<Part> = names.iter().map(part).collect();
    let least = ALPHA / versions.len().max(1) as f64;
    Verdict { agrees: total > 0 && versions.iter().all(|v| v.p >= least), requests: total, versions }
}

impl Verdict {
    /// The version that is told of: the one farthest from what is set, the lesser one among two.
    pub(crate) fn told(&self) -> Option<&Part> {
        let odd = self.versions.iter().filter(|v| v.set < 0.5 || self.versions.len() > 2);
        odd.min_by(|a, b| a.p.total_cmp(&b.p)).or_else(|| self.versions.first())
    }

    /// `v2 gets 25.1 % of 1,502 requests, not 10 %`, or `v2 gets 10.2 % of 1,498 requests; 90/10 set, p = 0.77`.
    pub(crate) fn sentence(&self, written: &str) -> String {
        let Some(v) = self.told() else { return "no request was answered by any version".to_string() };
        let seen = format!("{} gets {} of {} requests", v.version, tenths(v.seen), count(self.requests as f64));
        if self.agrees {
            format!("{seen}; {written} set, p = {:.2}", v.p)
        } else {
            format!("{seen}, not {}", tenths(v.set).replace(".0 %", " %"))
        }
    }
}

/// A share with one decimal, so that 10.4 and 9.6 do not both read as 10.
pub(crate) fn tenths(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Why callers inside the mesh do not see the split, if the objects tell.
pub(crate) fn because(expected: &Expected) -> Option<String> {
    (!expected.in_mesh).then(|| {
        let gateways = match expected.gateways.as_slice() {
            [one] => format!("gateway {one}"),
            many => format!("gateways {}", many.join(", ")),
        };
        format!(
            "VirtualService {} is bound to {gateways} only: callers inside the mesh bypass it and reach every pod of the Service",
            expected.virtual_service
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map<T: Copy>(pairs: &[(&str, T)]) -> BTreeMap<String, T> {
        pairs.iter().map(|(k, v)| ((*k).to_string(), *v)).collect()
    }

    #[test]
    fn a_split_by_replicas_contradicts_the_weights() {
        let verdict = judge(&map(&[("v1", 0.9), ("v2", 0.1)]), &map(&[("v1", 1125), ("v2", 377)]));
        assert!(!verdict.agrees);
        assert_eq!(verdict.sentence("90/10"), "v2 gets 25.1 % of 1,502 requests, not 10 %");
    }

    #[test]
    fn a_split_as_set_agrees() {
        let verdict = judge(&map(&[("v1", 0.9), ("v2", 0.1)]), &map(&[("v1", 1346), ("v2", 152)]));
        assert!(verdict.agrees);
        assert_eq!(verdict.sentence("90/10"), "v2 gets 10.1 % of 1,498 requests; 90/10 set, p = 0.83");
    }

    #[test]
    fn no_answer_agrees_with_nothing() {
        assert!(!judge(&map(&[("v1", 1.0)]), &map(&[])).agrees);
    }

    #[test]
    fn a_version_without_weight_must_not_be_seen() {
        assert!(!judge(&map(&[("v1", 1.0)]), &map(&[("v1", 500), ("v9", 1)])).agrees);
    }
}
