//! The two promises over whole rollouts: cells of worlds in which nothing is wrong, or exactly the margin, and how often a plan errs in them.
//!
//! The specification promises at most alpha false aborts and beta wrong promotions; here both are counted, per cell, with the cells where a
//! plan is slow shown as plainly as the others. Deliberately no verdict on the counts: the reader sees them beside their standard error.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::outcome::Outcome;
use super::world::{Fault, Outage, World};
use crate::plan::{Bad, Plan};
use crate::stats::Test;

/// One world of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct PromiseCell {
    /// What stable's rate does.
    pub kind: &'static str,
    /// Its error rate.
    pub error_rate: f64,
    /// Requests a second.
    pub rate_per_s: f64,
    /// What the canary has more; 0: nothing.
    pub worse: f64,
    /// The whole of it.
    pub world: World,
}

/// Stable's error rates of the table.
const ERROR_RATES: [f64; 4] = [0.0001, 0.001, 0.01, 0.05];
/// Requests a second.
const RATES: [f64; 5] = [0.2, 5.0, 50.0, 500.0, 5000.0];

/// The cells: constant and drifting rates, an outage of ten points that both share, and bursts; each with a canary that is as good as stable, then with
/// one that is worse by exactly the margin that the plan asks of errors (none of the latter if it asks for none).
pub fn promise_cells(plan: &Plan) -> Vec<PromiseCell> {
    let margin = plan.metrics().iter().find_map(|m| match (&m.bad, &m.test.test) {
        (Bad::Errors, Test::Compare { margin, .. }) => Some(*margin),
        (Bad::Errors | Bad::SlowerThan { .. } | Bad::Quantile { .. } | Bad::Counted { .. }, _) => None,
    });
    let outage = Outage { from_s: 300.0, seconds: 180.0, errors: 0.10 };
    let mut cells = Vec::new();
    for worse in [Some(0.0), margin].into_iter().flatten() {
        for error_rate in ERROR_RATES {
            for rate_per_s in RATES {
                let faults = if worse > 0.0 { vec![Fault { errors: worse, ..Fault::default() }] } else { Vec::new() };
                let world = World { requests_per_s: vec![rate_per_s], error_rate, faults, ..World::default() };
                let kinds = [
                    ("constant", world.clone()),
                    ("drift", World { swing: 0.5, swing_s: 1500.0, ..world.clone() }),
                    ("outage", World { outages: vec![outage], ..world.clone() }),
                    ("bursts", World { bursts: 0.01, ..world }),
                ];
                cells.extend(kinds.map(|(kind, world)| PromiseCell { kind, error_rate, rate_per_s, worse, world }));
            }
        }
    }
    cells
}

/// Cells and what came of them, as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct PromiseTable {
    /// In the order of `promise_cells`.
    pub cells: Vec<(PromiseCell, Outcome)>,
    /// Steps of the plan.
    pub steps: usize,
}

impl PromiseTable {
    /// The cell with the most false aborts (percent), and the one with the most wrong promotions.
    pub fn worst(&self) -> (f64, f64) {
        let most = |of: fn(&PromiseCell, &Outcome) -> f64| self.cells.iter().map(|(c, o)| of(c, o)).fold(0.0, f64::max);
        (
            most(|c, o| if c.worse > 0.0 { 0.0 } else { 100.0 * o.rolled_back.share }),
            most(|c, o| if c.worse > 0.0 { 100.0 * o.promoted.share } else { 0.0 }),
        )
    }
}

impl fmt::Display for PromiseTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "aborted at a step + in bake / promoted / undecided in %, and the median time to promotion")?;
        let mut head = None;
        for (cell, o) in &self.cells {
            if head != Some(cell.worse) {
                head = Some(cell.worse);
                let what = if cell.worse > 0.0 {
                    "worse by exactly the margin: may be aborted, must not be promoted"
                } else {
                    "identical: must not be aborted"
                };
                writeln!(f, "{what} ({} runs a cell)\n{:<9}{:>7}{:>8}  {:>26}  {:>8}", o.runs, "rate", "p %", "req/s", "", "median")?;
            }
            let bake = o.by_step.get(&(self.steps + 1)).copied().unwrap_or(0) as f64 / o.runs.max(1) as f64;
            let pct = |v: f64| 100.0 * v;
            let median = o.promoted_s.map_or_else(String::new, |(m, _)| alloc::format!("{:.0} min", m / 60.0));
            writeln!(
                f,
                "{:<9}{:>7}{:>8}  {:>5.1} + {:>3.1} / {:>5.1} / {:>5.1}  {median:>8}",
                cell.kind,
                pct(cell.error_rate),
                cell.rate_per_s,
                pct(o.rolled_back.share - bake),
                pct(bake),
                pct(o.promoted.share),
                pct(o.undecided.share),
            )?;
        }
        let (aborts, promotions) = self.worst();
        writeln!(f, "most false aborts in a cell: {aborts:.1} %; most wrong promotions: {promotions:.1} %")
    }
}
