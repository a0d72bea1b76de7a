//! The summary: computed from the log of every response and from what was seen of release and route. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serin_core::reason::{count, percent, points};
use serin_core::stats::{Counts, interval};

use serin_lab::mesh::traffic::Sample;

use super::record::{Seen, Weights};
use super::traffic::{by, failed, status, users};
use crate::split::{Verdict, tenths};

/// All of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    /// Seed of the users and of the fault's draws.
    pub(crate) seed: u64,
    /// Requests a second.
    pub(crate) rate: u32,
    /// The fault's share, as asked for.
    pub(crate) fault: String,
    /// The article's files as they are.
    pub(crate) found: Split,
    /// The patch that mended them.
    pub(crate) mended: Vec<String>,
    /// The article's files as they were meant.
    pub(crate) verified: Split,
    /// Rollouts, in order.
    pub(crate) rollouts: Vec<Rollout>,
    /// All requests together.
    pub(crate) totals: Totals,
    /// The log beside Envoy's own counters.
    pub(crate) envoy: Vec<Counter>,
    /// What went otherwise than it should have. Empty: the demo ends with 0.
    pub(crate) differences: Vec<String>,
    /// The whole demo, in seconds.
    pub(crate) seconds: f64,
}

/// A measured split.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Split {
    /// As text.
    pub(crate) sentence: String,
    /// The weights, as written.
    pub(crate) weights: String,
    /// The counts and their test.
    pub(crate) verdict: Verdict,
    /// Why it is not as set, if it is not.
    pub(crate) because: Option<String>,
}

/// One rollout.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rollout {
    /// Its uid.
    pub(crate) uid: String,
    /// The version that served.
    pub(crate) stable: String,
    /// The version on trial.
    pub(crate) canary: String,
    /// `Promoted`, `RolledBack`, `Superseded`; empty: it had not ended.
    pub(crate) outcome: String,
    /// Why, with its numbers.
    pub(crate) why: String,
    /// When it began and ended, in seconds since the traffic began.
    pub(crate) began: f64,
    pub(crate) ended: f64,
    /// From the first weight to the last, in seconds.
    pub(crate) exposed: f64,
    /// From the moment at which its weight was seen at 0 to the begin of the last request that it answered, in milliseconds;
    /// negative: all began before. Only of a rollout that was taken back.
    pub(crate) last_request_after_zero_ms: Option<f64>,
    /// Its weights, in order.
    pub(crate) steps: Vec<Step>,
    /// What was decided, in order, with the reasons.
    pub(crate) decisions: Vec<Decision>,
    /// Requests that the canary answered, and those among them that failed.
    pub(crate) canary_requests: u64,
    pub(crate) canary_failed: u64,
    /// Requests that stable answered, and those among them that failed.
    pub(crate) stable_requests: u64,
    pub(crate) stable_failed: u64,
    /// Users that a failed answer of the canary reached, and users that asked at all.
    pub(crate) users_hit: u64,
    pub(crate) users: u64,
}

/// One weight, as long as it stood.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    /// Since when and until when, in seconds since the traffic began.
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// The canary's share as set, from 0 to 1.
    pub(crate) set: f64,
    /// The canary's share as seen.
    pub(crate) seen: f64,
    pub(crate) canary_requests: u64,
    pub(crate) canary_failed: u64,
    pub(crate) stable_requests: u64,
    pub(crate) stable_failed: u64,
    /// The difference of failed shares that the counts do not exclude, in points.
    pub(crate) excluded_above: Option<f64>,
}

/// A decision, with its reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Decision {
    /// When it was seen, in seconds since the traffic began.
    pub(crate) at: f64,
    /// The phase it led to.
    pub(crate) phase: String,
    /// CamelCase.
    pub(crate) reason: String,
    /// With its numbers.
    pub(crate) message: String,
}

/// All requests together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Totals {
    /// Sent.
    pub(crate) requests: u64,
    /// Answered well.
    pub(crate) answered: u64,
    /// Failed.
    pub(crate) failed: u64,
    /// Failed by the faulty version itself.
    pub(crate) failed_by_fault: u64,
    /// Different users.
    pub(crate) users: u64,
}

/// One of Envoy's counters, and the log's count of the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Counter {
    /// The version; `unknown` where no pod was reached.
    pub(crate) version: String,
    /// HTTP status.
    pub(crate) status: u16,
    /// As Envoy counted.
    pub(crate) envoy: u64,
    /// As the log counted.
    pub(crate) log: u64,
}

fn s(d: Duration) -> f64 {
    (d.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Requests, and failed ones, of a version among entries.
fn served<'a>(entries: impl Iterator<Item = &'a Sample>, version: &str) -> (u64, u64) {
    entries.filter(|e| by(e, version)).fold((0, 0), |(n, x), e| (n + 1, x + u64::from(failed(e))))
}

/// The rollouts that were seen.
pub(crate) fn rollouts(statuses: &[Seen], weights: &[Weights], log: &[Sample]) -> Vec<Rollout> {
    let mut uids: Vec<&str> = Vec::new();
    for uid in statuses.iter().filter_map(|s| s.status.rollout.as_ref()).map(|r| r.uid.as_str()) {
        if !uids.contains(&uid) {
            uids.push(uid);
        }
    }
    uids.into_iter().filter_map(|uid| rollout(uid, statuses, weights, log)).collect()
}

fn rollout(uid: &str, statuses: &[Seen], weights: &[Weights], log: &[Sample]) -> Option<Rollout> {
    let is = |s: &Seen| s.status.rollout.as_ref().is_some_and(|r| r.uid == uid);
    let first = statuses.iter().position(is)?;
    let last = statuses.iter().rposition(is)?;
    let after = statuses.get(last + 1);
    let (began, ended) = (statuses[first].at, after.or_else(|| statuses.last()).map(|s| s.at)?);
    let (stable, canary) =
        (statuses[first].status.stable.as_ref()?.version.clone(), statuses[first].status.canary.as_ref()?.version.clone());
    let past = statuses.iter().rev().find_map(|s| s.status.history.iter().find(|p| p.uid == uid)).cloned();
    let within: Vec<&Sample> = log.iter().filter(|e| e.at >= began && e.at < ended).collect();
    let steps = steps(&stable, &canary, began, ended, weights, &within);
    let (canary_requests, canary_failed) = served(within.iter().copied(), &canary);
    let (stable_requests, stable_failed) = served(within.iter().copied(), &stable);
    let back = past.as_ref().is_some_and(|p| p.outcome == "RolledBack");
    let zero = weights
        .iter()
        .rev()
        .find(|w| w.at >= began && w.at <= ended && w.shares.get(&canary).is_none_or(|share| *share <= 0.0))
        .map(|w| w.at);
    let met = log.iter().filter(|e| by(e, &canary)).map(|e| e.at).max();
    let late = zero.zip(met).filter(|_| back).map(|(zero, met)| (met.as_secs_f64() - zero.as_secs_f64()) * 1000.0);
    let hit = within.iter().filter(|e| failed(e) && by(e, &canary)).copied();
    Some(Rollout {
        uid: uid.to_string(),
        outcome: past.as_ref().map(|p| p.outcome.clone()).unwrap_or_default(),
        why: past.map(|p| p.why).unwrap_or_default(),
        began: s(began),
        ended: s(ended),
        exposed: steps.first().zip(steps.last()).map_or(0.0, |(a, b)| b.to - a.from),
        last_request_after_zero_ms: late.map(|ms| (ms * 10.0).round() / 10.0),
        decisions: decisions(&statuses[first..=(last + 1).min(statuses.len() - 1)]),
        steps,
        canary_requests,
        canary_failed,
        stable_requests,
        stable_failed,
        users_hit: users(hit),
        users: users(within.iter().copied()),
        stable,
        canary,
    })
}

/// The spans of time with one weight above 0, and what was served in each.
fn steps(stable: &str, canary: &str, began: Duration, ended: Duration, weights: &[Weights], log: &[&Sample]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (i, w) in weights.iter().enumerate() {
        let (from, to) = (w.at.max(began), weights.get(i + 1).map_or(ended, |next| next.at).min(ended));
        let share = |v: &str| w.shares.get(v).copied().unwrap_or(0.0);
        let both = share(canary) + share(stable);
        if from >= to || share(canary) <= 0.0 || both <= 0.0 {
            continue;
        }
        let within: Vec<&Sample> = log.iter().filter(|e| e.at >= from && e.at < to).copied().collect();
        let (canary_requests, canary_failed) = served(within.iter().copied(), canary);
        let (stable_requests, stable_failed) = served(within.iter().copied(), stable);
        let counts = |n: u64, x: u64| Counts { n: n as f64, x: x as f64 };
        let (upper, lower) = (
            interval::rate(counts(canary_requests, canary_failed), 0.025).1,
            interval::rate(counts(stable_requests, stable_failed), 0.025).0,
        );
        let all = canary_requests + stable_requests;
        steps.push(Step {
            from: s(from),
            to: s(to),
            set: share(canary) / both,
            seen: if all > 0 { canary_requests as f64 / all as f64 } else { 0.0 },
            canary_requests,
            canary_failed,
            stable_requests,
            stable_failed,
            excluded_above: (canary_requests > 0).then_some((upper - lower) * 100.0),
        });
    }
    steps
}

/// Reasons that say that something was done, and not what is waited for.
const DONE: [&str; 14] = [
    "Adopted",
    "Started",
    "StepBegins",
    "StepsPassed",
    "Promoted",
    "Harm",
    "OverLimit",
    "GoesBack",
    "TakenBack",
    "AdvancedWithoutProof",
    "Hurried",
    "RequestDone",
    "RequestRefused",
    "Bakes",
];

fn decisions(statuses: &[Seen]) -> Vec<Decision> {
    let mut all: Vec<Decision> = Vec::new();
    for seen in statuses {
        for reason in seen.status.reasons.iter().filter(|r| DONE.contains(&r.reason.as_str())) {
            // A reason whose numbers go on, as the time left of a bake does, is one decision.
            if all.last().is_some_and(|d| d.reason == reason.reason && (d.message == reason.message || reason.reason == "Bakes"))
                || all.iter().any(|d| d.message == reason.message)
            {
                continue;
            }
            all.push(Decision {
                at: s(seen.at),
                phase: seen.status.phase.clone().unwrap_or_default(),
                reason: reason.reason.clone(),
                message: reason.message.clone(),
            });
        }
    }
    all
}

/// All requests; failed ones are laid at the faulty version's door only where it answered them itself.
pub(crate) fn totals(log: &[Sample], faulty: &str) -> Totals {
    let failed = log.iter().filter(|e| failed(e)).count() as u64;
    let by_fault = log.iter().filter(|e| status(e) == 500 && by(e, faulty)).count() as u64;
    Totals { requests: log.len() as u64, answered: log.len() as u64 - failed, failed, failed_by_fault: by_fault, users: users(log.iter()) }
}

/// The log by version and status, as Envoy's counters have it.
pub(crate) fn by_status(log: &[Sample]) -> BTreeMap<(String, u16), u64> {
    let mut counts = BTreeMap::new();
    for e in log {
        *counts.entry((e.version.as_deref().unwrap_or("unknown").to_string(), status(e))).or_insert(0) += 1;
    }
    counts
}

/// Envoy's counters beside the log's.
pub(crate) fn beside(envoy: &BTreeMap<(String, u16), u64>, log: &BTreeMap<(String, u16), u64>) -> Vec<Counter> {
    let keys: std::collections::BTreeSet<&(String, u16)> = envoy.keys().chain(log.keys()).collect();
    let counter = |key: &&(String, u16)| Counter {
        version: key.0.clone(),
        status: key.1,
        envoy: envoy.get(*key).copied().unwrap_or(0),
        log: log.get(*key).copied().unwrap_or(0),
    };
    keys.iter().map(counter).collect()
}

/// The steps of a rollout as a table.
pub(crate) fn table(r: &Rollout) -> Vec<String> {
    let (canary_head, stable_head) = (format!("{} bad", r.canary), format!("{} bad", r.stable));
    let mut lines = vec![format!("  {:<8}{:<7}{:<16}{canary_head:<12}{stable_head:<13}what it showed", "at", "set", "seen")];
    for (i, step) in r.steps.iter().enumerate() {
        let bad = |x: u64, n: u64| format!("{} of {}", count(x as f64), count(n as f64));
        let last = i + 1 == r.steps.len();
        let showed = match step.excluded_above {
            _ if last && r.outcome == "RolledBack" => "worse: taken back".to_string(),
            None => "no request".to_string(),
            Some(_) if step.set >= 1.0 => "watched; nothing found".to_string(),
            Some(p) => format!("no fault over {} points", points(p / 100.0)),
        };
        let set = percent(step.set);
        let seen = format!("{:<7} ({})", tenths(step.seen), count(step.canary_requests as f64));
        let at = format!("{:.1} s", step.from);
        lines.push(
            format!(
                "  {at:<8}{set:<7}{seen:<16}{:<12}{:<13}{showed}",
                bad(step.canary_failed, step.canary_requests),
                bad(step.stable_failed, step.stable_requests)
            )
            .trim_end()
            .to_string(),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use serin_api::CanaryReleaseStatus;
    use serin_lab::mesh::traffic::Answer;

    fn entry(ms: u64, version: &str, status: u16, user: u32) -> Sample {
        Sample {
            at: Duration::from_millis(ms),
            took: Duration::from_millis(1),
            answer: Answer::Status(status),
            version: Some(version.into()),
            user,
        }
    }

    fn seen(ms: u64, status: serde_json::Value) -> Seen {
        let status: CanaryReleaseStatus = serde_json::from_value(status).expect("a status");
        Seen { at: Duration::from_millis(ms), status }
    }

    fn weights(ms: u64, pairs: &[(&str, f64)]) -> Weights {
        Weights { at: Duration::from_millis(ms), shares: pairs.iter().map(|(v, w)| ((*v).to_string(), *w)).collect() }
    }

    #[test]
    fn a_rollout_is_told_by_its_weights_and_the_log() {
        let version = |v: &str| json!({"version": v, "workload": v, "hash": "h"});
        let running = json!({"phase": "Progressing", "rollout": {"uid": "u", "step": 1, "steps": 1, "since": "", "started": ""}, "stable": version("v2"), "canary": version("v3"),
            "reasons": [{"reason": "StepBegins", "message": "v3 0 % → 10 %"}]});
        let over = json!({"phase": "RolledBack", "stable": version("v2"), "history": [{"uid": "u", "stable": "v2", "canary": "v3", "outcome": "RolledBack", "why": "v3 failed", "started": "", "took": "1s",
            "served": {"canary": {"requests": 0, "bad": 0}, "stable": {"requests": 0, "bad": 0}}, "highest": "10%"}]});
        let statuses = [seen(1000, running), seen(3000, over)];
        let weights = [
            weights(0, &[("v2", 1.0), ("v3", 0.0)]),
            weights(1500, &[("v2", 0.9), ("v3", 0.1)]),
            weights(2500, &[("v2", 1.0), ("v3", 0.0)]),
        ];
        let log = [
            entry(500, "v2", 200, 1),
            entry(1600, "v3", 500, 2),
            entry(1700, "v3", 200, 2),
            entry(1800, "v2", 200, 3),
            entry(2600, "v2", 200, 4),
            entry(3500, "v2", 200, 5),
        ];
        let all = rollouts(&statuses, &weights, &log);
        let [r] = all.as_slice() else { panic!("one rollout: {all:?}") };
        assert_eq!((r.outcome.as_str(), r.why.as_str()), ("RolledBack", "v3 failed"));
        assert_eq!((r.canary_requests, r.canary_failed, r.stable_requests, r.stable_failed), (2, 1, 2, 0));
        assert_eq!((r.users_hit, r.users), (1, 3));
        let [step] = r.steps.as_slice() else { panic!("one step: {:?}", r.steps) };
        assert_eq!((step.from, step.to, step.set, step.canary_requests, step.stable_requests), (1.5, 2.5, 0.1, 2, 1));
        assert_eq!(r.decisions.len(), 1);
    }

    #[test]
    fn failures_of_others_are_not_the_faults() {
        let log = [entry(0, "v3", 500, 1), entry(1, "v2", 500, 1), entry(2, "v3", 503, 1), entry(3, "v3", 200, 2)];
        assert_eq!(totals(&log, "v3"), Totals { requests: 4, answered: 1, failed: 3, failed_by_fault: 1, users: 2 });
    }

    #[test]
    fn a_counter_that_one_side_lacks_is_shown() {
        let envoy = BTreeMap::from([(("v1".to_string(), 200), 3)]);
        let log = BTreeMap::from([(("v1".to_string(), 200), 3), (("v1".to_string(), 500), 1)]);
        let all = beside(&envoy, &log);
        assert_eq!(all.iter().filter(|c| c.envoy != c.log).count(), 1);
    }
}
