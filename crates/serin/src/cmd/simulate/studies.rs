//! What docs/statistics.md reports, anew: the specification's tables beside their reference numbers, and how often whole rollouts err.
//!
//! Each cell of a study has a seed of its own, so that the cores may take them in any order.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serin_core::reason::count;
use serin_core::simulate::{PromiseTable, promise_cells, simulate};
use serin_core::stats::world::{ReferenceTable, reference_cell, reference_cells, studies};

use super::{Study, cores, plan};
use crate::exit::{Exit, Outcome};
use crate::out;

/// Rollouts of a promise end undecided after this long: a person would have looked by then.
const LONGEST_S: f64 = 2.0 * 3600.0;

pub(super) fn run(study: Study, runs: u64, seed: u64) -> Outcome {
    let few = u32::try_from(runs).unwrap_or(u32::MAX);
    let begun = Instant::now();
    let text = match study {
        Study::Reference => {
            let cells = reference_cells();
            ReferenceTable { cells: each(&cells, |i, cell| reference_cell(cell, i, few, seed)) }.to_string()
        }
        Study::Cases => studies(few, seed).to_string(),
        Study::Promises => {
            let plan = plan(None)?;
            let cells = promise_cells(&plan);
            let done = each(&cells, |i, cell| (cell.clone(), simulate(&plan, &cell.world, runs, seed.wrapping_add(i), LONGEST_S)));
            let all = runs as f64 * done.len() as f64;
            out::talk(&format!("{} rollouts, {} a second", count(all), count(all / begun.elapsed().as_secs_f64().max(1e-9))));
            PromiseTable { cells: done, steps: plan.spec().steps.len() }.to_string()
        }
    };
    out::answer(&text)?;
    Ok(Exit::Done)
}

/// Each cell's result, in order; all cores take the next that nobody has.
fn each<C: Sync, R: Send>(cells: &[C], of: impl Fn(u64, &C) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..cores() {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(cell) = cells.get(i) else { break };
                    let result = of(i as u64, cell);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}
