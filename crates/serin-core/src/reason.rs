//! Why: one value per thing that Serin has to say, with its numbers, and the one sentence for it.
//!
//! Status, events, log, command line and JSON all print from here, so that they tell the same story. A reason says
//! what was measured and never claims what the counts cannot carry.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observe::SourceProblem;
use crate::stats::Counts;
use crate::units::{Timestamp, VersionName, Weight, duration_text};

/// One thing to say.
#[expect(missing_docs, reason = "a reason's fields are the words and numbers of its sentence below")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reason {
    // At rest.
    /// One version has it all.
    Serving { stable: VersionName },
    /// Nothing to release yet.
    NoVersion { service: String },
    /// The version that serves has no Deployment any more.
    ServingGone { stable: VersionName },
    /// The wanted version has no Deployment.
    DesiredMissing { desired: VersionName, present: Vec<VersionName> },
    /// The wanted version was there when Serin came, so it starts nothing by itself.
    DesiredJudged { desired: VersionName },
    /// Something makes work impossible.
    Obstacle { code: String, what: String },
    /// The owner's brake, or a freeze.
    Braked { by: String },
    /// A version was taken back and will not be tried again.
    TakenBack { canary: VersionName, why: String },
    /// A version that another one replaced is deleted, as the plan says.
    Retires { version: VersionName, workload: String, after: Duration },
    /// It would be, and somebody else keeps it.
    KeptFromRetiring { version: VersionName, workload: String, manager: String },
    /// What Serin had added for a version that is gone is taken away.
    TakenOff { version: VersionName, from: String },
    /// Somebody moved weights while nothing runs.
    DriftAtRest { manager: String, version: VersionName, to: Weight },
    /// It moved them to a version without the pods for it; put back, this once.
    PutBack { manager: String, version: VersionName, to: Weight, ready: u32, needed: u32 },
    /// And again, after it was put back.
    PutBackUndone { manager: String, version: VersionName, to: Weight, ready: u32, needed: u32 },
    /// Stable's pod template changed outside a rollout.
    StableChanged { stable: VersionName },

    // A rollout's way.
    /// A split was found and is taken over.
    Adopted { stable: VersionName, canary: VersionName, share: Weight, step: usize },
    /// A rollout begins.
    Started { stable: VersionName, canary: VersionName },
    /// A new share is set.
    StepBegins { canary: VersionName, step: usize, steps: usize, from: Weight, to: Weight, takes: Option<Duration> },
    /// A confirm step will hardly have an answer in its time.
    TooSlow {
        canary: VersionName,
        step: usize,
        steps: usize,
        weight: Weight,
        requests: f64,
        time: Option<Duration>,
        ninety: Option<Duration>,
        rate: f64,
        within: Duration,
        day: bool,
    },
    /// The whole weight is set.
    Promotes { canary: VersionName, from: Weight },
    /// The share is set and not seen yet.
    Routing { canary: VersionName, to: Weight },
    /// The canary is at its share; `left` is what remains of settle and hold.
    Holds { canary: VersionName, share: Weight, left: Duration },
    /// Every step is passed.
    StepsPassed { canary: VersionName, fit: Vec<Measured> },
    /// The canary is the new stable.
    Promoted { stable: VersionName, old: VersionName },
    /// At 100 %, watched.
    Bakes { canary: VersionName, left: Duration },

    // What it waits for.
    /// Canary pods.
    WaitsForPods { canary: VersionName, workload: String, ready: u32, needed: u32, who_scales: Option<String> },
    /// The canary's subset.
    WaitsForSubset { canary: VersionName, refusal: Option<String> },
    /// The canary's destination on a route.
    WaitsForDestination { canary: VersionName, route: String },
    /// No route sends to the service.
    NoRoute { service: String },
    /// Gross faults are not excluded yet.
    WaitsForGross { measured: Measured, more: Option<f64> },
    /// Fitness is not shown yet.
    WaitsForFitness { measured: Measured, margin: f64, more: Option<f64>, time: Option<Duration> },
    /// A quantile of stable's latency is not known well enough yet.
    LearnsLatency { metric: String, requests: f64, needed: f64, left: Duration, edges: usize },
    /// It is, and this is what is tested for the rest of the rollout.
    LatencyLearnt { metric: String, tested: String },
    /// Fitness is asked for by coarser margins in this step.
    Graded { metric: String, margin: f64, graded: f64, rate: f64, within: Duration },
    /// The plan asks other questions now: what was counted answers none of them.
    EvidenceAnew,
    /// A query's limit has not been kept often enough in a row.
    WaitsForLimit { metric: String, last: Option<f64>, good: u32, needed: u32 },
    /// A query has no answer.
    LimitMissing { metric: String, times: u32 },
    /// Suspicion of harm.
    Suspects { measured: Measured, p: f64 },
    /// Nobody calls.
    NoTraffic { service: String, since: Duration, last: Option<Timestamp> },
    /// Callers come, and none reaches the canary.
    CanaryUnreached { canary: VersionName, share: Weight, stable_requests: f64 },
    /// The source has not been read yet.
    WaitsForSource { since: Duration },
    /// The source does not answer.
    Source { problem: SourceProblem, since: Duration },
    /// Requests were refused for want of a healthy pod, though both versions have ready ones.
    Unattributed { requests: f64 },
    /// The share that is seen is not the one that is set.
    ShareOff { set: Weight, seen: f64, canary: f64, total: f64 },
    /// Stable fails too.
    BothFail { measured: Measured },
    /// Stable has no ready pod.
    StableDown { stable: VersionName },
    /// A pause by plan, person or adoption.
    Paused { why: String },

    // Ends.
    /// Evidence against the canary.
    Harm { measured: Measured, margin: f64, ratio: f64, alpha: f64 },
    /// A limit of its own is broken.
    OverLimit { measured: Measured, max: f64, alpha: f64 },
    /// A query's answers broke its limit, so often in a row.
    LimitBroken { metric: String, value: f64, min: Option<f64>, max: Option<f64>, times: u32 },
    /// Weight goes back to stable.
    GoesBack { canary: VersionName, from: Weight, why: String },
    /// A confirm step had no answer in its time and the plan goes on.
    AdvancedWithoutProof { measured: Vec<Measured> },
    /// A step is left because a person asked.
    Hurried { who: String, why: String },

    /// What would have been done, had it not only been observed.
    Would { code: String, what: String },

    // Requests.
    /// Done.
    RequestDone { action: String, who: String, why: String, effect: String },
    /// Not done, and why not.
    RequestRefused { action: String, who: String, because: String },
}

/// What was counted for one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The metric's name.
    pub metric: String,
    /// What bad means, as a verb of the version: `failed`, `answered slower than 500 ms in`.
    pub verb: String,
    /// What is counted: `requests`, or whatever the metric of two counters is called after.
    #[serde(default = "requests")]
    pub noun: String,
    /// The canary.
    pub canary: VersionName,
    /// Its counts.
    pub canary_counts: Counts,
    /// Stable.
    pub stable: VersionName,
    /// Its counts.
    pub stable_counts: Counts,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |c: &Counts| {
            if c.x > 0.0 { format!("{} of {} ({})", count(c.x), count(c.n), percent(c.x / c.n)) } else { format!("0 of {}", count(c.n)) }
        };
        let Self { canary, verb, noun, stable, .. } = self;
        write!(f, "{canary} {verb} {} {noun}, {stable} {}", side(&self.canary_counts), side(&self.stable_counts))
    }
}

/// What most metrics count.
pub(crate) fn requests() -> String {
    "requests".into()
}

/// A count with thousands separated: `4,812`. Fractions, as scaled counts have, are rounded.
pub fn count(n: f64) -> String {
    let digits = format!("{}", libm::round(n.clamp(0.0, 1e18)) as u64);
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A fraction as percent: two digits that count, never more than one decimal above 1 %.
pub fn percent(fraction: f64) -> String {
    format!("{} %", points(fraction))
}

/// A difference of shares in points, the same way.
pub fn points(fraction: f64) -> String {
    let p = fraction * 100.0;
    let a = libm::fabs(p);
    if a >= 10.0 {
        return format!("{p:.0}");
    }
    let text = if a >= 0.995 || a == 0.0 {
        format!("{p:.1}")
    } else if a >= 0.0995 {
        format!("{p:.2}")
    } else {
        format!("{p:.3}")
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(" ({why})") }
}

fn list(versions: &[VersionName]) -> String {
    versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A query's answer: see `Reading::clean`.
pub fn answer(value: f64) -> String {
    match value {
        f64::MAX => "+Inf".into(),
        f64::MIN => "-Inf".into(),
        value => value.to_string(),
    }
}

/// A rate as people say it: `4,000`, `12`, `0.25`.
pub fn per_second(rate: f64) -> String {
    if rate >= 10.0 { count(rate) } else { format!("{rate:.2}").trim_end_matches('0').trim_end_matches('.').to_string() }
}

fn more_requests(more: Option<f64>, measured: &Measured, time: Option<Duration>) -> String {
    let time = time.map_or_else(String::new, |t| format!(", some {}", duration_text(t)));
    more.map_or_else(String::new, |n| format!("; about {} more {} to {}{time}", count(n), measured.noun, measured.canary))
}

impl Reason {
    /// In mode Observe nothing is done: what tells of an act tells that it would have been.
    pub(crate) fn only_observed(&mut self) {
        let acts = matches!(
            self,
            Self::StepBegins { .. }
                | Self::Promotes { .. }
                | Self::Promoted { .. }
                | Self::GoesBack { .. }
                | Self::TakenBack { .. }
                | Self::Retires { .. }
                | Self::AdvancedWithoutProof { .. }
                | Self::Bakes { .. }
        );
        if acts {
            *self = Self::Would { code: self.code().to_string(), what: self.to_string() };
        }
    }

    /// The reason's name, as events and conditions carry it.
    pub fn code(&self) -> &str {
        match self {
            Self::Serving { .. } => "Serving",
            Self::NoVersion { .. } => "NoVersion",
            Self::ServingGone { .. } => "ServingGone",
            Self::DesiredMissing { .. } => "DesiredMissing",
            Self::DesiredJudged { .. } => "DesiredJudged",
            Self::Obstacle { code, .. } => code,
            Self::Braked { .. } => "Braked",
            Self::TakenBack { .. } => "TakenBack",
            Self::Retires { .. } => "Retires",
            Self::KeptFromRetiring { .. } => "KeptFromRetiring",
            Self::TakenOff { .. } => "TakenOff",
            Self::DriftAtRest { .. } => "DriftAtRest",
            Self::PutBack { .. } => "PutBack",
            Self::PutBackUndone { .. } => "PutBackUndone",
            Self::StableChanged { .. } => "StableChanged",
            Self::Adopted { .. } => "Adopted",
            Self::Started { .. } => "Started",
            Self::StepBegins { .. } => "StepBegins",
            Self::TooSlow { .. } => "TooSlow",
            Self::Promotes { .. } => "Promotes",
            Self::Routing { .. } => "Routing",
            Self::Holds { .. } => "Holds",
            Self::StepsPassed { .. } => "StepsPassed",
            Self::Promoted { .. } => "Promoted",
            Self::Bakes { .. } => "Bakes",
            Self::WaitsForPods { .. } => "WaitsForPods",
            Self::WaitsForSubset { .. } => "WaitsForSubset",
            Self::WaitsForDestination { .. } => "WaitsForDestination",
            Self::NoRoute { .. } => "NoRoute",
            Self::WaitsForGross { .. } => "WaitsForEvidence",
            Self::WaitsForFitness { .. } => "WaitsForFitness",
            Self::LearnsLatency { .. } => "LearnsLatency",
            Self::LatencyLearnt { .. } => "LatencyLearnt",
            Self::Graded { .. } => "Graded",
            Self::EvidenceAnew => "EvidenceAnew",
            Self::WaitsForLimit { .. } => "WaitsForLimit",
            Self::LimitMissing { .. } => "LimitMissing",
            Self::Suspects { .. } => "SuspectsHarm",
            Self::NoTraffic { .. } => "NoTraffic",
            Self::CanaryUnreached { .. } => "CanaryUnreached",
            Self::WaitsForSource { .. } => "WaitsForSource",
            Self::Source { problem: SourceProblem::Unreachable { .. }, .. } => "SourceUnreachable",
            Self::Source { problem: SourceProblem::Stale { .. }, .. } => "SourceStale",
            Self::Source { problem: SourceProblem::Missing { .. }, .. } => "MetricMissing",
            Self::Unattributed { .. } => "Unattributed",
            Self::ShareOff { .. } => "ShareOff",
            Self::BothFail { .. } => "BothFail",
            Self::StableDown { .. } => "StableDown",
            Self::Paused { .. } => "Paused",
            Self::Harm { .. } => "Harm",
            Self::OverLimit { .. } => "OverLimit",
            Self::LimitBroken { .. } => "LimitBroken",
            Self::GoesBack { .. } => "GoesBack",
            Self::AdvancedWithoutProof { .. } => "AdvancedWithoutProof",
            Self::Hurried { .. } => "Hurried",
            Self::Would { code, .. } => code,
            Self::RequestDone { .. } => "RequestDone",
            Self::RequestRefused { .. } => "RequestRefused",
        }
    }
}

/// The sentence, without a full stop.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serving { stable } => write!(f, "{stable} serves every request"),
            Self::NoVersion { service } => write!(f, "no Deployment with a version label stands behind Service {service}: apply one"),
            Self::ServingGone { stable } => {
                write!(
                    f,
                    "waits: no Deployment behind the service carries {stable}, which serves; apply it again, or give its requests to another"
                )
            }
            Self::DesiredMissing { desired, present } => {
                write!(
                    f,
                    "waits: no Deployment behind the service has version {desired}; there is {}",
                    if present.is_empty() { "none".to_string() } else { list(present) }
                )
            }
            Self::DesiredJudged { desired } => {
                write!(
                    f,
                    "{desired} is wanted, and was there when Serin came, so it starts nothing by itself; serin retry puts it on trial"
                )
            }
            Self::Obstacle { what, .. } => f.write_str(what),
            Self::Braked { by } => write!(f, "nothing moves forward: {by}"),
            Self::TakenBack { canary, why } => {
                write!(f, "{canary} was taken back: {why}; it is not tried again until it changes or someone retries")
            }
            Self::TakenOff { version, from } => write!(f, "{version} is gone, so what Serin had added for it is taken off {from}"),
            Self::Retires { version, workload, after } => {
                write!(
                    f,
                    "{version} has served nobody for {}: Deployment {workload} is deleted, as scaling.retireAfter says",
                    duration_text(*after)
                )
            }
            Self::KeptFromRetiring { version, workload, manager } => write!(
                f,
                "{version} may be deleted and is not: {manager} applies Deployment {workload} and would make it again; remove it there"
            ),
            Self::DriftAtRest { manager, version, to } => {
                write!(f, "{manager} gave {version} {to} of the requests; no rollout runs, so Serin leaves it")
            }
            Self::PutBack { manager, version, to, ready, needed } => {
                write!(
                    f,
                    "{manager} gave {version} {to} of the requests, for which it needs {needed} ready pods and has {ready}: put back, this once"
                )
            }
            Self::PutBackUndone { manager, version, to, ready, needed } => write!(
                f,
                "{manager} gives {version} {to} of the requests again, for which it needs {needed} ready pods and has {ready}; it was put back once and is not fought over: set the weights in what {manager} applies"
            ),
            Self::StableChanged { stable } => {
                write!(f, "{stable} changed its pod template in place: no canary can be made of the version that serves")
            }
            Self::Adopted { stable, canary, share, step } => {
                write!(f, "found {canary} at {share} beside {stable}: paused at step {} until someone resumes", step + 1)
            }
            Self::Started { stable, canary } => write!(f, "{canary} goes on trial beside {stable}"),
            Self::StepBegins { canary, step, steps, from, to, takes } => {
                let takes = takes.map_or_else(String::new, |t| format!(", takes some {}", duration_text(t)));
                write!(f, "{canary} {from} → {to} (step {} of {steps}){takes}", step + 1)
            }
            Self::TooSlow { canary, step, steps, weight, requests, time, ninety, rate, within, day } => {
                write!(f, "step {} of {steps} ({weight}) will hardly be answered: ", step + 1)?;
                match time {
                    Some(time) => write!(
                        f,
                        "to show {canary} fit takes about {} requests to it, some {} at {} requests a second{}",
                        count(*requests),
                        duration_text(*time),
                        per_second(*rate),
                        ninety.map_or_else(String::new, |t| format!(", in one of ten cases more than {}", duration_text(t)))
                    )?,
                    None => write!(f, "by stable's own share of bad requests, none can show {canary} fit within these margins and limits")?,
                }
                let there =
                    if *day { "that is longer than a day".to_string() } else { format!("its maxWait is {}", duration_text(*within)) };
                write!(f, "; {there}. A wider margin, a larger weight or more requests make it quicker; serin promote leaves the step")
            }
            Self::Promotes { canary, from } => write!(f, "{canary} {from} → 100 % (promotion)"),
            Self::Routing { canary, to } => write!(f, "{canary} gets {to}: waits until every route shows it"),
            Self::Holds { canary, share, left } => {
                write!(f, "{canary} holds {share}: no sign of harm; goes on in about {}", duration_text(*left))
            }
            Self::StepsPassed { canary, fit } => {
                write!(f, "{canary} passed every step")?;
                fit.iter().try_for_each(|m| write!(f, "; {m}"))
            }
            Self::Promoted { stable, old } => write!(f, "{stable} is promoted and serves every request; {old} is kept and may be deleted"),
            Self::Bakes { canary, left } => write!(f, "{canary} has every request and is watched for {} more", duration_text(*left)),
            Self::WaitsForPods { canary, workload, ready, needed, who_scales } => {
                write!(f, "waits for pods: {canary} has {ready} ready, {needed} needed")?;
                match who_scales {
                    Some(who) => write!(f, "; {who} sets the replicas of Deployment {workload}, so Serin does not"),
                    None => write!(f, " (Deployment {workload})"),
                }
            }
            Self::WaitsForSubset { canary, refusal: None } => write!(f, "waits until the subset of {canary} is there"),
            Self::WaitsForSubset { canary, refusal: Some(why) } => {
                write!(f, "waits: no DestinationRule has a subset for {canary}, and Serin may not write one: {why}")
            }
            Self::WaitsForDestination { canary, route } => write!(f, "waits until VirtualService {route} names {canary}"),
            Self::NoRoute { service } => write!(f, "waits: no VirtualService sends to Service {service}, so there is no share to set"),
            Self::WaitsForGross { measured, more } => {
                write!(
                    f,
                    "waits for evidence: {measured}; faults of 20 points are not excluded yet{}",
                    more_requests(*more, measured, None)
                )
            }
            Self::WaitsForFitness { measured, margin, more, time } => {
                write!(f, "not known yet: {measured}; {} points are allowed{}", points(*margin), more_requests(*more, measured, *time))
            }
            Self::LearnsLatency { metric, edges: 0, .. } => {
                write!(f, "waits: the source has no histogram of stable's latency, from which {metric} is to be learnt")
            }
            Self::LearnsLatency { metric, requests, needed, left, .. } => {
                write!(f, "learns stable's latency for {metric}: {} of {} requests", count(*requests), count(*needed))?;
                if left.is_zero() { Ok(()) } else { write!(f, ", for about {} more", duration_text(*left)) }
            }
            Self::LatencyLearnt { metric, tested } => write!(f, "{metric}: {tested}"),
            Self::Graded { metric, margin, graded, rate, within } => write!(
                f,
                "{metric}: this step asks for {} points instead of {}, which {} requests a second can show within {}; a later step asks for {}",
                points(*graded),
                points(*margin),
                points(*rate / 100.0),
                duration_text(*within),
                points(*margin)
            ),
            Self::EvidenceAnew => {
                f.write_str("the plan's questions have changed: the evidence begins anew, with its whole chance of error")
            }
            Self::WaitsForLimit { metric, last, good, needed } => {
                write!(f, "waits: {metric} was within its limit {good} times in a row, {needed} are needed")?;
                last.map_or(Ok(()), |v| write!(f, " (last answer: {})", answer(v)))
            }
            Self::LimitMissing { metric, times } => {
                write!(f, "waits: the query of {metric} had no answer {times} times in a row; that is neither good nor bad")
            }
            Self::Suspects { measured, p } => write!(f, "stays, as harm is suspected: {measured} (p = {p:.3}, always valid)"),
            Self::NoTraffic { service, since, last } => {
                write!(f, "waits: nobody calls {service}")?;
                match last {
                    Some(_) => write!(f, " since {}", duration_text(*since))?,
                    None => write!(f, " ({} long)", duration_text(*since))?,
                }
                f.write_str("; it is not a failure and not a pass")
            }
            Self::CanaryUnreached { canary, share, stable_requests } => {
                write!(f, "waits: none of {} requests reached {canary}, though {share} is set", count(*stable_requests))
            }
            Self::WaitsForSource { since } => write!(f, "waits for the first reading of the metrics ({})", duration_text(*since)),
            Self::Source { problem: SourceProblem::Unreachable { what }, since } => {
                write!(
                    f,
                    "waits: the source of metrics has not answered for {}: {what}; weights stay, an abort works without it",
                    duration_text(*since)
                )
            }
            Self::Source { problem: SourceProblem::Stale { age_s }, since } => {
                write!(f, "waits: the newest metrics are {age_s}s old (for {}); weights stay", duration_text(*since))
            }
            Self::Source { problem: SourceProblem::Missing { what }, .. } => write!(f, "waits: {what}"),
            Self::Unattributed { requests } => {
                write!(
                    f,
                    "stays: {} requests found no healthy pod though both versions have ready ones; whose fault it is cannot be told",
                    count(*requests)
                )
            }
            Self::ShareOff { set, seen, canary, total } => {
                write!(
                    f,
                    "waits: set {set}, seen {} ({} of {} requests); the callers do not follow the route",
                    percent(*seen),
                    count(*canary),
                    count(*total)
                )
            }
            Self::BothFail { measured } => write!(f, "stays: both versions fail, so it is not the canary's doing: {measured}"),
            Self::StableDown { stable } => write!(f, "stays: {stable} has no ready pod, so taking the canary back would be the outage"),
            Self::Paused { why } => f.write_str(why),
            Self::Harm { measured, margin, ratio, alpha } => {
                write!(f, "{measured}; {} points", points(*margin))?;
                if *ratio > 1.0 {
                    write!(f, " and {ratio} times stable's share")?;
                }
                write!(f, " are allowed (chance of so much by accident: less than 1 in {} over the whole rollout)", count(1.0 / alpha))
            }
            Self::OverLimit { measured, max, alpha } => {
                write!(
                    f,
                    "{measured}; {} is the limit (chance of so much by accident: less than 1 in {} over the whole rollout)",
                    percent(*max),
                    count(1.0 / alpha)
                )
            }
            Self::LimitBroken { metric, value, min, max, times } => {
                let limit = match (min, max) {
                    (Some(min), None) => format!("below {min}"),
                    (None, Some(max)) => format!("above {max}"),
                    (Some(min), Some(max)) => format!("outside {min} to {max}"),
                    (None, None) => "not allowed".to_string(),
                };
                let value = answer(*value);
                write!(f, "{metric} is {value}, {limit}, {times} readings in a row (a limit, not a test: no chance of error can be told)")
            }
            Self::GoesBack { canary, from, why } => write!(f, "{canary} {from} → 0 %: {why}"),
            Self::AdvancedWithoutProof { measured } => {
                f.write_str("advanced without proof, as the plan says")?;
                measured.iter().try_for_each(|m| write!(f, "; {m}"))
            }
            Self::Hurried { who, why } => write!(f, "{who} asked to go on{}", because(why)),
            Self::Would { what, .. } => write!(f, "would be: {what}; in mode Observe nothing is touched"),
            Self::RequestDone { action, who, why, effect } => write!(f, "{action} by {who}{}: {effect}", because(why)),
            Self::RequestRefused { action, who, because } => write!(f, "{action} by {who} refused: {because}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0.0, 12.0, 1234.0, 9_876_543.4].map(count), ["0", "12", "1,234", "9,876,543"]);
        assert_eq!([0.5, 0.098, 0.01, 0.0042, 0.0002, 0.0].map(percent), ["50 %", "9.8 %", "1 %", "0.42 %", "0.02 %", "0 %"]);
    }
}
