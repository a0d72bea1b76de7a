//! Bursts, late faults, latency and the split check of section 12 anew: `cargo run --release -p serin-core --example studies [RUNS] [SEED]`.
//!
//! One core, some minutes for 1000 runs; what it prints is in `docs/statistics.md`.

use std::io::Write as _;

use serin_core::stats::world::studies;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse::<u64>().ok());
    let (runs, seed) = (arguments.next().unwrap_or(200) as u32, arguments.next().unwrap_or(1));
    write!(std::io::stdout().lock(), "{}", studies(runs, seed))
}
