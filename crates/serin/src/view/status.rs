//! The screen of one release: the sentence, what was measured, what comes next and when, and something to type.
//!
//! Everything shown was measured: weights as set beside weights as seen, with the counts. Meaning never stands in
//! colour alone.

use jiff::tz::TimeZone;
use kube::ResourceExt;
use serde::Serialize;
use serin_api::CanaryRelease;
use serin_api::status::VersionStatus;
use serin_core::observe::SourceProblem;
use serin_core::plan::{Plan, Step};
use serin_core::reason::{count, per_second, percent};
use serin_core::state::{Phase, Rollout, State};
use serin_core::stats::{Counts, Test, interval};
use serin_core::units::{Timestamp, duration_text};

use super::why::commands;

/// What the screen shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) phase: String,
    pub(crate) message: String,
    pub(crate) plan: Vec<PlanStep>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) step: Option<usize>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) weight: Option<String>,
    pub(crate) pods: Vec<Pods>,
    pub(crate) gates: Vec<Gate>,
    pub(crate) metrics: Vec<MetricView>,
    pub(crate) next: Vec<String>,
    /// Until the canary is the new stable, by the forecast.
    pub(crate) remaining: Option<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) commands: Vec<String>,
}

/// A step of the plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PlanStep {
    pub(crate) label: String,
    pub(crate) at: Progress,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Progress {
    Done,
    Here,
    Ahead,
}

/// A version's pods.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Pods {
    pub(crate) version: String,
    pub(crate) workload: String,
    pub(crate) ready: Option<i64>,
    pub(crate) needed: Option<i64>,
}

/// Something that must be true before a weight goes up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Gate {
    pub(crate) name: String,
    pub(crate) open: bool,
}

/// A metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MetricView {
    pub(crate) name: String,
    pub(crate) canary: String,
    pub(crate) stable: Option<String>,
    /// Points: the least, the measured and the largest difference that the counts allow.
    pub(crate) difference: Option<[f64; 3]>,
    /// What is allowed, in points.
    pub(crate) margin: f64,
    pub(crate) verdict: String,
}

/// Makes the view. `plan` and `state` are those of the object: `None` where it cannot be read, which the message says.
pub(crate) fn view(release: &CanaryRelease, plan: Option<&Plan>, state: Option<&State>, now: Timestamp, zone: &TimeZone) -> View {
    let status = release.status.clone().unwrap_or_default();
    let phase = status.phase.clone().unwrap_or_else(|| "Unknown".into());
    let reason = status.reasons.first().map(|r| r.reason.clone()).unwrap_or_default();
    let mut view = View {
        name: release.name_any(),
        namespace: release.namespace().unwrap_or_default(),
        message: status.message.clone().unwrap_or_else(|| "not seen by a controller yet".into()),
        weight: status.weight.as_ref().map(|w| w.text.clone()),
        pods: [&status.stable, &status.canary].into_iter().flatten().map(pods).collect(),
        notes: status.reasons.iter().skip(1).map(|r| r.message.clone()).collect(),
        commands: commands(release, &reason, &phase),
        phase,
        ..View::default()
    };
    if status.observed_generation.is_some() && status.observed_generation != release.metadata.generation {
        view.notes.insert(0, "the spec was changed, and no controller has looked at the change yet".into());
    }
    view.notes.extend(status.retirable.iter().map(|r| format!("{} serves nobody since {} and may be deleted", r.version, r.since)));
    let Some(plan) = plan else { return view };
    let Some((state, rollout)) = state.and_then(|s| s.rollout().map(|r| (s, r))) else { return view };
    view.started = Some(rollout.started);
    view.since = Some(rollout.step_since);
    view.step = Some(rollout.step + 1);
    view.plan = steps(plan, state, rollout);
    let has = |code: &str| status.reasons.iter().any(|r| r.reason == code);
    let ready = |v: &Option<VersionStatus>| v.as_ref().and_then(|v| v.ready);
    let (canary_ready, stable_ready) = (ready(&status.canary), ready(&status.stable));
    let needed = status.canary.as_ref().and_then(|v| v.needed);
    let gate = |name: String, open: bool| Gate { name, open };
    view.gates = vec![
        gate(format!("subset of {}", rollout.canary.name), !has("WaitsForSubset") && !has("WaitsForDestination")),
        gate("endpoints".into(), canary_ready.is_some_and(|n| n > 0)),
        gate("capacity".into(), canary_ready.zip(needed).is_some_and(|(ready, needed)| ready >= needed)),
        match (rollout.last_reading, &rollout.source) {
            (Some(at), None) => gate(format!("metrics {} old", duration_text(now.since(at))), now.since(at) <= plan.spec().interval * 3),
            (_, Some((SourceProblem::Unreachable { .. }, _))) => gate("metrics: the source does not answer".into(), false),
            (_, Some((SourceProblem::Stale { .. }, _))) => gate("metrics: the newest are old".into(), false),
            (_, Some((SourceProblem::Missing { .. }, _))) => gate("metrics: something lacks".into(), false),
            (None, None) => gate("metrics not read yet".into(), false),
        },
        gate("stable could take all back".into(), stable_ready.is_some_and(|n| n >= i64::from(rollout.full_size))),
    ];
    if !matches!(state.phase, Phase::Preparing(_)) {
        view.metrics = metrics(plan, rollout);
    }
    view.next = next(plan, state, rollout, now, zone);
    view.remaining = state.until_promoted(plan, now).map(duration_text);
    view.next.extend(view.remaining.as_ref().map(|remaining| {
        let rate = rollout.rate(plan).map_or_else(String::new, |rate| format!(" at {} requests a second", per_second(rate)));
        format!("whole rollout: some {remaining} more{rate}, if {} is as good as {}", rollout.canary.name, rollout.stable.name)
    }));
    view
}

fn pods(v: &VersionStatus) -> Pods {
    Pods { version: v.version.clone(), workload: v.workload.clone(), ready: v.ready, needed: v.needed }
}

fn steps(plan: &Plan, state: &State, rollout: &Rollout) -> Vec<PlanStep> {
    let promoting = matches!(state.phase, Phase::Promoting(_));
    let place = |i: usize| match i.cmp(&rollout.step) {
        std::cmp::Ordering::Less => Progress::Done,
        std::cmp::Ordering::Equal if promoting => Progress::Done,
        std::cmp::Ordering::Equal => Progress::Here,
        std::cmp::Ordering::Greater => Progress::Ahead,
    };
    let label = |step: &Step| match step {
        Step::Weight { weight, confirm: true, .. } => format!("{weight} confirm"),
        Step::Weight { weight, .. } => weight.to_string(),
        Step::Pause { .. } => "pause".to_string(),
    };
    let mut steps: Vec<PlanStep> = plan.spec().steps.iter().enumerate().map(|(i, s)| PlanStep { label: label(s), at: place(i) }).collect();
    steps.push(PlanStep { label: "promote".into(), at: if promoting { Progress::Here } else { Progress::Ahead } });
    steps
}

fn metrics(plan: &Plan, rollout: &Rollout) -> Vec<MetricView> {
    let settings = plan.settings();
    let tests = rollout.tests(plan);
    let harm = rollout.analysis.harm(&tests, &settings);
    let one = |(i, metric): (usize, &serin_core::plan::Metric)| {
        let step = rollout.analysis.step_totals(i);
        let fitness = rollout.analysis.fitness(i, &settings);
        let shown = |version: &str, c: Counts| {
            let share = if c.n > 0.0 { format!(" ({})", percent(c.x / c.n)) } else { String::new() };
            format!("{version} {} of {}{share}", count(c.x), count(c.n))
        };
        let (stable, margin, difference) = match &tests[i].of_fitness() {
            Test::Compare { margin, ratio } => {
                let at = |c: Counts| interval::rate(c, settings.alpha / 2.0);
                let ((cl, ch), (sl, sh)) = (at(step.canary), at(step.stable));
                let known = step.canary.n > 0.0 && step.stable.n > 0.0;
                let difference =
                    known.then(|| [cl - ratio * sh, step.canary.rate() - ratio * step.stable.rate(), ch - ratio * sl].map(|d| d * 100.0));
                (Some(shown(rollout.stable.name.as_str(), step.stable)), *margin, difference)
            }
            Test::Limit { max } => {
                let (low, high) = interval::rate(step.canary, settings.alpha / 2.0);
                (None, *max, (step.canary.n > 0.0).then(|| [low, step.canary.rate(), high].map(|d| d * 100.0)))
            }
        };
        let verdict = match () {
            () if harm.failed && harm.cause == Some(i) => "worse",
            () if fitness.fit => "shown fit",
            () if harm.suspected && harm.cause == Some(i) => "suspected of harm",
            () if fitness.gross_excluded => "no gross fault; more is not known yet",
            () => "not known yet",
        };
        MetricView {
            name: metric.name.clone(),
            canary: shown(rollout.canary.name.as_str(), step.canary),
            stable,
            difference,
            margin: margin * 100.0,
            verdict: verdict.to_string(),
        }
    };
    plan.metrics().iter().enumerate().filter(|(_, m)| rollout.asks(plan, m)).map(one).collect()
}

fn next(plan: &Plan, state: &State, rollout: &Rollout, now: Timestamp, zone: &TimeZone) -> Vec<String> {
    let clock = |at| clock(at, zone);
    let after = || match (rollout.step + 1..plan.spec().steps.len()).next() {
        Some(i) => match &plan.spec().steps[i] {
            Step::Weight { weight, .. } => weight.to_string(),
            Step::Pause { .. } => "a pause".to_string(),
        },
        None => "promotion (100 %)".to_string(),
    };
    let excluded = |i: usize| rollout.analysis.fitness(i, &plan.settings()).gross_excluded;
    let gross = || plan.metrics().iter().enumerate().all(|(i, m)| !rollout.asks(plan, m) || excluded(i));
    match &state.phase {
        Phase::Preparing(_) => vec![format!("{} once the gates are open", plan.weight_at(0))],
        Phase::Progressing(_) => match plan.step(rollout.step) {
            Some(Step::Weight { hold, confirm, max_wait, .. }) => {
                let settle = plan.spec().settle;
                let until = rollout.step_since.plus(settle + *hold);
                let left = if until > now {
                    format!("{} have passed: {}", duration_text(settle + *hold), clock(until))
                } else {
                    format!("{} have passed (done)", duration_text(settle + *hold))
                };
                if *confirm {
                    let limit =
                        max_wait.map(|w| format!("; at the latest decided {}", clock(rollout.step_since.plus(w)))).unwrap_or_default();
                    vec![format!("{} once every metric is shown fit and {left}{limit}", after())]
                } else {
                    vec![format!("{} once 20-point faults are excluded ({}) and {left}", after(), if gross() { "done" } else { "not yet" })]
                }
            }
            Some(Step::Pause { .. }) | None => vec![after()],
        },
        Phase::Paused(_, cause) => vec![format!("{} when someone resumes ({cause})", after())],
        Phase::Promoting(r) => match &r.bake {
            Some(bake) => vec![format!(
                "{} is the new stable at {}, unless a limit is broken",
                r.canary.name,
                clock(bake.since.plus(plan.spec().bake))
            )],
            None => vec![format!("100 % once {} has stable's number of pods", r.canary.name)],
        },
        Phase::RollingBack(r, _) => vec![format!("all weight back to {}", r.stable.name)],
        Phase::Idle | Phase::RolledBack { .. } => Vec::new(),
    }
}

/// The time of day in a zone.
fn clock(at: Timestamp, zone: &TimeZone) -> String {
    jiff::Timestamp::from_millisecond(at.0).map(|t| t.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string()).unwrap_or_default()
}

/// The screen.
pub(crate) fn text(view: &View, colour: bool, zone: &TimeZone) -> String {
    let clock = |at| clock(at, zone);
    let bold = |s: &str| if colour { format!("\x1b[1m{s}\x1b[0m") } else { s.to_string() };
    let mut lines = vec![format!("{}  {}", bold(&view.name), view.message)];
    let mut line = |head: &str, text: String| lines.push(format!("  {head:<9}{text}"));
    if !view.plan.is_empty() {
        let step = |s: &PlanStep| match s.at {
            Progress::Done => format!("{} ✔", s.label),
            Progress::Here => format!("{} ●", s.label),
            Progress::Ahead => s.label.clone(),
        };
        let steps: Vec<String> = view.plan.iter().map(step).collect();
        let since = view.started.map_or_else(String::new, |t| format!("   started {}", clock(t)));
        let step = view.step.zip(view.since).map_or_else(String::new, |(n, t)| format!(", step {n} since {}", clock(t)));
        line("plan", format!("{}{since}{step}", steps.join("   ")));
    }
    if let Some(weight) = &view.weight {
        line("weight", weight.replace(')', " requests)"));
    }
    if !view.pods.is_empty() {
        let one = |p: &Pods| {
            let ready = p.ready.map_or_else(|| "no Deployment".to_string(), |n| format!("{n} ready"));
            let needed = p.needed.map_or_else(String::new, |n| format!(", {n} needed"));
            format!("{} {} {ready}{needed}", p.version, p.workload)
        };
        line("pods", view.pods.iter().map(one).collect::<Vec<_>>().join("      "));
    }
    if !view.gates.is_empty() {
        line("gates", view.gates.iter().map(|g| format!("{} {}", if g.open { "✔" } else { "✘" }, g.name)).collect::<Vec<_>>().join("   "));
    }
    for metric in &view.metrics {
        let counts = metric.stable.as_ref().map_or_else(|| metric.canary.clone(), |stable| format!("{}   {stable}", metric.canary));
        line(&metric.name, format!("{counts}   {}", metric.verdict));
        if let Some([low, point, high]) = metric.difference {
            let word = if metric.stable.is_some() { "difference" } else { "share" };
            line(
                "",
                format!("{word} {} {} {}   allowed {} points", signed(low), bar(low, point, high), signed(high), signed(metric.margin)),
            );
        }
    }
    for next in &view.next {
        line("next", next.clone());
    }
    for note in &view.notes {
        line("note", note.clone());
    }
    if !view.commands.is_empty() {
        line("you can", view.commands.join(" · "));
    }
    lines.iter().map(|l| format!("{l}\n")).collect()
}

fn signed(points: f64) -> String {
    let sign = if points < 0.0 { "−" } else { "+" };
    format!("{sign}{}", serin_core::reason::points(points.abs() / 100.0))
}

/// An interval with its measured point.
fn bar(low: f64, point: f64, high: f64) -> String {
    const WIDTH: usize = 20;
    let at =
        if high > low { ((point - low) / (high - low) * (WIDTH - 1) as f64).round().clamp(0.0, (WIDTH - 1) as f64) as usize } else { 0 };
    let inner: String = (0..WIDTH).map(|i| if i == at { '●' } else { '─' }).collect();
    format!("├{inner}┤")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use serin_core::action::{Decision, Order};
    use serin_core::observe::{Observation, Rules, Traffic, Workload};
    use serin_core::reason::Reason;
    use serin_core::state::{Hurry, Served, Target, Version};
    use serin_core::stats::{Analysis, Batch, Counting, Split};
    use serin_core::units::{VersionName, Weight};
    use std::time::Duration;

    /// 14:06:00 UTC of some day.
    const STEP_BEGAN: Timestamp = Timestamp(1_700_056_800_000 + 6 * 60_000);

    fn version(name: &str) -> Version {
        Version { name: VersionName::new(name).expect("a name"), workload: format!("my-app-{name}"), hash: "5b9c".into() }
    }

    fn workload(name: &str, pods: u32) -> Workload {
        let Version { name, workload, hash } = version(name);
        Workload {
            version: name,
            name: workload,
            hash,
            replicas: pods,
            ready: pods,
            endpoints: pods,
            created: Timestamp(0),
            scaled_by: None,
            kept_by: None,
        }
    }

    /// A release at its second step, with what was counted there.
    fn release(canary: (f64, f64), stable: (f64, f64)) -> (CanaryRelease, Plan, State) {
        let spec = json!({"service": "my-app", "steps": [{"weight": 1, "hold": "2m"}, {"weight": 10, "hold": "2m"}, {"weight": 50, "hold": "2m", "confirm": true}],
            "analysis": {"metrics": [{"name": "errors", "errorRate": {"margin": "0.5%"}}, {"name": "ceiling", "errorRate": {"max": "5%"}}]}});
        let spec: serin_api::CanaryReleaseSpec = serde_json::from_value(spec).expect("a spec");
        let plan = serin_api::plan_of(&spec).expect("a plan");
        let mut analysis = Analysis::new(plan.tests(), &[]);
        analysis.start_step();
        let counts = |(n, x): (f64, f64)| Counts { n, x };
        let batch = Some(Batch { canary: counts(canary), stable: counts(stable) });
        analysis.judge(plan.tests(), &plan.settings(), &[batch, batch], 10.0, Counting::Full);
        let mut split = Split::default();
        split.update(0.1, canary.0 + stable.0, canary.0);
        let weight =
            Target { share: Weight::percent(10).expect("a weight"), before: Weight::percent(1).expect("a weight"), seen: Some(STEP_BEGAN) };
        let rollout = Rollout {
            uid: "v2-1".into(),
            canary: version("v2"),
            stable: version("v1"),
            started: Timestamp(STEP_BEGAN.0 - 240_000),
            step: 1,
            step_since: STEP_BEGAN,
            weight,
            highest: Weight::ZERO,
            full_size: 3,
            found_replicas: 1,
            analysis,
            split,
            served: Served::default(),
            read_s: 0.0,
            judged_s: 0.0,
            past_rate: None,
            warned: false,
            last_traffic: None,
            refused_at: None,
            down: Default::default(),
            last_reading: Some(STEP_BEGAN.plus(Duration::from_secs(26))),
            source: None,
            hurry: Hurry::No,
            bake: None,
            learnt: Vec::new(),
            answers: Vec::new(),
            graded: Vec::new(),
            questions: plan.questions().to_string(),
        };
        let state = State { stable: Some(version("v1")), phase: Phase::Progressing(rollout), ..State::new() };
        let seen = Observation {
            at: STEP_BEGAN,
            workloads: vec![workload("v1", 3), workload("v2", 1)],
            routes: vec![serin_core::observe::Route {
                object: serin_core::units::ObjectName { namespace: "default".into(), name: "my-app".into() },
                resource_version: "7".into(),
                splits: vec![serin_core::observe::Split {
                    label: "spec.http[0]".into(),
                    shares: vec![(version("v1").name, weight.share.rest()), (version("v2").name, weight.share)],
                }],
                manager: None,
                mark: None,
                because: None,
            }],
            rules: Rules::default(),
            traffic: Traffic::NotAsked,
            requests: Vec::new(),
            abort: None,
            freeze: None,
            obstacle: None,
        };
        let reasons = vec![Reason::Holds { canary: version("v2").name, share: weight.share, left: Duration::from_secs(100) }];
        let decision =
            Decision { next: state.clone(), actions: Vec::new(), order: Order::StateFirst, wake_at: None, wants_traffic: true, reasons };
        let rendering =
            serin_api::Rendering { plan: &plan, seen: &seen, decision: &decision, generation: 1, previous: None, now: STEP_BEGAN };
        let mut release = CanaryRelease::new("my-app", spec);
        release.metadata.namespace = Some("default".into());
        release.metadata.generation = Some(1);
        release.status = Some(serin_api::status_of(&rendering));
        (release, plan, state)
    }

    #[test]
    fn the_screen_shows_what_was_measured_and_what_comes_next() {
        let (release, plan, state) = release((471.0, 2.0), (4341.0, 9.0));
        let now = STEP_BEGAN.plus(Duration::from_secs(30));
        let view = view(&release, Some(&plan), Some(&state), now, &TimeZone::UTC);
        let expected = "\
my-app  v2 holds 10 %: no sign of harm; goes on in about 1m 40s
  plan     1 % ✔   10 % ●   50 % confirm   promote   started 14:02:00, step 2 since 14:06:00
  weight   10 % set · 9.8 % seen (471 of 4,812 requests)
  pods     v1 my-app-v1 3 ready      v2 my-app-v2 1 ready, 1 needed
  gates    ✔ subset of v2   ✔ endpoints   ✔ capacity   ✔ metrics 4s old   ✔ stable could take all back
  errors   v2 2 of 471 (0.42 %)   v1 9 of 4,341 (0.21 %)   no gross fault; more is not known yet
";
        let text = text(&view, false, &TimeZone::UTC);
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("  next     50 % once 20-point faults are excluded (done) and 2m 10s have passed: 14:08:10\n"), "{text}");
        assert!(text.ends_with("  you can  serin promote my-app · serin pause my-app · serin abort my-app\n"), "{text}");
    }

    #[test]
    fn a_canary_without_requests_shows_no_difference() {
        let (release, plan, state) = release((0.0, 0.0), (50.0, 0.0));
        let view = view(&release, Some(&plan), Some(&state), STEP_BEGAN, &TimeZone::UTC);
        assert!(view.metrics.iter().all(|m| m.difference.is_none() && m.verdict == "not known yet"), "{:?}", view.metrics);
        assert_eq!(view.weight.as_deref(), Some("10 % set · 0 % seen (0 of 50)"));
    }

    #[test]
    fn a_release_that_nobody_looked_at_says_so() {
        let release = CanaryRelease::new("my-app", serin_api::CanaryReleaseSpec { service: "my-app".into(), ..Default::default() });
        let view = view(&release, None, None, STEP_BEGAN, &TimeZone::UTC);
        assert!(text(&view, false, &TimeZone::UTC).starts_with("my-app  not seen by a controller yet\n"));
    }

    #[test]
    fn the_interval_keeps_its_point() {
        assert_eq!(bar(-1.0, 1.0, 1.0), format!("├{}●┤", "─".repeat(19)));
        assert_eq!(bar(0.0, 0.0, 0.0), format!("├●{}┤", "─".repeat(19)));
    }
}
