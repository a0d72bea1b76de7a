//! Whatever comes in: no panic, no NaN, and the state can be written and read.
//!
//! `PROPTEST_CASES=1000000 cargo test -p serin-core --test stats any_input` goes on for as long as one likes.

use proptest::prelude::*;
use serin_core::stats::{
    Analysis, Batch, Bursts, Counting, Counts, Histogram, History, MetricTest, Settings, Split, Test, forecast, interval,
};

pub(crate) fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => 0.0..1e9,
        8 => (0_u32..2000).prop_map(f64::from),
        4 => 0.0..1.0,
        2 => any::<f64>(),
        2 => prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, f64::MAX, 1e-300, 1e9]),
    ]
}

fn counts() -> impl Strategy<Value = Counts> {
    (any_number(), any_number()).prop_map(|(n, x)| Counts::new(n, x))
}

fn batch() -> impl Strategy<Value = Option<Batch>> {
    prop::option::weighted(0.9, (counts(), counts()).prop_map(|(canary, stable)| Batch { canary, stable }))
}

fn metric() -> impl Strategy<Value = MetricTest> {
    let test = prop_oneof![
        (any_number(), any_number()).prop_map(|(margin, ratio)| Test::Compare { margin, ratio }),
        any_number().prop_map(|max| Test::Limit { max })
    ];
    (test, any_number()).prop_map(|(test, weight)| MetricTest::new(test, weight))
}

fn history() -> impl Strategy<Value = Option<History>> {
    prop::option::of((any_number(), any_number(), prop::collection::vec(counts(), 0..12)).prop_map(|(n, x, polls)| History { n, x, polls }))
}

proptest! {
    #[test]
    fn no_input_breaks_the_analysis(
        tests in prop::collection::vec(metric(), 0..4),
        history in prop::collection::vec(history(), 0..4),
        polls in prop::collection::vec((prop::collection::vec(batch(), 0..5), any_number(), any::<bool>(), prop::bool::weighted(0.1)), 0..12),
        (alpha, beta, interval_s, auto) in (any_number(), any_number(), any_number(), any::<bool>()),
    ) {
        let s = Settings { alpha, beta, bursts: if auto { Bursts::Auto } else { Bursts::Off }, interval_s };
        let mut a = Analysis::new(&tests, &history);
        for (batches, dt, settle, step) in polls {
            if step {
                a.start_step();
            }
            a.judge(&tests, &s, &batches, dt, if settle { Counting::HarmOnly } else { Counting::Full });
            let harm = a.harm(&tests, &s);
            prop_assert!(harm.ln_e.is_finite() && (0.0..=1.0).contains(&harm.p), "{:?}", harm);
            for i in 0..tests.len() {
                let f = a.fitness(i, &s);
                prop_assert!(f.ln_e.is_finite() && f.ln_e_gross.is_finite(), "{:?}", f);
                prop_assert!((1.0..=1000.0).contains(&a.burst_factor(i)));
                prop_assert!((1e-6..=0.9).contains(&a.stable_rate(i)));
            }
            prop_assert_eq!(Analysis::from_checkpoint(&a.to_checkpoint()), Ok(a.clone()));
        }
    }

    #[test]
    fn any_text_is_a_checkpoint_or_refused(text in "(1\\.)?[A-Za-z0-9_-]{0,80}") {
        let _ = Analysis::from_checkpoint(&text);
    }

    #[test]
    fn no_input_breaks_the_split_check(polls in prop::collection::vec((any_number(), any_number(), any_number()), 0..12)) {
        let mut split = Split::new();
        for (w, n, c) in polls {
            split.update(w, n, c);
            prop_assert!(split.ln_e().is_finite());
            prop_assert!((0.0..=1.0).contains(&split.seen()));
            let json = serde_json::to_string(&split).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(serde_json::from_str::<Split>(&json).ok(), Some(split));
        }
    }

    #[test]
    fn no_input_breaks_intervals_and_forecasts(c in counts(), s in counts(), v in prop::collection::vec(any_number(), 8)) {
        let (lo, hi) = interval::rate(c, v[0]);
        prop_assert!(0.0 <= lo && lo <= hi && hi <= 1.0, "{} {}", lo, hi);
        let (lo, hi) = interval::difference(&Batch { canary: c, stable: s }, v[0]);
        prop_assert!(-1.0 <= lo && lo <= hi && hi <= 1.0, "{} {}", lo, hi);
        let stream = forecast::Stream { weight: v[1], rate: v[6], bursts: v[7] };
        for speed in [forecast::pass_speed(v[0], v[1], v[2], v[3]), forecast::harm_speed(v[0], v[4], v[1], v[2], v[3]), forecast::limit_pass_speed(v[0], v[2])].into_iter().flatten() {
            let n = forecast::needed(speed, v[5]);
            prop_assert!(n.least > 0.0 && n.least <= n.median && n.median <= n.ninety, "{:?} {:?}", speed, n);
            prop_assert!(!forecast::minutes(n.median, &stream).is_nan());
        }
        let _ = forecast::graded_margin(v[0], v[2], v[3], v[4], &stream, v[5]);
    }

    #[test]
    fn no_input_breaks_a_histogram(buckets in prop::collection::vec((any_number(), any_number()), 0..8), total in any_number(), q in any_number(), r in any_number()) {
        let h = Histogram::new(&buckets, total);
        for q in [q, 0.5, 0.99] {
            if let Some(m) = h.margins(q, r) {
                for e in m.edges() {
                    prop_assert!(e.margin > 0.0 && e.margin <= e.margin_max + 1e-12 && e.margin_max <= 1.0, "{:?}", e);
                }
                prop_assert!(!m.to_string().is_empty());
            }
            let (lo, hi) = h.quantile(q, r);
            prop_assert!(lo >= 0.0 && hi > 0.0);
        }
        for p in h.strict_pairs(r) {
            prop_assert!(p.lo_ms < p.hi_ms && p.batch(&h, &h).is_some());
        }
    }
}
