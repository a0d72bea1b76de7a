//! State, observation and decision → status: what a person reads.
//!
//! Shares are shown as they were measured, beside what was set, never the controller's own record alone. Nothing that is
//! written here changes while nothing happens, so that a release at rest costs no write.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};
use serin_core::action::Decision;
use serin_core::observe::Observation;
use serin_core::plan::{Plan, Problem, QueryLimit, Step};
use serin_core::reason::{Reason, answer, count, percent};
use serin_core::state::{Answers, Past, PauseCause, Phase, Rollout, Served, Version};
use serin_core::stats::{Counts, NumberVerdict, interval};
use serin_core::units::{Timestamp, Weight};

use crate::checkpoint::checkpoint;
use crate::status::{
    AnalysisStatus, CanaryReleaseStatus, CountsStatus, HandledStatus, LimitStatus, MetricStatus, PastStatus, ReasonStatus, RequestsStatus,
    RetirableStatus, RolloutStatus, ServedStatus, VersionStatus, WeightStatus,
};
use crate::values::duration_string;

/// What a status is rendered from.
#[derive(Clone, Copy, Debug)]
pub struct Rendering<'a> {
    /// The plan that was decided by.
    pub plan: &'a Plan,
    /// What was seen.
    pub seen: &'a Observation,
    /// What was decided; its `next` is what the status speaks of.
    pub decision: &'a Decision,
    /// `metadata.generation` of the spec behind the plan.
    pub generation: i64,
    /// The status as it stands: keeps transition times, and what a newer version wrote.
    pub previous: Option<&'a CanaryReleaseStatus>,
    /// Now.
    pub now: Timestamp,
}

/// The status that says what was seen and decided.
pub fn status_of(r: &Rendering<'_>) -> CanaryReleaseStatus {
    let state = &r.decision.next;
    let rollout = state.rollout();
    let version = |v: &Version, needed: Option<i64>| {
        let ready = r.seen.workloads.iter().find(|w| w.version == v.name && w.name == v.workload).map(|w| i64::from(w.capacity()));
        VersionStatus { version: v.name.to_string(), workload: clip(&v.workload, 253), hash: clip(&v.hash, 64), ready, needed }
    };
    let failed = if let Phase::RolledBack { version, .. } = &state.phase { Some(version) } else { None };
    let reasons: Vec<ReasonStatus> = r
        .decision
        .reasons
        .iter()
        .take(64)
        .map(|reason| ReasonStatus { reason: clip(reason.code(), 63), message: clip(&reason.to_string(), 4096) })
        .collect();
    CanaryReleaseStatus {
        observed_generation: Some(r.generation),
        phase: Some(state.phase.name().to_string()),
        message: reasons.first().map(|m| m.message.clone()),
        reasons,
        rollout: rollout.map(|x| RolloutStatus {
            uid: x.uid.clone(),
            step: whole((x.step + 1) as f64).min(whole(r.plan.spec().steps.len() as f64)),
            steps: whole(r.plan.spec().steps.len() as f64),
            since: time(x.step_since),
            started: time(x.started),
            remaining: state.until_promoted(r.plan, r.now).map(in_seconds),
        }),
        stable: state.stable.as_ref().map(|v| version(v, None)),
        canary: rollout
            .map(|x| version(&x.canary, Some(i64::from(x.pods_needed(r.plan, x.weight.share)))))
            .or_else(|| failed.map(|v| version(v, None))),
        weight: rollout.map(|x| weight(r.seen, x)).or_else(|| failed.map(|v| weight_at_rest(r.seen, v))),
        analysis: rollout.filter(|_| !matches!(state.phase, Phase::Preparing(_))).map(|x| analysis(r.plan, x)),
        checkpoint: Some(checkpoint(state)),
        handled: state.handled.iter().map(handled).collect(),
        history: state.history.iter().map(past).collect(),
        retirable: state
            .retirable
            .iter()
            .take(64)
            .map(|(v, since)| RetirableStatus { version: v.to_string(), since: time(*since) })
            .collect(),
        conditions: conditions(r),
        rest: r.previous.map(|p| p.rest.clone()).unwrap_or_default(),
    }
}

/// The status of a spec, or a checkpoint, that cannot be worked with: all else stays as it was.
pub fn invalid_status(
    problems: &[Problem],
    generation: i64,
    previous: Option<&CanaryReleaseStatus>,
    now: Timestamp,
) -> CanaryReleaseStatus {
    let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let message = clip(&format!("nothing moves: {text}"), 4096);
    let mut status = previous.cloned().unwrap_or_default();
    let stand = [("Ready", "False"), ("Progressing", "False"), ("Stalled", "True")];
    let mut conditions: Vec<Condition> =
        stand.map(|(kind, value)| condition(previous, generation, now, kind, value, "InvalidSpec", &message)).to_vec();
    conditions.extend(status.conditions.iter().filter(|c| c.type_ == "Promoted").cloned());
    status.observed_generation = Some(generation);
    status.reasons =
        problems.iter().take(64).map(|p| ReasonStatus { reason: "InvalidSpec".into(), message: clip(&p.to_string(), 4096) }).collect();
    status.message = Some(message);
    status.conditions = conditions;
    status
}

/// The merge patch that makes `status` so, and leaves alone what this version does not know.
pub fn status_patch(status: &CanaryReleaseStatus) -> Value {
    let mut value = json!({
        "phase": null, "message": null, "reasons": null, "rollout": null, "stable": null, "canary": null, "weight": null, "analysis": null,
        "checkpoint": null, "handled": null, "history": null, "retirable": null, "conditions": null,
    });
    let new = serde_json::to_value(status).unwrap_or_default();
    if let (Some(all), Value::Object(new)) = (value.as_object_mut(), new) {
        all.extend(new);
        // A merge patch keeps fields that it does not name: those that went away inside an object are named too.
        let may_go: [(&str, &[&str]); 5] = [
            ("stable", &["ready", "needed"]),
            ("canary", &["ready", "needed"]),
            ("weight", &["seen", "requests"]),
            ("analysis", &["pValue", "metrics", "limits"]),
            ("rollout", &["remaining"]),
        ];
        for (parent, fields) in may_go {
            if let Some(Value::Object(parent)) = all.get_mut(parent) {
                for field in fields {
                    parent.entry(*field).or_insert(Value::Null);
                }
            }
        }
    }
    json!({"status": value})
}

/// RFC 3339, in UTC.
pub fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map(|t| t.to_string()).unwrap_or_default()
}

/// A share without a space, as machines like it: `0.5%`.
pub fn share(weight: Weight) -> String {
    weight.to_string().replace(' ', "")
}

/// A forecast knows no parts of a second.
fn in_seconds(d: Duration) -> String {
    duration_string(Duration::from_secs(d.as_secs_f64().ceil() as u64))
}

fn whole(n: f64) -> i64 {
    n.round().clamp(0.0, 9e15) as i64
}

fn clip(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_string() } else { text.chars().take(most - 1).chain(['…']).collect() }
}

fn counts(c: Counts) -> CountsStatus {
    CountsStatus { requests: whole(c.n), bad: whole(c.x) }
}

fn weight(seen: &Observation, rollout: &Rollout) -> WeightStatus {
    let shares = seen.routes.iter().flat_map(|r| &r.splits).filter_map(|s| s.share(&rollout.canary.name));
    let set = shares.max().unwrap_or(Weight::ZERO);
    let (canary, total) = (rollout.split.canary(), rollout.split.total());
    if total <= 0.0 {
        return WeightStatus { set: share(set), seen: None, text: format!("{set} set · not measured yet"), requests: None };
    }
    let measured = percent(canary / total);
    WeightStatus {
        set: share(set),
        text: format!("{set} set · {measured} seen ({} of {})", count(canary), count(total)),
        seen: Some(measured.replace(' ', "")),
        requests: Some(RequestsStatus { canary: whole(canary), stable: whole(total - canary) }),
    }
}

fn weight_at_rest(seen: &Observation, version: &Version) -> WeightStatus {
    let shares = seen.routes.iter().flat_map(|r| &r.splits).filter_map(|s| s.share(&version.name));
    let set = shares.max().unwrap_or(Weight::ZERO);
    WeightStatus { set: share(set), seen: None, text: format!("{set} set"), requests: None }
}

fn analysis(plan: &Plan, rollout: &Rollout) -> AnalysisStatus {
    let settings = plan.settings();
    let tests = rollout.tests(plan);
    let harm = rollout.analysis.harm(&tests, &settings);
    let confirm = matches!(plan.step(rollout.step), Some(Step::Weight { confirm: true, .. }));
    let metric = |(i, m): (usize, &serin_core::plan::Metric)| {
        let fitness = rollout.analysis.fitness(i, &settings);
        let step = rollout.analysis.step_totals(i);
        let verdict = match () {
            () if harm.failed && harm.cause == Some(i) => "Fail",
            () if fitness.fit => "Pass",
            () => "Inconclusive",
        };
        let ends = |c: Counts| {
            let (low, high) = interval::rate(c, settings.alpha / 2.0);
            (c.n > 0.0).then(|| [low, high].map(|e| percent(e).replace(' ', "")))
        };
        let more = if confirm {
            rollout.analysis.requests_needed(i, &tests, &settings, rollout.weight.share.fraction())
        } else if fitness.gross_excluded {
            None
        } else {
            rollout.analysis.gross_requests_needed(i, &settings)
        };
        MetricStatus {
            name: clip(&m.name, 63),
            verdict: verdict.to_string(),
            canary: counts(step.canary),
            stable: counts(step.stable),
            canary_interval: ends(step.canary),
            stable_interval: ends(step.stable),
            more_requests: more.map(|n| whole(n.ceil())),
            time_needed: more.filter(|n| *n > 0.0).and_then(|n| rollout.time_for(plan, i, n)).map(in_seconds),
        }
    };
    let asking = plan.metrics().iter().enumerate().filter(|(_, m)| rollout.asks(plan, m));
    let limits = plan.spec().limits.iter().enumerate().map(|(i, l)| limit(l, rollout.answers.get(i).copied().unwrap_or_default()));
    AnalysisStatus { p_value: Some(format!("{:.3}", harm.p)), metrics: asking.map(metric).collect(), limits: limits.collect() }
}

fn limit(limit: &QueryLimit, answers: Answers) -> LimitStatus {
    let verdict = match answers.readings.verdict(&limit.limit) {
        NumberVerdict::Broken => "Fail",
        NumberVerdict::Kept => "Pass",
        NumberVerdict::Missing => "Missing",
        NumberVerdict::Open => "Inconclusive",
    };
    LimitStatus {
        name: clip(&limit.name, 63),
        verdict: verdict.to_string(),
        last: answers.last.map(|value| clip(&answer(value), 40)),
        good: answers.readings.good().into(),
        needed: limit.limit.in_a_row.max(1).into(),
    }
}

fn handled(h: &serin_core::state::Handled) -> HandledStatus {
    HandledStatus {
        id: clip(&h.id, 253),
        action: h.action.to_string(),
        who: clip(&h.who, 253),
        at: time(h.at),
        refused: h.refused.as_ref().map(|why| clip(why, 1024)),
    }
}

fn past(p: &Past) -> PastStatus {
    let Served { canary, stable, .. } = p.served;
    PastStatus {
        uid: p.uid.clone(),
        stable: p.stable.to_string(),
        canary: p.canary.to_string(),
        outcome: format!("{:?}", p.outcome),
        why: clip(&p.why, 4096),
        started: time(p.started),
        took: duration_string(p.took),
        served: ServedStatus { canary: counts(canary), stable: counts(stable) },
        highest: share(p.highest),
    }
}

/// As kstatus reads them: a rollout of hours is Ready and Progressing; Stalled is what nobody but a person resolves.
fn conditions(r: &Rendering<'_>) -> Vec<Condition> {
    let (state, reasons) = (&r.decision.next, &r.decision.reasons);
    let code = reasons.first().map_or("Serving", Reason::code);
    let message = reasons.first().map(ToString::to_string).unwrap_or_default();
    let has = |wanted: fn(&Reason) -> bool| reasons.iter().find(|x| wanted(x));
    let stalled: Option<(&str, String)> = match &state.phase {
        Phase::RolledBack { .. } => {
            let back = has(|x| matches!(x, Reason::TakenBack { .. })).or_else(|| has(|x| matches!(x, Reason::Obstacle { .. })));
            Some(back.map_or_else(|| ("TakenBack", message.clone()), |x| (x.code(), x.to_string())))
        }
        Phase::Paused(_, cause @ PauseCause::Drift { .. }) => Some(("Drift", cause.to_string())),
        _ => has(|x| matches!(x, Reason::Obstacle { .. } | Reason::PutBackUndone { .. })).map(|x| (x.code(), x.to_string())),
    };
    let down = has(|x| matches!(x, Reason::StableDown { .. } | Reason::ServingGone { .. } | Reason::DesiredMissing { .. }));
    let missing = state.stable.is_none();
    let (ready, why) = match (&stalled, down) {
        (Some((code, _)), _) => ("False", *code),
        (None, Some(reason)) => ("False", reason.code()),
        (None, None) if missing => ("False", code),
        (None, None) => ("True", code),
    };
    let progressing = if state.rollout().is_some() { "True" } else { "False" };
    let promoted = match (&state.phase, &state.stable, &r.plan.spec().desired) {
        (Phase::Idle, Some(stable), desired) if desired.as_ref().is_none_or(|d| *d == stable.name) => "True",
        _ => "False",
    };
    let make =
        |kind: &str, value: &str, reason: &str, message: &str| condition(r.previous, r.generation, r.now, kind, value, reason, message);
    let (stall, stall_code, stall_message) = match &stalled {
        Some((code, message)) => ("True", *code, message.as_str()),
        None => ("False", code, message.as_str()),
    };
    vec![
        make("Ready", ready, why, &message),
        make("Progressing", progressing, state.phase.name(), &message),
        make("Stalled", stall, stall_code, stall_message),
        make("Promoted", promoted, state.phase.name(), &message),
    ]
}

fn condition(
    previous: Option<&CanaryReleaseStatus>,
    generation: i64,
    now: Timestamp,
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
) -> Condition {
    let same = previous.and_then(|p| p.conditions.iter().find(|c| c.type_ == kind && c.status == value));
    let at = same
        .map_or_else(|| Time(jiff::Timestamp::from_second(now.0.div_euclid(1000)).unwrap_or_default()), |c| c.last_transition_time.clone());
    Condition {
        type_: kind.to_string(),
        status: value.to_string(),
        reason: clip(reason, 1024),
        message: clip(message, 32_768),
        observed_generation: Some(generation),
        last_transition_time: at,
    }
}
