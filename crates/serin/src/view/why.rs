//! Why a release does what it does: one sentence, then the evidence, then what would change it.

use kube::ResourceExt;
use serde::Serialize;
use serin_api::CanaryRelease;
use serin_api::status::MetricStatus;
use serin_core::reason::count;

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Why {
    /// The release.
    pub(crate) name: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its phase.
    pub(crate) phase: String,
    /// CamelCase, for machines.
    pub(crate) reason: String,
    /// The sentence.
    pub(crate) sentence: String,
    /// What else is to say, beside the sentence.
    pub(crate) more: Vec<String>,
    /// What was counted.
    pub(crate) evidence: Vec<String>,
    /// Lines to type.
    pub(crate) commands: Vec<String>,
}

/// The answer for a release as it stands.
pub(crate) fn why(release: &CanaryRelease) -> Why {
    let (name, namespace) = (release.name_any(), release.namespace().unwrap_or_default());
    let Some(status) = release.status.as_ref().filter(|s| s.phase.is_some() || s.message.is_some()) else {
        return Why {
            sentence: "no controller has looked at it yet".into(),
            reason: "NotSeen".into(),
            phase: String::new(),
            more: Vec::new(),
            evidence: Vec::new(),
            commands: vec!["serin controller".into(), format!("kubectl get pods -A -l app.kubernetes.io/name=serin")],
            name,
            namespace,
        };
    };
    let stale = status.observed_generation != release.metadata.generation;
    let mut more: Vec<String> = status.reasons.iter().skip(1).map(|r| r.message.clone()).collect();
    if stale {
        more.insert(0, "the spec was changed, and no controller has looked at the change yet".into());
    }
    let reason = status.reasons.first().map(|r| r.reason.clone()).unwrap_or_default();
    let versions = (status.canary.as_ref().map_or("canary", |v| v.version.as_str()), status.stable.as_ref().map_or("stable", |v| v.version.as_str()));
    Why {
        sentence: status.message.clone().unwrap_or_default(),
        commands: commands(release, &reason, status.phase.as_deref().unwrap_or_default()),
        phase: status.phase.clone().unwrap_or_default(),
        evidence: status.analysis.iter().flat_map(|a| &a.metrics).map(|m| evidence(m, versions)).collect(),
        reason,
        more,
        name,
        namespace,
    }
}

fn evidence(metric: &MetricStatus, (canary, stable): (&str, &str)) -> String {
    let side = |version: &str, counts: &serin_api::status::CountsStatus, interval: &Option<[String; 2]>| {
        let between = interval.as_ref().map_or_else(String::new, |[low, high]| format!(" (between {low} and {high})"));
        format!("{version} {} bad of {}{between}", count(counts.bad as f64), count(counts.requests as f64))
    };
    let more = metric.more_requests.filter(|n| *n > 0).map_or_else(String::new, |n| format!("; about {} more requests to {canary}", count(n as f64)));
    let verdict = match metric.verdict.as_str() {
        "Pass" => "shown fit",
        "Fail" => "worse",
        _ => "not known yet",
    };
    format!("{}: {}, {}: {verdict}{more}", metric.name, side(canary, &metric.canary, &metric.canary_interval), side(stable, &metric.stable, &metric.stable_interval))
}

/// What a person would type next, by what the release waits for.
pub(crate) fn commands(release: &CanaryRelease, reason: &str, phase: &str) -> Vec<String> {
    let name = release.name_any();
    let ns = release.namespace().filter(|n| n != "default").map_or_else(String::new, |n| format!(" -n {n}"));
    let serin = |verb: &str| format!("serin {verb} {name}{ns}");
    let workload = release.status.as_ref().and_then(|s| s.canary.as_ref()).map(|v| v.workload.clone()).unwrap_or_default();
    let first: Vec<String> = match reason {
        "NoTraffic" => vec![format!("kubectl get virtualservice{ns}"), format!("serin verify {name}{ns} --requests 200")],
        "CanaryUnreached" | "ShareOff" => vec![format!("serin verify {name}{ns} --requests 200"), format!("kubectl get virtualservice{ns} -o yaml")],
        "SourceUnreachable" | "SourceStale" | "MetricMissing" | "WaitsForSource" => vec![format!("kubectl get pods{ns} -o wide")],
        "WaitsForPods" => vec![format!("kubectl rollout status deployment/{workload}{ns}"), format!("kubectl describe deployment/{workload}{ns}")],
        "WaitsForSubset" => vec![format!("kubectl get destinationrule{ns} -o yaml")],
        "WaitsForDestination" | "NoRoute" => vec![format!("kubectl get virtualservice{ns} -o yaml")],
        "NoVersion" | "DesiredMissing" => vec![format!("kubectl get deployments{ns} --show-labels")],
        "InvalidSpec" => vec![format!("kubectl edit canaryrelease {name}{ns}")],
        "StableDown" => vec![format!("kubectl get pods{ns}")],
        "Braked" => vec![format!("kubectl patch canaryrelease {name}{ns} --type merge -p '{{\"spec\":{{\"suspend\":false}}}}'")],
        _ => Vec::new(),
    };
    let by_phase: &[&str] = match phase {
        "Preparing" => &["abort"],
        "Progressing" => &["promote", "pause", "abort"],
        "Paused" => &["resume", "promote", "abort"],
        "Promoting" => &["abort"],
        "RolledBack" => &["retry", "history"],
        "Idle" => &["history"],
        _ => &["status"],
    };
    first.into_iter().chain(by_phase.iter().map(|verb| serin(verb))).collect()
}

/// As text: the sentence first, then indented what follows from it.
pub(crate) fn text(why: &Why) -> String {
    let pad = " ".repeat(why.name.chars().count() + 2);
    let mut lines = vec![format!("{}  {}", why.name, why.sentence)];
    lines.extend(why.more.iter().chain(&why.evidence).map(|line| format!("{pad}{line}")));
    if !why.commands.is_empty() {
        lines.push(format!("{pad}{}", why.commands.join(" · ")));
    }
    lines.iter().map(|l| format!("{l}\n")).collect()
}
