//! The other studies of section 12 anew: whole rollouts at the margin, late faults, bursts, latency, the split check.
//!
//! Each row is simulated with this crate's tests and stands beside the reference's. Rows of variants that Serin does not have (no cap, all
//! money at the start) are left out.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::reference::{median, standard_errors};
use super::{Ended, Past, Scene, Trial, Until, try_once};
use crate::stats::analysis::{Analysis, Bursts, Counting, History, MetricTest, Settings};
use crate::stats::counts::{Batch, Counts};
use crate::stats::latency::Histogram;
use crate::stats::random::Random;
use crate::stats::special::normal_cdf;
use crate::stats::split::Split;

const EXTRA: &str = include_str!("../../../tests/reference/sim_extra.csv");
const LATENCY: &str = include_str!("../../../tests/reference/sim_latency.csv");
const SPLIT: &str = include_str!("../../../tests/reference/sim_split.csv");

/// One row: what was simulated here, and what the reference has, in percent and seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct StudyRow {
    /// Which study.
    pub study: String,
    /// Runs here and in the reference.
    pub runs: (f64, f64),
    /// Aborted (or alarmed).
    pub abort_pct: (f64, Option<f64>),
    /// Passed.
    pub pass_pct: (f64, Option<f64>),
    /// Median seconds to the abort.
    pub abort_s: (Option<f64>, Option<f64>),
}

impl StudyRow {
    /// By how many standard errors aborts and passes differ from the reference, whichever is more.
    pub fn off(&self) -> f64 {
        let (r, s) = self.runs;
        let off = |(here, reference): (f64, Option<f64>)| reference.map_or(0.0, |of| standard_errors((here, r), (of, s)));
        let either = [self.abort_pct, self.pass_pct].map(off);
        either[0].max(either[1])
    }
}

/// All rows, as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct StudyTable {
    /// In the reference's order.
    pub rows: Vec<StudyRow>,
}

impl fmt::Display for StudyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ("study", "abort %", "reference", "pass %", "reference", "s", "reference", "off");
        let (a, b, c, d, e, g, h, i) = columns;
        writeln!(f, "{a:<66}{b:>8}{c:>10}{d:>8}{e:>10}{g:>6}{h:>10}{i:>5}")?;
        let number = |v: Option<f64>, digits: usize| v.map_or_else(String::new, |v| format!("{v:.digits$}"));
        for r in &self.rows {
            let (pass, wanted) = r.pass_pct;
            let (s, of) = r.abort_s;
            let off = if r.abort_pct.1.is_some() { format!("{:.1}", r.off()) } else { String::new() };
            let (a, b) = (number(Some(r.abort_pct.0), 1), number(r.abort_pct.1, 1));
            let (c, d) = (number(Some(pass), 1), number(wanted, 1));
            writeln!(f, "{:<66}{a:>8}{b:>10}{c:>8}{d:>10}{:>6}{:>10}{off:>5}", r.study, number(s, 0), number(of, 0))?;
        }
        let (beyond, all) = (self.rows.iter().filter(|r| r.off() > 3.0).count(), self.rows.len());
        writeln!(f, "{beyond} of {all} rows are off by more than three standard errors")
    }
}

/// Every study; `runs` of each row.
pub fn studies(runs: u32, seed: u64) -> StudyTable {
    let mut rows: Vec<StudyRow> = EXTRA.lines().skip(1).zip(0..).flat_map(|(line, i)| extra(line, runs, seed ^ (i << 40))).collect();
    rows.extend(LATENCY.lines().skip(1).zip(1000..).filter_map(|(line, i)| latency(line, runs, seed ^ (i << 40))));
    rows.extend(SPLIT.lines().skip(1).zip(2000..).filter_map(|(line, i)| split(line, runs, seed ^ (i << 40))));
    rows.push(bursts_of_the_fault(runs, seed ^ (3000 << 40)));
    StudyTable { rows }
}

/// What stable's past cannot teach, and the reference does not have: a fault of exactly the margin that itself comes in bursts, on a service that hardly fails.
fn bursts_of_the_fault(runs: u32, seed: u64) -> StudyRow {
    let scene = Scene { correlation: 0.01, ..Scene::constant(0.0001, 0.005, 5000.0) };
    let settings = Settings { bursts: Bursts::Auto, ..Trial::of_section_12().settings };
    // Five minutes at a quarter come first and cannot be passed: as in a rollout, the confirm step is not the first.
    let trial = Trial { settings, least_s: 301.0, ..Trial::of_section_12() };
    let one = |i: u32| try_once(&scene, &[(0.25, 300.0), (0.5, 1800.0)], &trial, &mut Random::of_run(seed, u64::from(i)));
    let ended: Vec<Ended> = (0..runs).map(one).collect();
    let label = "the fault alone comes in bursts: icc=0.01 boundary w=0.25, 0.5".to_string();
    row(label, &ended, (f64::from(runs), None, None, None), 0.0)
}

fn fields(line: &str) -> Vec<String> {
    let (mut out, mut quoted) = (Vec::from([String::new()]), false);
    for c in line.chars() {
        match (c, quoted) {
            ('"', _) => quoted = !quoted,
            (',', false) => out.push(String::new()),
            _ => out.last_mut().into_iter().for_each(|f| f.push(c)),
        }
    }
    out
}

fn number(fields: &[String], i: usize) -> Option<f64> {
    fields.get(i)?.parse().ok()
}

fn row(study: String, ended: &[Ended], reference: (f64, Option<f64>, Option<f64>, Option<f64>), from_s: f64) -> StudyRow {
    let runs = ended.len() as f64;
    let pct = |many: usize| 100.0 * many as f64 / runs.max(1.0);
    let aborted: Vec<f64> = ended.iter().filter_map(|e| e.aborted_s).collect();
    let passed = pct(ended.iter().filter(|e| e.passed_s.is_some()).count());
    let (of_runs, abort_pct, pass_pct, abort_s) = reference;
    StudyRow {
        study,
        runs: (runs, of_runs),
        abort_pct: (pct(aborted.len()), abort_pct),
        pass_pct: (passed, pass_pct),
        abort_s: (median(aborted).map(|s| s - from_s), abort_s),
    }
}

/// The study of a line of `sim_extra.csv`; two rows for bursts as they are by default, one of them without a reference.
fn extra(line: &str, runs: u32, seed: u64) -> Vec<StudyRow> {
    let f = fields(line);
    let (Some(p), Some(rate), Some(of_runs)) = (number(&f, 2), number(&f, 3), number(&f, 4)) else { return Vec::new() };
    let (study, variant) = (f[0].as_str(), f[1].as_str());
    let reference = (of_runs, number(&f, 5), number(&f, 6), number(&f, 7));
    let after = |key: &str| study.split(key).nth(1)?.split(' ').next()?.parse::<f64>().ok();
    let base = Trial { until: Until::End, ..Trial::of_section_12() };
    let run = |scene: Scene, steps: &[(f64, f64)], trial: Trial| -> Vec<Ended> {
        (0..runs).map(|i| try_once(&scene, steps, &trial, &mut Random::of_run(seed, u64::from(i)))).collect()
    };
    let label = format!("{study} · {variant} · p {} %, {rate}/s", 100.0 * p);
    if study.starts_with("rollout") {
        let steps = [0.01, 0.05, 0.10, 0.25, 0.50].map(|w| (w, 600.0));
        let constant = Scene::constant(p, 0.005, rate);
        let scene =
            if variant == "constant" { constant } else { Scene { swing: 0.5, swing_s: 1200.0, outage: (900.0, 1080.0, 0.10), ..constant } };
        return Vec::from([row(label, &run(scene, &steps, base), reference, 0.0)]);
    }
    if study.starts_with("+5 points") && variant == "restarting bets" {
        let weight = after("w=").unwrap_or(0.1);
        let (scene, base) = (Scene { fault_from_s: 1200.0, ..Scene::constant(p, 0.05, rate) }, Trial { until: Until::Abort, ..base });
        return Vec::from([row(label, &run(scene, &[(weight, 3000.0)], base), reference, 1200.0)]);
    }
    if study.starts_with("bursts") {
        let (Some(correlation), Some(weight)) = (after("icc="), after("w=")) else { return Vec::new() };
        let delta = if study.ends_with("identical") { 0.0 } else { if study.ends_with("boundary") { 0.005 } else { 0.05 } };
        let scene = Scene { correlation, ..Scene::constant(p, delta, rate) };
        // The reference gave this metric the whole budget here, and no least time.
        let base = Trial { weight: 1.0, least_s: 0.0, until: Until::Abort, ..base };
        let with = |bursts, past| Trial { past, settings: Settings { bursts, ..base.settings }, ..base };
        let one = |label: String, trial, reference| row(label, &run(scene, &[(weight, 1800.0)], trial), reference, 0.0);
        return match variant {
            "cap" => Vec::from([one(label, with(Bursts::Off, Past::Polls), reference)]),
            "cap+dispersion, no history" => Vec::from([one(label, with(Bursts::Plain, Past::Rate), reference)]),
            "cap+dispersion" => {
                let default = format!("{study} · as by default");
                Vec::from([
                    one(label, with(Bursts::Plain, Past::Polls), reference),
                    one(default, with(Bursts::Auto, Past::Polls), (of_runs, None, None, None)),
                ])
            }
            _ => Vec::new(),
        };
    }
    Vec::new()
}

/// The mesh's buckets, in milliseconds.
const BOUNDS: [f64; 15] = [0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 30_000.0, 60_000.0];

/// Log-normal latency, median 40 ms, sigma 0.8: a quantile that may grow by a fifth, as two tests of a quarter of the budget each.
fn latency(line: &str, runs: u32, seed: u64) -> Option<StudyRow> {
    let f = fields(line);
    let (q, r, slower, weight, rate) = (number(&f, 0)?, number(&f, 1)?, number(&f, 5)?, number(&f, 6)?, number(&f, 7)?);
    let reference = (number(&f, 8)?, number(&f, 9), number(&f, 10), number(&f, 11));
    let over = |bound: f64, factor: f64| 1.0 - normal_cdf(libm::log(bound / factor / 40.0) / 0.8);
    let n = 1800.0 * rate * (1.0 - weight);
    let cumulative: Vec<(f64, f64)> = BOUNDS.iter().map(|b| (*b, n * (1.0 - over(*b, 1.0)))).collect();
    let margins = Histogram::new(&cumulative, n).margins(q, r)?;
    let edges: Vec<_> = margins.edges().collect();
    let tests: Vec<MetricTest> = edges.iter().map(|e| MetricTest::new(e.test(), 0.25)).collect();
    let settings = Trial::of_section_12().settings;
    let one = |i: u32| {
        let mut random = Random::of_run(seed, u64::from(i));
        let mut arm = |mean: f64, factor: f64| {
            let n = random.poisson(mean);
            let (mut left, mut share) = (n, 1.0);
            edges
                .iter()
                .map(|e| {
                    let here = over(e.bound_ms, factor);
                    left = random.binomial(left, (here / share).min(1.0));
                    share = here;
                    Counts::new(n, left)
                })
                .collect::<Vec<_>>()
        };
        let known = arm(n, 1.0).into_iter().map(|c| Some(History { n: c.n, x: c.x, polls: Vec::new() })).collect::<Vec<_>>();
        let mut analysis = Analysis::new(&tests, &known);
        analysis.start_step();
        let mut ended = Ended::default();
        for poll in 1..=180 {
            let (canary, stable) = (arm(10.0 * rate * weight, slower), arm(10.0 * rate * (1.0 - weight), 1.0));
            let batches: Vec<_> = canary.into_iter().zip(stable).map(|(canary, stable)| Some(Batch { canary, stable })).collect();
            analysis.judge(&tests, &settings, &batches, 10.0, Counting::Full);
            let harm = analysis.harm(&tests, &settings);
            let at_s = f64::from(poll) * 10.0;
            if harm.failed {
                ended.aborted_s = Some(at_s);
                break;
            }
            if at_s >= 60.0 && !harm.suspected && (0..tests.len()).all(|m| analysis.fitness(m, &settings).fit) {
                ended.passed_s = Some(at_s);
                break;
            }
        }
        ended
    };
    let ended: Vec<Ended> = (0..runs).map(one).collect();
    let label = format!("latency p{} {slower} times as long · {} % of {rate}/s", 100.0 * q, 100.0 * weight);
    Some(row(label, &ended, reference, 0.0))
}

fn split(line: &str, runs: u32, seed: u64) -> Option<StudyRow> {
    let f = fields(line);
    let (weight, rate, factor, of_runs) = (number(&f, 0)?, number(&f, 1)?, number(&f, 2)?, number(&f, 3)?);
    let one = |i: u32| {
        let mut random = Random::of_run(seed, u64::from(i));
        let mut split = Split::new();
        let alarm = |poll: &i32| {
            let n = random.poisson(10.0 * rate);
            split.update(weight, n, random.binomial(n, weight * factor));
            // The reference knows the share test alone, not the rule for no request at all.
            split.ln_e() >= libm::log(1000.0) && *poll > 0
        };
        Ended { aborted_s: (1..=180).find(alarm).map(|poll| f64::from(poll) * 10.0), ..Ended::default() }
    };
    let ended: Vec<Ended> = (0..runs).map(one).collect();
    let label = format!("split: share {} times the weight · {} % of {rate}/s", factor, 100.0 * weight);
    Some(row(label, &ended, (of_runs, number(&f, 4), None, number(&f, 5)), 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_that_serin_can_do_has_its_study() {
        let table = studies(1, 1);
        // 8 rollouts, 4 late faults, 18 worlds of bursts in three variants and as by default, 30 of latency, 27 of shares, and one of our own.
        assert_eq!(table.rows.len(), 8 + 4 + 18 * 4 + 30 + 27 + 1);
        assert!(table.to_string().lines().count() > table.rows.len());
    }
}
