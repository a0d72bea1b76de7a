//! What is remembered comes back bit for bit, and what cannot be read says so.

use std::time::Duration;

use proptest::prelude::*;
use serin_api::status::{CanaryReleaseStatus, Checkpoint};
use serin_api::{CheckpointError, checkpoint, state_of};
use serin_core::observe::{RequestAction, SourceProblem};
use serin_core::reason::{Measured, Reason};
use serin_core::state::{
    Added, Answers, Bake, Down, Edge, EndCause, Handled, Hurry, Learnt, Outcome, Past, PauseCause, Phase, PutBack, Rollout, Served, State,
    Target, Version,
};
use serin_core::stats::{Analysis, Batch, Counting, Counts, MetricTest, NumberLimit, Settings, Split, Test};
use serin_core::units::{ObjectName, Timestamp, VersionName, Weight};

fn name() -> impl Strategy<Value = VersionName> {
    "[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?".prop_map(|s| VersionName::new(&s).expect("a label value"))
}

fn version() -> impl Strategy<Value = Version> {
    (name(), "\\PC{0,20}", "[0-9a-f]{0,10}").prop_map(|(name, workload, hash)| Version { name, workload, hash })
}

fn at() -> impl Strategy<Value = Timestamp> {
    (0..4_000_000_000_000_i64).prop_map(Timestamp)
}

fn share() -> impl Strategy<Value = Weight> {
    (0..=Weight::WHOLE).prop_map(|p| Weight::from_parts(p).expect("within the whole"))
}

/// Texts as people type them, with those that could be taken for what the packing writes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,40}", "(f64:|str:)\\PC{0,10}", "[\"\\\\{}]{0,5}"]
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |v| v.is_finite()),
        Just(0.1 + 0.2),
        Just(-0.0),
        Just(f64::MIN_POSITIVE / 2.0),
        (0..1_000_000_u32).prop_map(f64::from)
    ]
}

fn counts() -> impl Strategy<Value = Counts> {
    (number(), number()).prop_map(|(n, x)| Counts { n, x })
}

fn served() -> impl Strategy<Value = Served> {
    (counts(), counts(), number()).prop_map(|(canary, stable, unattributed)| Served { canary, stable, unattributed })
}

/// Evidence as judging batches leaves it.
fn analysis() -> BoxedStrategy<Analysis> {
    let batch = (0..400_u32, 0..50_u32, 0..4000_u32, 0..50_u32);
    prop::collection::vec((batch, any::<bool>()), 0..20)
        .prop_map(|batches| {
            let tests =
                [MetricTest::new(Test::Compare { margin: 0.005, ratio: 1.0 }, 0.5), MetricTest::new(Test::Limit { max: 0.02 }, 0.5)];
            let settings = Settings { alpha: 0.05, beta: 0.05, bursts: serin_core::stats::Bursts::Auto, interval_s: 0.7 };
            let mut analysis = Analysis::new(&tests, &[]);
            analysis.start_step();
            for ((nc, xc, ns, xs), full) in batches {
                let counts = |n: u32, x: u32| Counts { n: f64::from(n), x: f64::from(x.min(n)) };
                let batch = Batch { canary: counts(nc, xc), stable: counts(ns, xs) };
                let counting = if full { Counting::Full } else { Counting::HarmOnly };
                analysis.judge(&tests, &settings, &[Some(batch), Some(batch)], 0.7, counting);
            }
            analysis
        })
        .boxed()
}

fn split() -> BoxedStrategy<Split> {
    prop::collection::vec((0..500_u32, 0..500_u32), 0..5)
        .prop_map(|readings| {
            let mut split = Split::default();
            for (n, c) in readings {
                split.update(0.1, f64::from(n + c), f64::from(c));
            }
            split
        })
        .boxed()
}

fn rollout() -> BoxedStrategy<Rollout> {
    let identity = (text(), version(), version(), at(), 0..40_usize, at());
    let weights = (share(), share(), prop::option::of(at()), 0..100_u32, 0..100_u32);
    let problem = prop_oneof![
        text().prop_map(|what| SourceProblem::Unreachable { what }),
        any::<u64>().prop_map(|age_s| SourceProblem::Stale { age_s }),
        text().prop_map(|what| SourceProblem::Missing { what }),
    ];
    let rest = (
        served(),
        prop::option::of(at()),
        prop::option::of(at()),
        prop::option::of(at()),
        prop::option::of((problem, at())),
        any::<(bool, bool)>(),
    );
    let hurry = prop_oneof![Just(Hurry::No), text().prop_map(|who| Hurry::Step { who }), text().prop_map(|who| Hurry::All { who })];
    let bake = prop::option::of((at(), prop::collection::vec(number(), 0..3)).prop_map(|(since, limits)| Bake { since, limits }));
    let edge = || {
        prop::option::of((number(), number(), number()).prop_map(|(canary_ms, stable_ms, margin)| Edge { canary_ms, stable_ms, margin }))
    };
    let learnt = prop_oneof![
        (prop::option::of(at()), number(), prop::collection::vec((number(), number()), 0..4))
            .prop_map(|(since, n, slower)| Learnt::Gathering { since, n, slower }),
        (edge(), edge()).prop_map(|(lower, upper)| Learnt::Fixed { lower, upper }),
    ];
    let answers = prop::collection::vec(prop::option::of(number()), 0..6).prop_map(|values| {
        let limit = NumberLimit { min: Some(1.0), max: None, in_a_row: 3 };
        let mut answers = Answers::default();
        values.into_iter().for_each(|v| {
            answers.readings.update(&limit, v);
            answers.last = v.or(answers.last);
        });
        answers
    });
    let learnt = prop::collection::vec(learnt, 0..3);
    let graded = prop::collection::vec(prop::option::of(number()), 0..3);
    let asked = (bake, learnt, prop::collection::vec(answers, 0..3), graded, text());
    (identity, weights, analysis(), split(), rest, hurry, asked)
        .prop_map(
            |(
                (uid, canary, stable, started, step, step_since),
                (share, before, seen, full_size, found_replicas),
                analysis,
                split,
                (served, last_traffic, refused_at, last_reading, source, (stable_down, canary_down)),
                hurry,
                (bake, learnt, answers, graded, questions),
            )| Rollout {
                down: Down { stable: stable_down, canary: canary_down },
                uid,
                canary,
                stable,
                started,
                step,
                step_since,
                weight: Target { share, before, seen },
                highest: share,
                full_size,
                found_replicas,
                analysis,
                split,
                read_s: served.unattributed,
                judged_s: served.unattributed / 2.0,
                past_rate: (served.unattributed > 1.0).then_some(served.unattributed),
                warned: served.unattributed > 2.0,
                served,
                last_traffic,
                refused_at,
                last_reading,
                source,
                hurry,
                bake,
                learnt,
                answers,
                graded,
                questions,
            },
        )
        .boxed()
}

fn end_cause() -> BoxedStrategy<EndCause> {
    let measured = (text(), text(), text(), name(), counts(), name(), counts()).prop_map(
        |(metric, verb, noun, canary, canary_counts, stable, stable_counts)| Measured {
            metric,
            verb,
            noun,
            canary,
            canary_counts,
            stable,
            stable_counts,
        },
    );
    prop_oneof![
        (measured, number(), number(), number()).prop_map(|(measured, margin, ratio, alpha)| EndCause::Harm(Reason::Harm {
            measured,
            margin,
            ratio,
            alpha
        })),
        (text(), text(), any::<bool>()).prop_map(|(who, why, force)| EndCause::Abort { who, why, force }),
        Just(EndCause::Mark),
        (text(), text(), any::<bool>()).prop_map(|(who, why, now)| EndCause::Rollback { who, why, now }),
        name().prop_map(|by| EndCause::Superseded { by }),
    ]
    .boxed()
}

fn phase() -> BoxedStrategy<Phase> {
    let cause = prop_oneof![
        prop::option::of(at()).prop_map(|until| PauseCause::Plan { until }),
        (text(), text(), at()).prop_map(|(who, why, at)| PauseCause::Person { who, why, at }),
        Just(PauseCause::Adopted),
        (text(), text(), share(), at()).prop_map(|(who, why, to, at)| PauseCause::WeightSet { who, why, to, at }),
        (text(), share(), at()).prop_map(|(manager, to, at)| PauseCause::Drift { manager, to, at }),
    ];
    prop_oneof![
        Just(Phase::Idle),
        rollout().prop_map(Phase::Preparing),
        rollout().prop_map(Phase::Progressing),
        (rollout(), cause).prop_map(|(r, c)| Phase::Paused(r, c)),
        rollout().prop_map(Phase::Promoting),
        (rollout(), end_cause()).prop_map(|(r, c)| Phase::RollingBack(r, c)),
        (version(), end_cause(), at()).prop_map(|(version, cause, since)| Phase::RolledBack { version, cause, since }),
    ]
    .boxed()
}

prop_compose! {
    pub(crate) fn state()(
        seq in any::<u64>(),
        phase in phase(),
        (stable, desired) in (prop::option::of(version()), prop::option::of(name())),
        judged in prop::collection::vec(version(), 0..3),
        failed in prop::collection::vec(version(), 0..3),
        retirable in prop::collection::vec((name(), at()), 0..3),
        added in prop::collection::vec((name(), text(), prop::option::of(at()), prop::option::of(at())), 0..3),
        handled in prop::collection::vec((text(), text(), at(), prop::option::of(text())), 0..3),
        history in prop::collection::vec((text(), name(), name(), text(), at(), any::<u32>(), served(), share()), 0..3),
        (rollouts, put_back) in (any::<u64>(), prop::option::of((name(), text(), at(), any::<bool>()).prop_map(|(version, manager, at, seen)| PutBack { version, manager, at, seen }))),
    ) -> State {
        let handled = handled.into_iter().map(|(id, who, at, refused)| Handled { id, action: RequestAction::PromoteFull, who, at, gone: refused.is_none(), refused }).collect();
        let history = history.into_iter().map(|(uid, stable, canary, why, started, took, served, highest)| Past {
            uid, stable, canary, outcome: Outcome::RolledBack, why, started, took: Duration::from_millis(u64::from(took)), served, highest,
        }).collect();
        let added = added.into_iter().map(|(version, name, gone, unnamed)| {
            let routes = vec![ObjectName { namespace: "shop".into(), name }];
            Added { version, routes, asked: gone, gone, unnamed }
        }).collect();
        State { seq, phase, stable, desired, judged, failed, retirable, handled, history, rollouts, put_back, added }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn state_to_status_to_state_is_identity(state in state()) {
        let status = CanaryReleaseStatus { checkpoint: Some(checkpoint(&state)), ..CanaryReleaseStatus::default() };
        // Through the text of an API server, as it would come back.
        let text = serde_json::to_string(&status).expect("JSON");
        let back: CanaryReleaseStatus = serde_json::from_str(&text).expect("a status");
        let read = state_of(Some(&back)).expect("a state");
        // Bit for bit: equality alone would take -0 for 0.
        prop_assert_eq!(checkpoint(&read), checkpoint(&state));
        prop_assert_eq!(read, state);
    }

    #[test]
    fn any_data_is_read_or_refused(data in text()) {
        let status = CanaryReleaseStatus { checkpoint: Some(Checkpoint { format: 1, data }), ..CanaryReleaseStatus::default() };
        let _ = state_of(Some(&status));
    }
}

#[test]
fn no_checkpoint_means_adopt() {
    assert_eq!(state_of(None), Ok(State::new()));
    assert_eq!(state_of(Some(&CanaryReleaseStatus::default())), Ok(State::new()));
}

#[test]
fn another_format_is_an_error_that_says_so() {
    let status = CanaryReleaseStatus { checkpoint: Some(Checkpoint { format: 7, data: String::new() }), ..CanaryReleaseStatus::default() };
    let error = state_of(Some(&status)).expect_err("format 7 is not known");
    assert_eq!(error, CheckpointError::Format { found: 7 });
    assert!(error.to_string().contains("format 7"), "{error}");
}

#[test]
fn what_a_newer_version_wrote_is_kept() {
    let text = r#"{"phase":"Idle","forecast":{"minutes":12},"rollout":null}"#;
    let status: CanaryReleaseStatus = serde_json::from_str(text).expect("a status");
    assert_eq!(serde_json::to_value(&status).expect("JSON")["forecast"]["minutes"], 12);
}
