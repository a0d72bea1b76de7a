//! The table of section 12 anew, beside the reference: `cargo run --release -p serin-core --example reference [RUNS] [SEED]`.
//!
//! Uses every core; what it prints is in `docs/statistics.md`.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serin_core::stats::world::{ReferenceTable, reference_cell, reference_cells};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse::<u64>().ok());
    let (runs, seed) = (arguments.next().unwrap_or(1000) as u32, arguments.next().unwrap_or(1));
    let cells = reference_cells();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![None; cells.len()]));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((i, cell)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, cells.get(i)?))) {
                    let compared = reference_cell(cell, i as u64, runs, seed);
                    if let Ok(mut done) = done.lock() {
                        done[i] = Some(compared);
                    }
                }
            });
        }
    });
    let cells = done.into_inner().map_err(|e| std::io::Error::other(e.to_string()))?.into_iter().flatten().collect();
    write!(std::io::stdout().lock(), "{}", ReferenceTable { cells })
}
