//! The table of section 12 anew, beside the reference: each cell simulated again and compared in standard errors.
//!
//! The reference was simulated by another program with other random numbers; two shares of R and S runs differ by chance with a standard error of
//! `sqrt(p (1-p) (1/R + 1/S))`, and of a thousand cells some three are beyond three of those by chance alone.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::peers::{Method, one_step};
use super::{Ended, Scene};
use crate::stats::random::Random;

const MAIN: &str = include_str!("../../../tests/reference/sim_main.csv");

/// What was counted in one cell. Percentages of all runs; medians over the runs that ended so.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cell {
    /// Runs.
    pub runs: f64,
    /// Aborted.
    pub abort_pct: f64,
    /// Promoted.
    pub promote_pct: f64,
    /// Seconds to the abort.
    pub abort_s: Option<f64>,
    /// Failed canary requests by then.
    pub failed_at_abort: Option<f64>,
    /// Seconds to the promotion.
    pub promote_s: Option<f64>,
    /// Failed canary requests until the verdict or the end.
    pub failed: f64,
}

/// One cell of the table, simulated and as the reference has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// By which method.
    pub method: Method,
    /// Stable's error rate.
    pub p_stable: f64,
    /// The canary's, less stable's.
    pub delta: f64,
    /// The canary's share.
    pub weight: f64,
    /// Requests a second to both.
    pub rate_per_s: f64,
    /// Simulated here.
    pub here: Cell,
    /// The reference.
    pub reference: Cell,
}

impl Compared {
    /// By how many standard errors the shares of aborts and promotions are off, whichever is more.
    pub fn off(&self) -> f64 {
        let off = |a, b| standard_errors((a, self.here.runs), (b, self.reference.runs));
        off(self.here.abort_pct, self.reference.abort_pct).max(off(self.here.promote_pct, self.reference.promote_pct))
    }
}

/// By how many standard errors two percentages of so many runs differ, with Yates' correction, as many are near 0 or 100.
pub(super) fn standard_errors((a, r): (f64, f64), (b, s): (f64, f64)) -> f64 {
    let (a, b, both) = (a / 100.0, b / 100.0, 1.0 / r + 1.0 / s);
    let p = (a * r + b * s) / (r + s);
    let error = libm::sqrt(p * (1.0 - p) * both);
    if error > 0.0 { (libm::fabs(a - b) - 0.5 * both).max(0.0) / error } else { 0.0 }
}

/// The cells of the reference, not simulated yet.
pub fn reference_cells() -> Vec<Compared> {
    let number = |text: &str| text.parse::<f64>().ok();
    let cell = |line: &str| {
        let f: Vec<&str> = line.split(',').collect();
        let method = Method::ALL.into_iter().find(|m| f.first() == Some(&m.name()))?;
        let at = |i: usize| f.get(i).copied().and_then(number);
        let reference = Cell {
            runs: at(5)?,
            abort_pct: at(6)?,
            promote_pct: at(7)?,
            abort_s: at(9),
            failed_at_abort: at(10),
            promote_s: at(11),
            failed: at(12)?,
        };
        Some(Compared { method, p_stable: at(1)?, delta: at(2)?, weight: at(3)?, rate_per_s: at(4)?, here: Cell::default(), reference })
    };
    MAIN.lines().filter_map(cell).collect()
}

/// Simulates one cell; `number` keeps the streams of cells apart.
pub fn reference_cell(cell: &Compared, number: u64, runs: u32, seed: u64) -> Compared {
    let scene = Scene::constant(cell.p_stable, cell.delta, cell.rate_per_s);
    let run = |i: u32| one_step(cell.method, &scene, cell.weight, &mut Random::of_run(seed, number << 32 | u64::from(i)));
    let ended: Vec<Ended> = (0..runs).map(run).collect();
    Compared { here: summed(&ended), ..*cell }
}

/// The whole table: `runs` of each cell. Minutes of work for thousand runs; a caller with several cores gives `reference_cell` to each.
pub fn reference_table(runs: u32, seed: u64) -> ReferenceTable {
    let cells = reference_cells();
    ReferenceTable { cells: cells.iter().zip(0..).map(|(cell, i)| reference_cell(cell, i, runs, seed)).collect() }
}

pub(super) fn summed(ended: &[Ended]) -> Cell {
    let runs = ended.len() as f64;
    let aborted: Vec<&Ended> = ended.iter().filter(|e| e.aborted_s.is_some()).collect();
    let passed: Vec<f64> = ended.iter().filter(|e| e.aborted_s.is_none()).filter_map(|e| e.passed_s).collect();
    let pct = |many: usize| 100.0 * many as f64 / runs.max(1.0);
    Cell {
        runs,
        abort_pct: pct(aborted.len()),
        promote_pct: pct(passed.len()),
        abort_s: median(aborted.iter().filter_map(|e| e.aborted_s).collect()),
        failed_at_abort: median(aborted.iter().map(|e| e.failed).collect()),
        promote_s: median(passed),
        failed: ended.iter().map(|e| e.failed).sum::<f64>() / runs.max(1.0),
    }
}

pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let (a, b) = (values.get(n.checked_sub(1)? / 2)?, values.get(n / 2)?);
    Some(0.5 * (a + b))
}

/// Every cell, simulated and compared. Its text is the table.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceTable {
    /// In the reference's order.
    pub cells: Vec<Compared>,
}

impl ReferenceTable {
    /// Cells beyond three standard errors.
    pub fn beyond(&self) -> impl Iterator<Item = &Compared> {
        self.cells.iter().filter(|c| c.off() > 3.0)
    }
}

fn shown(c: &Cell) -> String {
    let open = 100.0 - c.abort_pct - c.promote_pct;
    let at = match (c.abort_s, c.failed_at_abort) {
        (Some(s), Some(n)) => format!("{s:.0}s {n:.0}"),
        _ => String::new(),
    };
    format!("{:>5.1}/{:>5.1}/{:>5.1} {at:<12}", c.abort_pct, c.promote_pct, libm::fabs(open))
}

impl fmt::Display for ReferenceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "abort/promote/undecided in %, median seconds to abort and failed canary requests by then; off: in standard errors")?;
        let columns = ("method", "p %", "canary +", "w %", "req/s", "here", "reference", "off");
        let (a, b, c, d, e, g, h, i) = columns;
        writeln!(f, "{a:<13}{b:>5} {c:>9} {d:>4} {e:>6}  {g:<31}{h:<31}{i:>4}")?;
        for c in &self.cells {
            let head = (c.method.name(), 100.0 * c.p_stable, 100.0 * c.delta, 100.0 * c.weight, c.rate_per_s);
            let (method, p, delta, w, rate) = head;
            writeln!(
                f,
                "{method:<13}{p:>5} {delta:>9.1} {w:>4.0} {rate:>6}  {:<31}{:<31}{:>4.1}",
                shown(&c.here),
                shown(&c.reference),
                c.off()
            )?;
        }
        let (many, all) = (self.beyond().count(), self.cells.len());
        writeln!(f, "{many} of {all} cells are off by more than three standard errors")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_read_whole() {
        let cells = reference_cells();
        assert_eq!(cells.len(), 540);
        assert!(Method::ALL.iter().all(|m| cells.iter().filter(|c| c.method == *m).count() == 135));
    }

    #[test]
    fn a_median_of_none_is_none() {
        assert_eq!([median(Vec::new()), median(alloc::vec![3.0, 1.0, 2.0]), median(alloc::vec![4.0, 1.0])], [None, Some(2.0), Some(2.5)]);
    }
}
