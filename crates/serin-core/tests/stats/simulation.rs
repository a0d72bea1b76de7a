//! The claims of section 12, simulated: a part of the table in each run of the tests, the whole by `serin simulate --reference`.

use serin_core::stats::world::{Method, Scene, Trial, Until, reference_cell, reference_cells, try_once};
use serin_core::stats::{Bursts, Settings, random::Random};

/// Every eleventh cell, so that each method, rate and share is among them; a fixed seed, so that it always ends the same.
#[test]
fn a_part_of_the_reference_table_is_met_within_three_standard_errors() {
    let cells = reference_cells();
    for (i, cell) in cells.iter().enumerate().step_by(11) {
        let got = reference_cell(cell, i as u64, 80, 20);
        assert!(got.off() <= 3.0, "{:.1} standard errors off: {got:?}", got.off());
    }
    assert!(Method::ALL.iter().all(|m| cells.iter().step_by(11).any(|c| c.method == *m)));
}

/// Bursts of inner correlation 0.01 at 5,000 requests a poll: untreated, every identical canary would be aborted. 60 runs of a 5 % promise: more
/// than 14 aborts have a chance below 1e-6.
#[test]
fn bursts_convict_nobody_when_stables_past_is_known() {
    let scene = Scene { correlation: 0.01, ..Scene::constant(0.01, 0.0, 500.0) };
    let aborted = |bursts| {
        let settings = Settings { bursts, ..Trial::of_section_12().settings };
        let trial = Trial { settings, until: Until::Abort, ..Trial::of_section_12() };
        (0..60).filter(|i| try_once(&scene, &[(0.5, 1800.0)], &trial, &mut Random::of_run(9, *i)).aborted_s.is_some()).count()
    };
    assert!(aborted(Bursts::Auto) <= 14);
    assert!(aborted(Bursts::Off) > 14, "the world has bursts that matter");
}

/// A fault of 5 points that begins after 20 healthy minutes is found in about a minute, because new bets are placed at every poll.
#[test]
fn a_fault_that_begins_late_is_found_soon() {
    let scene = Scene { fault_from_s: 1200.0, ..Scene::constant(0.001, 0.05, 50.0) };
    let trial = Trial { until: Until::Abort, ..Trial::of_section_12() };
    let mut took: Vec<f64> = (0..100)
        .filter_map(|i| try_once(&scene, &[(0.1, 1800.0)], &trial, &mut Random::of_run(4, i)).aborted_s)
        .map(|s| s - 1200.0)
        .collect();
    took.sort_by(f64::total_cmp);
    assert!(took.len() >= 99 && took[0] > 0.0 && (30.0..=120.0).contains(&took[50]), "{took:?}");
}
