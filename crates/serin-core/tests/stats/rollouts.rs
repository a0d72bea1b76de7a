//! Whole rollouts over `decide`, simulated and replayed.

use std::time::Duration;

use serin_core::observe::ArmCounts;
use serin_core::plan::{Asked, Mode, OnInconclusive, OnNoTraffic, Plan, PlanSpec, Question, Scaling, Step, SubsetHome, Trigger};
use serin_core::reason::Reason;
use serin_core::simulate::{Begin, End, Fault, Outage, Recorded, World, plot, replay, replay_against_itself, run_once, simulate};
use serin_core::stats::Test;
use serin_core::units::Weight;

const HOUR: f64 = 3600.0;

fn asked(name: &str, question: Question, warmup: u64) -> Asked {
    Asked { name: name.into(), question, warmup: Duration::from_secs(warmup) }
}

/// The default plan of the documentation.
pub(crate) fn default_plan() -> PlanSpec {
    let minutes = |m: u64| Duration::from_secs(60 * m);
    let step = |percent: u32| Step::Weight {
        weight: Weight::percent(percent).expect("a percentage"),
        hold: minutes(2),
        confirm: percent == 50,
        graded: false,
        max_wait: None,
    };
    PlanSpec {
        desired: None,
        trigger: Trigger::Automatic,
        suspend: false,
        mode: Mode::Act,
        settle: Duration::from_secs(10),
        manage_route: false,
        subsets: SubsetHome::Companion,
        scaling: Scaling::ByWeight,
        retire_after: None,
        steps: [1, 5, 10, 25, 50].map(step).into(),
        bake: minutes(10),
        interval: Duration::from_secs(10),
        confidence: 0.95,
        on_inconclusive: OnInconclusive::Hold,
        on_no_traffic: OnNoTraffic::Hold,
        metrics: vec![
            asked("errors", Question::Errors(Test::Compare { margin: 0.005, ratio: 1.0 }), 0),
            asked("slow", Question::SlowerThan(500.0, Test::Compare { margin: 0.01, ratio: 1.0 }), 30),
        ],
        limits: Vec::new(),
    }
}

fn plan() -> Plan {
    Plan::new(default_plan()).expect("a plan")
}

fn faulty(errors: f64) -> Vec<Fault> {
    vec![Fault { errors, ..Fault::default() }]
}

#[test]
fn a_healthy_canary_is_promoted_and_none_is_taken_back() {
    let outcome = simulate(&plan(), &World::default(), 40, 1, HOUR * 4.0);
    assert_eq!((outcome.promoted.share, outcome.rolled_back.share), (1.0, 0.0), "{outcome}");
    let (median, _) = outcome.promoted_s.expect("promoted");
    assert!((20.0 * 60.0..40.0 * 60.0).contains(&median), "{outcome}");
}

#[test]
fn a_canary_that_fails_half_of_its_requests_is_taken_back_before_many_met_it() {
    let world = World { faults: faulty(0.5), ..World::default() };
    let outcome = simulate(&plan(), &world, 100, 2, HOUR);
    assert_eq!(outcome.rolled_back.share, 1.0, "{outcome}");
    assert_eq!(outcome.by_metric.get("errors"), Some(&100));
    assert!(outcome.failed_before_rollback.expect("failures").1 < 30.0, "{outcome}");
}

#[test]
fn a_slow_canary_is_taken_back_by_its_latency() {
    let world = World { faults: vec![Fault { slower: 5.0, ..Fault::default() }], ..World::default() };
    let outcome = simulate(&plan(), &world, 50, 3, HOUR * 2.0);
    assert!(outcome.rolled_back.share > 0.95 && outcome.by_metric.get("slow") > Some(&45), "{outcome}");
}

#[test]
fn a_fault_that_begins_with_the_third_step_ends_the_third_step() {
    let world = World { faults: vec![Fault { from: Begin::Step(3), errors: 0.2, ..Fault::default() }], ..World::default() };
    let outcome = simulate(&plan(), &world, 50, 4, HOUR * 2.0);
    assert_eq!(outcome.by_step.keys().copied().collect::<Vec<_>>(), [3], "{outcome}");
}

/// An outage of ten points that both share, and a rate that swings: at most 5 % of 80 may be aborted by chance; more than 16 have a chance below 1e-6.
#[test]
fn a_shared_outage_takes_nobody_back() {
    let outage = Outage { from_s: 300.0, seconds: 240.0, errors: 0.10 };
    let world = World { error_rate: 0.01, swing: 0.8, swing_s: 900.0, outages: vec![outage], ..World::default() };
    let outcome = simulate(&plan(), &world, 80, 5, HOUR * 2.0);
    assert!(outcome.rolled_back.share <= 0.2, "{outcome}");
}

#[test]
fn a_canary_worse_by_twice_the_margin_is_not_promoted() {
    let world = World { error_rate: 0.01, faults: faulty(0.01), ..World::default() };
    let outcome = simulate(&plan(), &world, 40, 6, HOUR);
    assert!(outcome.promoted.share <= 0.3, "{outcome}");
}

#[test]
fn without_requests_it_stays_undecided_and_says_so() {
    let world = World { requests_per_s: vec![0.0], ..World::default() };
    let outcome = simulate(&plan(), &world, 3, 7, HOUR);
    assert_eq!(outcome.undecided.share, 1.0);
    assert!(outcome.waits[0].0.contains("waits"), "{outcome}");
}

#[test]
fn requests_by_the_hour_may_be_none_for_a_while() {
    let world = World { requests_per_s: vec![0.0, 50.0], ..World::default() };
    let run = run_once(&plan(), &world, 8, 0, HOUR * 4.0);
    assert_eq!(run.end, End::Promoted);
    assert!(run.took_s > HOUR, "nothing is decided in the silent hour: {}", run.took_s);
}

#[test]
fn a_manual_plan_with_a_pause_is_simulated_as_if_people_went_on() {
    let mut spec = PlanSpec { trigger: Trigger::Manual, suspend: true, ..default_plan() };
    spec.steps.insert(2, Step::Pause { time: None });
    let run = run_once(&Plan::new(spec).expect("a plan"), &World::default(), 9, 0, HOUR * 4.0);
    assert_eq!(run.end, End::Promoted, "{:?}", run.told.last());
}

/// With a source that remembers, what will hardly be answered in its time is said before the first weight; without one, once the rate is known. Said once.
#[test]
fn a_step_that_will_hardly_be_answered_in_its_time_is_called_so_beforehand() {
    let told = |history: bool, requests: f64, max_wait: Option<u64>| {
        let mut spec = default_plan();
        if let Some(Step::Weight { max_wait: longest, .. }) = spec.steps.last_mut() {
            *longest = max_wait.map(Duration::from_secs);
        }
        let world = World { requests_per_s: vec![requests], history, ..World::default() };
        run_once(&Plan::new(spec).expect("a plan"), &world, 11, 0, HOUR * 2.0).told
    };
    let slow = |told: &[(f64, Reason)]| told.iter().filter(|(_, r)| matches!(r, Reason::TooSlow { step: 4, .. })).count();
    let first = |told: &[(f64, Reason)], wanted: fn(&Reason) -> bool| told.iter().find(|(_, r)| wanted(r)).map(|(at, _)| *at);
    let remembered = told(true, 5.0, Some(300));
    assert_eq!(slow(&remembered), 1, "{remembered:?}");
    assert_eq!(
        first(&remembered, |r| matches!(r, Reason::TooSlow { .. })),
        first(&remembered, |r| matches!(r, Reason::StepBegins { step: 0, .. }))
    );
    let unknown = told(false, 5.0, Some(300));
    assert_eq!(slow(&unknown), 1, "{unknown:?}");
    assert_eq!(
        first(&unknown, |r| matches!(r, Reason::TooSlow { .. })),
        first(&unknown, |r| matches!(r, Reason::StepBegins { step: 1, .. }))
    );
    // Enough requests, or enough time: nothing to say.
    assert_eq!(slow(&told(true, 50.0, Some(300))) + slow(&told(true, 5.0, Some(3600))) + slow(&told(true, 5.0, None)), 0);
    // A plan without an end of its own is held against a day.
    assert_eq!(slow(&told(true, 0.01, None)), 1);
}

/// The forecast of a whole rollout, made at its begin, against what rollouts then took.
#[test]
fn the_forecast_of_a_rollout_is_about_what_it_takes() {
    let (plan, world) = (plan(), World { requests_per_s: vec![20.0], ..World::default() });
    let outcome = simulate(&plan, &world, 40, 12, HOUR * 4.0);
    let (median, _) = outcome.promoted_s.expect("promoted");
    let run = run_once(&plan, &world, 12, 0, HOUR * 4.0);
    let foretold: f64 = run
        .told
        .iter()
        .filter_map(|(_, r)| if let Reason::StepBegins { takes, .. } = r { *takes } else { None })
        .map(|t| t.as_secs_f64())
        .sum();
    let bake = plan.spec().bake.as_secs_f64();
    assert!((0.8..1.25).contains(&((foretold + bake) / median)), "{foretold} + {bake} foretold, {median} taken");
}

#[test]
fn the_same_seed_tells_the_same_story_and_any_run_can_be_told_alone() {
    let world = World { bursts: 0.01, faults: faulty(0.02), ..World::default() };
    assert_eq!(run_once(&plan(), &world, 10, 3, HOUR), run_once(&plan(), &world, 10, 3, HOUR));
    let all = simulate(&plan(), &world, 5, 10, HOUR);
    let alone = (0..5).filter(|i| matches!(run_once(&plan(), &world, 10, *i, HOUR).end, End::RolledBack { .. })).count();
    assert_eq!(all.rolled_back.share, alone as f64 / 5.0);
}

#[test]
fn a_world_says_all_that_is_wrong_with_it() {
    let world = World { requests_per_s: vec![], error_rate: 2.0, bursts: -1.0, faults: faulty(f64::NAN), ..World::default() };
    assert_eq!(world.problems().len(), 4, "{:?}", world.problems());
    assert!(World::default().problems().is_empty());
    // Even so it harms nobody.
    let _ = simulate(&plan(), &world, 2, 1, 600.0);
}

#[test]
fn a_world_in_json_names_only_what_matters() {
    let world: World =
        serde_json::from_str(r#"{"requestsPerS": [5], "faults": [{"from": {"step": 2}, "errors": 0.05}]}"#).expect("a world");
    assert_eq!(world.faults[0].from, Begin::Step(2));
    assert_eq!((world.faults[0].slower, world.latency), (1.0, World::default().latency));
    assert!(serde_json::from_str::<World>(r#"{"errorrate": 1}"#).is_err());
}

fn recorded(polls: usize, canary_errors: f64) -> Vec<Recorded> {
    let arm = |n: f64, errors: f64| ArmCounts { n, errors, timed: n, slower: vec![(500.0, n / 100.0)] };
    (0..polls).map(|_| Recorded { seconds: 10.0, stable: arm(400.0, 1.0), canary: arm(100.0, canary_errors) }).collect()
}

#[test]
fn a_recorded_fault_is_found_in_its_record() {
    let told = replay(&plan(), &recorded(400, 30.0), &[], 1);
    assert!(matches!(told.run.end, End::RolledBack { .. }), "{told}");
    assert!(told.to_string().contains("rolled back: "), "{told}");
    let fine = replay(&plan(), &recorded(400, 0.0), &[], 1);
    assert_eq!(fine.run.end, End::Promoted, "{fine}");
    assert!(fine.used > 0.2 && fine.used < 1.0, "{}", fine.used);
}

#[test]
fn a_record_that_ends_early_is_undecided() {
    let told = replay(&plan(), &recorded(20, 0.0), &[], 1);
    assert!(matches!(told.run.end, End::Undecided { .. }), "{told}");
    assert!(matches!(replay(&plan(), &[], &[], 1).run.end, End::Undecided { .. }));
}

#[test]
fn stable_against_itself_raises_no_alarm() {
    let outcome = replay_against_itself(&plan(), &recorded(300, 30.0), &[], 50, 1);
    assert_eq!(outcome.rolled_back.share, 0.0, "{outcome}");
    assert!(outcome.promoted.share > 0.9, "{outcome}");
}

#[test]
fn a_plot_is_one_sound_svg_and_escapes_its_title() {
    let world = World { faults: faulty(0.02), ..World::default() };
    let runs: Vec<_> = (0..3).map(|i| run_once(&plan(), &world, 1, i, HOUR)).collect();
    let svg = plot("a < b & \"c\"", &runs, 0.05, 0.05);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>") && svg.contains("a &lt; b &amp; &quot;c&quot;"));
    assert_eq!(svg.matches("<polyline").count(), 6);
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
    assert!(plot("none", &[], 0.05, 0.05).ends_with("</svg>"));
}
