//! What the analysis promises, as facts.

use serin_core::stats::{Analysis, Batch, Bursts, CheckpointError, Counting, Counts, History, MetricTest, Settings, Test, default_weights};

const SETTINGS: Settings = Settings { alpha: 0.05, beta: 0.05, bursts: Bursts::Auto, interval_s: 10.0 };

fn compare(margin: f64) -> Vec<MetricTest> {
    vec![MetricTest::new(Test::Compare { margin, ratio: 1.0 }, 1.0)]
}

fn started(tests: &[MetricTest]) -> Analysis {
    let mut a = Analysis::new(tests, &[]);
    a.start_step();
    a
}

fn poll(a: &mut Analysis, tests: &[MetricTest], batch: Batch) {
    a.judge(tests, &SETTINGS, &[Some(batch)], 10.0, Counting::Full);
}

/// A few whole numbers that look random and are the same everywhere.
struct Noise(u64);

impl Noise {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn bad(&mut self, n: u32, p: f64) -> f64 {
        (0..n).filter(|_| self.unit() < p).count() as f64
    }
}

#[test]
fn a_canary_that_fails_half_its_requests_is_caught_by_two_polls_and_not_by_one() {
    let tests = compare(0.005);
    let mut a = started(&tests);
    poll(&mut a, &tests, Batch::new(500.0, 250.0, 450.0, 0.0));
    let harm = a.harm(&tests, &SETTINGS);
    assert!(!harm.failed && harm.suspected, "{harm:?}");
    poll(&mut a, &tests, Batch::new(500.0, 250.0, 450.0, 0.0));
    let harm = a.harm(&tests, &SETTINGS);
    assert!(harm.failed && harm.cause == Some(0) && harm.p <= 0.05, "{harm:?}");
}

#[test]
fn a_verdict_stays_when_the_evidence_goes() {
    let tests = compare(0.005);
    let mut a = started(&tests);
    for _ in 0..2 {
        poll(&mut a, &tests, Batch::new(500.0, 250.0, 4500.0, 4.0));
    }
    let first = a.harm(&tests, &SETTINGS);
    for _ in 0..2000 {
        poll(&mut a, &tests, Batch::new(500.0, 0.0, 4500.0, 4.0));
    }
    let last = a.harm(&tests, &SETTINGS);
    assert!(last.failed && last.suspected && last.ln_e < 0.0 && last.p == first.p, "{last:?}");
}

#[test]
fn both_failing_every_request_is_no_verdict() {
    let tests = compare(0.005);
    let mut a = started(&tests);
    for _ in 0..1000 {
        poll(&mut a, &tests, Batch::new(100.0, 100.0, 900.0, 900.0));
    }
    let (harm, fitness) = (a.harm(&tests, &SETTINGS), a.fitness(0, &SETTINGS));
    assert!(!harm.failed && !fitness.fit && !fitness.gross_excluded, "{harm:?} {fitness:?}");
}

#[test]
fn a_canary_without_requests_leaves_the_evidence_where_it_is() {
    let tests = compare(0.005);
    let mut a = started(&tests);
    poll(&mut a, &tests, Batch::new(50.0, 1.0, 450.0, 1.0));
    let before = (a.harm(&tests, &SETTINGS), a.fitness(0, &SETTINGS));
    for _ in 0..100 {
        poll(&mut a, &tests, Batch::new(0.0, 0.0, 450.0, 30.0));
        a.judge(&tests, &SETTINGS, &[None], 10.0, Counting::Full);
    }
    assert_eq!((a.harm(&tests, &SETTINGS), a.fitness(0, &SETTINGS)), before);
    assert_eq!(a.totals(0).stable.n, 450.0 * 101.0);
}

#[test]
fn no_data_is_neither_pass_nor_fail() {
    let tests = compare(0.005);
    let a = started(&tests);
    let (harm, fitness) = (a.harm(&tests, &SETTINGS), a.fitness(0, &SETTINGS));
    assert!(!harm.failed && !harm.suspected && harm.p == 1.0 && harm.cause.is_none());
    assert!(!fitness.fit && !fitness.gross_excluded);
}

#[test]
fn fifteen_to_eighteen_healthy_requests_exclude_a_gross_fault() {
    for test in [Test::Compare { margin: 0.005, ratio: 1.0 }, Test::Limit { max: 0.02 }] {
        let tests = [MetricTest::new(test, 1.0)];
        let history = Some(History { n: 16_200.0, x: 8.0, polls: vec![] });
        let mut a = Analysis::new(&tests, &[history]);
        a.start_step();
        let mut needed = 0;
        while !a.fitness(0, &SETTINGS).gross_excluded {
            poll(&mut a, &tests, Batch::new(1.0, 0.0, 99.0, 0.0));
            needed += 1;
        }
        assert!((15..=18).contains(&needed), "{needed} for {:?}", tests[0].test);
        a.start_step();
        assert!(!a.fitness(0, &SETTINGS).gross_excluded, "it begins with the step");
    }
}

#[test]
fn the_settle_time_counts_for_harm_and_for_nothing_else() {
    let tests = compare(0.05);
    let mut a = started(&tests);
    for _ in 0..1000 {
        a.judge(&tests, &SETTINGS, &[Some(Batch::new(500.0, 0.0, 500.0, 0.0))], 10.0, Counting::HarmOnly);
    }
    let f = a.fitness(0, &SETTINGS);
    assert!(!f.fit && !f.gross_excluded && f.ln_e.abs() < 1e-12 && f.ln_e_gross.abs() < 1e-12);
    assert_eq!(a.step_totals(0), Batch::default());
    assert_eq!(a.totals(0).canary.n, 500_000.0);
    for _ in 0..4 {
        a.judge(&tests, &SETTINGS, &[Some(Batch::new(500.0, 250.0, 500.0, 0.0))], 10.0, Counting::HarmOnly);
    }
    assert!(a.harm(&tests, &SETTINGS).failed);
}

#[test]
fn a_request_of_the_settle_time_that_waits_in_the_pool_does_not_reach_fitness() {
    let tests = compare(0.005);
    let mut a = started(&tests);
    a.judge(&tests, &SETTINGS, &[Some(Batch::new(5000.0, 0.0, 0.0, 0.0))], 10.0, Counting::HarmOnly);
    poll(&mut a, &tests, Batch::new(0.0, 0.0, 5000.0, 0.0));
    assert!(a.fitness(0, &SETTINGS).ln_e.abs() < 1e-12);
    assert!(a.harm(&tests, &SETTINGS).ln_e < 0.0, "harm has judged it");
}

#[test]
fn each_step_begins_its_fitness_afresh_and_harm_goes_on() {
    let tests = compare(0.01);
    let mut a = started(&tests);
    for _ in 0..20 {
        poll(&mut a, &tests, Batch::new(100.0, 0.0, 900.0, 1.0));
    }
    assert!(a.fitness(0, &SETTINGS).fit);
    let ln_e = a.harm(&tests, &SETTINGS).ln_e;
    a.start_step();
    assert!(!a.fitness(0, &SETTINGS).fit);
    assert_eq!(a.step_totals(0), Batch::default());
    assert_eq!(a.totals(0).canary.n, 2000.0);
    assert!((a.harm(&tests, &SETTINGS).ln_e - ln_e).abs() < 1e-12);
}

#[test]
fn a_test_of_not_worse_by_nothing_cannot_pass() {
    assert!(!Test::Compare { margin: 0.0, ratio: 1.0 }.can_pass());
    assert!(Test::Compare { margin: 0.001, ratio: 1.0 }.can_pass());
    assert!(Test::Compare { margin: 0.0, ratio: 1.5 }.can_pass());
    assert!(!Test::Limit { max: 0.0 }.can_pass());
    assert!(Test::Limit { max: 0.01 }.can_pass());
    let tests = compare(0.0);
    let mut a = started(&tests);
    for _ in 0..1000 {
        poll(&mut a, &tests, Batch::new(1e5, 0.0, 1e5, 1e3));
    }
    assert!(!a.fitness(0, &SETTINGS).fit);
}

#[test]
fn more_bad_than_requests_counts_as_all_bad() {
    let tests = compare(0.005);
    let (mut torn, mut whole) = (started(&tests), started(&tests));
    for _ in 0..3 {
        poll(&mut torn, &tests, Batch::new(10.0, 17.0, 90.0, 1.0));
        poll(&mut whole, &tests, Batch::new(10.0, 10.0, 90.0, 1.0));
    }
    assert_eq!(torn, whole);
}

#[test]
fn a_limit_is_broken_whatever_stable_does() {
    let tests = [MetricTest::new(Test::Limit { max: 0.01 }, 1.0)];
    let mut a = started(&tests);
    for _ in 0..10 {
        poll(&mut a, &tests, Batch::new(200.0, 20.0, 0.0, 0.0));
    }
    assert!(a.harm(&tests, &SETTINGS).failed);
    let mut a = started(&tests);
    for _ in 0..40 {
        poll(&mut a, &tests, Batch::new(100.0, 0.0, 900.0, 90.0));
    }
    assert!(a.fitness(0, &SETTINGS).fit && !a.harm(&tests, &SETTINGS).suspected);
}

#[test]
fn the_loudest_metric_is_the_cause_and_one_metric_alone_may_convict() {
    let mut tests = compare(0.005);
    tests.push(MetricTest::new(Test::Compare { margin: 0.01, ratio: 1.0 }, 0.5));
    tests[0].weight = 0.5;
    let mut a = Analysis::new(&tests, &[]);
    a.start_step();
    for _ in 0..3 {
        a.judge(
            &tests,
            &SETTINGS,
            &[Some(Batch::new(100.0, 0.0, 900.0, 0.0)), Some(Batch::new(100.0, 60.0, 900.0, 20.0))],
            10.0,
            Counting::Full,
        );
    }
    let harm = a.harm(&tests, &SETTINGS);
    assert!(harm.failed && harm.cause == Some(1), "{harm:?}");
}

#[test]
fn weights_that_sum_to_more_than_one_buy_nothing() {
    let one = compare(0.005);
    let two: Vec<MetricTest> = [one[0].clone(), one[0].clone()].into();
    let (mut a, mut b) = (started(&one), started(&two));
    let batch = Some(Batch::new(50.0, 9.0, 450.0, 2.0));
    for _ in 0..3 {
        a.judge(&one, &SETTINGS, &[batch], 10.0, Counting::Full);
        b.judge(&two, &SETTINGS, &[batch, batch], 10.0, Counting::Full);
    }
    assert!((a.harm(&one, &SETTINGS).ln_e - b.harm(&two, &SETTINGS).ln_e).abs() < 1e-12);
}

#[test]
fn the_error_rate_has_half_of_the_budget() {
    assert_eq!(default_weights(&[true, false]), [0.5, 0.5]);
    assert_eq!(default_weights(&[false, true, false]), [0.25, 0.5, 0.25]);
    assert_eq!(default_weights(&[true]), [1.0]);
    assert_eq!(default_weights(&[false, false]), [0.5, 0.5]);
    assert!(default_weights(&[]).is_empty());
}

#[test]
fn bursts_seeded_from_history_protect_from_the_first_poll() {
    let tests = compare(0.005);
    let polls: Vec<Counts> = (0..180).map(|i| Counts::new(450.0, if i % 6 == 0 { 27.0 } else { 0.0 })).collect();
    let history = History { n: 450.0 * 180.0, x: 27.0 * 30.0, polls };
    let mut seeded = Analysis::new(&tests, &[Some(history.clone())]);
    let mut bare = Analysis::new(&tests, &[Some(History { polls: vec![], ..history })]);
    assert!(seeded.burst_factor(0) > 15.0, "{}", seeded.burst_factor(0));
    assert_eq!(bare.burst_factor(0), 1.0);
    for a in [&mut seeded, &mut bare] {
        a.start_step();
        for _ in 0..2 {
            poll(a, &tests, Batch::new(450.0, 27.0, 450.0, 0.0));
        }
    }
    assert!(bare.harm(&tests, &SETTINGS).failed, "one burst of 27 looks like harm to a test that knows no bursts");
    assert!(!seeded.harm(&tests, &SETTINGS).suspected);
}

/// Stable swings between 0.1 % and 2 % and both arms share outages of +10 points; the canary is exactly at the margin. In 400
/// rollouts of 400 polls, a promise of at most 5 % makes more than 50 aborts a chance below 1e-6 (binomial tail).
#[test]
fn drift_and_shared_outages_convict_nobody() {
    let tests = compare(0.005);
    let mut noise = Noise(7);
    let mut aborted = 0;
    for run in 0..400 {
        let mut a = started(&tests);
        for i in 0..400 {
            let swing = 0.0105 + 0.0095 * (f64::from(i) / 30.0 + f64::from(run)).sin();
            let p = swing + if (150..180).contains(&i) { 0.10 } else { 0.0 };
            let canary = Counts::new(50.0, noise.bad(50, p + 0.005));
            let stable = Counts::new(150.0, noise.bad(150, p));
            poll(&mut a, &tests, Batch { canary, stable });
        }
        aborted += u32::from(a.harm(&tests, &SETTINGS).failed);
    }
    assert!(aborted <= 50, "{aborted} of 400");
}

#[test]
fn a_restart_after_every_poll_changes_no_bit() {
    let mut tests = compare(0.005);
    tests.push(MetricTest::new(Test::Limit { max: 0.02 }, 0.3));
    tests.push(MetricTest::new(Test::Compare { margin: 0.0, ratio: 1.3 }, 0.2));
    tests[0].weight = 0.5;
    let history: Vec<_> = (0..3).map(|i| Some(History { n: 1234.5, x: 3.25, polls: vec![Counts::new(41.15, 0.1); 30 * i] })).collect();
    let mut lives = Analysis::new(&tests, &history);
    let mut restarts = lives.clone();
    let mut noise = Noise(3);
    for i in 0..200 {
        let mut batch = || {
            let (n_c, n_s) = (noise.bad(40, 0.3), noise.bad(200, 0.5));
            Some(Batch::new(n_c, noise.bad(n_c as u32, 0.02), n_s * 1.1, noise.bad(n_s as u32, 0.015)))
        };
        let batches = [batch(), batch(), if i % 7 == 0 { None } else { batch() }];
        let counting = if i % 40 < 3 { Counting::HarmOnly } else { Counting::Full };
        for a in [&mut lives, &mut restarts] {
            if i % 40 == 0 {
                a.start_step();
            }
            a.judge(&tests, &SETTINGS, &batches, 9.7 + 0.1 * f64::from(i % 5), counting);
        }
        let json = serde_json::to_string(&restarts).expect("text");
        assert!(json.len() < 600 * 3, "{} bytes", json.len());
        restarts = serde_json::from_str(&json).expect("what was written");
        assert_eq!(lives, restarts, "poll {i}");
        assert_eq!(lives.harm(&tests, &SETTINGS).ln_e.to_bits(), restarts.harm(&tests, &SETTINGS).ln_e.to_bits());
        assert_eq!(lives.to_checkpoint(), restarts.to_checkpoint());
    }
}

#[test]
fn a_checkpoint_of_another_format_is_refused_by_name() {
    let text = started(&compare(0.005)).to_checkpoint();
    assert!(text.starts_with("1."));
    let newer = text.replacen("1.", "2.", 1);
    assert_eq!(Analysis::from_checkpoint(&newer), Err(CheckpointError::UnknownFormat { found: "2".into(), known: 1 }));
    assert!(matches!(Analysis::from_checkpoint(&text[..text.len() - 6]), Err(CheckpointError::Damaged { .. })));
}

#[test]
fn a_frozen_baseline_allows_what_stable_did_and_the_margin() {
    let tests = compare(0.005);
    let limit = |rates: &[f64]| {
        let mut a = started(&tests);
        for rate in rates {
            poll(&mut a, &tests, Batch::new(0.0, 0.0, 1000.0, 1000.0 * rate));
        }
        match a.frozen(0, &tests[0].test, 0.05) {
            Some(Test::Limit { max }) => max,
            other => panic!("{other:?}"),
        }
    };
    let even = limit(&[0.01; 120]);
    assert!((0.015..0.017).contains(&even), "{even}");
    // Half an hour of which five minutes had twice the errors: those are allowed as well.
    let mut swings = [0.01; 180];
    swings[60..90].fill(0.02);
    assert!((0.0249..0.0251).contains(&limit(&swings)), "{}", limit(&swings));
    assert_eq!(limit(&[]), 1.0, "nothing known allows everything");
    assert_eq!(started(&tests).frozen(0, &Test::Limit { max: 0.02 }, 0.05), Some(Test::Limit { max: 0.02 }));
    assert_eq!(started(&tests).frozen(1, &tests[0].test, 0.05), None);
}

#[test]
fn requests_still_needed_shrink_with_the_evidence_and_end_at_none() {
    let tests = compare(0.01);
    let mut a = started(&tests);
    poll(&mut a, &tests, Batch::new(1.0, 0.0, 20_000.0, 20.0));
    let mut before = f64::INFINITY;
    for _ in 0..100 {
        let more = a.requests_needed(0, &tests, &SETTINGS, 0.1).expect("it can pass");
        assert!(more <= before, "{more} after {before}");
        before = more;
        poll(&mut a, &tests, Batch::new(10.0, 0.0, 90.0, 0.0));
    }
    assert!(a.fitness(0, &SETTINGS).fit && a.requests_needed(0, &tests, &SETTINGS, 0.1) == Some(0.0));
    assert_eq!(a.requests_needed(0, &compare(0.0), &SETTINGS, 0.1), Some(0.0), "already shown");
    assert_eq!(started(&tests).requests_needed(0, &compare(0.0), &SETTINGS, 0.1), None);
    let gross = started(&tests).gross_requests_needed(0, &SETTINGS).expect("it can");
    assert!((14.0..30.0).contains(&gross), "{gross}");
}
