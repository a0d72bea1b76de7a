//! `decide` on whatever comes: routes that contradict each other, counts that are no numbers, clocks that jump, requests at any moment.
//!
//! No panic, no number that is none in what is remembered, no action without a write before it, and never more weight for a version that callers
//! cannot reach or that somebody brakes. `PROPTEST_CASES=1000000 cargo test -p serin-api --test it anything` goes on for as long as one likes.

use proptest::prelude::*;
use serin_api::spec::CanaryReleaseSpec;
use serin_api::status::CanaryReleaseStatus;
use serin_api::{checkpoint, plan_of, state_of};
use serin_core::action::{Action, Decision, Guard};
use serin_core::decide::decide;
use serin_core::observe::{
    ArmCounts, Observation, Obstacle, Reading, Request, RequestAction, Route, Rules, SourceProblem, Split, Traffic, Workload,
};
use serin_core::plan::Plan;
use serin_core::state::State;
use serin_core::stats::{Batch, Counts};
use serin_core::units::{ObjectName, Timestamp, VersionName, Weight};

const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];

/// Plans that between them ask for everything.
fn plans() -> Vec<Plan> {
    let specs = [
        r#"{"service": "s"}"#,
        r#"{"service": "s", "mode": "Observe", "steps": [{"weight": 10, "hold": "5s"}, {"weight": 50, "hold": "5s", "confirm": true, "maxWait": "20s"}]}"#,
        r#"{"service": "s", "trigger": "Manual", "version": {"desired": "v2"}, "scaling": {"canary": "Full", "retireAfter": "10s"},
            "steps": [{"weight": 0, "hold": "1s"}, {"pause": {"for": "5s"}}, {"weight": 20, "hold": "2s", "confirm": true, "graded": true, "maxWait": "10s"}, {"pause": {}}, {"weight": 50, "confirm": true}]}"#,
        r#"{"service": "s", "suspend": true, "steps": [{"weight": 50}]}"#,
        r#"{"service": "s", "traffic": {"settle": "1s"}, "promotion": {"bake": "5s"}, "scaling": {"canary": "Wait"},
            "steps": [{"weight": "0.5%", "hold": "1s"}, {"weight": 50, "hold": "1s", "confirm": true, "maxWait": "5s"}],
            "analysis": {"interval": "1s", "onNoTraffic": "Proceed", "onInconclusive": "Promote", "metrics": [
                {"name": "errors", "errorRate": {"margin": "0.5%"}}, {"name": "ceiling", "errorRate": {"max": "2%"}},
                {"name": "slow", "latency": {"slowerThan": "500ms", "margin": "1%"}}, {"name": "p99", "latency": {"quantile": "0.99", "mayGrow": "20%"}},
                {"name": "orders", "promql": {"bad": "b{w=\"{{ arm.workload }}\"}", "total": "t{w=\"{{ arm.workload }}\"}", "margin": "1%"}},
                {"name": "served", "promql": {"query": "up", "min": "1"}}]}}"#,
        r#"{"service": "s", "promotion": {"bake": "0s"}, "traffic": {"settle": "0s", "destinationRule": "Existing"},
            "steps": [{"weight": 99, "hold": "0s", "confirm": true, "maxWait": "0s"}], "analysis": {"onInconclusive": "Rollback", "interval": "100ms"}}"#,
    ];
    let read = |text: &str| {
        let spec: CanaryReleaseSpec = serde_json::from_str(text).expect("a spec");
        plan_of(&spec).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
    };
    specs.into_iter().map(read).collect()
}

fn version() -> impl Strategy<Value = VersionName> {
    prop::sample::select(VERSIONS.to_vec()).prop_map(|v| VersionName::new(v).expect("a version"))
}

/// Counts as sources should not, and some will, give them.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (0_u32..3000).prop_map(f64::from),
        3 => Just(0.0),
        1 => any::<f64>(),
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e300, 1e-300, 0.5]),
    ]
}

fn workload(name: &'static str) -> BoxedStrategy<Option<Workload>> {
    let other = || prop::option::weighted(0.1, Just("somebody".to_owned()));
    let fields = (0_u32..5, 0_u32..5, 0_u32..5, 0_i64..50, prop::bool::weighted(0.1), other(), other());
    prop::option::weighted(0.8, fields)
        .prop_map(move |fields| {
            fields.map(|(replicas, ready, endpoints, created, changed, scaled_by, kept_by)| Workload {
                version: VersionName::new(name).expect("a version"),
                name: format!("app-{name}"),
                hash: if changed { "b".into() } else { "a".into() },
                replicas,
                ready,
                endpoints,
                created: Timestamp(created),
                scaled_by,
                kept_by,
            })
        })
        .boxed()
}

fn split() -> impl Strategy<Value = Split> {
    let shares =
        prop::collection::vec((version(), prop_oneof![Just(0), Just(10_000), Just(50_000), Just(Weight::WHOLE), 0..=Weight::WHOLE]), 0..4);
    shares.prop_map(|shares| Split {
        label: "spec.http[0]".into(),
        shares: shares.into_iter().map(|(v, parts)| (v, Weight::from_parts(parts).expect("a share"))).collect(),
    })
}

/// A route; `true` marks it with whatever rollout runs.
fn route(index: usize) -> impl Strategy<Value = (Route, bool)> {
    let manager = prop::option::of((prop::sample::select(vec!["serin", "kubectl", "flux"]), -1_000_i64..1_000_000));
    (prop::collection::vec(split(), 0..3), manager, prop::bool::weighted(0.03), prop::option::weighted(0.2, Just("errors".to_owned())))
        .prop_map(move |(splits, manager, marked, because)| {
            let manager = manager.map(|(who, at)| (who.to_owned(), Timestamp(at)));
            let object = ObjectName { namespace: "d".into(), name: format!("route-{index}") };
            (Route { object, resource_version: "1".into(), splits, manager, mark: None, because }, marked)
        })
}

fn arm() -> impl Strategy<Value = ArmCounts> {
    (number(), number(), number(), prop::collection::vec(number(), 0..4)).prop_map(|(n, errors, timed, slow)| ArmCounts {
        n,
        errors,
        timed,
        slower: [500.0, 100.0, 250.0, 1000.0].into_iter().zip(slow).collect(),
    })
}

fn reading() -> impl Strategy<Value = Reading> {
    let counts = || (number(), number()).prop_map(|(n, x)| Counts { n, x });
    let counted = prop::option::of((counts(), counts()).prop_map(|(canary, stable)| Batch { canary, stable }));
    let span = (-20_000_i64..1_000_000, -5_000_i64..60_000);
    let lost = (prop_oneof![4 => Just(0.0), 1 => number()], prop_oneof![9 => Just(0.0), 1 => number()]);
    (span, arm(), arm(), prop::collection::vec(arm(), 0..3), lost, prop::option::of(number()), counted).prop_map(
        |((from, took), stable, canary, history, (no_healthy_upstream, no_cluster), answer, counted)| Reading {
            from: Timestamp(from),
            to: Timestamp(from + took),
            stable,
            canary,
            history,
            no_healthy_upstream,
            no_cluster,
            answers: vec![answer],
            counted: vec![counted],
        },
    )
}

fn traffic() -> BoxedStrategy<Traffic> {
    prop_oneof![
        1 => Just(Traffic::NotAsked),
        6 => reading().prop_map(Traffic::Read),
        1 => Just(Traffic::Problem(SourceProblem::Stale { age_s: 40 })),
        1 => Just(Traffic::Problem(SourceProblem::Missing { what: "series".into() })),
    ]
    .boxed()
}

fn request() -> impl Strategy<Value = Request> {
    let share = prop::sample::select(vec![0, 500, 10_000, 50_000, Weight::WHOLE])
        .prop_map(|p| RequestAction::SetWeight(Weight::from_parts(p).expect("a share")));
    let action = prop_oneof![
        prop::sample::select(vec![
            RequestAction::Promote,
            RequestAction::PromoteFull,
            RequestAction::Pause,
            RequestAction::Resume,
            RequestAction::Retry,
            RequestAction::Rollback,
            RequestAction::RollbackNow,
        ]),
        share
    ];
    (action, 0_u32..1000, prop::option::weighted(0.1, 0_usize..9), -700_000_i64..1_000_000).prop_map(|(action, id, step, at)| Request {
        id: id.to_string(),
        action,
        rollout: String::new(),
        step,
        who: "ann".into(),
        why: String::new(),
        at: Timestamp(at),
    })
}

/// One look: what is seen, whether routes are marked with the rollout that runs, and how much time has passed, or has gone back.
fn look() -> BoxedStrategy<(Observation, Vec<bool>, i64)> {
    let workloads = (workload("v1"), workload("v2"), workload("v3"));
    let routes = prop_oneof![
        6 => route(0).prop_map(|r| vec![r]),
        1 => Just(Vec::new()),
        1 => (route(0), route(1)).prop_map(|(a, b)| vec![a, b]),
    ];
    let rules = (
        prop::collection::vec(version(), 0..3),
        prop::collection::vec(version(), 0..2),
        prop::option::weighted(0.1, Just("no".to_owned())),
    );
    let asked = (
        prop_oneof![6 => Just(None), 3 => request().prop_map(Some)],
        prop_oneof![19 => Just(None), 1 => request().prop_map(|r| Some(Request { action: RequestAction::Abort, ..r })), 1 => request().prop_map(|r| Some(Request { action: RequestAction::AbortForced, ..r }))],
    );
    let held = (
        prop::option::weighted(0.05, Just("frozen".to_owned())),
        prop::option::weighted(0.05, prop::sample::select(vec!["Route", "OtherRelease"]))
            .prop_map(|code| code.map(|c| Obstacle { code: c.into(), what: "what".into() })),
    );
    let passes = prop_oneof![8 => 0_i64..30_000, 1 => Just(0), 1 => -10_000_i64..0, 1 => 0_i64..200_000_000];
    (workloads, routes, rules, traffic(), asked, held, passes)
        .prop_map(|((a, b, c), routes, (subsets, own, refusal), traffic, (request, abort), (freeze, obstacle), passes)| {
            let (routes, marked): (Vec<Route>, Vec<bool>) = routes.into_iter().unzip();
            let seen = Observation {
                at: Timestamp(0),
                workloads: [a, b, c].into_iter().flatten().collect(),
                routes,
                rules: Rules { subsets, unused: own.clone(), own, refusal },
                traffic,
                requests: request.into_iter().collect(),
                abort,
                freeze,
                obstacle,
            };
            (seen, marked, passes)
        })
        .boxed()
}

fn holds(plan: &Plan, before: &State, seen: &Observation, decision: &Decision) -> Result<(), TestCaseError> {
    prop_assert!(!decision.reasons.is_empty());
    prop_assert!(decision.reasons.iter().all(|r| !r.code().is_empty() && !r.to_string().is_empty()));
    prop_assert!(decision.next.seq == before.seq || decision.next.seq == before.seq + 1);
    prop_assert!(
        decision.actions.is_empty() || decision.next.seq > before.seq,
        "an action without a write before it: {:?}",
        decision.actions
    );
    let status = CanaryReleaseStatus { checkpoint: Some(checkpoint(&decision.next)), ..CanaryReleaseStatus::default() };
    // What is no number is not even equal to itself.
    let read = state_of(Some(&status));
    prop_assert_eq!(read.as_ref(), Ok(&decision.next));
    let _ = decision.next.until_promoted(plan, seen.at);
    for action in &decision.actions {
        let Action::SetWeights { canary, share, route, guard: Guard::Forward { .. }, .. } = action else { continue };
        let there = seen.routes.iter().filter(|r| r.object == *route).flat_map(|r| &r.splits).filter_map(|s| s.share(canary)).min();
        if there.is_none_or(|there| *share <= there) {
            continue;
        }
        prop_assert!(!plan.spec().suspend && seen.freeze.is_none() && seen.obstacle.is_none(), "a weight goes up under a brake");
        prop_assert!(seen.rules.subsets.contains(canary), "a weight goes up without a subset");
        prop_assert!(seen.workloads.iter().any(|w| w.version == *canary && w.capacity() > 0), "a weight goes up without a pod");
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_observation_breaks_a_decision(plan in 0_usize..6, looks in prop::collection::vec(look(), 1..40)) {
        let plan = &plans()[plan];
        let (mut state, mut now) = (State::new(), 1_000_000_i64);
        for (mut seen, marked, passes) in looks {
            now += passes;
            seen.at = Timestamp(now);
            if let (Traffic::Read(reading), Some(last)) = (&mut seen.traffic, state.rollout().and_then(|r| r.last_reading)) {
                // Mostly it goes on where the last one ended.
                if reading.from.0 % 4 != 0 {
                    (reading.from, reading.to) = (last, seen.at.max(last));
                }
            }
            let uid = state.rollout().map(|r| r.uid.clone());
            for (route, marked) in seen.routes.iter_mut().zip(marked) {
                route.mark = uid.clone().filter(|_| marked);
            }
            let decision = decide(plan, &state, &seen, seen.at);
            prop_assert_eq!(&decide(plan, &state, &seen, seen.at), &decision, "the same arguments, another decision");
            holds(plan, &state, &seen, &decision)?;
            state = decision.next;
        }
    }

    /// Whatever an earlier or a later version may have left in the status.
    #[test]
    fn no_memory_breaks_a_decision(plan in 0_usize..6, mut state in crate::roundtrip::state().boxed(), (mut seen, _, passes) in look()) {
        state.seq = state.seq.min(u64::MAX - 2);
        seen.at = Timestamp(1_000_000 + passes);
        let plan = &plans()[plan];
        let decision = decide(plan, &state, &seen, seen.at);
        prop_assert!(!decision.reasons.is_empty());
        prop_assert!(decision.actions.is_empty() || decision.next.seq > state.seq);
    }
}
