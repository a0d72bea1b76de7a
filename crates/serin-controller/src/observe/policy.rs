//! What holds for a release: its own spec, completed by its policy, and whether anything keeps it from moving forward now.
//!
//! Deliberately no I/O: policies are watched, and a look reads the caches.

use std::collections::BTreeSet;

use serde_json::Value;
use serin_api::policy::{CanaryPolicySpec, DEFAULT_POLICY, Merged, Opening, Origin, PolicySource, opening};
use serin_api::spec::CanaryReleaseSpec;
use serin_core::plan::Problem;
use serin_core::units::{ObjectName, Timestamp};

use super::cluster::Cluster;
use super::project::Release;
use crate::kinds::Kind;

/// A release with its policy.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// The spec that is worked with.
    pub(crate) spec: CanaryReleaseSpec,
    merged: Option<(ObjectName, Merged)>,
    /// The sources of metrics that the policy describes.
    pub(crate) sources: Vec<PolicySource>,
    /// Why nothing moves forward, as the policy says.
    pub(crate) hold: Option<String>,
    /// When that ends by itself.
    pub(crate) until: Option<Timestamp>,
}

/// Completes a release by the policy that it names, else by the usual one of the controller's namespace.
///
/// # Errors
/// What cannot be read, or is not there.
pub(crate) fn resolve(cluster: &Cluster, release: &Release, home: Option<&str>, now: Timestamp) -> Result<Resolved, Vec<Problem>> {
    let own: Value = serde_json::from_str(&release.spec).unwrap_or_default();
    let name = match (&release.policy, home) {
        (Some(name), _) => Some(ObjectName { namespace: release.name.namespace.clone(), name: name.to_string() }),
        (None, Some(home)) => Some(ObjectName { namespace: home.to_owned(), name: DEFAULT_POLICY.into() }),
        (None, None) => None,
    };
    let found = name.as_ref().and_then(|name| cluster.policy(name));
    let (Some(name), Some(policy)) = (name, found) else {
        if let Some(named) = &release.policy {
            return Err(vec![absent(cluster, release, named)]);
        }
        let spec = Merged::new(&own, None).read().map_err(|p| vec![p])?;
        return Ok(Resolved::alone(spec));
    };
    let at = |mut problem: Problem| {
        problem.path = format!("CanaryPolicy {name}: {}", problem.path);
        problem
    };
    let read: CanaryPolicySpec =
        serde_json::from_str(&policy.spec).map_err(|e| vec![at(Problem { path: "spec".into(), what: format!("cannot be read: {e}") })])?;
    let merged = Merged::new(&own, Some(&read));
    let spec = merged.read().map_err(|p| vec![p])?;
    let frozen = |why: &str| format!("frozen by CanaryPolicy {name}: {why}");
    let annotated = policy.freeze.as_deref().map(|why| frozen(if why.is_empty() { "nobody said why" } else { why }));
    let hold = annotated.or_else(|| read.freeze.as_deref().map(frozen));
    let mut resolved = Resolved { spec, merged: None, sources: read.sources, hold, until: None };
    let moment = jiff::Timestamp::from_millisecond(now.0).unwrap_or_default();
    match opening(&read.windows, moment).map_err(|problems| problems.into_iter().map(at).collect::<Vec<_>>())? {
        Opening::Open => {}
        Opening::At(next, text) => {
            resolved.until = Some(Timestamp(next.as_millisecond()));
            let closed = format!("outside the windows of CanaryPolicy {name}, opens at {text}");
            resolved.hold.get_or_insert(closed);
        }
    }
    resolved.merged = Some((name, merged));
    Ok(resolved)
}

fn absent(cluster: &Cluster, release: &Release, named: &str) -> Problem {
    let namespace = &release.name.namespace;
    let there: BTreeSet<&str> = cluster.policies().filter(|n| n.namespace == *namespace).map(|n| n.name.as_str()).collect();
    let there = if there.is_empty() {
        "there is none".to_owned()
    } else {
        format!("there is {}", there.into_iter().collect::<Vec<_>>().join(", "))
    };
    let what = match cluster.missing(Kind::Policy) {
        Some(why) => why.to_owned(),
        None => format!("no CanaryPolicy {named} in namespace {namespace}; {there}. Create it, or correct the name"),
    };
    Problem { path: "spec.policy".into(), what }
}

impl Resolved {
    /// A release by itself.
    pub(crate) fn alone(spec: CanaryReleaseSpec) -> Self {
        Self { spec, ..Self::default() }
    }

    /// A problem of the whole, with the policy named where that is what wrote the value.
    pub(crate) fn blame(&self, mut problem: Problem) -> Problem {
        if let Some((name, merged)) = &self.merged
            && (merged.origin(&problem.path) == Some(Origin::Policy) || problem.path.starts_with("spec.sources"))
        {
            problem.path = format!("CanaryPolicy {name}: {}", problem.path);
        }
        problem
    }
}
