//! Every row of every reference table, within its tolerance.

use serin_core::stats::{
    Analysis, Batch, Bursts, Counting, Counts, Histogram, History, MetricTest, Settings, Split, Test, bet, forecast, interval,
};

use crate::table::{close, rows};

#[test]
fn bets_meet_the_reference() {
    let all = rows(include_str!("../reference/bet.csv"));
    assert_eq!(all.len(), 247 - 1);
    for r in &all {
        let batch = Batch::new(r.get("n_c"), r.get("x_c"), r.get("n_s"), r.get("x_s"));
        let b = bet(batch.canary.n, batch.stable.n, r.get("m"), r.get("rho"), r.get("theta_s"), r.get("theta_c"));
        let want = r.get("ln_s");
        close(r.line, "ln_s", b.ln_s(&batch), want, 1e-9 * want.abs().max(1.0));
        for (name, got) in [("x_null", b.x_null), ("k_c", b.k_c), ("k_s", b.k_s)] {
            if let Some(want) = r.maybe(name) {
                close(r.line, name, got, want, 1e-7 * want.abs());
            }
        }
    }
}

#[test]
fn replays_meet_the_reference() {
    let all = rows(include_str!("../reference/sequence.csv"));
    assert_eq!(all.len(), 361 - 1);
    let mut case = None;
    let mut analysis = Analysis::new(&[], &[]);
    for r in &all {
        let tests = [MetricTest::new(Test::Compare { margin: r.get("m"), ratio: r.get("rho") }, 1.0)];
        if case != Some(r.get("case")) {
            case = Some(r.get("case"));
            analysis = Analysis::new(&tests, &[Some(History { n: r.get("hist_n"), x: r.get("hist_x"), polls: vec![] })]);
        }
        if r.get("new_step") == 1.0 {
            analysis.start_step();
        }
        let bursts = if r.get("dispersion") == 1.0 { Bursts::Plain } else { Bursts::Off };
        let s = Settings { alpha: r.get("alpha"), beta: 0.05, bursts, interval_s: r.get("dt_s") };
        let relative = |what, got: f64, want: f64| close(r.line, what, got, want, 1e-9 * want.abs());
        relative("p_hat", analysis.stable_rate(0), r.get("p_hat"));
        let factor = if bursts == Bursts::Plain { analysis.bursts(0).expect("one metric").factor() } else { 1.0 };
        relative("disp_factor", factor, r.get("disp_factor"));
        let batch = Batch::new(r.get("dn_c"), r.get("dx_c"), r.get("dn_s"), r.get("dx_s"));
        analysis.judge(&tests, &s, &[Some(batch)], r.get("dt_s"), Counting::Full);
        let money = analysis.money(0).expect("one metric");
        let log = |what, got: f64| {
            if let Some(want) = r.maybe(what) {
                close(r.line, what, got, want, 1e-7);
            }
        };
        log("ln_e_fail", money.e().ln());
        log("ln_e_fail", analysis.harm(&tests, &s).ln_e);
        log("ln_e_pass", analysis.fitness(0, &s).ln_e);
        log("ln_staked", money.staked().ln());
        let (bank, reserve, k) = money.purse();
        relative("bank", bank, r.get("bank"));
        relative("reserve", reserve, r.get("reserve"));
        assert_eq!(k, r.get("k"), "line {}", r.line);
    }
}

#[test]
fn split_checks_meet_the_reference() {
    let all = rows(include_str!("../reference/split.csv"));
    assert_eq!(all.len(), 169 - 1);
    let mut split = Split::new();
    let (mut case, mut n, mut c) = (None, 0.0, 0.0);
    for r in &all {
        if case != Some(r.get("case")) {
            (case, split, n, c) = (Some(r.get("case")), Split::new(), 0.0, 0.0);
        }
        split.update(r.get("w"), r.get("n_total_cumulative") - n, r.get("n_c_cumulative") - c);
        (n, c) = (r.get("n_total_cumulative"), r.get("n_c_cumulative"));
        let want = r.get("ln_e_split");
        close(r.line, "ln_e_split", split.ln_e(), want, 1e-8 * want.abs().max(1.0));
    }
}

#[test]
fn intervals_meet_the_reference() {
    let all = rows(include_str!("../reference/interval.csv"));
    assert_eq!(all.len(), 79 - 1);
    for r in &all {
        let (lo, hi) = interval::rate(Counts::new(r.get("n"), r.get("x")), r.get("alpha"));
        for (name, got) in [("lo", lo), ("hi", hi)] {
            close(r.line, name, got, r.get(name), 1e-5 * r.get(name) + 1e-12);
        }
    }
}

#[test]
fn forecasts_meet_the_reference() {
    let all = rows(include_str!("../reference/forecast.csv"));
    assert_eq!(all.len(), 91 - 1);
    for r in &all {
        let (p, w, m, rho) = (r.get("p_s"), r.get("w"), r.get("m"), r.get("rho"));
        let (speed, l) = match r.text("kind") {
            "pass" => (forecast::pass_speed(p, w, m, rho), forecast::pass_evidence_needed(0.05)),
            _ => (forecast::harm_speed(p, r.get("theta_c"), w, m, rho), forecast::HARM_EVIDENCE),
        };
        let speed = speed.expect("every row has a verdict");
        let needed = forecast::needed(speed, l);
        let minutes = |n: f64| forecast::minutes(n, &forecast::Stream { weight: w, rate: r.get("rate_per_s"), bursts: 1.0 });
        let got = [
            ("L", l),
            ("g", speed.drift),
            ("v", speed.variance),
            ("n_min", needed.least),
            ("n50", needed.median),
            ("n90", needed.ninety),
            ("minutes50", minutes(needed.median)),
            ("minutes90", minutes(needed.ninety)),
        ];
        for (name, got) in got {
            close(r.line, name, got, r.get(name), 1e-6 * r.get(name));
        }
    }
}

#[test]
fn latency_margins_meet_the_reference() {
    let all = rows(include_str!("../reference/latency_margin.csv"));
    assert_eq!(all.len(), 61 - 1);
    for r in &all {
        let h = Histogram::new(&r.cumulative(), r.get("total"));
        let m = h.margins(r.get("q"), r.get("r")).expect("every row has margins");
        let (b, a) = (m.upper, m.lower);
        let got = [
            ("b_ms", b.map(|e| e.bound_ms)),
            ("a_ms", a.map(|e| e.bound_ms)),
            ("m_b", b.map(|e| e.margin)),
            ("m_b_max", b.map(|e| e.margin_max)),
            ("m_a", a.map(|e| e.margin)),
            ("m_a_max", a.map(|e| e.margin_max)),
            ("resolution", m.resolution()),
        ];
        for (name, got) in got {
            match (got, r.maybe(name)) {
                (Some(got), Some(want)) => close(r.line, name, got, want, 1e-9),
                (got, want) => assert_eq!(got, want, "line {} {name}", r.line),
            }
        }
    }
}

#[test]
fn quantile_intervals_meet_the_reference() {
    let all = rows(include_str!("../reference/quantile.csv"));
    assert_eq!(all.len(), 61 - 1);
    for r in &all {
        let h = Histogram::new(&r.cumulative(), r.get("total"));
        assert_eq!(h.quantile(r.get("q"), r.get("alpha")), (r.get("lower_ms"), r.get("upper_ms")), "line {}", r.line);
    }
}
