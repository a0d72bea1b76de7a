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
    let versions =
        (status.canary.as_ref().map_or("canary", |v| v.version.as_str()), status.stable.as_ref().map_or("stable", |v| v.version.as_str()));
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
    let more = metric
        .more_requests
        .filter(|n| *n > 0)
        .map_or_else(String::new, |n| format!("; about {} more requests to {canary}", count(n as f64)));
    let verdict = match metric.verdict.as_str() {
        "Pass" => "shown fit",
        "Fail" => "worse",
        _ => "not known yet",
    };
    format!(
        "{}: {}, {}: {verdict}{more}",
        metric.name,
        side(canary, &metric.canary, &metric.canary_interval),
        side(stable, &metric.stable, &metric.stable_interval)
    )
}

/// What a person would type next, by what the release waits for.
pub(crate) fn commands(release: &CanaryRelease, reason: &str, phase: &str) -> Vec<String> {
    let name = release.name_any();
    let ns = release.namespace().filter(|n| n != "default").map_or_else(String::new, |n| format!(" -n {n}"));
    let serin = |verb: &str| format!("serin {verb} {name}{ns}");
    let workload = release.status.as_ref().and_then(|s| s.canary.as_ref()).map(|v| v.workload.clone()).unwrap_or_default();
    let first: Vec<String> = match reason {
        "NoTraffic" => vec![format!("kubectl get virtualservice{ns}"), format!("serin verify {name}{ns} --requests 200")],
        "CanaryUnreached" | "ShareOff" => {
            vec![format!("serin verify {name}{ns} --requests 200"), format!("kubectl get virtualservice{ns} -o yaml")]
        }
        "SourceUnreachable" | "SourceStale" | "MetricMissing" | "WaitsForSource" => vec![format!("kubectl get pods{ns} -o wide")],
        "WaitsForPods" => {
            vec![format!("kubectl rollout status deployment/{workload}{ns}"), format!("kubectl describe deployment/{workload}{ns}")]
        }
        "WaitsForSubset" => vec![format!("kubectl get destinationrule{ns} -o yaml")],
        "WaitsForDestination" | "NoRoute" => vec![format!("kubectl get virtualservice{ns} -o yaml")],
        "NoVersion" | "DesiredMissing" | "ServingGone" => vec![format!("kubectl get deployments{ns} --show-labels")],
        "InvalidSpec" => vec![format!("kubectl edit canaryrelease {name}{ns}")],
        "StableDown" => vec![format!("kubectl get pods{ns}")],
        "Braked" => brake(release, &ns).unwrap_or_else(|| {
            vec![format!("kubectl patch canaryrelease {name}{ns} --type merge -p '{{\"spec\":{{\"suspend\":false}}}}'")]
        }),
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

/// What ends a brake that is not the release's own `suspend`; `None`: it is that.
fn brake(release: &CanaryRelease, ns: &str) -> Option<Vec<String>> {
    let reasons = release.status.as_ref().map(|s| s.reasons.as_slice()).unwrap_or_default();
    let why = &reasons.iter().find(|r| r.reason == "Braked")?.message;
    if why.contains("spec.suspend") {
        return None;
    }
    let policy = why.split_once("CanaryPolicy ").and_then(|(_, rest)| rest.split(&[':', ','][..]).next()?.trim().split_once('/'));
    Some(match policy {
        // A window opens by itself.
        Some((namespace, name)) if why.contains("windows of") => vec![format!("kubectl get canarypolicy {name} -n {namespace} -o yaml")],
        Some((namespace, name)) => vec![format!("serin thaw --policy {name} -n {namespace}")],
        None => vec![format!("serin thaw {}{ns}", release.name_any())],
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn release(status: serde_json::Value) -> CanaryRelease {
        let value = json!({"apiVersion": "serin.dev/v1alpha1", "kind": "CanaryRelease", "metadata": {"name": "my-app", "namespace": "shop", "generation": 2}, "spec": {"service": "my-app"}, "status": status});
        serde_json::from_value(value).expect("a release")
    }

    fn status(phase: &str, reason: &str, message: &str) -> serde_json::Value {
        json!({"observedGeneration": 2, "phase": phase, "message": message, "reasons": [{"reason": reason, "message": message}],
            "canary": {"version": "v2", "workload": "my-app-v2", "hash": "h"}, "stable": {"version": "v1", "workload": "my-app-v1", "hash": "h"}})
    }

    #[test]
    fn a_brake_is_told_with_what_ends_that_one() {
        for (message, command) in [
            ("nothing moves forward: spec.suspend is set", "kubectl patch canaryrelease my-app -n shop"),
            ("nothing moves forward: frozen: by ann", "serin thaw my-app -n shop"),
            ("nothing moves forward: frozen by CanaryPolicy ops/pol: INC-1", "serin thaw --policy pol -n ops"),
            (
                "nothing moves forward: outside the windows of CanaryPolicy ops/pol, opens at Mon 2026-11-30 09:00 Europe/Berlin",
                "kubectl get canarypolicy pol -n ops",
            ),
        ] {
            let release = release(status("Idle", "Braked", message));
            let commands = commands(&release, "Braked", "Idle");
            assert!(commands.first().is_some_and(|c| c.starts_with(command)), "{message}: {commands:?}");
        }
    }

    #[test]
    fn the_sentence_comes_first_and_something_to_type_last() {
        for (phase, reason, last) in [
            (
                "Progressing",
                "NoTraffic",
                "kubectl get virtualservice -n shop · serin verify my-app -n shop --requests 200 · serin promote my-app -n shop · serin pause my-app -n shop · serin abort my-app -n shop",
            ),
            (
                "Preparing",
                "WaitsForPods",
                "kubectl rollout status deployment/my-app-v2 -n shop · kubectl describe deployment/my-app-v2 -n shop · serin abort my-app -n shop",
            ),
            ("Paused", "Paused", "serin resume my-app -n shop · serin promote my-app -n shop · serin abort my-app -n shop"),
            ("RolledBack", "TakenBack", "serin retry my-app -n shop · serin history my-app -n shop"),
        ] {
            let said = text(&why(&release(status(phase, reason, "it waits"))));
            let lines: Vec<&str> = said.lines().collect();
            assert_eq!(lines.first(), Some(&"my-app  it waits"));
            assert_eq!(lines.last().map(|l| l.trim_start()), Some(last), "{phase} {reason}");
        }
    }

    #[test]
    fn evidence_carries_its_counts() {
        let mut status = status("Progressing", "WaitsForFitness", "not known yet");
        status["analysis"] = json!({"metrics": [{"name": "errors", "verdict": "Inconclusive", "canary": {"requests": 471, "bad": 2}, "stable": {"requests": 4341, "bad": 9},
            "canaryInterval": ["0.05%", "1.5%"], "moreRequests": 900}]});
        let said = text(&why(&release(status)));
        assert!(
            said.contains(
                "errors: v2 2 bad of 471 (between 0.05% and 1.5%), v1 9 bad of 4,341: not known yet; about 900 more requests to v2\n"
            ),
            "{said}"
        );
    }

    #[test]
    fn a_spec_that_was_changed_since_is_told() {
        let mut status = status("Idle", "Serving", "v1 serves every request");
        status["observedGeneration"] = json!(1);
        assert!(text(&why(&release(status))).contains("the spec was changed"));
    }
}
